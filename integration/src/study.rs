//! One text that is read once, and gone on from under many caches.
//!
//! What a policy keeps of a text depends on the text's queries, keys and values, which dense attention makes and no policy changes. So they are
//! made once, by the engine, and kept; every cache then compresses them as if it had just read the text, and only the tokens behind it go through
//! the model again. A test holds the logits against those of a request that reads everything.
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Tensor, TensorId};
use kv_core::SequenceReport;
use kv_hook::{Batch, Full, Handle, KvRuntime, LayerCall, PoolSpec};
use mistralrs_core::{
    NormalRequest, Request as EngineRequest, RequestMessage, Response, SamplingParams,
};
use parking_lot::Mutex;
use tokio::sync::mpsc::channel;

use crate::{
    CacheConfig, Engine, EngineConfig, Prompt, Request, RequestCache, Runtime, StartError,
    engine::Keeper, warm_up::warm_up,
};

/// How long the engine may take to give a request's pages back.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// A model, and caches that take turns behind it.
#[derive(Debug)]
pub struct Study {
    engine: Engine,
    switch: Arc<Switch>,
}

/// What came of going on from the text.
#[derive(Debug)]
pub struct GoneOn {
    /// The logits behind each of the tokens, `[T, V]`.
    pub logits: Tensor,
    /// What the cache held at the end.
    pub report: SequenceReport,
}

impl EngineConfig {
    /// Starts an engine with several caches behind it; [`EngineConfig::cache`] is not used.
    ///
    /// # Errors
    ///
    /// As [`EngineConfig::start`].
    pub async fn start_study(&self, caches: &[CacheConfig]) -> Result<Study, StartError> {
        let reader = CacheConfig::new("keep-all");
        let runtimes: Vec<Arc<Runtime>> = std::iter::once(&reader)
            .chain(caches)
            .map(|cache| Runtime::new(cache.clone()))
            .collect();
        let switch = Arc::new(Switch::new(runtimes.clone()));
        let keeper = Keeper {
            handle: Handle::new(switch.clone()),
            runtimes,
        };
        let (mistralrs, max_positions) = self.run(Some(&keeper)).await?;
        warm_up(&mistralrs, &switch.runtimes[READER]).await?;
        let engine = Engine {
            mistralrs,
            runtime: None,
            max_positions,
        };
        Ok(Study { engine, switch })
    }
}

impl Study {
    /// Positions that the model was built for.
    #[must_use]
    pub const fn max_positions(&self) -> usize {
        self.engine.max_positions
    }

    /// The caches, in the order in which they were given.
    #[must_use]
    pub fn caches(&self) -> &[Arc<Runtime>] {
        &self.switch.runtimes[READER + 1..]
    }

    /// A text's tokens, without any that mark its beginning.
    ///
    /// # Errors
    ///
    /// What the tokenizer says.
    pub async fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.engine.tokens(text).await
    }

    /// Reads a text with dense attention, and forgets the one before. Returns the logits behind its last token, `[V]`, which no cache changes.
    ///
    /// # Errors
    ///
    /// Fewer than two tokens, which leave nothing to compress; what the engine reports.
    pub async fn read(&mut self, text: Vec<u32>) -> Result<Tensor> {
        ensure!(
            text.len() >= 2,
            "a text of {} tokens leaves nothing to compress",
            text.len()
        );
        self.switch.turn.lock().begin(text.clone());
        let seen = Arc::new(Mutex::new(None));
        let told = seen.clone();
        let request = Request::greedy(Prompt::Tokens(text), 1).with_logits(move |logits, _| {
            told.lock().get_or_insert_with(|| logits.clone());
            Ok(logits.clone())
        });
        let read = self.engine.generate(request).await;
        self.switch.turn.lock().is_reading = false;
        self.ended(READER)?;
        read?;
        let logits = seen.lock().take();
        Ok(logits
            .context("the engine showed no logits")?
            .flatten_all()?)
    }

    /// Compresses the text that was read last for cache `cache`, and reads `tokens` behind it, one after the other through what it keeps.
    ///
    /// # Errors
    ///
    /// No text, no such cache or no tokens; what the engine reports, for example that the pool is too small or the text too long.
    pub async fn go_on(&mut self, cache: usize, tokens: &[u32]) -> Result<GoneOn> {
        self.go_on_under(cache, &RequestCache::default(), tokens)
            .await
    }

    /// As [`Study::go_on`], where the request asks something of its cache: another budget, a pinned prefix.
    ///
    /// # Errors
    ///
    /// As [`Study::go_on`], and [`Runtime::keep_request`].
    pub async fn go_on_under(
        &mut self,
        cache: usize,
        request: &RequestCache,
        tokens: &[u32],
    ) -> Result<GoneOn> {
        let index = READER + 1 + cache;
        let Some(runtime) = self.switch.runtimes.get(index) else {
            bail!("there is no cache {cache}");
        };
        ensure!(!tokens.is_empty(), "there are no tokens to go on with");
        runtime.set_prompt_tail(tokens.len());
        let mut all = {
            let mut turn = self.switch.turn.lock();
            turn.runtime = index;
            let text = turn.text.as_ref().context("no text was read")?;
            text.tokens.clone()
        };
        all.extend_from_slice(tokens);
        let logits = self.logits(all, runtime, request).await;
        let report = self.ended(index);
        let (logits, report) = (logits?, report?);
        let rows = logits.dim(0)?;
        ensure!(
            rows == tokens.len(),
            "{rows} rows of logits came for {} tokens",
            tokens.len()
        );
        Ok(GoneOn {
            logits,
            report: report.context("the engine kept no cache for the request")?,
        })
    }

    /// The logits of all tokens that the engine reads of a prompt, `[T, V]`.
    async fn logits(
        &self,
        tokens: Vec<u32>,
        runtime: &Runtime,
        cache: &RequestCache,
    ) -> Result<Tensor> {
        let (sender, mut answers) = channel(4);
        let _terms = match cache {
            cache if *cache == RequestCache::default() => None,
            cache => Some(runtime.keep_request(&sender, cache)?),
        };
        let sampling = SamplingParams {
            max_len: Some(1),
            ..SamplingParams::deterministic()
        };
        let prompt = RequestMessage::CompletionTokens(tokens);
        let mut request = NormalRequest::new_simple(prompt, sampling, sender, 0, None, None);
        request.return_raw_logits = true;
        self.engine
            .ask(EngineRequest::Normal(Box::new(request)))
            .await?;
        match answers.recv().await {
            Some(Response::Raw { logits_chunks, .. }) => {
                let logits = logits_chunks.into_iter().next();
                logits.context("the engine sent no logits")
            }
            Some(Response::InternalError(error) | Response::ValidationError(error)) => {
                bail!("{error}")
            }
            Some(Response::ModelError(error, _) | Response::CompletionModelError(error, _)) => {
                bail!("{error}")
            }
            Some(_) => bail!("the engine sent another kind of answer than logits"),
            None => bail!("the engine closed the request without an answer"),
        }
    }

    /// Waits until a cache has let go of everything, and says what its last sequence held.
    fn ended(&self, index: usize) -> Result<Option<SequenceReport>> {
        let runtime = &self.switch.runtimes[index];
        ensure!(
            runtime.wait_ended(CLEAN_UP),
            "the engine did not give the request's pages back"
        );
        Ok(runtime.take_last_ended().map(|ended| ended.report))
    }
}

/// The runtime that reads texts.
const READER: usize = 0;

/// The runtime of an engine, which is another one every turn.
#[derive(Debug)]
struct Switch {
    runtimes: Vec<Arc<Runtime>>,
    layers: OnceLock<LayerIds>,
    turn: Mutex<Turn>,
}

/// How the engine names layers, and how the runtimes do.
#[derive(Debug)]
struct LayerIds {
    /// By the engine's name, which is the reader's.
    index: HashMap<TensorId, usize>,
    /// `[runtime][layer]`.
    names: Vec<Vec<TensorId>>,
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turn {
    runtime: usize,
    is_reading: bool,
    text: Option<Text>,
    /// Sequences that are not gone, and who has them.
    owners: HashMap<usize, usize>,
}

/// A text that has been read.
#[derive(Debug)]
struct Text {
    tokens: Vec<u32>,
    /// What attention got, layer by layer.
    layers: Vec<Rows>,
}

/// Queries `[1, H * G, T, D]`, keys and values `[1, H, T, D]` of one layer.
#[derive(Debug, Clone)]
struct Rows {
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
}

impl Turn {
    fn begin(&mut self, tokens: Vec<u32>) {
        self.runtime = READER;
        self.is_reading = true;
        let layers = Vec::new();
        self.text = Some(Text { tokens, layers });
    }
}

impl Rows {
    fn of(call: &LayerCall<'_>) -> Self {
        Self {
            queries: call.queries.clone(),
            keys: call.keys.clone(),
            values: call.values.clone(),
        }
    }

    /// With those of the tokens behind them.
    fn with(&self, call: &LayerCall<'_>) -> candle_core::Result<Self> {
        let joined = |first: &Tensor, then: &Tensor| Tensor::cat(&[first, then], 2);
        Ok(Self {
            queries: joined(&self.queries, call.queries)?,
            keys: joined(&self.keys, call.keys)?,
            values: joined(&self.values, call.values)?,
        })
    }
}

impl Switch {
    fn new(runtimes: Vec<Arc<Runtime>>) -> Self {
        Self {
            runtimes,
            layers: OnceLock::new(),
            turn: Mutex::default(),
        }
    }

    /// Who has a sequence; where nobody does, whose turn it is.
    fn owner(&self, seq: usize) -> &Runtime {
        let turn = self.turn.lock();
        let index = turn.owners.get(&seq).copied().unwrap_or(turn.runtime);
        &self.runtimes[index]
    }

    /// The runtime of a call, the layer and how that runtime calls it.
    fn place(&self, call: &LayerCall<'_>) -> candle_core::Result<(&Runtime, usize, TensorId)> {
        let [seq] = call.batch.seq_ids[..] else {
            candle_core::bail!("a study reads one sequence at a time");
        };
        let turn = self.turn.lock();
        let runtime = turn.owners.get(&seq).copied().unwrap_or(turn.runtime);
        let layers = self.layers.get();
        let found = layers.and_then(|layers| {
            let layer = *layers.index.get(&call.cache)?;
            Some((layer, layers.names[runtime][layer]))
        });
        match found {
            Some((layer, name)) => Ok((&self.runtimes[runtime], layer, name)),
            None => candle_core::bail!("a layer's cache does not belong to this KV-cache pool"),
        }
    }

    /// Attention of tokens behind the text: the runtime gets the text's rows too, as if all had been read at once.
    fn behind(&self, call: &LayerCall<'_>) -> candle_core::Result<Tensor> {
        let (runtime, layer, cache) = self.place(call)?;
        let (rows, tokens) = {
            let turn = self.turn.lock();
            let text = turn.text.as_ref();
            let layers = text.and_then(|text| Some((text.layers.get(layer)?, &text.tokens)));
            let Some((rows, tokens)) = layers else {
                candle_core::bail!("the text of the study was not read whole");
            };
            (rows.clone(), tokens.clone())
        };
        let rows = rows.with(call)?;
        let (first, new) = (tokens.len(), call.queries.dim(2)?);
        let text = Tensor::from_vec(tokens, (1, first), call.batch.tokens.device())?;
        let text = text.to_dtype(call.batch.tokens.dtype())?;
        let batch = Batch {
            positions: vec![0],
            new_lens: vec![first + new],
            tokens: Tensor::cat(&[&text, &call.batch.tokens], 1)?,
            is_prompt: true,
            ..call.batch.clone()
        };
        let whole = LayerCall {
            cache,
            batch: &batch,
            queries: &rows.queries,
            keys: &rows.keys,
            values: &rows.values,
            // The text's own attention is known to the engine, so nobody needs to work it out; see below.
            is_causal: false,
            rotation: call.rotation.clone(),
            ..*call
        };
        // Its rows are those of the text, which are cut off, and of the tokens behind it, which the runtime puts in itself.
        let attention = runtime.prompt(&whole, &|| Ok(rows.queries.clone()))?;
        attention.narrow(2, first, new)
    }
}

impl KvRuntime for Switch {
    fn open_pool(&self, spec: &PoolSpec) -> candle_core::Result<Vec<(Tensor, Tensor)>> {
        let opened = self.runtimes.iter().map(|runtime| runtime.open_pool(spec));
        let mut opened = opened.collect::<candle_core::Result<Vec<_>>>()?;
        let names: Vec<Vec<TensorId>> = opened
            .iter()
            .map(|layers| layers.iter().map(|(key, _)| key.id()).collect())
            .collect();
        let index = names[READER].iter().enumerate();
        let index = index.map(|(layer, &name)| (name, layer)).collect();
        // An engine opens its pool once.
        let _ = self.layers.set(LayerIds { index, names });
        Ok(opened.swap_remove(READER))
    }

    fn reset(&self) {
        for runtime in &self.runtimes {
            runtime.reset();
        }
        self.turn.lock().owners.clear();
    }

    fn enqueue(&self, seq: usize, client: &dyn Any) {
        let index = {
            let mut turn = self.turn.lock();
            let index = turn.runtime;
            turn.owners.insert(seq, index);
            index
        };
        self.runtimes[index].enqueue(seq, client);
    }

    fn reserve(&self, seq: usize, tokens: usize) -> Result<(), Full> {
        self.owner(seq).reserve(seq, tokens)
    }

    fn known_prefix(&self, _seq: usize, tokens: &[u32]) -> usize {
        let turn = self.turn.lock();
        match &turn.text {
            Some(text) if !turn.is_reading && tokens.starts_with(&text.tokens) => text.tokens.len(),
            _ => 0,
        }
    }

    fn refusal(&self, seq: usize, tokens: usize) -> Option<String> {
        self.owner(seq).refusal(seq, tokens)
    }

    fn release(&self, seq: usize) {
        self.owner(seq).release(seq);
        self.turn.lock().owners.remove(&seq);
    }

    fn prompt(
        &self,
        call: &LayerCall<'_>,
        dense: &dyn Fn() -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        if call.batch.positions.iter().any(|&position| position > 0) {
            return self.behind(call);
        }
        let (runtime, _, cache) = self.place(call)?;
        {
            let mut turn = self.turn.lock();
            let is_reading = turn.is_reading;
            if let Some(text) = turn.text.as_mut().filter(|_| is_reading) {
                text.layers.push(Rows::of(call));
            }
        }
        let rotation = call.rotation.clone();
        let call = LayerCall {
            cache,
            rotation,
            ..*call
        };
        runtime.prompt(&call, dense)
    }

    fn decode(&self, call: &LayerCall<'_>) -> candle_core::Result<Tensor> {
        let behind = call.batch.is_prompt && call.batch.positions.iter().any(|&at| at > 0);
        if behind {
            // A single token comes as a decode step.
            return self.behind(call)?.squeeze(2);
        }
        let (runtime, _, cache) = self.place(call)?;
        let rotation = call.rotation.clone();
        runtime.decode(&LayerCall {
            cache,
            rotation,
            ..*call
        })
    }
}
