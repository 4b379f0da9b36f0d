//! The runtime as the engine sees it.
use std::{any::Any, fmt, ops::Deref, sync::Arc};

use candle_core::{DType, Device, Result, Tensor, TensorId};

use crate::RotationTables;

/// What the engine knows about its cache when it makes one.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// Blocks that the engine would allocate per layer.
    pub blocks: usize,
    /// Tokens of a block, `B`.
    pub block: usize,
    /// Query heads of a layer, `H * G`.
    pub query_heads: usize,
    /// Whether the cache holds latent vectors (MLA) instead of keys and values.
    pub latent: bool,
    /// Positions that the model was built for.
    pub max_positions: usize,
    /// Storage type that the engine would use, by default the type of its activations.
    pub dtype: DType,
    /// The attention layers, in order.
    pub layers: Vec<LayerSpec>,
}

/// One attention layer.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// KV heads, `H`.
    pub kv_heads: usize,
    /// Dimension of a key.
    pub key_dim: usize,
    /// Dimension of a value.
    pub value_dim: usize,
    /// Whether the layer has a cache of its own instead of reading another layer's.
    pub own_cache: bool,
    /// Where the layer runs.
    pub device: Device,
}

/// There is no room now. Not an error: the scheduler waits, or preempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Pages that the sequence needs beyond what it has.
    pub wanted: usize,
    /// Pages that nobody has been promised.
    pub free: usize,
}

/// The sequences of one forward pass.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who keeps their cache.
    pub runtime: Handle,
    /// Ids, `[S]`; unique within an engine.
    pub seq_ids: Vec<usize>,
    /// Whether the pass reads prompts, or else one new token each.
    pub is_prompt: bool,
    /// Position of the first new token in the text, `[S]`.
    pub positions: Vec<usize>,
    /// New tokens without padding, `[S]`.
    pub new_lens: Vec<usize>,
    /// The new tokens as the tokenizer numbers them, `[S, T]`.
    pub tokens: Tensor,
    /// Tokens of each prompt that later passes read ([`KvRuntime::prompt_chunk`]).
    pub to_come: usize,
}

/// The attention of one layer for one batch.
#[derive(Debug)]
pub struct LayerCall<'a> {
    /// Names the layer: the id of the key cache that [`KvRuntime::open_pool`] returned for it.
    pub cache: TensorId,
    /// Whose tokens they are.
    pub batch: &'a Batch,
    /// Queries after `RoPE`, `[S, H * G, T, D]`.
    pub queries: &'a Tensor,
    /// Keys after `RoPE`, `[S, H, T, D]`.
    pub keys: &'a Tensor,
    /// Values, `[S, H, T, D]`.
    pub values: &'a Tensor,
    /// Factor on the logits.
    pub softmax_scale: f32,
    /// Cap on the logits, `cap * tanh(logit / cap)`.
    pub softcap: Option<f32>,
    /// How far back this layer may look, where the model says so.
    pub sliding_window: Option<usize>,
    /// Whether a prompt's query sees all tokens before it and none after it, and nothing else masks.
    pub is_causal: bool,
    /// How queries and keys were turned by their position, if by the engine's usual `RoPE`.
    pub rotation: Option<RotationTables>,
}

/// Keeps the KV cache of one engine.
///
/// The engine calls from one thread at a time, but from different threads.
pub trait KvRuntime: fmt::Debug + Send + Sync {
    /// Makes the pool and returns a (key, value) pair per layer that stands for the layer's cache: the engine only
    /// carries the pairs around, and their key's id comes back as [`LayerCall::cache`].
    ///
    /// # Errors
    ///
    /// What cannot be served, as a sentence for the user.
    fn open_pool(&self, spec: &PoolSpec) -> Result<Vec<(Tensor, Tensor)>>;

    /// Lets go of every sequence: a new engine starts over the same model, and its ids start at zero again.
    fn reset(&self);

    /// Sequence `seq` waits for room: it is new, or it has lost its cache to others. `client` is the channel that its
    /// answer goes to, the engine's `tokio::sync::mpsc::Sender<Response>`: it tells whose request this is. Ends with the
    /// first [`KvRuntime::reserve`] that succeeds, or with [`KvRuntime::release`].
    fn enqueue(&self, seq: usize, client: &dyn Any);

    /// Promises room for sequence `seq` to be `tokens` long. Promises grow with the sequence and end with it.
    ///
    /// # Errors
    ///
    /// [`Full`] when the pool has not enough pages that are free and not promised; nothing has changed then.
    fn reserve(&self, seq: usize, tokens: usize) -> std::result::Result<(), Full>;

    /// How many of the first of `tokens`, the text of sequence `seq`, the engine need not read, because the runtime has what reading them
    /// would bring: the pass over the prompt begins behind them ([`Batch::positions`]). Asked whenever the sequence waits for
    /// room, before [`KvRuntime::reserve`], and never of one with images or sound; the engine reads at least the last token. 0 unless a runtime
    /// says otherwise.
    fn known_prefix(&self, seq: usize, tokens: &[u32]) -> usize {
        let _ = (seq, tokens);
        0
    }

    /// How many of the `tokens` tokens that each of these prompts has yet to read the engine reads in the next pass, at least 1. What it
    /// reads before the last pass answers nothing; then it asks again. All of them, unless a runtime says otherwise.
    fn prompt_chunk(&self, seqs: &[usize], tokens: usize) -> usize {
        let _ = seqs;
        tokens
    }

    /// Whether texts may be longer than the model has positions for.
    fn is_endless(&self) -> bool {
        false
    }

    /// Says where the model is to think that the next `tokens` tokens of each sequence stand, if not where they do in the text: `positions`,
    /// `[S]`, is where the first of them does. Asked once before each pass; [`Batch::positions`] are those of the text in any case.
    ///
    /// # Errors
    ///
    /// As [`KvRuntime::prompt`].
    fn place(&self, seqs: &[usize], tokens: usize, positions: &mut [usize]) -> Result<()> {
        let _ = (seqs, tokens, positions);
        Ok(())
    }

    /// Why `seq` can never be served if its prompt has `tokens` tokens, for the client; `None` if it only has to wait.
    fn refusal(&self, seq: usize, tokens: usize) -> Option<String>;

    /// The sequence has ended, in whatever way. Unknown ids are ignored.
    fn release(&self, seq: usize);

    /// The sequence loses its room to others and waits for room again: [`KvRuntime::enqueue`] follows. A runtime that keeps its cache
    /// elsewhere until then says so by [`KvRuntime::known_prefix`]; it ends with [`KvRuntime::release`] in any case.
    fn preempt(&self, seq: usize) {
        self.release(seq);
    }

    /// Chooses and writes what stays of prompts, and returns the layer's attention, `[S, H * G, T, D]`. `dense` is the engine's own
    /// attention over the prompts, for a runtime that does not attend itself; it takes its time when it is called.
    ///
    /// # Errors
    ///
    /// A shape or a device that does not fit the pool, or an unknown layer or sequence.
    fn prompt(&self, call: &LayerCall<'_>, dense: &dyn Fn() -> Result<Tensor>) -> Result<Tensor>;

    /// Writes the one new token of every sequence and attends to the cache. Returns `[S, H * G, D]`.
    ///
    /// # Errors
    ///
    /// As [`KvRuntime::prompt`].
    fn decode(&self, call: &LayerCall<'_>) -> Result<Tensor>;
}

/// A runtime that the engine can clone and print.
#[derive(Clone)]
pub struct Handle(Arc<dyn KvRuntime>);

impl Handle {
    /// Shares `runtime` with an engine.
    #[must_use]
    pub fn new(runtime: Arc<dyn KvRuntime>) -> Self {
        Self(runtime)
    }
}

impl Deref for Handle {
    type Target = dyn KvRuntime;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
