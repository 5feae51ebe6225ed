//! `volume check` of a mounted volume: made at its coordinator, whichever node was asked.
//!
//! Another node's check is a *job* there: the node that was asked names it by a number of its own and asks again and again
//! until it is done, and is told each time how far it has come. So no question between nodes waits for longer than
//! [`TURN`], and a job that nobody asks for any more is forgotten.
//!
//! Refused: a repair. What is mounted is in the memory of its coordinator and its clients, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use csv_fs::coordinator::CheckError;
use csv_fs::volume::Volume;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::node::{NodeParts, node_id};
use super::talk::NodeTalk;
use super::told::Known;
use crate::api::{CheckAnswer, CheckReport, CheckedOn, Node, Progress, Route};
use crate::exit::{Exit, Failure};
use crate::pace::Pace;

/// How long a node keeps the one that asks for its job waiting.
const TURN: Duration = Duration::from_secs(1);
/// How long that may take on the way.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Jobs that ended and were not fetched are forgotten after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Jobs of other nodes at a time: each asks for one check of one volume.
const MAX_JOBS: usize = 64;
/// How long a check waits for a coordinator: longer than a takeover takes with the timers for real disks.
const OFFICE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long other nodes may take to tell who coordinates.
const WORDS_WITHIN: Duration = Duration::from_secs(2);

/// How a job is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Job {
    /// Under way; how far.
    Running(String),
    /// Done.
    Ended(Result<Box<CheckReport>, Failure>),
}

/// The jobs of other nodes.
#[derive(Default)]
pub(super) struct Jobs(Mutex<BTreeMap<u64, (watch::Receiver<Job>, Instant)>>);

impl Jobs {
    /// The job of that number; started if it is not known.
    fn of(&self, number: u64, start: impl FnOnce() -> watch::Receiver<Job>) -> Result<watch::Receiver<Job>, Failure> {
        let mut jobs = self.0.lock();
        jobs.retain(|_, (job, asked)| {
            let ended = matches!(*job.borrow(), Job::Ended(_));
            !ended || asked.elapsed() < FORGOTTEN_AFTER
        });
        if let Some((job, asked)) = jobs.get_mut(&number) {
            *asked = Instant::now();
            return Ok(job.clone());
        }
        if jobs.len() >= MAX_JOBS {
            return Err(Failure::failed("Too many checks are under way there.", "Try again later."));
        }
        let job = start();
        jobs.insert(number, (job.clone(), Instant::now()));
        Ok(job)
    }
}

impl NodeParts {
    /// Checks a volume where it is coordinated; if nobody has it mounted, tells where it lies. While the office is moving
    /// it waits for the next coordinator.
    pub(super) async fn check(
        self: &Arc<Self>,
        name: &str,
        repair: bool,
        progress: &Progress,
    ) -> Result<CheckAnswer, Failure> {
        let deadline = Instant::now() + OFFICE_WITHIN;
        loop {
            match self.check_once(name, repair, progress).await {
                Err(e) if e.kind == Exit::Failed && Instant::now() < deadline => tokio::time::sleep(AGAIN_AFTER).await,
                done => return done,
            }
        }
    }

    async fn check_once(
        self: &Arc<Self>,
        name: &str,
        repair: bool,
        progress: &Progress,
    ) -> Result<CheckAnswer, Failure> {
        let record = self.record(name)?;
        let Some(coordinator) = self.coordinator_of(name).await? else {
            return Ok(CheckAnswer::Unmounted { disks: record.disks });
        };
        if repair {
            return Err(Failure::new(
                Exit::Refused,
                format!("Volume {name} is mounted: a repair would change it behind the nodes that use it."),
                format!("Unmount it on every node (`shorefast volume unmount {name}`), then repeat; or add --dry-run."),
            ));
        }
        progress.say(format!("Checking {name} at its coordinator, {coordinator}."));
        let report = if coordinator == self.bundle.node {
            let progress = progress.clone();
            check_here(self.running(name)?, self.bundle.node, move |line| progress.say(line)).await?
        } else {
            self.check_there(name, coordinator, progress).await?
        };
        Ok(CheckAnswer::Checked(Box::new(report)))
    }

    /// Who coordinates a volume; `None` if no node that answers has it mounted.
    async fn coordinator_of(self: &Arc<Self>, name: &str) -> Result<Option<Node>, Failure> {
        let mut words = self.own_word();
        let here = words.iter().any(|told| told.name == name && told.known.is_some());
        if !here {
            words.extend(self.words_of_others(WORDS_WITHIN).await.into_iter().flat_map(|words| words.told));
        }
        words.retain(|told| told.name == name);
        if words.iter().all(|told| told.here.route == Route::Unmounted) {
            return Ok(None);
        }
        let known = Known::best(words.iter().filter_map(|told| told.known.as_ref()));
        known.and_then(|k| k.coordinator).map(Some).ok_or_else(|| {
            Failure::failed(
                format!("Volume {name} has no coordinator at the moment."),
                "See `shorefast status`, and try again.",
            )
        })
    }

    async fn check_there(&self, name: &str, node: Node, progress: &Progress) -> Result<CheckReport, Failure> {
        let number = job_number();
        let mut said = String::new();
        loop {
            let talk = NodeTalk::Check { name: name.to_owned(), job: number };
            match self.talk(node_id(node), &talk, TURN_WITHIN).await {
                Some(NodeTalk::CheckJob(Job::Running(line))) => {
                    if line != said {
                        progress.say(line.clone());
                        said = line;
                    }
                }
                Some(NodeTalk::CheckJob(Job::Ended(result))) => return result.map(|report| *report),
                Some(NodeTalk::Done(Err(failure))) => return Err(failure),
                _ => {
                    return Err(Failure::failed(
                        format!("{node}, the coordinator of {name}, does not answer any more."),
                        "See `shorefast status`, and try again.",
                    ));
                }
            }
        }
    }

    /// Another node's job: started if it is new, then waited for a little.
    pub(super) async fn job(&self, name: &str, number: u64) -> Result<Job, Failure> {
        let volume = self.running(name)?;
        let node = self.bundle.node;
        let mut job = self.jobs.of(number, || {
            let (tell, job) = watch::channel(Job::Running("Checking.".to_owned()));
            tokio::spawn(async move {
                let told = tell.clone();
                let result = check_here(volume, node, move |line| drop(told.send(Job::Running(line)))).await;
                // Nobody may ask any more.
                let _ = tell.send(Job::Ended(result.map(Box::new)));
            });
            job
        })?;
        let ended = |job: &Job| matches!(job, Job::Ended(_));
        let _ = tokio::time::timeout(TURN, job.wait_for(ended)).await;
        let now = job.borrow().clone();
        Ok(now)
    }
}

/// A number that no other job has.
fn job_number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Checks a volume whose coordinator is this node.
async fn check_here(
    volume: Arc<Volume>,
    node: Node,
    mut say: impl FnMut(String) + Send + 'static,
) -> Result<CheckReport, Failure> {
    let name = volume.name().to_owned();
    let moved = || {
        Failure::failed(
            format!("{node} is not the coordinator of {name} any more; the check was ended."),
            "See `shorefast status`, and try again.",
        )
    };
    let coordinator = volume.coordinator().ok_or_else(moved)?;
    let epoch = coordinator.epoch().0;
    let mut pace = Pace::new();
    let checked = coordinator.check(move |step| {
        if let Some(line) = pace.line(step) {
            say(line);
        }
    });
    match checked.await {
        Ok(report) => Ok(CheckReport::new(CheckedOn::Coordinator { node, epoch }, &report)),
        Err(CheckError::Ended) => Err(moved()),
        Err(CheckError::Store(e)) => Err(Failure::new(
            Exit::Problems,
            format!("The metadata of {name} cannot be read to their end: {e}."),
            format!("Unmount {name} on every node and check it again: that looks at the database below, too."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> watch::Receiver<Job> {
        watch::channel(Job::Running("so far".into())).1
    }

    #[test]
    fn a_job_is_begun_once_and_found_again_by_its_number() {
        let jobs = Jobs::default();
        let mut begun = 0;
        for _ in 0..3 {
            let job = jobs.of(7, || {
                begun += 1;
                running()
            });
            assert!(matches!(*job.expect("there is room").borrow(), Job::Running(_)));
        }
        assert_eq!(begun, 1);
    }

    #[test]
    fn more_jobs_than_there_is_room_for_are_refused() {
        let jobs = Jobs::default();
        for n in 0..MAX_JOBS as u64 {
            jobs.of(n, running).expect("there is room");
        }
        let refused = jobs.of(1000, running).expect_err("too many");
        assert_eq!(refused.kind, Exit::Failed);
        jobs.of(3, running).expect("it is known");
    }
}
