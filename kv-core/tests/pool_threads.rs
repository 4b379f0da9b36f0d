//! Guards of one pool in many threads: a page is in one hand at a time, and a promise is kept.
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use kv_core::{PagePool, Pages};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PAGES: usize = 64;
const THREADS: u64 = 4;
const ROUNDS: usize = if cfg!(miri) { 50 } else { 20_000 };

/// Marks pages in use, and panics where one is in use already.
struct Uses(Vec<AtomicUsize>);

impl Uses {
    fn enter(&self, pages: &Pages) {
        for &page in pages.ids() {
            let before = self.0[page as usize].swap(1, Ordering::SeqCst);
            assert_eq!(before, 0, "page {page} is in two hands");
        }
    }

    fn leave(&self, pages: &Pages) {
        let uses = pages.ids().iter().map(|&page| &self.0[page as usize]);
        uses.for_each(|used| used.store(0, Ordering::SeqCst));
    }
}

fn work(pool: &PagePool, uses: &Uses, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut held: Vec<Pages> = Vec::new();
    for round in 0..ROUNDS {
        let wanted = rng.random_range(1..12);
        let mut reservation = pool.reservation();
        if reservation.grow(wanted).is_ok() {
            let taken = rng.random_range(0..=wanted);
            for count in [taken, rng.random_range(0..=wanted - taken)] {
                let mut pages = Pages::default();
                let taken = reservation.take_many(count, &mut pages);
                taken.expect("promised pages are always to be had");
                uses.enter(&pages);
                held.push(pages);
            }
        } else {
            let mut pages = Pages::default();
            if reservation.take_many(1, &mut pages).is_ok() {
                uses.enter(&pages);
                held.push(pages);
            }
        }
        let usage = pool.usage();
        assert!(
            usage.held + usage.promised <= usage.total,
            "seed {seed}, round {round}: {usage:?}"
        );
        let leaving = held.split_off(rng.random_range(0..=held.len()));
        leaving.iter().for_each(|pages| uses.leave(pages));
        match rng.random_range(0..8) {
            0..3 => pool.give_back(leaving),
            3..6 => drop(leaving),
            _ => share_among_threads(leaving),
        }
    }
    held.iter().for_each(|pages| uses.leave(pages));
}

/// Lets another thread drop its share at the same time; whoever is last returns the page.
fn share_among_threads(mut pages: Vec<Pages>) {
    if pages.len() > 2 {
        return; // now and then is enough: a thread costs more than a page
    }
    let others: Vec<Pages> = pages.iter_mut().map(Pages::share).collect();
    thread::scope(|scope| {
        scope.spawn(move || drop(others));
        drop(pages);
    });
}

#[test]
fn a_page_is_in_one_hand_and_a_promise_is_kept() {
    let pool = PagePool::new(PAGES);
    let uses = Uses((0..PAGES).map(|_| AtomicUsize::new(0)).collect());
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (pool, uses) = (&pool, &uses);
            scope.spawn(move || work(pool, uses, seed));
        }
    });
    let usage = pool.usage();
    assert_eq!((usage.held, usage.promised), (0, 0));
    let mut free = pool.free_pages();
    free.sort_unstable();
    assert_eq!(
        free.iter().map(|page| page.index()).collect::<Vec<_>>(),
        (0..PAGES).collect::<Vec<_>>()
    );
}

#[test]
fn a_guard_may_outlive_its_pool_and_end_in_another_thread() {
    let pool = PagePool::new(2);
    let mut reservation = pool.reservation();
    let mut page = Pages::default();
    reservation.take_many(1, &mut page).expect("free");
    let witness = pool.clone();
    drop(pool);
    thread::spawn(move || drop((page, reservation)))
        .join()
        .expect("the thread ends");
    assert_eq!((witness.usage().held, witness.usage().peak), (0, 1));
}

#[test]
fn pages_of_another_pool_are_refused_and_none_is_lost() {
    let (ours, other) = (PagePool::new(2), PagePool::new(2));
    let pages = [&ours, &other].map(|pool| {
        let mut pages = Pages::default();
        let taken = pool.reservation().take_many(1, &mut pages);
        taken.expect("free");
        pages
    });
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ours.give_back(pages)));
    assert!(refused.is_err());
    assert_eq!((ours.usage().held, other.usage().held), (0, 0));
}
