//! Caches of sequences that have ended, kept for prompts that go on from them.
//!
//! A conversation's next turn repeats the text so far and adds to it. What the policy kept of that text is still there, so only what is
//! new is read, token by token through the cache as if it had been generated. Compressed caches cannot be cut back: a cache is used by a
//! prompt that begins with the whole of its text and is longer, and then it is that sequence's own.
use std::{collections::HashMap, sync::Arc};

use kv_core::{CacheError, Ledger, SeqId};

use super::{Reuse, Terms};

/// The ledger's names of idle caches count down from here; the engine's count up from 0.
const FIRST: usize = usize::MAX;

/// The idle caches of one engine, the longest unused first.
#[derive(Debug)]
pub(super) struct Idle {
    /// The most bytes that they may hold together; 0: there are none.
    most_bytes: usize,
    page_bytes: usize,
    next: usize,
    caches: Vec<Cache>,
    /// Which cache a waiting sequence was told that it need not read.
    claims: HashMap<SeqId, SeqId>,
    hits: u64,
    tokens: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Cache {
    name: SeqId,
    /// The text that it holds, or what is left of it.
    tokens: Vec<u32>,
    terms: Arc<Terms>,
    bytes: usize,
}

impl Idle {
    pub(super) fn new(most_bytes: usize, page_bytes: usize) -> Self {
        Self {
            most_bytes,
            page_bytes,
            next: FIRST,
            caches: Vec::new(),
            claims: HashMap::new(),
            hits: 0,
            tokens: 0,
            evictions: 0,
        }
    }

    /// Whether caches are kept at all.
    pub(super) const fn is_on(&self) -> bool {
        self.most_bytes > 0
    }

    /// Whether this is an idle cache's name.
    pub(super) fn has(&self, seq: SeqId) -> bool {
        self.caches.iter().any(|cache| cache.name == seq)
    }

    pub(super) fn reuse(&self) -> Reuse {
        Reuse {
            caches: self.caches.len(),
            bytes: self.bytes(),
            hits: self.hits,
            tokens: self.tokens,
            evictions: self.evictions,
        }
    }

    fn bytes(&self) -> usize {
        self.caches.iter().map(|cache| cache.bytes).sum()
    }

    /// How many of the first of `tokens` a waiting sequence need not read. Asked again, it may get another answer.
    pub(super) fn claim(&mut self, seq: SeqId, tokens: &[u32], terms: &Terms) -> usize {
        self.claims.remove(&seq);
        let goes_on = |cache: &&Cache| {
            cache.tokens.len() < tokens.len()
                && tokens.starts_with(&cache.tokens)
                && cache.terms.keeps_as(terms)
        };
        let found = self.caches.iter().filter(goes_on);
        let Some(longest) = found.max_by_key(|cache| cache.tokens.len()) else {
            return 0;
        };
        self.claims.insert(seq, longest.name);
        longest.tokens.len()
    }

    /// The sequence waits no more.
    pub(super) fn forget_claim(&mut self, seq: SeqId) {
        self.claims.remove(&seq);
    }

    /// Gives a sequence that will be `tokens` long the cache that it claimed, with its text; `None` if it claimed none.
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`]; nothing has changed then.
    pub(super) fn take_up(
        &mut self,
        ledger: &mut Ledger,
        seq: SeqId,
        tokens: usize,
    ) -> Result<Option<Vec<u32>>, CacheError> {
        let claimed = self.claims.get(&seq).copied();
        let Some(at) = claimed.and_then(|name| self.position(name)) else {
            return Ok(None);
        };
        ledger.reserve(self.caches[at].name, tokens)?;
        let cache = self.caches.remove(at);
        ledger.rename(cache.name, seq)?;
        self.claims.remove(&seq);
        self.hits += 1;
        self.tokens += cache.tokens.len() as u64;
        Ok(Some(cache.tokens))
    }

    /// Keeps the cache of a sequence that ends, which holds `tokens`, and lets go of those that are too much then.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub(super) fn set_aside(
        &mut self,
        ledger: &mut Ledger,
        seq: SeqId,
        (tokens, terms): (Vec<u32>, Arc<Terms>),
    ) -> Result<(), CacheError> {
        let name = SeqId(self.next);
        ledger.forgo(seq)?;
        ledger.rename(seq, name)?;
        self.next -= 1;
        let bytes = ledger.sequence(name)?.pages_held() * self.page_bytes;
        // The same text again says nothing new.
        if let Some(same) = self
            .caches
            .iter()
            .position(|cache| cache.tokens == tokens && cache.terms.keeps_as(&terms))
        {
            ledger.release(self.caches.remove(same).name);
        }
        self.caches.push(Cache {
            name,
            tokens,
            terms,
            bytes,
        });
        while self.bytes() > self.most_bytes && self.evict(ledger, None) {}
        Ok(())
    }

    /// Lets go of the cache that was unused for longest, but not of the one that `seq` claims; whether there was one.
    pub(super) fn evict(&mut self, ledger: &mut Ledger, seq: Option<SeqId>) -> bool {
        let claimed = seq.and_then(|seq| self.claims.get(&seq));
        let Some(at) = self
            .caches
            .iter()
            .position(|cache| Some(&cache.name) != claimed)
        else {
            return false;
        };
        self.remove(ledger, at);
        true
    }

    /// Lets go of the cache that `seq` claims, which it then reads anew.
    pub(super) fn evict_claimed(&mut self, ledger: &mut Ledger, seq: SeqId) {
        let claimed = self.claims.remove(&seq);
        if let Some(at) = claimed.and_then(|name| self.position(name)) {
            self.remove(ledger, at);
        }
    }

    /// Forgets everything, counts too; the ledger has.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most_bytes, self.page_bytes);
    }

    fn position(&self, name: SeqId) -> Option<usize> {
        self.caches.iter().position(|cache| cache.name == name)
    }

    fn remove(&mut self, ledger: &mut Ledger, at: usize) {
        ledger.release(self.caches.remove(at).name);
        self.evictions += 1;
    }
}
