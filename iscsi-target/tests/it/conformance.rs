//! libiscsi's public suite for targets (`iscsi-test-cu`, Debian's libiscsi-bin) against ours.

use crate::rig::{Rig, run};

#[test]
#[ignore = "long: the whole public suite"]
fn public_suite() {
    let rig = Rig::file(256 << 20);
    let which = std::env::var("SUITE").unwrap_or_else(|_| "ALL".into());
    let Some((_, text)) = run("iscsi-test-cu", 600, &["--dataloss", "-v", "-t", &which, &rig.url(0)]) else { return };
    println!("{text}");
}
