//! What memory a process takes.
use std::{
    env, fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What a process that measured one row by itself prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Alone {
    /// Most bytes of memory that it had, after the model was loaded; none where the system does not tell.
    pub(super) peak_rss_bytes: Option<u64>,
}

/// Runs this program once more with the same arguments, for one row by itself: in this process every side's model and pool would count.
pub(super) fn alone(row: usize) -> Result<Alone> {
    let program = env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(env::args_os().skip(1))
        .arg(format!("--alone={row}"))
        .stdin(Stdio::null())
        .output()
        .context("cannot run this program again")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "measuring memory failed: {}",
        told.trim()
    );
    serde_json::from_slice(&output.stdout).context("measuring memory gave no figures")
}

/// Has the system forget the most memory that this process had. Linux only; elsewhere nothing happens, and [`peak_rss`] says nothing.
pub(super) fn forget_peak() {
    // Where that is refused, loading counts too.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Most bytes of memory that this process had.
pub(super) fn peak_rss() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    peak_in(&status)
}

/// From a line such as `VmHWM:     1234 kB`.
fn peak_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_is_read_from_what_the_system_says() {
        let status = "Name:\tx\nVmPeak:\t   9000 kB\nVmHWM:\t    1500 kB\nVmRSS:\t 20 kB\n";
        assert_eq!(peak_in(status), Some(1_536_000));
        assert_eq!(peak_in("Name:\tx\n"), None);
    }
}
