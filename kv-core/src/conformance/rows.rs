//! What the kit shows of a prompt to a policy that reads it.
use std::sync::LazyLock;

use super::dice::Dice;
use crate::{Geometry, PromptRows, Reads, Rotation, TokenClass};

/// Positions that the kit's models turn by.
const POSITIONS: usize = 2048;

/// The rotation of every model of the kit.
static ROTATION: LazyLock<Rotation> = LazyLock::new(|| Rotation::of_base(10_000.0, 8, POSITIONS));

/// The rows of one layer's prompt.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    head_dim: usize,
    group: usize,
    prompt: usize,
    /// `[H * G, n, D]`.
    queries: Vec<f32>,
    /// `[H, n, D]`.
    keys: Vec<f32>,
    /// `[H, n, D]`.
    values: Vec<f32>,
    /// `[H, n]`.
    output_norms: Vec<f32>,
    /// `[n]`.
    classes: Vec<TokenClass>,
}

/// A random class, plain as a rule.
pub(super) fn class(dice: &mut Dice) -> TokenClass {
    match dice.below(6) {
        0 => TokenClass::Special,
        1 => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    }
}

impl Rows {
    /// Random rows. Now and then all keys of a prompt are the same.
    pub(super) fn random(geometry: &Geometry, prompt: usize, dice: &mut Dice) -> Self {
        let Geometry {
            kv_heads,
            group,
            head_dim,
            ..
        } = *geometry;
        let mut floats =
            |count: usize| -> Vec<f32> { (0..count).map(|_| 4.0 * dice.unit() - 2.0).collect() };
        let queries = floats(kv_heads * group * prompt * head_dim);
        let mut keys = floats(kv_heads * prompt * head_dim);
        let values = floats(kv_heads * prompt * head_dim);
        let output_norms = floats(kv_heads * prompt).iter().map(|x| x.abs()).collect();
        if dice.below(8) == 0 {
            keys.fill(0.5);
        }
        Self {
            head_dim,
            group,
            prompt,
            queries,
            keys,
            values,
            output_norms,
            classes: (0..prompt).map(|_| class(dice)).collect(),
        }
    }

    /// With these classes, one for each token.
    pub(super) fn set_classes(&mut self, classes: &[TokenClass]) {
        self.classes.copy_from_slice(classes);
    }

    /// What of them a policy reads.
    pub(super) fn shown(&self, reads: Reads) -> PromptRows<'_> {
        PromptRows {
            head_dim: self.head_dim,
            group: self.group,
            rows: self.prompt,
            // Of D = 8: 1 / sqrt(8).
            scale: 0.353_553_4,
            softcap: None,
            queries: reads.queries.then_some(&self.queries),
            keys: reads.keys.then_some(&self.keys),
            values: reads.values.then_some(&self.values),
            rotation: reads.rotation.then_some(&*ROTATION),
            output_norms: reads.output_norms.then_some(&self.output_norms),
            classes: reads.classes.then_some(&self.classes),
        }
    }

    /// Every per-head part, with the length of one KV head's share.
    fn parts(&mut self) -> [(&mut Vec<f32>, usize); 4] {
        let one = self.prompt * self.head_dim;
        [
            (&mut self.queries, self.group * one),
            (&mut self.keys, one),
            (&mut self.values, one),
            (&mut self.output_norms, self.prompt),
        ]
    }

    /// The same with the KV heads in reverse.
    pub(super) fn reversed(mut self) -> Self {
        for (part, one) in self.parts() {
            *part = part.chunks(one).rev().flatten().copied().collect();
        }
        self
    }

    /// The same with the first KV head in place of every other.
    pub(super) fn with_equal_heads(mut self) -> Self {
        for (part, one) in self.parts() {
            let (first, others) = part.split_at_mut(one);
            for other in others.chunks_mut(one) {
                other.copy_from_slice(first);
            }
        }
        self
    }
}
