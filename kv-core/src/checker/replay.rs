//! A ledger driven beside a naive model and a fake page memory.
use std::collections::BTreeMap;

use super::{
    Violation,
    model::{HeadModel, Token, demanded, pages},
    parking::Elsewhere,
};
use crate::{
    Address, CacheError, Demand, Entered, Geometry, Kept, Ledger, Move, Pins, Position, SeqId,
    Sequence, TokenClass,
};

/// A [`Ledger`] whose every call is repeated on a model that knows no slots and no pages, and whose tokens' bytes go
/// into a fake page memory at the addresses that the ledger returns.
///
/// ```
/// use kv_core::{Demand, Geometry, KeepPlan, LayerView, Pins, Position, Room, SeqId, checker::Replay};
/// # let geometry = Geometry {
/// #     layers: 1, kv_heads: 2, group: 1, head_dim: 8, block: 4, element_bytes: 4, max_positions: 64,
/// # };
/// let mut replay = Replay::new(geometry, 10);
/// let (seq, pins) = (SeqId(0), Pins::default());
/// let demand = Demand { rooms: vec![Room::Each(usize::MAX)], together: None, appends: false, prompt: 5 };
/// replay.open(seq, 6, demand, &pins)?;
/// let kept = KeepPlan::all(2).resolve(&LayerView::prefill(0, 2, 5, usize::MAX), &pins);
/// replay.write_prompt(seq, 0, 5, &kept)?;
/// replay.append(seq, 0, Position(5))?;
/// assert_eq!(replay.check(), Ok(()));
/// # Ok::<(), kv_core::CacheError>(())
/// ```
#[derive(Debug)]
pub struct Replay {
    pub(super) ledger: Ledger,
    /// What lies in the pages, `[pages][B]`.
    pub(super) memory: Vec<u64>,
    written: u64,
    pub(super) sequences: BTreeMap<SeqId, Shadow>,
    pub(super) parked: BTreeMap<SeqId, Elsewhere>,
    pub(super) fault: Option<Violation>,
}

/// What is known of a sequence.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    pub(super) heads: Vec<HeadModel>,
    pub(super) demand: Demand,
    pins: Pins,
    classes: BTreeMap<Position, TokenClass>,
    /// Pages held and promised, while none was ever shared.
    pub(super) promise: usize,
    /// Pages that it was last promised to hold; `None`: nobody is about to make it longer.
    pub(super) wanted: Option<usize>,
    /// Whether it ever held pages together with another, for a moment at least.
    pub(super) was_shared: bool,
    pub(super) prompt: usize,
    pub(super) seen: usize,
    pub(super) pages_peak: usize,
    pub(super) overwrites: u64,
}

impl Shadow {
    pub(super) fn pages(&self, block: usize) -> usize {
        self.heads.iter().map(|head| head.pages(block)).sum()
    }

    /// The token at a position before it is written.
    pub(super) fn token(&self, position: Position) -> Token {
        Token {
            position,
            payload: 0,
            score: 0.0,
            pinned: self.pins.contains(position),
            class: self.classes.get(&position).copied().unwrap_or_default(),
        }
    }

    /// Pages that a call took; what it took beyond the promise counts as promised from here on.
    fn note(&mut self, block: usize, seen: usize) {
        let held = self.pages(block);
        self.promise = self.promise.max(held);
        self.pages_peak = self.pages_peak.max(held);
        self.seen = self.seen.max(seen);
    }
}

impl Replay {
    /// An empty ledger over a pool of `pages` pages.
    #[must_use]
    pub fn new(geometry: Geometry, pages: usize) -> Self {
        Self {
            ledger: Ledger::new(geometry, pages),
            memory: vec![0; pages * geometry.block],
            written: 0,
            sequences: BTreeMap::new(),
            parked: BTreeMap::new(),
            fault: None,
        }
    }

    /// The ledger.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Pages that are neither held nor promised.
    pub(super) fn unpromised(&self) -> usize {
        let usage = self.ledger.pool().usage();
        usage.total.saturating_sub(usage.held + usage.promised)
    }

    fn blame(&mut self, violation: Violation) {
        self.fault.get_or_insert(violation);
    }

    /// Compares what the ledger answered to a call that wanted `missing` pages beyond the promise, with `free` pages not promised.
    pub(super) fn expect(&mut self, seq: SeqId, (missing, free): (usize, usize), granted: bool) {
        if granted != (missing <= free) {
            self.blame(Violation::Admission {
                seq,
                missing,
                free,
                granted,
            });
        }
    }

    /// [`Ledger::open`].
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn open(
        &mut self,
        seq: SeqId,
        tokens: usize,
        demand: Demand,
        pins: &Pins,
    ) -> Result<(), CacheError> {
        let geometry = *self.ledger.geometry();
        let pinned = pinned_below(pins, reckoned(&demand, &geometry, tokens));
        let promise = demanded(&demand, &geometry, tokens, pinned);
        let free = self.unpromised();
        let result = self.ledger.open(seq, tokens, demand.clone(), pins);
        if self.sequences.contains_key(&seq) {
            if result != Err(CacheError::AlreadyOpen(seq)) {
                self.blame(Violation::Open {
                    seq,
                    in_ledger: false,
                });
            }
            return result;
        }
        self.expect(seq, (promise, free), result.is_ok());
        if result.is_ok() {
            let shadow = Shadow {
                heads: vec![HeadModel::default(); geometry.layers * geometry.kv_heads],
                demand,
                pins: pins.clone(),
                classes: BTreeMap::new(),
                promise,
                wanted: Some(promise),
                was_shared: false,
                prompt: 0,
                seen: 0,
                pages_peak: 0,
                overwrites: 0,
            };
            self.sequences.insert(seq, shadow);
        }
        result
    }

    /// [`Ledger::reserve`].
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn reserve(&mut self, seq: SeqId, tokens: usize) -> Result<(), CacheError> {
        let wanted = self.wanted_for(seq, tokens);
        let missing = wanted.map_or(0, |wanted| self.missing(seq, self.due(seq, wanted)));
        let free = self.unpromised();
        let result = self.ledger.reserve(seq, tokens);
        let Some(wanted) = wanted else {
            return result;
        };
        self.expect(seq, (missing, free), result.is_ok());
        if result.is_ok()
            && let Some(shadow) = self.sequences.get_mut(&seq)
        {
            shadow.wanted = Some(wanted);
            shadow.promise = shadow.promise.max(wanted);
        }
        result
    }

    /// What a sequence is promised to hold when it is to be `tokens` long.
    pub(super) fn wanted_for(&self, seq: SeqId, tokens: usize) -> Option<usize> {
        let shadow = self.sequences.get(&seq)?;
        let wanted = self.demanded_of(shadow, tokens);
        Some(wanted.max(shadow.wanted.unwrap_or(0)))
    }

    pub(super) fn demanded_of(&self, shadow: &Shadow, tokens: usize) -> usize {
        let geometry = self.ledger.geometry();
        let reckoned = reckoned(&shadow.demand, geometry, tokens);
        let pinned = pinned_below(&shadow.pins, reckoned);
        demanded(&shadow.demand, geometry, tokens, pinned)
    }

    /// [`Ledger::forgo`].
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn forgo(&mut self, seq: SeqId) -> Result<(), CacheError> {
        self.ledger.forgo(seq)?;
        let block = self.ledger.geometry().block;
        if let Some(shadow) = self.sequences.get_mut(&seq) {
            shadow.promise = shadow.pages(block);
            shadow.wanted = None;
        }
        Ok(())
    }

    /// [`Ledger::rename`].
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn rename(&mut self, from: SeqId, to: SeqId) -> Result<(), CacheError> {
        self.ledger.rename(from, to)?;
        if let Some(shadow) = self.sequences.remove(&from) {
            self.sequences.insert(to, shadow);
        }
        Ok(())
    }

    /// [`Ledger::classify`].
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn classify(
        &mut self,
        seq: SeqId,
        first: Position,
        classes: &[TokenClass],
    ) -> Result<(), CacheError> {
        self.ledger.classify(seq, first, classes)?;
        if let Some(shadow) = self.sequences.get_mut(&seq) {
            let positions = (first.0..).map(Position);
            shadow
                .classes
                .extend(positions.zip(classes.iter().copied()));
        }
        Ok(())
    }

    /// [`Ledger::write_prompt`]; the bytes of every kept token are written where the ledger says.
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn write_prompt(
        &mut self,
        seq: SeqId,
        layer: usize,
        prompt: usize,
        kept: &Kept,
    ) -> Result<Vec<Vec<Address>>, CacheError> {
        let Geometry {
            kv_heads, block, ..
        } = *self.ledger.geometry();
        let needed = kept.slots.iter().map(|slots| pages(slots.len(), block));
        let missing = self.missing(seq, needed.sum());
        let free = self.unpromised();
        let result = self.ledger.write_prompt(seq, layer, prompt, kept);
        if matches!(result, Ok(_) | Err(CacheError::Full(_))) {
            self.expect(seq, (missing, free), result.is_ok());
        }
        let addresses = result?;
        for (head, addresses) in addresses.iter().enumerate() {
            let positions: Vec<Position> = kept.slots[head]
                .iter()
                .map(|&slot| Position(slot))
                .collect();
            let mut tokens = self.write(seq, &positions, addresses);
            for (index, token) in tokens.iter_mut().enumerate() {
                if let Some(scores) = &kept.scores {
                    token.score = scores[head][index];
                }
            }
            if let Some(shadow) = self.sequences.get_mut(&seq) {
                shadow.heads[layer * kv_heads + head] =
                    HeadModel::planned(tokens, kept.growth[head]);
            }
        }
        if let Some(shadow) = self.sequences.get_mut(&seq) {
            shadow.prompt = prompt;
            shadow.note(block, prompt);
        }
        Ok(addresses)
    }

    /// [`Ledger::append`]; the token's bytes are written where the ledger says, other ones for every head.
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn append(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
    ) -> Result<Entered<Address>, CacheError> {
        let Geometry {
            kv_heads, block, ..
        } = *self.ledger.geometry();
        let missing = self.missing(seq, self.taken_by(seq, layer, position));
        let free = self.unpromised();
        let result = self.ledger.append(seq, layer, position);
        if matches!(result, Ok(_) | Err(CacheError::Full(_))) {
            self.expect(seq, (missing, free), result.is_ok());
        }
        let entered = result?;
        self.copy(&entered.moves);
        for (head, address) in entered.heads.iter().enumerate() {
            let token = self.write(seq, &[position], &[*address]);
            if let Some(shadow) = self.sequences.get_mut(&seq) {
                for token in token {
                    shadow.overwrites +=
                        u64::from(shadow.heads[layer * kv_heads + head].arrive(token));
                }
            }
        }
        if let Some(shadow) = self.sequences.get_mut(&seq) {
            shadow.note(block, position.index() + 1);
        }
        Ok(entered)
    }

    /// [`Ledger::shrink`]; the bytes of every token that moves are copied as the ledger says, in the order of the moves.
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn shrink(
        &mut self,
        seq: SeqId,
        layer: usize,
        kept: &Kept,
    ) -> Result<Vec<Move>, CacheError> {
        let Geometry {
            layers, kv_heads, ..
        } = *self.ledger.geometry();
        let mut stay = Vec::with_capacity(kv_heads);
        for (head, slots) in kept.slots.iter().enumerate() {
            let table = (layer < layers).then(|| self.ledger.head(seq, layer, head));
            let held = match table {
                Some(Ok(table)) => table.positions(),
                _ => &[], // refused below
            };
            let at = |&slot: &u32| held.get(slot as usize).copied();
            stay.push(slots.iter().filter_map(at).collect::<Vec<Position>>());
        }
        let missing = self.missing(seq, self.taken_by_shrink(seq, layer, kept));
        let free = self.unpromised();
        let result = self.ledger.shrink(seq, layer, kept);
        if matches!(result, Ok(_) | Err(CacheError::Full(_))) {
            self.expect(seq, (missing, free), result.is_ok());
        }
        let moves = result?;
        self.copy(&moves);
        if let Some(shadow) = self.sequences.get_mut(&seq) {
            for (head, positions) in stay.iter().enumerate() {
                let model = &mut shadow.heads[layer * kv_heads + head];
                let scores = kept.scores.as_ref().map(|scores| scores[head].as_slice());
                *model = model.replanned(positions, scores, kept.growth[head]);
            }
        }
        Ok(moves)
    }

    /// Adds what was observed to the scores of one head, one number for each slot.
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    ///
    /// # Panics
    ///
    /// If the row has another length than the head.
    pub fn observe(
        &mut self,
        seq: SeqId,
        layer: usize,
        head: usize,
        row: &[f32],
    ) -> Result<(), CacheError> {
        let kv_heads = self.ledger.geometry().kv_heads;
        let scores = self.ledger.scores_mut(seq, layer, head)?;
        assert_eq!(row.len(), scores.len(), "one number for each slot");
        for (score, seen) in scores.iter_mut().zip(row) {
            *score += seen;
        }
        let positions = self.ledger.head(seq, layer, head)?.positions();
        if let Some(shadow) = self.sequences.get_mut(&seq) {
            let model = &mut shadow.heads[layer * kv_heads + head];
            for (&position, seen) in positions.iter().zip(row) {
                if let Some(token) = model.find_mut(position) {
                    token.score += seen;
                }
            }
        }
        Ok(())
    }

    /// [`Ledger::release`]; whether the sequence was open.
    pub fn release(&mut self, seq: SeqId) -> bool {
        let was_open = self.ledger.release(seq).is_some();
        let is_known = self.sequences.remove(&seq).is_some();
        if was_open != is_known {
            self.blame(Violation::Open {
                seq,
                in_ledger: was_open,
            });
        }
        was_open
    }

    /// [`Ledger::clear`].
    pub fn clear(&mut self) {
        self.ledger.clear();
        self.sequences.clear();
        self.parked.clear();
    }

    /// Of `needed` pages, those that a sequence has no credit for.
    pub(super) fn missing(&self, seq: SeqId, needed: usize) -> usize {
        let credit = self.ledger.sequence(seq).map_or(0, Sequence::credit);
        needed.saturating_sub(credit)
    }

    /// Carries moves out.
    fn copy(&mut self, moves: &[Move]) {
        let block = self.ledger.geometry().block;
        for step in moves {
            let from = step.from.0.index() * block + step.from.1 as usize;
            let to = step.to.page().index() * block + step.to.offset() as usize;
            let bytes = self.memory.get(from).copied();
            if let (Some(bytes), Some(to)) = (bytes, self.memory.get_mut(to)) {
                *to = bytes;
            }
        }
    }

    /// Writes new bytes for the tokens of one head.
    fn write(&mut self, seq: SeqId, positions: &[Position], addresses: &[Address]) -> Vec<Token> {
        let block = self.ledger.geometry().block;
        let mut tokens = Vec::with_capacity(positions.len());
        for (&position, address) in positions.iter().zip(addresses) {
            self.written += 1;
            // An address outside the memory shows as bytes that are not there.
            if let Some(cell) = self
                .memory
                .get_mut(address.page().index() * block + address.offset() as usize)
            {
                *cell = self.written;
            }
            if let Some(shadow) = self.sequences.get(&seq) {
                tokens.push(Token {
                    payload: self.written,
                    ..shadow.token(position)
                });
            }
        }
        tokens
    }
}

/// Up to where pins are promised: a bounded cache is promised all at once.
fn reckoned(demand: &Demand, geometry: &Geometry, tokens: usize) -> usize {
    if demand.appends || tokens > geometry.max_positions {
        tokens
    } else {
        geometry.max_positions
    }
}

fn pinned_below(pins: &Pins, tokens: usize) -> usize {
    (0..tokens)
        .filter(|&position| pins.contains(Position::new(position)))
        .count()
}
