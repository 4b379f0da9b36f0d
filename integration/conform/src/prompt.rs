//! Cases with one mask, after the prompt.
use crate::{
    arrays::Arrays,
    bound::Bound,
    case::Case,
    compare::{Finding, Tally},
    error::Stop,
    mask::Mask,
    tie,
};

/// Compares every layer that can be.
pub(crate) fn check(
    case: &Case,
    bound: &Bound,
    mask: &Mask,
    arrays: &Arrays,
) -> Result<Finding, Stop> {
    if mask.steps != 1 {
        return Err(Stop::case("a mask with steps for a method without"));
    }
    let mut tally = Tally::default();
    for layer in 0..mask.layers {
        let scores = match (bound.observes(), arrays.layer(layer)) {
            (false, _) => None,
            (true, Some(tensors)) => Some(bound.observe(&bound.layer(tensors), mask.tokens)?),
            (true, None) => continue,
        };
        let scores = scores.as_deref();
        let ours = bound.kept(layer, mask.tokens, scores);
        let theirs = mask.kept(layer, 0);
        let is_tie = |other: &[Vec<u32>]| {
            let leaning = |scores| tie::leaning(bound, layer, mask.tokens, scores, other);
            scores.and_then(leaning).is_some()
        };
        tally.add(&format!("layer {layer}"), &ours, &theirs, is_tie);
        tally.add_layer();
        tally.note_newest(&theirs, mask.tokens);
    }
    Ok(tally.finding(case, mask.layers))
}
