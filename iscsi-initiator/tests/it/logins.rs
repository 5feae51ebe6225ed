//! Logins in every combination, against a target that negotiates for itself.

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::units::ByteOffset;
use iscsi::chap::{Account, Algorithm, Chap, Secret};
use iscsi::keys::params::{DigestWish, Offer};
use iscsi::login::LoginError;
use iscsi::session::{Cause, FenceGen};
use iscsi_initiator::unit::attach;
use iscsi_initiator::{LunDevice, Ownership, Session};
use scsi::LunAddress;

use crate::tgt::{Tgt, run, workers};

fn account(name: &str, secret: &str) -> Account {
    Account { name: name.into(), secret: Secret::new(secret).expect("long enough") }
}

fn chap(mutual: bool, algorithms: &[Algorithm]) -> Chap {
    let target = mutual.then(|| account("outuser", "outsecret1234"));
    Chap::new(account("inuser", "insecret12345"), target, algorithms.to_vec()).expect("two secrets")
}

/// Writes and reads back a piece that is longer than every burst, so that data travel in each way the keys allow.
async fn write_and_read(session: &Session, n: u8) {
    let identity = attach(session, LunAddress::new(1).expect("in range")).await.expect("attaches");
    let device = LunDevice::new(session.clone(), identity, FenceGen(0));
    let bytes: Vec<u8> = (0..300_032_u32).map(|i| (i as u8).wrapping_mul(31) ^ n).collect();
    let (result, _) = device.write(ByteOffset(512), AlignedBuf::from_slice(&bytes)).await;
    result.expect("writes");
    let read = device.read(ByteOffset(512), bytes.len()).await.expect("reads");
    assert!(*read == *bytes, "what was written is read");
}

/// auth x digests x InitialR2T x ImmediateData x segment sizes: 2 x 4 x 2 x 2 x 3 = 96 logins, each with I/O in every
/// way of moving data. The target's own keys change with the segment size.
#[test]
fn every_combination_of_keys_logs_in_and_moves_data() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    let mut n = 0_u8;
    for authenticated in [false, true] {
        if authenticated {
            tgt.account("inuser", "insecret12345", false);
        }
        for segment in ["8192", "65536", "262144"] {
            for (key, value) in [
                ("MaxRecvDataSegmentLength", segment),
                ("MaxXmitDataSegmentLength", segment),
                ("FirstBurstLength", segment),
                ("InitialR2T", "No"),
                ("MaxOutstandingR2T", "8"),
            ] {
                tgt.set(key, value);
            }
            for bits in 0..16_u8 {
                let wish = |bit: u8| if bits & bit != 0 { DigestWish::Always } else { DigestWish::Never };
                let offer = Offer {
                    header_digest: wish(1),
                    data_digest: wish(2),
                    initial_r2t: bits & 4 != 0,
                    immediate_data: bits & 8 != 0,
                    max_recv_segment: segment.parse().expect("a number"),
                    ..Offer::default()
                };
                let digests = |name: &str, on: bool| tgt.set(name, if on { "CRC32C" } else { "None" });
                digests("HeaderDigest", bits & 1 != 0);
                digests("DataDigest", bits & 2 != 0);
                let chap = authenticated.then(|| chap(false, &[]));
                let config = tgt.config(u16::from(n), chap, offer.clone());
                let session = Session::start(&workers.handle(), 0, config, Ownership::Alone);
                n += 1;
                run(&workers, move || async move {
                    let (_, params) = session.up().await.unwrap_or_else(|e| panic!("combination {n}: {e}"));
                    assert_eq!(params.digests.header, bits & 1 != 0, "combination {n}");
                    assert_eq!(params.digests.data, bits & 2 != 0, "combination {n}");
                    assert_eq!(params.initial_r2t, offer.initial_r2t);
                    assert_eq!(params.immediate_data, offer.immediate_data);
                    write_and_read(&session, n).await;
                    session.close().await;
                });
            }
        }
    }
    assert_eq!(n, 96);
}

fn cause_of(tgt: &Tgt, chap: Option<Chap>) -> Result<(), Cause> {
    let workers = workers();
    let config = tgt.config(200, chap, Offer::default());
    let session = Session::start(&workers.handle(), 0, config, Ownership::Alone);
    run(&workers, move || async move {
        let result = session.up().await.map(drop);
        session.close().await;
        result
    })
}

#[test]
fn authentication_is_as_strict_as_it_was_asked_to_be() {
    let Some(tgt) = Tgt::start() else { return };
    tgt.account("inuser", "insecret12345", false);
    assert_eq!(cause_of(&tgt, Some(chap(false, &[]))), Ok(()));
    let refused = cause_of(&tgt, None).expect_err("it wants a secret");
    assert!(matches!(refused, Cause::Login(_)), "{refused}");
    let wrong = Chap::new(account("inuser", "another-secret"), None, vec![]).expect("one secret");
    let refused = cause_of(&tgt, Some(wrong)).expect_err("the secret is wrong");
    assert!(matches!(refused, Cause::Login(LoginError::Refused { class: 2, .. })), "{refused}");
    // A target without a secret of its own must not pass for one that has proved itself.
    let refused = cause_of(&tgt, Some(chap(true, &[]))).expect_err("the target proves nothing");
    assert!(matches!(refused, Cause::Login(_)), "{refused}");
    tgt.account("outuser", "outsecret1234", true);
    assert_eq!(cause_of(&tgt, Some(chap(true, &[]))), Ok(()));
    let target = Some(account("outuser", "not-its-secret"));
    let wrong = Chap::new(account("inuser", "insecret12345"), target, vec![]).expect("two secrets");
    let refused = cause_of(&tgt, Some(wrong)).expect_err("the target's secret is wrong");
    assert!(refused.to_string().contains("did not prove itself"), "{refused}");
}

/// tgt calls SHA-1 number 7: with the right secret the login fails, and with the list of its own it does not.
#[test]
fn a_targets_list_of_algorithms_is_its_own() {
    let Some(tgt) = Tgt::start() else { return };
    tgt.account("inuser", "insecret12345", false);
    assert!(cause_of(&tgt, Some(chap(false, &[Algorithm::Sha256, Algorithm::Md5]))).is_err());
    assert_eq!(cause_of(&tgt, Some(chap(false, &[Algorithm::Md5]))), Ok(()));
}

#[test]
fn a_redirect_is_followed() {
    let (Some(old), Some(new)) = (Tgt::start(), Tgt::start_at("127.0.0.2")) else { return };
    old.set("RedirectAddress", "127.0.0.2");
    old.set("RedirectPort", &new.port.to_string());
    old.set("RedirectReason", "Temporary");
    let workers = workers();
    let session = old.session(&workers, 1);
    run(&workers, move || async move {
        session.up().await.expect("is redirected");
        write_and_read(&session, 1).await;
        session.close().await;
    });
}

#[test]
fn redirects_in_a_circle_are_left_with_their_reason() {
    let (Some(one), Some(two)) = (Tgt::start_at("127.0.0.2"), Tgt::start_at("127.0.0.3")) else { return };
    for (from, host, to) in [(&one, "127.0.0.3", &two), (&two, "127.0.0.2", &one)] {
        from.set("RedirectAddress", host);
        from.set("RedirectPort", &to.port.to_string());
        from.set("RedirectReason", "Temporary");
    }
    let workers = workers();
    let session = one.session(&workers, 1);
    let cause = run(&workers, move || async move {
        let mut state = session.state();
        loop {
            match &*state.borrow_and_update() {
                iscsi_initiator::SessionState::Down(Some(cause)) => return cause.clone(),
                iscsi_initiator::SessionState::Up { .. } => panic!("nobody lets it in"),
                _ => {}
            }
            state.changed().await.expect("goes on");
        }
    });
    assert_eq!(cause, Cause::RedirectLoop);
}
