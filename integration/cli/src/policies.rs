//! `mistralrs-kv policies`.
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
};

use clap::Args;
use kv_core::Registry;

#[derive(Debug, Args)]
pub(crate) struct Policies {
    /// Print the page of the book.
    #[arg(long)]
    markdown: bool,
}

impl Policies {
    /// Prints every policy with its fields, their defaults and what they are.
    ///
    /// # Errors
    ///
    /// What the output says, unless its reader has seen enough.
    pub(crate) fn execute(&self, registry: &Registry) -> io::Result<()> {
        let text = if self.markdown {
            page(registry)
        } else {
            text(registry)
        };
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// The book's page, generated from the configuration types.
fn page(registry: &Registry) -> String {
    let mut text = String::from(
        "# Configuration reference\n\n\
         <!-- Written by `mistralrs-kv policies --markdown`; a test compares it. Change the doc comments of the types. -->\n\n\
         The fields of every policy, from the types that read them. On the command line a field is set with\n\
         `--set FIELD=VALUE`, in a [policy file](options.md) in the table `[settings]`, in a program with\n\
         `CacheConfig::set` or by the typed configuration. What each method does is in [one table](../policies/which.md).\n",
    );
    for policy in registry.describe() {
        let _ = write!(text, "\n{}", policy.markdown());
    }
    text
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    for policy in registry.describe() {
        // Writing to a string never fails.
        let _ = writeln!(text, "{policy}\n");
    }
    text.push_str(
        "Budgets: `--budget 256` tokens per KV head, `25%` of the prompt, `64MiB` per sequence, `full`.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_page_in_the_book_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/use/reference.md");
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == super::page(&mistralrs_kv::policies()),
            "{} is out of date: write what `mistralrs-kv policies --markdown` prints",
            path.display()
        );
    }
}
