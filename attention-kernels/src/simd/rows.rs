//! Rows of `D` numbers against a few queries: the loops of decode attention.
//!
//! A tile of rows and of queries is worked on at once, as many as the registers hold: a row is loaded once for all its queries and a
//! query once for all its rows. No result depends on how rows fall into tiles.
use super::{LANES, Simd};
use crate::Element;

/// Queries of a tile.
const QUERIES: usize = 4;
/// Sets of lanes of a row that are summed at once.
const COLUMNS: usize = 4;

/// Rows to work on, `[R, D]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, E> {
    pub(crate) rows: &'a [E],
    /// Rows that will be worked on later, at most as many, to be asked for meanwhile.
    pub(crate) ahead: &'a [E],
}

impl<'a, E> From<&'a [E]> for Rows<'a, E> {
    #[inline(always)]
    fn from(rows: &'a [E]) -> Self {
        Self { rows, ahead: &[] }
    }
}

/// Asks for the cache lines of some elements.
#[inline(always)]
fn ask<S: Simd, E: Element>(simd: S, elements: &[E]) {
    const LINE_BYTES: usize = 64;
    let mut at = 0;
    while at < elements.len() {
        simd.prefetch(&elements[at]);
        at += LINE_BYTES / size_of::<E>();
    }
}

/// Where dot products go: that of query `g` and row `r` to `scores[g * stride + at + r]`.
pub(crate) struct Scores<'a> {
    pub(crate) scores: &'a mut [f32],
    pub(crate) stride: usize,
    pub(crate) at: usize,
}

impl Scores<'_> {
    #[inline(always)]
    fn put<const R: usize>(&mut self, query: usize, row: usize, dots: [f32; R]) {
        let start = query * self.stride + self.at + row;
        self.scores[start..start + R].copy_from_slice(&dots);
    }
}

/// Dot products of all `queries` (`[G, D]`) with all `rows` (`[R, D]`). Rows that will be wanted later, `ahead`, are asked for on the way,
/// a few at a time: a core can wait for some two dozen cache lines at once, and stands still when it is to wait for more.
#[inline(always)]
pub(crate) fn score_rows<S: Simd, E: Element>(
    simd: S,
    rows: Rows<'_, E>,
    queries: &[f32],
    head_dim: usize,
    scores: &mut Scores<'_>,
) {
    let mut rows = rows;
    for (block, queries) in queries.chunks(QUERIES * head_dim).enumerate() {
        let first = block * QUERIES;
        match queries.len() / head_dim {
            4 => score_queries::<S, E, 4>(simd, rows, queries, head_dim, first, scores),
            3 => score_queries::<S, E, 3>(simd, rows, queries, head_dim, first, scores),
            2 => score_queries::<S, E, 2>(simd, rows, queries, head_dim, first, scores),
            _ => score_queries::<S, E, 1>(simd, rows, queries, head_dim, first, scores),
        }
        rows.ahead = &[];
    }
    if !head_dim.is_multiple_of(LANES) {
        score_tails(rows.rows, queries, head_dim, scores);
    }
}

/// Adds to the dot products what the numbers beyond the last full set of lanes come to. No usual head has such.
#[cold]
#[inline(never)]
fn score_tails<E: Element>(rows: &[E], queries: &[f32], head_dim: usize, scores: &mut Scores<'_>) {
    let tail = head_dim / LANES * LANES..head_dim;
    let mut wide = [0.0; LANES];
    for (row, numbers) in rows.chunks_exact(head_dim).enumerate() {
        let wide = &mut wide[..tail.len()];
        E::widen(&numbers[tail.clone()], wide);
        for (query, of_query) in queries.chunks_exact(head_dim).enumerate() {
            let products = wide.iter().zip(&of_query[tail.clone()]);
            let dot: f32 = products.map(|(k, q)| k * q).sum();
            scores.scores[query * scores.stride + scores.at + row] += dot;
        }
    }
}

#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "an iterator over the sums of a tile would keep them in memory instead of in registers"
)]
fn score_queries<S: Simd, E: Element, const G: usize>(
    simd: S,
    rows: Rows<'_, E>,
    queries: &[f32],
    head_dim: usize,
    first: usize,
    scores: &mut Scores<'_>,
) {
    let mut row = 0;
    let mut ahead = rows.ahead;
    for rows in rows.rows.chunks(S::ROWS * head_dim) {
        let next;
        (next, ahead) = ahead.split_at(rows.len().min(ahead.len()));
        ask(simd, next);
        match rows.len() / head_dim {
            4 => {
                let dots = dot_tile::<S, E, 4, G>(simd, rows, queries, head_dim);
                for query in 0..G {
                    scores.put(first + query, row, simd.sum_4(dots[query]));
                }
                row += 4;
            }
            2 if S::ROWS == 2 => {
                let dots = dot_tile::<S, E, 2, G>(simd, rows, queries, head_dim);
                for query in 0..G {
                    let ([a, b], zero) = (dots[query], simd.splat(0.0));
                    let [a, b, _, _] = simd.sum_4([a, b, zero, zero]);
                    scores.put(first + query, row, [a, b]);
                }
                row += 2;
            }
            _ => {
                for rows in rows.chunks(head_dim) {
                    let dots = dot_tile::<S, E, 1, G>(simd, rows, queries, head_dim);
                    for query in 0..G {
                        scores.put(first + query, row, [simd.sum(dots[query][0])]);
                    }
                    row += 1;
                }
            }
        }
    }
}

/// Products of `R` rows with `G` queries, summed in lanes; without the numbers beyond the last full set.
#[inline(always)]
fn dot_tile<S: Simd, E: Element, const R: usize, const G: usize>(
    simd: S,
    rows: &[E],
    queries: &[f32],
    head_dim: usize,
) -> [[S::Lanes; R]; G] {
    let sets = head_dim / LANES;
    let mut row_sets: [&[[E; LANES]]; R] = [&[]; R];
    for (row, sets_of_row) in row_sets.iter_mut().enumerate() {
        *sets_of_row = &rows[row * head_dim..][..head_dim].as_chunks().0[..sets];
    }
    let mut query_sets: [&[[f32; LANES]]; G] = [&[]; G];
    for (query, sets_of_query) in query_sets.iter_mut().enumerate() {
        *sets_of_query = &queries[query * head_dim..][..head_dim].as_chunks().0[..sets];
    }
    let mut sums = [[simd.splat(0.0); R]; G];
    for set in 0..sets {
        let mut k = [simd.splat(0.0); R];
        for row in 0..R {
            k[row] = E::load(simd, &row_sets[row][set]);
        }
        for query in 0..G {
            let q = simd.load(&query_sets[query][set]);
            for row in 0..R {
                sums[query][row] = simd.mul_add(k[row], q, sums[query][row]);
            }
        }
    }
    sums
}

/// Weights of rows: that of query `g` for row `r` is `weights[g * stride + at + r]`.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) weights: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) at: usize,
}

/// Adds `weight * row` for every row (`[R, D]`) to the sum of every query (`[G, D]`), row by row in order. `ahead` as in [`score_rows`].
#[inline(always)]
pub(crate) fn add_rows<S: Simd, E: Element>(
    simd: S,
    rows: Rows<'_, E>,
    weights: Weights<'_>,
    sums: &mut [f32],
    head_dim: usize,
) {
    let mut rows = rows;
    for (block, sums) in sums.chunks_mut(QUERIES * head_dim).enumerate() {
        let weights = Weights {
            at: weights.at + block * QUERIES * weights.stride,
            ..weights
        };
        match sums.len() / head_dim {
            4 => add_queries::<S, E, 4>(simd, rows, weights, sums, head_dim),
            3 => add_queries::<S, E, 3>(simd, rows, weights, sums, head_dim),
            2 => add_queries::<S, E, 2>(simd, rows, weights, sums, head_dim),
            _ => add_queries::<S, E, 1>(simd, rows, weights, sums, head_dim),
        }
        rows.ahead = &[];
    }
}

#[inline(always)]
fn add_queries<S: Simd, E: Element, const G: usize>(
    simd: S,
    rows: Rows<'_, E>,
    weights: Weights<'_>,
    sums: &mut [f32],
    head_dim: usize,
) {
    let width = COLUMNS.min(S::ROWS);
    let mut column = 0;
    while column + width * LANES <= head_dim {
        if width == 4 {
            add_columns::<S, E, G, 4>(simd, rows, weights, sums, head_dim, column);
        } else {
            add_columns::<S, E, G, 2>(simd, rows, weights, sums, head_dim, column);
        }
        column += width * LANES;
    }
    while column + LANES <= head_dim {
        add_columns::<S, E, G, 1>(simd, rows, weights, sums, head_dim, column);
        column += LANES;
    }
    if column < head_dim {
        add_tail(rows.rows, weights, sums, head_dim, column);
    }
}

/// As [`add_rows`], for `C` sets of lanes from `column` on.
#[inline(always)]
fn add_columns<S: Simd, E: Element, const G: usize, const C: usize>(
    simd: S,
    Rows { rows, ahead }: Rows<'_, E>,
    weights: Weights<'_>,
    sums: &mut [f32],
    head_dim: usize,
    column: usize,
) {
    let columns = |row: usize| row * head_dim + column..row * head_dim + column + C * LANES;
    let mut totals = [[simd.splat(0.0); C]; G];
    for query in 0..G {
        let sets = sums[columns(query)].as_chunks::<LANES>().0;
        for set in 0..C {
            totals[query][set] = simd.load(&sets[set]);
        }
    }
    let count = rows.len() / head_dim;
    let mut of_query: [&[f32]; G] = [&[]; G];
    for (query, weights_of) in of_query.iter_mut().enumerate() {
        *weights_of = &weights.weights[query * weights.stride + weights.at..][..count];
    }
    for row in 0..count {
        if let Some(next) = ahead.get(columns(row)) {
            ask(simd, next);
        }
        let sets = &rows[columns(row)].as_chunks::<LANES>().0[..C];
        let mut v = [simd.splat(0.0); C];
        for set in 0..C {
            v[set] = E::load(simd, &sets[set]);
        }
        for query in 0..G {
            let weight = simd.splat(of_query[query][row]);
            for set in 0..C {
                totals[query][set] = simd.mul_add(weight, v[set], totals[query][set]);
            }
        }
    }
    for query in 0..G {
        let sets = sums[columns(query)].as_chunks_mut::<LANES>().0;
        for set in 0..C {
            simd.store(totals[query][set], &mut sets[set]);
        }
    }
}

/// As [`add_rows`], for the numbers from `column` on, fewer than there are lanes.
#[cold]
#[inline(never)]
fn add_tail<E: Element>(
    rows: &[E],
    weights: Weights<'_>,
    sums: &mut [f32],
    head_dim: usize,
    column: usize,
) {
    let mut wide = [0.0; LANES];
    for (row, numbers) in rows.chunks_exact(head_dim).enumerate() {
        let wide = &mut wide[..head_dim - column];
        E::widen(&numbers[column..], wide);
        for (query, sums) in sums.chunks_exact_mut(head_dim).enumerate() {
            let weight = weights.weights[query * weights.stride + weights.at + row];
            for (sum, v) in sums[column..].iter_mut().zip(&*wide) {
                *sum += weight * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::simd::{Op, SimdLevel};

    /// A fixed, uneven sequence of numbers between -1 and 1 with no pattern that a wrong stride would survive.
    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(0x4000_0000 | (state >> 9)) - 3.0
        };
        (0..len).map(step).collect()
    }

    struct Score<'a, E> {
        rows: &'a [E],
        queries: &'a [f32],
        head_dim: usize,
        out: &'a mut [f32],
    }

    impl<E: Element> Op for Score<'_, E> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let mut scores = Scores {
                stride: self.rows.len() / self.head_dim + 3,
                at: 2,
                scores: self.out,
            };
            score_rows(
                simd,
                self.rows.into(),
                self.queries,
                self.head_dim,
                &mut scores,
            );
        }
    }

    struct Add<'a, E> {
        rows: &'a [E],
        weights: Weights<'a>,
        head_dim: usize,
        sums: &'a mut [f32],
    }

    impl<E: Element> Op for Add<'_, E> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            add_rows(
                simd,
                self.rows.into(),
                self.weights,
                self.sums,
                self.head_dim,
            );
        }
    }

    fn narrowed<E: Element>(numbers: &[f32], zero: E) -> Vec<E> {
        let mut elements = vec![zero; numbers.len()];
        E::narrow(numbers, &mut elements);
        elements
    }

    fn scores_at_every_shape<E: Element>(zero: E) {
        for level in SimdLevel::here() {
            for head_dim in [1, 2, 15, 16, 17, 31, 32, 33, 48, 64, 80, 96, 100, 128, 130] {
                for (count, group) in [(1, 1), (2, 2), (3, 3), (4, 4), (7, 5), (16, 8), (9, 3)] {
                    let rows = narrowed(&numbers(count * head_dim, 1), zero);
                    let queries = numbers(group * head_dim, 2);
                    let mut wide = vec![0.0; rows.len()];
                    E::widen(&rows, &mut wide);
                    let stride = count + 3;
                    let mut out = vec![f32::NAN; group * stride];
                    level.run(Score {
                        rows: &rows,
                        queries: &queries,
                        head_dim,
                        out: &mut out,
                    });
                    for (query, q) in queries.chunks(head_dim).enumerate() {
                        for (row, k) in wide.chunks(head_dim).enumerate() {
                            let products =
                                k.iter().zip(q).map(|(&k, &q)| f64::from(k) * f64::from(q));
                            let want: f64 = products.sum();
                            let got = out[query * stride + 2 + row];
                            assert!(
                                (f64::from(got) - want).abs() < 1e-5,
                                "{level} D {head_dim} query {query} row {row}: {got} {want}"
                            );
                            let mut alone = [f32::NAN; 4];
                            let one = &rows[row * head_dim..][..head_dim];
                            level.run(Score {
                                rows: one,
                                queries: q,
                                head_dim,
                                out: &mut alone,
                            });
                            assert_eq!(
                                alone[2].to_bits(),
                                got.to_bits(),
                                "{level} D {head_dim}: alone as in a tile"
                            );
                        }
                        assert!(
                            out[query * stride..][..2]
                                .iter()
                                .all(|number| number.is_nan())
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn scores_of_every_type_at_every_shape() {
        scores_at_every_shape(0.0_f32);
        scores_at_every_shape(f16::ZERO);
        scores_at_every_shape(bf16::ZERO);
    }

    fn sums_at_every_shape<E: Element>(zero: E) {
        for level in SimdLevel::here() {
            for head_dim in [1, 15, 16, 17, 32, 48, 64, 80, 96, 100, 128, 130] {
                for (count, group) in [(1, 1), (2, 2), (3, 3), (4, 4), (7, 5), (16, 8)] {
                    let rows = narrowed(&numbers(count * head_dim, 3), zero);
                    let mut wide = vec![0.0; rows.len()];
                    E::widen(&rows, &mut wide);
                    let (stride, at) = (count + 2, 1);
                    let weights = numbers(group * stride, 4);
                    let weights = Weights {
                        weights: &weights,
                        stride,
                        at,
                    };
                    let before = numbers(group * head_dim, 5);
                    let (mut together, mut alone) = (before.clone(), before.clone());
                    level.run(Add {
                        rows: &rows,
                        weights,
                        head_dim,
                        sums: &mut together,
                    });
                    for row in 0..count {
                        let one = &rows[row * head_dim..][..head_dim];
                        let weights = Weights {
                            at: at + row,
                            ..weights
                        };
                        level.run(Add {
                            rows: one,
                            weights,
                            head_dim,
                            sums: &mut alone,
                        });
                    }
                    assert_eq!(together, alone, "{level} D {head_dim}: row by row");
                    for (index, got) in together.iter().enumerate() {
                        let (query, d) = (index / head_dim, index % head_dim);
                        let term = |row| {
                            let weight = weights.weights[query * stride + at + row];
                            f64::from(weight) * f64::from(wide[row * head_dim + d])
                        };
                        let want = f64::from(before[index]) + (0..count).map(term).sum::<f64>();
                        assert!(
                            (f64::from(*got) - want).abs() < 1e-5,
                            "{level} D {head_dim} at {index}: {got} {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sums_of_every_type_at_every_shape() {
        sums_at_every_shape(0.0_f32);
        sums_at_every_shape(f16::ZERO);
        sums_at_every_shape(bf16::ZERO);
    }
}
