//! The engine's own CUDA kernels over head pages.
//!
//! The engine keeps K as `[pages, H, D/x, B, x]` and V as `[pages, H, D, B]`, where `x` elements make 16 bytes. With one KV head
//! per page, `[pages, 1, ..]`, a page belongs to one head of one sequence, and the engine's kernels serve heads as they would serve
//! sequences. These tests run those kernels, from cargo's registry, on the CPU. They are skipped where the sources were never fetched
//! or where there is no C++ compiler.

#[path = "engine/call.rs"]
mod call;
#[path = "engine/program.rs"]
mod program;
#[path = "engine/rewrite.rs"]
mod rewrite;
mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use attention_kernels::oracle;
use call::Call;
use half::{bf16, f16};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use support::{SeededRng, bytes_of};

/// Element types, in the engine's order.
#[derive(Clone, Copy, Debug)]
enum Dtype {
    F16,
    Bf16,
    F32,
}

impl Dtype {
    const ALL: [Self; 3] = [Self::F16, Self::Bf16, Self::F32];

    const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Elements of 16 bytes.
    const fn x(self) -> usize {
        16 / self.size()
    }

    fn encode(self, number: f32) -> Vec<u8> {
        match self {
            Self::F16 => f16::from_f32(number).to_bits().to_ne_bytes().to_vec(),
            Self::Bf16 => bf16::from_f32(number).to_bits().to_ne_bytes().to_vec(),
            Self::F32 => number.to_ne_bytes().to_vec(),
        }
    }

    fn decode(self, bytes: &[u8]) -> f32 {
        let half = || u16::from_ne_bytes(bytes.try_into().expect("2 bytes"));
        match self {
            Self::F16 => f16::from_bits(half()).to_f32(),
            Self::Bf16 => bf16::from_bits(half()).to_f32(),
            Self::F32 => f32::from_ne_bytes(bytes.try_into().expect("4 bytes")),
        }
    }

    fn encode_all(self, numbers: &[f32]) -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|&number| self.encode(number))
            .collect()
    }

    fn decode_all(self, bytes: &[u8]) -> Vec<f32> {
        bytes
            .chunks_exact(self.size())
            .map(|bytes| self.decode(bytes))
            .collect()
    }

    /// How far an element of a result may be off, where values lie between -1 and 1.
    ///
    /// For halves: two units in the last place of 1, not half a unit, for the engine rounds probabilities to the element type too, and
    /// multiplies and sums eight at a time in it.
    const fn bound(self) -> f64 {
        match self {
            Self::F16 => 2.0 / 1024.0,
            Self::Bf16 => 2.0 / 128.0,
            Self::F32 => 1e-5,
        }
    }
}

/// Pages of one head each.
#[derive(Clone, Copy, Debug)]
struct Pages {
    dtype: Dtype,
    head_dim: usize,
    block: usize,
}

impl Pages {
    /// Where element `i` of the key at `offset` of `page` lies in the cache of keys, in elements.
    const fn key(self, page: usize, offset: usize, i: usize) -> usize {
        let x = self.dtype.x();
        page * self.head_dim * self.block + (i / x * self.block + offset) * x + i % x
    }

    /// The same for values.
    const fn value(self, page: usize, offset: usize, i: usize) -> usize {
        page * self.head_dim * self.block + i * self.block + offset
    }

    fn call(self) -> Call {
        let mut call = Call::new();
        call.number("dtype", self.dtype as usize)
            .number("head_dim", self.head_dim)
            .number("block", self.block)
            .number("x", self.dtype.x());
        call
    }
}

fn every_layout() -> impl Iterator<Item = Pages> {
    Dtype::ALL.into_iter().flat_map(|dtype| {
        [(64, 16), (64, 32), (128, 16), (128, 32)].map(|(head_dim, block)| Pages {
            dtype,
            head_dim,
            block,
        })
    })
}

/// The program, built by whichever test comes first; `None` where it cannot be built.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let found = program::find_or_build();
        found.inspect_err(|why| eprintln!("skipped: {why}")).ok()
    };
    PROGRAM.get_or_init(find).as_deref()
}

fn random_numbers(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Puts `rows` of `D` elements into `cache` at the places that `at` gives for (row, element).
fn scatter(
    cache: &mut [u8],
    size: usize,
    rows: &[u8],
    at: impl Fn(usize, usize) -> Option<usize>,
    head_dim: usize,
) {
    for (index, bytes) in rows.chunks_exact(size).enumerate() {
        if let Some(at) = at(index / head_dim, index % head_dim) {
            cache[at * size..(at + 1) * size].copy_from_slice(bytes);
        }
    }
}

/// `reshape_and_cache` over rows `[tokens * H, 1, D]`: each row goes to the slot `page * B + offset`, a row with slot -1 nowhere, and
/// every other byte of the cache stays.
#[test]
fn the_engine_writes_rows_where_we_say() {
    let Some(program) = program() else { return };
    let mut seeded = SeededRng::new();
    for (order, pages) in every_layout().enumerate() {
        let Pages {
            dtype,
            head_dim,
            block,
        } = pages;
        let (count, size) = (5, dtype.size());
        let mut slots: Vec<i64> = (0..).take(count * block).collect();
        slots.shuffle(&mut seeded.rng);
        slots.truncate(2 * block + 3);
        for dropped in [0, 7, block] {
            slots[dropped] = -1;
        }
        let mut random_rows =
            || dtype.encode_all(&random_numbers(&mut seeded.rng, slots.len() * head_dim));
        let rows = [random_rows(), random_rows()];
        let cache_bytes = count * block * head_dim * size;
        let mut random_cache =
            || -> Vec<u8> { (0..cache_bytes).map(|_| seeded.rng.random()).collect() };
        let mut caches = [random_cache(), random_cache()];

        let mut call = pages.call();
        call.number("version", 0)
            .number("order", order % 3)
            .number("rows", slots.len());
        call.buffer("keys", &rows[0])
            .buffer("values", &rows[1])
            .buffer("slots", &bytes_of(&slots));
        call.buffer("key_cache", &caches[0])
            .buffer("value_cache", &caches[1]);
        call.run(program);

        let place = |row: usize| {
            let slot = usize::try_from(slots[row]).ok()?;
            Some((slot / block, slot % block))
        };
        let key = |row, i| place(row).map(|(page, offset)| pages.key(page, offset, i));
        let value = |row, i| place(row).map(|(page, offset)| pages.value(page, offset, i));
        scatter(&mut caches[0], size, &rows[0], key, head_dim);
        scatter(&mut caches[1], size, &rows[1], value, head_dim);
        assert!(call.result("key_cache.out") == caches[0], "keys, {pages:?}");
        assert!(
            call.result("value_cache.out") == caches[1],
            "values, {pages:?}"
        );
    }
}

/// Heads of ragged lengths in shuffled pages, as the engine sees them: as sequences with one KV head.
struct Heads {
    lens: Vec<u32>,
    tables: Vec<u32>,
    table_width: usize,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    key_cache: Vec<u8>,
    value_cache: Vec<u8>,
}

impl Heads {
    fn new(rng: &mut ChaCha8Rng, pages: Pages, lens: &[usize]) -> Self {
        let Pages {
            dtype,
            head_dim,
            block,
        } = pages;
        let table_width = lens
            .iter()
            .map(|len| len.div_ceil(block))
            .max()
            .expect("a head");
        let mut numbers: Vec<usize> = (0..lens.len() * table_width + 2).collect();
        numbers.shuffle(rng);
        // Whatever holds no token is NaN.
        let caches = dtype.encode_all(&vec![f32::NAN; numbers.len() * block * head_dim]);
        let mut heads = Self {
            lens: Vec::new(),
            tables: Vec::new(),
            table_width,
            keys: Vec::new(),
            values: Vec::new(),
            key_cache: caches.clone(),
            value_cache: caches,
        };
        for (&len, table) in lens.iter().zip(numbers.chunks_exact(table_width)) {
            let keys = dtype.encode_all(&random_numbers(rng, len * head_dim));
            let values = dtype.encode_all(&random_numbers(rng, len * head_dim));
            let key = |row: usize, i| Some(pages.key(table[row / block], row % block, i));
            let value = |row: usize, i| Some(pages.value(table[row / block], row % block, i));
            scatter(&mut heads.key_cache, dtype.size(), &keys, key, head_dim);
            scatter(
                &mut heads.value_cache,
                dtype.size(),
                &values,
                value,
                head_dim,
            );
            heads.keys.push(dtype.decode_all(&keys));
            heads.values.push(dtype.decode_all(&values));
            heads.lens.push(u32::try_from(len).expect("small"));
            // Entries behind a head's last page must not be looked at.
            let used = len.div_ceil(block);
            let entries = table.iter().enumerate();
            let entries = entries.map(|(i, &page)| if i < used { page } else { usize::MAX });
            heads
                .tables
                .extend(entries.map(|page| u32::try_from(page).unwrap_or(u32::MAX)));
        }
        heads
    }
}

/// Attention of all heads by the engine against the oracle; the largest error.
fn attend(
    program: &Path,
    rng: &mut ChaCha8Rng,
    pages: Pages,
    (version, group, order): (u8, usize, usize),
    lens: &[usize],
) -> f64 {
    let Pages {
        dtype, head_dim, ..
    } = pages;
    let heads = Heads::new(rng, pages, lens);
    let queries = dtype.encode_all(&random_numbers(rng, lens.len() * group * head_dim));
    let scale = 0.25_f32;
    let mut call = pages.call();
    call.number("version", version)
        .number("order", order)
        .number("heads", lens.len())
        .number("group", group)
        .number("max_len", lens.iter().max().expect("a head"))
        .number("table_width", heads.table_width)
        .number("scale", scale);
    call.buffer("queries", &queries)
        .buffer("key_cache", &heads.key_cache)
        .buffer("value_cache", &heads.value_cache)
        .buffer("tables", &bytes_of(&heads.tables))
        .buffer("lens", &bytes_of(&heads.lens));
    call.run(program);

    let got = dtype.decode_all(&call.result("out"));
    let queries = dtype.decode_all(&queries);
    assert_eq!(got.len(), queries.len());
    let mut worst = 0.0_f64;
    let rows = queries
        .chunks_exact(head_dim)
        .zip(got.chunks_exact(head_dim));
    for (index, (query, got)) in rows.enumerate() {
        let head = index / group;
        let want = oracle::attend(&heads.keys[head], &heads.values[head], query, scale, None);
        for (&got, want) in got.iter().zip(want) {
            let off = (f64::from(got) - want).abs();
            // A NaN is as wrong as can be.
            worst = if off.is_nan() {
                f64::INFINITY
            } else {
                worst.max(off)
            };
        }
    }
    worst
}

fn check_attention(version: u8, lens: impl Fn(usize) -> Vec<usize>) {
    let Some(program) = program() else { return };
    let mut seeded = SeededRng::new();
    for (index, pages) in every_layout().enumerate() {
        for group in [1, 3] {
            let how = (version, group, index % 3);
            let worst = attend(program, &mut seeded.rng, pages, how, &lens(pages.block));
            eprintln!("v{version}, group {group}, {pages:?}: off by at most {worst:.1e}");
            assert!(
                worst <= pages.dtype.bound(),
                "{pages:?}, group {group}: {worst:e}"
            );
        }
    }
}

/// Lengths around the borders of pages, and more pages than the kernel has warps.
#[test]
fn attention_over_head_pages_is_the_oracles() {
    check_attention(1, |block| {
        vec![1, block - 1, block, block + 1, 3 * block, 6 * block + 5]
    });
}

/// The kernel that cuts a sequence into parts of 512 tokens: one part, one token more, and three.
#[test]
fn attention_in_parts_is_the_oracles() {
    check_attention(2, |block| vec![1, block + 1, 512, 513, 1100]);
}
