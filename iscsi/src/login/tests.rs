//! A login against a target that says, response by response, what a test wants it to say.

use super::*;
use crate::chap::{Account, Algorithm, CHALLENGE_LEN, Secret};
use crate::keys::params::DigestWish;
use crate::text;
use crate::text::value::{binary, to_hex};

const ENTROPY: Entropy = Entropy { identifier: 9, challenge: [0x5a; CHALLENGE_LEN] };
const TRANSIT: u8 = raw::TRANSIT;

fn config() -> LoginConfig {
    let kind = Kind::Normal { target: "iqn.2026-01.test:t1".into() };
    LoginConfig::new("iqn.2026-01.test:host", Isid::from_number(1, 1), kind)
}

fn with_chap(mutual: bool) -> LoginConfig {
    let account = |name: &str, secret: &str| Account { name: name.into(), secret: Secret::new(secret).expect("12") };
    let target = mutual.then(|| account("out", "another-secret"));
    let chap = Chap::new(account("in", "secret-of-12"), target, vec![Algorithm::Sha256, Algorithm::Md5]);
    LoginConfig { chap: Some(chap.expect("two secrets")), ..config() }
}

/// A login and the number of the next response.
struct Talk {
    login: Option<Box<Login>>,
    last: Request,
    stat_sn: u32,
}

impl Talk {
    fn begin(config: LoginConfig) -> Talk {
        let (login, last) = Login::begin(config, Itt(7), CmdSn(1), ENTROPY);
        Talk { login: Some(Box::new(login)), last, stat_sn: 100 }
    }

    /// What the last request said.
    fn said(&self) -> Vec<(String, String)> {
        text::pairs(&self.last.text).expect("own text").into_iter().map(|p| (p.key, p.value)).collect()
    }

    fn value(&self, key: &str) -> Option<String> {
        self.said().into_iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    fn raw(&mut self, flags: u8, body: &[u8], change: impl FnOnce(&mut LoginResponse)) -> Result<Step, LoginError> {
        let mut r = LoginResponse::default().with_data(body.len());
        r.flags = flags;
        r.itt = 7.into();
        r.tsih = if flags & 3 == 3 { 1.into() } else { 0.into() };
        r.stat_sn = self.stat_sn.into();
        r.exp_cmd_sn = 1.into();
        r.max_cmd_sn = 2.into();
        self.stat_sn += 1;
        change(&mut r);
        self.login.take().expect("the login goes on").answer(&r, body)
    }

    /// A response with these flags and keys.
    fn hear(&mut self, flags: u8, pairs: &[(&str, &str)]) -> Result<(), LoginError> {
        let mut body = Vec::new();
        pairs.iter().for_each(|(k, v)| text::push(&mut body, k, v));
        self.hear_raw(flags, &body)
    }

    fn hear_raw(&mut self, flags: u8, body: &[u8]) -> Result<(), LoginError> {
        match self.raw(flags, body, |_| ())? {
            Step::Send(login, request) => {
                self.login = Some(login);
                self.last = request;
                Ok(())
            }
            other => panic!("goes on, not {other:?}"),
        }
    }

    fn done(&mut self, flags: u8, pairs: &[(&str, &str)]) -> Result<Established, LoginError> {
        let mut body = Vec::new();
        pairs.iter().for_each(|(k, v)| text::push(&mut body, k, v));
        match self.raw(flags, &body, |_| ())? {
            Step::Done(established) => Ok(*established),
            other => panic!("ends, not {other:?}"),
        }
    }
}

#[test]
fn a_login_begins_in_the_security_stage_also_without_authentication() {
    let talk = Talk::begin(config());
    assert_eq!(talk.last.bhs.flags, TRANSIT | 1, "stage 0, wants 1");
    assert_eq!(talk.last.bhs.tsih.get(), 0);
    assert_eq!(talk.value("AuthMethod").as_deref(), Some("None"));
    assert_eq!(talk.said()[0], ("InitiatorName".into(), "iqn.2026-01.test:host".into()));
    assert_eq!(talk.value("TargetName").as_deref(), Some("iqn.2026-01.test:t1"));
}

#[test]
fn a_login_without_authentication_ends_with_what_was_agreed() {
    let mut talk = Talk::begin(config());
    talk.hear(TRANSIT | 1, &[("TargetPortalGroupTag", "1"), ("AuthMethod", "None")]).expect("goes on");
    assert_eq!(talk.last.bhs.flags, TRANSIT | 1 << 2 | 3);
    assert!(talk.value("InitiatorName").is_none(), "sent once");
    let agreed = [
        ("HeaderDigest", "None"),
        ("MaxBurstLength", "262144"),
        ("InitialR2T", "No"),
        ("MaxRecvDataSegmentLength", "65536"),
        ("DefaultTime2Wait", "2"),
    ];
    let e = talk.done(TRANSIT | 1 << 2 | 3, &agreed).expect("ends");
    assert_eq!((e.tsih, e.group), (Tsih(1), Some(PortalGroup(1))));
    assert_eq!((e.params.max_send_segment, e.params.max_burst, e.params.time2wait), (65536, 262_144, 2));
    assert!(!e.params.initial_r2t && e.params.immediate_data);
    assert_eq!((e.exp_stat_sn, e.max_cmd_sn), (StatSn(102), CmdSn(2)));
}

#[test]
fn a_target_that_has_more_to_say_is_answered_and_asked_again() {
    let mut talk = Talk::begin(config());
    talk.hear(TRANSIT | 1, &[("TargetPortalGroupTag", "1")]).expect("goes on");
    // As tgt does: keys of its own, and no transit.
    talk.hear(1 << 2, &[("MaxRecvDataSegmentLength", "262144"), ("TaskReporting", "FastAbort,RFC3720"), ("X-a", "1")])
        .expect("goes on");
    assert_eq!(talk.last.bhs.flags, TRANSIT | 1 << 2 | 3);
    let said = talk.said();
    assert_eq!(said, [("TaskReporting".into(), "RFC3720".into()), ("X-a".into(), "NotUnderstood".into())]);
    assert_eq!(talk.done(TRANSIT | 1 << 2 | 3, &[]).expect("ends").params.max_send_segment, 262_144);
}

#[test]
fn text_in_several_responses_is_joined() {
    let mut talk = Talk::begin(config());
    talk.hear_raw(raw::CONTINUE, b"TargetPortal").expect("goes on");
    assert_eq!((talk.last.bhs.flags & TRANSIT, talk.last.text.len()), (0, 0), "an empty request asks for more");
    talk.hear_raw(0, b"GroupTag=5\0").expect("goes on");
    assert_eq!(talk.last.bhs.flags, TRANSIT | 1, "asked again");
    talk.hear(TRANSIT | 1, &[]).expect("goes on");
    assert_eq!(talk.done(TRANSIT | 1 << 2 | 3, &[]).expect("ends").group, Some(PortalGroup(5)));
}

#[test]
fn chap_answers_the_challenge() {
    let mut talk = Talk::begin(with_chap(false));
    assert_eq!(talk.value("AuthMethod").as_deref(), Some("CHAP"), "never CHAP,None");
    assert_eq!(talk.last.bhs.flags & TRANSIT, 0);
    talk.hear(0, &[("AuthMethod", "CHAP"), ("TargetPortalGroupTag", "1")]).expect("goes on");
    assert_eq!(talk.value("CHAP_A").as_deref(), Some("7,5"));
    talk.hear(0, &[("CHAP_A", "5"), ("CHAP_I", "0x21"), ("CHAP_C", "0bAQID")]).expect("goes on");
    let secret = Secret::new("secret-of-12").expect("12");
    let expected = Algorithm::Md5.respond(0x21, &secret, &[1, 2, 3]);
    assert_eq!(talk.value("CHAP_R"), Some(to_hex(&expected)));
    assert_eq!(talk.value("CHAP_N").as_deref(), Some("in"));
    assert!(talk.value("CHAP_C").is_none());
    talk.hear(TRANSIT | 1, &[]).expect("operational");
    talk.done(TRANSIT | 1 << 2 | 3, &[]).expect("ends");
}

fn to_mutual_proof() -> Talk {
    let mut talk = Talk::begin(with_chap(true));
    talk.hear(0, &[("AuthMethod", "CHAP")]).expect("goes on");
    talk.hear(0, &[("CHAP_A", "5"), ("CHAP_I", "1"), ("CHAP_C", "0x0102")]).expect("goes on");
    assert_eq!(talk.value("CHAP_C").and_then(|c| binary(&c)), Some(ENTROPY.challenge.to_vec()));
    talk
}

#[test]
fn a_target_that_proves_itself_is_let_in() {
    let mut talk = to_mutual_proof();
    let proof = Algorithm::Md5.respond(9, &Secret::new("another-secret").expect("14"), &ENTROPY.challenge);
    talk.hear(TRANSIT | 1, &[("CHAP_N", "out"), ("CHAP_R", &to_hex(&proof))]).expect("operational");
    talk.done(TRANSIT | 1 << 2 | 3, &[]).expect("ends");
}

#[test]
fn a_target_that_does_not_prove_itself_is_not_let_in() {
    use crate::chap::ChapError::TargetUnproved;
    let own = Algorithm::Md5.respond(9, &Secret::new("secret-of-12").expect("12"), &ENTROPY.challenge);
    for pairs in [&[][..], &[("CHAP_N", "out")], &[("CHAP_N", "out"), ("CHAP_R", &to_hex(&own))]] {
        assert_eq!(to_mutual_proof().hear(TRANSIT | 1, pairs), Err(LoginError::Chap(TargetUnproved)));
    }
    let mut reflecting = Talk::begin(with_chap(true));
    reflecting.hear(0, &[("AuthMethod", "CHAP")]).expect("goes on");
    let pairs = [("CHAP_A", "5"), ("CHAP_I", "9"), ("CHAP_C", &to_hex(&ENTROPY.challenge))];
    assert_eq!(reflecting.hear(0, &pairs), Err(LoginError::Chap(crate::chap::ChapError::Reflected)));
}

#[test]
fn a_weaker_method_than_was_asked_for_is_refused() {
    for answer in [&[("AuthMethod", "None")][..], &[], &[("AuthMethod", "Reject")]] {
        let refused = Talk::begin(with_chap(false)).hear(0, answer).expect_err("refused");
        assert!(matches!(refused, LoginError::Method { asked: "CHAP", .. }), "{refused}");
    }
    let refused = Talk::begin(with_chap(false)).hear(TRANSIT | 1, &[("AuthMethod", "CHAP")]);
    assert!(refused.is_err(), "authentication is not skipped");
    let wants = Talk::begin(config()).hear(TRANSIT | 1, &[("AuthMethod", "Reject")]).expect_err("refused");
    assert!(wants.to_string().contains("CHAP name and secret"), "{wants}");
}

#[test]
fn a_redirect_says_where_and_only_before_authentication_ends() {
    let mut talk = Talk::begin(config());
    let body = b"TargetAddress=127.0.0.2:3261\0";
    let step = talk.raw(0, body, |r| (r.status_class, r.status_detail) = (1, 1)).expect("a redirect");
    let there = Portal { host: "127.0.0.2".into(), port: 3261 };
    assert!(matches!(step, Step::Redirected { portal, permanent: false } if portal == there));
    let nowhere = Talk::begin(config()).raw(0, b"", |r| r.status_class = 1).map(drop);
    assert_eq!(nowhere, Err(LoginError::NoAddress));
    let mut late = Talk::begin(config());
    late.hear(TRANSIT | 1, &[]).expect("operational");
    assert!(matches!(late.raw(0, body, |r| r.status_class = 1), Err(LoginError::Protocol(_))));
}

#[test]
fn refusals_say_what_to_do_and_whether_to_try_again() {
    for (class, detail, advice) in [
        (2, 0, Advice::RetryOnce),
        (2, 1, Advice::GiveUp),
        (2, 3, Advice::GiveUp),
        (2, 6, Advice::Retry),
        (3, 1, Advice::Retry),
    ] {
        let refused = Talk::begin(config()).raw(0, b"", |r| (r.status_class, r.status_detail) = (class, detail));
        let refused = refused.map(drop).expect_err("refused");
        assert_eq!(refused.advice(), advice, "{refused}");
    }
}

#[test]
fn a_login_that_does_not_end_is_ended() {
    let mut talk = Talk::begin(config());
    let ended = (0..=MAX_ROUNDS).find_map(|_| talk.hear(0, &[]).err());
    assert_eq!(ended, Some(LoginError::Endless));
}

#[test]
fn responses_out_of_place_are_refused() {
    let refuse = |change: fn(&mut LoginResponse)| {
        Talk::begin(config()).raw(TRANSIT | 1, b"", change).map(drop).expect_err("refused")
    };
    assert!(matches!(refuse(|r| r.itt = 8.into()), LoginError::Protocol(_)));
    assert!(matches!(refuse(|r| r.flags = TRANSIT | 1 << 2 | 3), LoginError::Stage { .. }));
    assert!(matches!(refuse(|r| r.flags = TRANSIT | 3), LoginError::Stage { .. }));
    assert!(matches!(refuse(|r| r.flags |= raw::CONTINUE), LoginError::Protocol(_)));
    assert!(matches!(refuse(|r| r.version_active = 1), LoginError::Protocol(_)));
    let mut talk = Talk::begin(config());
    talk.hear(TRANSIT | 1, &[]).expect("operational");
    talk.stat_sn += 1;
    assert!(matches!(talk.hear(1 << 2, &[]), Err(LoginError::Protocol(_))), "a gap in StatSN");
    let mut no_session = Talk::begin(config());
    no_session.hear(TRANSIT | 1, &[]).expect("operational");
    let step = no_session.raw(TRANSIT | 1 << 2 | 3, b"", |r| r.tsih = 0.into());
    assert!(matches!(step, Err(LoginError::Protocol(_))));
}

#[test]
fn what_was_insisted_upon_must_have_been_agreed() {
    let offer = Offer { data_digest: DigestWish::Always, ..Offer::default() };
    let mut talk = Talk::begin(LoginConfig { offer, ..config() });
    talk.hear(TRANSIT | 1, &[]).expect("operational");
    assert_eq!(talk.done(TRANSIT | 1 << 2 | 3, &[]), Err(LoginError::Unusable("DataDigest")));
    let mut talk = Talk::begin(LoginConfig { group: Some(PortalGroup(2)), ..config() });
    talk.hear(TRANSIT | 1, &[("TargetPortalGroupTag", "1")]).expect("operational");
    assert!(matches!(talk.done(TRANSIT | 1 << 2 | 3, &[]), Err(LoginError::Group { .. })));
}

#[test]
fn a_discovery_session_names_no_target() {
    let talk = Talk::begin(LoginConfig { kind: Kind::Discovery, ..config() });
    assert_eq!(talk.value("SessionType").as_deref(), Some("Discovery"));
    assert!(talk.value("TargetName").is_none());
}

/// Whatever a target says at any point of a login: an error or another request, and an end.
#[test]
fn fuzz_any_responses_end_the_login() {
    bolero::check!().with_type::<(bool, Vec<(u8, u8, Vec<u8>)>)>().cloned().for_each(|(chap, responses)| {
        let mut talk = Talk::begin(if chap { with_chap(true) } else { config() });
        for (flags, class, body) in responses {
            match talk.raw(flags, &body, |r| r.status_class = class / 64) {
                Ok(Step::Send(login, request)) => {
                    talk.login = Some(login);
                    talk.last = request;
                }
                _ => return,
            }
        }
    });
}
