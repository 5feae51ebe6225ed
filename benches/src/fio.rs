//! One fio run: the job as data, the result as data.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::Failure;
use crate::arms::Measured;

/// Access pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Random reads.
    RandRead,
    /// Random writes of what is there.
    RandWrite,
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
}

impl Pattern {
    pub(crate) fn fio(self) -> &'static str {
        match self {
            Pattern::RandRead => "randread",
            Pattern::RandWrite => "randwrite",
            Pattern::Read => "read",
            Pattern::Write => "write",
        }
    }

    pub(crate) fn reads(self) -> bool {
        matches!(self, Pattern::RandRead | Pattern::Read)
    }
}

/// A job; always O_DIRECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Job {
    /// Pattern.
    pub pattern: Pattern,
    /// Bytes of one I/O.
    pub block: u32,
    /// I/Os in flight per job.
    pub depth: u32,
    /// Jobs.
    pub jobs: u32,
    /// fio's name of the engine: `libaio` or `io_uring`.
    pub engine: &'static str,
}

impl Job {
    /// As it stands in tables: `randread 4k qd32 x1 libaio`.
    pub fn name(&self) -> String {
        let block =
            if self.block >= 1 << 20 { format!("{}m", self.block >> 20) } else { format!("{}k", self.block >> 10) };
        format!("{} {block} qd{} x{} {}", self.pattern.fio(), self.depth, self.jobs, self.engine)
    }
}

/// Runs a job on an existing file of `size` bytes for `seconds`.
pub fn run(job: &Job, file: &Path, size: u64, seconds: f64) -> Result<Measured, Failure> {
    let output = Command::new("fio")
        .args([
            "--name=b",
            "--output-format=json",
            "--direct=1",
            "--group_reporting",
            "--time_based",
            "--norandommap",
            "--randrepeat=0",
        ])
        .args(["--fallocate=none", "--thread", "--invalidate=0"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={size}"))
        .arg(format!("--rw={}", job.pattern.fio()))
        .arg(format!("--bs={}", job.block))
        .arg(format!("--iodepth={}", job.depth))
        .arg(format!("--numjobs={}", job.jobs))
        .arg(format!("--ioengine={}", job.engine))
        .arg(format!("--runtime={seconds}"))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::new(format!("fio could not be started ({e}); install Debian's package fio")))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "fio failed on {} ({}): {}",
            file.display(),
            job.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    parse(&output.stdout, job.pattern.reads())
}

/// A job of one client on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NbdJob {
    pub(crate) pattern: Pattern,
    pub(crate) block: u32,
    pub(crate) depth: u32,
    /// Bytes of the device that it uses.
    pub(crate) size: u64,
}

/// What fio tells of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NbdTold {
    pub(crate) per_second: f64,
    pub(crate) ops: u64,
    /// From submission to completion.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Runs it on an NBD export.
pub(crate) fn nbd(uri: &str, job: NbdJob, seconds: f64) -> Result<NbdTold, Failure> {
    timed(&["--ioengine=nbd", &format!("--uri={uri}")], job, seconds)
}

/// Runs it on a file, past the page cache.
pub(crate) fn file(file: &Path, job: NbdJob, seconds: f64) -> Result<NbdTold, Failure> {
    timed(&["--ioengine=libaio", "--direct=1", &format!("--filename={}", file.display())], job, seconds)
}

fn timed(engine: &[&str], job: NbdJob, seconds: f64) -> Result<NbdTold, Failure> {
    let output = Command::new("fio")
        .args(["--name=b", "--output-format=json", "--time_based", "--norandommap", "--randrepeat=0", "--thread"])
        .args(engine)
        .arg(format!("--size={}", job.size))
        .arg(format!("--rw={}", job.pattern.fio()))
        .arg(format!("--bs={}", job.block))
        .arg(format!("--iodepth={}", job.depth))
        // fio takes half a second for none, and a job without an end.
        .arg(format!("--runtime={}ms", (seconds * 1e3).max(100.0) as u64))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::new(format!("fio could not be started ({e}); install Debian's package fio")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(format!("fio failed ({}): {said}", engine.join(" "))));
    }
    timed_told(&output.stdout, job.pattern.reads())
}

fn timed_told(json: &[u8], reads: bool) -> Result<NbdTold, Failure> {
    let Measured { per_second, ops, .. } = parse(json, reads)?;
    let start = json.iter().position(|&b| b == b'{').unwrap_or(0);
    let all: serde_json::Value =
        serde_json::from_slice(&json[start..]).map_err(|e| Failure::new(format!("fio's answer is not JSON: {e}")))?;
    let times = &all["jobs"][0][if reads { "read" } else { "write" }]["clat_ns"]["percentile"];
    let us = |p: &str| times[p].as_f64().map(|ns| ns / 1e3).ok_or_else(|| Failure::new("fio's answer lacks times"));
    Ok(NbdTold { per_second, ops, p50_us: us("50.000000")?, p99_us: us("99.000000")? })
}

/// Writes every block of an NBD export once, with bytes that are not zero.
pub(crate) fn nbd_fill(uri: &str, size: u64) -> Result<(), Failure> {
    let status = Command::new("fio")
        .args(["--name=fill", "--output-format=json", "--ioengine=nbd", "--thread", "--rw=write", "--bs=1M"])
        .args(["--iodepth=8", "--refill_buffers", &format!("--uri={uri}"), &format!("--size={size}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| Failure::new(format!("fio could not be started ({e}); install Debian's package fio")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("fio could not fill {uri}"))) }
}

pub(crate) fn parse(json: &[u8], reads: bool) -> Result<Measured, Failure> {
    // fio may print a note before its JSON.
    let start = json.iter().position(|&b| b == b'{').unwrap_or(0);
    let all: serde_json::Value =
        serde_json::from_slice(&json[start..]).map_err(|e| Failure::new(format!("fio's answer is not JSON: {e}")))?;
    let side = &all["jobs"][0][if reads { "read" } else { "write" }];
    let per_second = side["iops"].as_f64().ok_or_else(|| Failure::new("fio's answer lacks iops"))?;
    let ops = side["total_ios"].as_u64().ok_or_else(|| Failure::new("fio's answer lacks total_ios"))?;
    Ok(Measured { per_second, ops, cpu_s: None })
}

/// Makes a file of `size` bytes whose every block was written, so that in-place jobs never allocate. With zeroes, if
/// it is to be a disk that is taken for an empty one.
pub fn fill(file: &Path, size: u64, zeroes: bool) -> Result<(), Failure> {
    let status = Command::new("fio")
        .args(["--name=fill", "--output-format=json", "--direct=1", "--fallocate=none", "--end_fsync=1", "--thread"])
        .args(["--rw=write", "--bs=1M", "--iodepth=4", "--ioengine=libaio"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={size}"))
        .args(zeroes.then_some("--zero_buffers"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| Failure::new(format!("fio could not be started ({e}); install Debian's package fio")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("fio could not fill {}", file.display()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fios_answer_is_read_after_a_note() {
        let json = br#"note: something
{"jobs":[{"read":{"iops":12.5,"total_ios":25},"write":{"iops":0,"total_ios":0}}]}"#;
        let o = parse(json, true).unwrap();
        assert_eq!((o.per_second, o.ops), (12.5, 25));
    }

    #[test]
    fn times_are_read_in_microseconds() {
        let json = br#"{"jobs":[{"write":{"iops":2,"total_ios":4,"clat_ns":{"percentile":
            {"50.000000":1500,"99.000000":9000}}}}]}"#;
        let told = timed_told(json, false).unwrap();
        assert_eq!((told.p50_us, told.p99_us, told.ops), (1.5, 9.0, 4));
    }

    #[test]
    fn an_answer_without_figures_is_an_error() {
        assert!(parse(b"{}", true).is_err());
        assert!(parse(b"not json", true).is_err());
    }
}
