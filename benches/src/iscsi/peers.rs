//! The peers: programs of their own, whose CPU time is asked for when they have ended and before they are waited for.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::Job;
use crate::arms::{Arm, Measured};
use crate::{Failure, cpu};

/// What a program said on both outputs, and the CPU time that it took.
fn ended(program: &str, package: &str, args: &[String]) -> Result<(String, f64), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("{program}: {e}"));
    let mut said: File = tempfile::tempfile().map_err(failed)?;
    let output = || said.try_clone().map(Stdio::from).map_err(failed);
    let mut child =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(output()?).stderr(output()?).spawn().map_err(
            |e| Failure::new(format!("{program} could not be started: {e}; install Debian's package {package}")),
        )?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::new(format!("{program} has no process id")))?;
    let waited = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let used = waited.map_err(|e| failed(e.into())).and_then(|_| cpu::seconds(child.id()));
    let status = child.wait().map_err(failed)?;
    let mut text = String::new();
    std::io::Seek::rewind(&mut said).and_then(|()| said.read_to_string(&mut text)).map_err(failed)?;
    if status.success() {
        return Ok((text, used?));
    }
    Err(Failure::new(format!("{program} {} failed: {}", args.join(" "), text.trim())))
}

/// The number behind the last `before` of a text.
fn number_after(text: &str, before: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once(before)?;
    let digits: String = rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    digits.parse().ok()
}

/// libiscsi's own, which reads only.
pub(super) struct IscsiPerf {
    pub(super) job: Job,
    pub(super) url: String,
}

impl Arm for IscsiPerf {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        // It takes whole seconds.
        let seconds = seconds.ceil().max(1.0);
        let mut args = vec!["-m".to_owned(), self.job.depth.to_string(), "-b".to_owned()];
        args.extend([(self.job.block / 512).to_string(), "-t".to_owned(), seconds.to_string()]);
        if self.job.random {
            args.push("-r".to_owned());
        }
        args.push(self.url.clone());
        let (said, used) = ended("iscsi-perf", "libiscsi-bin", &args)?;
        let per_second = number_after(&said, "iops average")
            .ok_or_else(|| Failure::new(format!("iscsi-perf says no average: {}", said.trim())))?;
        Ok(Measured { per_second, ops: (per_second * seconds) as u64, cpu_s: Some(used) })
    }
}

/// QEMU's block layer over libiscsi.
pub(super) struct QemuImg {
    job: Job,
    url: String,
    /// It takes a count, not a time: what it did in a second before.
    rate: f64,
}

impl QemuImg {
    pub(super) fn new(job: Job, url: String) -> QemuImg {
        QemuImg { job, url, rate: 0.0 }
    }

    fn once(&self, count: u64) -> Result<(f64, f64), Failure> {
        let Job { write, block, depth, .. } = self.job;
        let number = |flag: &str, n: u64| [flag.to_owned(), n.to_string()];
        let mut args: Vec<String> = ["bench", "-t", "none", "-f", "raw"].map(str::to_owned).into();
        args.extend(number("-c", count));
        args.extend(number("-d", depth.into()));
        args.extend(number("-s", block.into()));
        if write {
            args.push("-w".to_owned());
        }
        args.push(self.url.clone());
        let (said, used) = ended("qemu-img", "qemu-block-extra", &args)?;
        let took = number_after(&said, "Run completed in");
        Ok((took.ok_or_else(|| Failure::new(format!("qemu-img says no time: {}", said.trim())))?, used))
    }
}

impl Arm for QemuImg {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        if self.rate == 0.0 {
            let few = 1000;
            self.rate = few as f64 / self.once(few)?.0.max(0.001);
        }
        let count = ((self.rate * seconds) as u64).max(100);
        let (took, used) = self.once(count)?;
        self.rate = count as f64 / took.max(0.001);
        Ok(Measured { per_second: self.rate, ops: count, cpu_s: Some(used) })
    }
}

#[cfg(test)]
mod tests {
    use super::number_after;

    #[test]
    fn the_last_figure_of_a_peer_is_found() {
        let perf = "00:00:01 - iops average 17 (1 MB/s)\r\niops average 4531 (566 MB/s)      \n\nfinished.\n";
        assert_eq!(number_after(perf, "iops average"), Some(4531.0));
        assert_eq!(number_after("Run completed in 1.042 seconds.\n", "Run completed in"), Some(1.042));
        assert_eq!(number_after("finished.", "iops average"), None);
    }
}
