use super::*;

fn text_of(of: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    of.iter().for_each(|(k, v)| push(&mut text, k, v));
    text
}

#[test]
fn pairs_are_read_back() {
    let text = text_of(&[("InitiatorName", "iqn.2026-01.test:a"), ("X#odd", "a=b"), ("SendTargets", "")]);
    let found = pairs(&text).expect("a text");
    let found: Vec<_> = found.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect();
    assert_eq!(found, [("InitiatorName", "iqn.2026-01.test:a"), ("X#odd", "a=b"), ("SendTargets", "")]);
    assert_eq!(pairs(b""), Ok(vec![]));
}

#[test]
fn what_is_no_text_is_refused() {
    assert_eq!(pairs(b"a=b"), Err(TextError::NoEnd));
    assert_eq!(pairs(b"ab\0"), Err(TextError::NoValue("ab".into())));
    assert_eq!(pairs(b"=b\0"), Err(TextError::Key("=b".into())));
    assert!(matches!(pairs(b"a b=c\0"), Err(TextError::Key(_))));
    assert!(matches!(pairs(b"a=\xff\0"), Err(TextError::Value(_))));
    let long = [vec![b'k'; 64], b"=v\0".to_vec()].concat();
    assert!(matches!(pairs(&long), Err(TextError::Key(_))));
    let long = [b"k=".to_vec(), vec![b'v'; MAX_VALUE + 1], vec![0]].concat();
    assert!(matches!(pairs(&long), Err(TextError::Value(_))));
}

#[test]
fn a_text_in_several_pdus_is_joined_up_to_its_bound() {
    let text = text_of(&[("TargetName", "iqn.2026-01.test:a"), ("TargetAddress", "[::1]:3260,1")]);
    let mut joined = Assembler::new(64);
    assert_eq!(joined.take(&text[..20], true), Ok(None));
    assert!(joined.is_open());
    let found = joined.take(&text[20..], false).expect("a text").expect("whole");
    assert_eq!(found.len(), 2);
    assert!(!joined.is_open());
    assert_eq!(joined.take(&[b'a'; 65], true), Err(TextError::TooLong(64)));
}

/// Whatever a peer sends as text: no panic, bounded, and what is read is written back the same.
#[test]
fn fuzz_any_text_is_read_or_refused() {
    bolero::check!().with_type::<(u8, Vec<u8>)>().cloned().for_each(|(cut, bytes)| {
        let at = usize::from(cut).min(bytes.len());
        let mut joined = Assembler::new(4096);
        let first = joined.take(&bytes[..at], true);
        let parted = first.and_then(|_| joined.take(&bytes[at..], false));
        if bytes.len() <= 4096 {
            assert_eq!(parted, pairs(&bytes).map(Some));
        }
        if let Ok(found) = pairs(&bytes) {
            let mut again = Vec::new();
            found.iter().for_each(|p| push(&mut again, &p.key, &p.value));
            assert_eq!(pairs(&again), Ok(found.clone()));
            for pair in &found {
                let _ = (value::number(&pair.value), value::binary(&pair.value));
            }
        }
    });
}
