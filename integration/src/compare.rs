//! How far a compressed cache moves the model's next-token distribution.
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};

use crate::{Answer, CacheConfig, Engine, EngineConfig, Prompt, Report, Request, StartError};

/// What a model said, step by step.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The answer as text.
    pub answer: Answer,
    /// The logits of every step.
    pub logits: Vec<Vec<f32>>,
    /// The token after every step.
    pub tokens: Vec<u32>,
}

impl Engine {
    /// Generates `tokens` tokens greedily and keeps every step's logits. With `forced`, the model is made to say those
    /// tokens; what is generated beyond them is greedy again.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`].
    pub async fn trace(
        &self,
        prompt: Prompt,
        tokens: usize,
        forced: Option<Vec<u32>>,
    ) -> Result<Trace> {
        let steps = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let seen = steps.clone();
        let look = move |logits: &Tensor, _: &[u32]| {
            let row: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let mut steps = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let (rows, said): &mut (Vec<Vec<f32>>, Vec<u32>) = &mut steps;
            let forced = forced.as_ref().and_then(|tokens| tokens.get(said.len()));
            let token = forced.copied().unwrap_or_else(|| argmax(&row));
            rows.push(row);
            said.push(token);
            saying(token, logits)
        };
        let request = Request::greedy(prompt, tokens).with_logits(look);
        let answer = self.generate(request).await?;
        let (logits, tokens) =
            std::mem::take(&mut *steps.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Trace {
            answer,
            logits,
            tokens,
        })
    }
}

/// Logits in place of `logits` with which the model says `token` and nothing else.
pub(crate) fn saying(token: u32, logits: &Tensor) -> candle_core::Result<Tensor> {
    let mut only = vec![f32::NEG_INFINITY; logits.elem_count()];
    let Some(logit) = only.get_mut(token as usize) else {
        candle_core::bail!("token {token} of a vocabulary of {}", only.len());
    };
    *logit = 0.0;
    Tensor::from_vec(only, logits.shape(), logits.device())
}

/// The most likely token; of equal ones the first.
fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in row.iter().enumerate() {
        if *logit > row[best] {
            best = token;
        }
    }
    u32::try_from(best).unwrap_or(0)
}

/// A policy beside the full cache, on one prompt.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Kullback-Leibler divergence of the policy's next-token distribution from the full cache's, in nats, for every step.
    pub divergence: Vec<f64>,
    /// Steps at which both say the same most likely token.
    pub agreements: usize,
    /// What the compressed cache held.
    pub report: Report,
}

impl Comparison {
    /// Mean divergence over the steps, in nats.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a few thousand steps")]
    pub fn mean(&self) -> f64 {
        self.divergence.iter().sum::<f64>() / self.divergence.len().max(1) as f64
    }

    /// The largest divergence, in nats.
    #[must_use]
    pub fn max(&self) -> f64 {
        let largest = self.divergence.iter().copied().max_by(f64::total_cmp);
        largest.unwrap_or(0.0)
    }
}

/// Reads `prompt` and `tokens` further tokens twice, with the full cache and with `cache`, and compares the next-token
/// distributions. Both read the same text, the one that the full cache makes. The prompt's last token is read through
/// the compressed cache, or as many as the configuration's prompt tail says: otherwise the first distribution would come
/// from dense attention and differ by nothing.
///
/// # Errors
///
/// [`StartError`] if the configuration does not fit; what the engine reports.
pub async fn compare(
    engine: &EngineConfig,
    cache: CacheConfig,
    prompt: &Prompt,
    tokens: usize,
) -> Result<Comparison> {
    let tail = cache.prompt_tail.max(1);
    let full = CacheConfig::new("keep-all").prompt_tail(tail);
    // A pool that was made for the compressed cache need not hold the full one.
    let roomy = EngineConfig {
        pool: None,
        ..engine.clone()
    };
    let reference = start(&roomy, full).await?;
    let expected = reference.trace(prompt.clone(), tokens, None).await?;
    drop(reference);
    let policy = start(engine, cache.prompt_tail(tail)).await?;
    let said = expected.tokens.clone();
    let steps = said.len();
    let got = policy.trace(prompt.clone(), steps, Some(said)).await?;
    let pairs = expected.logits.iter().zip(&got.logits);
    for (step, (full, compressed)) in pairs.clone().enumerate() {
        for (cache, row) in [("full", full), ("compressed", compressed)] {
            let sick = row.iter().filter(|logit| logit.is_nan()).count();
            ensure!(
                sick == 0,
                "{sick} logits of step {step} with the {cache} cache are no numbers"
            );
        }
    }
    let agreements = pairs.clone().filter(|(a, b)| argmax(a) == argmax(b));
    Ok(Comparison {
        divergence: pairs.clone().map(|(a, b)| divergence(a, b)).collect(),
        agreements: agreements.count(),
        report: policy
            .report(got.answer.text)?
            .context("a policy is configured")?,
    })
}

async fn start(engine: &EngineConfig, cache: CacheConfig) -> Result<Engine, StartError> {
    let config = EngineConfig {
        cache: Some(cache),
        ..engine.clone()
    };
    config.start().await
}

/// `sum p ln(p / q)` of the distributions that two rows of logits stand for, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_softmax(p), log_softmax(q));
    // A token that cannot come adds nothing.
    let possible = p.iter().zip(&q).filter(|(p, _)| **p != f64::NEG_INFINITY);
    let sum: f64 = possible.map(|(p, q)| p.exp() * (p - q)).sum();
    // Rounding may leave a hair below zero where the two are the same; what is no number stays none.
    if sum < 0.0 { 0.0 } else { sum }
}

pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = logits.iter().map(|&x| f64::from(x - highest)).collect();
    let log_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
    shifted.iter().map(|x| x - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        // p = (1/2, 1/2), q = (3/4, 1/4): ln(2/3)/2 + ln(2)/2.
        let q = [3.0_f32.ln(), 0.0];
        let want = 0.5 * (2.0_f64 / 3.0).ln() + 0.5 * 2.0_f64.ln();
        assert!((divergence(&[1.0, 1.0], &q) - want).abs() < 1e-7);
        assert_eq!(divergence(&[5.0, -3.0, 2.0], &[5.0, -3.0, 2.0]), 0.0);
        let never = f32::NEG_INFINITY;
        assert_eq!(divergence(&[1.0, never], &[1.0, never]), 0.0);
        assert_eq!(divergence(&[1.0, 1.0], &[1.0, never]), f64::INFINITY);
        assert!(divergence(&[1.0, f32::NAN], &[1.0, 1.0]).is_nan());
    }
}
