//! What stands beside each other: policies at budgets, the full cache, and the baselines.
use std::collections::BTreeSet;

use kv_core::{Budget, Registry};
use mistralrs_kv::{CacheConfig, StartError};

use super::record::{CacheName, Record};
use crate::run::out_of_range;

/// The full cache.
pub(super) const FULL: &str = "keep-all";
/// What stands for its budget.
pub(super) const FULL_BUDGET: &str = "full";
/// Always there.
pub(super) const BASELINES: [&str; 2] = [RANDOM, "recency"];
/// The baseline that draws.
const RANDOM: &str = "random";
/// How often it does, each time with another seed.
const DRAWS: u64 = 4;

/// Bytes that differ by no more than one in so many, or by no more than a page for every head, are the same: pages are given out whole.
const NEARLY: usize = 20;

/// A cache to be measured.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) name: CacheName,
    pub(super) config: CacheConfig,
}

/// The full cache first, then the baselines and the policies, each at every budget. `policies` are names, `all`, or names with fields of their own
/// (`tova:decode=append`), which stand beside the name alone.
pub(super) fn candidates(
    registry: &Registry,
    policies: &[String],
    budgets: &[String],
) -> Result<Vec<Candidate>, StartError> {
    let mut all = vec![Candidate {
        name: CacheName::full(),
        config: CacheConfig::new(FULL).registry(registry.clone()),
    }];
    let known: Vec<&str> = registry.names().collect();
    let mut chosen: Vec<&str> = Vec::new();
    for policy in policies {
        match policy.as_str() {
            "all" => chosen.extend(&known),
            policy if known.contains(&name_of(policy)) => chosen.push(policy),
            unknown => {
                let allowed = format!("`all`, or of {}", known.join(", "));
                return Err(out_of_range("policies", unknown, &allowed));
            }
        }
    }
    let mut seen = BTreeSet::from([FULL]);
    seen.extend(BASELINES);
    chosen.retain(|&policy| seen.insert(policy));
    for policy in BASELINES.into_iter().chain(chosen) {
        for budget in budgets {
            all.push(candidate(registry, policy, budget)?);
        }
    }
    // Whether the first tokens are among those drawn decides much, so one draw says little.
    for draw in 1..DRAWS {
        for budget in budgets {
            let mut other = candidate(registry, RANDOM, budget)?;
            other.name.draw = draw;
            other.config = other.config.set("seed", draw);
            all.push(other);
        }
    }
    Ok(all)
}

/// The policy's name alone.
fn name_of(policy: &str) -> &str {
    policy.split(':').next().unwrap_or(policy)
}

fn candidate(registry: &Registry, policy: &str, budget: &str) -> Result<Candidate, StartError> {
    let amount: Budget = budget.parse()?;
    let name = name_of(policy);
    let config = CacheConfig::new(name).registry(registry.clone());
    let config = match (name, amount) {
        // It takes no budget: as many heads stream as make up for it, with a small window.
        ("duo-attention", Budget::Ratio(share)) => config
            .set("sparsity", 1.0 - share)
            .set("sinks", 4)
            .set("recent", 28),
        ("duo-attention", _) => {
            let allowed = "shares of the text (`25%`) where duo-attention is among the policies";
            return Err(out_of_range("budgets", budget, allowed));
        }
        _ => config.budget(amount),
    };
    let mut fields = policy.split(':').skip(1);
    let config = fields.try_fold(config, CacheConfig::set_text)?;
    Ok(Candidate {
        name: CacheName {
            policy: policy.into(),
            budget: budget.into(),
            bytes_of: None,
            draw: 0,
        },
        config,
    })
}

/// The baselines that are to be given the bytes of a cache, since those of the same budget held others; each with its tokens per head.
pub(super) fn matched(
    record: &Record,
    same_budget: &Record,
    block: usize,
) -> Vec<(CacheName, usize)> {
    let held = |record: &Record| {
        record
            .text_bytes
            .map_or(record.held_bytes, |(held, _)| held)
    };
    let (bytes, other) = (held(record), held(same_budget));
    let name = &record.key.cache;
    let is_policy = name.policy != FULL && !BASELINES.contains(&&*name.policy);
    let heads: usize = record.kept.iter().map(Vec::len).sum();
    let page_bytes = record.held_bytes / record.pages_held.max(1);
    let page_of_each = (heads * page_bytes).max(1);
    if !is_policy || bytes.abs_diff(other) <= page_of_each.max(other / NEARLY) {
        return Vec::new();
    }
    let pages = (bytes + page_of_each / 2) / page_of_each;
    // What is read behind the text comes on top of a budget.
    let behind = match record.text_bytes {
        Some(_) => 1,
        None => record.cached_tokens - record.text_tokens,
    };
    let tokens = (pages * block).saturating_sub(behind).max(1);
    let names = BASELINES.map(|baseline| CacheName {
        bytes_of: Some(name.policy.clone()),
        ..name.baseline(baseline)
    });
    names.map(|name| (name, tokens)).into()
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::record, *};

    fn registry() -> Registry {
        let mut registry = mistralrs_kv::policies();
        kv_eval::baselines::add(&mut registry);
        registry
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn full_cache_and_baselines_are_always_there() {
        let all = candidates(&registry(), &strings(&["h2o"]), &strings(&["50%", "64"]));
        let names: Vec<String> = all
            .expect("good names")
            .into_iter()
            .filter(|candidate| candidate.name.draw == 0)
            .map(|candidate| format!("{} {}", candidate.name.policy, candidate.name.budget))
            .collect();
        assert_eq!(
            names,
            [
                "keep-all full",
                "random 50%",
                "random 64",
                "recency 50%",
                "recency 64",
                "h2o 50%",
                "h2o 64"
            ]
        );
        let all = candidates(&registry(), &strings(&["all"]), &strings(&["50%"]));
        let draws = usize::try_from(DRAWS - 1).expect("a few");
        let expected = registry().names().count() + draws;
        assert_eq!(all.expect("good names").len(), expected);
    }

    #[test]
    fn fields_stand_behind_a_name() {
        let policies = strings(&["tova", "tova:decode=append", "h2o:heavy=4:recent=8"]);
        let all = candidates(&registry(), &policies, &strings(&["50%"])).expect("good names");
        let of_policies = all.iter().filter(|candidate| {
            let policy = &&*candidate.name.policy;
            !BASELINES.contains(policy) && *policy != FULL
        });
        let names: Vec<&str> = of_policies
            .map(|candidate| &*candidate.name.policy)
            .collect();
        assert_eq!(
            names,
            ["tova", "tova:decode=append", "h2o:heavy=4:recent=8"]
        );
    }

    #[test]
    fn wrong_names_and_budgets_are_named() {
        for (policies, budgets, part) in [
            ("h3o", "50%", "h2o"),
            ("tova:decode", "50%", "decode"),
            ("h2o", "half", "`half`"),
            ("duo-attention", "64", "duo-attention"),
        ] {
            let error = candidates(&registry(), &strings(&[policies]), &strings(&[budgets]));
            let error = error.expect_err("is wrong").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn baselines_get_the_bytes_of_a_policy_that_holds_others() {
        let of = |policy: &str, pages| Record {
            pages_held: pages,
            held_bytes: 10 * pages,
            ..record(policy, "25%", "1", true)
        };
        let random = of("random", 40);
        // Two heads; ten tokens were read behind the text.
        for (policy, pages, expected) in [
            ("h2o", 42, None),
            ("h2o", 43, Some(16 * 22 - 10)),
            ("h2o", 38, None),
            ("h2o", 1, Some(6)),
            ("recency", 60, None),
            (FULL, 60, None),
        ] {
            let all = matched(&of(policy, pages), &random, 16);
            let tokens: Vec<usize> = all.iter().map(|(_, tokens)| *tokens).collect();
            let expected: Vec<usize> = expected.map_or(vec![], |tokens| vec![tokens; 2]);
            assert_eq!(tokens, expected, "{policy} {pages}");
            for (name, baseline) in all.iter().map(|(name, _)| name).zip(BASELINES) {
                assert_eq!(
                    (&*name.policy, &*name.budget, name.bytes_of.as_deref()),
                    (baseline, "25%", Some(policy))
                );
            }
        }
        let text = |bytes| Record {
            text_bytes: Some((bytes, 1000)),
            ..of("h2o", 40)
        };
        assert!(matched(&text(400), &text(400), 16).is_empty());
        let all = matched(&text(200), &text(400), 16);
        assert_eq!(all[0].1, 16 * 10 - 1, "what was held of the text counts");
    }
}
