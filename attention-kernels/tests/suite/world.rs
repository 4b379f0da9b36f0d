//! A store with a record beside it of what was written, so that no expectation is ever read back from the store.

use std::fmt;
use std::sync::OnceLock;

use attention_kernels::{
    AttendArgs, HeadSlots, KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, oracle, write,
};
use half::{bf16, f16};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) const DTYPES: [KvDtype; 3] = [KvDtype::F32, KvDtype::F16, KvDtype::Bf16];

/// Bound on the error of one query's output, relative to the size that `oracle::attend` measures it against.
pub(crate) const BOUND: f64 = 1e-5;

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("HEADROOM_SEED") {
        Ok(seed) => seed.parse().expect("HEADROOM_SEED must be a number"),
        Err(_) => rand::random(),
    })
}

/// A generator for one test. Prints the seed if the test panics while it lives.
pub(crate) struct SeededRng(ChaCha8Rng);

/// The generator of the test `salt`, a number that no other test of this suite uses.
pub(crate) fn rng(salt: u64) -> SeededRng {
    SeededRng(ChaCha8Rng::seed_from_u64(seed() ^ salt))
}

impl std::ops::Deref for SeededRng {
    type Target = ChaCha8Rng;
    fn deref(&self) -> &ChaCha8Rng {
        &self.0
    }
}

impl std::ops::DerefMut for SeededRng {
    fn deref_mut(&mut self) -> &mut ChaCha8Rng {
        &mut self.0
    }
}

impl Drop for SeededRng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with HEADROOM_SEED={}", seed());
        }
    }
}

/// Runs a property over `cases` cases drawn from this run's seed, and shrinks what fails.
pub(crate) fn check<S: Strategy>(
    salt: u64,
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) where
    S::Value: fmt::Debug,
{
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let bytes: [u8; 32] = rng(salt).random();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(strategy, property) {
        panic!("{error}\nrepeat with HEADROOM_SEED={}", seed());
    }
}

/// Rows of one head as they are in memory, that is rounded.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl Rows {
    /// `tokens` rows between -1 and 1, as a store of `dtype` holds them.
    pub(crate) fn random(
        rng: &mut ChaCha8Rng,
        tokens: usize,
        head_dim: usize,
        dtype: KvDtype,
    ) -> Self {
        let mut numbers = || {
            let number = |_| stored(rng.random_range(-1.0..1.0), dtype);
            (0..tokens * head_dim).map(number).collect()
        };
        Self {
            keys: numbers(),
            values: numbers(),
        }
    }

    /// The same rows in another order.
    pub(crate) fn permuted(&self, order: &[usize], head_dim: usize) -> Self {
        let permute = |rows: &[f32]| {
            let row = |&row: &usize| rows[row * head_dim..(row + 1) * head_dim].to_vec();
            order.iter().flat_map(row).collect()
        };
        Self {
            keys: permute(&self.keys),
            values: permute(&self.values),
        }
    }
}

/// What a store of `dtype` makes of a number.
pub(crate) fn stored(number: f32, dtype: KvDtype) -> f32 {
    match dtype {
        KvDtype::F32 => number,
        KvDtype::F16 => f16::from_f32(number).to_f32(),
        KvDtype::Bf16 => bf16::from_f32(number).to_f32(),
        other => panic!("nobody said how {other} rounds"),
    }
}

/// A head of a [`World`]: its table, with pages in reserve at the end, and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) pages: Vec<u32>,
    pub(crate) rows: Rows,
    pub(crate) len: usize,
}

impl Head {
    pub(crate) fn slots(&self) -> HeadSlots<'_> {
        HeadSlots {
            pages: &self.pages,
            len: self.len,
        }
    }
}

/// A store whose every unused slot, in tables, in reserve and in free pages, is NaN.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: PageStore,
    pub(crate) heads: Vec<Head>,
}

impl World {
    /// Puts `heads` into pages drawn at random.
    pub(crate) fn new(
        rng: &mut ChaCha8Rng,
        layout: PageLayout,
        dtype: KvDtype,
        heads: &[Rows],
    ) -> Self {
        let head_dim = layout.head_dim();
        let lengths: Vec<usize> = heads
            .iter()
            .map(|rows| rows.keys.len() / head_dim)
            .collect();
        let tables: Vec<usize> = lengths
            .iter()
            .map(|&len| layout.pages_for(len) + rng.random_range(0..2))
            .collect();
        let pages = tables.iter().sum::<usize>() + 3;
        let store = PageStore::new(layout, dtype, pages).expect("a small store");
        let mut numbers: Vec<u32> = (0..u32::try_from(pages).expect("few pages")).collect();
        numbers.shuffle(rng);

        let mut world = Self {
            store,
            heads: Vec::new(),
        };
        for &page in &numbers {
            world.fill(page, f32::NAN);
        }
        let mut numbers = &numbers[..];
        for ((rows, len), pages) in heads.iter().zip(lengths).zip(tables) {
            let table;
            (table, numbers) = numbers.split_at(pages);
            let head = Head {
                pages: table.to_vec(),
                rows: rows.clone(),
                len,
            };
            let slots: Vec<RowWrite> = (0..len)
                .map(|slot| row_write(slot, table, slot, layout.block()))
                .collect();
            let args = WriteArgs {
                keys: &rows.keys,
                values: &rows.values,
                rows: &slots,
            };
            write(&mut world.store, &args).expect("slots in range");
            world.heads.push(head);
        }
        world
    }

    fn fill(&mut self, page: u32, number: f32) {
        let layout = self.store.layout();
        let row = vec![number; layout.head_dim()];
        let rows: Vec<RowWrite> = (0..layout.block())
            .map(|slot| row_write(0, &[page], slot, layout.block()))
            .collect();
        let args = WriteArgs {
            keys: &row,
            values: &row,
            rows: &rows,
        };
        write(&mut self.store, &args).expect("a page of the store");
    }

    pub(crate) fn slots(&self) -> Vec<HeadSlots<'_>> {
        self.heads.iter().map(Head::slots).collect()
    }
}

/// Source row `source` into slot `slot` of a table.
pub(crate) fn row_write(source: usize, table: &[u32], slot: usize, block: usize) -> RowWrite {
    RowWrite {
        source,
        page: table[slot / block],
        offset: u32::try_from(slot % block).expect("small"),
    }
}

/// `[heads, G, D]` between -`magnitude` and `magnitude`.
pub(crate) fn random_queries(rng: &mut ChaCha8Rng, elements: usize, magnitude: f32) -> Vec<f32> {
    let number = |_| rng.random_range(-magnitude..magnitude);
    (0..elements).map(number).collect()
}

/// The worst relative error of a query of a call, and the largest score that the call met.
pub(crate) fn worst_error(args: &AttendArgs<'_>, heads: &[Head], out: &[f32]) -> (f64, f64) {
    let mut worst = (0.0_f64, 0.0_f64);
    let head_dim = args.queries.len() / (heads.len() * args.group);
    let queries = args.queries.chunks_exact(head_dim);
    for (index, (query, got)) in queries.zip(out.chunks_exact(head_dim)).enumerate() {
        let Rows { keys, values } = &heads[index / args.group].rows;
        let want = oracle::attend(keys, values, query, args.scale, args.softcap);
        let scores = oracle::scores(keys, query, args.scale, args.softcap);
        worst.0 = worst.0.max(relative_error(got, &want, values));
        worst.1 = scores
            .iter()
            .fold(worst.1, |max, score| max.max(score.abs()));
    }
    worst
}

/// `||got - want|| / max(||want||, max_t ||v_t|| / 10)`. Infinite where a zero is missed or a number is not finite.
pub(crate) fn relative_error(got: &[f32], want: &[f64], values: &[f32]) -> f64 {
    let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(
        &mut got
            .iter()
            .zip(want)
            .map(|(&got, want)| f64::from(got) - want),
    );
    let rows = values.chunks_exact(want.len());
    let size = rows
        .map(|value| norm(&mut value.iter().map(|&v| f64::from(v))) / 10.0)
        .fold(norm(&mut want.iter().copied()), f64::max);
    if off == 0.0 {
        0.0
    } else if off.is_finite() && size > 0.0 {
        off / size
    } else {
        f64::INFINITY
    }
}

pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Runs `run` a few times with each of several numbers of threads.
pub(crate) fn on_threads<R: Send>(run: impl Fn() -> R + Sync) -> Vec<R> {
    let results = [1, 2, 3].into_iter().flat_map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().expect("a thread pool");
        // More than once, since threads meet the work in another order every time.
        let results: Vec<R> = (0..3).map(|_| pool.install(&run)).collect();
        results
    });
    results.collect()
}
