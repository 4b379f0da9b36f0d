//! Cases that are changed before they are run.
mod files;

use serde_json::json;

use crate::{Outcome, Verdict, npy::Array};

use files::{Files, npy};

#[test]
fn one_bit_is_a_difference() {
    // SnapKV and Ada-KV of kvpress, the factory's pyramid (which ties) and H2O, H2O while decoding; then what policies rank
    // themselves: KNorm, KeyDiff, expected attention (which all let go of the newest) and CriticalKV over SnapKV.
    let steps = [(13, 1), (17, 1), (126, 1), (129, 1), (203, 49)];
    for (id, steps) in steps.into_iter().chain([40, 61, 69, 80].map(|id| (id, 1))) {
        let array = format!("c{id:03}_keep");
        let (layers, heads, tokens) = (2, 4, 96);
        for layer in 0..layers {
            for bit in [0, 17, 40, tokens - 1] {
                let mut files = Files::of(&[id]);
                // The last head of the layer's last mask.
                let row = ((layer + 1) * steps - 1) * heads + heads - 1;
                files.flip(&array, &[row * tokens + bit]);
                let outcome = files.only();
                assert_eq!(outcome.verdict, Verdict::Differs, "bit {bit}: {outcome}");
                assert!(
                    outcome.detail.contains(&format!("layer {layer}")),
                    "{outcome}"
                );
                assert!(outcome.detail.contains("head 3: we keep"), "{outcome}");
            }
        }
    }
}

/// As many tokens as before, but not the best ones: no tie.
#[test]
fn another_token_for_one_that_is_kept_is_a_difference() {
    for id in [13, 17, 32, 80] {
        let mut files = Files::of(&[id]);
        let array = format!("c{id:03}_keep");
        let mask: Array<u8> = Array::parse(&files.arrays[&array]).expect("a mask");
        let is_kept = |bit: &usize| mask.values[bit / 8] & (0x80 >> (bit % 8)) != 0;
        // The first head's scored tokens, and the second's, with which Ada-KV's first head competes.
        for head in [0, 1] {
            let bits = || head * 96..head * 96 + 64;
            let (gone, kept): (Vec<_>, Vec<_>) = (
                bits().filter(|bit| !is_kept(bit)).collect(),
                (0..64).filter(is_kept).collect(),
            );
            for (&gone, &kept) in gone.iter().zip(&kept) {
                files.flip(&array, &[gone, kept]);
                let outcome = files.only();
                assert_eq!(outcome.verdict, Verdict::Differs, "{outcome}");
                files.flip(&array, &[gone, kept]);
            }
        }
        assert_eq!(files.only().verdict, Verdict::Equal);
    }
}

#[test]
fn arrays_may_stand_layer_by_layer() {
    let ids = [0, 13, 17, 37, 116, 126, 130, 203, 33, 40, 49, 69, 81];
    let mut files = Files::of(&ids);
    let stacked = files.run().expect("a report");
    files.unstack(&[0, 1]);
    assert_eq!(files.run().expect("a report"), stacked);
    assert_eq!(
        (stacked.passed(), stacked.failed()),
        (ids.len() - 2, 0),
        "{stacked}"
    );
}

#[test]
fn layers_without_arrays_are_left_out() {
    let mut files = Files::of(&[0, 13, 203]);
    files.unstack(&[3, 17]);
    for array in ["c000_keep", "c013_keep", "c203_keep"] {
        files.spread(array, 30, &[3, 17]);
    }
    let report = files.run().expect("a report");
    let details: Vec<&str> = report.outcomes.iter().map(|o| o.detail.as_str()).collect();
    let some = "2 of 30 layers compared: the others have no arrays";
    // What observes nothing needs no arrays.
    assert_eq!(details, ["", some, some]);
    assert_eq!(report.passed(), 3, "{report}");

    // A mask of layers 0 and 1, arrays of others.
    let mut files = Files::of(&[0, 13, 203]);
    files.unstack(&[3, 17]);
    let report = files.run().expect("a report");
    let verdicts: Vec<Verdict> = report.outcomes.iter().map(|o| o.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Equal, Verdict::Unsupported, Verdict::Unsupported]
    );
    assert_eq!(report.outcomes[1].detail, "none of its layers has arrays");
}

#[test]
fn what_is_wrong_with_the_arrays_is_said() {
    let mut files = Files::of(&[13]);
    files.arrays.remove("o_proj_weight");
    files.arrays.remove("k");
    assert_eq!(files.error(), "arrays.npz: array `k`: is missing");
    files.arrays.remove("q");
    assert_eq!(
        files.error(),
        "arrays.npz: array `q`: is missing, and so are `L0_q`, `L1_q` and so on"
    );
    files
        .arrays
        .insert("L4_q".into(), npy("<f4", &[2, 1, 1], &[0; 8]));
    assert_eq!(files.error(), "arrays.npz: array `L4_k`: is missing");
    files
        .arrays
        .insert("L4_k".into(), npy("<f4", &[3, 1, 1], &[0; 12]));
    assert_eq!(
        files.error(),
        "arrays.npz: array `L4_k`: a layer's shape is [3, 1, 1], which does not go with queries of [2, 1, 1]"
    );
    files
        .arrays
        .insert("L4_k".into(), npy("<f4", &[1, 1, 1], &[0; 4]));
    assert_eq!(
        files.error(),
        "case.json: case 13: `shape` names 4 heads, the arrays have 1"
    );
}

#[test]
fn what_is_wrong_with_a_mask_is_said() {
    let mut files = Files::of(&[13]);
    files.arrays.remove("c013_keep");
    assert_eq!(files.error(), "arrays.npz: array `c013_keep`: is missing");
    files
        .arrays
        .insert("c013_keep".into(), npy("|u1", &[2, 4, 11], &[0; 88]));
    assert_eq!(
        files.error(),
        "arrays.npz: array `c013_keep`: its shape is [2, 4, 11], not [2, 4, 12] for a mask of [2, 4, 96]"
    );
    files.cases[0]["shape"] = json!([2, 0, 96]);
    assert_eq!(files.error(), "case.json: case 13: `shape` is [2, 0, 96]");
    files.cases[0]["shape"] = json!([96]);
    assert_eq!(
        files.error(),
        "case.json: case 13: `shape` is [96], not [layers, heads, tokens]"
    );
    let mut files = Files::of(&[203]);
    files.cases[0]["params"]["prefill"] = 49.into();
    assert_eq!(
        files.error(),
        "case.json: case 203: a prompt of 49 tokens and 49 masks do not fit 96 tokens"
    );
}

#[test]
fn what_a_policy_reads_and_a_file_lacks_is_named() {
    // Expected attention without and with its norms, and CriticalKV.
    let reasons = |lacks: fn(&mut Files)| {
        let mut files = Files::of(&[69, 77, 81]);
        lacks(&mut files);
        let outcomes = files.run().expect("a report").outcomes;
        let reason = |outcome: Outcome| match outcome.verdict {
            Verdict::Unsupported => outcome.detail,
            verdict => verdict.to_string(),
        };
        outcomes.into_iter().map(reason).collect::<Vec<_>>()
    };
    let no_values = "the file has no values (`v`) of a layer";
    let without_values = |files: &mut Files| {
        files.arrays.remove("v").expect("values");
    };
    assert_eq!(reasons(without_values), [no_values, "equal", no_values]);
    let without_projection = |files: &mut Files| {
        files.arrays.remove("o_proj_weight").expect("a projection");
    };
    let no_projection = "the file has no output projection (`o_proj_weight`) of a layer";
    assert_eq!(
        reasons(without_projection),
        ["equal", "equal", no_projection]
    );
    let no_base = "the case file's `meta` has no `rope_theta`, which the policy reads";
    assert_eq!(
        reasons(|files| files.meta = json!({})),
        [no_base, no_base, "equal"]
    );
}

/// Another base turns the queries to other positions.
#[test]
fn the_base_of_the_rotation_is_that_of_the_file() {
    let mut files = Files::of(&[69]);
    assert_eq!(files.only().verdict, Verdict::Equal);
    files.meta = json!({"rope_theta": 500.0});
    assert_eq!(files.only().verdict, Verdict::Differs);
    files.meta = json!({"rope_theta": 0.0});
    assert_eq!(
        files.error(),
        "case.json: `rope_theta` is 0, must be a number above 0"
    );
}

#[test]
fn what_is_wrong_with_values_and_projections_is_said() {
    let mut files = Files::of(&[81]);
    let projection = npy("<f4", &[2, 3, 127], &[0; 4 * 2 * 3 * 127]);
    files.arrays.insert("o_proj_weight".into(), projection);
    assert_eq!(
        files.error(),
        "arrays.npz: array `o_proj_weight`: a layer's shape is [3, 127], not [M, 128]"
    );
    files
        .arrays
        .insert("v".into(), npy("<f4", &[1, 1], &[0; 4]));
    assert_eq!(
        files.error(),
        "arrays.npz: array `v`: its shape is [1, 1], not [2, 4, 96, 16] as that of the keys"
    );
}

/// `LagKV`'s own scores are equal for all tokens that it does not rank: the reference takes any of them.
#[test]
fn ties_are_known_by_the_references_scores() {
    let tied = Files::of(&[49]);
    assert_eq!(tied.only().verdict, Verdict::Tied);
    let mut files = Files::of(&[49]);
    files.arrays.remove("c049_score").expect("scores");
    assert_eq!(files.only().verdict, Verdict::Differs);
    // For some layers of a model.
    let mut files = Files::of(&[49]);
    files.unstack(&[3, 17]);
    files.spread("c049_keep", 30, &[3, 17]);
    assert_eq!(files.only().verdict, Verdict::Differs, "of which layers?");
    files.meta["score_layers"] = json!([3, 17]);
    assert_eq!(files.only().verdict, Verdict::Tied);
    files.meta["score_layers"] = json!([4, 17]);
    assert_eq!(files.only().verdict, Verdict::Differs);
    files.cases[0]["score_layers"] = json!([3, 17]);
    assert_eq!(files.only().verdict, Verdict::Tied, "the case knows better");
    files.meta["score_layers"] = json!([3]);
    files.cases[0]["score_layers"] = json!(null);
    assert_eq!(
        files.error(),
        "arrays.npz: array `c049_score`: its shape is [2, 4, 96], not [1, 4, 96]"
    );
}

/// `KNorm` drops the newest token where its key is long; our plan keeps it in place of the lowest score, and of no other.
#[test]
fn the_newest_token_takes_the_place_of_the_lowest_score() {
    let mut files = Files::of(&[41]);
    let sound = files.only();
    assert_eq!(
        (sound.verdict, sound.detail.as_str()),
        (
            Verdict::Equal,
            "the plan keeps the newest token in place of the lowest score, in 3 rows"
        )
    );
    let mask: Array<u8> = Array::parse(&files.arrays["c041_keep"]).expect("a mask");
    let is_kept = |bit: &usize| mask.values[bit / 8] & (0x80 >> (bit % 8)) != 0;
    let lacks_newest = |head: &usize| !is_kept(&(head * 96 + 95));
    let head = (0..8).find(lacks_newest).expect("such a head");
    let gone: Vec<usize> = (head * 96..head * 96 + 95)
        .filter(|bit| !is_kept(bit))
        .collect();
    let kept: Vec<usize> = (head * 96..head * 96 + 95).filter(is_kept).collect();
    for (&gone, &kept) in gone.iter().zip(&kept) {
        files.flip("c041_keep", &[gone, kept]);
        assert_eq!(files.only().verdict, Verdict::Differs, "{gone}, {kept}");
        files.flip("c041_keep", &[gone, kept]);
    }
}

/// `floats` in an array of these dimensions.
fn floats(dims: &[usize], numbers: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    npy("<f4", dims, &bytes)
}

/// H2O with two heavy tokens and a recent one, one dimension. Query 1 looks at token 0 alone and all others look everywhere alike, so
/// tokens 1 and 2 have the same score at every step.
fn tie_while_decoding(masks: [u8; 3]) -> Outcome {
    let case = json!({
        "id": 1, "method": "h2o(running,real drop)", "source": "H2O utils_real_drop",
        "params": {"prefill": 3, "hh_size": 2, "recent_size": 1},
        "keep": "keep", "shape": [1, 3, 1, 5], "granularity": "kv_head",
    });
    let arrays = [
        ("q", floats(&[1, 1, 5, 1], &[0.0, 200.0, 0.0, 0.0, 0.0])),
        ("k", floats(&[1, 1, 5, 1], &[1.0, 0.0, 0.0, 0.0, 0.0])),
        ("keep", npy("|u1", &[1, 3, 1, 1], &masks)),
    ];
    Files::made(case, &arrays).only()
}

#[test]
fn ties_while_decoding_are_followed() {
    let ours = tie_while_decoding([0b1110_0000, 0b1101_0000, 0b1100_1000]);
    assert_eq!(ours.verdict, Verdict::Equal, "{ours}");
    // Token 1 goes in place of token 2, and stays away.
    let theirs = tie_while_decoding([0b1110_0000, 0b1011_0000, 0b1010_1000]);
    assert_eq!(theirs.verdict, Verdict::Tied, "{theirs}");
    assert_eq!(
        theirs.detail,
        "2 bits differ, in 1 of 3 rows, where the scores at the cut are equal within 1e-5"
    );
    // It cannot come back, and token 0 is no tie.
    for masks in [
        [0b1110_0000, 0b1011_0000, 0b1100_1000],
        [0b1110_0000, 0b0111_0000, 0b1100_1000],
    ] {
        let outcome = tie_while_decoding(masks);
        assert_eq!(outcome.verdict, Verdict::Differs, "{outcome}");
    }
}
