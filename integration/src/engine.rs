//! Loading a model into the patched engine with a runtime behind its cache.
use std::{
    fs::File,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use candle_core::{Device, quantized::gguf_file};
use kv_hook::Handle;
use mistralrs_core::{
    AdapterPaths, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig,
    Loader, LocalModelPaths, MemoryGpuConfig, MistralRs, MistralRsBuilder, ModelDType, ModelPaths,
    PagedAttentionConfig, PagedCacheType, SchedulerConfig,
};

use crate::{CacheConfig, Runtime, StartError, error::first_line};

/// The engine's block sizes.
const BLOCK_SIZES: [usize; 3] = [8, 16, 32];
/// Tokens that the pool can hold in full unless the user says otherwise; memory is committed when it is touched.
const DEFAULT_CONTEXT: usize = 8192;

/// How large the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolSize {
    /// Room for so many tokens in every head, as the engine counts them: in whole MiB, rounded down.
    ContextLen(usize),
    /// So many MiB.
    MemoryMb(usize),
}

/// What to load and how to keep its cache.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The weights, a GGUF file.
    pub model: PathBuf,
    /// The policy; without one the engine runs as the stock one.
    pub cache: Option<CacheConfig>,
    /// Size of the pool; by default the model's context, at most 8,192 tokens.
    pub pool: Option<PoolSize>,
    /// Tokens per page, `B`: 8, 16 or 32.
    pub block_size: usize,
    /// Where the model runs, and with it the cache.
    pub device: Device,
    /// Type of activations and cache.
    pub dtype: ModelDType,
    /// Most sequences that run at once.
    pub max_seqs: usize,
    /// Seed of the sampler; without one the engine's own, which is fixed too.
    pub seed: Option<u64>,
    /// Whether to go on generating after the model's end-of-text token.
    pub ignore_eos: bool,
    /// Whether to keep the engine's own messages and progress bars off the terminal.
    pub silent: bool,
}

impl EngineConfig {
    /// The defaults for a GGUF file.
    #[must_use]
    pub fn gguf(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            cache: None,
            pool: None,
            block_size: 32,
            device: Device::Cpu,
            dtype: ModelDType::F32,
            max_seqs: 32,
            seed: None,
            ignore_eos: false,
            silent: true,
        }
    }

    /// Checks everything, loads the model and starts the engine.
    ///
    /// # Errors
    ///
    /// [`StartError`], which names what is wrong and what is allowed.
    pub async fn start(&self) -> Result<Engine, StartError> {
        self.start_with(self.cache.clone().map(Runtime::new)).await
    }

    /// As [`EngineConfig::start`], with a runtime that was made elsewhere instead of one for [`EngineConfig::cache`].
    ///
    /// # Errors
    ///
    /// As [`EngineConfig::start`].
    pub async fn start_with(&self, runtime: Option<Arc<Runtime>>) -> Result<Engine, StartError> {
        self.check()?;
        let context = read_gguf(&self.model)?;
        let (pipeline, max_positions, scheduler) = self.load(runtime.as_ref(), context).await?;
        kv_hook::set_seed(self.seed);
        let mistralrs = MistralRsBuilder::new(pipeline, scheduler, false, None)
            .with_disable_eos_stop(self.ignore_eos)
            .build()
            .await;
        if let Some(runtime) = &runtime {
            // The engine warms up with a request of its own; it is not the user's.
            if runtime.wait_ended(Duration::from_secs(60)) {
                runtime.forget_warm_up();
            }
        }
        Ok(Engine {
            mistralrs,
            runtime,
            max_positions,
        })
    }

    fn check(&self) -> Result<(), StartError> {
        let refuse = |field, value: usize, allowed: &str| {
            Err(StartError::OutOfRange {
                field,
                value: value.to_string(),
                allowed: allowed.into(),
            })
        };
        if !BLOCK_SIZES.contains(&self.block_size) {
            return refuse("pa-block-size", self.block_size, "8, 16 or 32");
        }
        if self.max_seqs == 0 {
            return refuse("max-seqs", 0, "at least 1");
        }
        match self.pool {
            Some(PoolSize::ContextLen(0)) => refuse("pa-context-len", 0, "at least 1 token"),
            Some(PoolSize::MemoryMb(0)) => refuse("pa-memory-mb", 0, "at least 1 MiB"),
            _ => Ok(()),
        }
    }

    async fn load(
        &self,
        runtime: Option<&Arc<Runtime>>,
        context: usize,
    ) -> Result<(Pipeline, usize, SchedulerConfig), StartError> {
        let loader = self.loader();
        let load = |paged| {
            loader.load_model_from_path(
                &self.paths(),
                &self.dtype,
                &self.device,
                self.silent,
                DeviceMapSetting::dummy(),
                None,
                paged,
            )
        };
        let loaded = match runtime {
            None => load(None),
            Some(runtime) => {
                let shared = runtime.clone();
                let paged = self.paged(context)?;
                kv_hook::scoped(Arc::new(move || Handle::new(shared.clone())), || {
                    load(Some(paged))
                })
            }
        };
        let pipeline = loaded.map_err(|error| {
            runtime
                .and_then(|runtime| runtime.take_refusal())
                .unwrap_or_else(|| StartError::Engine(format!("{error:#}")))
        })?;
        let metadata = pipeline.lock().await.get_metadata();
        let scheduler = match (runtime, metadata.cache_config.clone()) {
            (Some(_), Some(config)) => SchedulerConfig::PagedAttentionMeta {
                max_num_seqs: self.max_seqs,
                config,
            },
            (Some(_), None) => {
                return Err(StartError::Model(
                    "the engine loaded it without paged attention, as it does with adapters; use the merged model".into(),
                ));
            }
            (None, _) => {
                let seqs = NonZeroUsize::new(self.max_seqs).unwrap_or(NonZeroUsize::MIN);
                SchedulerConfig::DefaultScheduler {
                    method: DefaultSchedulerMethod::Fixed(seqs),
                }
            }
        };
        if let (Some(_), Some(window)) = (
            runtime,
            metadata
                .sliding_window
                .filter(|&w| w < metadata.max_seq_len),
        ) {
            return Err(StartError::Model(format!(
                "its layers have a sliding window of {window} tokens"
            )));
        }
        Ok((pipeline, metadata.max_seq_len, scheduler))
    }

    fn loader(&self) -> Box<dyn Loader> {
        let folder = self
            .model
            .parent()
            .unwrap_or(Path::new(""))
            .to_string_lossy()
            .into_owned();
        let file = self
            .model
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        GGUFLoaderBuilder::new(
            None,
            None,
            folder,
            vec![file],
            GGUFSpecificConfig::default(),
            false,
            None,
        )
        .build()
    }

    /// Everything in a GGUF file is in that file: the engine is given no other path, so that it asks no hub.
    fn paths(&self) -> Box<dyn ModelPaths> {
        Box::new(LocalModelPaths {
            tokenizer_filename: PathBuf::new(),
            config_filename: PathBuf::new(),
            template_filename: None,
            filenames: vec![self.model.clone()],
            adapter_paths: AdapterPaths::None,
            gen_conf: None,
            preprocessor_config: None,
            processor_config: None,
            chat_template_json_filename: None,
        })
    }

    fn paged(&self, context: usize) -> Result<PagedAttentionConfig, StartError> {
        let memory = match self.pool {
            Some(PoolSize::ContextLen(tokens)) => MemoryGpuConfig::ContextSize(tokens),
            Some(PoolSize::MemoryMb(mb)) => MemoryGpuConfig::MbAmount(mb),
            None => MemoryGpuConfig::ContextSize(context.min(DEFAULT_CONTEXT)),
        };
        PagedAttentionConfig::new(Some(self.block_size), memory, PagedCacheType::Auto)
            .map_err(|e| StartError::Engine(e.to_string()))
    }
}

type Pipeline = Arc<tokio::sync::Mutex<dyn mistralrs_core::Pipeline + Send + Sync>>;

/// Checks that a file is a whole GGUF file, and returns the model's context length. Reads the header only.
fn read_gguf(path: &Path) -> Result<usize, StartError> {
    let refuse = |reason: String| StartError::File {
        path: path.to_owned(),
        reason,
    };
    let mut file = File::open(path).map_err(|e| refuse(e.to_string()))?;
    let length = file.metadata().map_err(|e| refuse(e.to_string()))?.len();
    let content = gguf_file::Content::read(&mut file).map_err(|e| {
        refuse(format!(
            "not a GGUF file, or one whose header is damaged ({})",
            first_line(&e)
        ))
    })?;
    for (name, tensor) in &content.tensor_infos {
        let blocks = tensor.shape.elem_count() / tensor.ggml_dtype.block_size();
        let bytes = (blocks * tensor.ggml_dtype.type_size()) as u64;
        let end = content.tensor_data_offset + tensor.offset + bytes;
        if end > length {
            return Err(refuse(format!(
                "truncated: the tensor `{name}` ends at byte {end}, but the file has {length} bytes"
            )));
        }
    }
    let architecture = content
        .metadata
        .get("general.architecture")
        .and_then(|v| v.to_string().ok().cloned());
    let Some(architecture) = architecture else {
        return Err(refuse("its metadata has no `general.architecture`".into()));
    };
    let number = |name: &str| {
        let key = format!("{architecture}.{name}");
        let value = content.metadata.get(&key).and_then(|v| v.to_u32().ok());
        match value.filter(|&value| value > 0) {
            Some(value) => Ok(value as usize),
            None => Err(refuse(format!("its metadata has no `{key}`"))),
        }
    };
    // The engine takes it for granted.
    number("block_count")?;
    number("context_length")
}

/// A running engine, with the runtime behind its cache.
pub struct Engine {
    pub(crate) mistralrs: Arc<MistralRs>,
    pub(crate) runtime: Option<Arc<Runtime>>,
    pub(crate) max_positions: usize,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("runtime", &self.runtime)
            .field("max_positions", &self.max_positions)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// The engine itself, for everything that this crate has no word for.
    #[must_use]
    pub const fn mistralrs(&self) -> &Arc<MistralRs> {
        &self.mistralrs
    }

    /// The runtime behind its cache; `None` where no policy was configured.
    #[must_use]
    pub const fn runtime(&self) -> Option<&Arc<Runtime>> {
        self.runtime.as_ref()
    }

    /// Positions that the model was built for.
    #[must_use]
    pub const fn max_positions(&self) -> usize {
        self.max_positions
    }
}
