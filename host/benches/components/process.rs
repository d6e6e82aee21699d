//! The memory and the CPU time of a process.

use std::time::Duration;

use anyhow::Context;

/// Returns the memory of a process in bytes; `self` is this one.
pub fn resident(process: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).context("only Linux provides it")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes << 10)
}

/// Returns the CPU time of a process.
pub fn cpu_time(process: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("only Linux provides it")?;
    // The user and system time of proc_pid_stat(5) in hundredths of a second, counted from the field after the name.
    let (_, fields) = stat.rsplit_once(") ").context("its fields")?;
    let times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * times.sum::<Result<u64, _>>()?))
}
