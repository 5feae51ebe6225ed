//! Writes the bundle: a gzipped tar, its table of contents first.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::gather::Outcome;
use super::mask::masked;
use crate::clock::{WallTime, short};

/// The table of contents: what each file is, and what is missing and why.
pub(crate) fn contents(at: WallTime, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "Shorefast support bundle, made at {at} by version {}.\n\nSecrets are masked: private keys, values whose names say that \
         they are secret, secrets in URLs. File names, host names, addresses and event texts are in it.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    for o in outcomes {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<24} {:>9} bytes, {:>5}  {}", o.part.name, o.text.len(), short(o.took), o.part.about);
        if let Some(why) = &o.lacks {
            let left = if o.text.is_empty() { "left out" } else { "not whole" };
            let _ = writeln!(text, "{:<24} {left}: {}", "", masked(why));
        }
    }
    text
}

/// Writes everything into a new file that only its owner may read. Parts that said nothing have no file.
pub(crate) fn write(path: &Path, at: WallTime, outcomes: &[Outcome]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let folder = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = folder.strip_suffix(".tar.gz").unwrap_or(&folder).to_owned();
    let mut add = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(at.0 / 1000);
        tar.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())
    };
    add("CONTENTS.txt", &contents(at, outcomes))?;
    for o in outcomes.iter().filter(|o| !o.text.is_empty()) {
        add(&o.part.name, &masked(&String::from_utf8_lossy(&o.text)))?;
    }
    let mut file = tar.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::time::Duration;

    use super::super::plan::{How, Part};
    use super::*;

    fn outcome(name: &str, text: &str, lacks: Option<&str>) -> Outcome {
        let how = How::This(Vec::new());
        let part = Part { name: name.into(), about: "a test".into(), how, within: Duration::ZERO, at_most: 1 };
        Outcome { part, text: text.into(), lacks: lacks.map(str::to_owned), took: Duration::from_millis(1) }
    }

    #[test]
    fn a_bundle_holds_its_parts_masked_and_says_what_is_missing_and_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("b.tar.gz");
        let outcomes = [outcome("a.txt", "secret = \"x1x\"\n", None), outcome("b.txt", "", Some("it hangs"))];
        write(&path, WallTime(1000), &outcomes).expect("writes");
        let file = std::fs::File::open(&path).expect("is there");
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut found = BTreeMap::new();
        for entry in tar.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            found.insert(name, text);
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b/CONTENTS.txt", "b/a.txt"]);
        assert_eq!(found["b/a.txt"], "secret = ***\n");
        assert!(found["b/CONTENTS.txt"].contains("left out: it hangs"), "{found:?}");
        write(&path, WallTime(1000), &outcomes).expect_err("nothing is overwritten");
    }
}
