//! Loading a model into the patched engine with a runtime behind its cache.
use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use candle_core::Device;
use kv_hook::Handle;
use mistralrs_core::{
    DefaultSchedulerMethod, DeviceMapSetting, MistralRs, MistralRsBuilder, ModelDType,
    PagedAttentionConfig, SchedulerConfig,
};

use crate::{
    CacheConfig, PoolSize, Runtime, StartError,
    model::ModelFiles,
    pool::{DEFAULT_BLOCK_SIZE, PoolArgs},
    warm_up::warm_up,
};

/// What to load and how to keep its cache.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The weights: a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors.
    pub model: PathBuf,
    /// The policy; without one the engine runs as the stock one.
    pub cache: Option<CacheConfig>,
    /// Size of the pool; by default the model's context, at most 8,192 tokens.
    pub pool: Option<PoolSize>,
    /// Tokens per page, `B`: 8, 16 or 32.
    pub block_size: usize,
    /// Where the model runs, and with it the cache.
    pub device: Device,
    /// Type of activations; [`CacheConfig::cache_dtype`] is the cache's.
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
    /// The defaults for a model: a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors.
    #[must_use]
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            cache: None,
            pool: None,
            block_size: DEFAULT_BLOCK_SIZE,
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
        let keeper = runtime.as_ref().map(|runtime| Keeper {
            handle: Handle::new(runtime.clone()),
            runtimes: vec![runtime.clone()],
        });
        let (mistralrs, max_positions) = self.run(keeper.as_ref()).await?;
        if let Some(runtime) = &runtime {
            warm_up(&mistralrs, runtime).await?;
        }
        Ok(Engine {
            mistralrs,
            runtime,
            max_positions,
        })
    }

    /// Loads the model with `keeper` behind its cache, and starts the engine.
    pub(crate) async fn run(
        &self,
        keeper: Option<&Keeper>,
    ) -> Result<(Arc<MistralRs>, usize), StartError> {
        self.check()?;
        let files = ModelFiles::find(&self.model)?;
        for runtime in keeper.iter().flat_map(|keeper| &keeper.runtimes) {
            runtime.set_files(files.clone());
        }
        let pool = PoolArgs {
            size: self.pool,
            block_size: self.block_size,
            tokens_per_counted: self.tokens_per_counted(),
        };
        let paged = pool.config(files.context)?;
        let (pipeline, max_positions, scheduler) = self.load(keeper, &files, paged).await?;
        kv_hook::set_seed(self.seed);
        let mistralrs = MistralRsBuilder::new(pipeline, scheduler, false, None)
            .with_disable_eos_stop(self.ignore_eos)
            .build()
            .await;
        Ok((mistralrs, max_positions))
    }

    /// The engine sizes a pool by the bytes of its activations; the cache may take less.
    fn tokens_per_counted(&self) -> usize {
        let counted = match self.dtype {
            ModelDType::F32 => 4,
            _ => 2,
        };
        let stored = match self.cache.as_ref().and_then(|cache| cache.dtype) {
            Some(dtype) => dtype.size_in_bytes(),
            None if self.device.is_cpu() => 2,
            None => counted,
        };
        (counted / stored).max(1)
    }

    fn check(&self) -> Result<(), StartError> {
        if self.max_seqs == 0 {
            return Err(StartError::OutOfRange {
                field: "max-seqs",
                value: "0".into(),
                allowed: "at least 1".into(),
            });
        }
        Ok(())
    }

    async fn load(
        &self,
        keeper: Option<&Keeper>,
        files: &ModelFiles,
        paged: PagedAttentionConfig,
    ) -> Result<(Pipeline, usize, SchedulerConfig), StartError> {
        let loader = files.loader()?;
        let load = |paged| {
            loader.load_model_from_path(
                &files.paths(),
                &self.dtype,
                &self.device,
                self.silent,
                DeviceMapSetting::dummy(),
                None,
                paged,
            )
        };
        let loaded = match keeper {
            None => load(None),
            Some(keeper) => {
                let handle = keeper.handle.clone();
                kv_hook::scoped(Arc::new(move || handle.clone()), || load(Some(paged)))
            }
        };
        let pipeline = loaded.map_err(|error| {
            let mut runtimes = keeper.iter().flat_map(|keeper| &keeper.runtimes);
            runtimes
                .find_map(|runtime| runtime.take_refusal())
                .unwrap_or_else(|| StartError::Engine(format!("{error:#}")))
        })?;
        let metadata = pipeline.lock().await.get_metadata();
        let scheduler = match (keeper, metadata.cache_config.clone()) {
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
            keeper,
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
}

/// What is behind the cache of an engine.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// As the engine sees it.
    pub(crate) handle: Handle,
    /// Whose it is in the end.
    pub(crate) runtimes: Vec<Arc<Runtime>>,
}

type Pipeline = Arc<tokio::sync::Mutex<dyn mistralrs_core::Pipeline + Send + Sync>>;

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
