//! What a policy asked to see of a prompt: one kernel call for one sequence of one layer, and none that nobody asked for.
use attention_kernels::{
    AccumulatedArgs, KernelError, KeyNormsArgs, WindowArgs, key_norms, observe_accumulated,
    observe_window,
};
use kv_core::{Geometry, Needs, Observation};

use super::KernelCalls;

/// One sequence's queries and keys of a layer, as they stand in a padded batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptRows<'a> {
    /// `[H * G, rows, D]`; empty where the observation reads no queries.
    pub(super) queries: &'a [f32],
    /// `[H, rows, D]`.
    pub(super) keys: &'a [f32],
    /// Rows of a head, padding included.
    pub(super) rows: usize,
    /// Tokens to observe, `n`.
    pub(super) tokens: usize,
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
}

/// Whether an observation of the prompt reads queries.
pub(super) const fn reads_queries(observation: Observation) -> bool {
    matches!(
        observation,
        Observation::Window { .. } | Observation::Accumulated | Observation::Rows
    )
}

/// Scores of the prompt, `[H, n]`, or `None` where nothing is observed.
pub(super) fn observe(
    geometry: &Geometry,
    needs: &Needs,
    prompt: &PromptRows<'_>,
    calls: &mut KernelCalls,
) -> Result<Option<Vec<f32>>, KernelError> {
    let &PromptRows {
        queries,
        keys,
        rows,
        tokens,
        scale,
        softcap,
    } = prompt;
    let (group, head_dim, reduction) = (geometry.group, geometry.head_dim, needs.reduction);
    let scores = match needs.observation {
        Observation::Window { queries: window } => {
            calls.observe_window += 1;
            observe_window(&WindowArgs {
                queries,
                keys,
                rows,
                tokens,
                group,
                head_dim,
                scale,
                softcap,
                window,
                reduction,
            })?
        }
        Observation::Accumulated | Observation::Rows => {
            calls.observe_accumulated += 1;
            observe_accumulated(&AccumulatedArgs {
                queries,
                keys,
                rows,
                tokens,
                group,
                head_dim,
                scale,
                softcap,
                reduction,
            })?
        }
        Observation::KeyNorms => {
            calls.key_norms += 1;
            key_norms(&KeyNormsArgs {
                keys,
                rows,
                tokens,
                head_dim,
            })?
        }
        // Others are refused when the pool is opened.
        _ => return Ok(None),
    };
    Ok(Some(scores))
}
