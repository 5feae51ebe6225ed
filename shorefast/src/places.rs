//! Where things lie unless told otherwise. Each can be set: in the configuration, on the command line, or by an
//! environment variable.

/// Configuration folder.
pub(crate) const ETC: &str = "/etc/shorefast";
/// The configuration file.
pub(crate) const CONFIG: &str = "/etc/shorefast/shorefast.toml";
/// The node's bundle: certificate, key, list of nodes.
pub(crate) const BUNDLE: &str = "/etc/shorefast/node.bundle";
/// Secrets of accounts at iSCSI targets.
pub(crate) const ISCSI_SECRETS: &str = "/etc/shorefast/iscsi-secrets";
/// What a node remembers.
pub(crate) const STATE: &str = "/var/lib/shorefast";
/// What a host knows of its replicated devices, and their sockets.
pub(crate) const REPLICAS: &str = "/var/lib/shorefast/replicas";
/// What a tie-breaker has promised and granted.
pub(crate) const WITNESS: &str = "/var/lib/shorefast/witness";
/// The API socket.
pub(crate) const SOCKET: &str = "/run/shorefast/api.sock";
/// Volumes are mounted below it, by name.
pub(crate) const MOUNTS: &str = "/shorefast";
/// Names the API socket for commands.
pub(crate) const SOCKET_ENV: &str = "SHOREFAST_SOCKET";
/// What a target of this host remembers: reservations that survive a loss of power.
pub(crate) const TARGET: &str = "/var/lib/shorefast/target";
/// The socket by which the process of a target is asked.
pub(crate) const TARGET_SOCKET: &str = "/run/shorefast/target.sock";
