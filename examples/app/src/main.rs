//! An app on the crate `mistralrs` that has adopted a compressed KV cache.
//!
//! `app MODEL POLICY BUDGET`, for example `app SmolLM2-135M-Instruct-Q8_0.gguf streaming-llm 64` or
//! `app path/to/a/model/folder h2o 50%`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mistralrs::{GgufModelBuilder, ModelDType, RequestBuilder, TextMessageRole, TextModelBuilder};
use mistralrs_kv::{CacheConfig, KvModel, KvPolicyExt, policy::StreamingLlmConfig};

const QUESTION: &str = "A lighthouse keeper finds a letter in a bottle on the beach. It was written a hundred years \
    ago by somebody who asked for help, and it names the island that the keeper can see from the tower. Tell what the \
    keeper does that evening, whom the keeper asks, and what they find together on the island.";

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, policy, budget] = &args[..] else {
        bail!("usage: app MODEL POLICY BUDGET");
    };
    let model = load(Path::new(model), cache(policy, budget)?).await?;

    let request = RequestBuilder::new()
        .set_deterministic_sampler()
        .set_sampler_max_len(48)
        .add_message(TextMessageRole::User, QUESTION);
    let mut answer = model.send_chat_request(request).await?;
    let choice = answer.choices.pop().context("the model gave no answer")?;
    let text = choice.message.content.unwrap_or_default();
    println!("{text}");

    // What the cache of the last request held.
    println!("{}", model.runtime().report(text)?.summary());
    Ok(())
}

/// Any policy by its name; settings of a policy can also be typed, so that the compiler knows their names.
fn cache(policy: &str, budget: &str) -> Result<CacheConfig> {
    let config = match policy {
        "streaming-llm" => CacheConfig::of(&StreamingLlmConfig {
            sinks: 8,
            ..StreamingLlmConfig::default()
        }),
        name => CacheConfig::new(name),
    };
    Ok(config.budget(budget.parse()?))
}

/// A GGUF file, or a folder as Hugging Face has them. Only `with_kv_policy` is new to the app.
async fn load(model: &Path, cache: CacheConfig) -> Result<KvModel> {
    let shown = model.display();
    if model.is_dir() {
        let builder = TextModelBuilder::new(shown).with_dtype(ModelDType::F32);
        return Ok(builder.with_kv_policy(cache).build().await?);
    }
    let path = model
        .canonicalize()
        .with_context(|| format!("there is no model {shown}"))?;
    let folder = path
        .parent()
        .context("a file stands in a folder")?
        .display();
    let file = path.file_name().context("a file has a name")?.display();
    let builder = GgufModelBuilder::new(folder, vec![file]);
    Ok(builder.with_kv_policy(cache).build().await?)
}
