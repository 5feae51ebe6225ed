//! A node's configuration file. Unknown keys and wrong values are refused with file, line and key; every key has a
//! default, so that an empty file is a valid one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(debug_assertions)]
use csv_fs::core::rules::Rule;
use csv_fs::core::rules::Rules;
use fuse::Feature;
use fuse::features::{TABLE, Want};
use serde::Deserialize;
use toml::Spanned;

use crate::exit::{Exit, Failure};
use crate::places;

/// What `shorefast init --bundle` writes if there is no configuration yet.
pub const TEMPLATE: &str = "\
# Shorefast, one node. Every key has the default that is shown; unknown keys are refused.
# bundle = \"/etc/shorefast/node.bundle\"   # certificate, key, list of nodes
# listen = \"ADDRESS:PORT\"                 # default: this node's address in the bundle
# socket = \"/run/shorefast/api.sock\"
# state_dir = \"/var/lib/shorefast\"
# mount_root = \"/shorefast\"               # volumes are mounted below it, by name
# workers = 4                             # default: one a core
# allow_other = true                      # other users may use the mounts; default: true for root
# allow_suid = false                      # set-user-id bits and capabilities of programs on the mounts count (root only)
# allow_devices = false                   # device nodes on the mounts can be opened (root only)
# holder = false                          # a small process starts the daemon, and starts it again when it dies
# io_timeout = 120                        # seconds; then a request that cannot be executed any more gets EIO. 0: never
# iscsi_initiator = \"iqn.2026-01.org.example:node-1\" # default: made of the identities of cluster and node
# iscsi_secrets = \"/etc/shorefast/iscsi-secrets\" # a line `USER SECRET` for each account at a target
# scsi_disks = []                         # the only SCSI disks of this host that volumes use; default: every one that leads to their unit
# log = \"info\"                            # error, warn, info, debug, trace
# debug = false                           # allows the keys below and `shorefast debug`
# fault_device = false                    # under every disk, switched by `shorefast debug disk`
# plain_network = false                   # no TLS between nodes: benches only
# kernel_without = []                     # optional kernel features that mounts do without, as docs/kernel.md names them
";

/// A node's configuration, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's bundle.
    pub bundle: PathBuf,
    /// Where to listen; none: the node's address in the bundle.
    pub listen: Option<SocketAddr>,
    /// The API socket.
    pub socket: PathBuf,
    /// What the node remembers.
    pub state_dir: PathBuf,
    /// Volumes are mounted below it.
    pub mount_root: PathBuf,
    /// I/O workers; none: one a core.
    pub workers: Option<usize>,
    /// Whether other users may use the mounts; none: if the daemon is root.
    pub allow_other: Option<bool>,
    /// Whether set-user-id bits and capabilities of programs on the mounts count.
    pub allow_suid: bool,
    /// Whether device nodes on the mounts can be opened.
    pub allow_devices: bool,
    /// Whether a holder starts the daemon, and starts it again when it dies.
    pub holder: bool,
    /// After so long a program's request gets EIO, once it cannot be executed any more; zero: never.
    pub io_timeout: Duration,
    /// This node's name as an initiator; none: made of the cluster's identity and the node's number.
    pub iscsi_initiator: Option<String>,
    /// Secrets of accounts at iSCSI targets.
    pub iscsi_secrets: PathBuf,
    /// The only SCSI disks of this host that volumes use; empty: every one that leads to their unit.
    pub scsi_disks: Vec<PathBuf>,
    /// The log filter.
    pub log: String,
    /// Whether `debug` commands and the keys below are allowed.
    pub debug: bool,
    /// A fault device under every disk.
    pub fault_device: bool,
    /// No TLS between nodes.
    pub plain_network: bool,
    /// Optional features of the kernel that mounts do without.
    pub kernel_without: Vec<Feature>,
    /// The rules of the volumes' machines: all, but in a test of what happens without one.
    pub rules: Rules,
}

/// The file as written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    bundle: Option<PathBuf>,
    listen: Option<SocketAddr>,
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    mount_root: Option<PathBuf>,
    workers: Option<Spanned<usize>>,
    allow_other: Option<bool>,
    allow_suid: bool,
    allow_devices: bool,
    holder: bool,
    io_timeout: Option<Spanned<u64>>,
    iscsi_initiator: Option<Spanned<String>>,
    iscsi_secrets: Option<PathBuf>,
    scsi_disks: Vec<PathBuf>,
    log: Option<String>,
    debug: bool,
    fault_device: Option<Spanned<bool>>,
    plain_network: Option<Spanned<bool>>,
    kernel_without: Vec<Spanned<String>>,
    without_rule: Option<Spanned<String>>,
}

impl Config {
    /// The most workers that make sense; a typing error must not start a million threads.
    const MAX_WORKERS: usize = 256;
    /// How long a program's request waits before it gets EIO, in seconds: longer than a takeover at the default timing by far.
    const IO_TIMEOUT: u64 = 120;
    /// The longest that can be set, in seconds: a day. Whoever wants more wants 0.
    const MAX_IO_TIMEOUT: u64 = 86_400;

    /// Reads a configuration file.
    pub fn load(path: &Path) -> Result<Config, Failure> {
        let text = fs::read_to_string(path).map_err(|e| {
            Failure::new(
                if e.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Usage },
                format!("The configuration {} cannot be read: {e}.", path.display()),
                "Name one with --config FILE, or install a node with `shorefast init --bundle FILE`.",
            )
        })?;
        Config::parse(&text, path)
    }

    /// Reads a configuration; `path` is for the errors.
    pub fn parse(text: &str, path: &Path) -> Result<Config, Failure> {
        let place = Place { text, path };
        let file: File = toml::from_str(text).map_err(|e| place.toml_error(&e))?;
        place.check(&file)?;
        let set = |key: Option<Spanned<bool>>| key.is_some_and(Spanned::into_inner);
        Ok(Config {
            bundle: file.bundle.unwrap_or_else(|| places::BUNDLE.into()),
            listen: file.listen,
            socket: file.socket.unwrap_or_else(|| places::SOCKET.into()),
            state_dir: file.state_dir.unwrap_or_else(|| places::STATE.into()),
            mount_root: file.mount_root.unwrap_or_else(|| places::MOUNTS.into()),
            workers: file.workers.map(Spanned::into_inner),
            allow_other: file.allow_other,
            allow_suid: file.allow_suid,
            allow_devices: file.allow_devices,
            holder: file.holder,
            io_timeout: Duration::from_secs(file.io_timeout.map_or(Config::IO_TIMEOUT, Spanned::into_inner)),
            iscsi_initiator: file.iscsi_initiator.map(Spanned::into_inner),
            iscsi_secrets: file.iscsi_secrets.unwrap_or_else(|| places::ISCSI_SECRETS.into()),
            scsi_disks: file.scsi_disks,
            log: file.log.unwrap_or_else(|| "info".to_owned()),
            debug: file.debug,
            fault_device: set(file.fault_device),
            plain_network: set(file.plain_network),
            kernel_without: file.kernel_without.iter().filter_map(|name| optional_feature(name.get_ref())).collect(),
            rules: file.without_rule.and_then(|name| rules_without(name.get_ref())).unwrap_or(Rules::all()),
        })
    }
}

/// What a key takes, for people; `None` if there is no such key.
fn expected(key: &str) -> Option<&'static str> {
    Some(match key {
        "bundle" | "socket" | "state_dir" | "mount_root" | "iscsi_secrets" => "a path in quotes",
        "iscsi_initiator" => "an iSCSI name in quotes, like \"iqn.2026-01.org.example:host-1\"",
        "listen" => "\"ADDRESS:PORT\" with a numeric address",
        "workers" => "a whole number from 1 to 256",
        "io_timeout" => "a whole number of seconds from 0 to 86400",
        "allow_other" | "allow_suid" | "allow_devices" | "holder" | "debug" | "fault_device" | "plain_network" => {
            "true or false"
        }
        "scsi_disks" => "a list of paths in quotes",
        "kernel_without" => "a list of names in quotes",
        "without_rule" => "a name in quotes",
        "log" => "one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        _ => return None,
    })
}

/// An optional feature of the kernel by its name; `None` if there is none, or if no mount goes without it.
fn optional_feature(name: &str) -> Option<Feature> {
    TABLE.iter().find(|row| row.name == name && row.want != Want::Needed).map(|row| row.feature)
}

/// All rules but one that tests of real processes take out. Only a build with debug assertions can, so that no installed daemon
/// lacks a rule.
#[cfg(debug_assertions)]
fn rules_without(name: &str) -> Option<Rules> {
    let removable = [
        Rule::StoredAnswers,
        Rule::AbortBeforeRedirect,
        Rule::DrainBeforeReturn,
        Rule::GraceWaitsForLocks,
        Rule::ExpiredIsWithdrawn,
        Rule::AnsweredPreempt,
        Rule::RegisterThenReadSlot,
    ];
    removable.into_iter().find(|rule| format!("{rule:?}") == name).map(Rules::without)
}

/// No rule can be taken out of what is installed.
#[cfg(not(debug_assertions))]
fn rules_without(_: &str) -> Option<Rules> {
    None
}

/// A file being read: turns byte positions into lines for the errors.
struct Place<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Place<'_> {
    fn refuse(&self, at: usize, what: &str, next: &str) -> Failure {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Failure::usage(format!("{}, line {line}: {what}.", self.path.display()), next)
    }

    fn toml_error(&self, e: &toml::de::Error) -> Failure {
        let at = e.span().map_or(0, |s| s.start);
        let key = self.key_at(at).unwrap_or_default();
        let said = match expected(key) {
            // TOML it is, so what is wrong is the value.
            Some(expected) if self.text.parse::<toml::Table>().is_ok() => self.not_expected(at, expected),
            _ => e.message().trim_end_matches('.').replace('\n', " "),
        };
        let key = if key.is_empty() { String::new() } else { format!("key `{key}`: ") };
        self.refuse(at, &format!("{key}{said}"), "Correct that line; docs/contract.md lists the keys.")
    }

    /// What a key takes, in plain words, and what stands there instead.
    fn not_expected(&self, at: usize, expected: &str) -> String {
        let line = self.text.get(at..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let found = line.split(" #").next().unwrap_or_default().trim();
        format!("expected {expected}, found `{found}`")
    }

    /// The key of the line that holds a byte.
    fn key_at(&self, at: usize) -> Option<&str> {
        let start = self.text.get(..at)?.rfind('\n').map_or(0, |n| n + 1);
        let line = self.text.get(start..)?.lines().next()?;
        line.split_once('=').map(|(key, _)| key.trim())
    }

    /// What the types cannot say.
    fn check(&self, file: &File) -> Result<(), Failure> {
        for (key, value) in [("fault_device", &file.fault_device), ("plain_network", &file.plain_network)] {
            if let Some(value) = value.as_ref().filter(|v| *v.get_ref() && !file.debug) {
                let what = format!("key `{key}`: only with `debug = true`");
                return Err(self.refuse(value.span().start, &what, "Remove the key; it is for tests, never for data."));
            }
        }
        if let Some(name) = file.without_rule.as_ref().filter(|n| !file.debug || rules_without(n.get_ref()).is_none()) {
            let what = format!("key `without_rule`: this daemon does not run without `{}`", name.get_ref());
            return Err(self.refuse(name.span().start, &what, "Remove the key; it is for tests, never for data."));
        }
        for name in &file.kernel_without {
            let wrong = match optional_feature(name.get_ref()) {
                Some(_) if file.debug => continue,
                Some(_) => "only with `debug = true`".to_owned(),
                None => format!("`{}` is no optional feature", name.get_ref()),
            };
            let what = format!("key `kernel_without`: {wrong}");
            return Err(self.refuse(
                name.span().start,
                &what,
                "docs/kernel.md lists the features; a mount needs no key.",
            ));
        }
        if let Some(workers) = file.workers.as_ref().filter(|w| !(1..=Config::MAX_WORKERS).contains(w.get_ref())) {
            let what = format!("key `workers`: {} is not between 1 and {}", workers.get_ref(), Config::MAX_WORKERS);
            return Err(self.refuse(workers.span().start, &what, "Remove the key to have one a core."));
        }
        if let Some(time) = file.io_timeout.as_ref().filter(|t| *t.get_ref() > Config::MAX_IO_TIMEOUT) {
            let what = format!("key `io_timeout`: {} s is more than a day", time.get_ref());
            return Err(self.refuse(time.span().start, &what, "0 has requests wait for as long as it takes."));
        }
        if let Some(name) = file.iscsi_initiator.as_ref().filter(|name| !iscsi::keys::is_name(name.get_ref())) {
            let what = format!("key `iscsi_initiator`: {:?} is no iSCSI name", name.get_ref());
            return Err(self.refuse(
                name.span().start,
                &what,
                "Write one like iqn.2026-01.org.example:host-1, or remove the key.",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Failure> {
        Config::parse(text, Path::new("/etc/shorefast/shorefast.toml"))
    }

    fn refusal(text: &str) -> String {
        let failure = parse(text).expect_err("must be refused");
        assert_eq!(failure.kind, Exit::Usage);
        failure.message
    }

    #[test]
    fn an_empty_file_is_the_contracts_defaults() {
        let config = parse("").expect("valid");
        assert_eq!(config.socket, PathBuf::from("/run/shorefast/api.sock"));
        assert_eq!(config.mount_root, PathBuf::from("/shorefast"));
        assert!(!config.debug && !config.fault_device);
        assert_eq!(config.io_timeout, Duration::from_secs(120));
        assert_eq!(parse("io_timeout = 0").expect("valid").io_timeout, Duration::ZERO);
    }

    #[test]
    fn the_template_is_valid_with_and_without_its_comments() {
        assert_eq!(parse(TEMPLATE), parse(""));
        let keys: String = TEMPLATE.lines().skip(1).map(|l| l.trim_start_matches("# ").to_owned() + "\n").collect();
        let keys = keys.replace("ADDRESS:PORT", "127.0.0.1:7440");
        let config = parse(&keys).expect("the template's own values");
        assert_eq!(config.workers, Some(4));
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_name() {
        let said = refusal("debug = true\n\ncolour = 3\n");
        assert!(said.contains("/etc/shorefast/shorefast.toml, line 3: ") && said.contains("`colour`"), "{said}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_line_and_key() {
        let said = refusal("socket = \"/x\"\nlisten = \"nowhere\"\n");
        assert!(said.contains("line 2: key `listen`"), "{said}");
        assert!(said.contains("expected \"ADDRESS:PORT\"") && said.contains("found `\"nowhere\"`"), "{said}");
        let said = refusal("workers = 0\n");
        assert!(said.contains("line 1: key `workers`"), "{said}");
        let said = refusal("io_timeout = 86401\n");
        assert!(said.contains("line 1: key `io_timeout`: 86401 s is more than a day"), "{said}");
        let said = refusal("iscsi_initiator = \"Host 1\"\n");
        assert!(said.contains("line 1: key `iscsi_initiator`: \"Host 1\" is no iSCSI name"), "{said}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_in_plain_words_and_not_in_those_of_the_program() {
        for (text, expected) in [
            ("workers = \"four\" # of them", "expected a whole number from 1 to 256, found `\"four\"`"),
            ("workers = -1", "expected a whole number from 1 to 256, found `-1`"),
            ("debug = 1", "expected true or false, found `1`"),
            ("socket = 7", "expected a path in quotes, found `7`"),
        ] {
            let said = refusal(text);
            assert!(said.contains(expected), "{said}");
            assert!(!["usize", "bool", "string", "integer"].iter().any(|word| said.contains(word)), "{said}");
        }
        assert!(refusal("workers = \n").contains("line 1"));
    }

    #[test]
    fn every_key_of_the_template_has_its_plain_words() {
        for line in TEMPLATE.lines().skip(1) {
            let key = line.trim_start_matches("# ").split(" =").next().unwrap_or_default();
            assert!(expected(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_rule_is_taken_out_only_in_debug_and_never_of_what_is_installed() {
        let with = |text: &str| Config::parse(text, Path::new("shorefast.toml"));
        assert_eq!(with("").expect("valid").rules, Rules::all());
        let without = with("debug = true\nwithout_rule = \"StoredAnswers\"\n");
        // What is installed is built without debug assertions, and knows no such rule.
        assert_eq!(without.is_ok_and(|c| c.rules != Rules::all()), cfg!(debug_assertions));
        for text in ["without_rule = \"StoredAnswers\"\n", "debug = true\nwithout_rule = \"Nonsense\"\n"] {
            assert!(refusal(text).contains("key `without_rule`: this daemon does not run without"), "{text}");
        }
    }

    #[test]
    fn a_kernel_feature_is_taken_away_by_its_name_only_in_debug_and_only_if_a_mount_goes_without_it() {
        let config = parse("debug = true\nkernel_without = [\"MAX_PAGES\"]\n").expect("valid");
        assert_eq!(config.kernel_without, [Feature::MaxPages]);
        assert!(refusal("kernel_without = [\"MAX_PAGES\"]\n").contains("only with `debug = true`"));
        for name in ["POSIX_LOCKS", "NONSENSE"] {
            let said = refusal(&format!("debug = true\nkernel_without = [\"{name}\"]\n"));
            assert!(said.contains("line 2") && said.contains("no optional feature"), "{said}");
        }
    }

    #[test]
    fn a_fault_device_without_debug_is_refused() {
        let said = refusal("log = \"warn\"\nfault_device = true\n");
        assert!(said.contains("line 2: key `fault_device`"), "{said}");
        assert!(parse("debug = true\nfault_device = true\n").expect("allowed").fault_device);
    }
}
