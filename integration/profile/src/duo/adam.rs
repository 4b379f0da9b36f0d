//! Adam with the authors' numbers, and the rate of every step.
//!
//! candle-nn's own cannot be written to a file and gone on with, since it shows no moments; a test holds this one against it.
use serde::{Deserialize, Serialize};

use crate::files::Exact;

const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;
/// The part of the steps in which the rate rises, and the part in which it falls.
const RAMP: f64 = 0.2;
/// The rate at both ends, as a part of the whole.
const LOWEST: f64 = 0.1;

/// What it remembers of every number. AdamW's weight decay is 0 here, which makes it Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Adam {
    steps: i32,
    means: Vec<Exact>,
    squares: Vec<Exact>,
}

impl Adam {
    pub(super) fn new(numbers: usize) -> Self {
        Self {
            steps: 0,
            means: vec![Exact(0.0); numbers],
            squares: vec![Exact(0.0); numbers],
        }
    }

    /// Numbers that it is for.
    pub(super) fn len(&self) -> usize {
        self.means.len().min(self.squares.len())
    }

    /// Moves every number against its gradient, by about `rate`.
    pub(super) fn step(&mut self, numbers: &mut [f64], gradient: &[f64], rate: f64) {
        self.steps += 1;
        let [mean_left, square_left] = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        let moments = self.means.iter_mut().zip(&mut self.squares);
        for ((number, gradient), (mean, square)) in numbers.iter_mut().zip(gradient).zip(moments) {
            mean.0 = BETAS[0] * mean.0 + (1.0 - BETAS[0]) * gradient;
            square.0 = BETAS[1] * square.0 + (1.0 - BETAS[1]) * gradient * gradient;
            *number -= rate * (mean.0 / mean_left) / ((square.0 / square_left).sqrt() + EPS);
        }
    }
}

/// The part of the rate that step `step` of `steps` has, counted from 0: it rises from a tenth over the first fifth of the
/// steps, and falls back to it over the last.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 steps")]
pub(super) fn ramp(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64, steps as f64);
    let ramp = RAMP * steps;
    let (risen, to_come) = (step / ramp, (steps - step) / ramp);
    LOWEST + (1.0 - LOWEST) * risen.min(to_come).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor, Var};
    use candle_nn::{AdamW, Optimizer, ParamsAdamW};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn steps_are_those_of_candle_nn() {
        let seed: u64 = rand::random();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers = vec![1.0, 0.5, 0.0];
        let var = Var::from_slice(&numbers, 3, &Device::Cpu).expect("no error");
        let params = ParamsAdamW {
            lr: 0.02,
            weight_decay: 0.0,
            ..ParamsAdamW::default()
        };
        let mut theirs = AdamW::new(vec![var.clone()], params).expect("no error");
        let mut ours = Adam::new(3);
        for step in 0..50 {
            let gradient: Vec<f64> = (0..3).map(|_| rng.random_range(-1.0..1.0)).collect();
            let factor = Tensor::new(gradient.as_slice(), &Device::Cpu).expect("no error");
            let loss = (var.as_tensor() * factor)
                .expect("no error")
                .sum_all()
                .expect("no error");
            theirs.set_learning_rate(0.02 * ramp(step, 50));
            theirs.backward_step(&loss).expect("no error");
            ours.step(&mut numbers, &gradient, 0.02 * ramp(step, 50));
        }
        for (ours, theirs) in numbers.iter().zip(var.to_vec1::<f64>().expect("no error")) {
            assert!((ours - theirs).abs() < 1e-9, "seed {seed}: {ours} {theirs}");
        }
    }

    #[test]
    fn the_rate_rises_stays_and_falls() {
        let of = |step| (ramp(step, 2000) * 1e6).round() / 1e6;
        assert_eq!(
            [0, 200, 400, 1000, 1600].map(of),
            [0.1, 0.55, 1.0, 1.0, 1.0]
        );
        assert_eq!([1800, 2000].map(of), [0.55, 0.1]);
    }
}
