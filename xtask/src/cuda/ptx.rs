//! The text of the kernels that is kept in the repository, and what is taken out of the compiler's.

use anyhow::{Context, Result};

/// The language version that the text asks for: the least that has everything the kernels use, so that drivers older
/// than the compiler take it. That it is enough is shown by assembling the lowered text.
pub(crate) const VERSION: &str = "7.0";

/// First line of the text.
const HEAD: &str = "// Made by `cargo xtask cuda-kernels --write`; not to be edited.\n";

/// The compiler's text with a lowered version, without comments of their own line and without empty lines in a row.
///
/// The comments name the compiler's build, so they would differ where nothing else does.
pub(crate) fn normalise(text: &str) -> Result<String> {
    let mut out = String::from(HEAD);
    let mut after_empty = false;
    let mut lowered = false;
    for line in text.lines().map(str::trim_end) {
        if line.trim_start().starts_with("//") {
            continue;
        }
        let empty = line.is_empty();
        if empty && after_empty {
            continue;
        }
        after_empty = empty;
        if line.starts_with(".version ") {
            lowered = true;
            out.push_str(".version ");
            out.push_str(VERSION);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    lowered.then_some(out).context(
        "the compiler's PTX has no line that starts with `.version`; it may have changed its form",
    )
}

/// Names of the kernels in the text, in its order.
pub(crate) fn entries(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| {
        let (before, after) = line.split_once(".entry ")?;
        (!before.contains("//")).then_some(after)
    });
    names
        .map(|after| {
            after
                .split(['(', ' '])
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

/// The first line, counted from 1, at which the two differ.
pub(crate) fn first_difference(a: &str, b: &str) -> Option<usize> {
    let mut lines = (a.lines(), b.lines());
    let mut number = 1;
    loop {
        match (lines.0.next(), lines.1.next()) {
            (None, None) => return (a != b).then_some(number),
            (left, right) if left != right => return Some(number),
            _ => number += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "//\n// Compiler Build ID: CL-36424714\n//\n\n.version 9.0\n.target sm_80\n\
        .address_size 64\n\n\t// .globl\tkv_copy\n\n.visible .entry kv_copy(\n\t.param .u64 kv_copy_param_0\n)\n{\n\
        \n\n\tbar.sync \t0;  \n\t// begin inline asm\n\tret;\n\n}\n";

    #[test]
    fn what_differs_without_reason_is_taken_out() {
        let expected = format!(
            "{HEAD}\n.version 7.0\n.target sm_80\n.address_size 64\n\n.visible .entry kv_copy(\n\
             \t.param .u64 kv_copy_param_0\n)\n{{\n\n\tbar.sync \t0;\n\tret;\n\n}}\n"
        );
        assert_eq!(normalise(TEXT).unwrap(), expected);
        let other_build = TEXT.replace("CL-36424714", "CL-1");
        assert_eq!(normalise(&other_build).unwrap(), expected);
        // Doing it again changes nothing, whatever the first line is.
        assert_eq!(normalise(&expected).unwrap(), expected);
        let other_code = TEXT.replace("ret;", "exit;");
        assert_ne!(normalise(&other_code).unwrap(), expected);
        let error = normalise("// nothing").unwrap_err().to_string();
        assert!(error.contains("`.version`"), "{error}");
    }

    #[test]
    fn kernels_are_listed() {
        assert_eq!(entries(TEXT), ["kv_copy"]);
        assert_eq!(entries("// .entry no(\n.weak .entry yes (\n"), ["yes"]);
    }

    #[test]
    fn difference_is_located() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("a\n", "a"), Some(2));
    }
}
