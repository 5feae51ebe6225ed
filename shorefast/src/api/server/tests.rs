use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::api::{CheckAnswer, Client, CreateVolume, DiskFault, Node, NodeInfo, Pending, Status, VolumeStatus};
use crate::clock::WallTime;
use crate::events::{Code, Draft, EventLog};

/// A node that knows nothing but itself.
struct Lonely {
    log: Arc<EventLog>,
}

fn none<T: Send + 'static>() -> Pending<'static, T> {
    Box::pin(async { Err(Failure::new(Exit::NotFound, "No such volume.", "Make one.")) })
}

impl NodeControl for Lonely {
    fn status(&self) -> Pending<'_, Status> {
        Box::pin(async {
            Ok(Status {
                schema: 1,
                cluster: "lab".to_owned(),
                cluster_id: String::new(),
                list_version: 1,
                node: one(),
                pid: 1,
                version: String::new(),
                started: WallTime(0),
                at: WallTime(0),
                nodes: Vec::new(),
                volumes: Vec::new(),
                problems: Vec::new(),
            })
        })
    }
    fn nodes(&self) -> Pending<'_, Vec<NodeInfo>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn volumes(&self) -> Pending<'_, Vec<VolumeStatus>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn volume_create(&self, _: CreateVolume, progress: Progress) -> Pending<'_, VolumeStatus> {
        progress.say("formatting");
        none()
    }
    fn volume_mount(&self, _: String) -> Pending<'_, VolumeStatus> {
        none()
    }
    fn volume_unmount(&self, _: String, _: bool) -> Pending<'_, ()> {
        Box::pin(async { panic!("a defect of the node") })
    }
    fn volume_move(&self, _: String, _: Node, _: Progress) -> Pending<'_, VolumeStatus> {
        none()
    }
    fn volume_redirect(&self, _: String, _: bool, _: Option<Node>) -> Pending<'_, ()> {
        none()
    }
    fn volume_check(&self, _: String, _: bool, _: Progress) -> Pending<'_, CheckAnswer> {
        none()
    }
    fn node_drain(&self, _: Option<Node>, _: bool, _: Progress) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn node_remove(&self, _: Node, _: Progress) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn leave(&self) -> Pending<'_, ()> {
        self.stop()
    }

    fn stop(&self) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.log)
    }
    fn debug_disk(&self, _: DiskFault) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn debug_evict(&self, _: String, _: Node) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

fn one() -> Node {
    Node::new(1).expect("a node")
}

/// A server on a socket of its own, and the log behind it.
struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
    log: Arc<EventLog>,
}

async fn start() -> Fixture {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("run/api.sock");
    let log = Arc::new(EventLog::new(one()));
    let server = Server::bind(&path).expect("binds");
    let node = Arc::new(Lonely { log: Arc::clone(&log) });
    tokio::spawn(async move { server.serve(node).await });
    Fixture { _dir: dir, path, log }
}

/// Sends what no command would, and reads to the end.
async fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    stream.shutdown().await.expect("ends its side");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("reads");
    text
}

/// Runs a blocking client.
async fn ask<T: Send + 'static>(path: &Path, f: impl FnOnce(Client) -> T + Send + 'static) -> T {
    let client = Client::new(path);
    tokio::task::spawn_blocking(move || f(client)).await.expect("no panic")
}

#[tokio::test]
async fn a_request_is_answered_with_one_last_line() {
    let fixture = start().await;
    let status = ask(&fixture.path, |c| c.status()).await.expect("answers");
    assert_eq!(status.cluster, "lab");
    let text = raw(&fixture.path, b"{\"version\":1,\"request\":\"volumes\"}\n").await;
    assert_eq!(text, "{\"version\":1,\"answer\":{\"ok\":{\"volumes\":[]}}}\n");
}

#[tokio::test]
async fn progress_comes_before_the_daemons_own_exit_code() {
    let fixture = start().await;
    let (lines, failure) = ask(&fixture.path, |c| {
        let mut lines = Vec::new();
        let ask = CreateVolume { name: "a".into(), disks: Vec::new(), wipe: None, timing: crate::api::Timing::Fast };
        let failure = c.call(Request::VolumeCreate(ask), |l| lines.push(l.to_owned())).expect_err("refused");
        (lines, failure)
    })
    .await;
    assert_eq!((lines, failure.kind), (vec!["formatting".to_owned()], Exit::NotFound));
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_with_a_reason() {
    let fixture = start().await;
    let long = vec![b'x'; MAX_REQUEST + 1];
    for (bytes, word) in [
        (&b"{\"version\":7,\"request\":\"status\"}\n"[..], "version 7"),
        (b"{\"version\":1,\"request\":\"explode\"}\n", "explode"),
        (b"\xff\n", "UTF-8"),
        (&long, "one line of at most"),
    ] {
        let text = raw(&fixture.path, bytes).await;
        assert!(text.contains("\"kind\":\"usage\"") && text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_panic_in_the_node_is_an_answer_and_not_a_hang() {
    let fixture = start().await;
    let ask_it = |c: Client| c.call(Request::VolumeUnmount { name: "a".into(), force: false }, |_| ());
    let failure = ask(&fixture.path, ask_it).await.expect_err("fails");
    assert!(failure.message.contains("dropped"), "{failure}");
    assert!(ask(&fixture.path, |c| c.status()).await.is_ok(), "the daemon goes on");
}

#[tokio::test]
async fn followed_events_arrive_as_they_happen_and_in_order() {
    let fixture = start().await;
    fixture.log.record(Draft::node(Code::PeerUp, "first"));
    let log = Arc::clone(&fixture.log);
    let seen = ask(&fixture.path, move |c| {
        let mut seen = Vec::new();
        c.events(true, 0, |event| {
            seen.push(event.message);
            log.record(Draft::node(Code::PeerUp, "another"));
            seen.len() < 3
        })
        .map(|()| seen)
    })
    .await;
    assert_eq!(seen, Ok(["first", "another", "another"].map(str::to_owned).into()));
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("api.sock");
    let server = Server::bind(&path).expect("binds");
    assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, SOCKET_MODE);
    assert!(matches!(Server::bind(&path), Err(ServerError::InUse(_))), "a living daemon's socket was taken");
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_command_names_its_death() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("api.sock");
    let none = Client::new(&path).status().expect_err("nobody there");
    assert!(none.kind == Exit::NotFound && none.message.contains("no socket"), "{none}");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    let dead = Client::new(&path).status().expect_err("dead");
    assert!(dead.message.contains("dead"), "{dead}");
    Server::bind(&path).expect("takes its place");
}

#[tokio::test]
async fn more_connections_than_the_bound_are_turned_away_and_room_comes_back() {
    let fixture = start().await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(&fixture.path).await.expect("connects");
        stream
            .write_all(b"{\"version\":1,\"request\":{\"events\":{\"follow\":true,\"after\":0}}}\n")
            .await
            .expect("writes");
        held.push(stream);
    }
    let refused = ask(&fixture.path, |c| c.status()).await.expect_err("full");
    assert!(refused.message.contains("serves 64"), "{refused}");
    drop(held);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while ask(&fixture.path, |c| c.status()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the room never came back");
        tokio::task::yield_now().await;
    }
}
