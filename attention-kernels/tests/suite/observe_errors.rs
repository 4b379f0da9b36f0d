//! Every refusal of the observations: the variant, its numbers, its words.

use attention_kernels::{
    AttendArgs, HeadSlots, KernelError, KeyNormsArgs, KvDtype, PageLayout, PageStore, PromptArgs,
    Workspace, attend_observed, attend_observed_into, key_norms, observe_accumulated,
    observe_window,
};
use kv_core::{Pool, Reduce, Reduction};

use crate::errors::assert_says;

/// Two KV heads of two query heads each, five rows of four elements.
const QUERIES: [f32; 80] = [1.0; 80];
const KEYS: [f32; 40] = [1.0; 40];

const SOUND: PromptArgs<'static> = PromptArgs {
    queries: &QUERIES,
    keys: &KEYS,
    rows: 5,
    tokens: 4,
    group: 2,
    head_dim: 4,
    scale: 0.5,
    softcap: Some(30.0),
};

/// The refusal that both ops must share.
fn refused_by_both(args: &PromptArgs<'_>, reduction: Reduction) -> KernelError {
    let error = observe_window(args, 2, reduction).expect_err("a wrong call");
    let other = observe_accumulated(args, reduction).expect_err("a wrong call");
    assert_eq!(error.to_string(), other.to_string());
    error
}

/// The refusal of a sound call with one thing wrong.
fn refused(spoil: impl FnOnce(&mut PromptArgs<'_>)) -> KernelError {
    assert!(observe_window(&SOUND, 2, Reduction::MEAN).is_ok());
    let mut args = SOUND;
    spoil(&mut args);
    refused_by_both(&args, Reduction::MEAN)
}

/// As [`refused`], of what [`key_norms`] checks too.
fn refused_everywhere(spoil: impl FnOnce(&mut PromptArgs<'_>)) -> KernelError {
    let mut norms = None;
    let error = refused(|args| {
        spoil(args);
        norms = Some(key_norms(&KeyNormsArgs::from(&*args)));
    });
    assert_eq!(norms, Some(Err(error.clone())));
    error
}

#[test]
fn head_dim_out_of_range() {
    let error = refused_everywhere(|args| args.head_dim = 0);
    assert_eq!(error, KernelError::HeadDimOutOfRange { head_dim: 0 });
    assert_says(&error, &["at least 1", "got 0"]);
}

#[test]
fn heads_not_whole() {
    for rows in [0, 7, usize::MAX] {
        let error = refused_everywhere(|args| args.rows = rows);
        assert_eq!(
            error,
            KernelError::HeadsNotWhole {
                elements: 40,
                rows,
                head_dim: 4
            }
        );
        assert_says(&error, &["40", &format!("{rows} rows"), "of 4"]);
    }
}

#[test]
fn tokens_out_of_range() {
    let error = refused_everywhere(|args| args.tokens = 6);
    assert_eq!(error, KernelError::TokensOutOfRange { tokens: 6, rows: 5 });
    assert_says(&error, &["6 tokens", "5 rows"]);
}

#[test]
fn group_out_of_range() {
    let error = refused(|args| args.group = 0);
    assert_eq!(error, KernelError::GroupOutOfRange { group: 0 });
}

#[test]
fn prompt_queries_length() {
    for (group, expected) in [(3, 120), (usize::MAX, usize::MAX)] {
        let error = refused(|args| args.group = group);
        assert_eq!(
            error,
            KernelError::PromptQueriesLength {
                elements: 80,
                expected,
                heads: 2,
                group,
                rows: 5,
                head_dim: 4
            }
        );
        assert_says(
            &error,
            &[
                "80",
                "2 heads",
                "5 rows",
                "head dim 4",
                &expected.to_string(),
            ],
        );
    }
}

#[test]
fn scoring_out_of_range() {
    let scale = f32::INFINITY;
    let error = refused(|args| args.scale = scale);
    assert_eq!(error, KernelError::ScaleOutOfRange { scale });
    let error = refused(|args| args.softcap = Some(0.0));
    assert_eq!(error, KernelError::SoftcapOutOfRange { softcap: 0.0 });
}

#[test]
fn pool_width_out_of_range() {
    for width in [0, 2, 8] {
        for pool in [Pool::Average(width), Pool::Max(width)] {
            let reduction = Reduction {
                pool,
                ..Reduction::MEAN
            };
            let error = refused_by_both(&SOUND, reduction);
            assert_eq!(error, KernelError::PoolWidthOutOfRange { width });
            assert_says(&error, &["odd", &format!("got {width}")]);
        }
    }
}

#[test]
fn window_out_of_range() {
    let error = observe_window(&SOUND, 0, Reduction::MEAN).expect_err("an empty window");
    assert_eq!(error, KernelError::WindowOutOfRange { window: 0 });
    assert_says(&error, &["at least 1", "got 0"]);
}

/// A sound step of two heads, its buffers a little wrong.
#[test]
fn a_refused_step_changes_nothing() {
    let layout = PageLayout::new(8, 4).expect("a layout");
    let store = PageStore::new(layout, KvDtype::F32, 2).expect("a small store");
    let heads = [0, 1].map(|page| HeadSlots {
        pages: if page == 0 { &[0] } else { &[1] },
        len: 3 + page,
    });
    let args = AttendArgs {
        queries: &[1.0; 16],
        heads: &heads,
        group: 2,
        scale: 0.5,
        softcap: None,
    };
    let run = |out: usize, rows: usize, args: &AttendArgs<'_>| {
        let (mut out, mut rows) = (vec![7.0; out], vec![7.0; rows]);
        let result = attend_observed_into(
            &store,
            args,
            Reduce::Sum,
            &mut Workspace::default(),
            &mut out,
            &mut rows,
        );
        let unchanged = out.iter().chain(&rows).all(|&number| number == 7.0);
        assert_eq!(unchanged, result.is_err());
        result
    };
    assert_eq!(run(16, 7, &args), Ok(()));
    let error = run(16, 8, &args).expect_err("rows too long");
    assert_eq!(
        error,
        KernelError::RowsLength {
            elements: 8,
            expected: 7
        }
    );
    assert_says(&error, &["8 elements", "7 tokens"]);
    assert_eq!(
        run(15, 7, &args),
        Err(KernelError::OutputLength {
            elements: 15,
            expected: 16
        })
    );
    let wrong = AttendArgs { group: 0, ..args };
    let error = KernelError::GroupOutOfRange { group: 0 };
    assert_eq!(run(16, 7, &wrong), Err(error.clone()));
    assert_eq!(attend_observed(&store, &wrong, Reduce::Sum), Err(error));
}
