//! Which scores of a block of queries are worked out, and which of them are hidden.

use std::ops::Range;

use kv_core::Sight;

/// The tokens that any query of `queries` sees, in order and in two pieces.
pub(super) fn seen_by(sight: Sight, queries: &Range<usize>) -> [Range<usize>; 2] {
    let Range { start, end } = *queries;
    match sight {
        Sight::Streaming { sinks, recent } => {
            let oldest = (start + 1).saturating_sub(recent);
            if oldest > sinks {
                [0..sinks, oldest..end]
            } else {
                [0..end, end..end]
            }
        }
        Sight::Causal => [0..end, end..end],
    }
}

/// Hides what `query` does not see of `tokens` from a softmax over their scores.
#[inline(always)]
pub(super) fn hide(sight: Sight, query: usize, tokens: &Range<usize>, scores: &mut [f32]) {
    hide_between(query + 1, usize::MAX, tokens, scores);
    if let Sight::Streaming { sinks, recent } = sight {
        hide_between(sinks, (query + 1).saturating_sub(recent), tokens, scores);
    }
}

#[inline(always)]
fn hide_between(start: usize, end: usize, tokens: &Range<usize>, scores: &mut [f32]) {
    let (start, end) = (start.max(tokens.start), end.min(tokens.end));
    if start < end {
        scores[start - tokens.start..end - tokens.start].fill(f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_and_not_hidden_is_what_the_rule_says() {
        let streaming = |sinks, recent| Sight::Streaming { sinks, recent };
        let sights = [
            Sight::Causal,
            streaming(0, 1),
            streaming(2, 3),
            streaming(4, 1),
            streaming(3, 40),
        ];
        for sight in sights {
            for (start, end) in
                (0..20).flat_map(|start| (start + 1..24).map(move |end| (start, end)))
            {
                let seen = seen_by(sight, &(start..end));
                assert!(seen[0].start == 0 && seen[0].end <= seen[1].start && seen[1].end == end);
                for query in start..end {
                    let is_visible = |token: usize| {
                        seen.iter().any(|piece| {
                            let mut scores = vec![0.0; piece.len()];
                            hide(sight, query, piece, &mut scores);
                            piece.contains(&token) && scores[token - piece.start] == 0.0
                        })
                    };
                    for token in 0..24 {
                        let sees = sight.sees(query, token);
                        assert_eq!(is_visible(token), sees, "{sight:?} {query} {token}");
                    }
                }
            }
        }
    }
}
