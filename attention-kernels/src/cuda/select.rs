//! Carrying a plan out.

use kv_core::{KeepPlan, Pins, Verb};

use super::entries::{
    ACROSS_THREADS, EVERY_HEAD, KEEP_THREADS, VERB_COUNTED, VERB_SLOTS, VERB_TOP, VERB_WINDOW,
    narrow,
};
use super::step::bytes;
use super::store::{memory, number};
use super::{Arg, CudaError, Device, Launch, View};

/// What [`keep`] chooses from, and how.
#[derive(Debug)]
pub struct SelectArgs<'a, B> {
    /// The plan.
    pub plan: &'a KeepPlan,
    /// Positions that stay whatever it says.
    pub pins: &'a Pins,
    /// `n`, tokens of the prompt; slot `i` of every head is position `i`.
    pub tokens: usize,
    /// `f32`, `[H, stride]`: higher keeps. Needed where the plan ranks.
    pub scores: Option<View<'a, B>>,
    /// Scores from one head to the next, at least `n`.
    pub stride: usize,
}

/// The slots that each head keeps, `[H][T]`, ascending: to the last one what [`KeepPlan::resolve`] keeps of the same scores.
///
/// # Errors
///
/// [`CudaError::NoScores`], [`CudaError::BufferTooSmall`], [`CudaError::TooMany`], [`CudaError::Device`].
pub fn keep<D: Device>(
    device: &D,
    args: &SelectArgs<'_, D::Buffer>,
) -> Result<Vec<Vec<u32>>, CudaError> {
    let (heads, n) = (args.plan.heads(), args.tokens);
    if heads == 0 || n == 0 {
        return Ok(vec![Vec::new(); heads]);
    }
    let stride = args.stride.max(n);
    number("tokens", heads.saturating_mul(stride))?;
    let scores = match args.scores {
        Some(view) => memory(device, view, heads * stride, 4, "scores")?,
        None if args.plan.verbs().iter().any(Verb::reads_scores) => {
            return Err(CudaError::NoScores);
        }
        None => Arg::Null,
    };
    let program = Program::of(device, args, scores, stride)?;
    let masks = device.uninit(heads * stride)?;
    let slots = device.uninit(4 * heads * stride)?;
    let lens = device.uninit(4 * heads)?;
    let spans: Vec<u32> = args
        .pins
        .spans()
        .iter()
        .flat_map(|&(a, b)| [a, b])
        .collect();
    let span_list = upload(device, &spans)?;
    let verbs = upload(device, &program.verbs)?;
    let given = device.upload(if program.given.is_empty() {
        &[0]
    } else {
        &program.given
    })?;
    let arguments = [
        scores,
        Arg::Memory(&verbs, 0),
        program
            .counts
            .as_ref()
            .map_or(Arg::Null, |buffer| Arg::Memory(buffer, 0)),
        Arg::Memory(&given, 0),
        Arg::Memory(&span_list, 0),
        Arg::Memory(&masks, 0),
        Arg::Memory(&slots, 0),
        Arg::Memory(&lens, 0),
        Arg::U32(narrow(program.verbs.len() / 4)),
        Arg::U32(narrow(spans.len() / 2)),
        Arg::U32(number("tokens", n)?),
        Arg::U32(narrow(stride)),
    ];
    device.launch(&Launch {
        entry: "kv_keep",
        grid: [number("heads", heads)?, 1],
        threads: KEEP_THREADS,
        args: &arguments,
    })?;
    let lens = download(device, &lens, 0, heads)?;
    let kept = lens
        .iter()
        .enumerate()
        .map(|(head, &len)| download(device, &slots, 4 * head * stride, len as usize));
    Ok(kept.collect::<Result<_, _>>()?)
}

/// A plan as the kernel reads it.
struct Program<D: Device> {
    /// Four numbers each.
    verbs: Vec<u32>,
    /// Masks of slots, one byte each.
    given: Vec<u8>,
    /// How many each head keeps, `[H]` for every ranking across heads.
    counts: Option<D::Buffer>,
}

impl<D: Device> Program<D> {
    fn of(
        device: &D,
        args: &SelectArgs<'_, D::Buffer>,
        scores: Arg<'_, D::Buffer>,
        stride: usize,
    ) -> Result<Self, CudaError> {
        let (heads, n) = (args.plan.heads(), args.tokens);
        let across = args.plan.verbs().iter();
        let across = across
            .filter(|verb| matches!(verb, Verb::TopAcrossHeads { .. }))
            .count();
        let mut program = Self {
            verbs: Vec::new(),
            given: Vec::new(),
            counts: match across {
                0 => None,
                many => Some(device.uninit(4 * heads * many)?),
            },
        };
        let mut ranked = 0;
        for verb in args.plan.verbs() {
            let words = match verb {
                Verb::Window {
                    head,
                    sinks,
                    recent,
                } => [VERB_WINDOW, narrow(*head), narrow(*sinks), narrow(*recent)],
                Verb::Top {
                    head,
                    count,
                    recent,
                } => [VERB_TOP, narrow(*head), narrow(*count), narrow(*recent)],
                Verb::Slots { head, slots } => {
                    let slots = slots.iter().map(|&slot| slot as usize);
                    program.slots(*head, slots, n)?
                }
                Verb::TopBy {
                    head,
                    scores,
                    count,
                    recent,
                } => {
                    // Its scores are on the host, and so is the choice.
                    let (ranked, window) = scores.split_at(n - n.min(*recent));
                    let window = ranked.len()..ranked.len() + window.len();
                    let best = kv_core::top(ranked, *count).into_iter();
                    program.slots(*head, best.chain(window), n)?
                }
                Verb::TopAcrossHeads {
                    total,
                    floor_per_head,
                    recent,
                } => {
                    let first = ranked * heads;
                    if let Some(counts) = &program.counts {
                        let others = n - n.min(*recent);
                        let windows = heads * (n - others);
                        let floors = heads * others.min(*floor_per_head);
                        let wanted = total.saturating_sub(windows).saturating_sub(floors);
                        let across = Across {
                            heads,
                            others,
                            stride,
                            floor: *floor_per_head,
                            wanted,
                        };
                        across.launch(device, scores, Arg::Memory(counts, 4 * first))?;
                    }
                    ranked += 1;
                    [VERB_COUNTED, EVERY_HEAD, narrow(first), narrow(*recent)]
                }
            };
            program.verbs.extend(words);
        }
        Ok(program)
    }

    /// Just these of a head's `n` slots.
    fn slots(
        &mut self,
        head: usize,
        slots: impl Iterator<Item = usize>,
        n: usize,
    ) -> Result<[u32; 4], CudaError> {
        let first = self.given.len();
        self.given.resize(first + n, 0);
        for slot in slots {
            if let Some(byte) = self.given[first..].get_mut(slot) {
                *byte = 1;
            }
        }
        Ok([
            VERB_SLOTS,
            narrow(head),
            number("slots of a plan", first)?,
            0,
        ])
    }
}

/// A ranking across the heads of a layer.
struct Across {
    heads: usize,
    others: usize,
    stride: usize,
    floor: usize,
    wanted: usize,
}

impl Across {
    fn launch<D: Device>(
        &self,
        device: &D,
        scores: Arg<'_, D::Buffer>,
        counts: Arg<'_, D::Buffer>,
    ) -> Result<(), CudaError> {
        let limits = device.uninit(8 * self.heads)?;
        let arguments = [
            scores,
            Arg::Memory(&limits, 0),
            counts,
            Arg::U32(narrow(self.heads)),
            Arg::U32(narrow(self.others)),
            Arg::U32(narrow(self.stride)),
            Arg::U32(narrow(self.floor)),
            Arg::U32(narrow(self.wanted)),
        ];
        Ok(device.launch(&Launch {
            entry: "kv_across_heads",
            grid: [1, 1],
            threads: ACROSS_THREADS,
            args: &arguments,
        })?)
    }
}

/// A buffer must hold something.
fn upload<D: Device>(device: &D, words: &[u32]) -> Result<D::Buffer, CudaError> {
    Ok(device.upload(&bytes(if words.is_empty() { &[0] } else { words }))?)
}

fn download<D: Device>(
    device: &D,
    buffer: &D::Buffer,
    offset: usize,
    words: usize,
) -> Result<Vec<u32>, super::DeviceError> {
    let mut bytes = vec![0; 4 * words];
    device.download(buffer, offset, &mut bytes)?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
