//! What is promised to layers that share one total is enough for every way to share it out.
//!
//! A failure prints its seed; `HEADROOM_SEED=<seed>` repeats the run.
use std::hash::{BuildHasher, RandomState};

use kv_core::{
    CacheError, Demand, Geometry, Growth, Kept, Pins, Position, Room, SeqId, checker::Replay,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One sequence whose layers share a total.
struct Cascade {
    geometry: Geometry,
    total: usize,
    prompt: usize,
    generated: usize,
    pins: Pins,
}

impl Cascade {
    fn random(rng: &mut impl Rng) -> Self {
        let geometry = Geometry {
            layers: rng.random_range(1..6),
            kv_heads: rng.random_range(1..4),
            group: 1,
            head_dim: 8,
            block: rng.random_range(1..9),
            element_bytes: 4,
            max_positions: 4096,
        };
        let prompt: usize = rng.random_range(1..60);
        let least = geometry.heads();
        let start = rng.random_range(0..50);
        Self {
            geometry,
            // At least the newest token of every head.
            total: rng.random_range(least..=least * prompt),
            prompt,
            generated: rng.random_range(0..20),
            pins: Pins::new(std::iter::once(start..start + rng.random_range(0..5))),
        }
    }

    /// Splits `total` over `heads` heads at random, lopsided now and then: from 1 to `n` for each.
    fn split(&self, total: usize, heads: usize, rng: &mut impl Rng) -> Vec<usize> {
        let mut parts = vec![1; heads];
        let mut left = total - heads;
        for _ in 0..4 * heads {
            let part = &mut parts[rng.random_range(0..heads)];
            let more = rng.random_range(0..=left.min(self.prompt - *part));
            *part += more;
            left -= more;
        }
        parts
    }

    /// Random tokens of those that a head holds by slot, `count` of them with the newest, and its pins besides.
    fn choose(&self, held: &[Position], count: usize, rng: &mut impl Rng) -> Vec<u32> {
        let newest = Position::new(self.prompt - 1);
        let mut left = count.min(held.len()) - 1;
        let mut open = held.len();
        let stays = |(_, position): &(u32, &Position)| {
            open -= 1;
            let is_drawn = rng.random_range(0..=open) < left && **position != newest;
            left -= usize::from(is_drawn);
            is_drawn || **position == newest || self.pins.contains(**position)
        };
        let slots = (0..).zip(held).filter(stays);
        slots.map(|(slot, _)| slot).collect()
    }

    fn kept(&self, slots: Vec<Vec<u32>>) -> Kept {
        let growth = vec![Growth::Append; slots.len()];
        let scores = None;
        Kept {
            slots,
            growth,
            scores,
        }
    }

    /// Runs it through a pool of just the pages that it is promised.
    fn run(&self, rng: &mut impl Rng) -> Result<(), CacheError> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        let demand = Demand {
            rooms: vec![Room::Each(self.prompt); layers],
            together: Some(self.total),
            appends: true,
            prompt: self.prompt,
        };
        let longest = self.prompt + self.generated;
        let pinned = self.pins.count_below(longest);
        let pages = demand.pages(&self.geometry, longest, pinned);
        let mut replay = Replay::new(self.geometry, pages);
        let seq = SeqId(0);
        replay.open(seq, longest, demand, &self.pins)?;
        let all: Vec<Position> = (0..self.prompt).map(Position::new).collect();
        for layer in 0..layers {
            let shares = self.split(self.total, (layer + 1) * kv_heads, rng);
            for earlier in 0..layer {
                let mut slots = Vec::new();
                for head in 0..kv_heads {
                    let held = replay.ledger().head(seq, earlier, head)?.positions();
                    slots.push(self.choose(held, shares[earlier * kv_heads + head], rng));
                }
                replay.shrink(seq, earlier, &self.kept(slots))?;
                replay.check().expect("sound after a layer has shrunk");
            }
            let own = &shares[layer * kv_heads..];
            let slots = own.iter().map(|&count| self.choose(&all, count, rng));
            replay.write_prompt(seq, layer, self.prompt, &self.kept(slots.collect()))?;
            replay.check().expect("sound after a prompt");
        }
        for position in self.prompt..longest {
            for layer in 0..layers {
                replay.append(seq, layer, Position::new(position))?;
            }
        }
        replay.check().expect("sound at the end");
        Ok(())
    }
}

#[test]
fn every_split_of_a_total_is_promised_its_pages() {
    let fresh = || RandomState::new().hash_one("headroom");
    let seed: u64 = std::env::var("HEADROOM_SEED").map_or_else(
        |_| fresh(),
        |text| text.parse().expect("HEADROOM_SEED is a number"),
    );
    eprintln!("HEADROOM_SEED={seed} repeats this run");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for run in 0..1000 {
        let cascade = Cascade::random(&mut rng);
        let result = cascade.run(&mut rng);
        assert_eq!(
            result,
            Ok(()),
            "run {run}: a total of {} over {:?}, a prompt of {}, {} generated, pins {:?}",
            cascade.total,
            cascade.geometry,
            cascade.prompt,
            cascade.generated,
            cascade.pins
        );
    }
}
