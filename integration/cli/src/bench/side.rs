//! What is measured beside each other.
use std::str::FromStr;

use kv_core::Registry;
use mistralrs_kv::{CacheConfig, StartError};

/// A policy, or the engine without one, as given to `--policies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    /// The engine as it is published.
    Stock,
    /// A policy, and its budget.
    Policy {
        name: String,
        budget: Option<String>,
    },
}

impl FromStr for Side {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            None if text == "stock" => Self::Stock,
            None => Self::Policy {
                name: text.to_owned(),
                budget: None,
            },
            Some((name, budget)) => Self::Policy {
                name: name.to_owned(),
                budget: Some(budget.to_owned()),
            },
        })
    }
}

impl Side {
    /// Its cache; none for the stock engine.
    pub(super) fn cache(&self, registry: &Registry) -> Result<Option<CacheConfig>, StartError> {
        let Self::Policy { name, budget } = self else {
            return Ok(None);
        };
        let cache = CacheConfig::new(name).registry(registry.clone());
        Ok(Some(match budget {
            None => cache,
            Some(budget) => cache.budget(budget.parse()?),
        }))
    }
}

/// What a cache is called in tables.
pub(super) fn label(cache: Option<&CacheConfig>) -> String {
    let Some(cache) = cache else {
        return "the stock engine".into();
    };
    let budget = cache.budget_given().to_string();
    match budget.as_str() {
        "full" => cache.policy_name().to_owned(),
        _ => format!("{}, budget {budget}", cache.policy_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read() {
        let labels = ["stock", "keep-all", "snap-kv:12.5%", "h2o:256"].map(|text| {
            let side: Side = text.parse().expect("every text is one");
            let cache = side.cache(&mistralrs_kv::policies());
            label(cache.expect("a budget").as_ref())
        });
        assert_eq!(
            labels,
            [
                "the stock engine",
                "keep-all",
                "snap-kv, budget 12.5%",
                "h2o, budget 256"
            ]
        );
        let side: Side = "h2o:half".parse().expect("every text is one");
        let error = side
            .cache(&mistralrs_kv::policies())
            .expect_err("no budget");
        assert!(error.to_string().contains("`half`"), "{error}");
    }
}
