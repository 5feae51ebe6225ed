//! Daemons of a user without any right, whose mounts fusermount3 makes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;

use crate::fixture::{Cluster, PROGRAM, can_mount, mounts_below, path, until};

/// Opens a file for as long as another file is not there; then prints what it met, "ERRNO TIMES" a line, 0 for success. For
/// each time that it succeeds after failures, the first among them, it makes a file of the second's name and a number.
const OPENER: &str = r#"
    my ($file, $stop) = @ARGV;
    my (%met, $could, $n);
    until (-e $stop) {
        my $done = open(my $f, '<', $file);
        $met{$done ? 0 : $! + 0}++;
        if ($done && !$could) { $n++; open(my $sign, '>', "$stop.$n") or die "$stop.$n: $!" }
        $could = $done;
    }
    print "$_ $met{$_}\n" for sort keys %met;
"#;

/// Everything in the cluster's folder is the other user's, who has a copy of the program there.
struct Nobody {
    cluster: Cluster,
    wrapper: Vec<String>,
}

impl Nobody {
    /// `None` with the reason said, if no other user can mount here.
    fn new() -> Option<Nobody> {
        if !can_mount() {
            return None;
        }
        let cluster = Cluster::new(1);
        cluster.disk("v.img", 2 << 30);
        if !rustix::process::geteuid().is_root() {
            return Some(Nobody { cluster, wrapper: Vec::new() });
        }
        let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(String::from).to_vec();
        let nobody = Nobody { cluster, wrapper };
        if !nobody.command("test").args(["-w", "/dev/fuse"]).status().is_ok_and(|s| s.success()) {
            println!("skipped: users other than root may not open /dev/fuse here");
            return None;
        }
        fs::copy(PROGRAM, nobody.program()).expect("copies");
        let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(&nobody.cluster.dir).status();
        assert!(owned.is_ok_and(|s| s.success()));
        Some(nobody)
    }

    fn program(&self) -> String {
        if self.wrapper.is_empty() { PROGRAM.into() } else { path(&self.cluster.dir.join("shorefast")).into() }
    }

    fn command(&self, program: &str) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command
    }

    fn start(&mut self) {
        let words: Vec<String> = self.wrapper.iter().cloned().chain([self.program()]).collect();
        self.cluster.start_as(1, &words);
    }

    fn started_with_volume() -> Option<Nobody> {
        let mut nobody = Nobody::new()?;
        nobody.start();
        let disk = nobody.cluster.dir.join("v.img");
        let create = ["volume", "create", "v", "--timing", "fast", "--disk", path(&disk)];
        nobody.cluster.ask(1, &create).expect(0, &[]);
        Some(nobody)
    }

    fn opener(&self, file: &Path, until: &Path) -> Child {
        let mut command = self.command("perl");
        command.args(["-e", OPENER]).args([file, until]).stdout(Stdio::piped());
        command.spawn().expect("perl runs")
    }

    /// What lies where volumes are mounted; touches no mount.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cluster.node_dir(1).join("mnt")).expect("lists");
        entries.map(|e| e.expect("lists").file_name().into_string().expect("plain")).collect()
    }
}

fn met(opener: Child) -> BTreeMap<i32, u64> {
    let out = opener.wait_with_output().expect("it ends").stdout;
    let out = String::from_utf8(out).expect("plain");
    let pairs = out.lines().filter_map(|l| l.split_once(' '));
    pairs.map(|(errno, times)| (errno.parse().expect("a number"), times.parse().expect("a number"))).collect()
}

/// fusermount3 has to take the dead mount away before it makes the new one. A program that opened its file in between was
/// told that there was none.
#[test]
fn without_root_no_open_ever_finds_the_place_of_a_dead_mount_bare() {
    let Some(mut nobody) = Nobody::started_with_volume() else { return };
    let (file, stop) = (nobody.cluster.mount(1, "v").join("file"), nobody.cluster.dir.join("stop"));
    let made = nobody.command("sh").args(["-c", "echo told > \"$0\"", path(&file)]).status();
    assert!(made.is_ok_and(|s| s.success()), "{}", nobody.cluster.log(1));
    let opener = nobody.opener(&file, &stop);
    let opens = |n: u32| until("the open after failures", || stop.with_extension(n.to_string()).exists());
    opens(1);
    for n in 2..6 {
        nobody.cluster.kill(1);
        nobody.start();
        until("the new mount", || nobody.cluster.is_mounted(1));
        let said = nobody.cluster.events(1);
        assert!(said.iter().any(|(code, _)| code == "stale-mount-cleaned"), "{said:?}");
        opens(n);
    }
    // The dead ones go some time after they have been replaced.
    until("the end of the dead mounts", || mounts_below(&nobody.cluster.dir).len() == 1);
    fs::write(&stop, "").expect("writes");
    let met = met(opener);
    assert!(met.contains_key(&0), "it was never opened: {met:?}");
    assert!(met.len() > 1, "it never met the dead mount: {met:?}");
    let allowed = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO].map(|e| e.raw_os_error());
    let others: Vec<_> = met.keys().filter(|e| **e != 0 && !allowed.contains(e)).collect();
    assert!(others.is_empty(), "{met:?}");
    assert_eq!(nobody.cluster.stop(1), 0, "{}", nobody.cluster.log(1));
    assert_eq!(mounts_below(&nobody.cluster.dir), Vec::<std::path::PathBuf>::new());
    assert_eq!(nobody.names(), Vec::<String>::new(), "something is left where the volume was mounted");
}

#[test]
fn without_root_a_link_or_a_directory_in_the_way_is_kept_or_replaced_as_it_deserves() {
    let Some(mut nobody) = Nobody::started_with_volume() else { return };
    let point = nobody.cluster.mount(1, "v");
    nobody.cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    assert_eq!(nobody.names(), Vec::<String>::new());
    // Somebody's link.
    symlink("/etc", &point).expect("links");
    nobody.cluster.ask(1, &["volume", "mount", "v"]).expect(1, &["not a directory"]);
    assert_eq!(fs::read_link(&point).expect("it is there"), Path::new("/etc"));
    fs::remove_file(&point).expect("removes");
    // Somebody's files.
    fs::create_dir(&point).expect("a folder");
    fs::write(point.join("precious"), "x").expect("writes");
    nobody.cluster.ask(1, &["volume", "mount", "v"]).expect(1, &["not empty"]);
    assert!(point.join("precious").exists());
    fs::remove_file(point.join("precious")).expect("removes");
    // An empty directory, as an earlier version mounted on.
    nobody.cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    let to = fs::read_link(&point).expect("a link");
    let bare = mounts_below(&nobody.cluster.dir);
    assert_eq!(bare, [point.with_file_name(to)]);
    // Taken away from outside: nothing can be written into what is left, and that goes, too.
    let unmounted = nobody.command("fusermount3").args(["-u", path(&bare[0])]).status();
    assert!(unmounted.is_ok_and(|s| s.success()));
    nobody.cluster.until_event(1, "mount-lost", "umount");
    until("the end of the link and its directory", || nobody.names().is_empty());
    nobody.cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    assert_eq!(nobody.cluster.stop(1), 0, "{}", nobody.cluster.log(1));
    assert_eq!(nobody.names(), Vec::<String>::new());
}
