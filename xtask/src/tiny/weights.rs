//! Random weights that make a model whose next tokens are neither all alike nor always the same one.

use std::collections::HashMap;

use anyhow::{Context, Result};
use safetensors::{Dtype, tensor::TensorView};

use super::{INTERMEDIATE, Model, tokenizer};

/// Deviation of the logits of text, and of everything else.
///
/// Greedy answers so are lines of printable characters, which can be compared as text, and do not end by themselves;
/// sampled ones hold every byte and every special token now and then.
const LOGITS: (f32, f32) = (2.0, 0.2);

/// How far queries are larger than what enters: scores then spread so far that a head looks at some 30 of 500 tokens.
///
/// With 1 it would look at most of them alike, and hardly anything would depend on the cache.
const QUERIES: f32 = 3.0;
/// Deviation of the biases, where there are any, as part of what they are added to.
const BIASES: f32 = 0.5;

/// Name, shape and values of one tensor.
struct Weights {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The whole weights file.
pub(super) fn of(model: &Model) -> Result<Vec<u8>> {
    let mut maker = Maker {
        random: SplitMix64(model.seed),
        made: Vec::new(),
    };
    maker.model(model);
    let mut views = Vec::new();
    for Weights { name, shape, bytes } in &maker.made {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).context(name.clone())?;
        views.push((name.as_str(), view));
    }
    // Hugging Face's loader refuses a file that does not say so.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(about))?)
}

struct Maker {
    random: SplitMix64,
    made: Vec<Weights>,
}

impl Maker {
    /// Every tensor in the order of the data flow; a change of the order changes all values.
    fn model(&mut self, model: &Model) {
        let (hidden, head_dim) = (model.hidden, model.head_dim());
        let queries = model.query_heads * head_dim;
        let keys = model.kv_heads * head_dim;
        self.add(
            "model.embed_tokens.weight",
            &[tokenizer::VOCABULARY, hidden],
            |_| (0.0, 1.0),
        );
        for layer in 0..model.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            self.norm(&name("input_layernorm"), hidden);
            for (part, width, gain) in [
                ("q_proj", queries, QUERIES),
                ("k_proj", keys, 1.0),
                ("v_proj", keys, 1.0),
            ] {
                let part = name(&format!("self_attn.{part}"));
                self.projection(&part, width, hidden, gain);
                if model.biased {
                    self.add(&format!("{part}.bias"), &[width], |_| (0.0, BIASES * gain));
                }
            }
            self.projection(&name("self_attn.o_proj"), hidden, queries, 1.0);
            self.norm(&name("post_attention_layernorm"), hidden);
            self.projection(&name("mlp.gate_proj"), INTERMEDIATE, hidden, 1.0);
            self.projection(&name("mlp.up_proj"), INTERMEDIATE, hidden, 1.0);
            self.projection(&name("mlp.down_proj"), hidden, INTERMEDIATE, 1.0);
        }
        self.norm("model.norm", hidden);
        // The last norm leaves entries around 1, so `hidden` of them add up to the deviation wanted.
        let scale = 1.0 / (hidden as f32).sqrt();
        self.add(
            "lm_head.weight",
            &[tokenizer::VOCABULARY, hidden],
            |token| {
                let (text, other) = LOGITS;
                let logit = if tokenizer::is_text(token) {
                    text
                } else {
                    other
                };
                (0.0, logit * scale)
            },
        );
    }

    /// Entries around 1 become entries around `gain`.
    fn projection(&mut self, name: &str, to: usize, from: usize, gain: f32) {
        let deviation = gain / (from as f32).sqrt();
        self.add(&format!("{name}.weight"), &[to, from], |_| (0.0, deviation));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width], |_| (1.0, 0.1));
    }

    /// A tensor whose row `r` has the mean and the deviation `spread(r)`.
    fn add(&mut self, name: &str, shape: &[usize], spread: impl Fn(usize) -> (f32, f32)) {
        let columns: usize = shape[1..].iter().product();
        let mut bytes = Vec::with_capacity(shape[0] * columns * size_of::<f32>());
        for row in 0..shape[0] {
            let (mean, deviation) = spread(row);
            for _ in 0..columns {
                let value = mean + deviation * self.random.normal();
                bytes.extend(value.to_le_bytes());
            }
        }
        self.made.push(Weights {
            name: name.to_owned(),
            shape: shape.to_vec(),
            bytes,
        });
    }
}

/// A counter, scrambled: small, and the same everywhere.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Nearly normal, mean 0 and deviation 1: the sum of twelve uniform numbers.
    ///
    /// Exact in `f32`, so it does not depend on a machine's logarithms and cosines.
    fn normal(&mut self) -> f32 {
        const UNIFORM: f32 = 65_536.0;
        let mut sum = 0;
        for _ in 0..3 {
            for part in self.next().to_le_bytes().chunks_exact(2) {
                sum += u32::from(part[0]) | u32::from(part[1]) << 8;
            }
        }
        // Each of the twelve lies in 0..=65535, so their mean is half of that.
        (sum as f32 - 6.0 * (UNIFORM - 1.0)) / UNIFORM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        // The first outputs for the seed 1234567, as its authors' code prints them.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn sums_have_mean_0_deviation_1_and_few_far_values() {
        let mut random = SplitMix64(7);
        let values: Vec<f32> = (0..100_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f32>() / 1e5;
        let square = values.iter().map(|value| value * value).sum::<f32>() / 1e5;
        let near = values.iter().filter(|value| value.abs() < 1.0).count();
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((square - 1.0).abs() < 0.03, "{square}");
        assert!((67_000..70_000).contains(&near), "{near}");
    }
}
