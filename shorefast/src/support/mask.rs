//! Takes secrets out of a text: private keys, values whose name says that they are secret, and the secrets in URLs.
//!
//! Pure. What is masked wrongly costs a reader a look at the machine; what is not masked is given away: so names decide
//! generously.

/// What stands in a secret's place.
const MASK: &str = "***";
/// Begins and ends a private key.
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_NAME: &str = "PRIVATE KEY-----";
const KEY_ENDS: &str = "-----END ";
/// A value is secret if its name ends like this.
const SECRET_NAMES: [&str; 6] = ["secret", "password", "passwd", "passphrase", "token", "key"];

/// The text without its secrets.
pub(crate) fn masked(text: &str) -> String {
    let text = without_keys(text);
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        out.push_str(&without_urls(&without_value(line)));
    }
    out
}

/// Private keys, wherever they stand: in a file of their own, or as one line with `\n` in it. A key that does not end is
/// cut off to the end of the text.
fn without_keys(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(KEY_BEGINS) {
        let (before, from) = rest.split_at(at);
        let head_end = from.find(KEY_NAME).filter(|end| !from[KEY_BEGINS.len()..*end].contains("-----"));
        let Some(head_end) = head_end.map(|end| end + KEY_NAME.len()) else {
            let (kept, after) = from.split_at(KEY_BEGINS.len());
            out.push_str(before);
            out.push_str(kept);
            rest = after;
            continue;
        };
        out.push_str(before);
        out.push_str(MASK);
        let body = &from[head_end..];
        let end = body.find(KEY_ENDS).and_then(|end| {
            let tail = end + body[end..].find(KEY_NAME)? + KEY_NAME.len();
            Some(tail)
        });
        rest = end.map_or("", |end| &body[end..]);
    }
    out.push_str(rest);
    out
}

/// `name = value`, `name: value`, `"name": "value"`, `NAME=value`, where the name is a secret's.
fn without_value(line: &str) -> String {
    let Some(at) = line.find(['=', ':']) else { return line.to_owned() };
    let name = line[..at].trim().trim_matches(['"', '\'']).trim_start_matches("export ").to_ascii_lowercase();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.#".contains(&b));
    let secret = plain && SECRET_NAMES.iter().any(|s| name.ends_with(s)) && !name.ends_with("public_key");
    if !secret || line[at + 1..].trim().is_empty() {
        return line.to_owned();
    }
    let end = if line.ends_with('\n') { "\n" } else { "" };
    format!("{} {MASK}{end}", &line[..=at])
}

/// `scheme://user%secret@host` and `scheme://user:secret@host`.
fn without_urls(line: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        rest = after;
        let authority =
            rest.find(|c: char| c == '/' || c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(rest.len());
        // A secret may have an `@` in it, too: the last one counts.
        let Some(host) = rest[..authority].rfind('@') else { continue };
        let Some(secret) = rest[..host].find(['%', ':']) else { continue };
        out.push_str(&rest[..=secret]);
        out.push_str(MASK);
        rest = &rest[host..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_masked_wherever_they_stand_and_certificates_stay() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGH+/=\nAAAA\n-----END PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let text = format!("a = 1\n{certificate}thing = \"\"\"\n{key}\"\"\"\n{}", key.replace('\n', "\\n"));
        let clean = masked(&text);
        assert!(!clean.contains("MIGH") && !clean.contains("AAAA"), "{clean}");
        assert!(clean.contains("MIIB") && clean.contains("a = 1"), "{clean}");
        let cut = masked("-----BEGIN EC PRIVATE KEY-----\nMIGH");
        assert!(!cut.contains("MIGH"), "{cut}");
    }

    #[test]
    fn values_with_a_secret_name_are_masked_and_others_stay() {
        for (line, left) in [
            ("password = \"x1x\"\n", "password = ***\n"),
            ("  \"chap_secret\": \"x1x\",", "  \"chap_secret\": ***"),
            ("SHOREFAST_ISCSI_SECRET=x1x", "SHOREFAST_ISCSI_SECRET= ***"),
            ("key = \"\"\"x1x", "key = ***"),
        ] {
            assert_eq!(masked(line), left);
        }
        for line in ["socket = \"/run/api.sock\"\n", "# key `mount_root`: x\n", "key =\n", "monkeys = 3\n", "::1 = x"] {
            assert_eq!(masked(line), line);
        }
    }

    #[test]
    fn secrets_in_urls_are_masked_and_the_rest_of_the_url_stays() {
        let line = "a iscsi://u%s3cret@h:3260/iqn.x/0 b https://me:pa@ss@h/ c http://h/a@b:c d";
        assert_eq!(masked(line), "a iscsi://u%***@h:3260/iqn.x/0 b https://me:***@h/ c http://h/a@b:c d");
    }

    #[test]
    fn any_text_goes_through() {
        for text in ["", "-----BEGIN ", "-----BEGIN X-----\n-----BEGIN PRIVATE KEY-----", "://@", "=", "ä://ö%ü@é\n:\n"]
        {
            let _ = masked(text);
        }
    }
}
