//! A policy's answer: what each head keeps, and how it grows from there.
use crate::{Cadence, LayerView, Needs, Position, Protected, select};

/// What a head does with the tokens that come after the plan. The host applies it at every step by itself.
///
/// Pins come on top: a pinned token counts against no limit, and drives nobody out when it comes. A head whose plan kept
/// more than its limit stays as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Growth {
    /// Keep them all.
    #[default]
    Append,
    /// Keep the `sinks` oldest tokens held and the `recent` newest, the newcomer among them: it takes the slot of the
    /// oldest other.
    Ring {
        /// Oldest tokens, never evicted.
        sinks: usize,
        /// Newest tokens; 0 counts as 1.
        recent: usize,
    },
    /// Hold at most `limit`: the newcomer takes the slot of the lowest score outside the `recent` newest, itself not
    /// among them.
    EvictLowest {
        /// Most tokens held; 0 counts as 1.
        limit: usize,
        /// Newest tokens, never evicted; no more than `limit - 1` count.
        recent: usize,
    },
    /// As [`Growth::EvictLowest`], but tokens of some classes stay: the first `most - 1` of them, later ones are as any other.
    /// They count against no limit but `most`, and a newcomer among them drives one of the others out only where the head
    /// is full. The host says which class a token is of ([`Ledger::classify`](crate::Ledger::classify)); it does
    /// so for policies that name [`Reads::classes`](crate::Reads::classes), else every token is plain.
    Protect {
        /// What stays.
        classes: Protected,
        /// Most other tokens held; 0 counts as 1.
        limit: usize,
        /// Newest tokens, never evicted; one fewer than there is room for besides the protected ones, at most.
        recent: usize,
        /// Most tokens held, protected or not; 0 counts as 1.
        most: usize,
    },
}

/// Positions that no policy may evict: what the request pins, for example its system prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pins {
    spans: Vec<(u32, u32)>,
}

impl Pins {
    /// Pins the positions `start..end` of each span.
    #[must_use]
    pub fn new(spans: impl IntoIterator<Item = std::ops::Range<u32>>) -> Self {
        let mut sorted: Vec<(u32, u32)> = spans
            .into_iter()
            .filter(|s| s.start < s.end)
            .map(|s| (s.start, s.end))
            .collect();
        sorted.sort_unstable();
        let mut spans: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
        for (start, end) in sorted {
            match spans.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => spans.push((start, end)),
            }
        }
        Self { spans }
    }

    /// The spans, `start` and `end` of each: ascending, disjoint, none empty.
    #[must_use]
    pub fn spans(&self) -> &[(u32, u32)] {
        &self.spans
    }

    /// Whether a position is pinned.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        let after = self
            .spans
            .partition_point(|&(start, _)| start <= position.0);
        after > 0 && position.0 < self.spans[after - 1].1
    }

    /// Pinned positions below `n`.
    #[must_use]
    pub fn count_below(&self, n: usize) -> usize {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.spans
            .iter()
            .map(|&(start, end)| end.min(n).saturating_sub(start) as usize)
            .sum()
    }
}

/// One thing that a plan says. A backend that carries plans out on its device keeps what all verbs of a plan keep, and
/// the newest token and the pins.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// [`KeepPlan::window`].
    Window {
        /// The head.
        head: usize,
        /// Oldest tokens kept.
        sinks: usize,
        /// Newest tokens kept.
        recent: usize,
    },
    /// [`KeepPlan::top`].
    Top {
        /// The head.
        head: usize,
        /// Highest scores kept outside the window.
        count: usize,
        /// Newest tokens kept.
        recent: usize,
    },
    /// [`KeepPlan::top_by`].
    TopBy {
        /// The head.
        head: usize,
        /// A score for each slot, `[T]`, higher keeps.
        scores: Vec<f32>,
        /// Highest scores kept outside the window.
        count: usize,
        /// Newest tokens kept.
        recent: usize,
    },
    /// [`KeepPlan::top_across_heads`].
    TopAcrossHeads {
        /// Tokens that the layer keeps.
        total: usize,
        /// Highest scores that every head keeps outside the window.
        floor_per_head: usize,
        /// Newest tokens that every head keeps.
        recent: usize,
    },
    /// [`KeepPlan::slots`].
    Slots {
        /// The head.
        head: usize,
        /// The slots kept, in any order; doubles and slots that do not exist mean nothing.
        slots: Vec<u32>,
    },
}

impl Verb {
    /// Whether it ranks by what was observed.
    #[must_use]
    pub const fn reads_scores(&self) -> bool {
        matches!(self, Self::Top { .. } | Self::TopAcrossHeads { .. })
    }

    /// Whether it brings scores of its own.
    #[must_use]
    pub const fn brings_scores(&self) -> bool {
        matches!(self, Self::TopBy { .. })
    }
}

/// What the heads of a layer keep. A fresh plan keeps everything; each verb narrows it, and what two verbs say of one
/// head is kept only if both keep it. The newest token and the pins are kept whatever the plan says.
///
/// The verbs are symbolic, so that a host can carry them out where its tensors are.
#[derive(Debug, Clone, PartialEq)]
pub struct KeepPlan {
    verbs: Vec<Verb>,
    growth: Vec<Growth>,
}

/// A plan carried out: the slots that each head keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Slots of each head, ascending, `[H][T]`.
    pub slots: Vec<Vec<u32>>,
    /// How each head grows, `[H]`.
    pub growth: Vec<Growth>,
    /// What was observed of the kept slots, `[H][T]`, if anything was: scores stay with their slots.
    pub scores: Option<Vec<Vec<f32>>>,
}

impl Kept {
    /// Forgets scores that nobody reads once the prompt is planned: no head evicts by them, no later step adds to them, and no
    /// later plan is made by them. Each takes 4 bytes for as long as its slot is held.
    pub fn forget_idle_scores(&mut self, needs: &Needs) {
        let evicts =
            |growth: &Growth| matches!(growth, Growth::EvictLowest { .. } | Growth::Protect { .. });
        let is_idle = needs.cadence == Cadence::LayerPrefill
            && !needs.observation.watches_decode()
            && !self.growth.iter().any(evicts);
        if is_idle {
            self.scores = None;
        }
    }
}

impl KeepPlan {
    /// A plan that keeps everything in each of `heads` heads, and appends what comes.
    #[must_use]
    pub fn all(heads: usize) -> Self {
        Self {
            verbs: Vec::new(),
            growth: vec![Growth::Append; heads],
        }
    }

    /// KV heads of the layer, `H`.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.growth.len()
    }

    /// What it says, in the order in which it was said.
    #[must_use]
    pub fn verbs(&self) -> &[Verb] {
        &self.verbs
    }

    /// How each head grows, `[H]`.
    #[must_use]
    pub fn growth(&self) -> &[Growth] {
        &self.growth
    }

    /// Keeps a head's `sinks` oldest tokens and its `recent` newest.
    ///
    /// # Panics
    ///
    /// If there is no such head.
    pub fn window(&mut self, head: usize, sinks: usize, recent: usize) {
        self.check(head);
        self.verbs.push(Verb::Window {
            head,
            sinks,
            recent,
        });
    }

    /// Keeps a head's `recent` newest tokens and, of the others, the `count` with the highest scores.
    ///
    /// # Panics
    ///
    /// If there is no such head.
    pub fn top(&mut self, head: usize, count: usize, recent: usize) {
        self.check(head);
        self.verbs.push(Verb::Top {
            head,
            count,
            recent,
        });
    }

    /// As [`KeepPlan::top`], by scores that the plan brings itself, one for each slot, `[T]`. They stay with their slots, in place
    /// of what was observed.
    ///
    /// # Panics
    ///
    /// If there is no such head.
    pub fn top_by(&mut self, head: usize, scores: Vec<f32>, count: usize, recent: usize) {
        self.check(head);
        self.verbs.push(Verb::TopBy {
            head,
            scores,
            count,
            recent,
        });
    }

    /// Keeps the `recent` newest tokens of every head, then the `floor_per_head` best others of each, then the best of
    /// what is left in all heads, until `total` tokens of the layer are kept.
    pub fn top_across_heads(&mut self, total: usize, floor_per_head: usize, recent: usize) {
        self.verbs.push(Verb::TopAcrossHeads {
            total,
            floor_per_head,
            recent,
        });
    }

    /// Keeps just these slots of a head; doubles and slots that do not exist are ignored.
    ///
    /// # Panics
    ///
    /// If there is no such head.
    pub fn slots(&mut self, head: usize, slots: impl IntoIterator<Item = u32>) {
        self.check(head);
        self.verbs.push(Verb::Slots {
            head,
            slots: slots.into_iter().collect(),
        });
    }

    /// Says how a head grows from here.
    ///
    /// # Panics
    ///
    /// If there is no such head.
    pub fn grow(&mut self, head: usize, growth: Growth) {
        self.check(head);
        self.growth[head] = growth;
    }

    fn check(&self, head: usize) {
        assert!(
            head < self.heads(),
            "head {head} of a layer with {}",
            self.heads()
        );
    }

    /// Carries the plan out on the host. This is the definition that every backend must match.
    ///
    /// # Panics
    ///
    /// If the view has another number of heads, if a verb reads scores that the policy did not ask for, or if a plan brings
    /// another number of scores than there are slots.
    #[must_use]
    pub fn resolve(&self, view: &LayerView<'_>, pins: &Pins) -> Kept {
        let masks = self.masks(view);
        let slots: Vec<Vec<u32>> = masks
            .iter()
            .enumerate()
            .map(|(head, mask)| survivors(view, head, mask, pins))
            .collect();
        let is_scored = view.is_observed() || self.verbs.iter().any(Verb::brings_scores);
        let scores = is_scored.then(|| {
            let of = |(head, slots): (usize, &Vec<u32>)| {
                let row = self.brought(head);
                let row = row.or_else(|| view.is_observed().then(|| view.scores(head)));
                let score = |&slot: &u32| row.map_or(0.0, |row| row[slot as usize]);
                slots.iter().map(score).collect()
            };
            slots.iter().enumerate().map(of).collect()
        });
        Kept {
            slots,
            growth: self.growth.clone(),
            scores,
        }
    }

    /// What the verbs alone keep, without the guard over the newest token and the pins: slots of each head, ascending.
    /// For tests of a policy; a host wants [`KeepPlan::resolve`].
    ///
    /// # Panics
    ///
    /// As [`KeepPlan::resolve`].
    #[must_use]
    pub fn resolve_unguarded(&self, view: &LayerView<'_>) -> Vec<Vec<u32>> {
        let slots = |mask: &Vec<bool>| {
            (0..)
                .zip(mask)
                .filter(|&(_, &kept)| kept)
                .map(|(slot, _)| slot)
                .collect()
        };
        self.masks(view).iter().map(slots).collect()
    }

    /// The first head and slot that a verb names and that do not exist in the view; [`KeepPlan::resolve`] ignores
    /// such slots, a test of a policy does not.
    #[must_use]
    pub fn first_stray(&self, view: &LayerView<'_>) -> Option<(usize, u32)> {
        self.verbs.iter().find_map(|verb| {
            let Verb::Slots { head, slots } = verb else {
                return None;
            };
            slots
                .iter()
                .find(|&&slot| slot as usize >= view.len(*head))
                .map(|&slot| (*head, slot))
        })
    }

    /// The scores that the plan itself brings for a head.
    fn brought(&self, head: usize) -> Option<&[f32]> {
        self.verbs.iter().rev().find_map(|verb| match verb {
            Verb::TopBy {
                head: of, scores, ..
            } if *of == head => Some(scores.as_slice()),
            _ => None,
        })
    }

    fn masks(&self, view: &LayerView<'_>) -> Vec<Vec<bool>> {
        assert_eq!(
            view.heads(),
            self.heads(),
            "the plan and the view have as many heads"
        );
        let mut masks: Vec<Vec<bool>> = (0..self.heads())
            .map(|head| vec![true; view.len(head)])
            .collect();
        for verb in &self.verbs {
            verb.narrow(view, &mut masks);
        }
        masks
    }
}

fn survivors(view: &LayerView<'_>, head: usize, mask: &[bool], pins: &Pins) -> Vec<u32> {
    let positions = view.positions(head);
    let newest = positions.iter().max();
    let slots = (0..).zip(mask.iter().zip(&*positions));
    slots
        .filter(|&(_, (&kept, position))| {
            kept || Some(position) == newest || pins.contains(*position)
        })
        .map(|(slot, _)| slot)
        .collect()
}

impl Verb {
    fn narrow(&self, view: &LayerView<'_>, masks: &mut [Vec<bool>]) {
        match self {
            Self::Window {
                head,
                sinks,
                recent,
            } => {
                let (first, last) = (
                    view.nth_oldest(*head, *sinks),
                    view.nth_newest(*head, *recent),
                );
                for (entry, &position) in masks[*head].iter_mut().zip(&*view.positions(*head)) {
                    *entry &= first.is_none_or(|first| position < first)
                        || last.is_some_and(|last| position >= last);
                }
            }
            Self::Top {
                head,
                count,
                recent,
            } => {
                let all = view.scores(*head);
                intersect(
                    &mut masks[*head],
                    &best(view, *head, all, (*count, *recent)),
                );
            }
            Self::TopBy {
                head,
                scores,
                count,
                recent,
            } => {
                assert_eq!(
                    scores.len(),
                    view.len(*head),
                    "one score for each slot of head {head}"
                );
                intersect(
                    &mut masks[*head],
                    &best(view, *head, scores, (*count, *recent)),
                );
            }
            Self::TopAcrossHeads {
                total,
                floor_per_head,
                recent,
            } => {
                for (mask, kept) in
                    masks
                        .iter_mut()
                        .zip(across_heads(view, *total, *floor_per_head, *recent))
                {
                    intersect(mask, &kept);
                }
            }
            Self::Slots { head, slots } => {
                let mut kept = vec![false; view.len(*head)];
                for &slot in slots {
                    if let Some(entry) = kept.get_mut(slot as usize) {
                        *entry = true;
                    }
                }
                intersect(&mut masks[*head], &kept);
            }
        }
    }
}

fn intersect(mask: &mut [bool], other: &[bool]) {
    for (entry, &kept) in mask.iter_mut().zip(other) {
        *entry &= kept;
    }
}

/// A head's `recent` newest tokens, and the `count` best others by these scores, as a mask over its slots.
fn best(
    view: &LayerView<'_>,
    head: usize,
    scores: &[f32],
    (count, recent): (usize, usize),
) -> Vec<bool> {
    let window = view.nth_newest(head, recent);
    let key = |(&position, &score): (&Position, &f32)| {
        if window.is_some_and(|first| position >= first) {
            return 0; // before all others
        }
        select::key(score, position)
    };
    let positions = view.positions(head);
    let keys: Vec<u64> = positions.iter().zip(scores).map(key).collect();
    select::smallest(&keys, count.saturating_add(recent.min(keys.len())))
}

fn across_heads(view: &LayerView<'_>, total: usize, floor: usize, recent: usize) -> Vec<Vec<bool>> {
    let others = |head| {
        let window = view.nth_newest(head, recent);
        let positions = view.positions(head);
        let slots = positions.iter().zip(view.scores(head));
        let is_other = |position: &Position| window.is_none_or(|first| *position < first);
        slots
            .filter(|(position, _)| is_other(position))
            .map(|(_, &score)| score)
            .collect()
    };
    let heads: Vec<Vec<f32>> = (0..view.heads()).map(others).collect();
    let scores: Vec<&[f32]> = heads.iter().map(Vec::as_slice).collect();
    let windows: usize = (0..view.heads())
        .map(|head| view.len(head).min(recent))
        .sum();
    let counts = select::counts_across(&scores, total.saturating_sub(windows), floor);
    let mask = |(head, &count)| best(view, head, view.scores(head), (count, recent));
    counts.iter().enumerate().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Observation;

    fn kept(view: &LayerView<'_>, pins: &Pins, plan: impl FnOnce(&mut KeepPlan)) -> Vec<Vec<u32>> {
        let mut keep = KeepPlan::all(view.heads());
        plan(&mut keep);
        keep.resolve(view, pins).slots
    }

    #[test]
    fn a_fresh_plan_keeps_everything() {
        let view = LayerView::prefill(0, 2, 3, 1);
        assert_eq!(
            kept(&view, &Pins::default(), |_| ()),
            [[0, 1, 2], [0, 1, 2]]
        );
    }

    #[test]
    fn a_window_keeps_both_ends_by_position() {
        let view = LayerView::prefill(0, 1, 20, 0);
        let expected: Vec<u32> = (0..4).chain(12..20).collect();
        assert_eq!(
            kept(&view, &Pins::default(), |keep| keep.window(0, 4, 8)),
            [expected]
        );
        let scrambled: Vec<Position> = [7, 0, 9, 8, 1].map(Position).to_vec();
        let heads = [scrambled.as_slice()];
        let view = LayerView::decode(0, &heads, 5, 0);
        assert_eq!(
            kept(&view, &Pins::default(), |keep| keep.window(0, 1, 2)),
            [[1, 2, 3]]
        );
        assert_eq!(
            kept(&view, &Pins::default(), |keep| keep.window(0, 9, 9)),
            [[0, 1, 2, 3, 4]]
        );
    }

    #[test]
    fn the_newest_and_the_pins_stay_whatever_the_plan_says() {
        let view = LayerView::prefill(0, 1, 10, 0);
        assert_eq!(
            kept(&view, &Pins::new([3..5, 4..6, 20..30]), |keep| keep
                .slots(0, [])),
            [[3, 4, 5, 9]]
        );
        assert_eq!(Pins::new([3..5, 4..6, 20..30]).count_below(22), 5);
    }

    #[test]
    fn verbs_narrow_and_never_widen() {
        let view = LayerView::prefill(0, 1, 10, 0);
        let both = kept(&view, &Pins::default(), |keep| {
            keep.window(0, 2, 3);
            keep.slots(0, [1, 5, 8, 8, 99]);
        });
        assert_eq!(both, [[1, 8, 9]]);
    }

    #[test]
    fn ada_kv_counts_of_the_method_page() {
        // Two heads, a layer of six: the pooled ranking gives (5, 1); a floor of two gives (4, 2).
        let rows: [&[f32]; 2] = [
            &[0.30, 0.25, 0.20, 0.15, 0.05, 0.01, 0.0],
            &[0.40, 0.04, 0.03, 0.02, 0.01, 0.01, 0.0],
        ];
        let view = LayerView::prefill(0, 2, 7, 3).with_scores(Observation::Accumulated, &rows);
        let lens = |floor| {
            kept(&view, &Pins::default(), |keep| {
                keep.top_across_heads(6 + 2, floor, 1);
            })
            .iter()
            .map(|head| head.len() - 1)
            .collect::<Vec<_>>()
        };
        assert_eq!(lens(0), [5, 1]);
        assert_eq!(lens(2), [4, 2]);
    }

    #[test]
    #[should_panic(expected = "Observation::None")]
    fn reading_scores_nobody_asked_for_is_a_panic_that_says_so() {
        let view = LayerView::prefill(0, 1, 10, 0);
        kept(&view, &Pins::default(), |keep| keep.top(0, 1, 1));
    }
}
