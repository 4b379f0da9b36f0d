//! `with_kv_policy` for the builders of the crate `mistralrs`.
use std::{future::poll_fn, ops::Deref, path::PathBuf, pin::pin, sync::Arc};

use kv_hook::{Factory, Handle};
use mistralrs::{
    GgufModelBuilder, Model, ModelBuilder, MultimodalModelBuilder, PagedAttentionConfig,
    TextModelBuilder, UqffTextModelBuilder,
};

use crate::{
    CacheConfig, PoolSize, Runtime, StartError,
    pool::{DEFAULT_BLOCK_SIZE, PoolArgs},
    warm_up::warm_up,
};

/// A builder of `mistralrs` whose models may have a compressed cache.
///
/// Builders of models with adapters (`LoraModelBuilder`...) are none: the engine runs adapters without paged attention.
pub trait Builder: Sized {
    /// Switches the engine's paged attention on.
    #[must_use]
    fn paged(self, config: PagedAttentionConfig) -> Self;

    /// Loads the model, as the builder's own `build` does.
    ///
    /// # Errors
    ///
    /// What the engine says.
    fn load(self) -> impl Future<Output = anyhow::Result<Model>> + Send;
}

macro_rules! builders {
    ($($builder:ident)+) => {$(
        impl Builder for $builder {
            fn paged(self, config: PagedAttentionConfig) -> Self {
                self.with_paged_attn(config)
            }

            fn load(self) -> impl Future<Output = anyhow::Result<Model>> + Send {
                self.build()
            }
        }
    )+};
}

builders! { GgufModelBuilder ModelBuilder MultimodalModelBuilder TextModelBuilder }

impl Builder for UqffTextModelBuilder {
    fn paged(self, config: PagedAttentionConfig) -> Self {
        // Only its inner builder has the method, and it is reached by reference.
        let mut this = self;
        *this = (*this).clone().with_paged_attn(config);
        this
    }

    fn load(self) -> impl Future<Output = anyhow::Result<Model>> + Send {
        self.build()
    }
}

/// `with_kv_policy` for every [`Builder`].
pub trait KvPolicyExt: Builder {
    /// Builds the model with a compressed cache. Call it last: what it returns has settings of its own only.
    ///
    /// ```no_run
    /// use mistralrs::{GgufModelBuilder, TextMessageRole, TextMessages};
    /// use mistralrs_kv::{CacheConfig, KvPolicyExt};
    ///
    /// # #[tokio::main] async fn main() -> anyhow::Result<()> {
    /// let model = GgufModelBuilder::new("models", vec!["SmolLM2-135M-Instruct-Q8_0.gguf"])
    ///     .with_kv_policy(CacheConfig::new("snap-kv").budget("25%".parse()?))
    ///     .build()
    ///     .await?;
    /// let messages = TextMessages::new().add_message(TextMessageRole::User, "Why is the sky blue?");
    /// let answer = model.send_chat_request(messages).await?;
    /// println!("{:?}", answer.choices[0].message.content);
    /// # Ok(()) }
    /// ```
    fn with_kv_policy(self, cache: CacheConfig) -> WithKvPolicy<Self> {
        WithKvPolicy {
            builder: self,
            cache,
            pool: None,
            block_size: DEFAULT_BLOCK_SIZE,
            files: None,
        }
    }
}

impl<B: Builder> KvPolicyExt for B {}

/// A builder, and the cache that its model will have.
#[derive(Debug, Clone)]
#[must_use = "nothing is loaded before `build`"]
pub struct WithKvPolicy<B> {
    builder: B,
    cache: CacheConfig,
    pool: Option<PoolSize>,
    block_size: usize,
    files: Option<PathBuf>,
}

impl<B: Builder> WithKvPolicy<B> {
    /// Says where the model's files are, a GGUF file or a folder: for a policy that reads weights or the tokenizer from them.
    /// Others need it not.
    pub fn model_files(mut self, path: impl Into<PathBuf>) -> Self {
        self.files = Some(path.into());
        self
    }

    /// Sets the size of the pool; by default there is room for 8,192 tokens in every head. A size in MiB counts tokens in the type of the
    /// activations: where the cache's is half as wide, half of it is used.
    pub const fn pool(mut self, size: PoolSize) -> Self {
        self.pool = Some(size);
        self
    }

    /// Sets the tokens per page, `B`: 8, 16 or 32, by default [`DEFAULT_BLOCK_SIZE`].
    pub const fn block_size(mut self, tokens: usize) -> Self {
        self.block_size = tokens;
        self
    }

    /// Loads the model and starts the engine.
    ///
    /// # Errors
    ///
    /// [`StartError`], which names what is wrong and what is allowed. A model that the engine would run without a
    /// compressed cache is an error too.
    pub async fn build(self) -> Result<KvModel, StartError> {
        let pool = PoolArgs {
            size: self.pool,
            block_size: self.block_size,
            // The builder does not say what type its activations have.
            tokens_per_counted: 1,
        };
        let paged = pool.config(usize::MAX)?;
        let runtime = Runtime::new(self.cache);
        if let Some(path) = &self.files {
            runtime.read_model(path)?;
        }
        let shared = runtime.clone();
        let factory: Factory = Arc::new(move || Handle::new(shared.clone()));
        // The builder asks whether there is paged attention, and the engine for a runtime, on the thread that polls.
        let builder = kv_hook::scoped(factory.clone(), || self.builder.paged(paged));
        let mut loading = pin!(builder.load());
        let loaded =
            poll_fn(|cx| kv_hook::scoped(factory.clone(), || loading.as_mut().poll(cx))).await;
        let refusal = runtime.take_refusal();
        let model = match (loaded, refusal) {
            (_, Some(refusal)) => return Err(refusal),
            (Err(error), None) => return Err(StartError::Engine(format!("{error:#}"))),
            (Ok(model), None) => model,
        };
        if runtime.geometry().is_none() {
            return Err(StartError::Model(
                "the engine loaded it without paged attention, as it does with adapters, without a KV cache, or where a part of \
                 the model lies on another kind of device"
                    .into(),
            ));
        }
        warm_up(model.inner(), &runtime).await?;
        Ok(KvModel { model, runtime })
    }
}

/// A model of `mistralrs` with a compressed cache; all methods of [`Model`] are there.
pub struct KvModel {
    model: Model,
    runtime: Arc<Runtime>,
}

impl std::fmt::Debug for KvModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvModel")
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

impl KvModel {
    /// The runtime behind its cache: what it holds, what it held.
    #[must_use]
    pub const fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// The model and the runtime, apart.
    #[must_use]
    pub fn into_parts(self) -> (Model, Arc<Runtime>) {
        (self.model, self.runtime)
    }
}

impl Deref for KvModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}
