//! 4 KiB there and back over plain TCP, for the section `replica`: what the network alone takes.
//!
//! ```text
//! tcp-echo serve ADDR:PORT          until it is ended
//! tcp-echo ask ADDR:PORT SECONDS    prints the median round trip in microseconds
//! ```
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Instant;

use benches::stats::Spread;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match args[..] {
        ["serve", at] => serve(at),
        ["ask", at, seconds] => ask(at, seconds.parse().unwrap_or(1.0)).map(|us| println!("{us}")),
        _ => Err(io::Error::other("give `serve ADDR:PORT` or `ask ADDR:PORT SECONDS`")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tcp-echo: {why}");
            ExitCode::FAILURE
        }
    }
}

/// One connection after the other.
fn serve(at: &str) -> io::Result<()> {
    for stream in TcpListener::bind(at)?.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut block = [0; 4096];
        // Whoever asked goes away when it has asked enough.
        while stream.read_exact(&mut block).and_then(|()| stream.write_all(&block)).is_ok() {}
    }
    Ok(())
}

fn ask(at: &str, seconds: f64) -> io::Result<f64> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    let (mut block, mut times, begun) = ([7; 4096], Vec::new(), Instant::now());
    while begun.elapsed().as_secs_f64() < seconds {
        let sent = Instant::now();
        stream.write_all(&block)?;
        stream.read_exact(&mut block)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Spread::of(&times).map(|s| s.median).ok_or_else(|| io::Error::other("no time for a single one"))
}
