//! Under what a sequence is kept: the engine's configuration, and what its client asked for.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kv_core::{Budget, ConfigError, Demand, Geometry, Needs, Observation, Pins, Policy, granted};
use mistralrs_core::Response;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Sender, WeakSender};

use crate::CacheConfig;

/// What one request asks of its cache, where that differs from what the engine was started with.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RequestCache {
    /// A budget of its own, for the same policy.
    pub budget: Option<Budget>,
    /// Never evict its first so many tokens; the engine's own `pin_prefix` holds besides.
    pub pin_prefix: Option<u32>,
}

/// A policy bound to a model and a budget, and what it must never evict.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(super) policy: Arc<dyn Policy>,
    pub(super) needs: Needs,
    pub(crate) budget: Budget,
    pub(super) pins: Pins,
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
    ) -> Result<Self, ConfigError> {
        let mut own = match request.budget {
            Some(budget) => Self::bind(config, geometry, budget)?,
            None => Self {
                policy: self.policy.clone(),
                needs: self.needs,
                budget: self.budget,
                pins: self.pins.clone(),
            },
        };
        if let Some(tokens) = request.pin_prefix {
            own.pins = prefix(config.pin_prefix.max(tokens));
        }
        Ok(own)
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
        Ok(Self {
            needs: policy.needs(),
            policy: Arc::from(policy),
            budget,
            pins: prefix(config.pin_prefix),
        })
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

    /// Pages of such a sequence.
    pub(super) fn pages(&self, geometry: &Geometry, tokens: usize, tail: usize) -> usize {
        let demand = self.demand(geometry, tokens, tail);
        let pinned = demand.pinned(geometry, tokens, &self.pins);
        demand.pages(geometry, tokens, pinned)
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
