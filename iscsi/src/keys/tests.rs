use super::negotiate::{MAX_UNKNOWN, Negotiation, NegotiationError};
use super::params::{DigestWish, Offer, Params};
use super::*;
use crate::framer::End;
use crate::text::Pair;

fn pair(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned(), value: value.to_owned() }
}

fn initiator() -> Negotiation {
    Negotiation::new(End::Initiator, false)
}

/// Offers one key and takes an answer to it.
fn answer(key: &str, offer: &Offer, value: &str) -> Result<Negotiation, NegotiationError> {
    let mut n = initiator();
    assert_eq!(n.offer(&[key], offer).len(), 1, "{key} is offered");
    assert_eq!(n.receive(&pair(key, value), offer)?, None);
    Ok(n)
}

#[test]
fn every_row_is_there_once_and_its_default_is_one_of_its_values() {
    for (at, row) in TABLE.iter().enumerate() {
        assert_eq!(find(row.name).map(|(p, _)| p), Some(at), "{}", row.name);
        let fits = match row.form {
            Form::Number { min, max, .. } => {
                crate::text::value::number(row.default).is_some_and(|n| (min..=max).contains(&n))
            }
            Form::Boolean(_) => crate::text::value::boolean(row.default).is_some(),
            Form::List(known) => known.contains(&row.default),
            _ => true,
        };
        assert!(fits, "{}={}", row.name, row.default);
    }
}

#[test]
fn results_are_the_result_functions_of_offer_and_answer() {
    let offer = Offer::default();
    for (key, value, result) in [
        ("MaxBurstLength", "262144", "262144"),
        ("MaxBurstLength", "16776192", "1048576"),
        ("FirstBurstLength", "0x1000", "4096"),
        ("DefaultTime2Wait", "2", "2"),
        ("DefaultTime2Retain", "20", "0"),
        ("MaxOutstandingR2T", "1", "1"),
        ("InitialR2T", "Yes", "Yes"),
        ("InitialR2T", "No", "No"),
        ("ImmediateData", "No", "No"),
        ("ImmediateData", "Yes", "Yes"),
        ("DataPDUInOrder", "No", "Yes"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("HeaderDigest", "None", "None"),
    ] {
        let n = answer(key, &offer, value).expect("possible");
        assert_eq!(n.result(key), result, "{key}: {value}");
    }
}

#[test]
fn reserved_answers_leave_the_default_and_end_nothing() {
    for value in ["NotUnderstood", "Irrelevant", "Reject"] {
        let n = answer("MaxBurstLength", &Offer::default(), value).expect("goes on");
        assert_eq!(n.result("MaxBurstLength"), "262144");
        assert!(n.is_answered());
    }
}

#[test]
fn impossible_answers_are_refused() {
    let offer = Offer { data_digest: DigestWish::Always, ..Offer::default() };
    for (key, value) in [
        ("DataDigest", "None"),
        ("DataDigest", "CRC32C,None"),
        ("HeaderDigest", "CRC32C"),
        ("MaxBurstLength", "511"),
        ("MaxBurstLength", "16777216"),
        ("MaxBurstLength", "many"),
        ("InitialR2T", "yes"),
        ("ErrorRecoveryLevel", "3"),
    ] {
        let refused = answer(key, &offer, value).expect_err("refused");
        assert!(matches!(refused, NegotiationError::Value { .. }), "{key}={value}: {refused}");
    }
}

#[test]
fn what_the_other_end_offers_is_answered_with_the_result() {
    let (mut n, offer) = (initiator(), Offer::default());
    assert_eq!(n.receive(&pair("MaxBurstLength", "65536"), &offer), Ok(Some(pair("MaxBurstLength", "65536"))));
    assert_eq!(n.receive(&pair("InitialR2T", "No"), &offer), Ok(Some(pair("InitialR2T", "No"))));
    assert_eq!(n.receive(&pair("HeaderDigest", "CRC32C,None"), &offer), Ok(Some(pair("HeaderDigest", "None"))));
    assert_eq!(n.receive(&pair("DataDigest", "CRC32C"), &offer), Ok(Some(pair("DataDigest", "Reject"))));
    assert_eq!(n.receive(&pair("IFMarker", "Yes"), &offer), Ok(Some(pair("IFMarker", "No"))));
    assert_eq!(n.receive(&pair("OFMarkInt", "1~2"), &offer), Ok(Some(pair("OFMarkInt", "Reject"))));
    assert_eq!(
        n.receive(&pair("X-com.example.Key", "1"), &offer),
        Ok(Some(pair("X-com.example.Key", "NotUnderstood")))
    );
    assert_eq!(n.receive(&pair("X-com.example.Key", "NotUnderstood"), &offer), Ok(None), "no endless talk");
}

#[test]
fn a_key_is_negotiated_once() {
    let (mut n, offer) = (initiator(), Offer::default());
    n.offer(&["MaxBurstLength"], &offer);
    assert!(n.offer(&["MaxBurstLength"], &offer).is_empty(), "not offered twice");
    n.receive(&pair("MaxBurstLength", "65536"), &offer).expect("the answer");
    assert_eq!(n.receive(&pair("MaxBurstLength", "65536"), &offer), Err(NegotiationError::Twice("MaxBurstLength")));
    n.receive(&pair("TargetPortalGroupTag", "1"), &offer).expect("declared");
    assert!(n.receive(&pair("TargetPortalGroupTag", "1"), &offer).is_err());
}

#[test]
fn declarations_are_each_ends_own() {
    let (mut n, offer) = (initiator(), Offer::default());
    n.offer(&["MaxRecvDataSegmentLength"], &offer);
    assert_eq!(n.receive(&pair("MaxRecvDataSegmentLength", "8192"), &offer), Ok(None));
    let params = Params::of(&n, &offer);
    assert_eq!((params.max_send_segment, params.max_recv_segment), (8192, 256 << 10));
    assert!(n.receive(&pair("InitiatorName", "iqn.2026-01.test:x"), &offer).is_err(), "targets have none");
    assert!(n.receive(&pair("TargetPortalGroupTag", "65536"), &offer).is_err());
}

#[test]
fn in_a_discovery_session_keys_of_data_are_irrelevant() {
    let (mut n, offer) = (Negotiation::new(End::Initiator, true), Offer::default());
    let said = n.offer(&["MaxBurstLength", "DefaultTime2Wait"], &offer);
    assert_eq!(said, [pair("DefaultTime2Wait", "0")]);
    assert_eq!(n.receive(&pair("FirstBurstLength", "512"), &offer), Ok(Some(pair("FirstBurstLength", "Irrelevant"))));
}

#[test]
fn unknown_keys_without_end_are_refused() {
    let (mut n, offer) = (initiator(), Offer::default());
    for i in 0..MAX_UNKNOWN {
        assert!(n.receive(&pair(&format!("X-{i}"), "1"), &offer).is_ok(), "{i}");
    }
    assert_eq!(n.receive(&pair("X-last", "1"), &offer), Err(NegotiationError::Unknown));
}

#[test]
fn first_burst_is_never_above_max_burst() {
    let offer = Offer { first_burst: 1 << 20, max_burst: 65536, ..Offer::default() };
    let mut n = initiator();
    let said = n.offer(&["FirstBurstLength"], &offer);
    assert_eq!(said, [pair("FirstBurstLength", "65536")]);
    n.receive(&pair("MaxBurstLength", "512"), &offer).expect("possible");
    n.receive(&pair("FirstBurstLength", "65536"), &offer).expect("possible");
    assert_eq!(Params::of(&n, &offer).first_burst, 512);
}
