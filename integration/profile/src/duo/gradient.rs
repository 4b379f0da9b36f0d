//! One step's loss, and where it leads the gates.
use candle_core::{Device, Result, Tensor, Var};

use super::passkeys::Sample;
use crate::{
    Model, Window,
    model::{Angles, Mixed},
};

/// What a text says of the gates.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    /// Mean over the hidden dimension of the squared difference of the last hidden states, and over the labelled tokens.
    pub(super) loss: f64,
    /// Of the loss, for every gate, `[L * H]`.
    pub(super) gradient: Vec<f64>,
}

/// Reads a text with full attention and with heads that are mixed by `gates`, `[L * H]`, and compares the last hidden states.
///
/// What enters each layer is kept of the mixed reading, and nothing else: a layer is worked out again when the gradient
/// comes to it, the one before it meanwhile.
pub(super) fn gradient(
    model: &Model,
    gates: &[f64],
    window: Window,
    sample: &Sample,
) -> Result<Said> {
    let shape = (model.shape.layers, model.shape.kv_heads);
    let gates = Tensor::new(gates, &Device::Cpu)?.reshape(shape)?;
    let gates = gates.to_dtype(model.embedding.dtype())?;
    let angles = model.angles(sample.tokens.len())?;
    let (teacher, student) = rayon::join(
        || model.after(&sample.tokens, &angles),
        || model.inputs(&sample.tokens, &angles, (&gates, window)),
    );
    let (teacher, mut rows) = (teacher?, student?);
    let last = rows.pop().unwrap_or_else(|| teacher.clone());
    let (loss, mut back) = distillation(model, &teacher, &last, sample)?;
    let again = |layer: usize| Again::of(model, layer, &rows[layer], &angles, (&gates, window));
    let mut by_layer = vec![Vec::new(); model.layers.len()];
    let mut layer = model.layers.len();
    let mut next = layer.checked_sub(1).map(again).transpose()?;
    while let Some(worked_out) = next.take() {
        layer -= 1;
        let (gone_back, before) = rayon::join(
            || worked_out.back(&back),
            || layer.checked_sub(1).map(again).transpose(),
        );
        (back, by_layer[layer]) = gone_back?;
        next = before?;
    }
    Ok(Said {
        loss,
        gradient: by_layer.concat(),
    })
}

/// The loss, and its gradient at what comes out of the last layer.
fn distillation(
    model: &Model,
    teacher: &Tensor,
    student: &Tensor,
    sample: &Sample,
) -> Result<(f64, Tensor)> {
    let (first, count) = (sample.labelled.start, sample.labelled.len());
    let student = Var::from_tensor(student)?;
    let of = |rows: &Tensor| model.last_hidden(&rows.narrow(0, first, count)?);
    let difference = (of(student.as_tensor())? - of(teacher)?)?;
    let loss = difference.sqr()?.mean_all()?;
    let gradients = loss.backward()?;
    let back = taken(&gradients, &student)?;
    let loss = loss.to_dtype(candle_core::DType::F64)?.to_scalar()?;
    Ok((loss, back))
}

/// A layer that was worked out again, with what its gradient goes back by.
struct Again {
    rows: Var,
    gates: Var,
    out: Tensor,
}

impl Again {
    fn of(
        model: &Model,
        layer: usize,
        rows: &Tensor,
        angles: &Angles,
        (gates, window): (&Tensor, Window),
    ) -> Result<Self> {
        let rows = Var::from_tensor(rows)?;
        let gates = Var::from_tensor(&gates.get(layer)?)?;
        let mixed = Mixed {
            gates: gates.as_tensor(),
            window,
        };
        let out =
            model.layers[layer].forward(&model.shape, rows.as_tensor(), angles, Some(mixed))?;
        Ok(Self { rows, gates, out })
    }

    /// The gradient before the layer, `[T, E]`, and that of its gates, `[H]`, from the one behind it.
    fn back(self, behind: &Tensor) -> Result<(Tensor, Vec<f64>)> {
        // Its gradient at what comes out is `behind`.
        let gradients = (&self.out * behind)?.sum_all()?.backward()?;
        let gates = taken(&gradients, &self.gates)?;
        let gates = gates.to_dtype(candle_core::DType::F64)?.to_vec1()?;
        Ok((taken(&gradients, &self.rows)?, gates))
    }
}

fn taken(gradients: &candle_core::backprop::GradStore, of: &Var) -> Result<Tensor> {
    match gradients.get(of.as_tensor()) {
        Some(gradient) => Ok(gradient.detach()),
        None => of.zeros_like(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const WINDOW: Window = Window {
        sinks: 4,
        recent: 8,
        block: 4,
    };
    /// How far a gate is moved to see where the loss goes.
    const APART: f64 = 1e-5;

    /// The loss by the oracle.
    fn loss(model: &Model, gates: &[f64], sample: &Sample) -> f64 {
        let teacher = random::oracle(model, &sample.tokens, &vec![1.0; gates.len()], WINDOW);
        let student = random::oracle(model, &sample.tokens, gates, WINDOW);
        let of = |at: usize| {
            let parts = teacher[at].iter().zip(&student[at]);
            parts.map(|(one, other)| (one - other).powi(2)).sum::<f64>() / teacher[at].len() as f64
        };
        sample.labelled.clone().map(of).sum::<f64>() / sample.labelled.len() as f64
    }

    /// More tokens than are worked out at a time, both rotations, biases and stretched angles.
    #[test]
    fn loss_and_gradient_are_those_of_the_oracle() {
        let seed: u64 = rand::random();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for is_adjacent in [false, true] {
            let model = random::model(&mut rng, is_adjacent);
            let gates: Vec<f64> = (0..4).map(|_| rng.random_range(0.0..1.0)).collect();
            let tokens = (0..80)
                .map(|_| rng.random_range(0..random::VOCABULARY))
                .collect();
            let sample = Sample {
                tokens,
                labelled: 50..75,
            };
            let said = gradient(&model, &gates, WINDOW, &sample).expect("no error");
            let expected = loss(&model, &gates, &sample);
            let off = (said.loss / expected - 1.0).abs();
            assert!(
                off < 1e-9,
                "seed {seed}: {} instead of {expected}",
                said.loss
            );
            for (gate, by_gate) in said.gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut gates = gates.clone();
                    gates[gate] += by;
                    loss(&model, &gates, &sample)
                };
                let expected = (moved(APART) - moved(-APART)) / (2.0 * APART);
                let largest = said
                    .gradient
                    .iter()
                    .fold(0.0_f64, |most, x| most.max(x.abs()));
                let off = (by_gate - expected).abs() / largest;
                assert!(
                    off < 1e-6,
                    "seed {seed}, gate {gate}: {by_gate} instead of {expected}"
                );
            }
        }
    }
}
