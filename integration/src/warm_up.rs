//! The first forward pass, before the user's: what only shows there stops a start.
use std::time::Duration;

use mistralrs_core::{
    MistralRs, NormalRequest, Request as EngineRequest, RequestMessage, Response, SamplingParams,
};
use tokio::sync::mpsc::channel;

use crate::{Runtime, StartError};

const PATIENCE: Duration = Duration::from_secs(60);

/// Lets the engine's own warm-up end. Where it has none, as on a single thread, or where no layer of it reached the runtime,
/// reads two tokens as a user would. Nothing of it stays in reports and counters.
///
/// # Errors
///
/// [`StartError::Model`] with what the forward pass says.
pub(crate) async fn warm_up(mistralrs: &MistralRs, runtime: &Runtime) -> Result<(), StartError> {
    let ended = runtime.wait_ended(PATIENCE);
    if runtime.stats().is_none_or(|stats| stats.prompts == 0) {
        read_two_tokens(mistralrs).await?;
    }
    if let Some(refusal) = runtime.take_refusal() {
        return Err(refusal);
    }
    if ended && runtime.wait_ended(PATIENCE) {
        runtime.forget_warm_up();
    }
    Ok(())
}

async fn read_two_tokens(mistralrs: &MistralRs) -> Result<(), StartError> {
    let stopped = || StartError::Engine("it has stopped".into());
    let sampling = SamplingParams {
        max_len: Some(1),
        ..SamplingParams::deterministic()
    };
    let (sender, mut answer) = channel(4);
    let tokens = RequestMessage::CompletionTokens(vec![0, 0]);
    let request = NormalRequest::new_simple(tokens, sampling, sender, 0, None, None);
    let engine = mistralrs.get_sender(None).map_err(|_| stopped())?;
    engine
        .send(EngineRequest::Normal(Box::new(request)))
        .await
        .map_err(|_| stopped())?;
    let said = match answer.recv().await {
        Some(Response::CompletionDone(_)) => return Ok(()),
        Some(Response::CompletionModelError(error, _)) => error,
        Some(Response::InternalError(error) | Response::ValidationError(error)) => {
            error.to_string()
        }
        _ => return Err(stopped()),
    };
    let first = said.lines().next().unwrap_or_default();
    Err(StartError::Model(format!(
        "the first forward pass says: {first}"
    )))
}
