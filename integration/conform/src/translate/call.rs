//! Methods as kvpress cases write them: `adakv(snapkv(w=32,k=7),alpha=0.2)`.

/// A name and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    /// `key=value`, or a value alone.
    args: Vec<(Option<&'a str>, &'a str)>,
}

impl<'a> Call<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let unreadable = || format!("the method `{text}` cannot be read");
        let Some((name, rest)) = text.split_once('(') else {
            return Ok(Self {
                name: text.trim(),
                args: Vec::new(),
            });
        };
        let inside = rest.strip_suffix(')').ok_or_else(unreadable)?;
        let args = split(inside).ok_or_else(unreadable)?;
        Ok(Self {
            name: name.trim(),
            args: args.into_iter().map(argument).collect(),
        })
    }

    /// The only argument without a name, another call.
    pub(super) fn inner(&self) -> Option<&'a str> {
        let mut unnamed = self.args.iter().filter(|(key, _)| key.is_none());
        match (unnamed.next(), unnamed.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    pub(super) fn whole(&self, key: &str, default: usize) -> Result<usize, String> {
        self.number(key, default, "whole number")
    }

    pub(super) fn real(&self, key: &str, default: f64) -> Result<f64, String> {
        self.number(key, default, "number")
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T, kind: &str) -> Result<T, String> {
        let Some((_, value)) = self.args.iter().find(|(known, _)| *known == Some(key)) else {
            return Ok(default);
        };
        let refuse = |_| format!("`{key}={value}` of `{}` is no {kind}", self.name);
        value.parse().map_err(refuse)
    }

    /// Refuses arguments that nobody reads. An unnamed one is refused unless the method wraps another.
    pub(super) fn only(&self, keys: &[&str], wraps: bool) -> Result<(), String> {
        let stranger = self.args.iter().find_map(|&(key, value)| match key {
            Some(key) if keys.contains(&key) => None,
            Some(key) => Some(key),
            None if wraps => None,
            None => Some(value),
        });
        stranger.map_or(Ok(()), |stranger| {
            Err(format!(
                "the argument `{stranger}` of `{}` is not known",
                self.name
            ))
        })
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (depth == 0).then_some(parts)
}

/// `key=value` where the sign is not inside an inner call.
fn argument(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((key, value)) if !key.contains('(') => (Some(key.trim()), value.trim()),
        _ => (None, text.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_nest() {
        let call = Call::parse("adakv(snapkv(w=32,k=7),alpha=0.2)").expect("a call");
        assert_eq!(
            (call.name, call.inner()),
            ("adakv", Some("snapkv(w=32,k=7)"))
        );
        assert_eq!(call.real("alpha", 0.5), Ok(0.2));
        assert_eq!(call.only(&["alpha"], true), Ok(()));
        let inner = Call::parse("snapkv(w=32,k=7)").expect("a call");
        assert_eq!((inner.whole("w", 64), inner.whole("k", 5)), (Ok(32), Ok(7)));
        assert_eq!(Call::parse("tova").expect("a call").name, "tova");
        for broken in ["a(b", "a(b))", "a(b)c", "a()b)"] {
            assert!(Call::parse(broken).is_err(), "{broken}");
        }
    }
}
