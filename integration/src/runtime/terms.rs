//! Under what a sequence is kept: the engine's configuration, and what its client asked for.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kv_core::{
    Budget, Cadence, Chunks, ConfigError, Demand, Geometry, Needs, Observation, Pins, Policy,
    granted,
};
use mistralrs_core::Response;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Sender, WeakSender};

use super::{
    chunks,
    relative::{endless_chunk, is_endless},
};
use crate::{CacheConfig, StartError};

/// What one request asks of its cache, where that differs from what the engine was started with.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RequestCache {
    /// A budget of its own, for the same policy.
    pub budget: Option<Budget>,
    /// Never evict its first so many tokens; the engine's own `pin_prefix` holds besides.
    pub pin_prefix: Option<u32>,
    /// Compress its first so many tokens by themselves and read what follows through that cache, as if it had been generated. Requests
    /// that begin with the same tokens and say the same then hold those pages together; where caches are kept
    /// ([`CacheConfig::keep_turns`]), later ones do not read them again. No effect on a prompt that is not longer.
    pub shared_prefix: Option<u32>,
}

/// A policy bound to a model and a budget, and what it must never evict.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(super) policy: Arc<dyn Policy>,
    pub(super) needs: Needs,
    pub(crate) budget: Budget,
    pub(super) pins: Pins,
    /// Tokens that are compressed by themselves, for others that begin with them.
    pub(super) prefix: Option<usize>,
    /// Tokens of a chunk, where prompts are read in chunks.
    chunk: Option<usize>,
}

impl Terms {
    /// What the configuration says.
    pub(super) fn new(config: &CacheConfig, geometry: &Geometry) -> Result<Self, ConfigError> {
        Self::bind(config, geometry, config.budget)
    }

    /// The same where a request asks for nothing else; the policy is bound anew only for another budget.
    pub(super) fn for_request(
        &self,
        config: &CacheConfig,
        geometry: &Geometry,
        request: &RequestCache,
    ) -> Result<Self, StartError> {
        let mut own = match request.budget {
            Some(budget) => Self::bind(config, geometry, budget)?,
            None => Self {
                policy: self.policy.clone(),
                needs: self.needs,
                budget: self.budget,
                pins: self.pins.clone(),
                prefix: None,
                chunk: self.chunk,
            },
        };
        if let Some(tokens) = request.pin_prefix {
            own.pins = prefix(config.pin_prefix.max(tokens));
        }
        if let Some(tokens) = request.shared_prefix {
            own.share(config, tokens)?;
        }
        Ok(own)
    }

    /// Compresses the first `tokens` tokens by themselves, if others may go on from what stays of them.
    fn share(&mut self, config: &CacheConfig, tokens: u32) -> Result<(), StartError> {
        let refuse = |allowed: String| {
            Err(StartError::OutOfRange {
                field: "shared_prefix",
                value: tokens.to_string(),
                allowed,
            })
        };
        let policy = &config.policy;
        if tokens == 0 {
            return refuse("at least 1, or nothing".into());
        }
        if self.needs.cadence == Cadence::Cascade {
            return refuse(format!(
                "nothing under {policy}: its layers share one budget out when the whole prompt has been read"
            ));
        }
        if self.needs.depends_on_queries() && !config.share_any_prefix {
            return refuse(format!(
                "nothing under {policy}: it keeps what the end of the prefix attended to, which is not what another question asks about; \
                 `--share-any-prefix` (`share_any_prefix`) does it all the same"
            ));
        }
        self.prefix = Some(tokens as usize);
        Ok(())
    }

    fn bind(
        config: &CacheConfig,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Self, ConfigError> {
        let fields = config.fields.clone();
        let policy = config
            .registry
            .build(&config.policy, fields, geometry, budget)?;
        let mut terms = Self {
            needs: policy.needs(),
            policy: Arc::from(policy),
            budget,
            pins: prefix(config.pin_prefix),
            prefix: None,
            chunk: Some(config.prefill_chunk).filter(|&chunk| chunk > 0),
        };
        if is_endless(&terms, geometry) {
            terms.chunk = Some(endless_chunk(config, &terms, geometry)?);
        }
        Ok(terms)
    }

    /// Whether an engine that observes what `other` needs observes enough for it, too: what is observed is the same for
    /// all sequences of an engine, but a budget that keeps everything may need nothing.
    pub(super) fn is_served_by(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.needs, &other.needs);
        let observes = mine.observation == Observation::None
            || (mine.observation, mine.reduction) == (theirs.observation, theirs.reduction);
        let reads = mine.reads.or(theirs.reads) == theirs.reads;
        observes && reads && (mine.cadence, mine.positions) == (theirs.cadence, theirs.positions)
    }

    /// Whether a cache kept under `other` is what these terms would have kept: the policy and its fields are the engine's.
    pub(super) fn keeps_as(&self, other: &Self) -> bool {
        (&self.budget, &self.pins) == (&other.budget, &other.pins)
    }

    /// Of a prompt of `prompt` tokens, those that are read through the compressed cache, where `tail` are asked for.
    pub(super) fn tail(&self, tail: usize, prompt: usize) -> usize {
        let behind = self
            .prefix
            .map_or(0, |prefix| prompt.saturating_sub(prefix));
        // At least one token is compressed.
        tail.max(behind).min(prompt.saturating_sub(1))
    }

    /// An error where the policy has failed: it keeps everything from then on, which nobody asked for.
    pub(super) fn check(&self) -> candle_core::Result<()> {
        match self.policy.failure() {
            None => Ok(()),
            Some(failure) => Err(candle_core::Error::msg(failure)),
        }
    }

    /// Tokens per KV head for a prompt of `prompt` tokens.
    pub(super) fn tokens(&self, geometry: &Geometry, prompt: usize) -> usize {
        granted(&*self.policy, &self.needs, geometry, self.budget, prompt)
    }

    /// What to know before trusting the answer to a prompt of `prompt` compressed tokens: what the policy says of itself, and
    /// whether its budget had to be raised.
    pub(super) fn notice(&self, name: &str, geometry: &Geometry, prompt: usize) -> Option<String> {
        let asked = self.budget.tokens(geometry, prompt);
        let least = self.needs.min_tokens;
        let raised = (asked < least).then(|| {
            format!(
                "the budget of {} is {asked} tokens per KV head for a prompt of {prompt}; with these settings {name} holds at \
                 least {least}",
                self.budget
            )
        });
        let notices: Vec<String> = [self.policy.notice(), raised]
            .into_iter()
            .flatten()
            .collect();
        (!notices.is_empty()).then(|| notices.join("; "))
    }

    /// What a sequence may hold that is `tokens` long when it is admitted, the last `tail` of them read through the cache.
    pub(super) fn demand(&self, geometry: &Geometry, tokens: usize, tail: usize) -> Demand {
        let prompt = tokens - tail;
        let budget = self.tokens(geometry, prompt);
        Demand::new(&*self.policy, &self.needs, geometry, prompt, budget)
    }

    /// Pages of such a sequence, and of its prompt while it is read in chunks.
    pub(super) fn pages(&self, geometry: &Geometry, tokens: usize, tail: usize) -> usize {
        let demand = self.demand(geometry, tokens, tail);
        let pinned = demand.pinned(geometry, tokens, &self.pins);
        match self.chunk.filter(|&chunk| tokens - tail > chunk) {
            None => demand.pages(geometry, tokens, pinned),
            Some(chunk) => {
                let chunks = (self.needs.chunks(), chunk);
                demand.pages_in_chunks(geometry, (tokens, pinned), chunks)
            }
        }
    }

    /// Fewest tokens of a chunk: so many queries of the last one are observed, and two are no decode step.
    pub(super) const fn least_chunk(&self) -> usize {
        match self.needs.chunks() {
            Chunks::Last { tokens } if tokens > 2 => tokens,
            _ => 2,
        }
    }

    /// How many of `tokens` new tokens of some prompts one pass reads, of which each has so many left to compress.
    pub(super) fn pass_length(&self, rests: &[usize], tokens: usize) -> usize {
        match self.chunk {
            None => tokens,
            Some(chunk) => chunks::length(rests, tokens, (chunk, self.least_chunk())),
        }
    }
}

/// The first `tokens` tokens.
fn prefix(tokens: u32) -> Pins {
    Pins::new(std::iter::once(0..tokens))
}

/// The terms of requests that have some of their own, by the channel that their answer goes to: the engine has no field
/// for them, but it carries that channel from the request to the sequence.
#[derive(Debug, Default)]
pub(super) struct Clients {
    next: AtomicU64,
    known: Mutex<Vec<Client>>,
}

#[derive(Debug)]
struct Client {
    id: u64,
    // Weak: a channel must still end when the engine has dropped it.
    channel: WeakSender<Response>,
    terms: Arc<Terms>,
}

impl Clients {
    pub(super) fn add(
        self: &Arc<Self>,
        channel: &Sender<Response>,
        terms: Arc<Terms>,
    ) -> RequestTerms {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.known.lock().push(Client {
            id,
            channel: channel.downgrade(),
            terms,
        });
        RequestTerms {
            clients: self.clone(),
            id,
        }
    }

    pub(super) fn find(&self, channel: &Sender<Response>) -> Option<Arc<Terms>> {
        let known = self.known.lock();
        let client = known.iter().find(|client| {
            let theirs = client.channel.upgrade();
            theirs.is_some_and(|theirs| theirs.same_channel(channel))
        });
        client.map(|client| client.terms.clone())
    }
}

/// Holds a request's own terms until it is dropped; keep it until the answer is complete.
#[derive(Debug)]
#[must_use = "the terms are forgotten when it is dropped"]
pub struct RequestTerms {
    clients: Arc<Clients>,
    id: u64,
}

impl Drop for RequestTerms {
    fn drop(&mut self) {
        self.clients
            .known
            .lock()
            .retain(|client| client.id != self.id);
    }
}
