//! Takeover of a killed coordinator, by the number of files in the volume.

use std::thread;
use std::time::{Duration, Instant};

use super::{Bench, Round, Row, coordinator, ms, until_direct};
use crate::Failure;
use crate::cluster::{Cluster, Kind};
use crate::meta::million::{FILES_EACH, fill, mounted_everywhere};
use crate::takeover::load::{Load, Taken};

const REACH: f64 = 500.0;
/// After the kill.
const WINDOW: Duration = Duration::from_secs(2);
/// Whom the round before killed counts again: nodes must have heard one another for two seconds before any of them may take office.
const WELL: Duration = Duration::from_secs(3);

pub(super) fn run(bench: &Bench<'_>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    for files in [0, 100_000, 1_000_000] {
        let what = format!("takeover, killed, {files} files");
        if !bench.wants(&what) {
            continue;
        }
        let mut cluster = bench.cluster(Kind::timed("fast"))?;
        if files > 0 {
            mounted_everywhere(&cluster, false)?;
            fill(&cluster.disk(), files / FILES_EACH).map_err(|e| Failure::at(&cluster.disk(), e))?;
            mounted_everywhere(&cluster, true)?;
            cluster.wait_until(0, "a coordinator", |status| status["volumes"][0]["coordinator"].is_u64())?;
        }
        rows.push(bench.row(&what, REACH, bench.rounds, |n| round(&mut cluster, n))?);
    }
    Ok(())
}

fn round(cluster: &mut Cluster, n: usize) -> Result<Round, Failure> {
    let victim = coordinator(cluster, None)?;
    let load = Load::start(cluster, n)?;
    thread::sleep(WELL);
    let killed = Instant::now();
    cluster.kill(victim)?;
    thread::sleep(WINDOW.saturating_sub(killed.elapsed()));
    let survivors: Vec<Taken> = load.stop()?.into_iter().filter(|t| t.node != victim).collect();
    let first = survivors.iter().filter_map(|t| t.first_after(killed)).min();
    cluster.start_daemon(victim)?;
    until_direct(cluster, victim)?;
    let ms = ms(first.ok_or_else(|| Failure::new("no survivor could create a file"))?);
    Ok(Round { ms, failures: survivors.into_iter().flat_map(|t| t.failures).collect() })
}
