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

    /// The arguments without a name.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = &'a str> {
        let unnamed = self.args.iter().filter(|(key, _)| key.is_none());
        unnamed.map(|&(_, value)| value)
    }

    /// The first argument without a name, another call.
    pub(super) fn inner(&self) -> Result<Call<'a>, String> {
        let inner = self.unnamed().next();
        Self::parse(inner.ok_or_else(|| format!("`{}` is of no other method", self.name))?)
    }

    /// The second argument without a name.
    pub(super) fn size(&self) -> Result<usize, String> {
        let size = self.unnamed().nth(1);
        let size = size.ok_or_else(|| format!("`{}` has no size", self.name))?;
        let refuse = |_| format!("`{size}` of `{}` is no whole number", self.name);
        size.parse().map_err(refuse)
    }

    /// Whether the argument `name` is there, which has no value.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.unnamed().any(|known| known == name)
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

    /// Refuses arguments that nobody reads: those with other names than `keys`, and, without one, other than `flags`.
    pub(super) fn only(&self, keys: &[&str], flags: &[&str]) -> Result<(), String> {
        self.only_after(0, keys, flags)
    }

    /// As [`Call::only`], behind `read` arguments without a name.
    pub(super) fn only_after(
        &self,
        read: usize,
        keys: &[&str],
        flags: &[&str],
    ) -> Result<(), String> {
        let is_known = |key: &str| keys.contains(&key);
        let named = self.args.iter().filter_map(|&(key, _)| key);
        let mut strangers = named.filter(|key| !is_known(key)).chain(
            self.unnamed()
                .skip(read)
                .filter(|value| !flags.contains(value)),
        );
        strangers.next().map_or(Ok(()), |stranger| {
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
        assert_eq!(call.name, "adakv");
        assert_eq!(call.real("alpha", 0.5), Ok(0.2));
        assert_eq!(call.only_after(1, &["alpha"], &[]), Ok(()));
        let inner = call.inner().expect("a call");
        assert_eq!(inner.name, "snapkv");
        assert_eq!((inner.whole("w", 64), inner.whole("k", 5)), (Ok(32), Ok(7)));
        let bare = Call::parse("tova").expect("a call");
        assert_eq!(bare.name, "tova");
        assert_eq!(bare.inner(), Err("`tova` is of no other method".into()));
        for broken in ["a(b", "a(b))", "a(b)c", "a()b)"] {
            assert!(Call::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn sizes_and_flags_have_no_name() {
        let call = Call::parse("chunkkv(snapkv(w=32,k=7),20)").expect("a call");
        assert_eq!(call.size(), Ok(20));
        assert_eq!(call.only_after(2, &[], &[]), Ok(()));
        assert!(call.only_after(1, &[], &[]).is_err());
        let wrong = Call::parse("block(keydiff,few)").expect("a call").size();
        assert_eq!(wrong, Err("`few` of `block` is no whole number".into()));
        let call = Call::parse("lagkv(n_sink=4,lag=32,cross)").expect("a call");
        assert!(call.flag("cross") && !call.flag("lag"));
        assert_eq!(call.only(&["n_sink", "lag"], &["cross"]), Ok(()));
        assert_eq!(
            call.only(&["n_sink", "lag"], &[]),
            Err("the argument `cross` of `lagkv` is not known".into())
        );
    }
}
