//! The image and the patterns, seen from outside: one child fills the image, one a node verifies all patterns.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::NODES;
use super::interrupt::Interrupt;
use super::load::SLOTS;
use super::task::Spawner;
use super::verify::{Expected, Verdict};
use super::writer::Manifest;
use crate::api::Node;
use crate::exit::Failure;

/// Filling 64 MiB, or reading a few hundred, on a slow machine.
const LIMIT: Duration = Duration::from_secs(90);

/// Makes the shared image through a mount.
pub(crate) fn fill(spawner: &Spawner, mount: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
    let args: [OsString; 6] = [
        "--mount".into(),
        mount.into(),
        "--slots".into(),
        SLOTS.to_string().into(),
        "--nodes".into(),
        NODES.to_string().into(),
    ];
    spawner.start("demo-fill", args)?.finish(LIMIT, interrupt, |_| ())
}

/// Verifies every pattern through every mount; the verdicts, by node.
pub(crate) fn verify(
    spawner: &Spawner,
    mounts: &[(Node, PathBuf)],
    manifests: Vec<Manifest>,
    killed: &[Node],
    interrupt: &Interrupt,
) -> Result<Vec<(Node, Verdict)>, Failure> {
    let expected = Expected { manifests, killed: killed.iter().map(|n| n.number()).collect() };
    let input = serde_json::to_string(&expected)
        .map_err(|e| Failure::failed(format!("What was written cannot be told: {e}."), "That is a defect."))?;
    let mut tasks = Vec::new();
    for (node, mount) in mounts {
        let mut task = spawner.start("demo-verify", [OsString::from("--mount"), mount.into()])?;
        task.tell(&input);
        task.hush();
        tasks.push((*node, task));
    }
    let mut verdicts = Vec::new();
    for (node, task) in &mut tasks {
        let mut verdict = None;
        task.finish(LIMIT, interrupt, |line| verdict = serde_json::from_str(line).ok())?;
        let none = || Failure::failed(format!("The verification through {node} told nothing."), "That is a defect.");
        verdicts.push((*node, verdict.ok_or_else(none)?));
    }
    Ok(verdicts)
}
