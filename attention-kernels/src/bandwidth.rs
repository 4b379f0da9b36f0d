//! How fast this machine reads memory: what decode attention is measured against.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use crate::simd::{LANES, Op, Simd, dispatch};

/// Reads `memory` once with `threads` threads, each its share from front to back with the kernels' own loads, and returns bytes per
/// second. For the bandwidth of the memory and not of a cache, pass several times what the caches hold, and take the median or the best of
/// several calls.
///
/// ```
/// let memory = vec![1.0_f32; 1 << 20];
/// let bytes_per_second = attention_kernels::read_bandwidth(&memory, 2);
/// assert!(bytes_per_second > 0.0);
/// ```
///
/// # Panics
///
/// Where `threads` is 0.
#[must_use]
pub fn read_bandwidth(memory: &[f32], threads: usize) -> f64 {
    assert!(threads > 0, "no thread to read with");
    let share = memory
        .len()
        .div_ceil(threads)
        .next_multiple_of(LANES)
        .max(LANES);
    let start = Instant::now();
    thread::scope(|scope| {
        let mut shares = memory.chunks(share);
        let first = shares.next().unwrap_or_default();
        for share in shares {
            scope.spawn(|| black_box(dispatch(Sum(share))));
        }
        black_box(dispatch(Sum(first)));
    });
    size_of_val(memory) as f64 / start.elapsed().as_secs_f64()
}

/// The sum of all numbers, which cannot be had without reading them.
struct Sum<'a>(&'a [f32]);

impl Op for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        /// Sums that do not wait for each other.
        const SUMS: usize = 8;
        let mut sums = [simd.splat(0.0); SUMS];
        for lines in self.0.chunks_exact(SUMS * LANES) {
            let (sets, _) = lines.as_chunks::<LANES>();
            for (sum, set) in sums.iter_mut().zip(sets) {
                *sum = simd.add(*sum, simd.load(set));
            }
        }
        let mut total = simd.splat(0.0);
        for sum in sums {
            total = simd.add(total, sum);
        }
        simd.sum(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read() {
        let numbers: Vec<f32> = (0..1024_u16).map(f32::from).collect();
        assert_eq!(dispatch(Sum(&numbers)), 1023.0 * 512.0);
    }

    #[test]
    fn any_length_and_number_of_threads() {
        for len in [0, 1, 100, 5000] {
            for threads in 1..5 {
                assert!(read_bandwidth(&vec![0.0; len], threads) >= 0.0);
            }
        }
    }
}
