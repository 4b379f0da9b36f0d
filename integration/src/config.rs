//! What a user says about the cache.
use std::{fs, path::Path, sync::Arc};

use attention_kernels::KvDtype;
use kv_core::{Budget, PolicyConfig, Registry};
use serde_json::{Map, Value};

use crate::{StartError, policies};

/// Which policy, with which fields, under which budget.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    pub(crate) policy: String,
    pub(crate) fields: Map<String, Value>,
    pub(crate) budget: Budget,
    pub(crate) pin_prefix: u32,
    pub(crate) prompt_tail: usize,
    pub(crate) keep_turns_mib: usize,
    pub(crate) share_any_prefix: bool,
    pub(crate) prefill_chunk: usize,
    pub(crate) dtype: Option<KvDtype>,
    pub(crate) registry: Arc<Registry>,
}

/// A policy file: a name, a budget, and the policy's own fields in a table.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    policy: String,
    #[serde(default)]
    budget: Option<Budget>,
    #[serde(default)]
    pin_prefix: u32,
    #[serde(default)]
    prompt_tail: usize,
    #[serde(default)]
    keep_turns_mb: usize,
    #[serde(default)]
    share_any_prefix: bool,
    #[serde(default)]
    prefill_chunk: usize,
    #[serde(default)]
    cache_dtype: Option<String>,
    #[serde(default)]
    settings: Map<String, Value>,
}

impl CacheConfig {
    /// The named policy with its defaults and no budget. Names and fields are checked against the model at start.
    #[must_use]
    pub fn new(policy: impl Into<String>) -> Self {
        Self {
            policy: policy.into(),
            fields: Map::new(),
            budget: Budget::Full,
            pin_prefix: 0,
            prompt_tail: 0,
            keep_turns_mib: 0,
            share_any_prefix: false,
            prefill_chunk: 0,
            dtype: None,
            registry: Arc::new(policies()),
        }
    }

    /// The policy of a typed configuration, such as [`policy::KeepAllConfig`](crate::policy::KeepAllConfig), without a
    /// budget.
    ///
    /// ```
    /// use mistralrs_kv::{CacheConfig, policy::KeepAllConfig};
    ///
    /// assert_eq!(CacheConfig::of(&KeepAllConfig {}).policy_name(), "keep-all");
    /// ```
    #[must_use]
    pub fn of<C: PolicyConfig>(config: &C) -> Self {
        let mut of = Self::new(C::NAME);
        match serde_json::to_value(config) {
            Ok(Value::Object(fields)) => of.fields = fields,
            // A configuration is a struct of plain fields; the registry says the same of its defaults.
            _ => debug_assert!(false, "{} does not serialise to an object", C::NAME),
        }
        of
    }

    /// A policy that is a program on disk, as [`kv_loader`] serves it: it is started now, asked who it is, and added to
    /// `registry`. It runs without the engine being built again. For a method over it, register it yourself
    /// ([`kv_loader::Loaded::register`]) and name that method.
    ///
    /// # Errors
    ///
    /// [`StartError::Program`] if it is no policy, one for another version, or called as another one.
    pub fn from_program(path: &Path, mut registry: Registry) -> Result<Self, StartError> {
        let program = kv_loader::load(path)?;
        program.register(&mut registry)?;
        Ok(Self::new(program.name()).registry(registry))
    }

    /// Reads a TOML file such as
    ///
    /// ```toml
    /// policy = "streaming-llm"
    /// budget = "25%"
    /// pin_prefix = 16
    /// prompt_tail = 0
    /// keep_turns_mb = 64
    /// share_any_prefix = false
    /// prefill_chunk = 512
    /// cache_dtype = "f16"
    /// [settings]
    /// sinks = 8
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::File`], with the line and what was expected.
    pub fn from_file(path: &Path) -> Result<Self, StartError> {
        let file = |reason: String| StartError::File {
            path: path.to_owned(),
            reason,
        };
        let text = fs::read_to_string(path).map_err(|e| file(e.to_string()))?;
        let read: PolicyFile = toml::from_str(&text).map_err(|e| file(e.to_string()))?;
        let mut config = Self::new(read.policy);
        config.budget = read.budget.unwrap_or_default();
        config.fields = read.settings;
        config.prompt_tail = read.prompt_tail;
        config.keep_turns_mib = read.keep_turns_mb;
        config.share_any_prefix = read.share_any_prefix;
        config.prefill_chunk = read.prefill_chunk;
        let dtype = read.cache_dtype.map(|name| name.parse::<KvDtype>());
        config.dtype = dtype
            .transpose()
            .map_err(|e| file(format!("cache_dtype: {e}")))?;
        Ok(config.pin_prefix(read.pin_prefix))
    }

    /// Sets the budget.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Never evicts the first `tokens` tokens of a request, for example its system prompt.
    #[must_use]
    pub fn pin_prefix(mut self, tokens: u32) -> Self {
        self.pin_prefix = tokens;
        self
    }

    /// Keeps the caches of finished sequences, at most `mib` MiB of them, for prompts that begin with the whole of such a sequence's text, as the next
    /// turn of a conversation does: only what is new is then read, through the compressed cache as if it had been generated. The
    /// longest unused go first, and any where a running sequence wants their pages. 0, as it is unless set: none is kept.
    #[must_use]
    pub fn keep_turns(mut self, mib: usize) -> Self {
        self.keep_turns_mib = mib;
        self
    }

    /// Lets requests share a prefix ([`RequestCache::shared_prefix`](crate::RequestCache::shared_prefix)) under a policy that keeps what the
    /// end of the prefix attended to: another question may then ask about what is gone. Refused unless set; policies that go by positions,
    /// keys or values need no leave.
    #[must_use]
    pub fn share_any_prefix(mut self, is_allowed: bool) -> Self {
        self.share_any_prefix = is_allowed;
        self
    }

    /// Reads prompts in chunks of at most `tokens` tokens, so that no pass is longer. A policy that goes by positions or keys
    /// compresses after each chunk what it holds and the chunk, and the next one attends to what stays; one that observes the end of the prompt
    /// does so after the last, and until then all is held. Others are refused. 0, as it is unless set: a prompt is read at once.
    #[must_use]
    pub fn prefill_chunk(mut self, tokens: usize) -> Self {
        self.prefill_chunk = tokens;
        self
    }

    /// Compresses a prompt without its last `tokens` tokens, and reads those one by one through the compressed cache, as
    /// `DuoAttention`'s evaluation does with the last 50 ([code](https://github.com/mit-han-lab/duo-attention)): so the
    /// first answer is computed from what the policy kept. At least one token is always compressed.
    #[must_use]
    pub fn prompt_tail(mut self, tokens: usize) -> Self {
        self.prompt_tail = tokens;
        self
    }

    /// How keys and values are stored. Without it: on a CPU half precision, or bfloat16 where the activations are that, since a decode
    /// step takes as long as reading them does; on a device as the engine would. Attention is worked out in single precision in
    /// any case.
    #[must_use]
    pub const fn cache_dtype(mut self, dtype: KvDtype) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Looks policies up in `registry` instead of those built in: for policies of your own.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Arc::new(registry);
        self
    }

    /// Sets one field of the policy.
    #[must_use]
    pub fn set(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(field.into(), value.into());
        self
    }

    /// Sets a field from text such as `sinks=4`: the value is read as TOML, and as a string if it is not TOML.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] if there is no `=` or no name before it.
    pub fn set_text(self, text: &str) -> Result<Self, StartError> {
        let Some((field, value)) = text
            .split_once('=')
            .filter(|(field, _)| !field.trim().is_empty())
        else {
            return Err(StartError::Setting {
                text: text.into(),
                reason: "expected `field=value`".into(),
            });
        };
        let value = value.trim();
        let parsed = toml::from_str::<Map<String, Value>>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        Ok(self.set(field.trim(), parsed))
    }

    /// The policy's name.
    #[must_use]
    pub fn policy_name(&self) -> &str {
        &self.policy
    }

    /// The budget.
    #[must_use]
    pub const fn budget_given(&self) -> Budget {
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CacheConfig, StartError> {
        let file = tempfile::NamedTempFile::new().expect("makes a file");
        fs::write(file.path(), text).expect("is written");
        CacheConfig::from_file(file.path())
    }

    #[test]
    fn a_policy_file_may_say_little_or_all() {
        let little = read("policy = \"h2o\"\n").expect("is enough");
        assert_eq!(little.policy, "h2o");
        assert_eq!((little.budget, little.prefill_chunk), (Budget::Full, 0));
        let all = read(
            "policy = \"streaming-llm\"\nbudget = \"25%\"\npin_prefix = 3\nprompt_tail = 2\nkeep_turns_mb = 7\n\
             share_any_prefix = true\nprefill_chunk = 512\ncache_dtype = \"f32\"\n[settings]\nsinks = 8\n",
        );
        let all = all.expect("is read");
        assert_eq!((all.pin_prefix, all.prompt_tail), (3, 2));
        assert_eq!((all.keep_turns_mib, all.prefill_chunk), (7, 512));
        assert!(all.share_any_prefix && all.dtype == Some(KvDtype::F32));
        assert_eq!(all.fields["sinks"], 8);
        assert!(read("policy = \"h2o\"\nprefil_chunk = 1\n").is_err());
    }
}
