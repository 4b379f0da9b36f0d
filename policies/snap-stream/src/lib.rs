//! `SnapStream`: another policy chooses among the prompt's tokens, and what is generated lives in a ring of recent tokens, so
//! that a sequence never grows past its budget.
//!
//! Li et al., *SnapStream: Efficient Long Sequence Decoding on Dataflow Accelerators*, 2025,
//! <https://arxiv.org/abs/2511.03092>: `SnapKV` on the prompt and `StreamingLLM`'s ring while decoding.
//!
//! Of a budget of `b` tokens per KV head the policy `over` is given `b - recent` for the prompt. What it keeps stays for
//! good; of the tokens that follow, a head keeps the `recent` newest, and more where the prompt left room. The paper
//! works over `SnapKV`; here any policy that plans once, after the prompt, can be named, heads of different lengths included, and how
//! it would grow while decoding does not count.
//!
//! A prompt within the budget is kept whole. If it is longer than `b - recent`, its end is the first to leave the ring:
//! nobody ranked it.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Over, Policy, PolicyConfig,
    Registry, Room, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`SnapStream`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct SnapStreamConfig {
    /// The policy that chooses among the prompt's tokens, under the budget less `recent`: one that plans once, after the
    /// prompt.
    pub over: Over,
    /// Latest tokens behind the prompt that every KV head keeps, from 1 and below the budget.
    #[schemars(range(min = 1))]
    pub recent: usize,
}

impl Default for SnapStreamConfig {
    /// `SnapKV`, as in the paper, and a ring of 128, which is ours.
    fn default() -> Self {
        Self {
            over: Over::named("snap-kv"),
            recent: 128,
        }
    }
}

/// Another policy's choice of the prompt, and a ring.
#[derive(Debug)]
pub struct SnapStream {
    over: Box<dyn Policy>,
    recent: usize,
    /// `H`.
    heads: usize,
}

impl PolicyConfig for SnapStreamConfig {
    const NAME: &'static str = "snap-stream";
    const SUMMARY: &'static str = "another policy's choice of the prompt, and a ring of recent tokens after it (Li et al. 2025)";
    type Policy = SnapStream;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<SnapStream, ConfigError> {
        self.bind_in(&Registry::default(), geometry, budget)
    }

    fn bind_in(
        self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<SnapStream, ConfigError> {
        let Self { over, recent } = self;
        let fixed = budget.fixed_tokens(geometry);
        let most = fixed.unwrap_or(geometry.max_positions);
        if recent == 0 || recent >= most {
            let allowed = format!("at least 1 and below the {most} tokens that a head may hold");
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                recent,
                allowed,
            ));
        }
        let rest = fixed.map_or(budget, |tokens| Budget::Tokens(tokens - recent));
        let policy = over
            .bind(registry, geometry, rest)
            .map_err(|error| match error {
                // In the budget that the user gave.
                ConfigError::Budget { allowed, .. } => ConfigError::Budget {
                    value: budget.to_string(),
                    allowed: format!("{allowed}, besides {recent} recent ones"),
                },
                other => other,
            })?;
        let needs = policy.needs();
        over.check_plans_once((Self::NAME, "over"), &needs)?;
        let min_tokens = needs.min_tokens;
        if min_tokens > most - recent {
            let allowed = format!(
                "at least {} tokens per KV head: {min_tokens} that `over` needs and {recent} recent ones",
                min_tokens.saturating_add(recent)
            );
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed,
            });
        }
        Ok(SnapStream {
            over: policy,
            recent,
            heads: geometry.kv_heads,
        })
    }
}

impl SnapStream {
    /// Of `budget` tokens per KV head, those for the prompt; no limit stays none.
    const fn rest(&self, budget: usize) -> usize {
        match budget {
            usize::MAX => usize::MAX,
            budget => budget.saturating_sub(self.recent),
        }
    }

    /// The most that each head may hold, `[H]`, where they hold `lens`: what heads that share a layer's room leave of it goes to all
    /// alike.
    fn limits(room: &Room, lens: &[usize]) -> Vec<usize> {
        match room {
            Room::Each(tokens) => vec![*tokens; lens.len()],
            Room::Heads(tokens) => tokens.clone(),
            Room::Together(usize::MAX) => vec![usize::MAX; lens.len()],
            Room::Together(total) => {
                let left = total.saturating_sub(lens.iter().sum());
                lens.iter().map(|len| len + left / lens.len()).collect()
            }
        }
    }
}

impl Policy for SnapStream {
    fn needs(&self) -> Needs {
        let needs = self.over.needs();
        Needs {
            // The ring goes by age.
            observation: needs.observation.of_the_prompt(),
            appends: false,
            min_tokens: needs.min_tokens.saturating_add(self.recent),
            ..needs
        }
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        let rest = self.rest(budget);
        self.over
            .room(layer, prompt, rest)
            .plus(self.recent, self.heads)
    }

    fn failure(&self) -> Option<String> {
        self.over.failure()
    }

    fn notice(&self) -> Option<String> {
        self.over.notice()
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let mut lens: Vec<usize> = (0..view.heads()).map(|head| view.len(head)).collect();
        let room = self.room(view.layer, view.prompt, view.budget);
        if !room.holds(&lens) {
            let mut prompt = *view;
            prompt.budget = self.rest(view.budget);
            self.over.plan(&prompt, keep);
            let kept = keep.resolve_unguarded(&prompt);
            lens = kept.iter().map(Vec::len).collect();
        }
        for (head, limit) in Self::limits(&room, &lens).into_iter().enumerate() {
            let sinks = lens[head].min(limit.saturating_sub(self.recent));
            let recent = limit - sinks;
            let ring = Growth::Ring { sinks, recent };
            let has_limit = limit < usize::MAX;
            keep.grow(head, if has_limit { ring } else { Growth::Append });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{
        Observation, Pins,
        conformance::{geometry, registry},
    };

    /// A policy with a ring of two; the kit's stand-in never drops the four newest tokens.
    fn bound(heads: usize, budget: Budget) -> SnapStream {
        let config = SnapStreamConfig {
            recent: 2,
            ..SnapStreamConfig::default()
        };
        config
            .bind_in(&registry(), &geometry(heads), budget)
            .expect("a good configuration")
    }

    /// What a head keeps of a prompt with these scores under a budget of seven, and how it grows.
    fn kept(scores: &[f32]) -> (Vec<u32>, Growth) {
        let policy = bound(1, Budget::Tokens(7));
        let rows = [scores];
        let view = LayerView::prefill(0, 1, scores.len(), 7)
            .with_scores(policy.needs().observation, &rows);
        let mut keep = KeepPlan::all(1);
        policy.plan(&view, &mut keep);
        let mut kept = keep.resolve(&view, &Pins::default());
        (kept.slots.remove(0), kept.growth[0])
    }

    #[test]
    fn the_prompt_has_the_budget_less_the_ring() {
        let (slots, growth) = kept(&[0.1, 0.5, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(slots, [1, 4, 5, 6, 7]);
        assert_eq!(
            growth,
            Growth::Ring {
                sinks: 5,
                recent: 2
            }
        );
    }

    #[test]
    fn what_a_short_prompt_leaves_goes_to_the_ring() {
        let (slots, growth) = kept(&[0.0; 3]);
        assert_eq!(slots, [0, 1, 2]);
        assert_eq!(
            growth,
            Growth::Ring {
                sinks: 3,
                recent: 4
            }
        );
    }

    #[test]
    fn the_end_of_a_prompt_that_just_fits_is_in_the_ring() {
        let (slots, growth) = kept(&[0.0; 7]);
        assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(
            growth,
            Growth::Ring {
                sinks: 5,
                recent: 2
            }
        );
    }

    #[test]
    fn without_a_budget_everything_stays() {
        let policy = bound(2, Budget::Full);
        assert_eq!(policy.room(0, 9, usize::MAX), Room::Each(usize::MAX));
        let view = LayerView::prefill(0, 2, 9, usize::MAX);
        let mut keep = KeepPlan::all(2);
        policy.plan(&view, &mut keep);
        assert_eq!(keep.growth(), [Growth::Append; 2]);
        assert_eq!(keep.verbs(), []);
    }

    /// Keeps so many tokens of each head, in a room of the layer's.
    #[derive(Debug)]
    struct Uneven(Room, [usize; 2]);

    impl Policy for Uneven {
        fn needs(&self) -> Needs {
            Needs {
                observation: Observation::Rows,
                ..Needs::NONE
            }
        }

        fn room(&self, _: usize, _: usize, _: usize) -> Room {
            self.0.clone()
        }

        fn plan(&self, _: &LayerView<'_>, keep: &mut KeepPlan) {
            for (head, &recent) in self.1.iter().enumerate() {
                keep.window(head, 0, recent);
                let limit = 99;
                keep.grow(head, Growth::EvictLowest { limit, recent });
            }
        }
    }

    fn grown(room: Room, lens: [usize; 2], prompt: usize) -> (Vec<Growth>, Room) {
        let policy = SnapStream {
            over: Box::new(Uneven(room, lens)),
            recent: 10,
            heads: 2,
        };
        assert_eq!(policy.needs().observation, Observation::Accumulated);
        assert!(!policy.needs().appends && policy.needs().min_tokens == 11);
        let mut keep = KeepPlan::all(2);
        policy.plan(&LayerView::prefill(0, 2, prompt, 0), &mut keep);
        (keep.growth().to_vec(), policy.room(0, prompt, 0))
    }

    fn ring(sinks: usize, recent: usize) -> Growth {
        Growth::Ring { sinks, recent }
    }

    #[test]
    fn heads_of_different_lengths_have_rings_of_their_own() {
        // Seven of nine tokens are kept, and one more is left for each head.
        let (growth, room) = grown(Room::Together(9), [5, 2], 60);
        assert_eq!(
            (growth, room),
            (vec![ring(5, 11), ring(2, 11)], Room::Together(29))
        );
        let (growth, room) = grown(Room::Heads(vec![6, 2]), [5, 2], 60);
        assert_eq!(
            (growth, room),
            (vec![ring(5, 11), ring(2, 10)], Room::Heads(vec![16, 12]))
        );
    }

    #[test]
    fn no_head_is_longer_than_its_limit_whatever_the_heads_hold() {
        let limits = SnapStream::limits(&Room::Together(900), &[356, 233, 307]);
        assert_eq!(limits, [357, 234, 308]);
    }

    #[test]
    fn of_a_prompt_that_fits_each_head_has_its_part() {
        let (growth, _) = grown(Room::Together(9), [5, 2], 14);
        assert_eq!(growth, [ring(4, 10); 2]);
        let (growth, _) = grown(Room::Heads(vec![6, 2]), [5, 2], 4);
        assert_eq!(growth, [ring(4, 12), ring(2, 10)]);
        let (growth, _) = grown(Room::Heads(vec![usize::MAX, 2]), [5, 2], 4);
        assert_eq!(growth, [Growth::Append, ring(2, 10)]);
    }
}
