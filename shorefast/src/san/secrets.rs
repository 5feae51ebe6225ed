//! Secrets of accounts at iSCSI targets. A volume's record names the account and never its secret; each node looks for that in the
//! file of the key `iscsi_secrets`, then among those that it was told on a command line, then in its environment.
//!
//! A line is `USER SECRET`; what begins with `#` is a comment. Secrets are told to no other node, and printed nowhere.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use iscsi::chap::Chap;
use iscsi_initiator::Url;
use iscsi_initiator::url::{SECRET_ENV, TARGET_SECRET_ENV};

use super::lookup;

/// Below the folder of what a node remembers: secrets that were on a command line.
const TOLD: &str = "iscsi-secrets";

/// Where a node looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Secrets {
    file: PathBuf,
    told: PathBuf,
}

impl Secrets {
    /// The administrator's file, and what the node remembers below `state_dir`.
    pub(crate) fn new(file: &Path, state_dir: &Path) -> Secrets {
        Secrets { file: file.to_owned(), told: state_dir.join(TOLD) }
    }

    /// How to log in at a portal. Reads files, which may hang.
    pub(crate) fn chap(&self, url: &Url) -> Result<Option<Chap>, String> {
        let found = |name: &str| {
            let user = match name {
                SECRET_ENV => url.user(),
                TARGET_SECRET_ENV => url.target_user(),
                _ => None,
            };
            user.and_then(|user| self.of(user)).or_else(|| lookup(name))
        };
        url.chap(found).map_err(|e| match url.user() {
            Some(user) if url.secret().is_none() && self.of(user).is_none() && lookup(SECRET_ENV).is_none() => {
                format!("this node has no secret of {user}: write `{user} SECRET` into {}", self.file.display())
            }
            _ => e.to_string(),
        })
    }

    fn of(&self, user: &str) -> Option<String> {
        [&self.file, &self.told].into_iter().find_map(|path| in_text(&fs::read_to_string(path).ok()?, user))
    }

    /// Keeps a secret that was on a command line, on this node. A file appears whole or not at all.
    pub(crate) fn remember(&self, user: &str, secret: &str) -> io::Result<()> {
        let before = match fs::read_to_string(&self.told) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let others = before.lines().filter(|line| line.split_once(' ').is_none_or(|(name, _)| name != user));
        let text: String = others.map(|line| format!("{line}\n")).collect();
        let fresh = self.told.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(format!("{text}{user} {secret}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.told)
    }
}

fn in_text(text: &str, user: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut pairs = lines.filter_map(|line| line.split_once(char::is_whitespace));
    pairs.find(|(name, _)| *name == user).map(|(_, secret)| secret.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_found_in_the_administrators_file_then_among_those_that_were_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("of-the-administrator");
        fs::write(&file, "# accounts\nalice  secret-of-alice \nout secret-of-target\n").expect("writes");
        let secrets = Secrets::new(&file, dir.path());
        secrets.remember("bob", "secret-of-bob-1").expect("kept");
        secrets.remember("alice", "not-this-one-1").expect("kept");
        secrets.remember("bob", "secret-of-bob-2").expect("kept");
        assert_eq!(secrets.of("alice").as_deref(), Some("secret-of-alice"));
        assert_eq!(secrets.of("bob").as_deref(), Some("secret-of-bob-2"));
        assert_eq!(secrets.of("carol"), None);
        let mode = fs::metadata(dir.path().join(TOLD)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let url = Url::parse("iscsi://alice@h/iqn.t/0?target_user=out").expect("a URL");
        assert!(secrets.chap(&url).expect("two secrets").expect("a user").is_mutual());
        let url = Url::parse("iscsi://carol@h/iqn.t/0").expect("a URL");
        let said = secrets.chap(&url).expect_err("no secret");
        assert!(said.contains("no secret of carol") && said.contains("of-the-administrator"), "{said}");
        assert_eq!(secrets.chap(&Url::parse("iscsi://h/iqn.t/0").expect("a URL")).map(|c| c.is_none()), Ok(true));
    }
}
