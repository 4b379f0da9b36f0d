//! One goal: what was measured, against which target.
use serde::Serialize;

/// Which side of a target is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Wanted {
    #[serde(rename = "at least")]
    AtLeast,
    #[serde(rename = "at most")]
    AtMost,
}

/// One goal, measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Goal {
    /// Its name, of which there is no second.
    pub(super) goal: String,
    value: f64,
    wanted: Wanted,
    target: f64,
    unit: &'static str,
    pub(super) holds: bool,
    /// Whether the value is better than it can be: other work slowed down what it is compared with, and it does not hold.
    #[serde(skip_serializing_if = "is_false")]
    disturbed: bool,
    /// What measures it again.
    pub(super) command: String,
    /// What bounds it, or how it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

impl Goal {
    pub(super) fn at_least(
        goal: impl Into<String>,
        value: f64,
        target: f64,
        unit: &'static str,
    ) -> Self {
        Self::new(goal.into(), value, Wanted::AtLeast, target, unit)
    }

    pub(super) fn at_most(
        goal: impl Into<String>,
        value: f64,
        target: f64,
        unit: &'static str,
    ) -> Self {
        Self::new(goal.into(), value, Wanted::AtMost, target, unit)
    }

    fn new(goal: String, value: f64, wanted: Wanted, target: f64, unit: &'static str) -> Self {
        let holds = match wanted {
            Wanted::AtLeast => value >= target,
            Wanted::AtMost => value <= target,
        };
        Self {
            goal,
            value,
            wanted,
            target,
            unit,
            holds,
            disturbed: false,
            command: String::new(),
            note: None,
        }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Says the best value that there can be, with some room for chance; one beyond it proves nothing.
    pub(super) fn possible(mut self, best: f64) -> Self {
        self.disturbed = match self.wanted {
            Wanted::AtLeast => self.value > best,
            Wanted::AtMost => self.value < best,
        };
        self.holds &= !self.disturbed;
        self
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let wanted = match self.wanted {
            Wanted::AtLeast => ">=",
            Wanted::AtMost => "<=",
        };
        vec![
            self.goal.clone(),
            format!("{:.4}", self.value),
            format!("{wanted} {}", self.target),
            self.unit.into(),
            match (self.disturbed, self.holds) {
                (true, _) => "DISTURBED",
                (false, true) => "holds",
                (false, false) => "MISSED",
            }
            .into(),
        ]
    }
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_holds_on_the_side_that_is_wanted() {
        assert!(Goal::at_least("a", 2.0, 2.0, "").holds);
        assert!(!Goal::at_least("a", 1.9, 2.0, "").holds);
        assert!(Goal::at_most("a", 1.9, 2.0, "").holds);
        assert!(!Goal::at_most("a", f64::NAN, 2.0, "").holds);
    }

    #[test]
    fn what_cannot_be_does_not_hold() {
        let goal = Goal::at_least("a", 32.0, 0.8, "").possible(1.05);
        assert!(goal.disturbed && !goal.holds);
        assert!(Goal::at_least("a", 1.0, 0.8, "").possible(1.05).holds);
        let goal = Goal::at_most("a", 0.5, 1.03, "").possible(0.9);
        assert!(goal.disturbed && !goal.holds);
        let goal = Goal::at_most("a", 1.1, 1.03, "").possible(0.9);
        assert!(!goal.disturbed && !goal.holds);
    }
}
