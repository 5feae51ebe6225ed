//! `iscsi://[user[%secret]@]host[:port]/target/lun`, the form that libiscsi's tools take; `iscsi://host[:port]` for a portal.
//!
//! Printed with its secret masked. A secret in a URL is seen by whoever sees the command line: the environment
//! ([`SECRET_ENV`], [`TARGET_SECRET_ENV`]) is the better place.

use std::fmt;

use iscsi::chap::{Account, Chap, Secret, SecretError};
use iscsi::discovery::{AddressError, Portal};

/// Where the initiator's secret is looked for, if the URL has none.
pub const SECRET_ENV: &str = "SHOREFAST_ISCSI_SECRET";
/// Where the target's secret is looked for.
pub const TARGET_SECRET_ENV: &str = "SHOREFAST_ISCSI_TARGET_SECRET";

/// Why a URL cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Another kind of URL.
    #[error("an iSCSI URL is iscsi://[USER[%SECRET]@]HOST[:PORT]/TARGET/LUN")]
    Form,
    /// The portal is none.
    #[error(transparent)]
    Portal(#[from] AddressError),
    /// The unit's number is none.
    #[error("{0:?} is no number of a logical unit")]
    Lun(String),
    /// A user and no secret.
    #[error("there is a user, and no secret: set {SECRET_ENV}")]
    NoSecret,
    /// The secret is too short, or shared.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// A portal, and what is wanted there.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Where.
    pub portal: Portal,
    /// The target and its unit; none for a portal alone.
    pub unit: Option<(String, u64)>,
    user: Option<String>,
    secret: Option<String>,
    target_user: Option<String>,
}

impl Url {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let rest = text.strip_prefix("iscsi://").ok_or(UrlError::Form)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, host) = match host.rsplit_once('@') {
            Some((account, host)) => (Some(account), host),
            None => (None, host),
        };
        let (user, secret) = match account.map(|a| a.split_once('%').map_or((a, None), |(u, s)| (u, Some(s)))) {
            Some(("", _)) => return Err(UrlError::Form),
            Some((user, secret)) => (Some(user.to_owned()), secret.map(str::to_owned)),
            None => (None, None),
        };
        let unit = match path.trim_end_matches('/').split_once('/') {
            None if path.is_empty() => None,
            None => return Err(UrlError::Form),
            Some((target, lun)) if !target.is_empty() => {
                Some((target.to_owned(), lun.parse().map_err(|_| UrlError::Lun(lun.chars().take(40).collect()))?))
            }
            Some(_) => return Err(UrlError::Form),
        };
        let target_user = query.split('&').find_map(|p| p.strip_prefix("target_user=")).map(str::to_owned);
        Ok(Url { portal: Portal::parse(host)?, unit, user, secret, target_user })
    }

    /// Who this initiator says that it is.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Who the target is to prove itself as.
    pub fn target_user(&self) -> Option<&str> {
        self.target_user.as_deref()
    }

    /// The secret that stands in the URL, where whoever sees the command line sees it.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// The whole URL as it may be kept: without its secret, which is then looked for elsewhere.
    pub fn reference(&self) -> String {
        let query = self.target_user.as_ref().map_or_else(String::new, |user| format!("?target_user={user}"));
        format!("{}{query}", Url { secret: None, ..self.clone() })
    }

    /// How to authenticate, with secrets from the URL or, where it has none, from `lookup` (the environment).
    pub fn chap(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Chap>, UrlError> {
        let Some(user) = &self.user else { return Ok(None) };
        let secret = self.secret.clone().or_else(|| lookup(SECRET_ENV)).ok_or(UrlError::NoSecret)?;
        let own = Account { name: user.clone(), secret: Secret::new(secret)? };
        let target = lookup(TARGET_SECRET_ENV)
            .map(|secret| {
                Secret::new(secret).map(|secret| Account { name: self.target_user.clone().unwrap_or_default(), secret })
            })
            .transpose()?;
        Ok(Some(Chap::new(own, target, Vec::new())?))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("iscsi://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}{}@", if self.secret.is_some() { "%***" } else { "" })?;
        }
        write!(f, "{}", self.portal)?;
        match &self.unit {
            Some((target, lun)) => write!(f, "/{target}/{lun}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_libiscsis() {
        let url =
            Url::parse("iscsi://user%secret-of-12@10.0.0.1:3261/iqn.2026-01.test:t1/7?target_user=out").expect("a URL");
        assert_eq!((url.portal.host.as_str(), url.portal.port), ("10.0.0.1", 3261));
        assert_eq!(url.unit, Some(("iqn.2026-01.test:t1".to_owned(), 7)));
        let chap = url.chap(|name| (name == TARGET_SECRET_ENV).then(|| "another-secret".to_owned()));
        assert!(chap.expect("two secrets").expect("a user").is_mutual());
        assert_eq!(Url::parse("iscsi://[::1]").expect("a portal").unit, None);
        for junk in ["", "nbd://x", "iscsi://", "iscsi://h/t", "iscsi://h//1", "iscsi://h/t/x", "iscsi://@h/t/1"] {
            assert!(Url::parse(junk).is_err(), "{junk}");
        }
    }

    #[test]
    fn secrets_come_from_the_environment_too_and_are_never_printed() {
        let url = Url::parse("iscsi://user@h/t/1").expect("a URL");
        assert_eq!(url.chap(|_| None), Err(UrlError::NoSecret));
        assert!(url.chap(|_| Some("secret-of-12".into())).is_err(), "the same for both directions");
        assert!(matches!(url.chap(|n| (n == SECRET_ENV).then(|| "short".into())), Err(UrlError::Secret(_))));
        let url = Url::parse("iscsi://user%secret-of-12@h/t/1").expect("a URL");
        let shown = format!("{url} {url:?}");
        assert!(!shown.contains("secret-of-12") && shown.contains("user%***@h"), "{shown}");
    }

    #[test]
    fn what_is_kept_of_a_url_is_the_whole_of_it_but_its_secret() {
        let url = Url::parse("iscsi://user%secret-of-12@h:3261/t/1?target_user=out").expect("a URL");
        assert_eq!(url.reference(), "iscsi://user@h:3261/t/1?target_user=out");
        let again = Url::parse(&url.reference()).expect("a URL");
        assert_eq!((again.user(), again.target_user(), again.secret()), (Some("user"), Some("out"), None));
    }
}
