//! `shorefast-bench`: the run behind `make bench`. Prepares everything in a folder of its own on a real disk, runs the
//! sections that were asked for, prints tables and writes one JSON object.
//!
//! It ends with 0 if it could measure, whatever the figures; with 1 if not. Daemons, mounts and files are taken away
//! in each case, also on Ctrl-C.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use benches::machine::Machine;
use benches::meta::{self, Meta};
use benches::report::Report;
use benches::solo::Solo;
use benches::{Effort, Failure, crowd, interrupt, iscsi, nbd, place, replica, survive, takeover, trio};
use clap::{Parser, ValueEnum};

/// Shorefast beside its peers, interleaved.
#[derive(Parser, Debug)]
#[command(name = "shorefast-bench", max_term_width = 100)]
struct Args {
    /// Interleaved pairs per row
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Seconds of each half of a pair
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Kills of the takeover section
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    kills: u16,
    /// MiB of each test file
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..))]
    size: u64,
    /// Only this section; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<Section>,
    /// Of sections inplace, meta, survive, replica, iscsi and target, only rows whose name contains this, for example "write 1m" or "create coord"
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    row: String,
    /// Volumes of section status; the reach is for 100
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    volumes: u8,
    /// A folder on a disk file system [default: the temporary one, or beside the program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the JSON goes [default: shorefast-bench.json beside the program]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Section {
    /// 4k random and 1 MiB sequential in place, beside the bare peer
    Inplace,
    /// The bare peer beside raw ext4
    Peer,
    /// Block-redirected beside direct
    Redirect,
    /// 1 MiB appends beside writes in place
    Append,
    /// Small files made durable, beside ext4
    Create,
    /// The coordinator is killed, again and again
    Takeover,
    /// A silent coordinator, one with many files, planned moves, changes of route
    Survive,
    /// Names, look-ups and locks on one node, another and three; a volume with a million files (row "million")
    Meta,
    /// The NBD server over a null device, beside nbdkit and qemu-nbd
    Nbd,
    /// Replicated devices on two hosts with a veth pair between, beside disks, links and devices without replication; as root
    Replica,
    /// The iSCSI initiator on tgt, beside iscsi-perf and qemu-img
    Iscsi,
    /// The iSCSI target beside tgt, on the same file, with our initiator as the client of both
    Target,
    /// `status` on 64 nodes with 100 volumes
    Status,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(why)) => {
            eprintln!("shorefast-bench: {why}");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("shorefast-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs and reports; why it ended early, if it did.
fn run(args: &Args) -> Result<Option<String>, Failure> {
    interrupt::listen()?;
    let effort = Effort {
        pairs: args.pairs.into(),
        seconds: args.seconds,
        kills: args.kills.into(),
        file_bytes: args.size << 20,
    };
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("where this program lies: {e}")))?;
    let programs = program.parent().map(Path::to_owned).unwrap_or_default();
    let needed = [
        Solo::needs(&effort),
        trio::needs(&effort),
        takeover::needs(),
        meta::needs(),
        survive::needs(),
        replica::needs(&effort),
        crowd::needs(),
    ]
    .into_iter()
    .max()
    .unwrap_or_default();
    let dir = place::make(args.dir.as_deref(), needed)?;
    let mut report = Report::new(Machine::look(dir.path()), effort);
    report.failure = sections(args, &programs, dir.path(), &mut report).err().map(|why| why.to_string());
    println!("{}", report.text());
    let json = args.json.clone().unwrap_or_else(|| programs.join("shorefast-bench.json"));
    let text = serde_json::to_string_pretty(&report).map_err(|e| Failure::new(format!("the report as JSON: {e}")))?;
    fs::write(&json, text + "\n").map_err(|e| Failure::at(&json, e))?;
    println!("also in {}", json.display());
    Ok(report.failure)
}

fn sections(args: &Args, programs: &Path, dir: &Path, report: &mut Report) -> Result<(), Failure> {
    let wanted = |s: Section| args.only.is_empty() || args.only.contains(&s);
    let effort = report.effort;
    if [Section::Inplace, Section::Peer, Section::Append, Section::Create].into_iter().any(wanted) {
        solo(args, &wanted, programs, dir, report)?;
    }
    if wanted(Section::Redirect) {
        for tls in [true, false] {
            eprintln!("redirect, TLS {}", if tls { "on" } else { "off" });
            let (table, memory) = trio::redirect(programs, dir, &effort, tls)?;
            report.tables.push(table);
            report.memory.extend(memory);
        }
    }
    if wanted(Section::Takeover) {
        eprintln!("takeover");
        let (takeover, memory) = takeover::run(programs, dir, &effort)?;
        report.takeover = Some(takeover);
        report.memory.extend(memory);
    }
    if wanted(Section::Survive) {
        eprintln!("silent coordinators, many files, moves, routes");
        report.survived = Some(survive::run(programs, dir, &effort, &args.row)?);
    }
    if wanted(Section::Meta) {
        // Named like a row: it takes minutes, and there is one of it.
        let million = "million".contains(&args.row);
        if !million || args.row.is_empty() {
            eprintln!("metadata, on three nodes");
            report.tables.extend(Meta::start(programs, dir, &effort)?.tables(&args.row)?);
        }
        if million {
            eprintln!("metadata, a million files");
            report.scale = Some(meta::million(programs, dir)?);
        }
    }
    if wanted(Section::Nbd) {
        eprintln!("NBD servers over null devices");
        report.tables.extend(nbd::run(programs, dir, &effort)?);
    }
    if wanted(Section::Replica) {
        eprintln!("replicated devices over a veth pair");
        report.tables.extend(replica::run(programs, dir, &effort, &args.row)?);
    }
    if wanted(Section::Iscsi) {
        eprintln!("the iSCSI initiator on tgt");
        report.tables.extend(iscsi::run(&effort, &args.row)?);
    }
    if wanted(Section::Target) {
        eprintln!("the iSCSI target beside tgt");
        let (tables, memory) = iscsi::target::run(programs, &effort, &args.row)?;
        report.tables.extend(tables);
        report.memory.extend(memory);
    }
    if wanted(Section::Status) {
        eprintln!("status on 64 nodes with 100 volumes");
        report.crowd = Some(crowd::run(programs, dir, &effort, args.volumes.into())?);
    }
    Ok(())
}

fn solo(
    args: &Args,
    wanted: &dyn Fn(Section) -> bool,
    programs: &Path,
    dir: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    eprintln!("one node, the bare peer and a local file, on {}", dir.display());
    let solo = Solo::start(programs, dir, &report.effort)?;
    if wanted(Section::Inplace) {
        report.tables.push(solo.in_place(&args.row)?);
    }
    if wanted(Section::Peer) {
        report.tables.extend(solo.peer()?);
    }
    if wanted(Section::Append) {
        report.tables.push(solo.append()?);
    }
    if wanted(Section::Create) {
        report.tables.extend(solo.create()?);
    }
    report.memory.extend(solo.memory()?);
    Ok(())
}
