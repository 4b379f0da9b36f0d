//! The options that every command with a model shares.
use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use kv_core::Registry;
use mistralrs_core::ModelDType;
use mistralrs_kv::{
    CacheConfig, DEFAULT_BLOCK_SIZE, EngineConfig, KvDtype, PoolSize, StartError, device,
};

/// Type of activations.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    /// 32 bits: the fastest on a CPU.
    F32,
    /// 16 bits: slower on a CPU.
    F16,
    /// 16 bits with the range of 32.
    Bf16,
    /// What the engine chooses.
    Auto,
}

/// The model and how its cache is kept.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The model: a GGUF file, or a folder with config.json, tokenizer.json and safetensors [default: what HEADROOM_MODEL
    /// names].
    #[arg(long, short, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Which tokens stay in the cache: a name from `mistralrs-kv policies`. Without it `run` uses the stock engine, `serve` keep-all.
    #[arg(long, value_name = "NAME", conflicts_with = "policy_file")]
    policy: Option<String>,
    /// Tokens per KV head (`256`), a share of the prompt (`25%`) or bytes per sequence (`64MiB`).
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<String>,
    /// Set a field of the policy; may be repeated.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    settings: Vec<String>,
    /// Read policy, budget and fields from a TOML file; `--budget` and `--set` go over it.
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Run a policy that is a program of its own, made with kv-loader.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["policy_file", "policy"])]
    policy_program: Option<PathBuf>,
    /// Never evict the first tokens of a request, for example its system prompt.
    #[arg(long, value_name = "TOKENS")]
    pin_prefix: Option<u32>,
    /// Read the last tokens of a prompt through the compressed cache, one by one.
    #[arg(long, value_name = "TOKENS")]
    prompt_tail: Option<usize>,
    /// Keep the caches of finished turns, at most so many MiB, so that the next turn of a conversation reads only what is new [default: 0].
    #[arg(long, value_name = "MIB")]
    keep_turns_mb: Option<usize>,
    /// Read prompts in chunks of at most so many tokens, and compress after each where the policy can; 0: at once [default: 0].
    #[arg(long, value_name = "TOKENS")]
    prefill_chunk: Option<usize>,
    /// Let requests share a prefix under a policy that keeps what the end of the prefix attended to, though another question may ask about
    /// what is gone
    #[arg(long)]
    share_any_prefix: bool,
    /// Size the pool for this many tokens in full [default: the model's context, at most 8192].
    #[arg(long, value_name = "TOKENS", conflicts_with = "pa_memory_mb")]
    pa_context_len: Option<usize>,
    /// Size the pool in MiB.
    #[arg(long, value_name = "MIB")]
    pa_memory_mb: Option<usize>,
    /// Tokens per page: 8, 16 or 32.
    #[arg(long, value_name = "TOKENS", default_value_t = DEFAULT_BLOCK_SIZE)]
    pa_block_size: usize,
    /// Where the model and its cache are: `cpu`, `cuda`, `cuda:N`, or `auto`, a GPU where there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Type of activations.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Type in which a policy's keys and values are stored: f16, bf16 or f32 [default: f16 on a CPU, bf16 where the activations are
    /// that; on a GPU the type of the activations].
    #[arg(long, value_name = "TYPE")]
    cache_dtype: Option<KvDtype>,
    /// Most sequences that run at once.
    #[arg(long, value_name = "N", default_value_t = 32)]
    max_seqs: usize,
    /// Seed of the sampler.
    #[arg(long)]
    seed: Option<u64>,
    /// Go on after the model's end-of-text token.
    #[arg(long)]
    ignore_eos: bool,
}

/// The model that was given, or the one that the environment names.
pub(crate) fn model_path(given: Option<PathBuf>) -> Result<PathBuf, StartError> {
    let named = given.or_else(|| std::env::var_os("HEADROOM_MODEL").map(PathBuf::from));
    named.ok_or_else(|| StartError::OutOfRange {
        field: "model",
        value: "missing".into(),
        allowed: "a GGUF file or a model's folder: give `--model PATH` or set HEADROOM_MODEL"
            .into(),
    })
}

/// A text that the user names.
pub(crate) fn read(path: &Path) -> Result<String, StartError> {
    fs::read_to_string(path).map_err(|error| StartError::File {
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
    })
}

/// Makes the pool large enough for a text of `longest` tokens: it holds 8,192 unless the user says otherwise.
pub(crate) fn make_room(config: &mut EngineConfig, longest: usize) {
    if config.pool.is_none() && longest > 8192 {
        // The engine counts in whole MiB.
        config.pool = Some(PoolSize::ContextLen(longest + longest / 16));
    }
}

impl ModelArgs {
    /// What to start; without a policy the stock engine.
    pub(crate) fn engine(
        &self,
        registry: Registry,
        silent: bool,
    ) -> Result<EngineConfig, StartError> {
        self.engine_under(None, registry, silent)
    }

    /// What to start; `default` is the policy where none is given.
    pub(crate) fn engine_under(
        &self,
        default: Option<&str>,
        registry: Registry,
        silent: bool,
    ) -> Result<EngineConfig, StartError> {
        let mut config = EngineConfig::new(self.model_path()?);
        config.cache = self.cache(default, registry)?;
        config.pool = match (self.pa_context_len, self.pa_memory_mb) {
            (Some(tokens), _) => Some(PoolSize::ContextLen(tokens)),
            (None, Some(mb)) => Some(PoolSize::MemoryMb(mb)),
            (None, None) => None,
        };
        config.block_size = self.pa_block_size;
        config.device = device(&self.device)?;
        config.dtype = match self.dtype {
            Dtype::F32 => ModelDType::F32,
            Dtype::F16 => ModelDType::F16,
            Dtype::Bf16 => ModelDType::BF16,
            Dtype::Auto => ModelDType::Auto,
        };
        config.max_seqs = self.max_seqs;
        config.seed = self.seed;
        config.ignore_eos = self.ignore_eos;
        config.silent = silent;
        Ok(config)
    }

    /// What to call the model.
    pub(crate) fn name(&self) -> Result<String, StartError> {
        let path = self.model_path()?;
        let name = if path.is_dir() {
            path.file_name()
        } else {
            path.file_stem()
        };
        Ok(name.map_or_else(
            || "model".into(),
            |name| name.to_string_lossy().into_owned(),
        ))
    }

    /// The seed asked for.
    pub(crate) const fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn model_path(&self) -> Result<PathBuf, StartError> {
        model_path(self.model.clone())
    }

    fn cache(
        &self,
        default: Option<&str>,
        registry: Registry,
    ) -> Result<Option<CacheConfig>, StartError> {
        let name = self.policy.as_deref();
        let start = match (&self.policy_program, &self.policy_file, name.or(default)) {
            (Some(program), _, _) => CacheConfig::from_program(program, registry)?,
            (None, Some(file), _) => CacheConfig::from_file(file)?.registry(registry),
            (None, None, Some(name)) => CacheConfig::new(name).registry(registry),
            (None, None, None) => return self.without_policy().map(|()| None),
        };
        let mut cache = match &self.budget {
            Some(budget) => start.budget(budget.parse()?),
            None => start,
        };
        if let Some(tokens) = self.pin_prefix {
            cache = cache.pin_prefix(tokens);
        }
        if let Some(tokens) = self.prompt_tail {
            cache = cache.prompt_tail(tokens);
        }
        if self.share_any_prefix {
            cache = cache.share_any_prefix(true);
        }
        if let Some(mib) = self.keep_turns_mb {
            cache = cache.keep_turns(mib);
        }
        if let Some(tokens) = self.prefill_chunk {
            cache = cache.prefill_chunk(tokens);
        }
        if let Some(dtype) = self.cache_dtype {
            cache = cache.cache_dtype(dtype);
        }
        for setting in &self.settings {
            cache = cache.set_text(setting)?;
        }
        Ok(Some(cache))
    }

    /// Options that only mean something under a policy are a mistake without one.
    fn without_policy(&self) -> Result<(), StartError> {
        let given = [
            ("budget", self.budget.clone()),
            ("set", self.settings.first().cloned()),
            ("pin-prefix", self.pin_prefix.map(|n| n.to_string())),
            ("prompt-tail", self.prompt_tail.map(|n| n.to_string())),
            (
                "share-any-prefix",
                self.share_any_prefix.then(|| "true".into()),
            ),
            ("keep-turns-mb", self.keep_turns_mb.map(|n| n.to_string())),
            ("prefill-chunk", self.prefill_chunk.map(|n| n.to_string())),
            ("cache-dtype", self.cache_dtype.map(|n| n.to_string())),
            ("pa-context-len", self.pa_context_len.map(|n| n.to_string())),
            ("pa-memory-mb", self.pa_memory_mb.map(|n| n.to_string())),
        ];
        match given
            .into_iter()
            .find_map(|(field, value)| value.map(|value| (field, value)))
        {
            None => Ok(()),
            Some((field, value)) => Err(StartError::OutOfRange {
                field,
                value,
                allowed:
                    "left out without `--policy`; `--policy keep-all` keeps everything in pages"
                        .into(),
            }),
        }
    }
}
