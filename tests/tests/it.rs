//! The tidy tests: each holds one rule over the whole tree and names every place that breaks it.
#![forbid(unsafe_code)]

#[path = "it/arrows.rs"]
mod arrows;
#[path = "it/documents.rs"]
mod documents;
#[path = "it/lengths.rs"]
mod lengths;
#[path = "it/manners.rs"]
mod manners;
#[path = "it/purity.rs"]
mod purity;

/// Fails with every offence on a line of its own.
fn none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}\n", offences.join("\n  "));
}
