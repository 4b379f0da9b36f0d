//! Caches of sequences that have ended, and of prefixes, kept for prompts that go on from them.
//!
//! A conversation's next turn repeats the text so far and adds to it. What the policy kept of that text is still there, so only what is
//! new is read, token by token through the cache as if it had been generated. Compressed caches cannot be cut back: a cache is used by a
//! prompt that begins with the whole of its text and is longer. The two hold its pages together until they differ; where there is no room
//! for the copies that this may come to, the cache becomes that sequence's own. What stays of a prefix is used by requests that say the
//! same prefix, so that what is said does not depend on who came before.
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
    /// Bytes of their pages, each counted once.
    bytes: usize,
    /// Caches of prefixes that are being read.
    growing: Vec<SeqId>,
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
    /// Whether a request said so of its first tokens; else it is of a sequence that has ended.
    is_prefix: bool,
}

impl Idle {
    pub(super) fn new(most_bytes: usize, page_bytes: usize) -> Self {
        Self {
            most_bytes,
            page_bytes,
            next: FIRST,
            caches: Vec::new(),
            bytes: 0,
            growing: Vec::new(),
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
        self.growing.contains(&seq) || self.position(seq).is_some()
    }

    /// Whether what stays of this text under these terms is kept; it counts as used now.
    pub(super) fn keeps(&mut self, tokens: &[u32], terms: &Terms) -> bool {
        let is_same = |cache: &Cache| cache.tokens == tokens && cache.terms.keeps_as(terms);
        let Some(at) = self.caches.iter().position(is_same) else {
            return false;
        };
        self.caches[at..].rotate_left(1);
        true
    }

    pub(super) fn reuse(&self) -> Reuse {
        Reuse {
            caches: self.caches.len(),
            bytes: self.bytes,
            hits: self.hits,
            tokens: self.tokens,
            evictions: self.evictions,
        }
    }

    /// How many of the first of `tokens` a waiting sequence need not read. Asked again, it may get another answer.
    pub(super) fn claim(&mut self, seq: SeqId, tokens: &[u32], terms: &Terms) -> usize {
        self.claims.remove(&seq);
        let goes_on = |cache: &&Cache| {
            cache.tokens.len() < tokens.len()
                && (!cache.is_prefix || terms.prefix == Some(cache.tokens.len()))
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

    /// Has a sequence that will be `tokens` long hold the cache that it claimed, and returns its text; `None` if it claimed none.
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
        let name = self.caches[at].name;
        let text = match ledger.fork(name, seq, tokens) {
            Ok(()) => {
                let text = self.caches[at].tokens.clone();
                self.caches[at..].rotate_left(1);
                text
            }
            Err(CacheError::Full(_)) => {
                ledger.reserve(name, tokens)?;
                ledger.rename(name, seq)?;
                let cache = self.caches.remove(at);
                self.count(ledger);
                cache.tokens
            }
            Err(error) => return Err(error),
        };
        self.claims.remove(&seq);
        Ok(Some(text))
    }

    /// A prompt goes on from a cache of `tokens` tokens.
    pub(super) fn note_hit(&mut self, tokens: usize) {
        self.hits += 1;
        self.tokens += tokens as u64;
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
        text: (Vec<u32>, Arc<Terms>),
    ) -> Result<(), CacheError> {
        let name = self.name();
        ledger.forgo(seq)?;
        ledger.rename(seq, name)?;
        self.keep(ledger, name, text, false);
        Ok(())
    }

    /// Opens a cache for what stays of a running sequence's prefix.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub(super) fn begin(&mut self, ledger: &mut Ledger, seq: SeqId) -> Result<SeqId, CacheError> {
        let name = self.name();
        ledger.open_beside(seq, name)?;
        self.growing.push(name);
        Ok(name)
    }

    /// Lets go of a cache that did not come to its end.
    pub(super) fn abandon(&mut self, ledger: &mut Ledger, name: SeqId) {
        self.growing.retain(|&growing| growing != name);
        ledger.release(name);
    }

    /// Keeps the cache of a prefix that all layers have added to.
    pub(super) fn keep_prefix(
        &mut self,
        ledger: &mut Ledger,
        name: SeqId,
        text: (Vec<u32>, Arc<Terms>),
    ) {
        self.growing.retain(|&growing| growing != name);
        self.keep(ledger, name, text, true);
    }

    fn keep(
        &mut self,
        ledger: &mut Ledger,
        name: SeqId,
        (tokens, terms): (Vec<u32>, Arc<Terms>),
        is_prefix: bool,
    ) {
        // Two requests may have read the same prefix at once.
        let is_same = |cache: &Cache| {
            (cache.is_prefix, &cache.tokens) == (is_prefix, &tokens) && cache.terms.keeps_as(&terms)
        };
        if let Some(same) = self.caches.iter().position(is_same) {
            ledger.release(self.caches.remove(same).name);
        }
        self.caches.push(Cache {
            name,
            tokens,
            terms,
            is_prefix,
        });
        self.count(ledger);
        while self.bytes > self.most_bytes && self.evict(ledger, None) {}
    }

    fn name(&mut self) -> SeqId {
        let name = SeqId(self.next);
        self.next -= 1;
        name
    }

    fn count(&mut self, ledger: &Ledger) {
        let names = self.caches.iter().map(|cache| cache.name);
        self.bytes = ledger.pages_of(names) * self.page_bytes;
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
        self.count(ledger);
        self.evictions += 1;
    }
}
