//! From a case's method, source and parameters to a policy and its configuration.
//!
//! Nothing is guessed: an argument or a parameter that is not known makes a case unsupported, since it may change what is kept.
mod authors;
mod call;
mod kvpress;
mod params;

use crate::{case::Case, error::Stop, job::Job};

/// What a method is that nobody here does.
const NO_POLICY: &str = "no policy for it";

/// The policy and configuration that do what the case did.
pub(crate) fn translate(case: &Case) -> Result<Job, Stop> {
    let job = if case.source.starts_with("kvpress") {
        kvpress::translate(case)
    } else {
        authors::translate(case)
    };
    job.map_err(Stop::Unsupported)
}

#[cfg(test)]
mod tests {
    use kv_core::Budget;
    use serde_json::json;

    use super::*;

    pub(super) fn case(method: &str, source: &str, params: serde_json::Value) -> Case {
        let case = json!({
            "id": 1, "method": method, "source": source, "params": params, "keep": "c001_keep",
            "shape": [2, 4, 96], "granularity": "kv_head",
        });
        serde_json::from_value(case).expect("a case")
    }

    fn reason(method: &str, source: &str, params: serde_json::Value) -> String {
        match translate(&case(method, source, params)) {
            Err(Stop::Unsupported(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_no_policy_does_is_said_to_be_so() {
        for method in [
            "knorm",
            "tova",
            "critical(snapkv(w=32,k=7))",
            "cur(default)",
            "block(keydiff,32)",
        ] {
            let params = json!({"compression_ratio": 0.5, "T": 96});
            assert_eq!(
                reason(method, "kvpress 0.5.5", params),
                NO_POLICY,
                "{method}"
            );
        }
        let params = json!({"max_capacity_prompt": 48, "skip_layers": []});
        assert_eq!(
            reason("l2norm", "KVCache-Factory L2NormCluster", params),
            NO_POLICY
        );
        let wrapped = "adakv(expected_attention(eps=1e-2),alpha=0.2)";
        let params = json!({"compression_ratio": 0.5});
        assert_eq!(reason(wrapped, "kvpress 0.5.5", params), NO_POLICY);
    }

    #[test]
    fn what_is_not_known_is_not_passed_over() {
        let params = json!({"compression_ratio": 0.5, "seed": 3});
        assert_eq!(
            reason("snapkv(w=8,k=5)", "kvpress 0.5.5", params),
            "the parameter `seed` is not known"
        );
        let params = json!({"compression_ratio": 0.5});
        assert_eq!(
            reason("snapkv(w=8,k=5,mode=x)", "kvpress 0.5.5", params.clone()),
            "the argument `mode` of `snapkv` is not known"
        );
        assert_eq!(
            reason("snapkv(w=eight)", "kvpress 0.5.5", params.clone()),
            "`w=eight` of `snapkv` is no whole number"
        );
        assert_eq!(
            reason("snapkv(w=8", "kvpress 0.5.5", params),
            "the method `snapkv(w=8` cannot be read"
        );
        assert_eq!(
            reason(
                "snapkv",
                "KVCache-Factory SnapKVCluster kv_head",
                json!({"window_size": 8})
            ),
            "the parameter `max_capacity_prompt` is missing"
        );
        let source = "transcription of H2O utils_hh/modify_llama.py";
        let reason = reason("h2o(running,mask simulation)", source, json!({}));
        assert!(reason.contains("may come back"), "{reason}");
    }

    #[test]
    fn kvpress_rounds_in_binary() {
        let case = case(
            "observed_attention",
            "kvpress 0.5.5",
            json!({"compression_ratio": 0.9, "T": 96}),
        );
        let job = translate(&case).expect("a job");
        assert_eq!((job.policy, job.budget), ("h2o", Budget::Full));
        assert_eq!(job.config["heavy"], 9);
    }
}
