//! A network of the test's own: a namespace for each node, all on one bridge in another, and nft to cut it. Packets of a cut
//! link vanish; nobody is told.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The port of every replica; each is alone in its namespace.
pub(crate) const PORT: u16 = 7790;

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
}

/// Gone at the end, and with it all that is in it.
pub(crate) struct Network {
    name: String,
    nodes: usize,
}

impl Network {
    /// None, said aloud, where that cannot be made.
    pub(crate) fn new(nodes: usize) -> Option<Network> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("sfq{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let network = Network { name, nodes };
        if network.make() {
            return Some(network);
        }
        println!("skipped: network namespaces with nft cannot be made (root, ip and nft are needed)");
        None
    }

    fn make(&self) -> bool {
        let switch = self.space(0);
        let mut made = runs("ip", &["netns", "add", &switch]);
        made &= runs("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        made &= runs("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        for n in 1..=self.nodes {
            let (space, port, address) = (self.space(n), format!("p{n}"), format!("{}/24", self.address(n)));
            made &= runs("ip", &["netns", "add", &space]);
            let pair = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space];
            made &= runs("ip", &[&["-n", switch.as_str()][..], &pair].concat());
            made &= runs("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            made &= runs("ip", &["-n", &space, "addr", "add", &address, "dev", "eth0"]);
            made &= runs("ip", &["-n", &space, "link", "set", "eth0", "up"]);
            made &= runs("ip", &["-n", &space, "link", "set", "lo", "up"]);
            made &= self.nft(n, &["add", "table", "inet", "cut"]);
            for (chain, hook) in [("i", "input"), ("o", "output"), ("slow", "output")] {
                let base = format!("{{ type filter hook {hook} priority 0; }}");
                made &= self.nft(n, &["add", "chain", "inet", "cut", chain, &base]);
            }
        }
        made
    }

    /// The namespace of a node; 0 is the bridge's.
    pub(crate) fn space(&self, n: usize) -> String {
        format!("{}n{n}", self.name)
    }

    /// What `nsenter` is called with to be there, in the mounts of this process.
    pub(crate) fn door(&self, n: usize) -> String {
        format!("--net=/run/netns/{}", self.space(n))
    }

    pub(crate) fn address(&self, n: usize) -> String {
        format!("10.77.0.{n}")
    }

    fn nft(&self, n: usize, args: &[&str]) -> bool {
        let space = self.space(n);
        runs("ip", &[&["netns", "exec", space.as_str(), "nft"][..], args].concat())
    }

    /// Two nodes do not hear one another any more.
    pub(crate) fn cut(&self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            let address = self.address(other);
            for (chain, side) in [("i", "saddr"), ("o", "daddr")] {
                let rule = ["add", "rule", "inet", "cut", chain, "ip", side, &address, "drop"];
                assert!(self.nft(at, &rule), "nft {rule:?}");
            }
        }
    }

    /// What the first of a pair sends does not reach the second any more, of all these pairs from one moment on; the other
    /// way it does. At the switch.
    pub(crate) fn cut_ways(&self, ways: &[(usize, usize)]) {
        let drop =
            |(from, to): &(usize, usize)| format!("add rule bridge cut f iifname \"p{from}\" oifname \"p{to}\" drop\n");
        let chain = "add table bridge cut\nadd chain bridge cut f { type filter hook forward priority 0; }\n";
        self.at_the_switch(&(chain.to_owned() + &ways.iter().map(drop).collect::<String>()));
    }

    /// All of that at once, or nothing.
    fn at_the_switch(&self, rules: &str) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.space(0), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip runs");
        nft.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("it reads");
        assert!(nft.wait().expect("it is our child").success(), "nft {rules}");
    }

    /// A node hears nobody.
    pub(crate) fn isolate(&self, node: usize) {
        (1..=self.nodes).filter(|n| *n != node).for_each(|n| self.cut(node, n));
    }

    /// Everybody hears everybody.
    pub(crate) fn mend(&self) {
        for n in 1..=self.nodes {
            for chain in ["i", "o"] {
                assert!(self.nft(n, &["flush", "chain", "inet", "cut", chain]), "nft flush");
            }
        }
        self.at_the_switch("add table bridge cut\ndelete table bridge cut\n");
    }

    /// A node sends no more than so many KiB a second; what is more is dropped.
    pub(crate) fn throttle(&self, node: usize, kib: u32) {
        let rate = kib.to_string();
        let rule = ["add", "rule", "inet", "cut", "slow", "limit", "rate", "over", &rate, "kbytes/second", "drop"];
        assert!(self.nft(node, &rule), "nft {rule:?}");
    }

    /// Every link is as fast as it can be.
    pub(crate) fn unthrottle(&self) {
        for n in 1..=self.nodes {
            assert!(self.nft(n, &["flush", "chain", "inet", "cut", "slow"]), "nft flush");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for n in 0..=self.nodes {
            runs("ip", &["netns", "del", &self.space(n)]);
        }
    }
}
