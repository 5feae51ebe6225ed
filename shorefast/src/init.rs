//! How a cluster begins: `init --cluster` makes its certificate authority and one bundle for each node;
//! `init --bundle` installs one node's bundle.
//!
//! The authority's key stays in the folder where it was made (mode 0600); it is needed again only to add nodes.
//! A bundle holds a private key: it is written with mode 0600 and belongs on one node only.
//! Nothing is ever overwritten: a second `init` into the same folder is refused.

mod authority;
mod bundle;
mod install;
mod make;

pub use authority::{dns_name, subject};
pub use bundle::{Bundle, BundleNode};
pub use install::install;
pub use make::{Made, NodeAddress, make};
