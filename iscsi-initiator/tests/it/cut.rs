//! tgt in a network namespace of the test's own, and the network to it cut by nft: packets vanish, nobody is told.

use std::process::Command;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::units::ByteOffset;
use iscsi::keys::params::Offer;
use iscsi::session::FenceGen;
use iscsi_initiator::unit::attach;
use iscsi_initiator::{LunDevice, Ownership, Session, SessionState};
use scsi::LunAddress;

use crate::tgt::{Tgt, run, workers};

/// The target's port, in its own namespace.
const PORT: u16 = 3260;

/// A namespace behind a pair of interfaces; gone at the end, and with it all that is in it.
struct Net {
    name: String,
    outside: String,
    number: u32,
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
}

impl Net {
    /// None, said aloud, where that cannot be made.
    fn new() -> Option<Net> {
        let number = std::process::id() % 60_000;
        let net = Net { name: format!("sfi{number}"), outside: format!("sfi{number}o"), number };
        let inside = format!("sfi{number}i");
        let [here, there] = [net.address(1), net.address(2)].map(|a| format!("{a}/30"));
        let name = net.name.as_str();
        let ip = |args: &[&str]| runs("ip", args);
        let within = |args: &[&str]| runs("ip", &[&["netns", "exec", name][..], args].concat());
        let made = ip(&["netns", "add", name])
            && ip(&["link", "add", &net.outside, "type", "veth", "peer", "name", &inside, "netns", name])
            && ip(&["addr", "add", &here, "dev", &net.outside])
            && ip(&["link", "set", &net.outside, "up"])
            && within(&["ip", "addr", "add", &there, "dev", &inside])
            && within(&["ip", "link", "set", &inside, "up"])
            && within(&["nft", "add", "table", "inet", "cut"]);
        if !made {
            println!("skipped: a network namespace with nft cannot be made (root, ip and nft are needed)");
            return None;
        }
        Some(net)
    }

    /// Of a network of four addresses for each process.
    fn address(&self, host: u32) -> String {
        let n = self.number * 4 + host;
        format!("10.{}.{}.{}", 200 + (n >> 16), n >> 8 & 255, n & 255)
    }

    fn nft(&self, args: &[&str]) {
        let whole = [&["netns", "exec", &self.name, "nft"][..], args].concat();
        assert!(runs("ip", &whole), "nft {args:?}");
    }

    /// Nothing comes in and nothing goes out any more.
    fn cut(&self) {
        for (chain, hook) in [("i", "input"), ("o", "output")] {
            let base = format!("{{ type filter hook {hook} priority 0; policy drop; }}");
            self.nft(&["add", "chain", "inet", "cut", chain, &base]);
        }
    }

    fn mend(&self) {
        self.nft(&["delete", "chain", "inet", "cut", "i"]);
        self.nft(&["delete", "chain", "inet", "cut", "o"]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        runs("ip", &["link", "del", &self.outside]);
        runs("ip", &["netns", "del", &self.name]);
    }
}

#[test]
fn a_portal_that_is_cut_off_under_load_loses_no_request() {
    let Some(net) = Net::new() else { return };
    let Some(tgt) = Tgt::start_in(Some(&net.name), &net.address(2), PORT).map(Tgt::without_pauses) else { return };
    let workers = workers();
    let mut config = tgt.config(1, None, Offer::default());
    // A silent network is noticed sooner than an administrator would want it.
    config.timing.ping_after = Duration::from_millis(300);
    config.timing.ping_timeout = Duration::from_millis(300);
    config.timing.connect = Duration::from_millis(500);
    config.timing.login = Duration::from_secs(2);
    let session = Session::start(&workers.handle(), 0, config, Ownership::Alone);
    run(&workers, move || async move {
        let identity = attach(&session, LunAddress::new(1).expect("in range")).await.expect("attaches");
        let device = LunDevice::new(session.clone(), identity, FenceGen(0));
        let before = session.nexus();
        for round in 0..30_u64 {
            let block = |n: u64| AlignedBuf::from_slice(&(round * 100 + n).to_le_bytes().repeat(512));
            let writes: Vec<_> = (0..16).map(|n| device.write(ByteOffset(n * 4096), block(n))).collect();
            if round == 10 {
                net.cut();
                let mut state = session.state();
                let down = state.wait_for(|s| matches!(s, SessionState::Down(Some(_))));
                drop(down.await.expect("the session goes on"));
                net.mend();
            }
            for write in writes {
                write.await.0.expect("is sent again when the network is back");
            }
            let reads: Vec<_> = (0..16).map(|n| (n, device.read(ByteOffset(n * 4096), 4096))).collect();
            for (n, read) in reads {
                assert!(*read.await.expect("reads") == *block(n), "round {round}, block {n}");
            }
        }
        assert_ne!(session.nexus(), before, "it was begun anew");
        session.close().await;
        drop((net, tgt));
    });
}
