//! Cases with one mask, after the prompt.
use crate::{
    arrays::Arrays,
    bound::Bound,
    case::Case,
    compare::{Finding, Tally},
    error::Stop,
    mask::Mask,
    tie::{self, Rows},
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
    let reference = arrays.scores(case)?;
    for layer in 0..mask.layers {
        let shown = match (bound.looks(), arrays.layer(layer)) {
            (false, _) => None,
            (true, Some(tensors)) => {
                Some(bound.show(bound.layer(tensors), mask.tokens, arrays.rotation())?)
            }
            (true, None) => continue,
        };
        let ours = bound.kept(layer, mask.tokens, shown.as_ref());
        let theirs = mask.kept(layer, 0);
        let is_tie = |expected: &[Vec<u32>]| {
            let ours = &ours;
            let rows = Rows { ours, expected };
            let scores = reference.get(&layer).map(Vec::as_slice);
            let place = (layer, mask.tokens);
            let as_right = |shown| tie::is_as_right(bound, place, shown, rows, scores);
            shown.as_ref().is_some_and(as_right)
        };
        let newest = mask
            .tokens
            .checked_sub(1)
            .and_then(|n| u32::try_from(n).ok());
        tally.add(&format!("layer {layer}"), (&ours, &theirs), newest, is_tie);
        tally.add_layer();
    }
    Ok(tally.finding(case, mask.layers))
}
