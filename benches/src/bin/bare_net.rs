//! A node of the cluster network that only answers: each request at once, with as many bytes as attributes have. What a
//! round trip of `net` costs by itself.
//!
//! `bare-net BUNDLE`: proves itself with that bundle, listens on a free port of 127.0.0.1, prints the address, and ends with
//! its standard input.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use benches::bundle;
use bytes::Bytes;
use net::{CloseReason, Conn, Message, Net, NetConfig, PeerHello, Refusal, ReplyTo, Security, Service};

/// About what an answer with attributes is long.
const ANSWER: [u8; 96] = [7; 96];

struct Echo;

impl Service for Echo {
    fn hello(&self, _: &PeerHello) -> Result<Bytes, Refusal> {
        Ok(Bytes::new())
    }

    fn opened(&self, _: &Arc<Conn>) {}

    fn request(&self, _: &Arc<Conn>, msg: Message, reply: ReplyTo) {
        reply.send(Message::new(msg.opcode, msg.epoch, &ANSWER[..]));
    }

    fn oneway(&self, _: &Arc<Conn>, _: Message) {}

    fn closed(&self, _: &Arc<Conn>, _: &CloseReason) {}
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bare-net: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("name a bundle")?;
    let (material, _) = bundle::read(path.as_ref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = NetConfig::new((std::net::Ipv4Addr::LOCALHOST, 0).into(), Security::Tls(material));
    let net = runtime.block_on(Net::start(config, Arc::new(Echo)))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", net.local_addr())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
