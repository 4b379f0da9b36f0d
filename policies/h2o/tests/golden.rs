//! The same tokens as other people's code, from the same queries and keys.
use kv_core::{Budget, KeepPlan, LayerView, Policy, PolicyConfig, Reduce, conformance};
use kv_policy_h2o::{Decode, H2oConfig, Score};
use serde::Deserialize;

mod support;
use support::Cache;

#[derive(Debug, Deserialize)]
struct File {
    head_dim: usize,
    tokens: usize,
    /// `[G * H]`, each `[n, D]`; the bits of every number in eight hexadecimal digits.
    queries: Vec<String>,
    /// `[H]`, each `[n, D]`.
    keys: Vec<String>,
    prompts: Vec<Prompt>,
    runs: Vec<Run>,
}

/// What is kept of all tokens as one prompt.
#[derive(Debug, Deserialize)]
struct Prompt {
    id: usize,
    heavy: usize,
    recent: usize,
    score: Score,
    group: Reduce,
    /// `[H][T]`.
    kept: Vec<Vec<u32>>,
}

/// What is kept of a prompt of the first tokens, and dropped at each step after it.
#[derive(Debug, Deserialize)]
struct Run {
    id: usize,
    prompt: usize,
    heavy: usize,
    recent: usize,
    /// Whether each query head has a cache of its own, or the rows of a group are summed.
    per_query_head: bool,
    /// `[heads][T]`.
    kept: Vec<Vec<u32>>,
    /// `[heads][steps]`.
    dropped: Vec<Vec<u32>>,
}

/// Of every head, of every token, `D` numbers.
type Heads = Vec<Vec<Vec<f64>>>;

/// One head's queries and keys.
#[derive(Debug)]
struct Head<'a> {
    queries: Vec<&'a [Vec<f64>]>,
    keys: &'a [Vec<f64>],
}

impl Head<'_> {
    /// Attention of each of the head's queries at `position` over the keys at `held`.
    fn rows(&self, position: usize, held: &[usize]) -> Vec<Vec<f64>> {
        let of = |query: &&[Vec<f64>]| {
            let query = &query[position];
            let scale = f64::from(u32::try_from(query.len()).expect("small")).sqrt();
            let logit = |&key: &usize| -> f64 {
                let products = query.iter().zip(&self.keys[key]).map(|(q, k)| q * k);
                products.sum::<f64>() / scale
            };
            softmax(held.iter().map(logit).collect())
        };
        self.queries.iter().map(of).collect()
    }

    /// Attention accumulated over a prompt, the mean or the sum over the group.
    fn accumulated(&self, prompt: usize, score: Score, group: Reduce) -> Vec<f32> {
        let mut sums = vec![0.0; prompt];
        for position in 0..prompt {
            let held: Vec<usize> = (0..=position).collect();
            for row in self.rows(position, &held) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, mass)| *sum += mass);
            }
        }
        let heads = if group == Reduce::Mean {
            self.queries.len()
        } else {
            1
        };
        let reduced = sums.into_iter().enumerate().map(|(position, sum)| {
            let queries = if score == Score::Mean {
                prompt - position
            } else {
                1
            };
            narrow(sum / f64::from(u32::try_from(queries * heads).expect("small")))
        });
        reduced.collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn softmax(logits: Vec<f64>) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits
        .into_iter()
        .map(|logit| (logit - most).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn numbers(text: &str, width: usize) -> Vec<Vec<f64>> {
    let number = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).expect("digits");
        f64::from(f32::from_bits(
            u32::from_str_radix(digits, 16).expect("eight digits"),
        ))
    };
    let flat: Vec<f64> = text.as_bytes().chunks(8).map(number).collect();
    flat.chunks(width).map(<[f64]>::to_vec).collect()
}

/// The file, and its numbers: queries `[G * H][n][D]` and keys `[H][n][D]`.
fn golden() -> (File, Heads, Heads) {
    let file: File =
        serde_json::from_str(include_str!("../testdata/attention.json")).expect("golden data");
    let all = |heads: &[String]| -> Vec<_> {
        let heads: Vec<_> = heads
            .iter()
            .map(|text| numbers(text, file.head_dim))
            .collect();
        assert!(heads.iter().all(|head| head.len() == file.tokens));
        heads
    };
    let (queries, keys) = (all(&file.queries), all(&file.keys));
    (file, queries, keys)
}

fn heads<'a>(queries: &'a Heads, keys: &'a Heads, per_query_head: bool) -> Vec<Head<'a>> {
    let group = queries.len() / keys.len();
    let width = if per_query_head { 1 } else { group };
    let head = |(index, queries): (usize, &'a [Vec<Vec<f64>>])| Head {
        queries: queries.iter().map(Vec::as_slice).collect(),
        keys: &keys[index * width / group],
    };
    queries.chunks(width).enumerate().map(head).collect()
}

/// `H2OKVCluster` of `KVCache-Factory`, and kvpress' `ObservedAttentionPress`, which keeps no window: what the plan
/// itself says is compared, before the newest token is added to it.
#[test]
fn a_prompt_is_compressed_as_by_others() {
    let (file, queries, keys) = golden();
    let heads = heads(&queries, &keys, false);
    for case in &file.prompts {
        let Prompt {
            heavy,
            recent,
            score,
            group,
            ..
        } = *case;
        let config = H2oConfig {
            heavy: Some(heavy),
            recent: Some(recent),
            score,
            group,
            decode: Decode::Append,
            ..H2oConfig::default()
        };
        let geometry = conformance::geometry(heads.len());
        let policy = config
            .bind(&geometry, Budget::Full)
            .expect("a good configuration");
        let scores: Vec<Vec<f32>> = heads
            .iter()
            .map(|head| head.accumulated(file.tokens, score, group))
            .collect();
        let rows: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
        let view = LayerView::prefill(0, heads.len(), file.tokens, usize::MAX)
            .with_scores(policy.needs().observation, &rows);
        let mut keep = KeepPlan::all(heads.len());
        policy.plan(&view, &mut keep);
        assert_eq!(keep.resolve_unguarded(&view), case.kept, "case {}", case.id);
    }
    assert_eq!(file.prompts.len(), 5, "cases in the golden data");
}

/// The authors' `H2OKVCache_LayerWise`, step by step.
#[test]
fn every_step_drops_what_the_authors_drop() {
    let (file, queries, keys) = golden();
    for run in &file.runs {
        let heads = heads(&queries, &keys, run.per_query_head);
        let config = H2oConfig {
            heavy: Some(run.heavy),
            recent: Some(run.recent),
            ..H2oConfig::default()
        };
        let accumulated = |head: &Head<'_>| head.accumulated(run.prompt, Score::Sum, Reduce::Sum);
        let scores: Vec<Vec<f32>> = heads.iter().map(accumulated).collect();
        let budget = Budget::Tokens(run.heavy + run.recent + 1);
        let mut cache = Cache::after_prompt(config, budget, &scores);
        let mut expected = run.kept.clone();
        assert_kept(&cache, &expected, run, 0);
        for (step, position) in (run.prompt..file.tokens).enumerate() {
            cache.step(position, |head, held| {
                let rows = heads[head].rows(position, held);
                let sum = |slot| narrow(rows.iter().map(|row| row[slot]).sum());
                (0..held.len()).map(sum).collect()
            });
            for (kept, dropped) in expected.iter_mut().zip(&run.dropped) {
                kept.push(u32::try_from(position).expect("small"));
                kept.retain(|position| *position != dropped[step]);
            }
            assert_kept(&cache, &expected, run, step + 1);
        }
    }
    assert_eq!(file.runs.len(), 4, "runs in the golden data");
}

fn assert_kept(cache: &Cache, expected: &[Vec<u32>], run: &Run, step: usize) {
    for (head, expected) in expected.iter().enumerate() {
        let kept: Vec<u32> = cache
            .kept(head)
            .iter()
            .map(|&(position, _)| position)
            .collect();
        assert_eq!(&kept, expected, "case {}, head {head}, step {step}", run.id);
    }
}
