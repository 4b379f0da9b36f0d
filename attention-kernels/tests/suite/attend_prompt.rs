//! Attention over a prompt against its definition, and what its bits depend on.

use attention_kernels::{AttendPromptArgs, KernelError, attend_prompt, observe, oracle};
use kv_core::{Observation, Reduction, Sight};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::prompts::{Prompt, Shape, shapes};
use crate::world::{self, BOUND, bits, on_threads, random_queries, relative_error, rng};

/// A prompt with values, NaN where it is padded, and what its heads see.
#[derive(Clone)]
struct Text {
    prompt: Prompt,
    values: Vec<f32>,
    sights: Vec<Sight>,
}

impl Text {
    fn random(rng: &mut ChaCha8Rng, shape: &Shape) -> Self {
        let prompt = Prompt::random(rng, shape, 2.0);
        let used = shape.tokens * shape.head_dim;
        let head = |_| {
            let mut rows = random_queries(rng, used, 1.0);
            rows.resize(prompt.per_head(), f32::NAN);
            rows
        };
        let values = (0..shape.heads).flat_map(head).collect();
        let sights = (0..shape.heads).map(|_| {
            if rng.random_bool(0.5) {
                return Sight::Causal;
            }
            let (sinks, recent) = (rng.random_range(0..6), rng.random_range(1..60));
            Sight::Streaming { sinks, recent }
        });
        Self {
            sights: sights.collect(),
            prompt,
            values,
        }
    }

    fn seeing_all(mut self) -> Self {
        self.sights.fill(Sight::Causal);
        self
    }

    fn args(&self) -> AttendPromptArgs<'_> {
        AttendPromptArgs {
            prompt: self.prompt.args(),
            values: &self.values,
            sights: &self.sights,
        }
    }

    fn attend(&self) -> Vec<f32> {
        self.observed(Observation::None).0
    }

    fn observed(&self, observation: Observation) -> (Vec<f32>, Option<Vec<f32>>) {
        let mut out = vec![f32::NAN; self.prompt.queries.len()];
        let reduction = self.prompt.shape.reduction;
        let seen = attend_prompt(&self.args(), observation, reduction, &mut out);
        (out, seen.expect("a sound call"))
    }
}

fn check(text: &Text) -> Result<(), TestCaseError> {
    let head_dim = text.prompt.shape.head_dim;
    let (got, want) = (text.attend(), oracle::attend_prompt(&text.args()));
    let bound = BOUND * (text.prompt.greatest_terms() / 16.0).max(1.0);
    let shape = &text.prompt.shape;
    let rows = shape.tokens + shape.padding;
    for (index, (got, want)) in got.chunks(head_dim).zip(want.chunks(head_dim)).enumerate() {
        let head = index / rows / shape.group;
        let values = &text.values[head * text.prompt.per_head()..][..shape.tokens * head_dim];
        let error = relative_error(got, want, values);
        prop_assert!(error <= bound, "row {index} is off by {error:e}");
    }
    Ok(())
}

#[test]
fn follows_the_oracle_and_gives_padding_zeros() {
    world::check(0x70, 120, &shapes(), |shape| {
        let mut rng = ChaCha8Rng::seed_from_u64(shape.contents);
        check(&Text::random(&mut rng, &shape))
    });
}

fn shape(heads: usize, tokens: usize) -> Shape {
    Shape {
        heads,
        group: 2,
        head_dim: 20,
        tokens,
        padding: 3,
        softcap: None,
        window: 40,
        reduction: Reduction::MEAN,
        contents: 0,
    }
}

#[test]
fn what_is_observed_on_the_way_is_what_observing_alone_gives() {
    let mut rng = rng(0x71);
    let text = Text::random(&mut rng, &shape(3, 333)).seeing_all();
    let plain = bits(&text.attend());
    for observation in [
        Observation::Window { queries: 40 },
        Observation::Window { queries: 999 },
        Observation::Latest,
        Observation::Accumulated,
        Observation::KeyNorms,
    ] {
        let (out, seen) = text.observed(observation);
        assert_eq!(bits(&out), plain, "{observation}");
        let alone = observe(observation, Reduction::MEAN, &text.prompt.args());
        let alone = alone.expect("a sound call").expect("observed");
        assert_eq!(
            bits(&seen.expect("observed")),
            bits(&alone),
            "{observation}"
        );
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let mut rng = rng(0x72);
    let text = Text::random(&mut rng, &shape(3, 300));
    let results = on_threads(|| bits(&text.attend()));
    assert!(results.iter().all(|result| result == &results[0]));
}

/// Where sinks and recent tokens are all there are, streaming is nothing else.
#[test]
fn a_head_with_room_for_the_text_does_not_stream() {
    let mut rng = rng(0x73);
    let mut text = Text::random(&mut rng, &shape(2, 200)).seeing_all();
    let all = bits(&text.attend());
    text.sights.fill(Sight::Streaming {
        sinks: 8,
        recent: 192,
    });
    assert_eq!(bits(&text.attend()), all);
    text.sights.fill(Sight::Streaming {
        sinks: 8,
        recent: 191,
    });
    assert_ne!(bits(&text.attend()), all);
}

/// A head's result does not depend on the heads beside it.
#[test]
fn a_head_alone_is_the_head_among_others() {
    let mut rng = rng(0x74);
    let text = Text::random(&mut rng, &shape(3, 100));
    let (together, per_head) = (text.attend(), text.prompt.per_head());
    for head in 0..3 {
        let mut alone = text.clone();
        let of = |all: &[f32], width: usize| all[head * width..][..width].to_vec();
        alone.prompt.keys = of(&text.prompt.keys, per_head);
        alone.prompt.queries = of(&text.prompt.queries, 2 * per_head);
        alone.values = of(&text.values, per_head);
        alone.sights = vec![text.sights[head]];
        assert_eq!(bits(&alone.attend()), bits(&of(&together, 2 * per_head)));
    }
}

#[test]
fn wrong_calls_are_refused_and_change_nothing() {
    let mut rng = rng(0x75);
    let text = Text::random(&mut rng, &shape(2, 10)).seeing_all();
    let refused = |args: AttendPromptArgs<'_>, observation, elements: usize| {
        let mut out = vec![7.0; elements];
        let error = attend_prompt(&args, observation, Reduction::MEAN, &mut out);
        assert!(out.iter().all(|&number| number == 7.0));
        error.expect_err("a wrong call")
    };
    let (args, elements) = (text.args(), text.prompt.queries.len());
    let short = AttendPromptArgs {
        values: &text.values[1..],
        ..args
    };
    let (keys, values) = (text.values.len(), text.values.len() - 1);
    assert_eq!(
        refused(short, Observation::None, elements),
        KernelError::KeysValuesDiffer { keys, values }
    );
    assert_eq!(
        refused(args, Observation::None, elements - 1),
        KernelError::OutputLength {
            elements: elements - 1,
            expected: elements
        }
    );
    let blind = AttendPromptArgs {
        sights: &text.sights[1..],
        ..args
    };
    assert_eq!(
        refused(blind, Observation::None, elements),
        KernelError::SightsLength {
            sights: 1,
            heads: 2
        }
    );
    let sights = [
        Sight::Causal,
        Sight::Streaming {
            sinks: 1,
            recent: 2,
        },
    ];
    let streaming = AttendPromptArgs {
        sights: &sights,
        ..args
    };
    assert_eq!(
        refused(streaming, Observation::Accumulated, elements),
        KernelError::SightObserved { head: 1 }
    );
    assert_eq!(
        refused(args, Observation::Window { queries: 0 }, elements),
        KernelError::WindowOutOfRange { window: 0 }
    );
}
