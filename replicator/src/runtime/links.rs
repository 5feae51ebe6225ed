//! Connections: who may come in, and what the peers say at HELLO.
//!
//! Of two nodes the one with the lower number dials, so that there is one connection between them. A node that stands alone
//! towards a peer (asked to, or after a split brain) neither dials it nor lets it in, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use net::{CloseReason, Conn, DownReason, Message, PeerHello, Refusal, ReplyTo, Service};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::local::Room;
use super::{Input, wire};
use crate::ids::{Lives, NodeId, SECTOR, Sizes, Volume};
use crate::meta::superblock::Superblock;

/// What HELLO carries, as postcard; the version first, so that others can always be told apart by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub(super) version: u16,
    pub(super) node: NodeId,
    pub(super) resource: [u8; 16],
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) protocol: char,
    /// Reigns are granted by a majority.
    pub(super) quorum: bool,
    /// The tie-breaker: its node and its identity.
    pub(super) witness: Option<(NodeId, u64)>,
}

/// What a tie-breaker says of itself, the version first as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WitnessGreeting {
    pub(super) version: u16,
    pub(super) node: NodeId,
    pub(super) resource: [u8; 16],
    pub(super) identity: u64,
}

/// The version that a HELLO of either kind begins with.
pub(super) fn version_of(bytes: &[u8]) -> Result<u16, String> {
    Ok(postcard::take_from_bytes::<u16>(bytes).map_err(|e| format!("its HELLO does not parse: {e}"))?.0)
}

/// What newer programs say behind it; older ones read over it, and say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct More {
    /// What it knows besides the version: 1: growing; 2: several volumes; 3: that volumes are taken away.
    pub(super) minor: u16,
    /// Bytes that the first volume's disk has room for.
    pub(super) room: u64,
}

/// What programs of minor version 2 say behind that: of each volume besides the first its number, its bytes, and the bytes that there is
/// room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Further(Vec<(u8, u64, u64)>);

/// What programs of minor version 3 say behind that: the life of each volume that was ever taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lived(Vec<(u8, u32)>);

/// What this program knows.
const MINOR: u16 = 3;
/// The first that knows how to grow, that knows of several volumes, that knows that they are taken away.
const GROWS: u16 = 1;
const SEVERAL: u16 = 2;
const LEAVES: u16 = 3;

impl Further {
    /// Bytes of a volume, and those that there is room for.
    fn of(&self, volume: Volume) -> (u64, u64) {
        self.0.iter().find(|(v, ..)| *v == volume.get()).map_or((0, 0), |(_, bytes, room)| (*bytes, *room))
    }

    fn are_several(&self) -> bool {
        self.0.iter().any(|(_, bytes, _)| *bytes > 0)
    }
}

impl Lived {
    fn of(lives: &Lives) -> Lived {
        let all = Volume::all().map(|v| (v.get(), lives.of(v)));
        Lived(all.filter(|(_, life)| *life > 1).collect())
    }

    /// Whether a volume was taken away on one of two nodes since it was there on the other: the other one does so when they have met.
    fn goes(&self, other: &Lived, volume: Volume) -> bool {
        let life = |l: &Lived| l.0.iter().find(|(v, _)| *v == volume.get()).map_or(0, |(_, life)| *life);
        let last = life(self).max(life(other));
        last > 0 && last.is_multiple_of(2)
    }
}

/// What a node says behind its greeting.
#[derive(Clone, Debug, Default)]
pub(super) struct Behind {
    more: More,
    further: Further,
    lived: Lived,
}

impl Greeting {
    fn to_bytes(&self, behind: &Behind) -> Bytes {
        let Behind { more, further, lived } = behind;
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        bytes.extend(postcard::to_stdvec(more).unwrap_or_default());
        bytes.extend(postcard::to_stdvec(further).unwrap_or_default());
        bytes.extend(postcard::to_stdvec(lived).unwrap_or_default());
        bytes.into()
    }

    /// Whether a peer that says this is one of ours; `own`: what this node says behind its greeting.
    fn judge(&self, bytes: &[u8], own: &Behind) -> Result<(Greeting, More), String> {
        let Behind { more: More { room, .. }, further, lived } = own;
        let version = version_of(bytes)?;
        if version != wire::VERSION || self.version != version {
            return Err(format!(
                "it speaks version {version} of these messages, {} speaks {}",
                self.node, self.version
            ));
        }
        let (theirs, rest) =
            postcard::take_from_bytes::<Greeting>(bytes).map_err(|e| format!("its HELLO does not parse: {e}"))?;
        let old = More { minor: 0, room: theirs.bytes };
        let (more, rest) = postcard::take_from_bytes::<More>(rest).unwrap_or((old, &[]));
        let (their_further, rest) = postcard::take_from_bytes::<Further>(rest).unwrap_or_default();
        let their_lived: Lived = postcard::from_bytes(rest).unwrap_or_default();
        let (us, them) = (self.node, theirs.node);
        if theirs.resource != self.resource {
            return Err(format!(
                "{them} has the resource {:?}, {us} has {:?}: they are not the same",
                theirs.name, self.name
            ));
        }
        self.judge_size(&self.name, (us, self.bytes, *room), (them, theirs.bytes, more.room), more.minor >= GROWS)?;
        if further.are_several() && more.minor < SEVERAL {
            return Err(format!(
                "the program of {them} knows of one volume only, and {} has several: use one version of shorefast",
                self.name
            ));
        }
        if !lived.0.is_empty() && more.minor < LEAVES {
            return Err(format!(
                "the program of {them} does not know that a volume can be taken away, and one was from {}: use one version of shorefast",
                self.name
            ));
        }
        for volume in Volume::all().skip(1).filter(|v| !lived.goes(&their_lived, *v)) {
            let name = format!("{}/{}", self.name, volume.get());
            let ((own, own_room), (bytes, their_room)) = (further.of(volume), their_further.of(volume));
            self.judge_size(&name, (us, own, own_room), (them, bytes, their_room), true)?;
        }
        if theirs.protocol != self.protocol {
            return Err(format!("{them} has protocol {}, {us} has {}", theirs.protocol, self.protocol));
        }
        if (theirs.quorum, theirs.witness) != (self.quorum, self.witness) {
            let said = |g: &Greeting| match (g.quorum, g.witness) {
                (false, _) => "no quorum".to_owned(),
                (true, None) => "quorum without a tie-breaker".to_owned(),
                (true, Some((node, id))) => format!("quorum with the tie-breaker {id:016x} of {node}"),
            };
            return Err(format!("{them} has {}, {us} has {}", said(&theirs), said(self)));
        }
        Ok((theirs, more))
    }

    /// Whether the size of a volume on two nodes, with the room that each has for it, lets them be one. One of them may have grown while
    /// the other was away; which of the two, the core sees.
    fn judge_size(
        &self,
        name: &str,
        (us, own, own_room): (NodeId, u64, u64),
        (them, bytes, their_room): (NodeId, u64, u64),
        grows: bool,
    ) -> Result<(), String> {
        let fits = if bytes > own { own_room >= bytes } else { their_room >= own };
        match (bytes, own) {
            _ if bytes == own || (fits && grows) => Ok(()),
            (0, _) | (_, 0) => {
                let (has, lacks) = if own > 0 { (us, them) } else { (them, us) };
                Err(format!(
                    "{has} has the volume {name} and {lacks} has no disk for it, or a smaller one: name one in the file of {lacks}, \
                     and run `shorefast replica adjust` there"
                ))
            }
            _ => Err(format!(
                "{name} of {them} has {bytes} bytes, that of {us} has {own}: make the disk of the smaller one longer, or the larger one \
                 anew with --size {}",
                bytes.min(own)
            )),
        }
    }

    /// Whether a tie-breaker that says this is the one that this node was told of.
    fn judge_witness(&self, bytes: &[u8]) -> Result<(), String> {
        let version = version_of(bytes)?;
        if version != self.version {
            return Err(format!(
                "the tie-breaker speaks version {version} of these messages, {} speaks {}",
                self.node, self.version
            ));
        }
        let theirs: WitnessGreeting =
            postcard::from_bytes(bytes).map_err(|e| format!("its HELLO does not parse: {e}"))?;
        if theirs.resource != self.resource {
            return Err(format!("the tie-breaker answers for another resource than {}", self.name));
        }
        match self.witness {
            Some((_, known)) if known == theirs.identity => Ok(()),
            _ => Err(format!(
                "the tie-breaker is {:016x}, another than {} was made with: it may have forgotten what it granted",
                theirs.identity, self.name
            )),
        }
    }
}

/// What actor and service share.
pub(super) struct Gate {
    pub(super) own: Greeting,
    /// Sectors of the volumes: the bytes of `own` are of the start; and their lives.
    sizes: Mutex<(Sizes, Lives)>,
    room: Room,
    /// What each peer knows that was let in.
    minors: Mutex<BTreeMap<NodeId, u16>>,
    /// The name that each peer's certificate has.
    pub(super) subjects: BTreeMap<NodeId, String>,
    /// Peers that this node wants no connection with.
    pub(super) alone: Mutex<BTreeSet<NodeId>>,
    /// Why the last that was not let in was not.
    pub(super) refused: Mutex<Option<String>>,
}

impl Gate {
    pub(super) fn new(own: Greeting, sizes: Sizes, subjects: BTreeMap<NodeId, String>, room: Room) -> Gate {
        let (alone, refused, minors) = (Mutex::default(), Mutex::default(), Mutex::default());
        let sizes = Mutex::new((sizes, room.lives()));
        Gate { sizes, own, room, minors, subjects, alone, refused }
    }

    /// The volumes have become larger, or more, or less.
    pub(super) fn changed(&self, sizes: Sizes, found: Option<&Superblock>) {
        let mut now = self.sizes.lock();
        let lives = found.map_or(now.1, Superblock::lives);
        *now = (sizes, lives);
        found.into_iter().for_each(|found| self.room.changed(found));
    }

    /// A peer whose program does not know that a volume can be taken away.
    pub(super) fn too_old_to_leave(&self) -> Option<NodeId> {
        self.minors.lock().iter().find(|(_, minor)| **minor < LEAVES).map(|(n, _)| *n)
    }

    /// A peer whose program does not know how to grow, or of a further volume.
    pub(super) fn too_old_to_grow(&self, volume: Volume) -> Option<NodeId> {
        let least = if volume == Volume::FIRST { GROWS } else { SEVERAL };
        self.minors.lock().iter().find(|(_, minor)| **minor < least).map(|(n, _)| *n)
    }

    fn own(&self) -> Greeting {
        Greeting { bytes: self.sizes.lock().0.of(Volume::FIRST) * SECTOR, ..self.own.clone() }
    }

    /// Bytes of a volume, and those that there is room for. The layout of the start may have been left since: then there is room for what
    /// there is.
    fn room(&self, volume: Volume) -> (u64, u64) {
        let now = self.sizes.lock().0.of(volume) * SECTOR;
        (now, self.room.bytes(volume).max(now))
    }

    /// The volumes besides the first.
    fn further(&self) -> Further {
        let all = Volume::all().skip(1).map(|v| (v, self.room(v)));
        Further(all.filter(|(_, (_, room))| *room > 0).map(|(v, (bytes, room))| (v.get(), bytes, room)).collect())
    }

    /// What this node says at HELLO.
    fn said(&self) -> Bytes {
        self.own().to_bytes(&self.behind())
    }

    fn behind(&self) -> Behind {
        let (_, room) = self.room(Volume::FIRST);
        let lived = Lived::of(&self.sizes.lock().1);
        Behind { more: More { minor: MINOR, room }, further: self.further(), lived }
    }

    fn node_of(&self, subject: &str) -> Option<NodeId> {
        self.subjects.iter().find(|(_, s)| s.as_str() == subject).map(|(n, _)| *n)
    }

    pub(super) fn is_witness(&self, node: NodeId) -> bool {
        self.own.witness.is_some_and(|(w, _)| w == node)
    }

    fn judge(&self, peer: &PeerHello) -> Result<NodeId, String> {
        let subject = &peer.identity.subject;
        let node = self.node_of(subject).ok_or_else(|| format!("{subject} is no peer of {}", self.own.name))?;
        if self.is_witness(node) {
            return match peer.role {
                net::Role::Dialer => self.own.judge_witness(&peer.app).map(|()| node),
                net::Role::Acceptor => Err("a tie-breaker dials nobody".to_owned()),
            };
        }
        if self.alone.lock().contains(&node) {
            return Err(format!("{} stands alone: `shorefast replica connect {}` there", self.own.node, self.own.name));
        }
        let (theirs, more) = self.own().judge(&peer.app, &self.behind())?;
        if theirs.node != node {
            return Err(format!("it says that it is {}, its certificate is that of {node}", theirs.node));
        }
        if peer.role == net::Role::Acceptor && node > self.own.node {
            return Err("of two nodes the lower one dials".to_owned());
        }
        self.minors.lock().insert(node, more.minor);
        Ok(node)
    }
}

/// What the endpoint calls.
pub(super) struct Links {
    pub(super) gate: Arc<Gate>,
    pub(super) input: UnboundedSender<Input>,
}

impl Links {
    fn tell(&self, input: Input) {
        // A resource that has stopped needs to know nothing more.
        let _ = self.input.send(input);
    }
}

impl Service for Links {
    fn greeting(&self, _subject: &str) -> Bytes {
        self.gate.said()
    }

    fn hello(&self, peer: &PeerHello) -> Result<Bytes, Refusal> {
        match self.gate.judge(peer) {
            Ok(_) => Ok(self.gate.said()),
            Err(why) => {
                *self.gate.refused.lock() = Some(why.clone());
                Err(Refusal::new(why))
            }
        }
    }

    fn opened(&self, conn: &Arc<Conn>) {
        match self.gate.node_of(&conn.peer().subject) {
            Some(node) => self.tell(Input::Opened(node, Arc::clone(conn))),
            // Judged a moment ago.
            None => conn.close("no peer"),
        }
    }

    fn request(&self, _conn: &Arc<Conn>, _msg: Message, reply: ReplyTo) {
        reply.fail("replicas ask nothing of one another");
    }

    fn oneway(&self, conn: &Arc<Conn>, msg: Message) {
        self.tell(Input::Came(conn.id(), msg));
    }

    fn closed(&self, conn: &Arc<Conn>, why: &CloseReason) {
        self.tell(Input::Closed(conn.id(), why.to_string()));
    }

    fn refused(&self, remote: SocketAddr, why: &DownReason) {
        *self.gate.refused.lock() = Some(format!("{remote} was not let in: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Further {
        Further::default()
    }

    fn behind(more: More, further: &Further) -> Behind {
        Behind { more, further: further.clone(), lived: Lived::default() }
    }

    /// What is said behind the greeting by a program with room for so much.
    fn room(room: u64, further: &Further) -> Behind {
        behind(More { minor: MINOR, room }, further)
    }

    fn greeting(node: u8) -> Greeting {
        let node = NodeId::new(node).expect("a node");
        Greeting {
            version: wire::VERSION,
            node,
            resource: [1; 16],
            name: "r0".to_owned(),
            bytes: 1 << 20,
            protocol: 'C',
            quorum: true,
            witness: Some((NodeId::new(9).expect("a node"), 77)),
        }
    }

    #[test]
    fn peers_that_are_not_of_the_same_kind_are_refused_with_a_sentence() {
        let us = greeting(1);
        let more = |room| More { minor: 1, room };
        let said = |them: Greeting| {
            us.judge(&them.to_bytes(&behind(more(them.bytes), &none())), &room(us.bytes, &none())).expect_err("refused")
        };
        assert_eq!(
            us.judge(&greeting(2).to_bytes(&behind(more(5), &none())), &room(0, &none())),
            Ok((greeting(2), more(5)))
        );
        assert!(said(Greeting { resource: [2; 16], name: "x".to_owned(), ..greeting(2) }).contains("not the same"));
        assert!(said(Greeting { bytes: 1 << 19, ..greeting(2) }).contains("--size 524288"));
        assert!(said(Greeting { protocol: 'A', ..greeting(2) }).contains("protocol A"));
        assert!(said(Greeting { version: 9, ..greeting(2) }).contains("version 9"));
        assert!(said(Greeting { quorum: false, ..greeting(2) }).contains("has no quorum"));
        assert!(said(Greeting { witness: None, ..greeting(2) }).contains("without a tie-breaker"));
        assert!(us.judge(b"", &room(0, &none())).is_err() && us.judge(&[1, 2, 3], &room(0, &none())).is_err());
    }

    /// One grew while the other was away, or crashed before it was written down.
    #[test]
    fn a_peer_of_another_size_is_let_in_if_the_smaller_one_has_room() {
        let us = greeting(1);
        let let_in = |bytes, more: More, own| {
            let said = Greeting { bytes, ..greeting(2) }.to_bytes(&behind(more, &none()));
            us.judge(&said, &room(own, &none())).is_ok()
        };
        let (small, same, large) = (1 << 19, 1 << 20, 1 << 21);
        assert!(let_in(large, More { minor: 1, room: large }, large));
        assert!(!let_in(large, More { minor: 1, room: large }, same), "this one has no room");
        assert!(let_in(small, More { minor: 1, room: same }, same));
        assert!(!let_in(small, More { minor: 1, room: small }, same), "the other one has none");
        assert!(!let_in(small, More { minor: 0, room: same }, same), "it does not know how");
    }

    /// A program from before says nothing behind its greeting, and reads over what newer ones say there.
    #[test]
    fn a_program_that_cannot_grow_is_understood_and_understands() {
        let us = greeting(1);
        let old = postcard::to_stdvec(&greeting(2)).expect("encodes");
        assert_eq!(us.judge(&old, &room(1 << 20, &none())), Ok((greeting(2), More { minor: 0, room: 1 << 20 })));
        let new = us.to_bytes(&behind(More { minor: 1, room: 9 }, &none()));
        assert_eq!(postcard::from_bytes::<Greeting>(&new), Ok(greeting(1)));
    }

    /// A program of minor version 1 says nothing behind that it can grow, and reads over the volumes of newer ones.
    #[test]
    fn a_program_of_one_volume_is_let_in_where_there_is_one_and_refused_where_there_are_several() {
        let us = greeting(1);
        let old = [postcard::to_stdvec(&greeting(2)), postcard::to_stdvec(&More { minor: 1, room: 1 << 20 })];
        let old = old.map(|part| part.expect("encodes")).concat();
        assert_eq!(us.judge(&old, &room(0, &none())), Ok((greeting(2), More { minor: 1, room: 1 << 20 })));
        let spare = Further(vec![(1, 0, 4096)]);
        assert!(us.judge(&old, &room(0, &spare)).is_ok(), "a disk for a volume that there is not yet");
        let several = Further(vec![(1, 4096, 4096)]);
        assert!(us.judge(&old, &room(0, &several)).expect_err("refused").contains("one volume only"));
        let new = us.to_bytes(&behind(More { minor: 2, room: 9 }, &several));
        let (greeted, rest) = postcard::take_from_bytes::<Greeting>(&new).expect("reads");
        assert_eq!((greeted, postcard::from_bytes::<More>(rest)), (greeting(1), Ok(More { minor: 2, room: 9 })));
    }

    #[test]
    fn a_volume_that_one_node_lacks_needs_a_disk_there() {
        let us = greeting(1);
        let more = More { minor: 2, room: 0 };
        let judge = |own: &[(u8, u64, u64)], theirs: &[(u8, u64, u64)]| {
            let said = greeting(2).to_bytes(&behind(more, &Further(theirs.to_vec())));
            us.judge(&said, &room(0, &Further(own.to_vec()))).map(drop)
        };
        let (has, spare, none, short) = ([(3, 8192, 8192)], [(3, 0, 9000)], [], [(3, 4096, 5000)]);
        assert_eq!(
            [judge(&has, &has), judge(&has, &spare), judge(&spare, &has), judge(&none, &spare)],
            [const { Ok(()) }; 4]
        );
        for (own, theirs) in [(&has[..], &none[..]), (&none, &has)] {
            assert!(judge(own, theirs).expect_err("refused").contains("has no disk for it"));
        }
        assert!(judge(&has, &short).expect_err("refused").contains("r0/3 of node 2 has 4096 bytes"));
    }

    /// One was cut off when a volume was taken away: it has it yet, and does so when the two have met.
    #[test]
    fn a_volume_that_was_taken_away_needs_no_disk_and_a_program_that_knows_that() {
        let us = greeting(1);
        let there = Behind { lived: Lived::default(), ..room(0, &Further(vec![(1, 8192, 8192)])) };
        let gone = Behind { lived: Lived(vec![(1, 2)]), ..room(0, &none()) };
        let again = Behind { lived: Lived(vec![(1, 3)]), ..room(0, &Further(vec![(1, 8192, 8192)])) };
        let judge = |own: &Behind, theirs: &Behind| us.judge(&greeting(2).to_bytes(theirs), own).map(drop);
        for (own, theirs) in [(&there, &gone), (&gone, &there), (&gone, &gone), (&there, &again), (&again, &there)] {
            assert_eq!(judge(own, theirs), Ok(()), "{own:?}, {theirs:?}");
        }
        for (own, theirs) in [(&again, &gone), (&gone, &again)] {
            assert!(judge(own, theirs).expect_err("refused").contains("has no disk for it"));
        }
        let older = Behind { more: More { minor: SEVERAL, room: 0 }, ..room(0, &none()) };
        assert!(judge(&gone, &older).expect_err("refused").contains("does not know that a volume can be taken away"));
        assert_eq!(Lived::of(&Lives::default().with(Volume::FIRST, 1)), Lived::default(), "nothing is said of it");
    }

    #[test]
    fn a_tie_breaker_that_may_have_forgotten_is_refused_with_a_sentence() {
        let us = greeting(1);
        let it = WitnessGreeting {
            version: wire::VERSION,
            node: NodeId::new(9).expect("a node"),
            resource: [1; 16],
            identity: 77,
        };
        let judged = |w: WitnessGreeting| us.judge_witness(&postcard::to_stdvec(&w).expect("encodes"));
        assert_eq!(judged(it.clone()), Ok(()));
        assert!(
            judged(WitnessGreeting { identity: 78, ..it.clone() }).expect_err("refused").contains("may have forgotten")
        );
        assert!(
            judged(WitnessGreeting { resource: [2; 16], ..it.clone() })
                .expect_err("refused")
                .contains("another resource")
        );
        assert!(judged(WitnessGreeting { version: 9, ..it }).expect_err("refused").contains("version 9"));
        assert!(us.judge_witness(b"").is_err() && us.judge_witness(&[2, 9]).is_err());
    }
}
