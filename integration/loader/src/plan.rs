//! A plan that came over the pipes: checked, so that carrying it out cannot panic.
use kv_core::{Growth, KeepPlan, LayerView, Observation, Verb};

use crate::{error::Failure, wire::Frame};

/// What a program said.
pub(crate) struct Said {
    verbs: Vec<Verb>,
    growth: Vec<Growth>,
}

impl Said {
    /// Checks a plan. The scores that verbs bring are rows of `lens` in the frame.
    pub(crate) fn new(
        view: &LayerView<'_>,
        observation: Observation,
        mut verbs: Vec<Verb>,
        growth: Vec<Growth>,
        lens: &[usize],
        frame: &Frame,
    ) -> Result<Self, Failure> {
        let heads = view.heads();
        let refuse = |reason: String| Err(Failure::Unfit(reason));
        if growth.len() != heads {
            return refuse(format!(
                "with the growth of {} heads for a layer with {heads}",
                growth.len()
            ));
        }
        let mut numbers = frame.numbers();
        let mut lens = lens.iter();
        for verb in &mut verbs {
            if let Some(head) = head_of(verb).filter(|head| *head >= heads) {
                return refuse(format!(
                    "with a plan for head {head} of a layer with {heads}"
                ));
            }
            if verb.reads_scores() && observation == Observation::None {
                return refuse("with a plan that ranks by scores, which it did not ask for".into());
            }
            if let Verb::TopBy { head, scores, .. } = verb {
                let len = lens.next().copied().unwrap_or(0);
                let row = numbers
                    .floats(len)
                    .filter(|row| row.len() == view.len(*head));
                let Some(row) = row else {
                    return refuse(format!(
                        "with {len} scores for head {head}, which has {} tokens",
                        view.len(*head)
                    ));
                };
                *scores = row;
            }
        }
        Ok(Self { verbs, growth })
    }

    /// Says it again.
    pub(crate) fn to(self, keep: &mut KeepPlan) {
        for verb in self.verbs {
            match verb {
                Verb::Window {
                    head,
                    sinks,
                    recent,
                } => keep.window(head, sinks, recent),
                Verb::Top {
                    head,
                    count,
                    recent,
                } => keep.top(head, count, recent),
                Verb::TopBy {
                    head,
                    scores,
                    count,
                    recent,
                } => keep.top_by(head, scores, count, recent),
                Verb::TopAcrossHeads {
                    total,
                    floor_per_head,
                    recent,
                } => keep.top_across_heads(total, floor_per_head, recent),
                Verb::Slots { head, slots } => keep.slots(head, slots),
            }
        }
        for (head, growth) in self.growth.into_iter().enumerate() {
            keep.grow(head, growth);
        }
    }
}

const fn head_of(verb: &Verb) -> Option<usize> {
    match verb {
        Verb::Window { head, .. }
        | Verb::Top { head, .. }
        | Verb::TopBy { head, .. }
        | Verb::Slots { head, .. } => Some(*head),
        Verb::TopAcrossHeads { .. } => None,
    }
}
