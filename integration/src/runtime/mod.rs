//! The hook's implementation: pages, tables and a policy behind the engine's paged layers.
//!
//! # Locks
//!
//! One lock, [`State`], over the ledger, the page memory and the counters; it is taken once per call of the engine.
//! The pool's own lock (see [`kv_core`]) comes after it. The list of clients with terms of their own has a lock that is
//! never held together with another.
mod cascade;
mod chunks;
mod device;
mod host;
mod idle;
mod machine;
mod open;
mod parking;
mod parts;
mod pass;
mod relative;
mod shared;
mod terms;
mod watch;
mod workers;

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use candle_core::{Result, Tensor, TensorId};
use kv_core::{
    CacheError, ConfigError, Demand, Geometry, HeadTable, Ledger, Needs, Observation, PoolUsage,
    Positions, Rotation, SeqId, Sequence, SequenceReport,
};
use kv_hook::{Full, KvRuntime, LayerCall, PoolSpec};
use mistralrs_core::Response;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::Sender;

use crate::{CacheConfig, StartError, model::ModelFiles};
use idle::Idle;
use machine::Machine;
use parking::Parking;
use parts::Sources;
use pass::{Layers, Pass};
use terms::Clients;

pub use device::TensorDevice;
pub(crate) use terms::Terms;
pub use terms::{RequestCache, RequestTerms};
pub use watch::SeenRows;
use watch::Watch;

/// Reports of ended sequences that are kept for [`Runtime::wait_ended`] and [`Runtime::take_ended`].
const REPORTS_KEPT: usize = 1024;

/// Keeps the cache of one engine.
#[derive(Debug)]
pub struct Runtime {
    config: CacheConfig,
    machine: Machine,
    opened: OnceLock<Opened>,
    clients: Arc<Clients>,
    /// The model's files, for policies that read them.
    files: OnceLock<ModelFiles>,
    state: Mutex<Option<State>>,
    ended: Condvar,
    refused: Mutex<Option<StartError>>,
    /// Tokens at the end of a prompt that are read through the compressed cache.
    prompt_tail: AtomicUsize,
    /// Who is told where heads look.
    watch: Watch,
}

/// What is fixed once the model is known.
#[derive(Debug)]
struct Opened {
    geometry: Geometry,
    /// What holds for every request that asks for nothing else.
    terms: Arc<Terms>,
    /// What those need, and with it what is observed for every sequence.
    needs: Needs,
    /// What its plans read of the model.
    sources: Sources,
    layers: HashMap<TensorId, usize>,
    /// Pages of the pool.
    pages: usize,
    /// Whether texts may go on past the model's positions.
    is_endless: bool,
}

/// What changes with every call.
#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// The pages, and who works on them.
    cache: Box<dyn Layers>,
    /// Sequences that wait for room.
    queue: HashMap<SeqId, Arc<Terms>>,
    /// Sequences that have room.
    open: HashMap<SeqId, Open>,
    ended: VecDeque<Ended>,
    counts: Counts,
    /// How queries and keys are turned, and the tables that say so.
    rotation: Option<(TensorId, Arc<Rotation>)>,
    /// The sequence that let go of a cache last; if it waits again next, it had to.
    released: Option<SeqId>,
    /// Evictions of the engine's own warm-up.
    evicted_before: u64,
    /// Caches of sequences that have ended.
    idle: Idle,
    /// Caches of sequences that lost their pages to others.
    parking: Parking,
}

#[derive(Debug)]
struct Open {
    terms: Arc<Terms>,
    /// Prompt tokens that were read through the compressed cache.
    tail: usize,
    /// A cache of what stays of its prefix, which grows layer by layer.
    prefix: Option<SeqId>,
    /// Tokens that were in the cache when it was taken up.
    known: usize,
    /// Whether it lost its pages to others and has them back.
    is_resumed: bool,
    /// What every layer has in its cache, or had; of sequences whose caches may be kept.
    tokens: Vec<u32>,
    /// What the sequence before it had overwritten.
    overwritten: u64,
    /// What the layers have reported of the prompt, where the policy shares one budget among them.
    reports: Vec<f64>,
}

impl Open {
    /// Whether what it reads is behind a text that its cache holds.
    const fn goes_on(&self) -> bool {
        self.known > 0 || self.is_resumed
    }
}

/// What a sequence held when it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) report: SequenceReport,
    pub(crate) terms: Arc<Terms>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    peak_sequences: usize,
    prompts: u64,
    refusals: u64,
    preemptions: u64,
    resumed: u64,
    rebases: u64,
    overwrites: u64,
    kernels: KernelCalls,
    time: TimeSpent,
}

/// Calls of each kernel, one for one layer of a batch or, for observations of a prompt, of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelCalls {
    /// Rows written into pages.
    pub write: u64,
    /// Decode attention.
    pub attend: u64,
    /// Decode attention that also returns its row.
    pub attend_observed: u64,
    /// Attention over a prompt.
    pub attend_prompt: u64,
    /// Attention of the last prompt queries.
    pub observe_window: u64,
    /// Attention accumulated over a prompt.
    pub observe_accumulated: u64,
    /// Norms of a prompt's keys.
    pub key_norms: u64,
    /// Plans that ranked by scores, carried out on a device; on the host they are no kernel.
    pub select: u64,
    /// Prompts that a plan read itself.
    pub read_prompt: u64,
    /// Bytes that were copied for it.
    pub read_prompt_bytes: u64,
    /// Uploads of tables to a device: one for the decode step of a batch, whatever its layers.
    pub tables: u64,
}

impl KernelCalls {
    const fn note_observation(&mut self, observation: Observation) {
        match observation {
            Observation::Window { .. } | Observation::Latest => self.observe_window += 1,
            Observation::Accumulated | Observation::Rows => self.observe_accumulated += 1,
            Observation::KeyNorms => self.key_norms += 1,
            // Nothing, or what was refused when the pool was opened.
            _ => (),
        }
    }
}

/// What a runtime's share of the forward passes took, with the cache in the host's memory; on a device nothing is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeSpent {
    /// Attention over prompts, and what was observed on its way.
    pub attend_prompt: Duration,
    /// Observing that was no part of attention: its own pass over queries and keys.
    pub observe: Duration,
    /// Plans, with what they read of a prompt.
    pub plan: Duration,
    /// Tokens entered into tables and written into pages.
    pub write: Duration,
    /// Attention of decode steps.
    pub attend: Duration,
    /// Attention rows of decode steps, added to the slots' scores.
    pub note: Duration,
}

/// Caches of finished sequences that are kept for prompts that go on from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reuse {
    /// Caches that are kept now.
    pub caches: usize,
    /// Bytes of their pages, each page counted once.
    pub bytes: usize,
    /// Prompts that went on from one.
    pub hits: u64,
    /// Tokens of prompts that were not read again.
    pub tokens: u64,
    /// Caches that were let go of, for want of room or past the limit.
    pub evictions: u64,
}

/// How a runtime is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The pool.
    pub pool: PoolUsage,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Bytes of the key and the value of one token in one KV head.
    pub token_bytes: usize,
    /// Sequences open.
    pub sequences: usize,
    /// Sequences that wait for room.
    pub waiting: usize,
    /// Pages that would be held besides if nothing were shared: a page that three sequences or kept caches hold counts twice.
    pub pages_shared: usize,
    /// Tokens held by all heads of all open sequences, `[L]`.
    pub resident: Vec<usize>,
    /// Pages that `keep-all` would hold for the open sequences.
    pub pages_full: usize,
    /// Tokens evicted or never kept, each counted once for every head that dropped it.
    pub evicted: u64,
    /// Most sequences open at once.
    pub peak_sequences: usize,
    /// Prompts read.
    pub prompts: u64,
    /// Times the pool had no room for a sequence.
    pub refusals: u64,
    /// Times a sequence lost its pages to others.
    pub preemptions: u64,
    /// Times one of them went on from its own cache, which was kept outside the pool. The others read their text again.
    pub resumed: u64,
    /// Pages whose contents are kept outside the pool.
    pub pages_parked: usize,
    /// Times a sequence's keys were turned back, for the text had come to the end of the model's positions.
    pub rebases: u64,
    /// Tokens that took the slot of another, over all heads of ended sequences.
    pub overwrites: u64,
    /// Calls of each kernel.
    pub kernels: KernelCalls,
    /// What they took.
    pub time: TimeSpent,
    /// Caches of finished sequences. Their pages count as held in `pool`, and nowhere else.
    pub reuse: Reuse,
}

impl Runtime {
    /// A runtime that waits for an engine to open its pool, and keeps it where the model is.
    #[must_use]
    pub fn new(config: CacheConfig) -> Arc<Self> {
        Self::on(config, Machine::OfTheModel)
    }

    /// A runtime that keeps its pool on `device`, wherever the model is. For machines that stand in for a GPU in tests.
    #[must_use]
    pub fn on_device<D: TensorDevice>(config: CacheConfig, device: D) -> Arc<Self> {
        Self::on(config, Machine::given(device))
    }

    fn on(config: CacheConfig, machine: Machine) -> Arc<Self> {
        Arc::new(Self {
            prompt_tail: AtomicUsize::new(config.prompt_tail),
            config,
            machine,
            opened: OnceLock::new(),
            clients: Arc::default(),
            files: OnceLock::new(),
            state: Mutex::new(None),
            ended: Condvar::new(),
            refused: Mutex::new(None),
            watch: Watch::default(),
        })
    }

    /// Says where the model's files are, a GGUF file or a folder, before the model is loaded: for a policy that reads weights or
    /// the tokenizer from them. [`EngineConfig`](crate::EngineConfig) says it by itself.
    ///
    /// # Errors
    ///
    /// [`StartError::File`] if there is no whole model.
    pub fn read_model(&self, path: &Path) -> std::result::Result<(), StartError> {
        self.set_files(ModelFiles::find(path)?);
        Ok(())
    }

    pub(crate) fn set_files(&self, files: ModelFiles) {
        // A runtime serves one model.
        let _ = self.files.set(files);
    }

    /// The configuration it was made with.
    #[must_use]
    pub const fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// Reads the last `tokens` tokens of the prompts to come through the compressed cache, whatever
    /// [`CacheConfig::prompt_tail`] says. For measurements that go on from one text in many ways.
    pub fn set_prompt_tail(&self, tokens: usize) {
        self.prompt_tail.store(tokens, Ordering::Relaxed);
    }

    /// Tokens of a prompt of `prompt` tokens that are read through the compressed cache.
    fn tail_of(&self, terms: &Terms, prompt: usize) -> usize {
        terms.tail(self.prompt_tail.load(Ordering::Relaxed), prompt)
    }

    /// The model's shape, once an engine has opened the pool.
    #[must_use]
    pub fn geometry(&self) -> Option<Geometry> {
        self.opened.get().map(|opened| opened.geometry)
    }

    /// How it is doing, once an engine has opened the pool.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        let guard = self.state.lock();
        let state = guard.as_ref()?;
        let Counts {
            peak_sequences,
            prompts,
            refusals,
            preemptions,
            resumed,
            rebases,
            overwrites,
            kernels,
            time,
        } = state.counts;
        let geometry = state.ledger.geometry();
        let mut resident = vec![0; geometry.layers];
        let mut pages_full = 0;
        for (_, sequence) in state.running() {
            for (layer, heads) in sequence.heads().chunks(geometry.kv_heads).enumerate() {
                resident[layer] += heads.iter().map(HeadTable::len).sum::<usize>();
            }
            pages_full += geometry.full_pages(sequence.seen());
        }
        let pool = state.ledger.pool().usage();
        let held: usize = state
            .ledger
            .sequences()
            .map(|(_, sequence)| sequence.pages_held())
            .sum();
        Some(Stats {
            pool,
            pages_shared: held - pool.held,
            page_bytes: geometry.page_bytes(),
            token_bytes: geometry.page_bytes() / geometry.block,
            sequences: state.running().count(),
            waiting: state.queue.len(),
            resident,
            pages_full,
            evicted: state.ledger.evicted() - state.evicted_before,
            peak_sequences,
            prompts,
            refusals,
            preemptions,
            resumed,
            rebases,
            pages_parked: state.parking.pages(),
            overwrites,
            kernels,
            time,
            reuse: state.idle.reuse(),
        })
    }

    /// What every open sequence holds now.
    #[must_use]
    pub fn open_sequences(&self) -> Vec<SequenceReport> {
        let guard = self.state.lock();
        let Some(state) = guard.as_ref() else {
            return Vec::new();
        };
        state
            .running()
            .filter_map(|(seq, _)| state.ledger.report(seq).ok())
            .map(|report| state.with_tail(report))
            .collect()
    }

    /// Reports of the sequences that have ended since the last call, oldest first, at most the last 1,024.
    pub fn take_ended(&self) -> Vec<SequenceReport> {
        self.state
            .lock()
            .as_mut()
            .map(|state| state.ended.drain(..).map(|ended| ended.report).collect())
            .unwrap_or_default()
    }

    /// The sequence that ended last, with what it was kept under; forgets all that have ended.
    pub(crate) fn take_last_ended(&self) -> Option<Ended> {
        self.state
            .lock()
            .as_mut()
            .and_then(|state| state.ended.drain(..).next_back())
    }

    /// Keeps the sequences of one request under terms of its own. `client` is the channel that its answer will go to; call
    /// this before the request is sent, and drop what it returns when the answer is complete.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # let runtime = mistralrs_kv::Runtime::new(mistralrs_kv::CacheConfig::new("keep-all"));
    /// use mistralrs_kv::RequestCache;
    ///
    /// let (sender, answers) = tokio::sync::mpsc::channel(1_000);
    /// let cache = RequestCache { budget: Some("128".parse()?), pin_prefix: Some(16), ..RequestCache::default() };
    /// let terms = runtime.keep_request(&sender, &cache)?;
    /// // Send the engine a request with `sender` in it, read `answers`, and drop `terms`.
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::Config`] if the policy refuses the budget or the pool could never promise it,
    /// [`StartError::Model`] if no engine has opened the pool.
    pub fn keep_request(
        &self,
        client: &Sender<Response>,
        request: &RequestCache,
    ) -> std::result::Result<RequestTerms, StartError> {
        let Some(opened) = self.opened.get() else {
            return Err(StartError::Model("no engine has opened the pool".into()));
        };
        let terms = opened
            .terms
            .for_request(&self.config, &opened.geometry, request)?;
        if !terms.is_served_by(&opened.terms) {
            return Err(StartError::Config(ConfigError::Budget {
                value: terms.budget.to_string(),
                allowed: format!(
                    "{}, as the engine was started: under that one {} observes {} and reads {}, and this one needs {} and {}",
                    opened.terms.budget,
                    self.config.policy,
                    opened.needs.observation,
                    opened.needs.reads,
                    terms.needs.observation,
                    terms.needs.reads
                ),
            }));
        }
        open::check_room(&self.config.policy, &opened.geometry, &terms, opened.pages)?;
        if let Some(failure) = terms.policy.failure() {
            return Err(StartError::Model(failure));
        }
        Ok(self.clients.add(client, Arc::new(terms)))
    }

    /// Waits until no sequence is open; `false` if `patience` ran out first. The engine gives a sequence's pages back
    /// after it has sent the last token.
    #[must_use]
    pub fn wait_ended(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut guard = self.state.lock();
        while guard
            .as_ref()
            .is_some_and(|state| state.running().next().is_some())
        {
            if self.ended.wait_until(&mut guard, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Forgets what the engine's own warm-up request left in the reports and counters.
    pub(crate) fn forget_warm_up(&self) {
        if let Some(state) = self.state.lock().as_mut() {
            state.ended.clear();
            while state.idle.evict(&mut state.ledger, None) {}
            state.idle.clear();
            state.counts = Counts::default();
            state.evicted_before = state.ledger.evicted();
        }
    }

    /// What to know before trusting the answer to a prompt of `prompt` tokens: what the policy says of itself, and whether
    /// its budget had to be raised.
    #[must_use]
    pub fn notice(&self, prompt: usize) -> Option<String> {
        self.notice_under(&self.opened.get()?.terms, prompt)
    }

    /// As [`Runtime::notice`], for a request under terms of its own.
    pub(crate) fn notice_under(&self, terms: &Terms, prompt: usize) -> Option<String> {
        let geometry = self.geometry()?;
        let compressed = prompt - self.tail_of(terms, prompt);
        terms.notice(&self.config.policy, &geometry, compressed)
    }

    /// Why the pool could not be opened, if that was the configuration's fault.
    pub(crate) fn take_refusal(&self) -> Option<StartError> {
        self.refused.lock().take()
    }

    fn opened(&self) -> Result<&Opened> {
        self.opened
            .get()
            .ok_or_else(|| candle_core::Error::msg("the KV-cache pool has not been opened"))
    }

    /// Runs one layer's call on the pages.
    fn with_layers(
        &self,
        call: &LayerCall<'_>,
        f: impl FnOnce(&mut dyn Layers, &mut Pass<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let opened = self.opened()?;
        if call.queries.device().is_cpu() {
            workers::ready();
        }
        let mut guard = self.state.lock();
        let Some(state) = guard.as_mut() else {
            candle_core::bail!("the KV-cache pool has not been opened");
        };
        let layer = Pass::layer_of(opened, call).inspect_err(|error| {
            // Not known before the first forward pass, which is the engine's warm-up.
            *self.refused.lock() = Some(StartError::Model(error.to_string()));
        })?;
        let mut pass = Pass {
            config: &self.config,
            prompt_tail: self.prompt_tail.load(Ordering::Relaxed),
            watch: &self.watch,
            opened,
            ledger: &mut state.ledger,
            open: &mut state.open,
            idle: &mut state.idle,
            counts: &mut state.counts,
            rotation: &mut state.rotation,
            call,
            layer,
        };
        if opened.needs.positions == Positions::CacheRelative {
            pass.check_movable().inspect_err(|error| {
                // As above.
                *self.refused.lock() = Some(StartError::Model(error.to_string()));
            })?;
        }
        let attention = f(&mut *state.cache, &mut pass)?;
        if layer + 1 == opened.geometry.layers && pass.idle.is_on() {
            pass.note_tokens()?;
            pass.keep_prefixes();
        }
        Ok(attention)
    }
}

impl Opened {
    /// Whether what the policy observes of a prompt reads queries.
    const fn reads_queries(&self) -> bool {
        matches!(
            self.needs.observation,
            Observation::Window { .. }
                | Observation::Accumulated
                | Observation::Rows
                | Observation::Latest
        )
    }
}

impl State {
    /// The sequences that the engine runs: those of the ledger that are no idle caches.
    fn running(&self) -> impl Iterator<Item = (SeqId, &Sequence)> {
        let sequences = self.ledger.sequences();
        sequences.filter(|&(seq, _)| !self.idle.has(seq))
    }

    /// Opens a sequence that will be `tokens` long: with the cache that it claimed, or an empty one. Idle caches make room, and where that is
    /// not enough and nobody else runs, the claimed one does too, for it alone may be too long for the pool.
    fn admit(
        &mut self,
        seq: SeqId,
        tokens: usize,
        (demand, pages, terms): (Demand, usize, Arc<Terms>),
    ) -> std::result::Result<(), CacheError> {
        if self.parking.is_claimed(seq) {
            return self.resume(seq, tokens);
        }
        // The engine reads its text again, for whatever reason.
        self.parking.forget(seq);
        let known = self.making_room(Some(seq), |state| {
            match state.idle.take_up(&mut state.ledger, seq, tokens)? {
                Some(known) => Ok(known),
                None => state
                    .open_empty(seq, tokens, (demand.clone(), pages, &terms))
                    .map(|()| Vec::new()),
            }
        });
        if known.is_err() && self.running().next().is_none() {
            self.idle.evict_claimed(&mut self.ledger, seq);
        }
        let known = known?;
        self.queue.remove(&seq);
        let overwritten = self.ledger.report(seq)?.overwrites;
        let open = Open {
            terms,
            tail: 0,
            prefix: None,
            known: known.len(),
            is_resumed: false,
            tokens: known,
            overwritten,
            reports: Vec::new(),
        };
        self.open.insert(seq, open);
        Ok(())
    }

    /// Opens a sequence with an empty cache and the promise of `pages` pages.
    fn open_empty(
        &mut self,
        seq: SeqId,
        tokens: usize,
        (demand, pages, terms): (Demand, usize, &Terms),
    ) -> std::result::Result<(), CacheError> {
        self.ledger.open(seq, tokens, demand, &terms.pins)?;
        let promised = self.ledger.reserve_pages(seq, pages);
        if promised.is_err() {
            self.ledger.release(seq);
        }
        promised
    }

    /// Tries again while the pool is full and an idle cache can make room, but not the one that `seq` claims.
    fn making_room<T>(
        &mut self,
        seq: Option<SeqId>,
        mut attempt: impl FnMut(&mut Self) -> std::result::Result<T, CacheError>,
    ) -> std::result::Result<T, CacheError> {
        loop {
            match attempt(self) {
                Err(CacheError::Full(_)) if self.idle.evict(&mut self.ledger, seq) => {}
                result => return result,
            }
        }
    }

    /// Ends a sequence. Its cache is kept where caches are, if all layers hold the same text.
    fn end(&mut self, seq: SeqId) {
        if let Some((report, open)) = self.parking.forget(seq) {
            self.note_ended(report, open);
            return;
        }
        let Ok(report) = self.ledger.report(seq) else {
            return;
        };
        let unfinished = self.open.get_mut(&seq).and_then(|open| open.prefix.take());
        if let Some(prefix) = unfinished {
            self.idle.abandon(&mut self.ledger, prefix);
        }
        let text = self.open.get_mut(&seq).map(|open| {
            let tokens = std::mem::take(&mut open.tokens);
            (tokens, open.terms.clone())
        });
        let whole = text.filter(|(tokens, _)| {
            self.idle.is_on() && !tokens.is_empty() && tokens.len() == report.cached_tokens
        });
        // One that took a cache up may have to wait again before it reads anything: the cache is mostly still there.
        let whole = whole.filter(|(tokens, terms)| !self.idle.keeps(tokens, terms));
        let is_kept = whole.is_some_and(|text| {
            let kept = self.idle.set_aside(&mut self.ledger, seq, text);
            kept.is_ok()
        });
        if !is_kept {
            self.ledger.release(seq);
        }
        self.note_end(report);
    }

    /// A report whose prompt counts the tokens that were read through the compressed cache.
    fn with_tail(&self, mut report: SequenceReport) -> SequenceReport {
        if let Some(open) = self.open.get(&report.seq) {
            // Where it went on from a cache, all of that text is its prompt's.
            let compressed = if open.known > 0 {
                open.known
            } else {
                report.prompt_tokens
            };
            report.prompt_tokens = compressed + open.tail;
        }
        report
    }

    fn note_end(&mut self, report: SequenceReport) {
        let report = self.with_tail(report);
        // Always there: what the ledger holds was opened here.
        if let Some(open) = self.open.remove(&report.seq) {
            self.note_ended(report, open);
        }
    }

    fn note_ended(&mut self, report: SequenceReport, open: Open) {
        let Open {
            terms,
            overwritten,
            known,
            ..
        } = open;
        if report.cached_tokens == known {
            return; // promised room, but preempted before its prompt was read
        }
        self.released = Some(report.seq);
        self.counts.overwrites += report.overwrites - overwritten;
        if self.ended.len() == REPORTS_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { report, terms });
    }
}

impl KvRuntime for Runtime {
    fn open_pool(&self, spec: &PoolSpec) -> Result<Vec<(Tensor, Tensor)>> {
        self.open(spec).map_err(|error| {
            let text = error.to_string();
            *self.refused.lock() = Some(error);
            candle_core::Error::msg(text)
        })
    }

    fn reset(&self) {
        if let Some(state) = self.state.lock().as_mut() {
            state.ledger.clear();
            state.cache.reset();
            state.queue.clear();
            state.open.clear();
            state.ended.clear();
            state.idle.clear();
            state.parking.clear();
        }
        self.ended.notify_all();
    }

    fn enqueue(&self, seq: usize, client: &dyn Any) {
        let own = client
            .downcast_ref::<Sender<Response>>()
            .and_then(|client| self.clients.find(client));
        if let (Some(opened), Some(state)) = (self.opened.get(), &mut *self.state.lock()) {
            let seq = SeqId(seq);
            if state.released == Some(seq) {
                state.counts.preemptions += 1;
                tracing::warn!(
                    "sequence {seq} lost its cache to others and is read again from its text"
                );
            }
            let terms = own.unwrap_or_else(|| opened.terms.clone());
            state.queue.insert(seq, terms);
        }
    }

    fn reserve(&self, seq: usize, tokens: usize) -> std::result::Result<(), Full> {
        let (Some(opened), Some(state)) = (self.opened.get(), &mut *self.state.lock()) else {
            return Err(Full {
                wanted: tokens,
                free: 0,
            });
        };
        let seq = SeqId(seq);
        let is_new = state.ledger.sequence(seq).is_err();
        let promised = if is_new {
            let terms = state.queue.get(&seq).unwrap_or(&opened.terms).clone();
            let tail = self.tail_of(&terms, tokens);
            let demand = terms.demand(&opened.geometry, tokens, tail);
            let pages = terms.pages(&opened.geometry, tokens, tail);
            state.admit(seq, tokens, (demand, pages, terms))
        } else {
            state.making_room(None, |state| state.ledger.reserve(seq, tokens))
        };
        match promised {
            Ok(()) => {
                state.counts.peak_sequences =
                    state.counts.peak_sequences.max(state.running().count());
                Ok(())
            }
            Err(error) => {
                state.counts.refusals += 1;
                let (wanted, free) = match error {
                    CacheError::Full(full) => (full.wanted, full.free),
                    _ => (tokens, 0), // cannot be: what is open is reserved, and what is not is opened
                };
                Err(Full { wanted, free })
            }
        }
    }

    fn known_prefix(&self, seq: usize, tokens: &[u32]) -> usize {
        let seq = SeqId(seq);
        match (self.opened.get(), &mut *self.state.lock()) {
            (Some(_), Some(state)) if state.parking.has(seq) => {
                state.parking.claim(seq, tokens.len()).unwrap_or(0)
            }
            (Some(opened), Some(state)) if state.idle.is_on() => {
                let terms = state.queue.get(&seq).unwrap_or(&opened.terms);
                state.idle.claim(seq, tokens, terms)
            }
            _ => 0,
        }
    }

    fn prompt_chunk(&self, seqs: &[usize], tokens: usize) -> usize {
        let (Some(opened), Some(state)) = (self.opened.get(), &*self.state.lock()) else {
            return tokens;
        };
        let rest = |&seq: &usize| {
            let seq = SeqId(seq);
            let read = state.ledger.sequence(seq).map_or(0, Sequence::seen);
            let open = state.open.get(&seq).filter(|open| !open.goes_on())?;
            let prompt = read + tokens;
            Some((prompt - self.tail_of(&open.terms, prompt)).saturating_sub(read))
        };
        let rests: Vec<usize> = seqs.iter().filter_map(rest).collect();
        opened.terms.pass_length(&rests, tokens)
    }

    fn is_endless(&self) -> bool {
        self.opened.get().is_some_and(|opened| opened.is_endless)
    }

    fn place(&self, seqs: &[usize], tokens: usize, positions: &mut [usize]) -> Result<()> {
        if !self.is_endless() {
            return Ok(());
        }
        let mut guard = self.state.lock();
        if let Some(state) = guard.as_mut() {
            for (&seq, position) in seqs.iter().zip(positions) {
                let end = *position + tokens;
                *position -= self.stay_within(state, SeqId(seq), end)?;
            }
        }
        Ok(())
    }

    fn refusal(&self, seq: usize, tokens: usize) -> Option<String> {
        let (Some(opened), Some(state)) = (self.opened.get(), &*self.state.lock()) else {
            return Some("the KV-cache pool has not been opened".into());
        };
        let terms = state.queue.get(&SeqId(seq)).unwrap_or(&opened.terms);
        let wanted = terms.pages(&opened.geometry, tokens, self.tail_of(terms, tokens));
        (wanted > opened.pages).then(|| {
            format!(
                "a text of {tokens} tokens needs {wanted} pages under the policy {} and the budget {}, but the KV-cache pool \
                 has {}; make the pool larger (`--pa-context-len`, `--pa-memory-mb`) or the budget smaller",
                self.config.policy, terms.budget, opened.pages,
            )
        })
    }

    fn release(&self, seq: usize) {
        if let Some(state) = self.state.lock().as_mut() {
            state.queue.remove(&SeqId(seq));
            state.idle.forget_claim(SeqId(seq));
            state.end(SeqId(seq));
        }
        self.ended.notify_all();
    }

    fn preempt(&self, seq: usize) {
        let id = SeqId(seq);
        let is_parked = self.state.lock().as_mut().is_some_and(|state| {
            state.idle.forget_claim(id);
            state.park(id)
        });
        if !is_parked {
            self.release(seq);
        }
    }

    fn prompt(&self, call: &LayerCall<'_>, dense: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        self.with_layers(call, |layers, pass| layers.prompt(pass, dense))
    }

    fn decode(&self, call: &LayerCall<'_>) -> Result<Tensor> {
        self.with_layers(call, |layers, pass| layers.decode(pass))
    }
}
