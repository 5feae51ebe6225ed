//! Logins from the target's side, against requests made by hand and against the initiator's own login.

use iscsi::chap::{Account, Chap, Secret};
use iscsi::ids::{Isid, Itt};
use iscsi::keys::params::DigestWish;
use iscsi::login::{Kind, Login as Initiator, LoginConfig, LoginError, Step as Heard};

use super::*;

const TARGET_NAME: &str = "iqn.2026-01.test:t";
const ENTROPY: Entropy = Entropy { identifier: 5, challenge: [7; 16] };

fn account(name: &str, secret: &str) -> Account {
    Account { name: name.into(), secret: Secret::new(secret).expect("long enough") }
}

fn policy(chap: bool) -> Policy {
    let chap = chap.then(|| ChapPolicy {
        accounts: vec![account("in", "secret-of-12"), account("other", "another-one-of-them")],
        own: Some(account("out", "secret-of-the-target")),
    });
    let offer = Offer { header_digest: DigestWish::Rather, data_digest: DigestWish::Rather, ..Offer::default() };
    Policy { target: TARGET_NAME.into(), initiators: None, chap, redirect: None, offer }
}

/// A whole login of our own initiator; the target's end of it, with how many requests it took.
fn between(config: LoginConfig, policy: &Policy) -> Result<(Begin, iscsi::login::Established, u32), LoginError> {
    let entropy = iscsi::chap::Entropy { identifier: 9, challenge: [1; 16] };
    let (mut initiator, mut request) = Initiator::begin(config, Itt(3), CmdSn(40), entropy);
    let mut target = Box::new(Login::new(4, ENTROPY));
    for n in 1.. {
        let (response, done) = match target.answer(&request.bhs, &request.text, policy) {
            Step::Reply(next, response) => {
                target = next;
                (response, None)
            }
            Step::Refuse(response, _) => {
                *target = Login::new(4, ENTROPY);
                (response, None)
            }
            Step::Enter(entering) => {
                *target = Login::new(4, ENTROPY);
                let (response, begin) = entering.accept(77);
                (response, Some(begin))
            }
        };
        match initiator.answer(&response.bhs, &response.text)? {
            Heard::Send(next, more) => (initiator, request) = (*next, more),
            Heard::Done(established) => return Ok((done.expect("both are done"), *established, n)),
            Heard::Redirected { .. } => panic!("not redirected"),
        }
    }
    unreachable!("a login ends")
}

fn config(chap: Option<Chap>) -> LoginConfig {
    let mut config =
        LoginConfig::new("iqn.2026-01.test:i", Isid::from_number(1, 1), Kind::Normal { target: TARGET_NAME.into() });
    config.chap = chap;
    config
}

#[test]
fn both_ends_come_to_the_same_parameters() {
    let mut wanted = config(None);
    wanted.offer.header_digest = DigestWish::Rather;
    wanted.offer.max_recv_segment = 32768;
    let (begin, established, _) = between(wanted, &policy(false)).expect("it is let in");
    assert_eq!(established.tsih.0, 77);
    assert_eq!(established.group.map(|g| g.0), Some(4));
    assert_eq!((begin.cmd_sn, begin.stat_sn), (established.exp_cmd_sn, established.exp_stat_sn));
    assert_eq!(established.max_cmd_sn, established.exp_cmd_sn.plus(WINDOW - 1));
    let (ours, theirs) = (begin.params, established.params);
    assert_eq!((ours.max_send_segment, theirs.max_recv_segment), (32768, 32768));
    assert_eq!(ours.max_recv_segment, theirs.max_send_segment);
    assert_eq!(
        (ours.digests, ours.max_burst, ours.first_burst),
        (theirs.digests, theirs.max_burst, theirs.first_burst)
    );
    assert!(ours.digests.header && !ours.digests.data);
    assert_eq!((ours.initial_r2t, ours.immediate_data), (theirs.initial_r2t, theirs.immediate_data));
}

#[test]
fn discovery_needs_no_name_of_a_target() {
    let wanted = LoginConfig::new("iqn.2026-01.test:i", Isid::from_number(1, 1), Kind::Discovery);
    let (begin, ..) = between(wanted, &policy(false)).expect("it is let in");
    assert!(begin.discovery);
}

#[test]
fn chap_is_one_way_or_mutual_with_every_algorithm() {
    use iscsi::chap::Algorithm;
    for algorithm in [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha3_256] {
        for target in [None, Some(account("out", "secret-of-the-target"))] {
            let chap = Chap::new(account("in", "secret-of-12"), target, vec![algorithm]).expect("two secrets");
            between(config(Some(chap)), &policy(true)).expect("both prove themselves");
        }
    }
    let wrong = Some(account("out", "not-the-targets-secret"));
    let chap = Chap::new(account("in", "secret-of-12"), wrong, vec![]).expect("two secrets");
    assert!(matches!(between(config(Some(chap)), &policy(true)), Err(LoginError::Chap(_))));
}

#[test]
fn who_does_not_prove_itself_is_refused_whatever_it_tries() {
    let refused = |name: &str, secret: &str| {
        let chap = Chap::new(account(name, secret), None, vec![]).expect("a secret");
        matches!(between(config(Some(chap)), &policy(true)), Err(LoginError::Refused { class: 2, detail: 1 }))
    };
    assert!(refused("in", "secret-of-13"), "a wrong secret");
    assert!(refused("in", "another-one-of-them"), "another account's secret");
    assert!(refused("nobody", "secret-of-12"), "an unknown name");
    assert!(matches!(between(config(None), &policy(true)), Err(LoginError::Refused { class: 2, detail: 1 })));
    // Past the security stage, and out of it before the answer.
    let keys = format!("InitiatorName=iqn.2026-01.test:i\0TargetName={TARGET_NAME}\0");
    assert_eq!(refusal(&policy(true), &[(TRANSIT | OPERATIONAL << 2 | FULL_FEATURE, &keys)]), Some((2, 1)));
    let chosen = format!("{keys}AuthMethod=CHAP\0");
    let out = TRANSIT | OPERATIONAL;
    let steps = [(out, chosen.as_str()), (out, "CHAP_A=5\0"), (out, "CHAP_N=in\0CHAP_R=0x00\0")];
    assert_eq!(refusal(&policy(true), &steps), Some((2, 1)));
    assert_eq!(refusal(&policy(true), &steps[..2]), None, "it is still asked, and not let out of the stage");
    // This target's own challenge sent back to it.
    let mine = iscsi::text::value::to_hex(&ENTROPY.challenge);
    let right = iscsi::chap::Algorithm::Md5.respond(5, &account("in", "secret-of-12").secret, &ENTROPY.challenge);
    let reflected = format!("CHAP_N=in\0CHAP_R={}\0CHAP_I=5\0CHAP_C={mine}\0", iscsi::text::value::to_hex(&right));
    let steps = [(0, chosen.as_str()), (0, "CHAP_A=5\0"), (out, reflected.as_str())];
    assert_eq!(refusal(&policy(true), &steps), Some((2, 1)));
}

/// Sends these requests (flags and text); how the last one is refused, if it is.
fn refusal(policy: &Policy, requests: &[(u8, &str)]) -> Option<(u8, u8)> {
    let mut login = Box::new(Login::new(1, ENTROPY));
    for (flags, text) in requests {
        let request = LoginRequest { flags: *flags, itt: 1.into(), ..LoginRequest::default() };
        match login.answer(&request, text.as_bytes(), policy) {
            Step::Reply(next, _) => login = next,
            Step::Refuse(response, _) => return Some((response.bhs.status_class, response.bhs.status_detail)),
            Step::Enter(_) => return None,
        }
    }
    None
}

#[test]
fn what_is_no_login_is_refused_with_the_status_that_says_why() {
    let names = format!("InitiatorName=iqn.2026-01.test:i\0TargetName={TARGET_NAME}\0");
    let go = TRANSIT | OPERATIONAL << 2 | FULL_FEATURE;
    let refused = |flags, text: &str| refusal(&policy(false), &[(flags, text)]);
    assert_eq!(refused(go, &names), None);
    assert_eq!(refused(go, "TargetName=iqn.2026-01.test:t\0"), Some((2, 7)));
    assert_eq!(refused(go, "InitiatorName=iqn.2026-01.test:i\0"), Some((2, 7)));
    assert_eq!(refused(go, "InitiatorName=a\0TargetName=iqn.2026-01.test:x\0"), Some((2, 3)));
    assert_eq!(refused(go, &format!("{names}SessionType=Strange\0")), Some((2, 9)));
    assert_eq!(refused(go, &format!("{names}SendTargets=All\0")), Some((2, 0)), "not in a login");
    assert_eq!(refused(go, &format!("{names}MaxBurstLength=1\0")), Some((2, 0)), "no value of this key");
    assert_eq!(refused(go, &format!("{names}{names}")), Some((2, 0)), "a key twice");
    assert_eq!(refused(go, "no text"), Some((2, 0)));
    assert_eq!(refused(go | CONTINUE, &names), Some((2, 0)), "both the end and more to come");
    assert_eq!(refused(2 << 2, &names), Some((2, 0)), "a stage that is none");
    assert_eq!(refused(TRANSIT | OPERATIONAL << 2 | OPERATIONAL, &names), Some((2, 0)), "to where it is");
    let endless = vec![(OPERATIONAL << 2, ""); 40];
    let mut steps = vec![(OPERATIONAL << 2, names.as_str())];
    steps.extend(endless);
    assert_eq!(refusal(&policy(false), &steps), Some((2, 0)));
}

#[test]
fn lists_of_initiators_and_redirects_come_before_anything_else() {
    let names = format!("InitiatorName=iqn.2026-01.test:i\0TargetName={TARGET_NAME}\0");
    let go = TRANSIT | OPERATIONAL << 2 | FULL_FEATURE;
    let listed = |name: &str| Policy { initiators: Some(vec![name.into()]), ..policy(false) };
    assert_eq!(refusal(&listed("iqn.2026-01.test:i"), &[(go, &names)]), None);
    assert_eq!(refusal(&listed("iqn.2026-01.test:j"), &[(go, &names)]), Some((2, 2)));
    let there = Portal { host: "192.0.2.1".into(), port: 3260 };
    let moved = Policy { redirect: Some((there, true)), ..policy(true) };
    assert_eq!(refusal(&moved, &[(0, &names)]), Some((1, 2)));
}

#[test]
fn a_text_in_several_requests_is_one() {
    let names = format!("InitiatorName=iqn.2026-01.test:i\0TargetName={TARGET_NAME}\0");
    let (front, back) = names.split_at(20);
    let go = TRANSIT | OPERATIONAL << 2 | FULL_FEATURE;
    assert_eq!(refusal(&policy(false), &[(CONTINUE | OPERATIONAL << 2, front), (go, back)]), None);
}

#[test]
fn any_requests_are_answered_or_refused_within_the_bound() {
    bolero::check!().with_type::<(bool, Vec<(u8, Vec<u8>)>)>().for_each(|(chap, requests)| {
        let policy = policy(*chap);
        let mut login = Box::new(Login::new(1, ENTROPY));
        let words: [&[u8]; 12] = [
            b"InitiatorName=iqn.2026-01.test:i\0",
            b"TargetName=iqn.2026-01.test:t\0",
            b"SessionType=Discovery\0",
            b"AuthMethod=CHAP,None\0",
            b"CHAP_A=5\0",
            b"CHAP_N=in\0CHAP_R=0x00\0",
            b"CHAP_I=1\0CHAP_C=0x07\0",
            b"MaxBurstLength=65536\0",
            b"X-odd=1\0",
            b"HeaderDigest=CRC32C\0",
            b"=\0",
            b"InitialR2T=",
        ];
        for (n, (flags, text)) in requests.iter().enumerate() {
            let mut body: Vec<u8> = Vec::new();
            for b in text.iter().take(64) {
                match words.get(usize::from(*b)) {
                    Some(word) => body.extend_from_slice(word),
                    None => body.push(*b),
                }
            }
            let request = LoginRequest { flags: *flags, itt: 1.into(), ..LoginRequest::default() };
            match login.answer(&request, &body, &policy) {
                Step::Reply(next, response) => {
                    assert!(response.text.len() <= MAX_RESPONSE && n < MAX_ROUNDS as usize);
                    login = next;
                }
                Step::Refuse(response, _) => {
                    assert!(response.bhs.status_class > 0);
                    return;
                }
                Step::Enter(_) => {
                    assert!(!*chap, "nobody gets in without a proof");
                    return;
                }
            }
        }
    });
}
