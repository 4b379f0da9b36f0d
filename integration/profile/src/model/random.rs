//! A small model with random weights, and what it says worked out the long way, for tests.
use candle_core::{Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Layer, Linear, Model, Shape};
use crate::{Sight, Window};

const HIDDEN: usize = 12;
const INNER: usize = 20;
pub(crate) const VOCABULARY: u32 = 30;

/// Two layers of two KV heads with two query heads each, in 64 bits.
pub(crate) fn model(rng: &mut ChaCha8Rng, is_adjacent: bool) -> Model {
    let shape = Shape {
        layers: 2,
        kv_heads: 2,
        group: 2,
        head_dim: 6,
        max_positions: 100,
        eps: 1e-5,
        rope_theta: 50.0,
        is_adjacent,
    };
    let mut draw = |sizes: &[usize], least: f64, most: f64| {
        let count = sizes.iter().product();
        let numbers: Vec<f64> = (0..count).map(|_| rng.random_range(least..most)).collect();
        Tensor::from_vec(numbers, sizes, &Device::Cpu).expect("as many as the shape says")
    };
    let layers = (0..shape.layers).map(|layer| {
        let mut linear = |rows: usize, columns: usize, biased: bool| Linear {
            matrix: draw(&[rows, columns], -0.6, 0.6),
            bias: biased.then(|| draw(&[rows], -0.3, 0.3)),
        };
        let (queries, keys) = (4 * shape.head_dim, 2 * shape.head_dim);
        Layer {
            queries: linear(queries, HIDDEN, layer == 0),
            keys: linear(keys, HIDDEN, layer == 0),
            values: linear(keys, HIDDEN, layer == 0),
            output: linear(HIDDEN, queries, false),
            gate: linear(INNER, HIDDEN, false),
            up: linear(INNER, HIDDEN, false),
            down: linear(HIDDEN, INNER, false),
            attention_norm: draw(&[HIDDEN], 0.5, 1.5),
            mlp_norm: draw(&[HIDDEN], 0.5, 1.5),
        }
    });
    let layers = layers.collect();
    Model {
        embedding: draw(&[VOCABULARY as usize, HIDDEN], -1.0, 1.0),
        norm: draw(&[HIDDEN], 0.5, 1.5),
        output: draw(&[VOCABULARY as usize, HIDDEN], -1.0, 1.0),
        factors: Some(vec![1.0, 1.5, 2.0]),
        layers,
        shape,
    }
}

type Rows = Vec<Vec<f64>>;

/// The last hidden states, `[T][E]`, number by number. `gates` are `[L * H]`.
pub(crate) fn oracle(model: &Model, tokens: &[u32], gates: &[f64], window: Window) -> Rows {
    let embedding: Rows = model.embedding.to_vec2().expect("in 64 bits");
    let mut rows: Rows = tokens
        .iter()
        .map(|&token| embedding[token as usize].clone())
        .collect();
    for (layer, gates) in model.layers.iter().zip(gates.chunks(model.shape.kv_heads)) {
        let seen = attention(model, layer, &rows, gates, window);
        for (row, seen) in rows.iter_mut().zip(&seen) {
            add(row, &linear(&layer.output, seen));
            let normed = norm(row, &layer.mlp_norm, model.shape.eps);
            let gate = linear(&layer.gate, &normed);
            let up = linear(&layer.up, &normed);
            let inner = gate
                .iter()
                .zip(up)
                .map(|(x, up)| x / (1.0 + (-x).exp()) * up);
            add(row, &linear(&layer.down, &inner.collect::<Vec<f64>>()));
        }
    }
    rows.iter()
        .map(|row| norm(row, &model.norm, model.shape.eps))
        .collect()
}

fn attention(model: &Model, layer: &Layer, rows: &Rows, gates: &[f64], window: Window) -> Rows {
    let Shape {
        group, head_dim, ..
    } = model.shape;
    let normed: Rows = rows
        .iter()
        .map(|row| norm(row, &layer.attention_norm, model.shape.eps))
        .collect();
    let project = |of: &Linear, turns: bool| -> Vec<Rows> {
        let token = |(position, row): (usize, &Vec<f64>)| -> Rows {
            let all = linear(of, row);
            let heads = all.chunks(head_dim);
            heads
                .map(|head| {
                    if turns {
                        turned(model, head, position)
                    } else {
                        head.to_vec()
                    }
                })
                .collect()
        };
        normed.iter().enumerate().map(token).collect()
    };
    let (queries, keys, values) = (
        project(&layer.queries, true),
        project(&layer.keys, true),
        project(&layer.values, false),
    );
    let mut out = vec![Vec::new(); rows.len()];
    for (at, out) in out.iter_mut().enumerate() {
        for (query, asked) in queries[at].iter().enumerate() {
            let head = query / group;
            let see = |sight: Sight| {
                let weight = |token: usize| {
                    let product = dot(asked, &keys[token][head]);
                    (product / (head_dim as f64).sqrt()).exp() * f64::from(sight.sees(at, token))
                };
                let weights: Vec<f64> = (0..=at).map(weight).collect();
                let total: f64 = weights.iter().sum();
                (0..head_dim)
                    .map(|dim| {
                        let parts = weights.iter().zip(&values);
                        parts
                            .map(|(weight, value)| weight / total * value[head][dim])
                            .sum()
                    })
                    .collect::<Vec<f64>>()
            };
            let (full, streaming) = (see(Sight::Full), see(Sight::Streaming(window)));
            let mixed = full.iter().zip(&streaming);
            out.extend(mixed.map(|(full, part)| gates[head] * full + (1.0 - gates[head]) * part));
        }
    }
    out
}

fn turned(model: &Model, head: &[f64], position: usize) -> Vec<f64> {
    let pairs = head.len() / 2;
    let mut out = head.to_vec();
    for pair in 0..pairs {
        let factor = model
            .factors
            .as_ref()
            .map_or(1.0, |all| f64::from(all[pair]));
        let turn = model.shape.rope_theta.powf(-(pair as f64) / pairs as f64);
        let (sin, cos) = (position as f64 * turn / factor).sin_cos();
        let (one, other) = match model.shape.is_adjacent {
            true => (2 * pair, 2 * pair + 1),
            false => (pair, pair + pairs),
        };
        out[one] = head[one] * cos - head[other] * sin;
        out[other] = head[other] * cos + head[one] * sin;
    }
    out
}

fn norm(row: &[f64], weight: &Tensor, eps: f64) -> Vec<f64> {
    let weight: Vec<f64> = weight.to_vec1().expect("in 64 bits");
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    let parts = row.iter().zip(weight);
    parts
        .map(|(x, weight)| x / (mean + eps).sqrt() * weight)
        .collect()
}

fn linear(of: &Linear, row: &[f64]) -> Vec<f64> {
    let matrix: Rows = of.matrix.to_vec2().expect("in 64 bits");
    let bias = of
        .bias
        .as_ref()
        .map(|bias| bias.to_vec1::<f64>().expect("in 64 bits"));
    let product = matrix.iter().map(|weights| dot(weights, row));
    let bias = bias.unwrap_or_else(|| vec![0.0; matrix.len()]);
    product
        .zip(bias)
        .map(|(product, bias)| product + bias)
        .collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

fn add(row: &mut [f64], other: &[f64]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
    }
}
