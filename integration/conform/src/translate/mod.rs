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
            "cur(default)",
            "chunk(knorm,64)",
            "non_causal_attn(chunk=64)",
            "critical(cur(default))",
            "adakv(pyramidkv(w=16,k=5,beta=20))",
            "block(knorm,32)",
        ] {
            let params = json!({"compression_ratio": 0.5, "T": 96});
            assert_eq!(
                reason(method, "kvpress 0.5.5", params),
                NO_POLICY,
                "{method}"
            );
        }
        let params = json!({"max_capacity_prompt": 48, "skip_layers": [0, 1]});
        assert_eq!(
            reason("l2norm", "KVCache-Factory L2NormCluster", params),
            "no policy leaves the layers [0, 1] alone"
        );
    }

    /// The policy, its fields and the budget that do what a press did of 96 tokens, half of them dropped.
    fn job(method: &str) -> (&'static str, serde_json::Value, Budget) {
        let params = json!({"compression_ratio": 0.5, "T": 96});
        let job = translate(&case(method, "kvpress 0.5.5", params));
        let job = job.unwrap_or_else(|stop| panic!("{method}: {stop:?}"));
        (job.policy, job.config.into(), job.budget)
    }

    #[test]
    fn presses_over_presses_are_policies_over_policies() {
        let snap = json!({
            "policy": "snap-kv", "window": 32, "kernel": 7, "pooling": "average",
            "order": "pool-then-group", "group": "mean",
        });
        let critical = job("critical(snapkv(w=32,k=7))");
        let expected = ("critical-kv", json!({"over": snap}), Budget::Tokens(48));
        assert_eq!(critical, expected);
        // Five chunks, the last of 16: two stay, and are 36 tokens or 40.
        let chunks = job("chunkkv(snapkv(w=32,k=7),20)");
        let fields = json!({"over": snap, "chunk": 20});
        assert_eq!(chunks, ("chunk-kv", fields, Budget::Tokens(40)));
        let (policy, fields, _) = job("adakv(expected_attention(eps=1e-2),alpha=0.3)");
        assert_eq!(policy, "ada-kv");
        assert_eq!(fields["over"]["policy"], "expected-attention");
        assert_eq!(fields["over"]["epsilon"], 0.01);
        assert_eq!(fields["alpha"], 0.3);
        // Ada-KV shares the budget, and the stages choose.
        let (policy, fields, _) = job("critical_ada(snapkv(w=32,k=7),alpha=0.2)");
        assert_eq!(
            (policy, &fields["over"]["policy"]),
            ("critical-kv", &json!("ada-kv"))
        );
        assert_eq!(
            (&fields["over"]["window"], &fields["over"]["alpha"]),
            (&json!(32), &json!(0.2))
        );
    }

    #[test]
    fn flags_and_sizes_are_fields() {
        let flags = |method| {
            let (_, fields, _) = job(method);
            [fields["covariance"] == true, fields["value_norm"] == true]
        };
        assert_eq!(flags("expected_attention(default)"), [true, true]);
        assert_eq!(flags("expected_attention(nocov)"), [false, true]);
        assert_eq!(flags("expected_attention(novnorm)"), [true, false]);
        let lag = job("lagkv(n_sink=4,lag=32,cross)").1;
        assert_eq!(lag, json!({"sinks": 4, "lag": 32, "cross_scoring": true}));
        assert_eq!(job("lagkv(lag=128)").1["cross_scoring"], false);
        let keys = ("key-diff", json!({"block": 32}), Budget::Tokens(48));
        assert_eq!(job("block(keydiff,32)"), keys);
        let params = json!({"compression_ratio": 0.5});
        for (method, reason_) in [
            (
                "expected_attention(mean)",
                "the argument `mean` of `expected_attention` is not known",
            ),
            ("chunkkv(snapkv(w=8,k=5),0)", "chunks of no tokens"),
            ("chunkkv(snapkv(w=8,k=5))", "`chunkkv` has no size"),
            (
                "critical(knorm,3)",
                "the argument `3` of `critical` is not known",
            ),
        ] {
            assert_eq!(reason(method, "kvpress 0.5.5", params.clone()), reason_);
        }
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
