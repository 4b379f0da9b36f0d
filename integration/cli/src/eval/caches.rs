//! What stands beside each other: policies at budgets, the full cache, and the baselines.
use kv_core::{Budget, Registry};
use mistralrs_kv::{CacheConfig, StartError};

use super::record::CacheName;
use crate::run::out_of_range;

/// The full cache.
pub(super) const FULL: &str = "keep-all";
/// Always there.
pub(super) const BASELINES: [&str; 2] = ["random", "recency"];

/// A cache to be measured.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) name: CacheName,
    pub(super) config: CacheConfig,
}

/// The full cache first, then the baselines and the policies, each at every budget. `policies` are names, or `all`.
pub(super) fn candidates(
    registry: &Registry,
    policies: &[String],
    budgets: &[String],
) -> Result<Vec<Candidate>, StartError> {
    let mut all = vec![Candidate {
        name: CacheName::full(),
        config: CacheConfig::new(FULL).registry(registry.clone()),
    }];
    let wants_all = policies.iter().any(|name| name == "all");
    let named = |name: &&str| wants_all || policies.iter().any(|other| other == name);
    if let Some(unknown) = policies
        .iter()
        .find(|&name| name != "all" && !registry.names().any(|known| known == name))
    {
        let known: Vec<&str> = registry.names().collect();
        let allowed = format!("`all`, or of {}", known.join(", "));
        return Err(out_of_range("policies", unknown, &allowed));
    }
    let chosen = registry
        .names()
        .filter(|name| *name != FULL && !BASELINES.contains(name));
    let chosen: Vec<&str> = chosen.filter(named).collect();
    for policy in BASELINES.into_iter().chain(chosen) {
        for budget in budgets {
            all.push(candidate(registry, policy, budget)?);
        }
    }
    Ok(all)
}

fn candidate(registry: &Registry, policy: &str, budget: &str) -> Result<Candidate, StartError> {
    let amount: Budget = budget.parse()?;
    let config = CacheConfig::new(policy).registry(registry.clone());
    let config = match (policy, amount) {
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
    Ok(Candidate {
        name: CacheName {
            policy: policy.into(),
            budget: budget.into(),
        },
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(all.expect("good names").len(), registry().names().count());
    }

    #[test]
    fn wrong_names_and_budgets_are_named() {
        for (policies, budgets, part) in [
            ("h3o", "50%", "h2o"),
            ("h2o", "half", "`half`"),
            ("duo-attention", "64", "duo-attention"),
        ] {
            let error = candidates(&registry(), &strings(&[policies]), &strings(&[budgets]));
            let error = error.expect_err("is wrong").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
