//! Pages taken from the pool and given back.
use std::time::Instant;

use anyhow::Result;
use kv_core::{PagePool, Pages};

use super::Goal;
use crate::bench::measure::median;

/// Heads that take pages, each as many as a long prompt fills.
const HEADS: usize = 400;
const EACH: usize = 250;
const ROUNDS: usize = 25;

pub(super) fn measure() -> Result<Vec<Goal>> {
    let pages = HEADS * EACH;
    let pool = PagePool::new(pages);
    // Once before it counts: the first taker maps the memory.
    round(&pool, EACH)?;
    let rounds = |at_once| -> Result<Vec<f64>> {
        let rounds = (0..ROUNDS).map(|_| round(&pool, at_once));
        rounds.collect()
    };
    let (at_once, singly) = (rounds(EACH)?, rounds(1)?);
    let fastest = at_once.iter().copied().fold(f64::INFINITY, f64::min);
    let goal = Goal::at_most(
        "pages-taken-and-given-back",
        median(at_once) * 1e3,
        1.0,
        "ms",
    );
    Ok(vec![goal.note(format!(
        "{pages} pages, for each of {HEADS} heads {EACH} at once; median of {ROUNDS} rounds, the fastest {:.3} ms; every page by \
         itself {:.2} ms",
        fastest * 1e3,
        median(singly) * 1e3
    ))])
}

/// Takes all pages, `at_once` at a time, and gives them back; returns the seconds that it took.
fn round(pool: &PagePool, at_once: usize) -> Result<f64> {
    let mut promise = pool.reservation();
    promise.grow(HEADS * EACH)?;
    let start = Instant::now();
    let mut heads = Vec::with_capacity(HEADS);
    for _ in 0..HEADS {
        let mut pages = Pages::default();
        for _ in 0..EACH / at_once {
            promise.take_many(at_once, &mut pages)?;
        }
        heads.push(pages);
    }
    pool.give_back(heads);
    Ok(start.elapsed().as_secs_f64())
}
