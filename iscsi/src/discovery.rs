//! Addresses of portals, and the answer to SendTargets (RFC 7143, 13.3, 13.8, appendix C).
//!
//! A portal may tell of itself only (tgt does): whoever wants every path asks every portal.

use std::fmt;

use crate::ids::PortalGroup;
use crate::keys::MAX_NAME;
use crate::text::Pair;

/// The port that IANA gave to iSCSI.
pub const PORT: u16 = 3260;

/// Targets of one answer that are kept; as many as the bound on its bytes lets through.
pub const MAX_TARGETS: usize = 1 << 15;

/// Where a portal listens. The host is a name or a literal address (IPv6 without brackets).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Portal {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why an address or an answer to SendTargets cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No host, or no number where one belongs.
    #[error("{0:?} is no portal: HOST[:PORT][,GROUP] is")]
    Portal(String),
    /// An address before any target's name, or a name that is too long.
    #[error("the answer to SendTargets is out of order at {0:?}")]
    Order(String),
    /// More targets than are kept.
    #[error("more than {MAX_TARGETS} targets at one portal")]
    TooMany,
}

impl Portal {
    /// `host[:port]`, IPv6 in brackets.
    pub fn parse(text: &str) -> Result<Portal, AddressError> {
        let refuse = || AddressError::Portal(text.chars().take(80).collect());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(refuse)?;
                (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(refuse)?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:%".contains(&b);
        if host.is_empty() || host.len() > 255 || !host.bytes().all(fits) {
            return Err(refuse());
        }
        let port = match port {
            None => PORT,
            Some(p) => p.parse().ok().filter(|p| *p != 0).ok_or_else(refuse)?,
        };
        Ok(Portal { host: host.to_owned(), port })
    }

    /// `host[:port][,group]`: TargetAddress. A redirect has no group.
    pub fn parse_with_group(text: &str) -> Result<(Portal, Option<PortalGroup>), AddressError> {
        match text.rsplit_once(',') {
            None => Ok((Portal::parse(text)?, None)),
            Some((portal, group)) => {
                let group = group.parse().map_err(|_| AddressError::Portal(text.chars().take(80).collect()))?;
                Ok((Portal::parse(portal)?, Some(PortalGroup(group))))
            }
        }
    }
}

/// A target as SendTargets tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its portals; none means the portal that was asked.
    pub portals: Vec<(Portal, Option<PortalGroup>)>,
}

/// The targets in an answer, in its order. Other keys are passed over.
pub fn targets(pairs: &[Pair]) -> Result<Vec<Found>, AddressError> {
    let mut found: Vec<Found> = Vec::new();
    for pair in pairs {
        match pair.key.as_str() {
            "TargetName" => {
                if pair.value.is_empty() || pair.value.len() > MAX_NAME {
                    return Err(AddressError::Order(pair.value.chars().take(80).collect()));
                }
                if found.len() == MAX_TARGETS {
                    return Err(AddressError::TooMany);
                }
                found.push(Found { name: pair.value.clone(), portals: Vec::new() });
            }
            "TargetAddress" => {
                let target = found.last_mut().ok_or_else(|| AddressError::Order(pair.value.clone()))?;
                target.portals.push(Portal::parse_with_group(&pair.value)?);
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portal(host: &str, port: u16) -> Portal {
        Portal { host: host.into(), port }
    }

    #[test]
    fn portals_are_names_or_addresses_with_or_without_port() {
        for (text, is) in [
            ("10.0.0.1", portal("10.0.0.1", 3260)),
            ("10.0.0.1:3261", portal("10.0.0.1", 3261)),
            ("san-1.example", portal("san-1.example", 3260)),
            ("[fe80::1%eth0]:860", portal("fe80::1%eth0", 860)),
            ("[::1]", portal("::1", 3260)),
        ] {
            assert_eq!(Portal::parse(text), Ok(is.clone()), "{text}");
            assert_eq!(Portal::parse(&is.to_string()), Ok(is));
        }
        for junk in ["", ":3260", "host:", "host:0", "host:65536", "[::1", "[::1]3260", "a b", "h\u{e9}"] {
            assert!(Portal::parse(junk).is_err(), "{junk}");
        }
    }

    #[test]
    fn targets_have_any_number_of_portals_with_their_groups() {
        let pair = |k: &str, v: &str| Pair { key: k.into(), value: v.into() };
        let text = [
            pair("TargetName", "iqn.2026-01.test:a"),
            pair("TargetAddress", "10.0.0.1:3260,1"),
            pair("TargetAddress", "[::1]:3260,2"),
            pair("TargetAlias", "a"),
            pair("TargetName", "iqn.2026-01.test:b"),
        ];
        let found = targets(&text).expect("in order");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].portals[1], (portal("::1", 3260), Some(PortalGroup(2))));
        assert!(found[1].portals.is_empty());
        assert!(matches!(targets(&text[1..2]), Err(AddressError::Order(_))));
        assert!(targets(&[text[0].clone(), pair("TargetAddress", "x,70000")]).is_err());
    }
}
