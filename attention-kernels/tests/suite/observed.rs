//! The attention rows of decode steps against the oracle.

use attention_kernels::attend::CHUNK_TOKENS;
use attention_kernels::{
    AttendArgs, PageLayout, Workspace, attend_observed, attend_observed_into, oracle,
};
use kv_core::Reduce;

use crate::prompts::{BOUND, greatest_terms, worst_error};
use crate::world::{DTYPES, Rows, World, random_queries, rng};

const REDUCES: [Reduce; 3] = [Reduce::Mean, Reduce::Sum, Reduce::Max];

/// Lengths around none, one, two and more chunks.
const LENGTHS: [usize; 8] = [
    0,
    1,
    37,
    CHUNK_TOKENS - 1,
    CHUNK_TOKENS,
    CHUNK_TOKENS + 1,
    2 * CHUNK_TOKENS,
    2 * CHUNK_TOKENS + 9,
];

/// Calls `run` with every dtype and group, with rows that mean something.
fn worlds(salt: u64, magnitude: f32, run: impl Fn(&World, &AttendArgs<'_>)) {
    let mut rng = rng(salt);
    for dtype in DTYPES {
        for (group, head_dim, softcap) in [(1, 17, None), (2, 64, Some(5.0)), (3, 40, None)] {
            let rows: Vec<Rows> = LENGTHS
                .iter()
                .map(|&len| Rows::random(&mut rng, len, head_dim, dtype))
                .collect();
            let layout = PageLayout::new(24, head_dim).expect("a layout");
            let world = World::new(&mut rng, layout, dtype, &rows);
            let elements = LENGTHS.len() * group * head_dim;
            let queries = random_queries(&mut rng, elements, magnitude);
            let args = AttendArgs {
                queries: &queries,
                heads: &world.slots(),
                group,
                scale: (head_dim as f32).sqrt().recip(),
                softcap,
            };
            run(&world, &args);
        }
    }
}

/// The rows that the oracle makes, and the greatest sum of terms of a score.
fn expected(world: &World, args: &AttendArgs<'_>, reduce: Reduce) -> (Vec<f64>, f64) {
    let head_dim = world.store.layout().head_dim();
    let queries = args.queries.chunks_exact(args.group * head_dim);
    let (mut rows, mut terms) = (Vec::new(), 0.0_f64);
    for (head, queries) in world.heads.iter().zip(queries) {
        let keys = &head.rows.keys;
        let row = oracle::attention_row(keys, queries, head_dim, args.scale, args.softcap, reduce);
        rows.extend(row);
        terms = terms.max(greatest_terms(keys, queries, head_dim, args.scale));
    }
    (rows, terms)
}

#[test]
fn rows_follow_the_oracle() {
    worlds(0x51, 3.0, |world, args| {
        for reduce in REDUCES {
            let seen = attend_observed(&world.store, args, reduce).expect("a sound call");
            let (want, terms) = expected(world, args, reduce);
            assert!(terms <= 16.0, "{terms} is outside the stated bound");
            let error = worst_error(&seen.rows, &want);
            assert!(error <= BOUND, "{reduce:?}: relative error {error:e}");
        }
    });
}

/// Chunks of very different highest scores, where a chunk may weigh nothing beside another.
#[test]
fn great_scores_lose_no_more_than_their_own_rounding() {
    worlds(0x52, 200.0, |world, args| {
        let seen = attend_observed(&world.store, args, Reduce::Mean).expect("a sound call");
        let (want, terms) = expected(world, args, Reduce::Mean);
        let (error, bound) = (worst_error(&seen.rows, &want), BOUND * terms / 16.0);
        assert!(error <= bound, "relative error {error:e}, bound {bound:e}");
    });
}

#[test]
fn the_mass_is_that_of_the_group() {
    worlds(0x53, 3.0, |world, args| {
        let mut out = vec![f32::NAN; args.queries.len()];
        let mut rows = vec![f32::NAN; LENGTHS.iter().sum()];
        attend_observed_into(
            &world.store,
            args,
            Reduce::Sum,
            &mut Workspace::default(),
            &mut out,
            &mut rows,
        )
        .expect("a sound call");
        let mut rows = &rows[..];
        for len in LENGTHS {
            let row;
            (row, rows) = rows.split_at(len);
            let mass: f64 = row.iter().copied().map(f64::from).sum();
            let want = if len == 0 { 0.0 } else { args.group as f64 };
            assert!((mass - want).abs() <= BOUND * want, "T {len}: {mass}");
        }
    });
}
