//! How well a model goes on with a text, token by token to its end.
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use either::Either;
use mistralrs_core::{Request as EngineRequest, TokenizationRequest};
use tokio::sync::mpsc::channel;

use crate::{
    Engine, Prompt, Request,
    compare::{log_softmax, saying},
};

impl Engine {
    /// A text's tokens, without any that mark its beginning.
    ///
    /// # Errors
    ///
    /// What the tokenizer says.
    pub async fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let (response, mut tokens) = channel(1);
        let request = TokenizationRequest {
            text: Either::Right(text.to_owned()),
            tools: None,
            add_generation_prompt: false,
            add_special_tokens: false,
            enable_thinking: None,
            reasoning_effort: None,
            response,
        };
        self.ask(EngineRequest::Tokenize(request)).await?;
        tokens
            .recv()
            .await
            .context("the engine closed the request without an answer")?
    }

    /// Hands the engine a request.
    pub(crate) async fn ask(&self, request: EngineRequest) -> Result<()> {
        let engine = self.mistralrs.get_sender(None);
        let engine = engine.map_err(|error| anyhow::anyhow!("{error}"))?;
        let sent = engine.send(request).await;
        sent.map_err(|_| anyhow::anyhow!("the engine has stopped"))
    }

    /// Has the model read `text`: the first `prompt` tokens as a prompt, then each following token as if it had said it. `each` is told of
    /// every one of these how little it was expected, `-ln p` in nats, in order and at once. Returns how many there were: fewer than there
    /// are where the model's context ended before.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`], and if there is nothing behind the prompt, or no prompt.
    pub async fn read_along(
        &self,
        text: Vec<u32>,
        prompt: usize,
        each: impl FnMut(f64) + Send + 'static,
    ) -> Result<usize> {
        ensure!(
            (1..text.len()).contains(&prompt),
            "a prompt of {prompt} tokens of a text of {}",
            text.len()
        );
        let behind = text[prompt..].to_vec();
        let tokens = behind.len();
        let count = Arc::new(Mutex::new(0));
        let (seen, each) = (count.clone(), Mutex::new(each));
        let look = move |logits: &Tensor, _: &[u32]| {
            let row: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let mut said = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(&token) = behind.get(*said) else {
                return Ok(logits.clone());
            };
            *said += 1;
            let next = saying(token, logits)?;
            let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
            each(surprise(&row, token as usize));
            Ok(next)
        };
        let prompt = Prompt::Tokens(text[..prompt].to_vec());
        self.generate(Request::greedy(prompt, tokens).with_logits(look))
            .await?;
        let read = *count.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(read)
    }
}

/// `-ln p` of a token by these logits, in nats.
fn surprise(logits: &[f32], token: usize) -> f64 {
    -log_softmax(logits)[token]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surprise_by_hand() {
        // p = (1/4, 3/4).
        let logits = [0.0, 3.0_f32.ln()];
        assert!((surprise(&logits, 0) - 4.0_f64.ln()).abs() < 1e-7);
        assert!((surprise(&logits, 1) - (4.0_f64 / 3.0).ln()).abs() < 1e-7);
        assert!(surprise(&[1000.0, 0.0], 0).abs() < 1e-12);
    }
}
