//! What a person writes for a portal, and why nobody answers there.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use iscsi::discovery::Portal;
use iscsi::session::Cause;
use iscsi_initiator::Url;

use crate::exit::Failure;

/// A person waits.
const TRY_FOR: Duration = Duration::from_secs(2);

/// Reads a portal: a URL, or what stands behind its `iscsi://`.
pub(crate) fn portal(text: &str) -> Result<Url, Failure> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("iscsi://{text}") };
    Url::parse(&whole).map_err(|_| {
        Failure::usage("That is no portal.", "Write it like iscsi://HOST[:PORT], for example iscsi://192.0.2.1:3260.")
    })
}

/// The cause; where nobody could be connected to, with what the system says when it is tried once more.
pub(crate) fn because(portal: &Portal, cause: &Cause) -> String {
    match cause {
        Cause::Connect => why_not(portal).map_or_else(|| cause.to_string(), |why| format!("{cause}: {why}")),
        cause => cause.to_string(),
    }
}

fn why_not(portal: &Portal) -> Option<String> {
    let addresses = match (portal.host.as_str(), portal.port).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(e) => return Some(e.to_string()),
    };
    addresses.map(|a| TcpStream::connect_timeout(&a, TRY_FOR)).find_map(Result::err).map(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_is_taken_with_and_without_its_scheme() {
        for text in ["127.0.0.1:3260", "127.0.0.1", "iscsi://127.0.0.1", "iscsi://127.0.0.1:3260/"] {
            assert_eq!(portal(text).expect("a portal").portal.to_string(), "127.0.0.1:3260", "{text}");
        }
        let refused = portal("nbd://x").expect_err("no portal");
        assert!(refused.next.contains("HOST[:PORT]") && !refused.next.contains("LUN"), "{refused}");
    }

    #[test]
    fn a_portal_that_refuses_is_said_to_refuse() {
        let nobody = Portal { host: "127.0.0.1".into(), port: 1 };
        assert!(because(&nobody, &Cause::Connect).contains("cannot connect to the portal: Connection refused"));
        assert_eq!(because(&nobody, &Cause::Closed), Cause::Closed.to_string());
    }
}
