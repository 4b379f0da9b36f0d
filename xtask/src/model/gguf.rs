//! Looks at GGUF files without reading their weights.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result, bail};
use candle_core::quantized::gguf_file::Content;

const MAGIC: &[u8; 4] = b"GGUF";

/// Refuses a file that is missing or does not start like GGUF.
pub(crate) fn check_magic(path: &Path) -> Result<()> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| {
        format!("the model {name} cannot be read; check HEADROOM_MODEL or --model")
    })?;
    let mut start = [0; MAGIC.len()];
    let known = file.read_exact(&mut start).is_ok() && start == *MAGIC;
    if !known {
        bail!(
            "the model {name} is not a GGUF file; name a file that ends in .gguf with HEADROOM_MODEL or --model"
        );
    }
    Ok(())
}

/// Refuses a file whose header cannot be read or that ends before its last tensor does.
pub(crate) fn check_whole(path: &Path) -> Result<()> {
    check_magic(path)?;
    let file = File::open(path)?;
    let found = file.metadata()?.len();
    let content = Content::read(&mut BufReader::new(file)).context("its header cannot be read")?;
    let ends = content.tensor_infos.values().map(|info| {
        let bytes =
            info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
        content.tensor_data_offset + info.offset + bytes as u64
    });
    let wanted = ends.max().unwrap_or(content.tensor_data_offset);
    if found < wanted {
        bail!("it ends too early, at {found} of {wanted} bytes");
    }
    Ok(())
}
