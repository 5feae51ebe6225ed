//! Discovery and what a unit tells of itself.

use block::buf::AlignedBuf;
use iscsi::discovery::Portal;
use iscsi::session::{Cause, Class, Outcome};
use iscsi_initiator::discovery::{DiscoveryError, discover};
use iscsi_initiator::unit::attach;
use scsi::LunAddress;

use crate::tgt::{DISK, HOST, TARGET, Tgt, run, workers};

#[test]
fn a_portal_tells_its_targets() {
    let Some(tgt) = Tgt::start() else { return };
    let (workers, portal) = (workers(), tgt.portal());
    let handle = workers.handle();
    let found = run(&workers, move || async move { discover(&handle, HOST, &portal, None).await }).expect("discovers");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, TARGET);
    assert_eq!(found[0].portals[0].0, tgt.portal());
}

#[test]
fn a_portal_where_nobody_listens_is_told_at_once() {
    let workers = workers();
    let handle = workers.handle();
    // Port 1 of the loopback: nobody's.
    let portal = Portal { host: "127.0.0.1".into(), port: 1 };
    let failed =
        run(&workers, move || async move { discover(&handle, HOST, &portal, None).await }).expect_err("nobody");
    assert!(matches!(failed, DiscoveryError::Session { cause: Cause::Connect, .. }), "{failed}");
}

#[test]
fn a_unit_tells_what_it_is() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    let identity = run(&workers, move || async move {
        let lun = LunAddress::new(1).expect("in range");
        let identity = attach(&session, lun).await;
        let caw = scsi::cdb::CompareAndWrite::new(scsi::Lba(0), 1).cdb(scsi::BlockLen::B512).expect("fits");
        let memory = Some(AlignedBuf::zeroed(1024));
        let refused = session.carry_out(lun, caw, Class::Control, memory).await.outcome;
        let Outcome::Answered(answer) = refused else { panic!("{refused:?}") };
        // Its page of limits promises 128 blocks; only the command itself tells that tgt does not have it.
        assert_eq!(answer.status, scsi::Status::CheckCondition);
        let missing = attach(&session, LunAddress::new(9).expect("in range")).await;
        assert!(missing.is_err(), "there is no unit 9: {missing:?}");
        session.close().await;
        identity
    })
    .expect("attaches");
    assert_eq!(identity.geometry.len.0, DISK);
    assert_eq!(identity.inquiry.vendor, "IET");
    assert!(!identity.read_only && identity.geometry.discard);
    assert!(identity.identification.and_then(|i| i.unit_name().cloned()).is_some(), "it has a name of its own");
    assert_eq!(identity.limits.max_compare_and_write, 128, "what its page says");
}
