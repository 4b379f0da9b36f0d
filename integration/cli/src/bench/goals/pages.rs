//! Decode attention over pages, against the same where every head lies in one piece.
use anyhow::Result;
use attention_kernels::PageLayout;
use kv_core::{
    Demand, Geometry, Growth, HeadTable, KeepAll, Kept, Ledger, Needs, Pins, Position, SeqId,
};

use super::{
    Goal, Suite,
    kernel::{GROUP, HEAD_DIM, HEADS, Layer, filled},
    mib,
};
use crate::bench::{measure::median, random::Numbers};

/// Tokens decoded after the prompt: their pages lie apart.
const DECODED: usize = 512;
const SEQ: SeqId = SeqId(1);

pub(super) fn measure(suite: &Suite) -> Result<Vec<Goal>> {
    let sizes = &suite.sizes;
    let tokens = sizes.long + DECODED;
    let geometry = Geometry {
        layers: sizes.layers,
        kv_heads: HEADS,
        group: GROUP,
        head_dim: HEAD_DIM,
        block: suite.engine.block_size,
        element_bytes: 2,
        max_positions: tokens,
    };
    let pages = geometry.full_pages(tokens);
    let store = filled(PageLayout::new(geometry.block, HEAD_DIM)?, pages)?;
    let numbers = (0..pages).map(u32::try_from);
    let in_a_row: Vec<u32> = numbers.collect::<Result<_, _>>()?;
    let handed_out = handed_out(geometry, sizes.long)?;
    let mut shuffled = in_a_row.clone();
    Numbers::new(3).shuffle(&mut shuffled);
    let orders = [&in_a_row, &handed_out, &shuffled];
    let mut layer = Layer::new(&store);
    let mut seconds = [const { Vec::new() }; 3];
    for call in 0..=sizes.calls {
        for (pages, seconds) in orders.iter().zip(&mut seconds) {
            let heads: Vec<&[u32]> = pages.chunks(geometry.head_pages(tokens)).collect();
            let layers = heads.chunks(HEADS);
            let taken = layers.map(|heads| layer.attend(heads, tokens));
            let taken = taken.sum::<Result<f64>>()?;
            if call > 0 {
                seconds.push(taken);
            }
        }
    }
    let [in_a_row, handed_out, shuffled] = seconds.map(median);
    let note = |seconds: f64| {
        format!(
            "{:.2} ms, in one piece {:.2} ms: all {} layers in turn, {:.0} MiB of f16 in pages of {}, medians of {} calls",
            seconds * 1e3,
            in_a_row * 1e3,
            geometry.layers,
            mib(store.bytes()),
            geometry.block,
            sizes.calls
        )
    };
    let goal = |name: &str, seconds: f64| {
        Goal::at_most(name, seconds / in_a_row, 1.03, "times the contiguous time")
            .possible(0.9)
            .note(note(seconds))
    };
    Ok(vec![
        goal("pages-as-the-ledger-hands-them-out", handed_out),
        goal("pages-in-random-order", shuffled),
    ])
}

/// The pages of every head, one head after the other, of a sequence that read a prompt and decoded [`DECODED`] tokens.
fn handed_out(geometry: Geometry, prompt: usize) -> Result<Vec<u32>> {
    let tokens = prompt + DECODED;
    let mut ledger = Ledger::new(geometry, geometry.full_pages(tokens));
    let demand = Demand::new(&KeepAll, &Needs::NONE, &geometry, prompt, usize::MAX);
    ledger.open(SEQ, prompt, demand, &Pins::default())?;
    let all: Vec<u32> = (0..u32::try_from(prompt)?).collect();
    let kept = Kept {
        slots: vec![all; HEADS],
        growth: vec![Growth::Append; HEADS],
        scores: None,
    };
    for layer in 0..geometry.layers {
        ledger.write_prompt(SEQ, layer, prompt, &kept)?;
    }
    for position in prompt..tokens {
        ledger.reserve(SEQ, position + 1)?;
        for layer in 0..geometry.layers {
            ledger.append(SEQ, layer, Position::new(position))?;
        }
    }
    let heads = ledger.sequence(SEQ)?.heads();
    Ok(heads
        .iter()
        .flat_map(HeadTable::page_ids)
        .copied()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_handed_out_once_and_those_of_decoding_lie_apart() {
        let geometry = Geometry {
            layers: 2,
            kv_heads: HEADS,
            group: GROUP,
            head_dim: HEAD_DIM,
            block: 16,
            element_bytes: 2,
            max_positions: 1024,
        };
        let pages = handed_out(geometry, 64).expect("a ledger with room");
        let first: Vec<u32> = pages[..geometry.head_pages(64 + DECODED)].to_vec();
        assert!(first.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 1));
        let mut sorted = pages;
        sorted.sort_unstable();
        let count = geometry.full_pages(64 + DECODED);
        assert_eq!(sorted.len(), count);
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
