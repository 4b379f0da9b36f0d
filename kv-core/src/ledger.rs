//! All sequences of one engine: what each head holds, and what each sequence was promised.
mod shrink;

use std::collections::HashMap;

use crate::{
    CacheError, Demand, Geometry, HeadTable, Kept, Needs, Observation, Page, PageId, PagePool,
    Pins, Place, Position, Reservation, SeqId, Slot, Target, TokenClass, table::Hold,
};

pub use shrink::Move;

/// Where a token is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The physical page.
    pub page: PageId,
    /// The place in it, `0..B`.
    pub offset: usize,
}

/// One sequence's cache.
#[derive(Debug)]
pub struct Sequence {
    heads: Vec<HeadTable>,
    reservation: Reservation,
    demand: Demand,
    pins: Pins,
    /// What kind of text each token is, as far as it was said.
    classes: Vec<TokenClass>,
    prompt: usize,
    /// Tokens that any head has seen.
    seen: usize,
    pages_peak: usize,
    overwrites: u64,
}

impl Sequence {
    /// Pages held by all heads.
    #[must_use]
    pub fn pages_held(&self) -> usize {
        self.heads.iter().map(|head| head.pages().len()).sum()
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
    sequences: HashMap<SeqId, Sequence>,
    evicted: u64,
}

impl Ledger {
    /// An empty ledger over a pool of `pages` pages.
    #[must_use]
    pub fn new(geometry: Geometry, pages: usize) -> Self {
        Self {
            geometry,
            pool: PagePool::new(pages),
            sequences: HashMap::new(),
            evicted: 0,
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
        let pinned = demand.pinned(&self.geometry, tokens, pins);
        reservation.grow(demand.pages(&self.geometry, tokens, pinned))?;
        let heads = (0..self.geometry.heads())
            .map(|_| HeadTable::new(self.geometry.block))
            .collect();
        let sequence = Sequence {
            heads,
            reservation,
            demand,
            pins: pins.clone(),
            classes: Vec::new(),
            prompt: 0,
            seen: 0,
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
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let pinned = sequence
            .demand
            .pinned(&self.geometry, tokens, &sequence.pins);
        let wanted = sequence.demand.pages(&self.geometry, tokens, pinned);
        let missing = wanted.saturating_sub(sequence.pages_held() + sequence.credit());
        Ok(sequence.reservation.grow(missing)?)
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
            let mut head = Vec::with_capacity(kept.slots[index].len());
            for &position in &kept.slots[index] {
                let slot = table.push(
                    Position(position),
                    &sequence.pins,
                    &mut sequence.reservation,
                )?;
                head.push(address(table, slot));
            }
            if let Some(scores) = &kept.scores {
                table.scores_mut().copy_from_slice(&scores[index]);
            }
            let class = |position| class_of(&sequence.classes, position);
            table.set_growth(kept.growth[index], class);
            addresses.push(head);
        }
        sequence.prompt = prompt;
        sequence.note(prompt);
        let dropped = kept.slots.iter().map(|slots| prompt - slots.len());
        self.evicted += dropped.sum::<usize>() as u64;
        Ok(addresses)
    }

    /// Enters the token at `position` into every head of a layer, and says where each head's copy is written, `[H]`.
    ///
    /// # Errors
    ///
    /// [`CacheError`], and nothing has changed then, so that the layer's token can be entered later;
    /// [`CacheError::Full`] only if nothing was reserved for the token.
    pub fn append(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
    ) -> Result<Vec<Address>, CacheError> {
        let slots = self.enter(seq, layer, position, |_, _, _| false)?;
        let tables = self.layer(seq, layer)?.iter().zip(slots);
        Ok(tables
            .filter_map(|(table, slot)| Some(address(table, slot?)))
            .collect())
    }

    /// As [`Ledger::append`], for a host whose pages lie on a device. Where that device holds the scores (`has_scores`) and the
    /// lowest one goes, the device says which one that is, and it alone knows the positions of that head from then on.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`].
    pub fn append_on_device(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        has_scores: bool,
    ) -> Result<Vec<Target>, CacheError> {
        let mut lowest = vec![None; self.geometry.kv_heads];
        let is_blind = |head: usize, table: &HeadTable, hold: Hold| {
            lowest[head] = table.evicts(hold).filter(|_| has_scores);
            lowest[head].is_some()
        };
        let slots = self.enter(seq, layer, position, is_blind)?;
        let target = |(slot, recent): (Option<Slot>, Option<usize>)| match slot {
            Some(slot) => Target::Slot(slot),
            None => Target::Lowest {
                recent: recent.unwrap_or_default(),
            },
        };
        Ok(slots.into_iter().zip(lowest).map(target).collect())
    }

    /// The heads of one layer of an open sequence, `[H]`.
    fn layer(&self, seq: SeqId, layer: usize) -> Result<&[HeadTable], CacheError> {
        let first = self.geometry.head_index(layer, 0);
        Ok(&self.sequence(seq)?.heads[first..first + self.geometry.kv_heads])
    }

    /// Enters one token into every head of a layer; `None` for heads whose slot a device chooses, as `is_blind` says.
    fn enter(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        mut is_blind: impl FnMut(usize, &HeadTable, Hold) -> bool,
    ) -> Result<Vec<Option<Slot>>, CacheError> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        if layer >= layers {
            return Err(CacheError::UnknownLayer { layer, layers });
        }
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let tables = &mut sequence.heads[layer * kv_heads..(layer + 1) * kv_heads];
        let class = class_of(&sequence.classes, position);
        let is_pinned = sequence.pins.contains(position);
        let places: Vec<(Hold, Option<Place>)> = (0..)
            .zip(tables.iter())
            .map(|(head, table)| {
                let hold = table.hold_of(is_pinned, class);
                let place = (!is_blind(head, table, hold)).then(|| table.place_of(hold));
                (hold, place)
            })
            .collect();
        let begun = tables
            .iter()
            .zip(&places)
            .filter(|(table, (_, place))| *place == Some(Place::Append) && table.is_packed());
        sequence.reservation.ensure(begun.count())?;
        let mut slots = Vec::with_capacity(kv_heads);
        for (table, (hold, place)) in tables.iter_mut().zip(places) {
            let overwrites = u64::from(place != Some(Place::Append));
            sequence.overwrites += overwrites;
            self.evicted += overwrites;
            slots.push(match place {
                Some(place) => {
                    Some(table.insert(position, place, hold, &mut sequence.reservation)?)
                }
                None => {
                    table.overwrite_blindly(hold);
                    None
                }
            });
        }
        sequence.note(position.index() + 1);
        Ok(slots)
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

    /// Enters what a decode step saw of a layer, the rows of its heads one after the other, by slot: as the latest observation
    /// they take the place of the scores, else they are added. Where the heads share one score, a token is given the mean over
    /// the heads that hold it.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer, or if there are not as many numbers as the heads hold tokens.
    pub fn note_rows(
        &mut self,
        seq: SeqId,
        layer: usize,
        needs: &Needs,
        rows: &[f32],
    ) -> Result<(), CacheError> {
        let first = self.geometry.head_index(layer, 0);
        let heads = first..first + self.geometry.kv_heads;
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let tables = &mut sequence.heads[heads];
        let held: usize = tables.iter().map(HeadTable::len).sum();
        assert_eq!(rows.len(), held, "a number for each token held");
        let shared = needs.reduction.shared.then(|| shared_means(rows, tables));
        let mut rest = rows;
        for table in tables {
            let row;
            (row, rest) = rest.split_at(table.len());
            table.note(|slot, position, score| {
                let seen = shared.as_ref().and_then(|means| means.get(&position));
                let seen = seen.copied().unwrap_or(row[slot]);
                match needs.observation {
                    Observation::Latest => seen,
                    _ => score + seen,
                }
            });
        }
        Ok(())
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
        let Sequence {
            heads, reservation, ..
        } = sequence;
        let owned = heads
            .into_iter()
            .flat_map(HeadTable::into_pages)
            .filter_map(|page| match page {
                Page::Owned(page) => Some(page),
                Page::Shared(page) => page.try_own().ok(),
            });
        self.pool.give_back(owned);
        drop(reservation);
        Some(report)
    }

    /// Closes every sequence.
    pub fn clear(&mut self) {
        let open: Vec<SeqId> = self.sequences.keys().copied().collect();
        for seq in open {
            self.release(seq);
        }
    }
}

/// What the heads that hold a token saw of it, on average.
fn shared_means(rows: &[f32], tables: &[HeadTable]) -> HashMap<Position, f32> {
    let mut sums: HashMap<Position, (f64, f64)> = HashMap::new();
    let tokens = tables.iter().flat_map(HeadTable::positions);
    for (&position, &seen) in tokens.zip(rows) {
        let (sum, heads) = sums.entry(position).or_default();
        *sum += f64::from(seen);
        *heads += 1.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a mean of a few heads, rounded once"
    )]
    let mean = |(position, (sum, heads))| (position, (sum / heads) as f32);
    sums.into_iter().map(mean).collect()
}

/// The class of a token; plain where nothing was said.
fn class_of(classes: &[TokenClass], position: Position) -> TokenClass {
    classes.get(position.index()).copied().unwrap_or_default()
}

fn address(table: &HeadTable, slot: Slot) -> Address {
    let (page, offset) = table.address(slot);
    Address { page, offset }
}

impl Sequence {
    fn note(&mut self, seen: usize) {
        self.seen = self.seen.max(seen);
        self.pages_peak = self.pages_peak.max(self.pages_held());
    }
}
