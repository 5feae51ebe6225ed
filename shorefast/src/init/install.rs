//! `init --bundle`: puts a bundle where the daemon looks for it, and a configuration beside it if there is none.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::make::{cannot_write, write_secret};
use crate::config::TEMPLATE;
use crate::exit::{Exit, Failure};
use crate::places;

/// Installs a bundle into a configuration folder; returns it, and the files that were written. The same bundle again
/// changes nothing; another cluster's or node's is refused.
pub fn install(bundle_file: &Path, etc: &Path) -> Result<(Bundle, Vec<PathBuf>), Failure> {
    let bundle = Bundle::load(bundle_file)?;
    let text = fs::read_to_string(bundle_file).map_err(|e| cannot_read(bundle_file, &e))?;
    // The daemon may stand in another folder than this command.
    let etc = &std::path::absolute(etc).map_err(|e| cannot_write(etc, &e))?;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(etc).map_err(|e| cannot_write(etc, &e))?;
    let (target, config) = (etc.join("node.bundle"), etc.join("shorefast.toml"));
    let mut written = Vec::new();
    match fs::read_to_string(&target) {
        Ok(there) if there == text => (),
        Ok(_) => return Err(taken(&target)),
        Err(_) => {
            write_secret(&target, &text)?;
            written.push(target.clone());
        }
    }
    if !config.exists() {
        fs::write(&config, template(&target)).map_err(|e| cannot_write(&config, &e))?;
        written.push(config);
    }
    Ok((bundle, written))
}

/// The configuration's text; the bundle's place is written out if it is not the usual one.
fn template(bundle: &Path) -> String {
    if bundle == Path::new(places::BUNDLE) {
        return TEMPLATE.to_owned();
    }
    let place = toml::Value::String(bundle.to_string_lossy().into_owned());
    format!("{TEMPLATE}bundle = {place}\n")
}

fn taken(target: &Path) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("{} holds another bundle, of this node or another.", target.display()),
        "If this machine shall become that node, stop its daemon and move the file away first.",
    )
}

fn cannot_read(path: &Path, e: &std::io::Error) -> Failure {
    Failure::failed(format!("Cannot read {}: {e}.", path.display()), "Name a file you may read.")
}
