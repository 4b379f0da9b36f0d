//! The parameters of a case.
use std::cell::RefCell;

use serde_json::{Map, Value};

/// Says nothing about what is kept.
const REMARKS: [&str; 3] = ["T", "axes", "note"];

/// A case's parameters, and which of them were read.
#[derive(Debug)]
pub(super) struct Params<'a> {
    values: &'a Map<String, Value>,
    read: RefCell<Vec<&'static str>>,
}

impl<'a> Params<'a> {
    pub(super) const fn new(values: &'a Map<String, Value>) -> Self {
        Self {
            values,
            read: RefCell::new(Vec::new()),
        }
    }

    pub(super) fn whole(&self, name: &'static str) -> Result<usize, String> {
        let number = self.value(name)?.as_u64();
        let number = number.and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| self.unlike(name, "a whole number"))
    }

    pub(super) fn real(&self, name: &'static str) -> Result<f64, String> {
        let number = self.value(name)?.as_f64();
        number.ok_or_else(|| self.unlike(name, "a number"))
    }

    pub(super) fn text(&self, name: &'static str) -> Result<&'a str, String> {
        let text = self.value(name)?.as_str();
        text.ok_or_else(|| self.unlike(name, "a text"))
    }

    pub(super) fn reals(&self, name: &'static str) -> Result<Vec<f64>, String> {
        let list = self.value(name)?.as_array();
        let numbers = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.unlike(name, "a list of numbers"))
    }

    /// Whole numbers; none where the parameter is missing.
    pub(super) fn wholes(&self, name: &'static str) -> Result<Vec<u64>, String> {
        let Some(value) = self.optional(name) else {
            return Ok(Vec::new());
        };
        let list = value.as_array();
        let numbers = list.and_then(|list| list.iter().map(Value::as_u64).collect());
        numbers.ok_or_else(|| self.unlike(name, "a list of whole numbers"))
    }

    /// Rows of 0 and 1, or of false and true.
    pub(super) fn flags(&self, name: &'static str) -> Result<Vec<Vec<bool>>, String> {
        let flag = |value: &Value| match value.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => value.as_bool(),
        };
        let row = |row: &Value| row.as_array()?.iter().map(flag).collect();
        let rows = self.value(name)?.as_array();
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.ok_or_else(|| self.unlike(name, "rows of 0 and 1"))
    }

    /// A switch; null and a missing one are off.
    pub(super) fn switch(&self, name: &'static str) -> Result<bool, String> {
        match self.optional(name) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.unlike(name, "true or false")),
        }
    }

    pub(super) fn whole_or(&self, name: &'static str, default: usize) -> Result<usize, String> {
        self.optional(name)
            .map_or(Ok(default), |_| self.whole(name))
    }

    pub(super) fn real_or(&self, name: &'static str, default: f64) -> Result<f64, String> {
        self.optional(name).map_or(Ok(default), |_| self.real(name))
    }

    pub(super) fn text_or(
        &self,
        name: &'static str,
        default: &'static str,
    ) -> Result<&'a str, String> {
        self.optional(name).map_or(Ok(default), |_| self.text(name))
    }

    /// Refuses parameters that nobody has read.
    pub(super) fn finish(&self) -> Result<(), String> {
        let read = self.read.borrow();
        let is_known = |name: &str| read.contains(&name) || REMARKS.contains(&name);
        let stranger = self.values.keys().find(|name| !is_known(name));
        stranger.map_or(Ok(()), |name| {
            Err(format!("the parameter `{name}` is not known"))
        })
    }

    fn optional(&self, name: &'static str) -> Option<&'a Value> {
        self.read.borrow_mut().push(name);
        self.values.get(name).filter(|value| !value.is_null())
    }

    fn value(&self, name: &'static str) -> Result<&'a Value, String> {
        let missing = || format!("the parameter `{name}` is missing");
        self.optional(name).ok_or_else(missing)
    }

    fn unlike(&self, name: &str, kind: &str) -> String {
        let found = self.values.get(name).unwrap_or(&Value::Null);
        format!("the parameter `{name}` is {found}, not {kind}")
    }
}
