//! Writes in place whose answers are lost, while others write the same block.

mod random;

use std::sync::Arc;

use super::rig::*;
use crate::client::data::OpenFile;
use crate::core::client::Route;
use crate::core::rules::Rule;

const WITHOUT: Lacking = Lacking::Rule(Rule::AskedBeforeRepeated);

/// Two nodes that write one file in place, and nobody else.
async fn beside(cluster: &Cluster) -> (Arc<Node>, Arc<OpenFile>, Node, Arc<OpenFile>) {
    let (a, b) = (Arc::new(cluster.node(1)), cluster.node(2));
    let at_a = a.create("f").await;
    a.write(&at_a, 0, &[1; 65_536]).await;
    a.fsync(&at_a).await;
    let at_b = b.open(at_a.ino()).await;
    // The first takes the exclusive right back that the file was made under.
    for _ in 0..2 {
        a.write(&at_a, 0, &[1; 4096]).await;
        b.write(&at_b, 8192, &[1; 4096]).await;
    }
    (a, at_a, b, at_b)
}

/// A node writes `data` at the beginning of the file; ready when that is answered.
fn write(node: &Arc<Node>, file: &Arc<OpenFile>, data: Vec<u8>) -> tokio::task::JoinHandle<()> {
    let (node, file) = (Arc::clone(node), Arc::clone(file));
    tokio::spawn(async move { node.write(&file, 0, &data).await })
}

/// Until `b` has heard of a moment of `a` that is later than this call.
async fn marked(b: &Node, a: &Node) {
    let client = a.session.client();
    let before = b.path.heard_of(client);
    until(|| b.path.heard_of(client) > before + 1).await;
}

/// A write of `a` is executed and its answer is lost with its path; `b` writes some of the same blocks, then `a` may go on. What `b` reads
/// of the first two blocks.
async fn with_the_path(cluster: &Cluster, ours: usize, theirs: usize) -> Vec<u8> {
    let (a, at_a, b, at_b) = beside(cluster).await;
    a.below.keep();
    let stuck = write(&a, &at_a, vec![2; ours]);
    until(|| a.below.kept() > 0).await;
    assert_eq!(b.read(&at_b, 0, 4096).await, [2; 4096], "it is executed");
    marked(&b, &a).await;
    b.write(&at_b, 0, &vec![3; theirs]).await;
    assert_eq!(b.read(&at_b, 0, theirs as u32).await, vec![3; theirs]);
    a.fault.hang();
    a.below.answer();
    tokio::time::timeout(SOON, stuck).await.expect("in time").unwrap();
    let seen = b.read(&at_b, 0, 8192).await;
    assert_eq!(a.read(&at_a, 0, 8192).await, seen);
    a.fault.heal();
    a.routed(Route::Direct).await;
    a.write(&at_a, 0, &[4; 4096]).await;
    assert_eq!(b.read(&at_b, 0, 4096).await, [4; 4096]);
    cluster.must_be_clean().await;
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d26_a_write_whose_answer_its_path_has_lost_does_not_undo_another_nodes() {
    let seen = with_the_path(&Cluster::new().await, 4096, 4096).await;
    assert_eq!(seen, [[3; 4096], [1; 4096]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d26_of_a_write_in_doubt_what_nobody_wrote_since_is_written() {
    let seen = with_the_path(&Cluster::new().await, 8192, 4096).await;
    assert_eq!(seen, [[3; 4096], [2; 4096]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d26_without_the_rule_a_write_whose_answer_was_lost_undoes_another_nodes() {
    let seen = with_the_path(&Cluster::lacking(WITHOUT).await, 4096, 4096).await;
    assert_eq!(seen, [[2; 4096], [1; 4096]].concat());
}

/// The same with the coordinator over which it went.
async fn with_the_coordinator(mut cluster: Cluster) -> Vec<u8> {
    let (a, at_a, b, at_b) = beside(&cluster).await;
    a.session.force_redirect(true);
    a.routed(Route::BlockRedirected).await;
    *a.fate.lock() = Fate::WriteLostWithCoordinator;
    let stuck = write(&a, &at_a, vec![2; 4096]);
    until(|| *a.fate.lock() == Fate::Arrives).await;
    assert_eq!(b.read(&at_b, 0, 4096).await, [2; 4096], "it is executed");
    marked(&b, &a).await;
    b.write(&at_b, 0, &[3; 4096]).await;
    assert_eq!(b.read(&at_b, 0, 4096).await, [3; 4096]);
    cluster.take_office(4).await;
    tokio::time::timeout(SOON, stuck).await.expect("in time").unwrap();
    b.read(&at_b, 0, 4096).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d27_a_write_whose_answer_a_coordinator_has_taken_along_does_not_undo_another_nodes() {
    assert_eq!(with_the_coordinator(Cluster::new().await).await, [3; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d27_without_the_rule_a_redirected_write_whose_answer_was_lost_undoes_another_nodes() {
    assert_eq!(with_the_coordinator(Cluster::lacking(WITHOUT).await).await, [2; 4096]);
}

/// What nobody else wrote is written, in doubt or not: also what was never executed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d28_a_write_that_was_not_executed_is_after_all_though_others_write_beside_it() {
    let cluster = Cluster::new().await;
    let (a, at_a, b, at_b) = beside(&cluster).await;
    // Before that of the other node: it is not undone by it.
    b.write(&at_b, 0, &[3; 4096]).await;
    a.fault.hang();
    let stuck = write(&a, &at_a, vec![2; 4096]);
    until(|| a.fault.held() > 0).await;
    marked(&b, &a).await;
    b.write(&at_b, 4096, &[3; 4096]).await;
    tokio::time::timeout(SOON, stuck).await.expect("in time").unwrap();
    assert_eq!(b.read(&at_b, 0, 8192).await, [[2; 4096], [3; 4096]].concat());
}

/// The same within a node: two of its programs write one block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d29_of_two_programs_of_a_node_the_later_write_stays() {
    let cluster = Cluster::new().await;
    let (a, at_a, b, at_b) = beside(&cluster).await;
    a.below.keep();
    let first = write(&a, &at_a, vec![2; 4096]);
    until(|| a.below.kept() == 1).await;
    a.below.pass();
    a.write(&at_a, 0, &[3; 4096]).await;
    assert_eq!(b.read(&at_b, 0, 4096).await, [3; 4096]);
    a.fault.hang();
    a.below.answer();
    tokio::time::timeout(SOON, first).await.expect("in time").unwrap();
    assert_eq!(b.read(&at_b, 0, 4096).await, [3; 4096]);
}

/// A file of 1024 bytes in one block, which two nodes have open.
async fn short(cluster: &Cluster) -> (Arc<Node>, Arc<OpenFile>, Node, Arc<OpenFile>) {
    let (a, b) = (Arc::new(cluster.node(1)), cluster.node(2));
    let at_a = a.create("f").await;
    a.write(&at_a, 0, &[1; 1024]).await;
    a.fsync(&at_a).await;
    let at_b = b.open(at_a.ino()).await;
    b.write(&at_b, 0, &[1; 512]).await;
    (a, at_a, b, at_b)
}

/// The other node writes a block back as it found it, but for its own bytes: of what was not executed nothing was overwritten by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d28_what_is_written_back_around_anothers_bytes_does_not_count_as_written() {
    let cluster = Cluster::new().await;
    let (a, at_a, b, at_b) = short(&cluster).await;
    a.write(&at_a, 0, &[1; 512]).await;
    a.fault.hang();
    let stuck = write(&a, &at_a, vec![2; 512]);
    until(|| a.fault.held() > 0).await;
    marked(&b, &a).await;
    // Behind the end, so that what lies between is zeroed; and in the middle.
    b.write(&at_b, 2000, &[3; 100]).await;
    b.write(&at_b, 100, &[4; 100]).await;
    tokio::time::timeout(SOON, stuck).await.expect("in time").unwrap();
    let mut expected = [vec![2; 512], vec![1; 512], vec![0; 976], vec![3; 100]].concat();
    expected[100..200].fill(4);
    assert_eq!(b.read(&at_b, 0, 4096).await, expected);
    cluster.must_be_clean().await;
}

/// It is not taken for one whose bytes were cut off since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d28_a_write_that_makes_its_file_longer_within_its_block_is_there_after_its_path_was_lost() {
    for (at, len) in [(1024, 512), (512, 2048), (0, 4096)] {
        let cluster = Cluster::new().await;
        let (a, at_a, _, _) = short(&cluster).await;
        a.fault.hang();
        a.write(&at_a, at, &vec![2; len]).await;
        let mut expected = vec![1; 1024];
        expected.resize((at as usize + len).max(1024), 0);
        expected[at as usize..at as usize + len].fill(2);
        assert_eq!(a.read(&at_a, 0, 8192).await, expected, "{len} bytes at {at}");
        assert_eq!(a.attr(at_a.ino()).await.size, expected.len() as u64);
    }
}
