//! Files of golden prompts: what other people's code kept of many layers.
mod rows;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Golden, setup::written};
use crate::{Budget, PolicyConfig};
use rows::Rows;

/// How far a rank may be off.
const TOLERANCE: f32 = 1e-5;
/// Ranks so close together may stand in another order.
const TIE: f32 = 1e-6;

#[derive(Deserialize)]
#[serde(bound(deserialize = "C: PolicyConfig"))]
struct File<C> {
    cases: Vec<Case<C>>,
    #[serde(flatten)]
    tables: Tables,
}

/// What cases name.
#[derive(Deserialize)]
struct Tables {
    /// Scores of the ranked tokens, `[H][n - w]`.
    #[serde(default)]
    scores: BTreeMap<String, Vec<Vec<f32>>>,
    #[serde(default)]
    rows: BTreeMap<String, Rows>,
    /// `[H][n]`.
    #[serde(default)]
    ranks: BTreeMap<String, Vec<Vec<Option<f32>>>>,
    #[serde(default = "tolerance")]
    tolerance: f32,
}

const fn tolerance() -> f32 {
    TOLERANCE
}

/// One layer of one call.
#[derive(Deserialize)]
#[serde(bound(deserialize = "C: PolicyConfig"))]
struct Case<C> {
    id: String,
    config: C,
    budget: usize,
    prompt: usize,
    layer: usize,
    /// A name in [`Tables::scores`].
    scores: Option<String>,
    /// A name in [`Tables::rows`].
    rows: Option<String>,
    /// A name in [`Tables::ranks`].
    ranks: Option<String>,
    /// Half-open ranges of positions, `[H]`.
    kept: Vec<Vec<(u32, u32)>>,
}

/// What a case calls by name.
fn named<'a, T>(
    table: &'a BTreeMap<String, T>,
    name: Option<&String>,
    what: &str,
) -> Result<Option<&'a T>, String> {
    let find = |name| {
        table
            .get(name)
            .ok_or_else(|| format!("no {what} called {name}"))
    };
    name.map(find).transpose()
}

impl<C: PolicyConfig> Case<C> {
    /// Whether the policy keeps the same tokens, and ranks them alike.
    fn check(self, tables: &Tables) -> Result<(), String> {
        let rows = named(&tables.rows, self.rows.as_ref(), "rows")?;
        let ranks = named(&tables.ranks, self.ranks.as_ref(), "ranks")?;
        let with_window = |ranked: &Vec<f32>| {
            let mut row = ranked.clone();
            row.resize(self.prompt, f32::INFINITY);
            row
        };
        let scores: Vec<Vec<f32>> = named(&tables.scores, self.scores.as_ref(), "scores")?
            .map(|heads| heads.iter().map(with_window).collect())
            .unwrap_or_default();
        let positions = |head: &Vec<(u32, u32)>| -> Vec<u32> {
            head.iter().flat_map(|&(start, end)| start..end).collect()
        };
        let kept: Vec<Vec<u32>> = self.kept.iter().map(positions).collect();
        let golden = Golden {
            budget: Budget::Tokens(self.budget),
            layer: self.layer,
            prompt: self.prompt,
            scores: &scores,
            kept: &kept,
        };
        let text = written(&self.config);
        let found = match rows {
            Some(rows) => rows.show(self.prompt, |rows| golden.found(self.config, Some(rows)))?,
            None => golden.found(self.config, None),
        };
        let found = found.map_err(|failure| failure.to_string())?;
        let fail = |reason| golden.failure::<C>(&text, reason).to_string();
        for (head, expected) in kept.iter().enumerate() {
            let ranks = ranks.map(|ranks| infinite(ranks.get(head)));
            if let Some(ranks) = &ranks {
                let found = found.ranks.as_ref().and_then(|heads| heads.get(head));
                let found = found.ok_or_else(|| fail(format!("does not rank head {head}")))?;
                ranked_alike(found, ranks, tables.tolerance)
                    .map_err(|reason| fail(format!("{reason} of head {head}")))?;
            }
            let slots = &found.kept.slots[head];
            if !kept_alike(slots, expected, ranks.as_deref()) {
                return Err(fail(format!(
                    "keeps {slots:?} of head {head}, not {expected:?}"
                )));
            }
        }
        Ok(())
    }
}

/// A head's expected ranks: nothing is above what is never dropped.
fn infinite(ranks: Option<&Vec<Option<f32>>>) -> Vec<f32> {
    let rank = |rank: &Option<f32>| rank.unwrap_or(f32::INFINITY);
    ranks.into_iter().flatten().map(rank).collect()
}

/// Says which rank is off.
fn ranked_alike(found: &[f32], expected: &[f32], tolerance: f32) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!(
            "ranks {} tokens of {}",
            found.len(),
            expected.len()
        ));
    }
    let finite = expected.iter().filter(|rank| rank.is_finite());
    #[expect(clippy::cast_precision_loss, reason = "a prompt of a test is short")]
    let count = finite.clone().count().max(1) as f32;
    let mean = finite.map(|rank| rank.abs()).sum::<f32>() / count;
    let is_alike = |found: f32, expected: f32| {
        if expected == f32::INFINITY {
            return found == expected;
        }
        (found - expected).abs() <= tolerance * expected.abs().max(mean)
    };
    let pairs = || found.iter().copied().zip(expected.iter().copied());
    match pairs().position(|(found, expected)| !is_alike(found, expected)) {
        Some(token) => {
            let (found, expected) = (found[token], expected[token]);
            Err(format!("ranks token {token} at {found}, not {expected},"))
        }
        None => Ok(()),
    }
}

/// Whether the same tokens are kept; where the cut is between ranks that are all but equal, tokens as good.
fn kept_alike(found: &[u32], expected: &[u32], ranks: Option<&[f32]>) -> bool {
    let Some(ranks) = ranks else {
        return found == expected;
    };
    // The lowest rank that is kept less the highest that is dropped.
    let margin = |kept: &[u32]| {
        let (mut lowest, mut highest) = (f32::INFINITY, f32::NEG_INFINITY);
        for (token, &rank) in (0..).zip(ranks) {
            if kept.contains(&token) {
                lowest = lowest.min(rank);
            } else {
                highest = highest.max(rank);
            }
        }
        lowest - highest
    };
    let is_tied = margin(expected).abs() <= TIE;
    found == expected || (is_tied && found.len() == expected.len() && margin(found) >= -TIE)
}

/// Compares what a policy keeps with every case of a JSON file, and says how many there are.
///
/// The file is a list of `cases`: `id`, `config`, `budget` (tokens per KV head), `prompt`, `layer`, and `kept`, half-open
/// ranges of positions for each head. A case may name an entry of these tables:
///
/// * `scores`: what was observed, `[H][n - w]` (the window of `w` newest tokens is not scored);
/// * `rows`: the prompt, for a policy that reads it: `head_dim`, `group`, `queries` `[H * G][n]`, `keys` and `values`
///   `[H][n]`, each row a text of `D` numbers, the bits of each in eight hexadecimal digits; `output_norms` `[H][n]`, `classes` `[n]`,
///   `softcap`, `scale` (left out, `1 / sqrt(D)`) and `rope_base`, for a rotation in halves. A policy is shown what its needs name;
/// * `ranks`: what [`Scorer`](crate::Scorer) must return, `[H][n]`; `null` is a token that is never dropped. A rank may be off by
///   `tolerance` (of the file; left out, 1e-5) of its magnitude or of the head's mean magnitude. Where the lowest rank
///   that is kept and the highest that is dropped are within 1e-6, other tokens as good may be kept.
///
/// Other fields, such as where it comes from, are for people.
///
/// # Errors
///
/// A line for each case that differs, or why the file cannot be read.
pub fn golden_prompts<C: PolicyConfig>(json: &str) -> Result<usize, String> {
    let File { cases, tables }: File<C> =
        serde_json::from_str(json).map_err(|error| error.to_string())?;
    let count = cases.len();
    let difference = |case: Case<C>| {
        let (id, layer) = (case.id.clone(), case.layer);
        let reason = case.check(&tables).err()?;
        Some(format!("{id}, layer {layer}: {reason}"))
    };
    let differences: Vec<String> = cases.into_iter().filter_map(difference).collect();
    if differences.is_empty() {
        Ok(count)
    } else {
        Err(differences.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, Reads, Scorer,
        schemars::JsonSchema,
    };

    const INF: f32 = f32::INFINITY;

    #[test]
    fn a_rank_may_be_off_by_a_little() {
        let expected = [1.0, -3.0, 0.0, INF];
        assert_eq!(ranked_alike(&expected, &expected, 0.0), Ok(()));
        assert_eq!(ranked_alike(&[1.0, -3.2, 0.1, INF], &expected, 0.1), Ok(()));
        for (token, found) in [
            (0, [1.2, -3.0, 0.0, INF]),
            (1, [1.0, 3.0, 0.0, INF]),
            (2, [1.0, -3.0, f32::NAN, INF]),
            (3, [1.0, -3.0, 0.0, 9.0]),
            (2, [1.0, -3.0, INF, INF]),
        ] {
            let reason = ranked_alike(&found, &expected, 0.1).expect_err("too far off");
            assert!(reason.contains(&format!("token {token} ")), "{reason}");
        }
        assert!(ranked_alike(&[1.0], &expected, 0.1).is_err());
    }

    #[test]
    fn other_tokens_may_stay_only_at_a_tie() {
        let ranks = [0.5, 0.2, 0.2, 0.1, INF];
        assert!(kept_alike(&[0, 1, 4], &[0, 1, 4], None));
        assert!(!kept_alike(&[0, 2, 4], &[0, 1, 4], None));
        assert!(kept_alike(&[0, 2, 4], &[0, 1, 4], Some(&ranks)));
        // Worse, fewer, and not at a tie.
        assert!(!kept_alike(&[0, 3, 4], &[0, 1, 4], Some(&ranks)));
        assert!(!kept_alike(&[0, 4], &[0, 1, 4], Some(&ranks)));
        assert!(!kept_alike(&[1, 4], &[0, 4], Some(&ranks)));
        // What was kept is not what the ranks say: only the very same.
        assert!(!kept_alike(&[0, 4], &[3, 4], Some(&ranks)));
    }

    /// Keeps the token with the largest first number of its key, and the newest.
    #[derive(Debug, Default, serde::Serialize, Deserialize, JsonSchema)]
    struct Largest {}

    impl PolicyConfig for Largest {
        const NAME: &'static str = "largest";
        const SUMMARY: &'static str = "reads keys";
        type Policy = Self;

        fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
            Ok(self)
        }
    }

    impl Policy for Largest {
        fn needs(&self) -> Needs {
            Needs {
                reads: Reads {
                    keys: true,
                    ..Reads::NONE
                },
                ..Needs::NONE
            }
        }

        fn scorer(&self) -> Option<&dyn Scorer> {
            Some(self)
        }

        fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
            keep.top_by(0, self.scores(view).remove(0), 1, 0);
        }
    }

    impl Scorer for Largest {
        fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
            let keys = view.keys(0).chunks_exact(view.head_dim());
            vec![keys.map(|key| key[0]).collect()]
        }
    }

    /// Checks a file of one case: keys of 3, 1 and 2, of which 0 and 2 are kept.
    fn one_case(keys: &str, ranks: &str, kept: &str, rows: &str) -> Result<usize, String> {
        golden_prompts::<Largest>(&format!(
            r#"{{"rows": {{"a": {{"head_dim": 2, "group": 1, "keys": [[{keys}]]}}}},
                "ranks": {{"b": [{ranks}]}},
                "cases": [{{"id": "one", "config": {{}}, "budget": 2, "prompt": 3, "layer": 0,
                    "rows": "{rows}", "ranks": "b", "kept": [{kept}]}}]}}"#
        ))
    }

    #[test]
    fn a_case_says_what_is_wrong() {
        const KEYS: &str = r#""4040000000000000", "3f8000003f800000", "40000000bf800000""#;
        let (ranks, kept) = ("[3, 1, 2]", "[[0, 1], [2, 3]]");
        assert_eq!(one_case(KEYS, ranks, kept, "a"), Ok(1));
        for (keys, ranks, kept, rows, reason) in [
            (
                KEYS,
                ranks,
                "[[0, 2]]",
                "a",
                "keeps [0, 2] of head 0, not [0, 1]",
            ),
            (
                KEYS,
                "[3, 1.1, 2]",
                kept,
                "a",
                "ranks token 1 at 1, not 1.1, of head 0",
            ),
            (
                KEYS,
                "[3, 1, null]",
                kept,
                "a",
                "ranks token 2 at 2, not inf, of head 0",
            ),
            (KEYS, "[3, 1]", kept, "a", "ranks 3 tokens of 2 of head 0"),
            (
                KEYS,
                ranks,
                "[[0, 1], [2, 3]], [[0, 3]]",
                "a",
                "does not rank head 1",
            ),
            (KEYS, ranks, kept, "c", "no rows called c"),
            (
                r#""4040000000000000""#,
                ranks,
                kept,
                "a",
                "1 rows of a prompt of 3",
            ),
            (r#""40", "", """#, ranks, kept, "a", "`40` is not 2 numbers"),
            (
                &KEYS.replace('4', "x"),
                ranks,
                kept,
                "a",
                "is not hexadecimal",
            ),
        ] {
            let found = one_case(keys, ranks, kept, rows).expect_err(reason);
            assert!(found.starts_with("one, layer 0: "), "{found}");
            assert!(found.contains(reason), "{found}");
        }
    }
}
