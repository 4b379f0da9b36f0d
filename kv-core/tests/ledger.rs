//! Random calls on a ledger, repeated on a naive model and checked by code that shares nothing with it.
//!
//! A failure prints its seed; `HEADROOM_SEED=<seed>` repeats the run.
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use kv_core::{
    CacheError, Demand, Geometry, Growth, KeepPlan, Kept, LayerView, Pins, Position, Protected,
    Room, SeqId, TokenClass, checker::Replay,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const GEOMETRY: Geometry = Geometry {
    layers: 2,
    kv_heads: 3,
    group: 2,
    head_dim: 8,
    block: 8,
    element_bytes: 4,
    max_positions: 64,
};
/// Room for about four full sequences of twenty tokens, of the six that there may be; and for some of them more than once.
const POOLS: [usize; 2] = [72, 240];
const SEQUENCES: u8 = 6;

/// Of each head what it protects, its limit, its window, and its room: one that slides, one that is seldom full, and one that
/// soon has more to protect than room.
const PROTECTED: [(Protected, usize, usize, usize); 3] = [
    (protected(true, false), 1, 0, 20),
    (protected(true, true), 6, 2, 12),
    (protected(false, true), 20, 9, 5),
];

const fn protected(special: bool, punctuation: bool) -> Protected {
    Protected {
        special,
        punctuation,
    }
}

/// What kind of text a token is, of a sequence that says so.
fn class(seq: SeqId, position: usize) -> TokenClass {
    match (position + seq.0).wrapping_mul(2_654_435_761) >> 9 & 3 {
        0 => TokenClass::Special,
        1 => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    }
}

/// How a sequence's policy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Keeps everything.
    Full,
    /// Sinks and a window.
    Window,
    /// A window that is longer at first than the ring it grows by.
    LongWindow,
    /// Random tokens in equal heads, then the lowest score goes.
    Scores,
    /// The same with a split of the budget.
    Ragged,
    /// One full head, the others with a window.
    Mixed,
    /// Equal heads of the prompt, and all that follows.
    Prompt,
    /// The same with a split of the budget.
    RaggedPrompt,
    /// Heads that protect classes of tokens, each in its own way.
    Protected,
    /// Keeps everything under a bound of four tokens.
    Liar,
}

const KINDS: [Kind; 10] = [
    Kind::Full,
    Kind::Window,
    Kind::LongWindow,
    Kind::Scores,
    Kind::Ragged,
    Kind::Mixed,
    Kind::Prompt,
    Kind::RaggedPrompt,
    Kind::Protected,
    Kind::Liar,
];

impl Kind {
    fn demand(self, prompt: usize) -> Demand {
        let room = match self {
            Self::Full => Room::Each(usize::MAX),
            Self::Mixed => Room::Heads(vec![usize::MAX, 6, 6]),
            Self::Window | Self::LongWindow => Room::Each(10),
            Self::Scores | Self::Prompt => Room::Each(9),
            Self::Ragged | Self::RaggedPrompt => Room::Together(18),
            Self::Protected => Room::Heads(PROTECTED.iter().map(|head| head.3).collect()),
            Self::Liar => Room::Each(4),
        };
        Demand {
            rooms: vec![room; GEOMETRY.layers],
            together: None,
            appends: matches!(self, Self::Prompt | Self::RaggedPrompt),
            prompt,
        }
    }

    /// Whether what it was promised at first is enough for ever.
    fn is_bounded(self) -> bool {
        matches!(
            self,
            Self::Window | Self::LongWindow | Self::Scores | Self::Ragged | Self::Protected
        )
    }

    fn plan(self, prompt: usize, pins: &Pins, rng: &mut impl Rng) -> Kept {
        let heads = GEOMETRY.kv_heads;
        let mut keep = KeepPlan::all(heads);
        let newest = u32::try_from(prompt - 1).expect("small");
        let mut random = |keep: &mut KeepPlan, head, count: usize| {
            let others: Vec<u32> = (1..count).map(|_| rng.random_range(0..=newest)).collect();
            keep.slots(head, others.into_iter().chain([newest]));
        };
        match self {
            Self::Full | Self::Liar => {}
            Self::Window | Self::LongWindow => {
                let recent = if self == Self::Window { 8 } else { 3 };
                for head in 0..heads {
                    keep.window(head, 2, 8);
                    keep.grow(head, Growth::Ring { sinks: 2, recent });
                }
            }
            Self::Scores => {
                for head in 0..heads {
                    random(&mut keep, head, 9);
                    keep.grow(
                        head,
                        Growth::EvictLowest {
                            limit: 9,
                            recent: 3,
                        },
                    );
                }
            }
            Self::Ragged => {
                for (head, limit) in [1, 12, 5].into_iter().enumerate() {
                    random(&mut keep, head, limit);
                    keep.grow(head, Growth::EvictLowest { limit, recent: 2 });
                }
            }
            Self::Prompt => (0..heads).for_each(|head| random(&mut keep, head, 9)),
            Self::RaggedPrompt => {
                for (head, count) in [1, 12, 5].into_iter().enumerate() {
                    random(&mut keep, head, count);
                }
            }
            Self::Protected => {
                for (head, (classes, limit, recent, most)) in PROTECTED.into_iter().enumerate() {
                    random(&mut keep, head, most);
                    let growth = Growth::Protect {
                        classes,
                        limit,
                        recent,
                        most,
                    };
                    keep.grow(head, growth);
                }
            }
            Self::Mixed => {
                for head in 1..heads {
                    keep.window(head, 1, 5);
                    keep.grow(
                        head,
                        Growth::Ring {
                            sinks: 1,
                            recent: 5,
                        },
                    );
                }
            }
        }
        keep.resolve(&LayerView::prefill(0, heads, prompt, usize::MAX), pins)
    }
}

/// One call, or what leads to one; small numbers, so that a failing list of them shrinks.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// Opens a sequence with a prompt of so many tokens, or promises an open one a few tokens more.
    Reserve {
        seq: u8,
        tokens: u8,
        kind: u8,
        pins: (u8, u8),
    },
    /// Writes the prompt of the next layer, or the next token into the next layer.
    Advance { seq: u8, bits: u32 },
    /// Adds random scores to a head.
    Observe { seq: u8, bits: u32 },
    /// Plans anew what a layer holds: a random part of each head stays, now and then with new scores.
    Shrink { seq: u8, bits: u32 },
    /// Closes a sequence, in the middle of a token or not.
    Release { seq: u8 },
    /// Closes all.
    Clear,
    /// A sequence that nobody makes longer, by another name; then it may be made longer again.
    SetAside { seq: u8, to: u8 },
    /// Another sequence that holds the same, and will be a few tokens longer.
    Fork { seq: u8, to: u8, tokens: u8 },
    /// Takes a sequence's pages from it, or gives one that was left without others.
    Park { seq: u8 },
    /// Another sequence with the same prompt, of which it takes the layers that are written.
    Twin { seq: u8, to: u8 },
    /// Calls that must be refused.
    Misuse { seq: u8 },
}

#[derive(Debug, Clone)]
struct Progress {
    kind: Kind,
    /// By whose name its text goes.
    text: SeqId,
    pins: Pins,
    prompt: usize,
    reserved: usize,
    /// Layers whose prompt is written.
    written: usize,
    /// Where the next token goes.
    next: (usize, usize),
}

/// What the random calls met, so that a run which tests nothing is seen.
#[derive(Debug, Default)]
struct Met {
    no_room: usize,
    full_prompts: usize,
    full_tokens: usize,
    tokens: usize,
    moved: usize,
    cancelled: usize,
    set_aside: usize,
    forked: usize,
    not_forked: usize,
    twins: usize,
    copied: usize,
    parked: usize,
    resumed: usize,
    not_resumed: usize,
}

struct World {
    replay: Replay,
    open: HashMap<SeqId, Progress>,
    parked: HashMap<SeqId, Progress>,
    met: Met,
}

impl World {
    fn new(pages: usize) -> Self {
        Self {
            replay: Replay::new(GEOMETRY, pages),
            open: HashMap::new(),
            parked: HashMap::new(),
            met: Met::default(),
        }
    }

    /// Applies an operation; an `Err` says what the ledger did wrong.
    fn apply(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Reserve {
                seq,
                tokens,
                kind,
                pins,
            } => self.reserve(SeqId(seq.into()), tokens, kind, pins),
            Op::Advance { seq, bits } => self.advance(SeqId(seq.into()), bits)?,
            Op::Observe { seq, bits } => self.observe(SeqId(seq.into()), bits),
            Op::Shrink { seq, bits } => self.shrink(SeqId(seq.into()), bits)?,
            Op::Release { seq } => {
                let seq = SeqId(seq.into());
                let progress = self.open.remove(&seq);
                self.met.cancelled += usize::from(
                    progress
                        .as_ref()
                        .is_some_and(|p| p.written == 1 || p.next.1 == 1),
                );
                if self.replay.release(seq) != progress.is_some() {
                    return Err("release says another thing than open".into());
                }
            }
            Op::Clear => {
                self.open.clear();
                self.parked.clear();
                self.replay.clear();
            }
            Op::SetAside { seq, to } => {
                self.set_aside(SeqId(seq.into()), SeqId(to.into()))?;
            }
            Op::Fork { seq, to, tokens } => {
                self.fork(SeqId(seq.into()), SeqId(to.into()), tokens)?;
            }
            Op::Park { seq } => self.park(SeqId(seq.into()))?,
            Op::Twin { seq, to } => self.twin(SeqId(seq.into()), SeqId(to.into()))?,
            Op::Misuse { seq } => self.misuse(SeqId(seq.into()))?,
        }
        self.replay
            .check_totals()
            .map_err(|violation| violation.to_string())
    }

    fn reserve(&mut self, seq: SeqId, tokens: u8, kind: u8, (start, length): (u8, u8)) {
        if let Some(progress) = self.open.get_mut(&seq) {
            let tokens = progress.next.0 + 1 + usize::from(tokens % 4);
            match self.replay.reserve(seq, tokens) {
                Ok(()) => progress.reserved = progress.reserved.max(tokens),
                Err(_) => self.met.no_room += 1,
            }
            return;
        }
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        let prompt = usize::from(tokens).max(1);
        let pins = Pins::new(std::iter::once(
            u32::from(start)..u32::from(start) + u32::from(length),
        ));
        match self.replay.open(seq, prompt, kind.demand(prompt), &pins) {
            Ok(()) => {
                let progress = Progress {
                    kind,
                    text: seq,
                    pins,
                    prompt,
                    reserved: prompt,
                    written: 0,
                    next: (prompt, 0),
                };
                self.open.insert(seq, progress);
                let classes: Vec<TokenClass> = (0..prompt).map(|at| class(seq, at)).collect();
                let said = self.replay.classify(seq, Position(0), &classes);
                said.expect("the sequence is open");
            }
            Err(_) => self.met.no_room += 1,
        }
    }

    fn advance(&mut self, seq: SeqId, bits: u32) -> Result<(), String> {
        let Some(progress) = self.open.get_mut(&seq) else {
            let refused = self.replay.append(seq, 0, Position(0));
            return expect(&refused, &CacheError::UnknownSequence(seq));
        };
        if progress.written < GEOMETRY.layers {
            let kept = progress.kind.plan(
                progress.prompt,
                &progress.pins,
                &mut ChaCha8Rng::seed_from_u64(bits.into()),
            );
            return match self
                .replay
                .write_prompt(seq, progress.written, progress.prompt, &kept)
            {
                Ok(_) => {
                    progress.written += 1;
                    Ok(())
                }
                Err(CacheError::Full(_)) if progress.kind == Kind::Liar => {
                    self.met.full_prompts += 1;
                    Ok(())
                }
                Err(error) => Err(format!(
                    "a reserved prompt of {progress:?} was refused: {error}"
                )),
            };
        }
        let (position, layer) = progress.next;
        // Now and then nothing is said, and the token is plain.
        if layer == 0 && !bits.is_multiple_of(8) {
            let said = self.replay.classify(
                seq,
                Position::new(position),
                &[class(progress.text, position)],
            );
            said.expect("the sequence is open");
        }
        match self.replay.append(seq, layer, Position::new(position)) {
            Ok(entered) => {
                self.met.tokens += 1;
                self.met.copied += usize::from(!entered.moves.is_empty());
                let is_last = layer + 1 == GEOMETRY.layers;
                progress.next = if is_last {
                    (position + 1, 0)
                } else {
                    (position, layer + 1)
                };
                Ok(())
            }
            // Pins beyond what was reserved were not promised.
            Err(CacheError::Full(_))
                if !progress.kind.is_bounded() || position >= progress.reserved =>
            {
                self.met.full_tokens += 1;
                Ok(())
            }
            Err(error) => Err(format!(
                "a token that {progress:?} was promised was refused: {error}"
            )),
        }
    }

    fn set_aside(&mut self, seq: SeqId, to: SeqId) -> Result<(), String> {
        let Some(progress) = self.open.get(&seq) else {
            expect(&self.replay.forgo(seq), &CacheError::UnknownSequence(seq))?;
            let refused = self.replay.rename(seq, SeqId(usize::MAX));
            return expect(&refused, &CacheError::UnknownSequence(seq));
        };
        if seq != to && self.open.contains_key(&to) {
            return expect(&self.replay.rename(seq, to), &CacheError::AlreadyOpen(to));
        }
        if progress.written < GEOMETRY.layers {
            return Ok(());
        }
        self.replay.forgo(seq).map_err(|error| error.to_string())?;
        let renamed = self.replay.rename(seq, to);
        renamed.map_err(|error| error.to_string())?;
        let mut progress = self.open.remove(&seq).expect("open");
        // All that it was promised is gone: it waits for a promise before it grows.
        progress.reserved = 0;
        self.open.insert(to, progress);
        self.met.set_aside += 1;
        Ok(())
    }

    fn fork(&mut self, seq: SeqId, to: SeqId, tokens: u8) -> Result<(), String> {
        let Some(progress) = self.open.get(&seq) else {
            let refused = self.replay.fork(seq, SeqId(usize::MAX), 1);
            return expect(&refused, &CacheError::UnknownSequence(seq));
        };
        if self.open.contains_key(&to) {
            let refused = self.replay.fork(seq, to, 1);
            return expect(&refused, &CacheError::AlreadyOpen(to));
        }
        let mut progress = progress.clone();
        progress.reserved = progress.next.0 + 1 + usize::from(tokens % 4);
        match self.replay.fork(seq, to, progress.reserved) {
            Ok(()) => {
                self.open.insert(to, progress);
                self.met.forked += 1;
                Ok(())
            }
            Err(CacheError::Full(_)) => {
                self.met.not_forked += 1;
                Ok(())
            }
            Err(error) => Err(format!("{progress:?} cannot be forked: {error}")),
        }
    }

    /// Takes a sequence's pages from it, or gives one that has none others.
    fn park(&mut self, seq: SeqId) -> Result<(), String> {
        if self.replay.is_parked(seq) {
            let mut progress = self.parked.remove(&seq).expect("parked");
            let tokens = progress.next.0 + 1;
            return match self.replay.unpark(seq, tokens) {
                Ok(()) => {
                    progress.reserved = tokens;
                    self.open.insert(seq, progress);
                    self.met.resumed += 1;
                    Ok(())
                }
                Err(CacheError::Full(_)) => {
                    self.parked.insert(seq, progress);
                    self.met.not_resumed += 1;
                    Ok(())
                }
                Err(error) => {
                    let is_open = self.open.contains_key(&seq);
                    self.parked.insert(seq, progress);
                    let refused: Result<(), CacheError> = Err(error);
                    match is_open {
                        true => expect(&refused, &CacheError::AlreadyOpen(seq)),
                        false => Err("a parked sequence is not opened again".into()),
                    }
                }
            };
        }
        let Some(progress) = self.open.remove(&seq) else {
            let refused = self.replay.park(seq);
            return expect(&refused, &CacheError::UnknownSequence(seq));
        };
        self.parked.insert(seq, progress);
        self.met.parked += 1;
        self.replay.park(seq).map_err(|error| error.to_string())
    }

    fn twin(&mut self, seq: SeqId, to: SeqId) -> Result<(), String> {
        let has_begun = |one: &&Progress| one.written == 0 || one.next != (one.prompt, 0);
        // Whoever stands there, beginning with the one that is named.
        let names = (0..usize::from(SEQUENCES)).map(|next| (seq.0 + next) % usize::from(SEQUENCES));
        let open = |name| self.open.get_key_value(&SeqId(name));
        let mut unbegun = names.filter_map(open).filter(|(_, one)| !has_begun(one));
        let Some((&seq, progress)) = unbegun.next() else {
            return Ok(());
        };
        if self.open.contains_key(&to) {
            return Ok(());
        }
        let (mut twin, prompt) = (progress.clone(), progress.prompt);
        let demand = twin.kind.demand(prompt);
        if self.replay.open(to, prompt, demand, &twin.pins).is_err() {
            self.met.no_room += 1;
            return Ok(());
        }
        (twin.written, twin.reserved) = (0, prompt);
        let classes: Vec<TokenClass> = (0..prompt).map(|at| class(twin.text, at)).collect();
        let said = self.replay.classify(to, Position(0), &classes);
        said.map_err(|error| error.to_string())?;
        for layer in 0..progress.written {
            match self.replay.share_layer(seq, to, layer) {
                Ok(()) => twin.written += 1,
                Err(CacheError::Full(_)) => break,
                Err(error) => return Err(format!("{twin:?} cannot share: {error}")),
            }
        }
        self.met.twins += usize::from(twin.written > 0);
        self.open.insert(to, twin);
        Ok(())
    }

    fn observe(&mut self, seq: SeqId, bits: u32) {
        let mut rng = ChaCha8Rng::seed_from_u64(bits.into());
        let (layer, head) = (
            rng.random_range(0..GEOMETRY.layers),
            rng.random_range(0..GEOMETRY.kv_heads),
        );
        let Ok(table) = self.replay.ledger().head(seq, layer, head) else {
            return;
        };
        // Few values, so that there are ties; and now and then one that is none.
        let row: Vec<f32> = (0..table.len())
            .map(|_| {
                if rng.random_ratio(1, 200) {
                    f32::NAN
                } else {
                    f32::from(rng.random_range(0..4_u8))
                }
            })
            .collect();
        self.replay
            .observe(seq, layer, head, &row)
            .expect("the sequence is open");
    }

    fn shrink(&mut self, seq: SeqId, bits: u32) -> Result<(), String> {
        let mut rng = ChaCha8Rng::seed_from_u64(bits.into());
        let layer = rng.random_range(0..GEOMETRY.layers);
        let Some(progress) = self.open.get(&seq) else {
            let kept = Kind::Full.plan(1, &Pins::default(), &mut rng);
            let refused = self.replay.shrink(seq, layer, &kept);
            return expect(&refused, &CacheError::UnknownSequence(seq));
        };
        let stays = rng.random_range(0.0..=1.0);
        let heads = (0..GEOMETRY.kv_heads).map(|head| {
            let table = self.replay.ledger().head(seq, layer, head);
            let table = table.expect("the sequence is open");
            let newest = table.positions().iter().max();
            let is_kept = |(_, position): &(u32, &Position)| {
                let is_fixed = Some(*position) == newest || progress.pins.contains(**position);
                is_fixed || rng.random_bool(stays)
            };
            let slots = (0..).zip(table.positions()).filter(is_kept);
            let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
            let scores: Vec<f32> = slots
                .iter()
                .map(|_| f32::from(rng.random_range(0..4_u8)))
                .collect();
            (slots, table.growth(), scores)
        });
        let heads: Vec<_> = heads.collect();
        let with_scores = rng.random_ratio(1, 2);
        let kept = Kept {
            slots: heads.iter().map(|head| head.0.clone()).collect(),
            growth: heads.iter().map(|head| head.1).collect(),
            scores: with_scores.then(|| heads.into_iter().map(|head| head.2).collect()),
        };
        let sequence = self.replay.ledger().sequence(seq);
        let shares = sequence.is_ok_and(|sequence| sequence.shared_pages() > 0);
        let before = self.replay.ledger().evicted();
        let held = self.replay.ledger().report(seq).expect("open").kept;
        let held: usize = held[layer].iter().sum();
        match self.replay.shrink(seq, layer, &kept) {
            Ok(moves) => self.met.moved += usize::from(!moves.is_empty()),
            // Copies are promised where a sequence is promised anything, and no more than that.
            Err(CacheError::Full(_)) if shares => return Ok(()),
            Err(error) => return Err(format!("a layer of {progress:?} cannot shrink: {error}")),
        }
        let left: usize = kept.slots.iter().map(Vec::len).sum();
        let report = self.replay.ledger().report(seq).expect("open");
        let evicted = self.replay.ledger().evicted() - before;
        if report.kept[layer].iter().sum::<usize>() != left {
            return Err(format!("holds {:?}, not {left} tokens", report.kept[layer]));
        }
        if usize::try_from(evicted) != Ok(held - left) {
            return Err(format!(
                "counts {evicted} tokens evicted of {held}, {left} left"
            ));
        }
        Ok(())
    }

    fn misuse(&mut self, seq: SeqId) -> Result<(), String> {
        let layers = GEOMETRY.layers;
        if self.open.contains_key(&seq) {
            let demand = Kind::Full.demand(1);
            let refused = self.replay.open(seq, 1, demand, &Pins::default());
            expect(&refused, &CacheError::AlreadyOpen(seq))?;
        } else {
            let said = self.replay.classify(seq, Position(0), &[]);
            expect(&said, &CacheError::UnknownSequence(seq))?;
            let refused = self.replay.reserve(seq, 1);
            expect(&refused, &CacheError::UnknownSequence(seq))?;
        }
        let refused = self.replay.append(seq, layers, Position(0));
        expect(
            &refused,
            &CacheError::UnknownLayer {
                layer: layers,
                layers,
            },
        )?;
        let kept = Kind::Full.plan(1, &Pins::default(), &mut ChaCha8Rng::seed_from_u64(0));
        let refused = self.replay.shrink(seq, layers, &kept);
        expect(
            &refused,
            &CacheError::UnknownLayer {
                layer: layers,
                layers,
            },
        )?;
        if let Some(progress) = self.open.get(&seq).filter(|progress| progress.written > 0) {
            let kept = Kind::Full.plan(
                progress.prompt,
                &Pins::default(),
                &mut ChaCha8Rng::seed_from_u64(0),
            );
            let refused = self.replay.write_prompt(seq, 0, progress.prompt, &kept);
            expect(&refused, &CacheError::NotEmpty { seq, layer: 0 })?;
        }
        Ok(())
    }

    fn finish(&mut self, seed: u64) {
        self.check().expect("the last check");
        self.apply(Op::Clear).expect("clears");
        let usage = self.replay.ledger().pool().usage();
        assert_eq!((usage.held, usage.promised), (0, 0), "HEADROOM_SEED={seed}");
    }

    fn check(&self) -> Result<(), String> {
        self.replay
            .check()
            .map_err(|violation| violation.to_string())
    }
}

fn expect<T>(result: &Result<T, CacheError>, expected: &CacheError) -> Result<(), String> {
    match result {
        Err(error) if error == expected => Ok(()),
        Err(error) => Err(format!("`{error}` instead of `{expected}`")),
        Ok(_) => Err(format!("a call was carried out instead of `{expected}`")),
    }
}

fn random_op(rng: &mut impl Rng) -> Op {
    let seq = rng.random_range(0..SEQUENCES);
    match rng.random_range(0..1000) {
        0..25 => Op::Fork {
            seq,
            to: rng.random_range(0..SEQUENCES),
            tokens: rng.random(),
        },
        25..50 => Op::Twin {
            seq,
            to: rng.random_range(0..SEQUENCES),
        },
        50..130 => {
            let pins = if rng.random_ratio(1, 2) {
                (rng.random_range(0..30), rng.random_range(0..12))
            } else {
                (0, 0)
            };
            Op::Reserve {
                seq,
                tokens: rng.random_range(1..30),
                kind: rng.random_range(0..10),
                pins,
            }
        }
        130..910 => Op::Advance {
            seq,
            bits: rng.random(),
        },
        910..960 => Op::Observe {
            seq,
            bits: rng.random(),
        },
        960..985 => Op::Shrink {
            seq,
            bits: rng.random(),
        },
        985..990 => Op::Release { seq },
        990..992 => Op::SetAside {
            seq,
            to: rng.random_range(0..SEQUENCES),
        },
        992 if rng.random_ratio(1, 20) => Op::Clear,
        993..996 => Op::Park { seq },
        _ => Op::Misuse { seq },
    }
}

/// From `HEADROOM_SEED`, else a fresh one.
fn seed() -> u64 {
    let fresh = || RandomState::new().hash_one("headroom");
    std::env::var("HEADROOM_SEED").map_or_else(
        |_| fresh(),
        |text| text.parse().expect("HEADROOM_SEED is a number"),
    )
}

#[test]
fn ten_million_random_calls_leave_every_page_and_every_byte_in_its_place() {
    const CALLS: usize = if cfg!(miri) { 1_000 } else { 10_000_000 };
    let seed = seed();
    // Printed if the test fails in any way, a panic inside the ledger too.
    eprintln!("HEADROOM_SEED={seed} repeats this run");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::new(POOLS[0]);
    for call in 0..CALLS {
        if call == CALLS / 2 {
            world.finish(seed);
            let met = world.met;
            world = World::new(POOLS[1]);
            world.met = met;
        }
        let op = random_op(&mut rng);
        let result = world.apply(op).and_then(|()| {
            if call % 1000 == 0 {
                world.check()
            } else {
                Ok(())
            }
        });
        if let Err(reason) = result {
            panic!("HEADROOM_SEED={seed}, call {call}, {op:?}: {reason}");
        }
    }
    world.finish(seed);
    let Met {
        no_room,
        full_prompts,
        full_tokens,
        tokens,
        moved,
        cancelled,
        set_aside,
        forked,
        not_forked,
        twins,
        copied,
        parked,
        resumed,
        not_resumed,
    } = world.met;
    let least = [
        no_room,
        full_prompts,
        full_tokens,
        tokens,
        moved,
        cancelled,
        set_aside,
        forked,
        not_forked,
        twins,
        copied,
        parked,
        resumed,
        not_resumed,
    ]
    .into_iter()
    .min();
    assert!(
        least > Some(CALLS / 40_000),
        "HEADROOM_SEED={seed} met too little: {:?}",
        world.met
    );
}

fn any_op() -> impl Strategy<Value = Op> {
    let seq = || 0..3_u8;
    prop_oneof![
        3 => (seq(), 1..30_u8, 0..10_u8, (0..20_u8, 0..12_u8))
            .prop_map(|(seq, tokens, kind, pins)| Op::Reserve { seq, tokens, kind, pins }),
        12 => (seq(), 0..1000_u32).prop_map(|(seq, bits)| Op::Advance { seq, bits }),
        2 => (seq(), 0..1000_u32).prop_map(|(seq, bits)| Op::Observe { seq, bits }),
        2 => (seq(), 0..1000_u32).prop_map(|(seq, bits)| Op::Shrink { seq, bits }),
        1 => seq().prop_map(|seq| Op::Release { seq }),
        1 => (seq(), seq()).prop_map(|(seq, to)| Op::SetAside { seq, to }),
        2 => (seq(), seq(), 0..9_u8).prop_map(|(seq, to, tokens)| Op::Fork { seq, to, tokens }),
        1 => (seq(), seq()).prop_map(|(seq, to)| Op::Twin { seq, to }),
        1 => seq().prop_map(|seq| Op::Park { seq }),
        1 => seq().prop_map(|seq| Op::Misuse { seq }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The same calls in short lists, all checks after each, shrunk to the shortest list that fails.
    #[test]
    fn short_lists_of_calls_are_sound(ops in prop::collection::vec(any_op(), 1..120)) {
        let mut world = World::new(POOLS[0]);
        for &op in &ops {
            let result = world.apply(op).and_then(|()| world.check());
            prop_assert_eq!(result, Ok(()), "after {:?}", op);
        }
    }
}
