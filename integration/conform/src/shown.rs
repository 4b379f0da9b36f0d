//! What a policy is shown of a layer's prompt.
use std::borrow::Cow;

use kv_core::{PromptRows, Reads, Rotation};

use crate::{error::Stop, layer::Layer};

/// One layer's prompt, as far as a policy asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Shown<'a> {
    layer: Cow<'a, Layer>,
    /// What was observed, `[H][n]`.
    pub(crate) scores: Option<Vec<Vec<f32>>>,
    reads: Reads,
    rotation: Option<&'a Rotation>,
    /// `[H, T]`.
    output_norms: Option<Vec<f32>>,
}

impl<'a> Shown<'a> {
    /// What `reads` names of a layer, and what was observed of it.
    pub(crate) fn new(
        layer: Cow<'a, Layer>,
        reads: Reads,
        rotation: Option<&'a Rotation>,
        scores: Option<Vec<Vec<f32>>>,
    ) -> Result<Self, Stop> {
        if reads.classes {
            return Err(Stop::unsupported(
                "case files do not say what kind of text a token is",
            ));
        }
        if reads.rotation && rotation.is_none() {
            return Err(Stop::unsupported(
                "the case file's `meta` has no `rope_theta`, which the policy reads",
            ));
        }
        let missing = |name| Stop::unsupported(format!("the file has no {name} of a layer"));
        if (reads.values || reads.output_norms) && layer.values.is_none() {
            return Err(missing("values (`v`)"));
        }
        let output_norms = if reads.output_norms {
            let norms = layer.output_norms();
            Some(norms.ok_or_else(|| missing("output projection (`o_proj_weight`)"))?)
        } else {
            None
        };
        Ok(Self {
            layer,
            scores,
            reads,
            rotation,
            output_norms,
        })
    }

    /// The same with other scores.
    pub(crate) fn with_scores(&self, scores: Vec<Vec<f32>>) -> Self {
        Self {
            scores: Some(scores),
            ..self.clone()
        }
    }

    /// What the policy reads of the prompt itself.
    pub(crate) fn rows(&self, scale: f32) -> PromptRows<'_> {
        let (layer, reads) = (&*self.layer, self.reads);
        let shape = layer.shape;
        PromptRows {
            head_dim: shape.head_dim,
            group: shape.query_heads / shape.kv_heads,
            rows: shape.tokens,
            scale,
            softcap: None,
            queries: reads.queries.then_some(&layer.queries),
            keys: reads.keys.then_some(&layer.keys),
            values: layer.values.as_deref().filter(|_| reads.values),
            rotation: self.rotation.filter(|_| reads.rotation),
            output_norms: self.output_norms.as_deref(),
            classes: None,
        }
    }

    /// Whether the policy reads any of the prompt.
    pub(crate) fn is_read(&self) -> bool {
        self.reads.any()
    }
}
