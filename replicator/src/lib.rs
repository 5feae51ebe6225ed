//! The replicated block device and its front-end.
//!
//! - [`nbd`]: an NBD server for any block device.
//!
//! Knows nothing of file systems and clusters: what it is given and what it offers is a `BlockDevice`.
#![forbid(unsafe_code)]

pub mod nbd;
