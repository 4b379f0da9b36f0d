//! What [`attend_prompt`](crate::attend_prompt()) computes.

use super::attend;
use crate::AttendPromptArgs;

/// Attention of every query of a prompt to the tokens that it sees ([`kv_core::Sight::sees`]), each by [`attend`], whose bound
/// holds: `[H * G, rows, D]`, in `f64`, with zeros for padding.
///
/// # Panics
///
/// Where the op refuses the arguments' shapes.
#[must_use]
pub fn attend_prompt(args: &AttendPromptArgs<'_>) -> Vec<f64> {
    let prompt = &args.prompt;
    let (rows, head_dim) = (prompt.rows, prompt.head_dim);
    let mut out = Vec::with_capacity(prompt.queries.len());
    for (index, query) in prompt.queries.chunks_exact(head_dim).enumerate() {
        let (query_head, at) = (index / rows, index % rows);
        if at >= prompt.tokens {
            out.extend(vec![0.0; head_dim]);
            continue;
        }
        let head = query_head / prompt.group;
        let seen = |of: &[f32]| -> Vec<f32> {
            let of = of[head * rows * head_dim..].chunks_exact(head_dim);
            let seen = of.take(prompt.tokens).enumerate();
            let seen = seen.filter(|(token, _)| args.sights[head].sees(at, *token));
            seen.flat_map(|(_, row)| row.to_vec()).collect()
        };
        let (keys, values) = (seen(prompt.keys), seen(args.values));
        out.extend(attend(&keys, &values, query, prompt.scale, prompt.softcap));
    }
    out
}
