//! What a plan reads of a prompt itself.
use std::sync::Arc;

use candle_core::{DType, IndexOp, Result, Tensor, bail};
use kv_core::{Geometry, PromptRows, Reads, Rotation, TokenClass};
use kv_hook::RotationTables;

use super::pass::Pass;
use crate::{
    StartError,
    facts::{OutputProjections, token_classes},
    model::ModelFiles,
};

/// What policies read of the model, found when the pool is opened.
#[derive(Debug, Default)]
pub(super) struct Sources {
    projections: Option<OutputProjections>,
    /// What kind of text every token is, by its number.
    classes: Option<Vec<TokenClass>>,
}

impl Sources {
    /// Reads what is asked for from the model's files.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the files are not known, or do not hold it.
    pub(super) fn read(
        policy: &str,
        reads: Reads,
        files: Option<&ModelFiles>,
        geometry: &Geometry,
    ) -> std::result::Result<Self, StartError> {
        if !(reads.output_norms || reads.classes) {
            return Ok(Self::default());
        }
        let Some(files) = files else {
            return Err(StartError::Model(format!(
                "the policy {policy} reads {} from the model's files, and where they are is not known: say so with \
                 `Runtime::read_model`, or `WithKvPolicy::model_files`",
                if reads.classes {
                    "the tokenizer"
                } else {
                    "the output projections"
                }
            )));
        };
        let projections = reads
            .output_norms
            .then(|| OutputProjections::read(files, geometry));
        let classes = reads.classes.then(|| token_classes(files));
        Ok(Self {
            projections: projections.transpose()?,
            classes: classes.transpose()?,
        })
    }

    /// What kind of text tokens are; beyond the tokenizer's last number they are text.
    pub(super) fn classes_of(&self, tokens: &[u32]) -> Vec<TokenClass> {
        let known = self.classes.as_deref().unwrap_or_default();
        let class = |&token: &u32| known.get(token as usize).copied().unwrap_or_default();
        tokens.iter().map(class).collect()
    }
}

/// One prompt's parts, on the host.
#[derive(Debug, Default)]
pub(super) struct Parts {
    queries: Option<Vec<f32>>,
    keys: Option<Vec<f32>>,
    values: Option<Vec<f32>>,
    output_norms: Option<Vec<f32>>,
    classes: Option<Vec<TokenClass>>,
    rotation: Option<Arc<Rotation>>,
}

impl Parts {
    /// Copies what is read of the first `length` tokens of the batch's sequence `index`.
    pub(super) fn read(pass: &mut Pass<'_>, index: usize, length: usize) -> Result<Self> {
        let reads = pass.opened.needs.reads;
        if !reads.any() {
            return Ok(Self::default());
        }
        let call = pass.call;
        let rows = |tensor: &Tensor, is_read: bool| {
            let read = || -> Result<Vec<f32>> { floats(&tensor.i(index)?.narrow(1, 0, length)?) };
            is_read.then(read).transpose()
        };
        let mut parts = Self {
            queries: rows(call.queries, reads.queries)?,
            keys: rows(call.keys, reads.keys)?,
            values: rows(call.values, reads.values)?,
            ..Self::default()
        };
        let sources = &pass.opened.sources;
        if let Some(projections) = &sources.projections {
            let values = call.values.i(index)?.narrow(1, 0, length)?;
            parts.output_norms = Some(projections.norms(pass.layer, &values)?);
        }
        if reads.classes {
            let tokens = call.batch.tokens.i(index)?.narrow(0, 0, length)?;
            parts.classes = Some(sources.classes_of(&numbers(&tokens)?));
        }
        if reads.rotation {
            parts.rotation = Some(rotation(pass)?);
        }
        let floats = [
            &parts.queries,
            &parts.keys,
            &parts.values,
            &parts.output_norms,
        ];
        let copied: usize = floats.into_iter().flatten().map(Vec::len).sum();
        pass.counts.kernels.read_prompt += 1;
        pass.counts.kernels.read_prompt_bytes += (copied * size_of::<f32>()) as u64;
        Ok(parts)
    }

    /// What a plan reads of the rows that a layer holds, `[H, rows, D]`.
    pub(super) fn of_held(
        pass: &mut Pass<'_>,
        (keys, values): (&[f32], &[f32]),
        rows: usize,
    ) -> Result<Self> {
        let Reads {
            queries,
            keys: reads_keys,
            values: reads_values,
            classes,
            rotation,
            ..
        } = pass.opened.needs.reads;
        if queries || classes || rotation {
            bail!("a plan of a chunk reads what only a whole prompt has"); // cannot be: such policies are refused at start-up
        }
        let geometry = &pass.opened.geometry;
        let norms = match &pass.opened.sources.projections {
            None => None,
            Some(projections) => {
                let shape = (geometry.kv_heads, rows, geometry.head_dim);
                let device = pass.call.values.device();
                let values = Tensor::from_slice(values, shape, device)?;
                Some(projections.norms(pass.layer, &values)?)
            }
        };
        let parts = Self {
            keys: reads_keys.then(|| keys.to_vec()),
            values: reads_values.then(|| values.to_vec()),
            output_norms: norms,
            ..Self::default()
        };
        pass.counts.kernels.read_prompt += u64::from(pass.opened.needs.reads.any());
        Ok(parts)
    }

    /// As a policy sees them; `None` where it reads nothing.
    pub(super) fn shown(&self, pass: &Pass<'_>, length: usize) -> Option<PromptRows<'_>> {
        let Geometry {
            head_dim, group, ..
        } = pass.opened.geometry;
        let shown = PromptRows {
            head_dim,
            group,
            rows: length,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
            queries: self.queries.as_deref(),
            keys: self.keys.as_deref(),
            values: self.values.as_deref(),
            rotation: self.rotation.as_deref(),
            output_norms: self.output_norms.as_deref(),
            classes: self.classes.as_deref(),
        };
        pass.opened.needs.reads.any().then_some(shown)
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Numbers of tokens.
pub(super) fn numbers(tokens: &Tensor) -> Result<Vec<u32>> {
    tokens.to_dtype(DType::U32)?.flatten_all()?.to_vec1()
}

/// The tables of a call, brought to the host once for all calls with the same.
pub(super) fn rotation(pass: &mut Pass<'_>) -> Result<Arc<Rotation>> {
    let call = pass.call;
    let Some(RotationTables {
        cos,
        sin,
        is_adjacent,
    }) = &call.rotation
    else {
        bail!(
            "the policy {} reads how queries and keys are turned by their position, which this model does not do with the engine's \
             usual rotary embedding",
            pass.config.policy
        );
    };
    if let Some((id, known)) = pass.rotation.as_ref()
        && *id == cos.id()
    {
        return Ok(known.clone());
    }
    let pairs = cos.dim(1)?;
    if 2 * pairs > pass.opened.geometry.head_dim {
        bail!(
            "a rotation of {pairs} pairs of dimensions for heads of {}",
            pass.opened.geometry.head_dim
        );
    }
    let rotation = Arc::new(Rotation::new(
        pairs,
        floats(cos)?,
        floats(sin)?,
        *is_adjacent,
    ));
    *pass.rotation = Some((cos.id(), rotation.clone()));
    Ok(rotation)
}
