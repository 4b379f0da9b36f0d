//! A reference of a policy's fields, made from the type of its configuration: for a terminal and for a page.
mod schema;

use std::fmt;

use serde_json::{Number, Value};

use crate::PolicyConfig;

/// Longest line of a description in a terminal.
const COLUMNS: usize = 100;

/// What a user may read of a policy before choosing it.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its fields, as the configuration declares them.
    pub fields: Vec<Field>,
}

/// A field of a policy's configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What may be written, in a user's words: `integer from 1`, `true or false`, `one of "mean", "max"`, `path`.
    pub kind: String,
    /// Whether it may have no value at all.
    pub is_optional: bool,
    /// What it is where it is left out; `null` for no value.
    pub default: Value,
    /// Its doc comment, as one paragraph.
    pub doc: String,
    /// The values to choose from, if it is such a field.
    pub choices: Vec<Choice>,
    /// The smallest number allowed, if it is a number and the type states one.
    pub least: Option<Number>,
    /// The largest.
    pub most: Option<Number>,
}

/// One of the values to choose from.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Choice {
    /// The value.
    pub value: Value,
    /// Its doc comment, as one paragraph; empty without one.
    pub doc: String,
}

impl Description {
    /// Describes a policy by its configuration: doc comments, types, ranges stated as `#[schemars(range(min = ..))]`, and
    /// what [`Default`] says.
    ///
    /// ```
    /// use kv_core::{Description, KeepAllConfig};
    /// let keep_all = Description::of::<KeepAllConfig>();
    /// assert_eq!((keep_all.name, keep_all.fields.len()), ("keep-all", 0));
    /// ```
    #[must_use]
    pub fn of<C: PolicyConfig>() -> Self {
        Self {
            name: C::NAME,
            summary: C::SUMMARY,
            fields: schema::fields::<C>(),
        }
    }

    /// A heading with the name, the summary and a table of the fields, in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.name, self.summary);
        if self.fields.is_empty() {
            return text + "There is nothing to set.\n";
        }
        text.push_str("| field | kind | default | what it is |\n|---|---|---|---|\n");
        for field in &self.fields {
            text.push_str(&field.row());
        }
        text
    }
}

impl fmt::Display for Description {
    /// For a terminal, in lines of at most 100 columns, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        lines(f, 4, self.summary)?;
        for field in &self.fields {
            field.fmt_lines(f)?;
        }
        Ok(())
    }
}

impl Field {
    fn fmt_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (default, without) = match &self.default {
            Value::Null => ("...".to_owned(), "; none by default"),
            value => (value.to_string(), ""),
        };
        let set = format!("    --set {}={default}", self.name);
        let kind = format!("({}{without})", self.kind);
        write!(f, "\n{set}")?;
        if set.chars().count() + 1 + kind.chars().count() <= COLUMNS {
            write!(f, " {kind}")?;
        } else {
            lines(f, 8, &kind)?;
        }
        lines(f, 8, &self.doc)?;
        for Choice { value, doc } in self.explained() {
            lines(f, 8, &format!("{value}: {doc}"))?;
        }
        Ok(())
    }

    fn row(&self) -> String {
        let optional = if self.is_optional { ", optional" } else { "" };
        let default = match &self.default {
            Value::Null => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let mut what = self.doc.clone();
        for Choice { value, doc } in self.explained() {
            what += &format!("<br>`{value}`: {doc}");
        }
        format!(
            "| `{}` | {}{optional} | {} | {} |\n",
            self.name,
            cell(&self.kind),
            cell(&default),
            cell(&what)
        )
    }

    fn explained(&self) -> impl Iterator<Item = &Choice> {
        self.choices.iter().filter(|choice| !choice.doc.is_empty())
    }
}

/// Text that cannot end a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writes a text on lines of its own, indented and broken between words, but not within `code`.
fn lines(f: &mut fmt::Formatter<'_>, indent: usize, text: &str) -> fmt::Result {
    const NO_BREAK: char = '\u{a0}';
    let parts: Vec<&str> = text.split('`').collect();
    let is_code = |part: usize| part % 2 == 1 && part + 1 < parts.len();
    let joined = |(part, text): (usize, &&str)| match is_code(part) {
        true => text.replace(' ', &NO_BREAK.to_string()),
        false => (*text).to_owned(),
    };
    let parts: Vec<String> = parts.iter().enumerate().map(joined).collect();
    let mut column = COLUMNS;
    for word in parts.join("`").split_ascii_whitespace() {
        let length = word.chars().count();
        let word = word.replace(NO_BREAK, " ");
        if column + 1 + length > COLUMNS {
            write!(f, "\n{:indent$}{word}", "")?;
            column = indent + length;
        } else {
            write!(f, " {word}")?;
            column += 1 + length;
        }
    }
    Ok(())
}
