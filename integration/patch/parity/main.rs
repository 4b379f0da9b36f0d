//! Greedy text of three prompts from whichever mistralrs-core is linked, eager, one request at a time.
//!
//! `cargo xtask parity-stock` builds this against the published engine and against the patched one.
#![expect(clippy::print_stdout, reason = "its texts are what is compared")]

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use either::Either;
use indexmap::IndexMap;
use mistralrs_core::{
    AdapterPaths, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig,
    LocalModelPaths, MistralRsBuilder, ModelDType, ModelPaths, NormalRequest, Request,
    RequestMessage, Response, SamplingParams, SchedulerConfig,
};

const PROMPTS: [&str; 3] = [
    "Why is the sky blue?",
    "Name the capital of France.",
    "Explain what a cache is to a child.",
];
const TOKENS: usize = 64;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let model = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .context("usage: parity MODEL.gguf")?,
    );
    let folder = model
        .parent()
        .context("a path to a file")?
        .to_string_lossy()
        .into_owned();
    let file = model
        .file_name()
        .context("a path to a file")?
        .to_string_lossy()
        .into_owned();
    let paths: Box<dyn ModelPaths> = Box::new(LocalModelPaths {
        tokenizer_filename: PathBuf::new(),
        config_filename: PathBuf::new(),
        template_filename: None,
        filenames: vec![model],
        adapter_paths: AdapterPaths::None,
        gen_conf: None,
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: None,
    });
    let loader = GGUFLoaderBuilder::new(
        None,
        None,
        folder,
        vec![file],
        GGUFSpecificConfig::default(),
        false,
        None,
    )
    .build();
    let dtype = ModelDType::F32;
    let map = DeviceMapSetting::dummy();
    let pipeline =
        loader.load_model_from_path(&paths, &dtype, &Device::Cpu, true, map, None, None)?;
    let method = DefaultSchedulerMethod::Fixed(NonZeroUsize::MIN);
    let scheduler = SchedulerConfig::DefaultScheduler { method };
    let engine = MistralRsBuilder::new(pipeline, scheduler, false, None)
        .build()
        .await;
    for (id, prompt) in PROMPTS.into_iter().enumerate() {
        let message = |key: &str, text: &str| (key.to_owned(), Either::Left(text.to_owned()));
        let messages = RequestMessage::Chat {
            messages: vec![IndexMap::from([
                message("role", "user"),
                message("content", prompt),
            ])],
            enable_thinking: None,
            reasoning_effort: None,
        };
        let sampling = SamplingParams {
            max_len: Some(TOKENS),
            ..SamplingParams::deterministic()
        };
        let (sender, mut answers) = tokio::sync::mpsc::channel(8);
        let request = NormalRequest::new_simple(messages, sampling, sender, id + 1, None, None);
        let engine = engine
            .get_sender(None)
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        engine
            .send(Request::Normal(Box::new(request)))
            .await
            .context("the engine has stopped")?;
        match answers.recv().await {
            Some(Response::Done(done)) => {
                let choice = done.choices.first().context("an answer")?;
                println!(
                    "{prompt}\t{:?}",
                    choice.message.content.as_deref().unwrap_or_default()
                );
            }
            _ => bail!("the engine gave no answer to {prompt:?}"),
        }
    }
    Ok(())
}
