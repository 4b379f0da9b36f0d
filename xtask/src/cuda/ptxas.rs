//! What `ptxas -v` says about each kernel.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// What one kernel needs on one GPU generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) registers: u64,
    /// Bytes stored to and loaded from memory because registers ran out, of the kernel and of what it calls.
    pub(crate) spilled: u64,
    /// Static shared memory in bytes.
    pub(crate) shared: u64,
}

/// Kernel to its needs.
pub(crate) type Usages = BTreeMap<String, Usage>;

/// Reads the log; every one of `entries` must be in it, so that a log in other words is not taken for a good one.
pub(crate) fn parse(log: &str, entries: &[String]) -> Result<Usages> {
    let mut usages = Usages::new();
    let mut current: Option<(String, Usage)> = None;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default();
            usages.extend(current.replace((name.to_owned(), Usage::default())));
        }
        let Some((_, usage)) = &mut current else {
            continue;
        };
        // A function that the kernel calls has a line of its own.
        for what in [" bytes spill stores", " bytes spill loads"] {
            usage.spilled += before(line, what).unwrap_or_default();
        }
        usage.shared += before(line, " bytes smem").unwrap_or_default();
        if line.contains(": Used ") {
            usage.registers = before(line, " registers").with_context(|| {
                format!("ptxas says \"{line}\", which names no number of registers")
            })?;
        }
    }
    usages.extend(current);
    for entry in entries {
        if usages.get(entry).is_none_or(|usage| usage.registers == 0) {
            bail!("ptxas says nothing about the registers of {entry}; its log is\n{log}");
        }
    }
    Ok(usages)
}

/// The number that stands before `words`.
fn before(line: &str, words: &str) -> Option<u64> {
    let number = line[..line.find(words)?].rsplit([' ', ',']).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Out of ptxas 13.0.88, for a kernel that spills, one that calls a function, and one that does neither.
    const LOG: &str = "\
ptxas info    : 4 bytes gmem, 16 bytes cmem[3], 8 bytes cmem[4]
ptxas info    : Compiling entry function 'kv_attend_spills' for 'sm_80'
ptxas info    : Function properties for kv_attend_spills
    1192 bytes stack frame, 2240 bytes spill stores, 2556 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 1192 bytes cumulative stack size, 368 bytes cmem[0]
ptxas info    : Compile time = 93.771 ms
ptxas info    : Compiling entry function 'kv_call' for 'sm_80'
ptxas info    : Function properties for kv_call
    160 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 160 bytes cumulative stack size, 368 bytes cmem[0]
ptxas info    : Compile time = 2.635 ms
ptxas info    : Function properties for _Z6helperfPKf
    0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Compiling entry function 'kv_write_f32' for 'sm_80'
ptxas info    : Function properties for kv_write_f32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 1 barriers, 512 bytes smem, 368 bytes cmem[0]
ptxas info    : Compile time = 1.323 ms
";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_kernel_is_read() {
        let entries = names(&["kv_attend_spills", "kv_call", "kv_write_f32"]);
        let usages = parse(LOG, &entries).unwrap();
        let usage = |name: &str| {
            let usage = usages[name];
            (usage.registers, usage.spilled, usage.shared)
        };
        assert_eq!(usage("kv_attend_spills"), (32, 4796, 0));
        assert_eq!(usage("kv_call"), (12, 12, 0));
        assert_eq!(usage("kv_write_f32"), (16, 0, 512));
        assert_eq!(usages.len(), 3);
    }

    #[test]
    fn log_that_leaves_a_kernel_out_is_refused() {
        let error = parse(LOG, &names(&["kv_merge"])).unwrap_err().to_string();
        assert!(
            error.contains("nothing about the registers of kv_merge"),
            "{error}"
        );
        let other_words = LOG.replace("Used 16 registers", "16 registers taken");
        let error = parse(&other_words, &names(&["kv_write_f32"])).unwrap_err();
        assert!(error.to_string().contains("of kv_write_f32"), "{error}");
        let no_number = LOG.replace("Used 16 registers", "Used many registers");
        let error = parse(&no_number, &[]).unwrap_err();
        assert!(
            error.to_string().contains("names no number of registers"),
            "{error}"
        );
    }
}
