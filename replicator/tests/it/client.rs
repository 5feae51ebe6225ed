//! A client that says exactly what a test wants, over the headers of `core::wire`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use replicator::nbd::core::wire::{
    CompactRequest, ExtendedReply, ExtendedRequest, OPTION_MAGIC, OptionReply, SimpleReply, StructuredReply, chunk,
    command, option, reply,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// How replies look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    Structured,
    Extended,
}

/// A connection, and the cookie of its last request.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    style: Style,
    cookie: u64,
}

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    pub(crate) error: u32,
    pub(crate) data: Vec<u8>,
}

impl Client {
    /// In the transmission phase with `base:allocation`, if the style has it.
    pub(crate) fn enter(stream: UnixStream, export: &str, style: Style) -> Client {
        let mut client = Client::greet(stream);
        client.style = style;
        match style {
            Style::Simple => {}
            Style::Structured => assert_eq!(client.option(option::STRUCTURED_REPLY, b"").0, reply::ACK),
            Style::Extended => assert_eq!(client.option(option::EXTENDED_HEADERS, b"").0, reply::ACK),
        }
        let name = [&(export.len() as u32).to_be_bytes()[..], export.as_bytes()].concat();
        if style != Style::Simple {
            let query = b"base:allocation";
            let data = [&name[..], &1_u32.to_be_bytes(), &(query.len() as u32).to_be_bytes(), query].concat();
            assert_eq!(client.option(option::SET_META_CONTEXT, &data).0, reply::ACK);
        }
        assert_eq!(client.option(option::GO, &[&name[..], &[0, 0]].concat()).0, reply::ACK);
        client
    }

    /// In the handshake, after the flags.
    pub(crate) fn greet(mut stream: UnixStream) -> Client {
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).expect("a greeting");
        stream.write_all(&3_u32.to_be_bytes()).expect("flags");
        Client { stream, style: Style::Simple, cookie: 0 }
    }

    /// Sends an option; kind and data of the final reply.
    pub(crate) fn option(&mut self, number: u32, data: &[u8]) -> (u32, Vec<u8>) {
        let header = [&OPTION_MAGIC.to_be_bytes()[..], &number.to_be_bytes(), &(data.len() as u32).to_be_bytes()];
        self.stream.write_all(&[&header.concat()[..], data].concat()).expect("an option");
        loop {
            let mut header = OptionReply::new_zeroed();
            self.stream.read_exact(header.as_mut_bytes()).expect("a reply");
            let mut data = vec![0; header.length.get() as usize];
            self.stream.read_exact(&mut data).expect("its data");
            let kind = header.kind.get();
            if kind == reply::ACK || kind & 0x8000_0000 != 0 {
                return (kind, data);
            }
        }
    }

    /// The bytes of a request; its payload is to follow.
    pub(crate) fn header(&mut self, flags: u16, kind: u16, offset: u64, length: u64) -> Vec<u8> {
        self.cookie += 1;
        let cookie = self.cookie.to_be_bytes();
        if self.style == Style::Extended {
            let payload = if kind == command::WRITE { 1 << 5 } else { 0 };
            let request = ExtendedRequest {
                magic: 0x21e4_1c71.into(),
                flags: (flags | payload).into(),
                kind: kind.into(),
                cookie,
                offset: offset.into(),
                length: length.into(),
            };
            return request.as_bytes().to_vec();
        }
        let request = CompactRequest {
            magic: 0x2560_9513.into(),
            flags: flags.into(),
            kind: kind.into(),
            cookie,
            offset: offset.into(),
            length: (length as u32).into(),
        };
        request.as_bytes().to_vec()
    }

    /// Sends a request without a payload; its cookie.
    pub(crate) fn send(&mut self, flags: u16, kind: u16, offset: u64, length: u64) -> u64 {
        let header = self.header(flags, kind, offset, length);
        self.stream.write_all(&header).expect("a request");
        self.cookie
    }

    /// Sends a write; its cookie.
    pub(crate) fn send_write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u64 {
        let header = self.header(flags, command::WRITE, offset, data.len() as u64);
        self.stream.write_all(&[&header[..], data].concat()).expect("a write");
        self.cookie
    }

    /// The next reply; `len` is that of the data that a simple reply carries.
    pub(crate) fn receive(&mut self, len: usize) -> Reply {
        match self.style {
            Style::Simple => {
                let mut head = SimpleReply::new_zeroed();
                self.stream.read_exact(head.as_mut_bytes()).expect("a reply");
                assert_eq!(head.magic.get(), 0x6744_6698);
                let error = head.error.get();
                let mut data = vec![0; if error == 0 { len } else { 0 }];
                self.stream.read_exact(&mut data).expect("data");
                Reply { cookie: u64::from_be_bytes(head.cookie), error, data }
            }
            Style::Structured => {
                let mut head = StructuredReply::new_zeroed();
                self.stream.read_exact(head.as_mut_bytes()).expect("a chunk");
                assert_eq!((head.magic.get(), head.flags.get()), (0x668e_33ef, chunk::DONE));
                self.chunk(head.kind.get(), head.cookie, head.length.get() as usize)
            }
            Style::Extended => {
                let mut head = ExtendedReply::new_zeroed();
                self.stream.read_exact(head.as_mut_bytes()).expect("a chunk");
                assert_eq!((head.magic.get(), head.flags.get()), (0x6e8a_278c, chunk::DONE));
                self.chunk(head.kind.get(), head.cookie, head.length.get() as usize)
            }
        }
    }

    fn chunk(&mut self, kind: u16, cookie: [u8; 8], len: usize) -> Reply {
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data).expect("its data");
        let cookie = u64::from_be_bytes(cookie);
        match kind {
            chunk::NONE => Reply { cookie, error: 0, data },
            chunk::OFFSET_DATA => Reply { cookie, error: 0, data: data.split_off(8) },
            chunk::BLOCK_STATUS | chunk::BLOCK_STATUS_EXT => Reply { cookie, error: 0, data },
            chunk::ERROR => {
                let (errno, _) = u32::read_from_prefix(&data).expect("an error");
                Reply { cookie, error: u32::from_be(errno), data: Vec::new() }
            }
            other => panic!("chunk {other:#x}"),
        }
    }

    /// A request without payload, and its reply.
    pub(crate) fn ask(&mut self, flags: u16, kind: u16, offset: u64, length: u64) -> Reply {
        let cookie = self.send(flags, kind, offset, length);
        let reply = self.receive(if kind == command::READ { length as usize } else { 0 });
        assert_eq!(reply.cookie, cookie);
        reply
    }

    pub(crate) fn read(&mut self, offset: u64, length: u64) -> Vec<u8> {
        let reply = self.ask(0, command::READ, offset, length);
        assert_eq!(reply.error, 0);
        reply.data
    }

    pub(crate) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        let cookie = self.send_write(flags, offset, data);
        let reply = self.receive(0);
        assert_eq!(reply.cookie, cookie);
        reply.error
    }

    /// Waits for the end of the stream; what came before it.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            // Closed with bytes of ours unread.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(e) => panic!("the server does not end the connection: {e}"),
        }
    }
}
