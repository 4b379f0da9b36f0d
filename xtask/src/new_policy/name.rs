//! What a policy may be called.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// A policy's name in the spellings that code and manifests need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    kebab: String,
    snake: String,
    camel: String,
}

impl Name {
    /// Refuses what is no kebab case.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_alphanumeric())
                && !word.contains(|c: char| c.is_ascii_uppercase())
        };
        ensure!(
            text.split('-').all(is_word),
            "`{text}` is no name for a policy; it must be words of a-z and 0-9 joined by `-`, each beginning with a letter, \
             such as `key-diff`"
        );
        let camel = text.split('-').map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        });
        Ok(Self {
            kebab: text.to_owned(),
            snake: text.replace('-', "_"),
            camel: camel.collect(),
        })
    }

    /// As users write it.
    pub(super) fn kebab(&self) -> &str {
        &self.kebab
    }

    /// Refuses a name whose types the template uses, in `source`, for something else.
    pub(super) fn check_types(&self, source: &str) -> Result<()> {
        let words: BTreeSet<&str> = source
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect();
        for name in [self.camel.clone(), format!("{}Config", self.camel)] {
            ensure!(
                !words.contains(&*name),
                "`{}` is no name for a policy: its code would have a type `{name}`, which means something else there; take \
                 another word, or one more",
                self.kebab
            );
        }
        Ok(())
    }

    /// The text with this name where the template's was, in all three spellings.
    pub(super) fn put_into(&self, text: &str) -> String {
        // In two steps, because this name may hold the template's.
        const MARKS: [(&str, &str); 3] = [
            ("_template", "\u{1}"),
            ("template", "\u{2}"),
            ("Template", "\u{3}"),
        ];
        let marked = MARKS.iter().fold(text.to_owned(), |text, (word, mark)| {
            text.replace(word, mark)
        });
        marked
            .replace('\u{1}', &format!("_{}", self.snake))
            .replace('\u{2}', &self.kebab)
            .replace('\u{3}', &self.camel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kebab_case_is_a_name() {
        for good in ["h2o", "key-diff", "a", "my-template"] {
            assert_eq!(Name::parse(good).unwrap().kebab(), good);
        }
        for bad in [
            "",
            "-",
            "Key",
            "key_diff",
            "key-",
            "-key",
            "key--diff",
            "2x",
            "key-2x",
            "schlüssel",
            "a b",
            "../a",
        ] {
            let error = Name::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
            assert!(error.contains("a-z"), "{error}");
        }
    }

    #[test]
    fn every_spelling_is_replaced() {
        let text = "kv_policy_template kv-policy-template TemplateConfig \"template\"";
        let put = |name: &str| Name::parse(name).unwrap().put_into(text);
        assert_eq!(
            put("key-diff"),
            "kv_policy_key_diff kv-policy-key-diff KeyDiffConfig \"key-diff\""
        );
        assert_eq!(
            put("my-template"),
            "kv_policy_my_template kv-policy-my-template MyTemplateConfig \"my-template\""
        );
    }

    #[test]
    fn types_of_the_source_are_taken() {
        let source =
            "use kv_core::{Policy, PolicyConfig};\nfn f() -> Result<Self> { Ok(Template) }";
        for taken in ["policy", "self", "result", "ok"] {
            let error = Name::parse(taken).unwrap().check_types(source);
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{taken}`")), "{error}");
        }
        Name::parse("key-diff")
            .unwrap()
            .check_types(source)
            .unwrap();
    }
}
