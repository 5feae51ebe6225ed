//! Metrics over HTTP, as Prometheus asks for them: `GET /metrics`, the text format 0.0.4.
//!
//! - [`Text`] writes the format; what it is given it escapes. Whoever has something to tell makes one for each question.
//! - [`serve`] answers: one question a connection, few at a time, each within a bound. There is nothing to be had here but numbers and
//!   names, and it listens on the host itself unless it is told otherwise.

use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Where metrics are served unless it is said otherwise.
pub(crate) const DEFAULT: &str = "127.0.0.1:9943";
/// Questions at a time: more wait in the listener's queue. A scraper asks every few seconds.
const MAX_ASKING: usize = 8;
/// The longest head of a request.
const MAX_HEAD: usize = 8192;
/// How long a question and its answer may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Metrics as text.
#[derive(Default)]
pub(crate) struct Text(String);

impl Text {
    /// Begins a metric: its name, its kind (`gauge`, `counter`, `histogram`) and what it says.
    pub(crate) fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A number of the metric, with its labels.
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if n == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// All that was written.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Microseconds as seconds.
pub(crate) fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// Listens there.
///
/// # Errors
/// The address is taken, or is none of this host.
pub(crate) async fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(at).await
}

/// Answers questions until dropped; `make` makes the text, or none while there is none.
///
/// # Cancel safety
/// Dropped, it answers nobody any more; who was asked already is answered.
pub(crate) async fn serve<M, F>(listener: TcpListener, make: M)
where
    M: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let places = Arc::new(Semaphore::new(MAX_ASKING));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let make = make.clone();
                drop(tokio::spawn(async move {
                    // Whoever is too slow asks again.
                    let _ = tokio::time::timeout(WITHIN, answer(stream, make)).await;
                    drop(place);
                }));
            }
            Err(e) => {
                tracing::warn!("the metrics' socket did not accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer<M, F>(mut stream: TcpStream, make: M) -> std::io::Result<()>
where
    M: Fn() -> F,
    F: Future<Output = Option<String>>,
{
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < MAX_HEAD {
        let mut part = [0; 1024];
        match stream.read(&mut part).await? {
            0 => break,
            n => head.extend_from_slice(&part[..n]),
        }
    }
    let (status, text) = match asked(&head) {
        Asked::Metrics => match make().await {
            Some(text) => ("200 OK", text),
            None => ("503 Service Unavailable", "it is stopping\n".to_owned()),
        },
        Asked::Elsewhere => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
        Asked::Otherwise => ("405 Method Not Allowed", "only GET is understood\n".to_owned()),
        Asked::Nonsense => ("400 Bad Request", "that is not HTTP\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Allow: GET\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    Elsewhere,
    Otherwise,
    Nonsense,
}

fn asked(head: &[u8]) -> Asked {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let whole = head.windows(4).any(|w| w == b"\r\n\r\n");
    match (method, target) {
        (Some(method), Some(target)) if whole && version.is_some_and(|v| v.starts_with(b"HTTP/1.")) => {
            let path = target.split(|b| *b == b'?').next().unwrap_or_default();
            match (method, path) {
                (b"GET", b"/metrics") => Asked::Metrics,
                (b"GET", _) => Asked::Elsewhere,
                _ => Asked::Otherwise,
            }
        }
        _ => Asked::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_times_are_seconds() {
        let mut text = Text::default();
        text.begin("a_seconds", "gauge", "How long.");
        text.sample("a_seconds", &[("name", "r\"0\\\n"), ("peer", "2")], seconds(1_500_001));
        text.sample("a_seconds", &[], 3);
        let said = text.into_string();
        assert!(said.contains("a_seconds{name=\"r\\\"0\\\\\\n\",peer=\"2\"} 1.500001\na_seconds 3\n"), "{said}");
    }

    #[test]
    fn only_a_get_of_the_metrics_is_answered_with_them() {
        for (head, what) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Asked::Metrics),
            ("GET /metrics?name[]=a HTTP/1.0\r\n\r\n", Asked::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Asked::Elsewhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Asked::Otherwise),
            ("GET /metrics HTTP/1.1\r\n", Asked::Nonsense),
            ("GET /metrics\r\n\r\n", Asked::Nonsense),
            ("\r\n\r\n", Asked::Nonsense),
            ("", Asked::Nonsense),
        ] {
            assert_eq!(asked(head.as_bytes()), what, "{head:?}");
        }
    }
}
