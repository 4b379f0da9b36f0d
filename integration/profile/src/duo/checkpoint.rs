//! A training in a file.
use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Options, Pieces, adam::Adam};
use crate::{
    Model, ProfileError,
    files::{Exact, write},
};

const NAME: &str = "checkpoint.json";

/// All that a training goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    options: Options,
    /// Tells the text from others.
    text: u64,
    /// Tells the weights from others.
    model: Exact,
    pub(super) step: usize,
    /// As the last step left them, `[L * H]`.
    gates: Vec<Exact>,
    adam: Adam,
}

impl State {
    /// Before the first step: all gates are open.
    pub(super) fn new(model: &Model, pieces: &Pieces, options: &Options) -> Self {
        let heads = model.shape().layers * model.shape().kv_heads;
        Self {
            options: options.clone(),
            text: pieces.fingerprint(),
            model: Exact(model.fingerprint()),
            step: 0,
            gates: vec![Exact(1.0); heads],
            adam: Adam::new(heads),
        }
    }

    /// The state that a folder has of the same training, if it has one.
    pub(super) fn or_from(self, folder: &Path) -> Result<Self, ProfileError> {
        let path = folder.join(NAME);
        if !path.exists() {
            return Ok(self);
        }
        let text = fs::read_to_string(&path).map_err(|error| ProfileError::file(&path, error))?;
        let found: Self =
            serde_json::from_str(&text).map_err(|error| ProfileError::file(&path, error))?;
        let differs = self
            .difference(&found)
            .map_err(|error| ProfileError::file(&path, error))?;
        if let Some(difference) = differs {
            let reason = format!("it is of another training: {difference}; name another folder");
            return Err(ProfileError::file(&path, reason));
        }
        Ok(found)
    }

    /// The first thing in which another training differs.
    fn difference(&self, other: &Self) -> serde_json::Result<Option<String>> {
        let (own, others) = (json!(self.options), json!(other.options));
        if let (Value::Object(own), Value::Object(others)) = (own, others) {
            for (field, value) in own {
                if others[&field] != value {
                    return Ok(Some(format!(
                        "its `{field}` is {}, not {value}",
                        others[&field]
                    )));
                }
            }
        }
        let heads = self.gates.len();
        Ok(if self.text != other.text {
            Some("its text is another".to_owned())
        } else if self.model != other.model
            || other.gates.len() != heads
            || other.adam.len() != heads
        {
            Some("its model is another".to_owned())
        } else if other.step > self.options.steps {
            Some(format!(
                "it has {} steps, more than {}",
                other.step, self.options.steps
            ))
        } else {
            None
        })
    }

    pub(super) fn gates(&self) -> Vec<f64> {
        self.gates.iter().map(|gate| gate.0).collect()
    }

    /// Takes one step from `gates`, which are clipped.
    pub(super) fn learn(&mut self, gates: &mut [f64], gradient: &[f64], rate: f64) {
        self.adam.step(gates, gradient, rate);
        self.gates = gates.iter().copied().map(Exact).collect();
        self.step += 1;
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), ProfileError> {
        let path = folder.join(NAME);
        let text = serde_json::to_string(self).map_err(|error| ProfileError::file(&path, error))?;
        write(&path, &(text + "\n"))
    }

    /// What stands beside the table: the sizes that are read with it, and how it was learned.
    pub(super) fn sizes(&self) -> Result<String, ProfileError> {
        let sizes = json!({
            "sink_size": self.options.sinks,
            "recent_size": self.options.recent,
            "steps_done": self.step,
            "training": self.options,
        });
        let text = serde_json::to_string_pretty(&sizes);
        let text = text.map_err(|error| ProfileError::file(Path::new(NAME), error))?;
        Ok(text + "\n")
    }
}
