//! A node's bundle, as `shorefast init` makes it: what the bare network peer proves itself with.

use std::fs;
use std::path::Path;

use net::TlsMaterial;

use crate::Failure;

/// Certificate and key of a bundle, and the name they prove.
pub fn read(path: &Path) -> Result<(TlsMaterial, String), Failure> {
    let text = fs::read_to_string(path).map_err(|e| Failure::at(path, e))?;
    let bundle: toml::Table = text.parse().map_err(|e| Failure::at(path, e))?;
    let field = |name: &str| {
        let text = bundle.get(name).and_then(toml::Value::as_str);
        text.ok_or_else(|| Failure::at(path, format!("has no `{name}`")))
    };
    let material = TlsMaterial::from_pem(field("ca_certificate")?, field("certificate")?, field("key")?)
        .map_err(|e| Failure::at(path, e))?;
    let subject = material.subject().to_owned();
    Ok((material, subject))
}
