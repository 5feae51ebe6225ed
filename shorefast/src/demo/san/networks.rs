//! Networks of their own for nodes and a disk array: a namespace for each host, three bridges in another one, and nft there to cut
//! what leads to a host. Packets of a cut way vanish; nobody is told.
//!
//! Uses `ip` and `nft`, needs root, and takes everything away when it is dropped. Also used by the tests of the program.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The disk array's number among the hosts; nodes have their own.
pub(crate) const ARRAY: usize = 100;

/// One of the networks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Net {
    /// Between the nodes.
    Heartbeat,
    /// From each node to the disk array's first portal.
    StorageA,
    /// From each node to its second one.
    StorageB,
}

impl Net {
    /// All of them.
    pub(crate) const ALL: [Net; 3] = [Net::Heartbeat, Net::StorageA, Net::StorageB];
    /// Those that lead to the disk array.
    pub(crate) const STORAGE: [Net; 2] = [Net::StorageA, Net::StorageB];

    /// Its letter, in names of interfaces and bridges.
    fn letter(self) -> char {
        match self {
            Net::Heartbeat => 'h',
            Net::StorageA => 'a',
            Net::StorageB => 'b',
        }
    }

    fn third_byte(self) -> u8 {
        match self {
            Net::Heartbeat => 0,
            Net::StorageA => 1,
            Net::StorageB => 2,
        }
    }

    /// Where a host is on it.
    pub(crate) fn address(self, host: usize) -> String {
        format!("10.78.{}.{host}", self.third_byte())
    }
}

/// Gone at the end, and with it all that is in it.
#[derive(Debug)]
pub(crate) struct Networks {
    name: String,
    hosts: Vec<usize>,
    cut: Mutex<BTreeSet<(usize, Net)>>,
}

impl Networks {
    /// For so many nodes and a disk array. `name` is of this process, and short.
    pub(crate) fn make(name: &str, nodes: usize) -> io::Result<Networks> {
        let hosts = (1..=nodes).chain([ARRAY]).collect();
        let networks = Networks { name: name.to_owned(), hosts, cut: Mutex::default() };
        let switch = networks.space(0);
        runs("ip", &["netns", "add", &switch], "")?;
        let bridges = Net::ALL.map(|net| format!("link add br{0} type bridge\nlink set br{0} up\n", net.letter()));
        runs("ip", &["-n", &switch, "-batch", "-"], &bridges.concat())?;
        for host in &networks.hosts {
            networks.make_host(*host)?;
        }
        networks.rule()?;
        Ok(networks)
    }

    fn make_host(&self, host: usize) -> io::Result<()> {
        let (switch, space) = (self.space(0), self.space(host));
        runs("ip", &["netns", "add", &space], "")?;
        // The disk array is not asked for anything by the nodes' own network.
        let nets = Net::ALL.into_iter().filter(|net| host != ARRAY || *net != Net::Heartbeat);
        let (mut there, mut here) = ("link set lo up\n".to_owned(), String::new());
        for net in nets {
            let (port, letter) = (port(host, net), net.letter());
            here += &format!("link add {port} type veth peer name {letter}0 netns {space}\n");
            here += &format!("link set {port} master br{letter} up\n");
            there += &format!("addr add {}/24 dev {letter}0\nlink set {letter}0 up\n", net.address(host));
        }
        runs("ip", &["-n", &switch, "-batch", "-"], &here)?;
        runs("ip", &["-n", &space, "-batch", "-"], &there)
    }

    /// The namespace of a host; 0 is the bridges'.
    pub(crate) fn space(&self, host: usize) -> String {
        format!("{}n{host}", self.name)
    }

    /// All namespaces.
    pub(crate) fn spaces(&self) -> Vec<String> {
        std::iter::once(&0).chain(&self.hosts).map(|host| self.space(*host)).collect()
    }

    /// What `nsenter` is called with to be on a host's networks, in the mounts of this process.
    pub(crate) fn door(&self, host: usize) -> String {
        format!("--net=/run/netns/{}", self.space(host))
    }

    /// From one moment on nothing comes from or to a host on these networks.
    pub(crate) fn cut(&self, host: usize, nets: &[Net]) -> io::Result<()> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).extend(nets.iter().map(|net| (host, *net)));
        self.rule()
    }

    /// Everything goes through again.
    pub(crate) fn mend(&self) -> io::Result<()> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.rule()
    }

    /// At the switch, all of it at once.
    fn rule(&self) -> io::Result<()> {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rules = "add table bridge cut\ndelete table bridge cut\nadd table bridge cut\n".to_owned();
        rules += "add chain bridge cut f { type filter hook forward priority 0; }\n";
        for (host, net) in cut.iter() {
            let port = port(*host, *net);
            rules += &format!("add rule bridge cut f iifname \"{port}\" drop\n");
            rules += &format!("add rule bridge cut f oifname \"{port}\" drop\n");
        }
        runs("ip", &["netns", "exec", &self.space(0), "nft", "-f", "-"], &rules)
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for space in self.spaces() {
            remove(&space);
        }
    }
}

/// Takes a namespace away, if it is there.
pub(crate) fn remove(space: &str) {
    let quiet = Command::new("ip").args(["netns", "del", space]).stdin(Stdio::null()).output();
    // One that is not there, or whose maker never got so far, is what is wanted.
    drop(quiet);
}

/// The switch's end of a host's way.
fn port(host: usize, net: Net) -> String {
    format!("{}{host}", net.letter())
}

/// Runs a program to its end, with something on its standard input; fails with what it said.
fn runs(program: &str, args: &[&str], input: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended without reading says why itself.
        drop(stdin.write_all(input.as_bytes()));
    }
    let ended = child.wait_with_output()?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(format!("{program} {}: {}", args.join(" "), said.trim())))
}
