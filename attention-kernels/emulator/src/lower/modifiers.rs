//! The parts of an opcode between its dots.

use crate::error::ParseError;
use crate::op::{FloatMode, Rounding};
use crate::types::Type;

/// What follows the first dot, taken away piece by piece. What is left at the end is not supported.
pub(super) struct Modifiers<'o> {
    opcode: &'o str,
    base: &'o str,
    rest: Vec<&'o str>,
}

impl<'o> Modifiers<'o> {
    pub(super) fn new(opcode: &'o str) -> Self {
        let mut parts = opcode.split('.');
        Self {
            opcode,
            base: parts.next().unwrap_or_default(),
            rest: parts.collect(),
        }
    }

    pub(super) fn opcode(&self) -> &'o str {
        self.opcode
    }

    pub(super) fn base(&self) -> &'o str {
        self.base
    }

    /// Takes `name` away and says whether it was there.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|part| *part == name);
        if let Some(at) = found {
            self.rest.remove(at);
        }
        found.is_some()
    }

    /// Takes away the first of `choices` that is there.
    pub(super) fn choose<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| self.rest.contains(name));
        found.map(|(name, value)| {
            self.take(name);
            *value
        })
    }

    /// Takes away the next type.
    pub(super) fn ty(&mut self) -> Option<Type> {
        let at = self
            .rest
            .iter()
            .position(|part| Type::parse(part).is_some())?;
        Type::parse(self.rest.remove(at))
    }

    pub(super) fn expect_ty(&mut self, line: u32) -> Result<Type, ParseError> {
        let what = format!("`{}` has no type", self.opcode);
        self.ty().ok_or_else(|| ParseError::new(line, what))
    }

    /// Takes away the roundings to a float and what may stand beside them.
    pub(super) fn float_mode(&mut self) -> FloatMode {
        let roundings = [
            ("rn", Rounding::Nearest),
            ("rz", Rounding::Zero),
            ("rm", Rounding::Down),
            ("rp", Rounding::Up),
        ];
        FloatMode {
            rounding: self.choose(&roundings).unwrap_or(Rounding::Nearest),
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            relu: self.take("relu"),
        }
    }

    pub(super) fn finish(&self, line: u32, opcode: &str) -> Result<(), ParseError> {
        match self.rest.first() {
            None => Ok(()),
            Some(part) => {
                let what = format!("`.{part}` of `{opcode}` is not supported");
                Err(ParseError::new(line, what))
            }
        }
    }
}
