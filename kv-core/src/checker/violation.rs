//! What a checker found, with the numbers that show it.
use std::fmt;

use crate::{PageId, Position, SeqId, Slot};

/// One head of one layer of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadId {
    /// The sequence.
    pub seq: SeqId,
    /// The layer, `0..L`.
    pub layer: usize,
    /// The KV head, `0..H`.
    pub head: usize,
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "head {} of layer {} of sequence {}",
            self.head, self.layer, self.seq
        )
    }
}

/// Where a page was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// In the free list.
    FreeList,
    /// In a head's table, as its own.
    Owner(HeadId),
    /// In a head's table, shared with others.
    Sharer(HeadId),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreeList => f.write_str("the free list"),
            Self::Owner(head) => head.fmt(f),
            Self::Sharer(head) => write!(f, "{head} (shared)"),
        }
    }
}

/// A rule of the ledger that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A page number that the pool does not have.
    #[error("page {page} stands in {holder}, but the pool has {total} pages")]
    PageOutOfRange {
        /// The page.
        page: PageId,
        /// Where it was found.
        holder: Holder,
        /// Pages of the pool.
        total: usize,
    },
    /// A page that is neither free nor in a table.
    #[error("page {page} of {total} is neither free nor in a table")]
    PageLost {
        /// The page.
        page: PageId,
        /// Pages of the pool.
        total: usize,
    },
    /// A page in two places that do not share it.
    #[error("page {page} stands in {first} and in {second}")]
    PageHeldTwice {
        /// The page.
        page: PageId,
        /// One place.
        first: Holder,
        /// The other.
        second: Holder,
    },
    /// A page that the pool takes to be shared, with one holder: it would never come back.
    #[error("page {page} counts as shared, but one head alone holds it")]
    SharedAlone {
        /// The page.
        page: PageId,
    },
    /// The pool's count of held pages is wrong.
    #[error("the pool reports {reported} pages held (peak {peak}), {counted} are in tables")]
    HeldCount {
        /// What the pool reports.
        reported: usize,
        /// The most it reports ever to have been held.
        peak: usize,
        /// Pages in tables.
        counted: usize,
    },
    /// More pages are promised than free.
    #[error("{promised} pages are promised, but only {free} are free")]
    Overpromised {
        /// Pages promised.
        promised: usize,
        /// Pages free.
        free: usize,
    },
    /// What the pool has promised is not what the sequences have been promised.
    #[error("the pool promised {promised} pages, the sequences' credits come to {credits}")]
    PromiseSum {
        /// By the pool's count.
        promised: usize,
        /// Sum of the sequences' credits.
        credits: usize,
    },
    /// A sequence has another number of heads than the model.
    #[error("sequence {seq} has {found} heads, the model has {expected}")]
    HeadCount {
        /// The sequence.
        seq: SeqId,
        /// Its heads.
        found: usize,
        /// `L * H`.
        expected: usize,
    },
    /// A head's columns differ in length.
    #[error("{head} has {positions} positions and {scores} scores")]
    Columns {
        /// The head.
        head: HeadId,
        /// Positions.
        positions: usize,
        /// Scores.
        scores: usize,
    },
    /// A head holds more or fewer pages than `ceil(T / B)`.
    #[error("{head} holds {pages} pages for {tokens} tokens, {block} to a page")]
    PageCount {
        /// The head.
        head: HeadId,
        /// Pages held.
        pages: usize,
        /// `T`.
        tokens: usize,
        /// `B`.
        block: usize,
    },
    /// A slot's address is not where its page and place in it say.
    #[error(
        "{head} puts slot {slot} at page {page}, offset {offset}, which is page {expected_page}, {expected_offset}"
    )]
    Address {
        /// The head.
        head: HeadId,
        /// The slot.
        slot: Slot,
        /// The page it names.
        page: PageId,
        /// The offset it names.
        offset: usize,
        /// The page it lies in.
        expected_page: PageId,
        /// The offset it lies at.
        expected_offset: usize,
    },
    /// A head holds a position twice.
    #[error("{head} holds position {position} twice")]
    PositionTwice {
        /// The head.
        head: HeadId,
        /// The position.
        position: Position,
    },
    /// A head holds a position that its sequence has not reached.
    #[error("{head} holds position {position} of a sequence of {seen} tokens")]
    PositionUnseen {
        /// The head.
        head: HeadId,
        /// The position.
        position: Position,
        /// Tokens that the sequence has seen.
        seen: usize,
    },
    /// A sequence is open in the ledger alone or in the model alone.
    #[error("sequence {seq} is open in the ledger: {in_ledger}, in the model: {}", !in_ledger)]
    Open {
        /// The sequence.
        seq: SeqId,
        /// Whether the ledger has it.
        in_ledger: bool,
    },
    /// A token that the plan and the growth keep is not held.
    #[error("{head} dropped position {position}, which its plan and its growth keep")]
    TokenMissing {
        /// The head.
        head: HeadId,
        /// The position.
        position: Position,
    },
    /// A token is held that the plan or the growth dropped.
    #[error("{head} holds position {position}, which its plan or its growth dropped")]
    TokenExtra {
        /// The head.
        head: HeadId,
        /// The position.
        position: Position,
    },
    /// What lies at a kept token's address is not what was written for it.
    #[error(
        "{head}: position {position} lies at page {page}, offset {offset}, and {found} is there, not {expected}"
    )]
    Bytes {
        /// The head.
        head: HeadId,
        /// The position.
        position: Position,
        /// The page.
        page: PageId,
        /// The offset.
        offset: usize,
        /// What was written.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A score did not stay with its token.
    #[error("{head}: position {position} has the score {found}, {expected} was observed")]
    Score {
        /// The head.
        head: HeadId,
        /// The position.
        position: Position,
        /// What was observed.
        expected: f32,
        /// What the slot carries.
        found: f32,
    },
    /// A sequence was promised more or less than its demand.
    #[error(
        "sequence {seq} holds {held} pages and has {credit} in credit, together they should be {expected}"
    )]
    Promise {
        /// The sequence.
        seq: SeqId,
        /// Pages held.
        held: usize,
        /// Pages promised and not taken.
        credit: usize,
        /// Pages that its demand asks for, or that it took beyond that; of one that shares pages the least, with those that it may have
        /// to copy.
        expected: usize,
    },
    /// The ledger said "full" where there was room, or found room where there was none.
    #[error(
        "sequence {seq} asked for {missing} pages with {free} free and not promised, granted: {granted}"
    )]
    Admission {
        /// The sequence.
        seq: SeqId,
        /// Pages beyond what it holds and was promised.
        missing: usize,
        /// Pages free and not promised.
        free: usize,
        /// What the ledger answered.
        granted: bool,
    },
    /// A sequence's report is wrong.
    #[error("sequence {seq} reports {reported} {what}, should be {expected}")]
    Report {
        /// The sequence.
        seq: SeqId,
        /// Of what.
        what: &'static str,
        /// What is reported.
        reported: u64,
        /// What was counted.
        expected: u64,
    },
}
