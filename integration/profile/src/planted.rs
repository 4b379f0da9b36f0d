//! A model in which it is known which heads retrieve, because it was not trained but written down: what is said to find heads has to find these.
//!
//! It goes on with what stood behind the last word where that stood before, as far back as that may be. A head of the first layer brings to every token the
//! word before it; the retrieval heads of later layers look for the token whose word before is the present one, and bring its word, which the
//! output says. Every other head looks at a token a few places back, and says nothing that matters. Weights and rotation are those of a Llama.
use std::{collections::HashMap, fs, path::Path};

use candle_core::{Device, Result, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::ProfileError;

/// Its layers, `L`.
pub const LAYERS: usize = 3;
/// KV heads of a layer, `H`.
pub const KV_HEADS: usize = 4;
/// Query heads of a KV head, `G`.
pub const GROUP: usize = 2;
/// The heads that retrieve: layer and KV head.
pub const RETRIEVAL: [(usize, usize); 2] = [(1, 2), (2, 1)];
/// Positions that it was built for.
pub const MAX_POSITIONS: usize = 4096;

/// The head that brings the word before.
const BEFORE: (usize, usize) = (0, 0);
/// Dimension of a head: pairs that turn fast tell near tokens apart, and the slow half compares words.
const DIM: usize = 64;
const PAIRS: usize = DIM / 2;
const SLOW: usize = PAIRS / 2;
/// So slow that words far apart can be compared.
const ROPE_THETA: f64 = 1e8;
/// Numbers that stand for a word: two for each slow pair.
const CODE: usize = 2 * (PAIRS - SLOW);
/// Hidden dimension, the engine's for so many heads, and where in it what stands.
const HIDDEN: usize = KV_HEADS * GROUP * DIM;
const WORD: usize = 32;
const WORD_BEFORE: usize = WORD + CODE;
const SAID: usize = WORD_BEFORE + CODE;
const NOISE: usize = SAID + CODE;
/// A number that every token has. It outweighs all others, so that a norm divides every row by about the same.
const ALWAYS: f32 = 64.0;
/// What that is: `ALWAYS` over the root of `HIDDEN`.
const ROOT: f32 = 2.0 * std::f32::consts::SQRT_2;
/// How sharply heads look.
const NEAR: f32 = 14.0;
const SAME: f32 = 1.5;
/// The weight of the last norm: a word that is not brought is a difference that counts.
const LAST: f32 = 4.0;
const INTERMEDIATE: usize = 32;
const UNKNOWN: &str = "<unk>";
const END: &str = "<end>";
const BLANK: &str = "\u{2581}";

/// The model's files.
#[derive(Debug)]
pub struct Planted {
    words: Vec<String>,
    seed: u64,
}

impl Planted {
    /// A model of these words, which are all different; every other word is the same one to it. Weights that are random come of `seed`.
    pub fn new(words: impl IntoIterator<Item = impl Into<String>>, seed: u64) -> Self {
        let special = [UNKNOWN, END].map(String::from);
        Self {
            words: special
                .into_iter()
                .chain(words.into_iter().map(Into::into))
                .collect(),
            seed,
        }
    }

    /// A text as tokens.
    #[must_use]
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        let number = |word: &str| self.words.iter().position(|known| known == word);
        let words = text.split_whitespace();
        let numbers = words.map(|word| number(word).unwrap_or(0));
        numbers
            .map(|number| u32::try_from(number).unwrap_or(0))
            .collect()
    }

    /// Writes a folder as Hugging Face has them.
    ///
    /// # Errors
    ///
    /// What cannot be written.
    pub fn write(&self, folder: &Path) -> std::result::Result<(), ProfileError> {
        let wrong = |error: std::io::Error| ProfileError::file(folder, error);
        fs::create_dir_all(folder).map_err(wrong)?;
        candle_core::safetensors::save(&self.tensors()?, folder.join("model.safetensors"))?;
        for (name, value) in [
            ("config.json", self.config()),
            ("tokenizer.json", self.tokenizer()),
            (
                "tokenizer_config.json",
                json!({"eos_token": END, "unk_token": UNKNOWN}),
            ),
            ("generation_config.json", json!({"eos_token_id": 1})),
        ] {
            fs::write(folder.join(name), format!("{value:#}\n")).map_err(wrong)?;
        }
        Ok(())
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": false,
            "eos_token_id": 1,
            "head_dim": DIM,
            "hidden_act": "silu",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": MAX_POSITIONS,
            "num_attention_heads": KV_HEADS * GROUP,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": KV_HEADS,
            "rms_norm_eps": 1e-5,
            "rope_theta": ROPE_THETA,
            "tie_word_embeddings": false,
            "torch_dtype": "float32",
            "vocab_size": self.words.len(),
        })
    }

    /// Words between blanks, each with a sign for the blank before it, so that a text comes back.
    fn tokenizer(&self) -> Value {
        let numbered = self.words.iter().enumerate();
        let name = |(number, word): (usize, &String)| match number {
            0 | 1 => (word.clone(), json!(number)),
            _ => (format!("{BLANK}{word}"), json!(number)),
        };
        let vocabulary: Map<String, Value> = numbered.map(name).collect();
        let special = |id: usize, content: &str| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        };
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [special(0, UNKNOWN), special(1, END)],
            "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "always", "split": true},
            ]},
            "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ]},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN},
        })
    }

    fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let words = self.words.len();
        let mut embedding = Matrix::new(words, HIDDEN);
        let mut output = Matrix::new(words, HIDDEN);
        for word in 0..words {
            embedding.set(word, 0, ALWAYS);
            for number in 0..CODE {
                let sign = if rng.random() { 1.0 } else { -1.0 };
                embedding.set(word, WORD + number, sign);
                output.set(word, SAID + number, sign);
            }
        }
        let mut last = vec![LAST; HIDDEN];
        // The number that every token has tells nothing.
        last[0] = 0.0;
        let mut all = HashMap::from([
            ("model.embed_tokens.weight".to_owned(), embedding.tensor()?),
            ("lm_head.weight".to_owned(), output.tensor()?),
            (
                "model.norm.weight".to_owned(),
                Tensor::new(last, &Device::Cpu)?,
            ),
        ]);
        for layer in 0..LAYERS {
            let mut add = |name: &str, tensor: Tensor| {
                all.insert(format!("model.layers.{layer}.{name}.weight"), tensor);
            };
            let heads = Heads::of(layer, &mut rng);
            add("self_attn.q_proj", heads.queries.tensor()?);
            add("self_attn.k_proj", heads.keys.tensor()?);
            add("self_attn.v_proj", heads.values.tensor()?);
            add("self_attn.o_proj", heads.output.tensor()?);
            let ones = Tensor::ones(HIDDEN, candle_core::DType::F32, &Device::Cpu)?;
            add("input_layernorm", ones.clone());
            add("post_attention_layernorm", ones);
            // Nothing happens between the heads.
            let nothing = Matrix::new(INTERMEDIATE, HIDDEN).tensor()?;
            add("mlp.gate_proj", nothing.clone());
            add("mlp.up_proj", nothing.clone());
            add("mlp.down_proj", nothing.t()?.contiguous()?);
        }
        Ok(all)
    }
}

/// The weights of a layer's heads.
struct Heads {
    queries: Matrix,
    keys: Matrix,
    values: Matrix,
    output: Matrix,
}

impl Heads {
    fn of(layer: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut heads = Self {
            queries: Matrix::new(KV_HEADS * GROUP * DIM, HIDDEN),
            keys: Matrix::new(KV_HEADS * DIM, HIDDEN),
            values: Matrix::new(KV_HEADS * DIM, HIDDEN),
            output: Matrix::new(HIDDEN, KV_HEADS * GROUP * DIM),
        };
        for head in 0..KV_HEADS {
            // Everything reads the word; a norm has divided it.
            for number in 0..CODE {
                heads.values.set(head * DIM + number, WORD + number, ROOT);
            }
            if RETRIEVAL.contains(&(layer, head)) {
                heads.look_for_the_word(head);
                heads.bring(head, SAID);
            } else if (layer, head) == BEFORE {
                heads.look_back(head, 1.0);
                heads.bring(head, WORD_BEFORE);
            } else {
                heads.look_back(head, rng.random_range(2..5_u8).into());
                heads.scatter(head, rng);
            }
        }
        heads
    }

    /// The query heads of a KV head.
    fn group(head: usize) -> impl Iterator<Item = usize> {
        head * GROUP..(head + 1) * GROUP
    }

    /// Scores are highest so many places back: the fast pairs of all keys point the same way, and those of a query to where that key was then.
    #[expect(clippy::cast_possible_truncation, reason = "weights have 32 bits")]
    fn look_back(&mut self, head: usize, places: f64) {
        let amplitude = (NEAR * (DIM as f32).sqrt()).sqrt() * ROOT / ALWAYS;
        for pair in 0..SLOW {
            let angle = -places * ROPE_THETA.powf(-2.0 * pair as f64 / DIM as f64);
            self.keys.set(head * DIM + pair, 0, amplitude);
            for query in Self::group(head) {
                let (cos, sin) = (angle.cos() as f32, angle.sin() as f32);
                self.queries.set(query * DIM + pair, 0, amplitude * cos);
                self.queries
                    .set(query * DIM + pair + PAIRS, 0, amplitude * sin);
            }
        }
    }

    /// Scores are highest where the word before is the present one, wherever that is: the slow pairs hardly turn.
    fn look_for_the_word(&mut self, head: usize) {
        let amplitude = (SAME * (DIM as f32).sqrt()).sqrt() * ROOT;
        for number in 0..CODE {
            let pair = SLOW + number / 2;
            let row = if number % 2 == 0 { pair } else { pair + PAIRS };
            self.keys
                .set(head * DIM + row, WORD_BEFORE + number, amplitude);
            for query in Self::group(head) {
                self.queries
                    .set(query * DIM + row, WORD + number, amplitude);
            }
        }
    }

    /// Puts the word that was seen to `place`.
    fn bring(&mut self, head: usize, place: usize) {
        for query in Self::group(head) {
            for number in 0..CODE {
                let share = 1.0 / GROUP as f32;
                self.output.set(place + number, query * DIM + number, share);
            }
        }
    }

    /// Puts the word that was seen where nothing looks, and everywhere.
    fn scatter(&mut self, head: usize, rng: &mut ChaCha8Rng) {
        for query in Self::group(head) {
            for place in NOISE..HIDDEN {
                let number = rng.random_range(0..CODE);
                self.output
                    .set(place, query * DIM + number, rng.random_range(-0.3..0.3));
            }
        }
    }
}

/// `[rows, columns]`.
struct Matrix {
    numbers: Vec<f32>,
    columns: usize,
}

impl Matrix {
    fn new(rows: usize, columns: usize) -> Self {
        Self {
            numbers: vec![0.0; rows * columns],
            columns,
        }
    }

    fn set(&mut self, row: usize, column: usize, number: f32) {
        self.numbers[row * self.columns + column] = number;
    }

    fn tensor(self) -> Result<Tensor> {
        let shape = (self.numbers.len() / self.columns, self.columns);
        Tensor::from_vec(self.numbers, shape, &Device::Cpu)
    }
}
