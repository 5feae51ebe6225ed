//! A network of the benchmark's own: a namespace for each node, all on one bridge in another, which nft cuts. Dropped, it is gone.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Failure;

const PORT: u16 = 7790;

/// See the module.
pub struct Apart {
    name: String,
    nodes: u8,
}

impl Apart {
    /// For nodes 1 to `nodes`.
    pub fn new(nodes: u8) -> Result<Apart, Failure> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("sfb{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let net = Apart { name, nodes };
        let switch = net.space(0);
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for n in 1..=nodes {
            let (space, port, address) = (net.space(n), format!("p{n}"), format!("{}/24", net.address(n)));
            ip(&["netns", "add", &space])?;
            ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    fn space(&self, n: u8) -> String {
        format!("{}n{n}", self.name)
    }

    fn address(&self, n: u8) -> String {
        format!("10.78.0.{n}")
    }

    /// Where the nodes listen.
    pub fn addresses(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| format!("{}:{PORT}", self.address(n))).collect()
    }

    /// What `nsenter` is called with.
    pub fn door(&self, n: u8) -> String {
        format!("--net=/run/netns/{}", self.space(n))
    }

    /// From one moment on nobody hears this node, nor it anybody.
    pub fn cut_off(&self, n: u8) -> Result<(), Failure> {
        self.nft(&format!(
            "add table bridge cut\nadd chain bridge cut f {{ type filter hook forward priority 0; }}\n\
             add rule bridge cut f iifname \"p{n}\" drop\nadd rule bridge cut f oifname \"p{n}\" drop\n"
        ))
    }

    /// Everybody hears everybody.
    pub fn mend(&self) -> Result<(), Failure> {
        self.nft("add table bridge cut\ndelete table bridge cut\n")
    }

    fn nft(&self, rules: &str) -> Result<(), Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("nft: {e}"));
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.space(0), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes()).map_err(failed)?;
        }
        match child.wait().map_err(failed)?.success() {
            true => Ok(()),
            false => Err(Failure::new("nft refused to cut the network")),
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for n in 0..=self.nodes {
            // What was never made cannot be taken away.
            let _ = ip(&["netns", "del", &self.space(n)]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let output = Command::new("ip").args(args).output().map_err(|e| Failure::new(format!("ip: {e}")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}
