//! CHAP, one-way and mutual (RFC 7143, 12.1.3; RFC 1994): the response is `H(identifier || secret || challenge)`.
//!
//! What it refuses: an algorithm that was not offered; a challenge that this end has sent itself (reflection); a
//! target that does not prove itself where that is asked for; the same secret for both directions; a secret shorter
//! than 96 bits unless told otherwise. Responses are compared in constant time. Secrets are never printed.
//!
//! tgt calls SHA-1 number 7, which is SHA-256 everywhere else: a list that offers 7 to it fails with the right
//! secret. Hence the list is each target's own.

use std::fmt;

use md5::Digest;
use subtle::ConstantTimeEq;

/// The shortest secret without IPsec (RFC 7143, 9.2.1): 96 bits.
pub const SHORTEST_SECRET: usize = 12;

/// Bytes of the challenge this end sends: as long as MD5's result.
pub const CHALLENGE_LEN: usize = 16;

/// A hash (IANA, "PPP Authentication Algorithms").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// MD5: what every target has.
    Md5 = 5,
    /// SHA-1.
    Sha1 = 6,
    /// SHA-256.
    Sha256 = 7,
    /// SHA3-256.
    Sha3_256 = 8,
}

impl Algorithm {
    /// By number.
    pub fn from_number(n: u32) -> Option<Algorithm> {
        [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha3_256].into_iter().find(|a| *a as u32 == n)
    }

    /// The response to a challenge.
    pub fn respond(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
            let mut hash = D::new();
            hash.update([identifier]);
            hash.update(secret);
            hash.update(challenge);
            hash.finalize().to_vec()
        }
        let secret = &secret.0;
        match self {
            Algorithm::Md5 => hash::<md5::Md5>(identifier, secret, challenge),
            Algorithm::Sha1 => hash::<sha1::Sha1>(identifier, secret, challenge),
            Algorithm::Sha256 => hash::<sha2::Sha256>(identifier, secret, challenge),
            Algorithm::Sha3_256 => hash::<sha3::Sha3_256>(identifier, secret, challenge),
        }
    }
}

/// A secret. Printed as stars, whatever prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why credentials are refused before they are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Shorter than [`SHORTEST_SECRET`].
    #[error("the CHAP secret has {0} bytes; without IPsec it needs {SHORTEST_SECRET} (RFC 7143, 9.2.1)")]
    Short(usize),
    /// The target's secret is the initiator's.
    #[error("initiator and target have the same CHAP secret: whoever knows one can answer for the other")]
    Same,
}

impl Secret {
    /// A secret of at least [`SHORTEST_SECRET`] bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Secret, SecretError> {
        let secret = Secret(bytes.into());
        if secret.0.len() < SHORTEST_SECRET { Err(SecretError::Short(secret.0.len())) } else { Ok(secret) }
    }

    /// A secret of any length: the administrator has said that the network is protected otherwise.
    pub fn even_if_short(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A name and what proves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Sent in the clear.
    pub name: String,
    /// Never sent.
    pub secret: Secret,
}

/// How this initiator authenticates at one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chap {
    own: Account,
    target: Option<Account>,
    algorithms: Vec<Algorithm>,
}

impl Chap {
    /// One-way if `target` is none; else the target must prove that it knows `target`'s secret. The algorithms in
    /// order of preference; an empty list is MD5.
    pub fn new(own: Account, target: Option<Account>, algorithms: Vec<Algorithm>) -> Result<Chap, SecretError> {
        if target.as_ref().is_some_and(|t| t.secret == own.secret) {
            return Err(SecretError::Same);
        }
        let algorithms = if algorithms.is_empty() { vec![Algorithm::Md5] } else { algorithms };
        Ok(Chap { own, target, algorithms })
    }

    /// The value of CHAP_A.
    pub fn offer(&self) -> String {
        let numbers: Vec<String> = self.algorithms.iter().map(|a| (*a as u8).to_string()).collect();
        numbers.join(",")
    }

    /// The algorithms that are offered.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Whether the target must prove itself.
    pub fn is_mutual(&self) -> bool {
        self.target.is_some()
    }
}

/// What the target sent to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// CHAP_A: its choice.
    pub algorithm: u32,
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C.
    pub challenge: &'a [u8],
}

/// What this initiator sends back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// CHAP_N.
    pub name: String,
    /// CHAP_R.
    pub response: Vec<u8>,
    /// CHAP_I and CHAP_C, where the target must prove itself.
    pub challenge: Option<(u8, [u8; CHALLENGE_LEN])>,
}

/// Why authentication ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChapError {
    /// An algorithm that was not offered.
    #[error("the target chose CHAP algorithm {0}, which was not offered")]
    Algorithm(u32),
    /// The target sent back a challenge of ours, or ours is chosen equal to its.
    #[error("the target sent this end's own challenge back (reflection)")]
    Reflected,
    /// The challenge is empty.
    #[error("the target's challenge is empty")]
    Empty,
    /// The target did not prove that it knows its secret.
    #[error("the target did not prove itself: its CHAP response is wrong or missing")]
    TargetUnproved,
}

/// Waiting for the target's proof; made by [`Chap::answer`].
#[derive(Clone, Debug)]
pub struct Proof {
    name: String,
    expected: Vec<u8>,
}

/// Bytes from a random source that one login needs: an identifier and a challenge. They come from outside: there is
/// no chance in here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entropy {
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C.
    pub challenge: [u8; CHALLENGE_LEN],
}

impl Chap {
    /// Answers the target's challenge. With it, what the target must send back, if it must prove itself.
    pub fn answer(&self, asked: Challenge<'_>, entropy: &Entropy) -> Result<(Answer, Option<Proof>), ChapError> {
        let algorithm = Algorithm::from_number(asked.algorithm)
            .filter(|a| self.algorithms.contains(a))
            .ok_or(ChapError::Algorithm(asked.algorithm))?;
        if asked.challenge.is_empty() {
            return Err(ChapError::Empty);
        }
        // Answering our own challenge would hand the peer the response that it owes us.
        if asked.challenge == entropy.challenge {
            return Err(ChapError::Reflected);
        }
        let response = algorithm.respond(asked.identifier, &self.own.secret, asked.challenge);
        let mut answer = Answer { name: self.own.name.clone(), response, challenge: None };
        let proof = self.target.as_ref().map(|target| {
            answer.challenge = Some((entropy.identifier, entropy.challenge));
            let expected = algorithm.respond(entropy.identifier, &target.secret, &entropy.challenge);
            Proof { name: target.name.clone(), expected }
        });
        Ok((answer, proof))
    }
}

impl Proof {
    /// Whether the target's name and response are the right ones. An empty name asks for any.
    pub fn check(&self, name: &str, response: &[u8]) -> Result<(), ChapError> {
        let name_fits = self.name.is_empty() || self.name == name;
        let proved: bool = self.expected.ct_eq(response).into();
        if name_fits && proved { Ok(()) } else { Err(ChapError::TargetUnproved) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::value::to_hex;

    const ENTROPY: Entropy = Entropy { identifier: 9, challenge: [0x5a; CHALLENGE_LEN] };

    fn account(name: &str, secret: &str) -> Account {
        Account { name: name.into(), secret: Secret::new(secret).expect("long enough") }
    }

    fn chap(algorithms: Vec<Algorithm>, mutual: bool) -> Chap {
        let target = mutual.then(|| account("out", "another-secret"));
        Chap::new(account("in", "secret-of-12"), target, algorithms).expect("two secrets")
    }

    fn asked(algorithm: u32, challenge: &[u8]) -> Challenge<'_> {
        Challenge { algorithm, identifier: 1, challenge }
    }

    /// Digests of "\x01secret-of-12challenge", computed with another implementation.
    #[test]
    fn responses_are_the_hash_of_identifier_secret_and_challenge() {
        let secret = Secret::new("secret-of-12").expect("12 bytes");
        for (algorithm, digest) in [
            (Algorithm::Md5, MD5),
            (Algorithm::Sha1, SHA1),
            (Algorithm::Sha256, SHA256),
            (Algorithm::Sha3_256, SHA3_256),
        ] {
            let response = algorithm.respond(1, &secret, b"challenge");
            assert_eq!(to_hex(&response), digest, "{algorithm:?}");
        }
    }

    const MD5: &str = "0x17ccb4712a21d89c80a807b30a843d2f";
    const SHA1: &str = "0x66eadadc17247cf9017666c13cdf29003274544a";
    const SHA256: &str = "0xa902303e24c670879ec42e93d0e4bb48eac015defee0067eba56012be6358c43";
    const SHA3_256: &str = "0xc119568912c7daac74562ac0a37e302aa236e87046e348e013adc490de8cb977";

    #[test]
    fn an_algorithm_that_was_not_offered_is_refused() {
        let only_md5 = chap(vec![], false);
        assert_eq!(only_md5.offer(), "5");
        assert_eq!(only_md5.answer(asked(7, b"c"), &ENTROPY).map(drop), Err(ChapError::Algorithm(7)));
        assert_eq!(only_md5.answer(asked(99, b"c"), &ENTROPY).map(drop), Err(ChapError::Algorithm(99)));
        assert!(chap(vec![Algorithm::Sha3_256, Algorithm::Md5], false).answer(asked(8, b"c"), &ENTROPY).is_ok());
    }

    #[test]
    fn a_reflected_challenge_is_never_answered() {
        let refused = chap(vec![], true).answer(asked(5, &ENTROPY.challenge), &ENTROPY).map(drop);
        assert_eq!(refused, Err(ChapError::Reflected));
        assert_eq!(chap(vec![], true).answer(asked(5, b""), &ENTROPY).map(drop), Err(ChapError::Empty));
    }

    #[test]
    fn a_target_must_prove_itself_where_that_is_asked_for() {
        let (answer, proof) = chap(vec![], true).answer(asked(5, b"c"), &ENTROPY).expect("answered");
        let (identifier, challenge) = answer.challenge.expect("mutual");
        let proof = proof.expect("mutual");
        let right = Algorithm::Md5.respond(identifier, &account("out", "another-secret").secret, &challenge);
        assert_eq!(proof.check("out", &right), Ok(()));
        assert_eq!(proof.check("other", &right), Err(ChapError::TargetUnproved));
        assert_eq!(proof.check("out", &right[1..]), Err(ChapError::TargetUnproved));
        let own = Algorithm::Md5.respond(identifier, &account("in", "secret-of-12").secret, &challenge);
        assert_eq!(proof.check("out", &own), Err(ChapError::TargetUnproved));
        assert!(chap(vec![], false).answer(asked(5, b"c"), &ENTROPY).expect("answered").1.is_none());
    }

    #[test]
    fn short_and_shared_secrets_are_refused() {
        assert_eq!(Secret::new("eleven-byte"), Err(SecretError::Short(11)));
        let same = Chap::new(account("in", "secret-of-12"), Some(account("out", "secret-of-12")), vec![]);
        assert_eq!(same, Err(SecretError::Same));
    }

    #[test]
    fn secrets_are_never_printed() {
        let shown = format!("{:?}", chap(vec![], true));
        assert!(!shown.contains("secret-of-12") && !shown.contains("another-secret"), "{shown}");
        assert!(shown.contains("***"));
        let digits = format!("{:?}", b"secret-of-12".to_vec());
        assert!(!shown.contains(&digits[1..10]), "{shown}");
    }
}
