//! What is measured.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::hosts::{ADDRESSES, Hosts, on, until};
use crate::Failure;
use crate::arms::{Arm, Measured};
use crate::fio::{self, NbdJob, Pattern};

const ECHO_PORT: u16 = 7790;
const IPERF_PORT: &str = "7791";
const MIB: f64 = (1 << 20) as f64;

/// What a client does.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) pattern: Pattern,
    pub(super) block: u32,
    pub(super) depth: u32,
}

impl Load {
    fn run(self, hosts: &Hosts, name: &str, seconds: f64) -> Result<fio::NbdTold, Failure> {
        let size = hosts.size / 4 * 3;
        let job = NbdJob { pattern: self.pattern, block: self.block, depth: self.depth, size };
        fio::nbd(&hosts.uri(name), job, seconds)
    }
}

/// A device of ours, replicated or plain: how many in a second, or how long the middle one takes.
pub(super) struct Ours<'a> {
    hosts: &'a Hosts,
    name: &'static str,
    load: Load,
    median: bool,
}

impl<'a> Ours<'a> {
    pub(super) fn rate(hosts: &'a Hosts, name: &'static str, load: Load) -> Ours<'a> {
        Ours { hosts, name, load, median: false }
    }

    pub(super) fn median(hosts: &'a Hosts, name: &'static str, load: Load) -> Ours<'a> {
        Ours { hosts, name, load, median: true }
    }
}

impl Arm for Ours<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let told = self.load.run(self.hosts, self.name, seconds)?;
        let per_second = if self.median { 1e6 / told.p50_us } else { told.per_second };
        Ok(Measured { per_second, ops: told.ops, cpu_s: None })
    }
}

/// A round trip of 4 KiB between the hosts by plain TCP, and a write of 4 KiB on the disk of host 2, one after the other.
pub(super) struct Trip<'a> {
    hosts: &'a Hosts,
    server: Child,
}

impl<'a> Trip<'a> {
    pub(super) fn new(hosts: &'a Hosts) -> Result<Trip<'a>, Failure> {
        let me = std::env::current_exe().map_err(|e| Failure::new(format!("where this program lies: {e}")))?;
        let at = format!("{}:{ECHO_PORT}", ADDRESSES[1]);
        let mut command = on(2, &me.with_file_name("tcp-echo"));
        let server = command.args(["serve", &at]).stdin(Stdio::null()).spawn();
        let server = server.map_err(|e| Failure::new(format!("tcp-echo could not be started: {e}")))?;
        Ok(Trip { hosts, server })
    }

    fn round_trip_us(&self, seconds: f64) -> Result<f64, Failure> {
        let me = std::env::current_exe().map_err(|e| Failure::new(format!("where this program lies: {e}")))?;
        let at = format!("{}:{ECHO_PORT}", ADDRESSES[1]);
        let mut said = None;
        until("the echo answers", || {
            let ended = on(1, &me.with_file_name("tcp-echo")).args(["ask", &at, &seconds.to_string()]).output();
            said = ended.ok().filter(|e| e.status.success()).map(|e| String::from_utf8_lossy(&e.stdout).into_owned());
            said.is_some()
        })?;
        let us = said.and_then(|s| s.trim().parse().ok());
        us.ok_or_else(|| Failure::new("tcp-echo told no time"))
    }
}

impl Arm for Trip<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let trip = self.round_trip_us(seconds / 2.0)?;
        let job = NbdJob { pattern: Pattern::RandWrite, block: 4096, depth: 1, size: self.hosts.size / 4 * 3 };
        let write = fio::file(&self.hosts.disk(1, "plain"), job, seconds / 2.0)?;
        Ok(Measured { per_second: 1e6 / (trip + write.p50_us), ops: write.ops, cpu_s: None })
    }
}

impl Drop for Trip<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// MiB in a second of the slower one: host 2's disk, or the link.
pub(super) struct Slowest<'a> {
    hosts: &'a Hosts,
}

impl<'a> Slowest<'a> {
    pub(super) fn new(hosts: &'a Hosts) -> Slowest<'a> {
        Slowest { hosts }
    }

    fn link(&self, seconds: f64) -> Result<f64, Failure> {
        let iperf = std::path::Path::new("iperf3");
        let missing = |e| Failure::new(format!("iperf3 could not be started: {e}; see ./setup --for bench"));
        let mut server = on(2, iperf).args(["-s", "-p", IPERF_PORT]).stdout(Stdio::null()).spawn().map_err(missing)?;
        let mut bits = None;
        let asked = until("iperf3 tells a rate", || {
            let seconds = format!("{}", seconds.ceil().max(1.0));
            let ended = on(1, iperf).args(["-c", ADDRESSES[1], "-p", IPERF_PORT, "-J", "-t", &seconds]).output();
            let told = ended.ok().and_then(|e| serde_json::from_slice::<Value>(&e.stdout).ok());
            bits = told.and_then(|t| t["end"]["sum_received"]["bits_per_second"].as_f64());
            bits.is_some()
        });
        let _ = server.kill();
        let _ = server.wait();
        asked?;
        bits.map(|b| b / 8.0 / MIB).ok_or_else(|| Failure::new("iperf3 told no rate"))
    }
}

impl Arm for Slowest<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let link = self.link(seconds / 2.0)?;
        let job = NbdJob { pattern: Pattern::Write, block: 1 << 20, depth: 8, size: self.hosts.size / 4 * 3 };
        let disk = fio::file(&self.hosts.disk(1, "plain"), job, seconds / 2.0)?;
        Ok(Measured { per_second: disk.per_second.min(link), ops: disk.ops, cpu_s: None })
    }
}

/// The peer's replica is made anew on a disk of zeroes; the primary's has other bytes everywhere.
fn renew_peer(hosts: &Hosts) -> Result<(), Failure> {
    hosts.kill(2, "c");
    let record = hosts.folder(2).join("c.toml");
    fs::remove_file(&record).map_err(|e| Failure::at(&record, e))?;
    let disk = hosts.disk(2, "c");
    fs::remove_file(&disk).map_err(|e| Failure::at(&disk, e))?;
    fio::fill(&disk, hosts.size, true)?;
    hosts.create(2, "c")
}

/// Waits until host 1 is the source of a synchronisation.
fn until_source(hosts: &Hosts) -> Result<(), Failure> {
    until("a synchronisation is under way", || {
        hosts.status(1, "c").is_ok_and(|s| s["peers"][0]["connection"] == "SyncSource")
    })
}

/// A full synchronisation, MiB in a second.
pub(super) struct Resync<'a> {
    hosts: &'a Hosts,
}

impl<'a> Resync<'a> {
    pub(super) fn new(hosts: &'a Hosts) -> Resync<'a> {
        Resync { hosts }
    }
}

impl Arm for Resync<'_> {
    fn prepare(&mut self) -> Result<(), Failure> {
        renew_peer(self.hosts)
    }

    fn measure(&mut self, _: f64) -> Result<Measured, Failure> {
        let moved = |s: &Value| s["peers"][0]["synchronised"].clone();
        self.hosts.up(2, "c")?;
        until_source(self.hosts)?;
        let begun = Instant::now();
        self.hosts.until_equal("c")?;
        let sent = moved(&self.hosts.status(1, "c")?)["sent"].as_f64().unwrap_or(0.0) * 4096.0 / MIB;
        if sent < self.hosts.size as f64 / MIB / 4.0 {
            return Err(Failure::new(format!("only {sent} MiB were sent: the disks differed in too little")));
        }
        Ok(Measured { per_second: sent / begun.elapsed().as_secs_f64(), ops: sent as u64, cpu_s: None })
    }
}

/// A load beside a full synchronisation: the inverse of its 99th percentile.
pub(super) struct Bulk<'a> {
    hosts: &'a Hosts,
    load: Load,
}

impl<'a> Bulk<'a> {
    pub(super) fn new(hosts: &'a Hosts, load: Load) -> Bulk<'a> {
        Bulk { hosts, load }
    }
}

impl Arm for Bulk<'_> {
    fn prepare(&mut self) -> Result<(), Failure> {
        renew_peer(self.hosts)?;
        self.hosts.up(2, "c")?;
        until_source(self.hosts)
    }

    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let told = self.load.run(self.hosts, "c", seconds)?;
        if self.hosts.status(1, "c")?["peers"][0]["connection"] != "SyncSource" {
            return Err(Failure::new("the synchronisation was over before the load was: give a larger --size"));
        }
        Ok(Measured { per_second: 1e6 / told.p99_us, ops: told.ops, cpu_s: None })
    }

    fn tidy(&mut self) -> Result<(), Failure> {
        self.hosts.until_equal("c")
    }
}

/// The same load without one.
pub(super) struct Alone<'a> {
    hosts: &'a Hosts,
    load: Load,
}

impl<'a> Alone<'a> {
    pub(super) fn new(hosts: &'a Hosts, load: Load) -> Alone<'a> {
        Alone { hosts, load }
    }
}

impl Arm for Alone<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let told = self.load.run(self.hosts, "c", seconds)?;
        Ok(Measured { per_second: 1e6 / told.p99_us, ops: told.ops, cpu_s: None })
    }
}
