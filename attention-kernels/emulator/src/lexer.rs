//! Text to tokens.

use crate::error::ParseError;

/// One token and the line it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// An identifier, register, opcode or directive, dots and all.
    Word(&'a str),
    /// Anything that starts with a digit.
    Number(&'a str),
    /// What stands between quotes.
    Text(&'a str),
    /// Any other character.
    Mark(char),
}

/// The tokens of `text`, comments left out.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\n' => {
                line += 1;
                1
            }
            _ if first.is_whitespace() => first.len_utf8(),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => {
                let length = rest.find("*/").ok_or_else(|| unclosed(line, "comment"))? + 2;
                line += newlines(&rest[..length]);
                length
            }
            '"' => {
                let inside = rest[1..]
                    .find('"')
                    .ok_or_else(|| unclosed(line, "string"))?;
                let kind = Kind::Text(&rest[1..=inside]);
                tokens.push(Token { kind, line });
                inside + 2
            }
            _ if is_word(first) => {
                let length = word_length(rest);
                let word = &rest[..length];
                let kind = if first.is_ascii_digit() {
                    Kind::Number(word)
                } else {
                    Kind::Word(word)
                };
                tokens.push(Token { kind, line });
                length
            }
            _ => {
                let kind = Kind::Mark(first);
                tokens.push(Token { kind, line });
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// Bytes of the word at the start of `text`. A double colon belongs to it: `.L2::128B`.
fn word_length(text: &str) -> usize {
    let mut length = 0;
    loop {
        let rest = &text[length..];
        length += rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if !text[length..].starts_with("::") {
            return length;
        }
        length += 2;
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn newlines(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

fn unclosed(line: u32, what: &str) -> ParseError {
    ParseError::new(line, format!("a {what} that starts here has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_marks_keep_their_lines() {
        let tokens = tokens("ld.u32 %r1,\n [a+-4]; /* x\n */ 0f3F800000 // end\n\"t t\"");
        let tokens = tokens.expect("well-formed");
        let kinds: Vec<_> = tokens
            .iter()
            .map(|token| (token.kind, token.line))
            .collect();
        assert_eq!(
            kinds,
            [
                (Kind::Word("ld.u32"), 1),
                (Kind::Word("%r1"), 1),
                (Kind::Mark(','), 1),
                (Kind::Mark('['), 2),
                (Kind::Word("a"), 2),
                (Kind::Mark('+'), 2),
                (Kind::Mark('-'), 2),
                (Kind::Number("4"), 2),
                (Kind::Mark(']'), 2),
                (Kind::Mark(';'), 2),
                (Kind::Number("0f3F800000"), 3),
                (Kind::Text("t t"), 4),
            ]
        );
    }

    #[test]
    fn open_comments_and_strings_are_refused() {
        for text in ["/* a", "\"a"] {
            assert!(tokens(text).is_err());
        }
    }
}
