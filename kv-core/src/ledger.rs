//! All sequences of one engine: what each head holds, and what each sequence was promised.
mod enter;
mod note;
mod park;
mod rebase;
mod share;
mod shrink;

use std::{collections::BTreeMap, ops::Range};

use crate::{
    CacheError, Demand, Geometry, Growth, HeadTable, Kept, PageId, PagePool, Pins, Position,
    Reservation, SeqId, TokenClass, pool::Own,
};

pub use enter::Entered;
pub use park::Parked;
pub use rebase::Rebased;
pub use shrink::Move;

/// Where a token is written: the right to write there, for only the ledger makes one, of a page that no other head holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    page: PageId,
    offset: u32,
}

impl Address {
    /// A place in a page that may be written.
    ///
    /// # Panics
    ///
    /// If a page of so many tokens does not fit 32 bits.
    pub(crate) fn of(own: &Own, offset: usize) -> Self {
        Self {
            page: own.page(),
            offset: Position::new(offset).0,
        }
    }

    /// The physical page.
    #[must_use]
    pub const fn page(self) -> PageId {
        self.page
    }

    /// The place in it, `0..B`.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.offset
    }
}

/// One sequence's cache.
#[derive(Debug)]
pub struct Sequence {
    heads: Vec<HeadTable>,
    reservation: Reservation,
    /// Pages that its heads may come to hold, as far as it was said; `None`: nobody is about to make it longer.
    wanted: Option<usize>,
    /// Whether others ever held some of its pages, too.
    has_shared: bool,
    demand: Demand,
    pins: Pins,
    /// What kind of text each token is, as far as it was said.
    classes: Vec<TokenClass>,
    prompt: usize,
    /// Tokens that any head has seen.
    seen: usize,
    /// By how much the keys behind each head's front stand earlier than in the text.
    base: usize,
    /// Pages of all heads: counted as they come and go, for there are many heads.
    pages_held: usize,
    pages_peak: usize,
    overwrites: u64,
}

impl Sequence {
    /// Pages held by all heads.
    #[must_use]
    pub const fn pages_held(&self) -> usize {
        self.pages_held
    }

    /// Pages promised and not taken.
    #[must_use]
    pub const fn credit(&self) -> usize {
        self.reservation.credit()
    }

    /// Tokens of the prompt.
    #[must_use]
    pub const fn prompt(&self) -> usize {
        self.prompt
    }

    /// Tokens that went through the cache: the prompt and every generated token that was fed back.
    #[must_use]
    pub const fn seen(&self) -> usize {
        self.seen
    }

    /// By how many positions its keys stand earlier than in the text ([`Ledger::rebase`]).
    #[must_use]
    pub const fn base(&self) -> usize {
        self.base
    }

    /// What was promised to it.
    #[must_use]
    pub const fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Pinned positions.
    #[must_use]
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// All heads, layer by layer, `[L * H]`.
    #[must_use]
    pub fn heads(&self) -> &[HeadTable] {
        &self.heads
    }

    fn report(&self, geometry: &Geometry, seq: SeqId) -> SequenceReport {
        let kept = self
            .heads
            .chunks(geometry.kv_heads)
            .map(|layer| layer.iter().map(HeadTable::len).collect())
            .collect();
        SequenceReport {
            seq,
            prompt_tokens: self.prompt,
            cached_tokens: self.seen,
            pages_held: self.pages_held(),
            pages_held_peak: self.pages_peak,
            pages_full: geometry.full_pages(self.seen),
            overwrites: self.overwrites,
            kept,
        }
    }
}

/// What a sequence holds, or held when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceReport {
    /// Which sequence.
    pub seq: SeqId,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that went through the cache: the prompt and every generated token that was fed back.
    pub cached_tokens: usize,
    /// Pages held by all heads.
    pub pages_held: usize,
    /// Most pages held at once.
    pub pages_held_peak: usize,
    /// Pages that a full cache of `cached_tokens` holds.
    pub pages_full: usize,
    /// Tokens that took the slot of another.
    pub overwrites: u64,
    /// Tokens held, `[L][H]`.
    pub kept: Vec<Vec<usize>>,
}

/// The sequences of one engine over one pool.
#[derive(Debug)]
pub struct Ledger {
    geometry: Geometry,
    pool: PagePool,
    /// Few, and looked up for every layer of every step: no hash.
    sequences: BTreeMap<SeqId, Sequence>,
    evicted: u64,
    /// Kept from step to step, so that none allocates.
    scratch: Scratch,
}

/// Memory that steps use one after the other; nothing in it lasts.
#[derive(Debug, Default)]
struct Scratch {
    choices: Vec<enter::Choice>,
    means: note::Means,
}

impl Ledger {
    /// An empty ledger over a pool of `pages` pages.
    #[must_use]
    pub fn new(geometry: Geometry, pages: usize) -> Self {
        Self {
            geometry,
            pool: PagePool::new(pages),
            sequences: BTreeMap::new(),
            evicted: 0,
            scratch: Scratch::default(),
        }
    }

    /// The model's shape.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The pages.
    #[must_use]
    pub const fn pool(&self) -> &PagePool {
        &self.pool
    }

    /// Tokens that a head was given and does not hold any more, or never kept, over all heads of all sequences so far:
    /// one token that every head drops counts `L * H` times. A sequence that ends evicts nothing.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Pages that some sequences hold together, each counted once whoever shares it.
    #[must_use]
    pub fn pages_of(&self, sequences: impl IntoIterator<Item = SeqId>) -> usize {
        let mut met = vec![false; self.pool.usage().total];
        let sequences = sequences
            .into_iter()
            .filter_map(|seq| self.sequences.get(&seq));
        let pages = sequences
            .flat_map(Sequence::heads)
            .flat_map(HeadTable::page_ids);
        pages
            .filter(|&&page| !std::mem::replace(&mut met[page as usize], true))
            .count()
    }

    /// All open sequences, in no particular order.
    pub fn sequences(&self) -> impl Iterator<Item = (SeqId, &Sequence)> {
        self.sequences.iter().map(|(&id, sequence)| (id, sequence))
    }

    /// An open sequence.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub fn sequence(&self, seq: SeqId) -> Result<&Sequence, CacheError> {
        self.sequences
            .get(&seq)
            .ok_or(CacheError::UnknownSequence(seq))
    }

    /// One head of an open sequence.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer or head.
    pub fn head(&self, seq: SeqId, layer: usize, head: usize) -> Result<&HeadTable, CacheError> {
        Ok(&self.sequence(seq)?.heads[self.geometry.head_index(layer, head)])
    }

    /// The heads of one layer of an open sequence, `[H]`: all with one look for the sequence.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer.
    pub fn heads(&self, seq: SeqId, layer: usize) -> Result<&[HeadTable], CacheError> {
        let first = self.geometry.head_index(layer, 0);
        Ok(&self.sequence(seq)?.heads[first..first + self.geometry.kv_heads])
    }

    /// Opens a sequence and promises it the pages that it needs to be `tokens` long.
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`] if the pool cannot promise that much, [`CacheError::AlreadyOpen`]; nothing has changed then.
    pub fn open(
        &mut self,
        seq: SeqId,
        tokens: usize,
        demand: Demand,
        pins: &Pins,
    ) -> Result<(), CacheError> {
        if self.sequences.contains_key(&seq) {
            return Err(CacheError::AlreadyOpen(seq));
        }
        let mut reservation = self.pool.reservation();
        let wanted = demand.pages_with(&self.geometry, tokens, pins);
        reservation.grow(wanted)?;
        let heads = (0..self.geometry.heads())
            .map(|_| HeadTable::new(self.geometry.block))
            .collect();
        let sequence = Sequence {
            heads,
            reservation,
            wanted: Some(wanted),
            has_shared: false,
            demand,
            pins: pins.clone(),
            classes: Vec::new(),
            prompt: 0,
            seen: 0,
            base: 0,
            pages_held: 0,
            pages_peak: 0,
            overwrites: 0,
        };
        self.sequences.insert(seq, sequence);
        Ok(())
    }

    /// Promises an open sequence the pages that it needs to be `tokens` long; a promise only grows.
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`] if the pool cannot promise that much, [`CacheError::UnknownSequence`]; nothing has changed then.
    pub fn reserve(&mut self, seq: SeqId, tokens: usize) -> Result<(), CacheError> {
        let Sequence { demand, pins, .. } = self.sequence(seq)?;
        self.reserve_pages(seq, demand.pages_with(&self.geometry, tokens, pins))
    }

    /// Gives back what was promised to a sequence beyond what it holds: nobody is about to make it longer.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub fn forgo(&mut self, seq: SeqId) -> Result<(), CacheError> {
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        sequence.wanted = None;
        sequence.reservation.keep(0);
        Ok(())
    }

    /// Promises an open sequence `pages` pages in all, where that is more than it was promised: while its prompt is read in chunks, it may
    /// hold more than after that.
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`] if the pool cannot promise that much, [`CacheError::UnknownSequence`]; nothing has changed then.
    pub fn reserve_pages(&mut self, seq: SeqId, pages: usize) -> Result<(), CacheError> {
        let sequence = self.of(seq)?;
        sequence.promise(Some(pages.max(sequence.wanted.unwrap_or(0))))
    }

    /// Notes that a prompt has been read up to `tokens`; where that is all of it, what was promised beyond what it needs from there on
    /// goes back.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub fn note_prompt(
        &mut self,
        seq: SeqId,
        tokens: usize,
        is_whole: bool,
    ) -> Result<(), CacheError> {
        let geometry = self.geometry;
        let sequence = self.of(seq)?;
        sequence.prompt = tokens;
        if is_whole {
            let Sequence { demand, pins, .. } = &*sequence;
            let wanted = demand.pages_with(&geometry, sequence.seen, pins);
            sequence.wanted = Some(wanted);
            sequence.reservation.keep(sequence.due(wanted));
        }
        Ok(())
    }

    /// Calls an open sequence `to` from here on.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`], and [`CacheError::AlreadyOpen`] if there is another one of that name; nothing has
    /// changed then.
    pub fn rename(&mut self, from: SeqId, to: SeqId) -> Result<(), CacheError> {
        if from != to && self.sequences.contains_key(&to) {
            return Err(CacheError::AlreadyOpen(to));
        }
        let sequence = self.sequences.remove(&from);
        let sequence = sequence.ok_or(CacheError::UnknownSequence(from))?;
        self.sequences.insert(to, sequence);
        Ok(())
    }

    /// Says what kind of text the tokens from position `first` on are, for heads that protect classes
    /// ([`Growth::Protect`](crate::Growth::Protect)). To be said before a layer's prompt is written or the token is appended;
    /// a token of which nothing was said is plain.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub fn classify(
        &mut self,
        seq: SeqId,
        first: Position,
        classes: &[TokenClass],
    ) -> Result<(), CacheError> {
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let known = &mut sequence.classes;
        let (first, end) = (first.index(), first.index() + classes.len());
        known.resize(known.len().max(end), TokenClass::Plain);
        known[first..end].copy_from_slice(classes);
        Ok(())
    }

    /// Enters what a layer keeps of a prompt of `prompt` tokens, and says where each kept token is written: for each
    /// head, one address per kept slot, in the same order.
    ///
    /// # Errors
    ///
    /// [`CacheError`], and nothing has changed then; [`CacheError::Full`] only if the plan keeps more than the policy's
    /// bound promised.
    ///
    /// # Panics
    ///
    /// If the plan has another number of heads than the model, or of scores than slots.
    pub fn write_prompt(
        &mut self,
        seq: SeqId,
        layer: usize,
        prompt: usize,
        kept: &Kept,
    ) -> Result<Vec<Vec<Address>>, CacheError> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        if layer >= layers {
            return Err(CacheError::UnknownLayer { layer, layers });
        }
        assert_eq!(
            kept.slots.len(),
            kv_heads,
            "one list of slots for each head"
        );
        assert_eq!(kept.growth.len(), kv_heads, "one growth for each head");
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let tables = &mut sequence.heads[layer * kv_heads..(layer + 1) * kv_heads];
        if tables.iter().any(|table| !table.is_empty()) {
            return Err(CacheError::NotEmpty { seq, layer });
        }
        let pages = kept
            .slots
            .iter()
            .map(|slots| self.geometry.head_pages(slots.len()))
            .sum();
        sequence.reservation.ensure(pages)?;
        let mut addresses = Vec::with_capacity(kv_heads);
        for (index, table) in tables.iter_mut().enumerate() {
            addresses.push(table.fill(
                &kept.slots[index],
                &sequence.pins,
                &mut sequence.reservation,
            )?);
            if let Some(scores) = &kept.scores {
                table.set_scores(&scores[index]);
            }
            let class = |position| class_of(&sequence.classes, position);
            table.set_growth(kept.growth[index], class);
        }
        sequence.pages_held += pages;
        sequence.prompt = prompt;
        sequence.note(prompt);
        let dropped = kept.slots.iter().map(|slots| prompt - slots.len());
        self.evicted += dropped.sum::<usize>() as u64;
        Ok(addresses)
    }

    /// The scores of one head, by slot, to add what was observed.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer or head.
    pub fn scores_mut(
        &mut self,
        seq: SeqId,
        layer: usize,
        head: usize,
    ) -> Result<&mut [f32], CacheError> {
        let index = self.geometry.head_index(layer, head);
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        Ok(sequence.heads[index].scores_mut())
    }

    /// What a sequence holds now.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub fn report(&self, seq: SeqId) -> Result<SequenceReport, CacheError> {
        Ok(self.sequence(seq)?.report(&self.geometry, seq))
    }

    /// Closes a sequence: its pages and promises go back at once. Returns what it held, or `None` if it was not open.
    pub fn release(&mut self, seq: SeqId) -> Option<SequenceReport> {
        let sequence = self.sequences.remove(&seq)?;
        let report = sequence.report(&self.geometry, seq);
        let has_shared = sequence.has_shared;
        let Sequence {
            heads, reservation, ..
        } = sequence;
        self.pool
            .give_back(heads.into_iter().map(HeadTable::into_pages));
        drop(reservation);
        if has_shared {
            self.sequences.values_mut().for_each(Sequence::settle);
        }
        Some(report)
    }

    fn of(&mut self, seq: SeqId) -> Result<&mut Sequence, CacheError> {
        let sequence = self.sequences.get_mut(&seq);
        sequence.ok_or(CacheError::UnknownSequence(seq))
    }

    /// Closes every sequence.
    pub fn clear(&mut self) {
        let open: Vec<SeqId> = self.sequences.keys().copied().collect();
        for seq in open {
            self.release(seq);
        }
    }
}

/// The class of a token; plain where nothing was said.
fn class_of(classes: &[TokenClass], position: Position) -> TokenClass {
    classes.get(position.index()).copied().unwrap_or_default()
}

impl Sequence {
    /// Pages that it holds and others, too.
    #[must_use]
    pub fn shared_pages(&self) -> usize {
        self.heads.iter().map(HeadTable::shared_pages).sum()
    }

    /// Pages that it may have to take while it stays within what was promised: to grow, and to copy those that others hold.
    fn due(&self, wanted: usize) -> usize {
        let heads = self.heads.iter().enumerate();
        let copies = heads.map(|(index, table)| table.copies_due(self.never_cuts(index)));
        copies.sum::<usize>() + wanted.saturating_sub(self.pages_held)
    }

    /// Whether no policy cuts the head at `index`, `0..L * H`: all that comes is appended, and stays.
    fn never_cuts(&self, index: usize) -> bool {
        let kv_heads = self.heads.len() / self.demand.rooms.len();
        self.demand.appends || self.demand.rooms[index / kv_heads].is_unbounded(index % kv_heads)
    }

    /// Pages to have in credit before a shrink of some heads to these slots: for copies, and where heads are cut of which nobody
    /// reckoned that they would be, for what they then hold no more but may need again.
    fn copies_to_shrink(&self, heads: Range<usize>, kept: &[Vec<u32>]) -> usize {
        let tables = heads.zip(kept);
        let (mut copies, mut unreckoned) = (0, 0);
        for (index, slots) in tables {
            let table = &self.heads[index];
            copies += table.copies_to_shrink(slots);
            if self.never_cuts(index) && table.growth() == Growth::Append {
                unreckoned += table.shared_pages();
            }
        }
        if unreckoned == 0 {
            return copies;
        }
        let due = self.wanted.map_or(0, |wanted| self.due(wanted));
        copies.max(due + unreckoned)
    }

    /// Sees to it that all it needs to hold `wanted` pages can be taken; nothing has changed if that cannot be.
    fn promise(&mut self, wanted: Option<usize>) -> Result<(), CacheError> {
        if let Some(pages) = wanted {
            self.reservation.ensure(self.due(pages))?;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Gives up what it was promised for copies that it no longer has to make.
    fn settle(&mut self) {
        if self.has_shared {
            let due = self.wanted.map_or(0, |wanted| self.due(wanted));
            self.reservation.keep(due);
        }
    }

    fn note(&mut self, seen: usize) {
        self.seen = self.seen.max(seen);
        self.pages_peak = self.pages_peak.max(self.pages_held);
    }
}
