//! What a process has used, from /proc: the robust column of every table here.

use std::fs;

use crate::Failure;

/// CPU time of a process so far, in seconds; its ticks are 10 ms.
pub fn seconds(pid: u32) -> Result<f64, Failure> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| Failure::new(format!("{path}: {e}")))?;
    // The name may hold blanks and parentheses; what follows the last one does not.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after.split_ascii_whitespace().skip(11); // utime is field 14, state is field 3
    let mut tick = || fields.next().and_then(|s| s.parse::<f64>().ok());
    match (tick(), tick()) {
        (Some(user), Some(system)) => Ok((user + system) / rustix::param::clock_ticks_per_second() as f64),
        _ => Err(Failure::new(format!("{path} has no times"))),
    }
}

/// Resident memory in MiB: now, and at most so far.
pub fn resident_mib(pid: u32) -> Result<(f64, f64), Failure> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|e| Failure::new(format!("{path}: {e}")))?;
    let field = |name: &str| {
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .and_then(|v| v.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
        kib.map(|k| k / 1024.0).ok_or_else(|| Failure::new(format!("{path} has no {name}")))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Makes the peak of a process begin anew, at what it has now.
pub fn forget_peak(pid: u32) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/clear_refs");
    // proc(5): 5 resets the peak resident set size.
    fs::write(&path, "5").map_err(|e| Failure::new(format!("{path}: {e}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ones_own_times_and_memory_can_be_read() {
        let me = std::process::id();
        assert!(super::seconds(me).unwrap() >= 0.0);
        let (now, peak) = super::resident_mib(me).unwrap();
        assert!(now > 0.5 && peak >= now * 0.9);
    }
}
