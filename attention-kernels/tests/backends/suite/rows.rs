//! The attention row, returned and added to scores.

use attention_kernels::cuda::RowWanted;
use attention_kernels::{KvDtype, oracle};
use kv_core::Reduce;
use rand_chacha::ChaCha8Rng;

use super::attend::{GROUPS, assert_follows, queries, usual_scale};
use super::{Ask, Backend, Decode, Record, Scene, Seen};
use crate::prompts::{BOUND, greatest_terms, worst_error};
use crate::world::{DTYPES, rng};

const REDUCES: [Reduce; 3] = [Reduce::Mean, Reduce::Sum, Reduce::Max];
const LENGTHS: [usize; 7] = [0, 1, 37, 255, 256, 257, 600];

/// What a call gave, the record before it, and the rows that the oracle makes.
pub(crate) struct Run {
    seen: Seen,
    before: Record,
    after: Record,
    want: Vec<Vec<f64>>,
}

pub(crate) fn run<B: Backend>(
    backend: &B,
    rng: &mut ChaCha8Rng,
    scene: &Scene,
    group: usize,
    softcap: Option<f32>,
    row: RowWanted,
) -> Run {
    let (head_dim, dtype) = (scene.layout.head_dim(), scene.dtype);
    let queries = queries(rng, scene.heads.len() * group * head_dim, 3.0, dtype);
    let ask = Ask {
        queries: &queries,
        group,
        scale: usual_scale(head_dim),
        softcap,
        row: Some(row),
    };
    let step = Decode {
        layers: 1,
        heads: &scene.steps(),
        positions: &[(0, false)],
    };
    let mut store = scene.build(backend);
    let before = backend.contents(&store);
    let seen = backend.attend(&mut store, &step, 0, &ask);
    let when = format!("{dtype}, D {head_dim}, G {group}");
    assert_follows(&scene.heads, &ask, dtype, &seen.out, &when);
    let queries = queries.chunks_exact(group * head_dim);
    let want = scene.heads.iter().zip(queries).map(|(head, queries)| {
        let terms = greatest_terms(&head.rows.keys, queries, head_dim, ask.scale);
        assert!(terms <= 16.0, "{terms} is outside the stated bound");
        let keys = &head.rows.keys;
        oracle::attention_row(keys, queries, head_dim, ask.scale, softcap, row.reduce)
    });
    Run {
        seen,
        before,
        after: backend.contents(&store),
        want: want.collect(),
    }
}

fn scene(rng: &mut ChaCha8Rng, turn: usize, dtype: KvDtype) -> Scene {
    let (block, head_dim) = [(16, 64), (8, 80), (32, 128)][turn % 3];
    Scene::random(rng, (block, head_dim), dtype, &LENGTHS)
}

/// Both at once: what is added is just what is returned, and nothing else changes.
pub(crate) fn rows_follow_the_oracle_and_add_to_scores<B: Backend>(backend: &B) {
    let mut rng = rng(0x121);
    let mut turn = 0;
    for dtype in DTYPES {
        for reduce in REDUCES {
            let scene = scene(&mut rng, turn, dtype);
            let row = RowWanted {
                reduce,
                add_to_scores: true,
                returned: true,
            };
            let softcap = [None, Some(5.0)][turn % 2];
            let run = run(backend, &mut rng, &scene, GROUPS[turn % 8], softcap, row);
            run.check(&scene, row);
            turn += 1;
        }
    }
}

impl Run {
    /// Returned rows are the oracle's, what is added to scores is just that, and nothing else has changed.
    pub(crate) fn check(&self, scene: &Scene, wanted: RowWanted) {
        let when = format!("{}, {wanted:?}", scene.dtype);
        let mut record = self.before.clone();
        for (index, (head, want)) in scene.heads.iter().zip(&self.want).enumerate() {
            let row = self.seen.rows.as_ref().map(|rows| &rows[index]);
            assert_eq!(row.is_some(), wanted.returned, "{when}");
            if let Some(row) = row {
                let error = worst_error(row, want);
                assert!(error <= BOUND, "{when}: relative error {error:e}");
            }
            for slot in (0..head.len).filter(|_| wanted.add_to_scores) {
                let at = record.in_table(&head.pages, slot);
                let start = f64::from(self.before.scores[at]);
                let off = f64::from(self.after.scores[at]) - start - want[slot];
                assert!(
                    off.abs() <= 1e-6 + BOUND * want[slot],
                    "{when}: off by {off:e}"
                );
                match row {
                    Some(row) => record.scores[at] += row[slot],
                    None => record.scores[at] = self.after.scores[at],
                }
            }
        }
        self.after.assert_is(&record, &when);
    }
}

/// Without the other, either is the same.
pub(crate) fn rows_may_go_to_scores_alone<B: Backend>(backend: &B) {
    for (add_to_scores, returned) in [(true, false), (false, true), (false, false)] {
        // The same draw each time.
        let mut rng = rng(0x122);
        let scene = scene(&mut rng, 1, KvDtype::F16);
        let row = |add_to_scores, returned| RowWanted {
            reduce: Reduce::Sum,
            add_to_scores,
            returned,
        };
        let mut again = rng.clone();
        let both = run(backend, &mut rng, &scene, 3, None, row(true, true));
        let one = run(
            backend,
            &mut again,
            &scene,
            3,
            None,
            row(add_to_scores, returned),
        );
        assert_eq!(one.seen.out, both.seen.out);
        assert_eq!(one.seen.rows, both.seen.rows.filter(|_| returned));
        let want = if add_to_scores {
            both.after
        } else {
            both.before
        };
        one.after.assert_is(
            &want,
            &format!("added {add_to_scores}, returned {returned}"),
        );
    }
}
