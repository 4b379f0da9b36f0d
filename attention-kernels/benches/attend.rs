//! Decode attention of one sequence against the memory's own speed.
//!
//! Prints, for each element type, length and number of threads: the bytes of K and V that one call reads, how fast it read them, how fast
//! this machine reads memory (measured before and after each row, in the same run), and the share reached. `contiguous` has every head's
//! pages in a row, `paged` scatters them over the store.
//!
//! ```sh
//! cargo bench -p attention-kernels --bench attend
//! ```
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::time::Instant;

use attention_kernels::{
    AttendArgs, HeadSlots, KvDtype, Workspace, attend_into, read_bandwidth, simd_level,
};
use layer::{GROUP, HEAD_DIM, HEADS, Order, numbers, store};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPoolBuilder;

mod layer;

/// Timed calls of a row, of which the median is taken.
const CALLS: usize = 15;

/// Memory that the bandwidth is measured on: many times the caches.
const PROBE_BYTES: usize = 256 << 20;

fn main() {
    // The first argument that is no option of cargo's chooses rows: `f16 8192`.
    let chosen = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let probe = vec![1.0_f32; PROBE_BYTES / 4];
    println!("H={HEADS} G={GROUP} D={HEAD_DIM}, {}", simd_level());
    println!("type  tokens  pages       threads      MiB   GB/s  memory  share");
    for dtype in [KvDtype::F16, KvDtype::Bf16, KvDtype::F32] {
        for tokens in [1 << 10, 1 << 13, 1 << 17] {
            for order in [Order::Contiguous, Order::Paged] {
                if !chosen
                    .as_ref()
                    .is_none_or(|name| format!("{dtype} {tokens} {order}").contains(name.as_str()))
                {
                    continue;
                }
                let (store, tables) = store(dtype, tokens, order, &mut rng);
                let slots = |pages| HeadSlots { pages, len: tokens };
                let heads: Vec<HeadSlots<'_>> = tables.iter().map(|pages| slots(pages)).collect();
                let queries = numbers(&mut rng, HEADS * GROUP * HEAD_DIM);
                let args = AttendArgs {
                    queries: &queries,
                    heads: &heads,
                    group: GROUP,
                    scale: 0.125,
                    softcap: None,
                };
                let bytes = HEADS * tokens * 2 * HEAD_DIM * dtype.size_in_bytes();
                // Short calls are timed together.
                let batch = (PROBE_BYTES / 4 / bytes).max(1);
                for threads in [1, 2] {
                    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
                    let pool = pool.expect("threads");
                    let mut out = vec![0.0; queries.len()];
                    let mut workspace = Workspace::default();
                    let mut call = || {
                        let start = Instant::now();
                        for _ in 0..batch {
                            let done = attend_into(
                                black_box(&store),
                                black_box(&args),
                                &mut workspace,
                                &mut out,
                            );
                            done.expect("a sound call");
                        }
                        (batch * bytes) as f64 / start.elapsed().as_secs_f64()
                    };
                    let mut speeds = Vec::new();
                    let mut memory = Vec::new();
                    for _ in 0..CALLS {
                        pool.install(&mut call);
                        speeds.push(pool.install(&mut call));
                        memory.push(read_bandwidth(&probe, threads));
                    }
                    let (speed, memory) = (median(speeds), median(memory));
                    println!(
                        "{dtype:4}  {tokens:6}  {order:10}  {threads:7}  {:7.1}  {:5.1}  {:6.1}  {:4.0}%",
                        bytes as f64 / f64::from(1 << 20),
                        speed / 1e9,
                        memory / 1e9,
                        100.0 * speed / memory
                    );
                }
            }
        }
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
