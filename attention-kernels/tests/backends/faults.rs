//! Faults planted in the shipped PTX, one at a time. Each must show: as a wrong number, or as a finding of the emulator.
//!
//! The scenarios are those of the suite, smaller and with numbers that are always the same. What survives is listed, with the reason; a
//! fault more or less is an error, so that the list stays true. Faults are counted within their entry, so after a change of the kernels
//! the list may have to be gone through again.

mod lists;
mod scenarios;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use attention_kernels::cuda::{Emulated, PTX};
use lists::{BOUNDS, HARMLESS, STRIDES};
use ptx_emulator::Options;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use scenarios::{SCENARIOS, Scenario};

use crate::suite::Cuda;

/// The text of the module before its first entry, and that of an entry.
fn text_of(name: Option<&str>) -> &'static str {
    const ENTRY: &str = ".visible .entry ";
    let Some(name) = name else {
        return PTX.split(ENTRY).next().expect("a header");
    };
    let start = PTX
        .find(&format!("{ENTRY}{name}("))
        .unwrap_or_else(|| panic!("no entry {name}"));
    let end = PTX[start..].find("\n}\n").expect("an end of the entry");
    &PTX[start..start + end + 3]
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether a module with this text for the entry is found out.
fn is_found(scenario: &Scenario, text: &str) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // Hundreds of panics are no news here.
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                loud(info);
            }
        }));
    });
    let others = scenario.others.iter().map(|name| text_of(Some(name)));
    let module: String = [text_of(None), text].into_iter().chain(others).collect();
    let options = Options {
        max_instructions: 100_000_000,
        max_faults: 1,
        ..Options::default()
    };
    let Ok(device) = Emulated::with_ptx(&module, options) else {
        panic!("a fault in {} is no PTX", scenario.entry);
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0x5eed);
    IS_QUIET.set(true);
    let ran = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&Cuda(device), &mut rng)));
    IS_QUIET.set(false);
    ran.is_err()
}

/// What is done to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A barrier is left out.
    Barrier,
    /// A store to global memory is left out.
    Store,
    /// A factor, or a count of bits to shift by, is one more.
    Stride,
    /// A limit that is passed at "at least" is passed at "more", and the other way round.
    Bound,
}

impl Kind {
    /// What stands in the place of a line, where the fault fits it.
    fn instead_of(self, line: &str) -> Option<String> {
        match self {
            Self::Barrier => line.contains("bar.sync").then(String::new),
            Self::Store => line.contains("st.global").then(String::new),
            Self::Stride => {
                let factors = [
                    "mul.wide.u32",
                    "mul.lo.s32",
                    "mad.lo.s32",
                    "shl.b32",
                    "shl.b64",
                ];
                let (start, number) = line.strip_suffix(';')?.rsplit_once(' ')?;
                let more = number.parse::<u64>().ok()? + 1;
                let is_factor = factors.iter().any(|factor| line.contains(factor));
                is_factor.then(|| format!("{start} {more};"))
            }
            Self::Bound => {
                let pairs = [("lt", "le"), ("le", "lt"), ("gt", "ge"), ("ge", "gt")];
                let of = |name: &str| format!("setp.{name}.u32");
                let (old, new) = pairs
                    .into_iter()
                    .find(|&(old, _)| line.contains(&of(old)))?;
                Some(line.replace(&of(old), &of(new)))
            }
        }
    }
}

fn scenario(entry: &str) -> &'static Scenario {
    let found = SCENARIOS.iter().find(|scenario| scenario.entry == entry);
    found.unwrap_or_else(|| panic!("no scenario for {entry}"))
}

/// Plants every fault of a kind in an entry, or the `picked` ones, and refuses what is not as listed.
fn plant(kind: Kind, scenario: &Scenario, picked: Option<&[usize]>) -> usize {
    let entry = scenario.entry;
    let lines: Vec<&str> = text_of(Some(entry)).lines().collect();
    let faults = lines.iter().enumerate();
    let faults = faults.filter_map(|(line, old)| Some((line, kind.instead_of(old)?)));
    let harmless = HARMLESS
        .iter()
        .find(|list| list.kind == kind && list.entry == entry);
    let reason = |number: usize| {
        let listed = harmless.filter(|list| list.faults.contains(&number));
        listed.map(|list| list.why)
    };
    let (mut planted, mut wrong) = (0, Vec::new());
    for (number, (line, instead)) in faults.enumerate() {
        if picked.is_some_and(|picked| !picked.contains(&number)) {
            continue;
        }
        let mut text = lines.clone();
        text[line] = &instead;
        let is_found = is_found(scenario, &(text.join("\n") + "\n"));
        let line = lines[line].trim();
        match (is_found, reason(number)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(why)) => {
                wrong.push(format!(
                    "number {number}, `{line}`, is found, and listed: {why}"
                ));
            }
            (false, None) => wrong.push(format!("number {number}, `{line}`, is not found")),
        }
        planted += 1;
    }
    assert!(wrong.is_empty(), "{kind:?} in {entry}: {wrong:#?}");
    assert!(
        picked.is_none_or(|picked| picked.len() == planted),
        "{kind:?} in {entry}: {planted}"
    );
    planted
}

#[test]
fn without_a_fault_nothing_is_found() {
    for scenario in &SCENARIOS {
        let text = text_of(Some(scenario.entry));
        assert!(!is_found(scenario, text), "{}", scenario.entry);
    }
}

#[test]
fn every_barrier_is_needed() {
    let planted: usize = SCENARIOS
        .iter()
        .map(|scenario| plant(Kind::Barrier, scenario, None))
        .sum();
    assert!(planted > 40, "{planted} barriers");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation")]
fn every_store_is_needed() {
    let planted: usize = SCENARIOS
        .iter()
        .map(|scenario| plant(Kind::Store, scenario, None))
        .sum();
    assert!(planted > 100, "{planted} stores");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation")]
fn strides_are_right() {
    let planted: usize = STRIDES
        .iter()
        .map(|entry| plant(Kind::Stride, scenario(entry), None))
        .sum();
    assert!(planted > 200, "{planted} strides");
}

#[test]
fn bounds_are_right() {
    for (entry, picked) in BOUNDS {
        plant(Kind::Bound, scenario(entry), Some(picked));
    }
}
