//! Promotions without quorum: who asks whom, who gives way, and how long anybody waits.

use super::*;
use crate::core::event::Refusal;

const LOW: Ballot = Ballot { round: 2, node: 2 };

impl Bench {
    fn at_ms(&mut self, ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.node.handle(Now(ms), event, &mut out);
        let fx = std::mem::take(&mut out);
        self.metadata(fx)
    }

    fn asks(&mut self, node: u8, conn: u64, ballot: Ballot) -> Vec<Effect> {
        self.tell(Event::Received(id(node), ConnId(conn), Message::Prepare(ballot)))
    }

    /// It is asked to be promoted; its ballot.
    fn stands(&mut self) -> (Ballot, Vec<Effect>) {
        let fx = self.tell(Event::Promote { force: false });
        let asked =
            fx.iter().find_map(|f| if let Effect::Send(_, _, Message::Prepare(b)) = f { Some(*b) } else { None });
        let fx = self.metadata(fx);
        assert!(!self.node.is_primary(), "the peer has not answered");
        (asked.expect("the peer is asked"), fx)
    }
}

fn refused(fx: &[Effect], why: Refusal) -> bool {
    fx.contains(&Effect::Told(Report::NotPromoted(why)))
}

/// What was said to a node.
fn said(fx: &[Effect], to: u8) -> Vec<Message> {
    let said = |f: &Effect| if let Effect::Send(n, _, m) = f { (*n == id(to)).then(|| m.clone()) } else { None };
    fx.iter().filter_map(said).collect()
}

/// Node 1, equal to node 2, which is no primary.
fn secondary() -> Bench {
    let mut bench = Bench::new(&[id(2), id(3)]);
    bench.peer_reigns = false;
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    bench
}

/// It was primary as soon as its own disk had it, and the peer heard of it afterwards: so two became so at once.
#[test]
fn without_quorum_a_candidate_reigns_when_all_that_are_connected_have_answered() {
    let mut bench = secondary();
    let (ballot, _) = bench.stands();
    let grant = Grant { ballot: Ballot { round: 9, node: 2 }, version: 0, generation: B, members: NodeSet::of(id(2)) };
    let fx = bench.says(Message::Promise(ballot, grant, true));
    let fx = bench.metadata(fx);
    assert!(fx.contains(&Effect::Told(Report::Promoted(ballot))), "{fx:?}");
    assert!(
        !bench.node.replica().is_some_and(|r| r.superblock().history.contains(&B)),
        "what others were granted is theirs"
    );
}

#[test]
fn a_connection_that_begins_while_a_candidate_waits_counts_and_one_that_ends_does_not() {
    let mut bench = secondary();
    let (ballot, _) = bench.stands();
    let fx = bench.tell(Event::Connected(id(3), ConnId(2)));
    assert!(matches!(&said(&fx, 3)[..], [Message::Hello(_), Message::Prepare(b)] if *b == ballot), "{fx:?}");
    bench.says(Message::Promise(ballot, Grant::default(), false));
    assert!(!bench.node.is_primary(), "node 3 has not answered");
    // It comes anew, and may have forgotten what it promised.
    let under_way = bench.tell(Event::Received(id(3), ConnId(2), Message::Promise(ballot, Grant::default(), false)));
    bench.tell(Event::Connected(id(3), ConnId(3)));
    bench.metadata(under_way);
    assert!(!bench.node.is_primary(), "it has not answered on this connection");
    let fx = bench.tell(Event::Lost(id(3), ConnId(3)));
    bench.metadata(fx);
    assert!(bench.node.is_primary());
}

#[test]
fn of_two_candidates_the_higher_rejects_and_the_lower_gives_way_and_says_so() {
    let mut bench = secondary();
    let (ballot, _) = bench.stands();
    let low = Ballot { round: ballot.round - 1, node: 2 };
    assert_eq!(said(&bench.asks(2, 1, low), 2), [Message::Reject(low, ballot)]);
    let high = Ballot { node: 2, ..ballot };
    let fx = bench.asks(2, 1, high);
    assert!(refused(&fx, Refusal::Overtaken(id(2))), "{fx:?}");
    let answers = said(&fx, 2);
    assert_eq!(answers, [Message::Reject(ballot, ballot), Message::Promise(high, Grant::default(), true)]);
    // The other's answer, which was on its way: it is no candidate any more.
    assert_eq!(bench.says(Message::Reject(ballot, high)), []);
}

#[test]
fn who_promised_waits_until_it_met_the_other_again_or_that_gave_up_or_time_is_over() {
    let waits =
        |bench: &mut Bench, ms| refused(&bench.at_ms(ms, Event::Promote { force: true }), Refusal::Overtaken(id(2)));
    // A new reign ends every connection: that is not taken for the death of a candidate.
    let mut bench = secondary();
    bench.asks(2, 1, LOW);
    assert!(waits(&mut bench, 2), "also by force");
    bench.tell(Event::Lost(id(2), ConnId(1)));
    assert!(waits(&mut bench, 3));
    bench.peer_reigns = true;
    bench.meets(2, A, Generation::NONE);
    let fx = bench.at_ms(4, Event::Promote { force: false });
    assert!(refused(&fx, Refusal::OtherPrimary), "{fx:?}");
    // It gave up.
    let mut bench = secondary();
    bench.asks(2, 1, LOW);
    bench.says(Message::Reject(Ballot { round: 1, ..LOW }, LOW));
    assert!(waits(&mut bench, 2), "another one of it, before");
    bench.says(Message::Reject(LOW, LOW));
    assert!(!waits(&mut bench, 3));
    // It died.
    let mut bench = secondary();
    bench.asks(2, 1, LOW);
    bench.tell(Event::Lost(id(2), ConnId(1)));
    bench.at_ms(1200, Event::Tick);
    assert!(waits(&mut bench, 1200));
    bench.at_ms(1202, Event::Tick);
    assert!(!waits(&mut bench, 1202) && bench.node.is_primary());
}

/// Else it would promise two, which do not hear one another; or reject the higher one, which rejects the lower one.
#[test]
fn of_two_that_ask_the_second_one_is_answered_when_it_is_known_what_became_of_the_first() {
    let high = Ballot { round: 2, node: 3 };
    let asked = || {
        let mut bench = secondary();
        bench.peer = id(3);
        assert_eq!(bench.meets(2, A, Generation::NONE).0, Verdict::NoSync);
        assert_eq!(said(&bench.asks(2, 1, LOW), 2), [Message::Promise(LOW, Grant::default(), true)]);
        assert_eq!(said(&bench.asks(3, 2, high), 3), [], "it waits");
        (bench.peer, bench.conn) = (id(2), ConnId(1));
        bench
    };
    let mut bench = asked();
    let fx = bench.says(Message::Reject(LOW, LOW));
    assert_eq!(said(&fx, 3), [Message::Promise(high, Grant::default(), true)]);
    let lower = Ballot { round: 1, node: 2 };
    assert_eq!(said(&bench.asks(2, 1, lower), 2), [Message::Reject(lower, high)]);
    let mut bench = asked();
    bench.tell(Event::Lost(id(2), ConnId(1)));
    bench.peer_reigns = true;
    let (_, fx) = bench.meets(3, A, Generation::NONE);
    let reigns = Ballot { round: 1, node: 2 };
    assert_eq!(said(&fx, 3), [Message::Reject(high, reigns)], "it follows the first one");
}

#[test]
fn a_primary_rejects_a_candidate_and_one_that_follows_it_does_so_as_well() {
    let mut bench = primary();
    let high = Ballot { round: 7, node: 2 };
    let own = bench.node.reigns().expect("it reigns");
    assert_eq!(said(&bench.asks(2, 1, high), 2), [Message::Reject(high, own)]);
    assert!(bench.node.is_primary());
    bench.says(Message::Reject(own, high));
    assert!(bench.node.reigns() == Some(own), "a rejection that comes too late changes nothing");

    let mut bench = Bench::new(&[id(2), id(3)]);
    bench.meets(1, A, Generation::NONE);
    (bench.peer, bench.peer_reigns) = (id(3), false);
    bench.meets(2, A, Generation::NONE);
    let high = Ballot { round: 7, node: 3 };
    assert_eq!(said(&bench.asks(3, 2, high), 3), [Message::Reject(high, Ballot { round: 1, node: 2 })]);
}

/// One that does not answer, and whose connection does not end, is frozen, or is much slower than a vote may be.
#[test]
fn a_peer_that_does_not_answer_in_time_counts_no_more_and_neither_does_a_disk_for_ever() {
    let mut bench = secondary();
    bench.stands();
    bench.at_ms(300, Event::Received(id(2), ConnId(1), Message::Ping));
    bench.at_ms(401, Event::Tick);
    assert!(!bench.node.is_primary());
    bench.at_ms(402, Event::Tick);
    assert!(bench.node.is_primary());

    let mut bench = secondary();
    bench.tell(Event::Promote { force: false });
    bench.at_ms(300, Event::Received(id(2), ConnId(1), Message::Ping));
    let mut out = Vec::new();
    bench.node.handle(Now(402), Event::Tick, &mut out);
    assert!(refused(&out, Refusal::OwnDisk) && matches!(said(&out, 2)[..], [.., Message::Reject(..)]), "{out:?}");
}

/// A candidate that is told of a ballot goes above it the next time.
#[test]
fn who_is_rejected_says_who_is_in_the_way_and_asks_for_more_the_next_time() {
    let mut bench = secondary();
    let (ballot, _) = bench.stands();
    let fx = bench.says(Message::Reject(ballot, Ballot { round: 40, node: 3 }));
    assert!(refused(&fx, Refusal::Overtaken(id(3))), "{fx:?}");
    let (second, _) = bench.stands();
    assert_eq!(second.round, 41);
    let fx = bench.says(Message::Reject(second, LOW));
    assert!(refused(&fx, Refusal::OtherPrimary), "{fx:?}");
}

/// Three nodes and what is between them; everything happens in an order that chance gives.
struct Field {
    nodes: BTreeMap<NodeId, Node>,
    /// By sender and receiver: messages, and the end of the connection.
    wires: BTreeMap<(NodeId, NodeId), VecDeque<Option<Message>>>,
    disks: Vec<(NodeId, IoId)>,
    promoted: Vec<NodeId>,
    refused: Vec<(NodeId, Refusal)>,
    chance: u64,
}

impl Field {
    fn below(&mut self, n: usize) -> usize {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) as usize % n
    }

    /// Nodes 1 to 3 with the same data, connected as said.
    fn new(chance: u64, links: &[(u8, u8)]) -> Field {
        let all: Vec<NodeId> = (1..=3).map(id).collect();
        let node = |me: &NodeId| {
            let peers: Vec<NodeId> = all.iter().copied().filter(|n| n != me).collect();
            let mut sb = Superblock::new(RESOURCE, 1, *me, Layout::external(SHAPE), &peers);
            sb.current = A;
            (sb.flags.consistent, sb.flags.up_to_date) = (true, true);
            sb.peers.iter_mut().for_each(|p| p.connected = true);
            (*me, node_of(sb, &peers, None))
        };
        let nodes = all.iter().map(node).collect();
        let (wires, disks) = (BTreeMap::new(), Vec::new());
        let mut field = Field { nodes, wires, disks, promoted: Vec::new(), refused: Vec::new(), chance };
        for (a, b) in links.iter().map(|(a, b)| (id(*a), id(*b))) {
            for key in [(a, b), (b, a)] {
                field.wires.insert(key, VecDeque::new());
            }
            field.tell(a, Event::Connected(b, ConnId(1)));
            field.tell(b, Event::Connected(a, ConnId(1)));
        }
        field
    }

    fn tell(&mut self, at: NodeId, event: Event) {
        let mut fx = Vec::new();
        self.nodes.get_mut(&at).expect("a node").handle(Now(1), event, &mut fx);
        for effect in fx {
            match effect {
                Effect::Send(to, _, message) => {
                    self.wires.get_mut(&(at, to)).into_iter().for_each(|w| w.push_back(Some(message.clone())));
                }
                Effect::Close(to, ..) => {
                    self.wires.get_mut(&(at, to)).into_iter().for_each(|w| w.push_back(None));
                    self.wires.remove(&(to, at));
                }
                Effect::Meta(io, _) | Effect::Flush(io) => self.disks.push((at, io)),
                Effect::Told(Report::Promoted(_)) => self.promoted.push(at),
                Effect::Told(Report::NotPromoted(why)) => self.refused.push((at, why)),
                _ => {}
            }
        }
    }

    /// Something happens, if anything is under way.
    fn step(&mut self) -> bool {
        let ready: Vec<(NodeId, NodeId)> = self.wires.iter().filter(|(_, w)| !w.is_empty()).map(|(k, _)| *k).collect();
        let all = ready.len() + self.disks.len();
        if all == 0 {
            return false;
        }
        let n = self.below(all);
        let Some((from, to)) = ready.get(n).copied() else {
            let (at, io) = self.disks.remove(n - ready.len());
            self.tell(at, Event::Done(io, Ok(Bytes::new())));
            return true;
        };
        match self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            Some(Some(message)) => self.tell(to, Event::Received(from, ConnId(1), message)),
            _ => {
                self.wires.remove(&(from, to));
                self.wires.remove(&(to, from));
                self.tell(to, Event::Lost(from, ConnId(1)));
            }
        }
        true
    }
}

/// Promoted at any moments while messages are on their way, in whatever order those come: one reigns, each of the others is refused.
fn contest(links: &[(u8, u8)], candidates: &[u8], greeting: bool) -> [usize; 4] {
    let mut won = [0; 4];
    for chance in 0..4000 {
        let mut field = Field::new(chance, links);
        while !greeting && field.step() {}
        let mut left: Vec<NodeId> = candidates.iter().map(|n| id(*n)).collect();
        while !left.is_empty() {
            let n = field.below(left.len() + 2);
            if n < left.len() {
                let node = left.remove(n);
                field.tell(node, Event::Promote { force: false });
            } else {
                field.step();
            }
        }
        while field.step() {}
        assert_eq!(field.promoted.len(), 1, "chance {chance}: {:?}, refused {:?}", field.promoted, field.refused);
        assert_eq!(field.refused.len() + 1, candidates.len(), "chance {chance}: {:?}", field.refused);
        won[usize::from(field.promoted[0].get())] += 1;
    }
    won
}

#[test]
fn one_of_those_promoted_at_once_reigns_in_whatever_order_messages_come() {
    for greeting in [false, true] {
        let all = [(1, 2), (2, 3), (1, 3)];
        let two = contest(&all, &[1, 2], greeting);
        assert!(two[1] > 0 && two[2] > 0, "{two:?}");
        let three = contest(&all, &[1, 2, 3], greeting);
        assert!(three[1..].iter().all(|n| *n > 0), "{three:?}");
    }
}

/// A primary told the target of a synchronisation its generation, was killed before it wrote that down, and was promoted alone, as the
/// other was: both wrote under one generation, and what this one had written was overwritten as a former state of the other's.
#[test]
fn a_primary_that_crashed_and_reigns_alone_begins_a_generation_with_its_first_write() {
    for crashed in [false, true] {
        let mut sb = Superblock::new(RESOURCE, 1, id(1), Layout::external(SHAPE), &[id(2)]);
        sb.current = A;
        (sb.flags.consistent, sb.flags.up_to_date, sb.flags.primary) = (true, true, crashed);
        sb.peers[0].bitmap = B;
        let mut bench = Bench::of(sb, &[id(2)], None);
        let fx = bench.tell(Event::Promote { force: false });
        bench.metadata(fx);
        let current =
            |bench: &Bench| bench.node.replica().map(|r| (r.superblock().current, r.superblock().peers[0].bitmap));
        assert!(bench.node.is_primary() && current(&bench) == Some((A, B)), "nothing was written yet");
        let fx = ask(&mut bench, 1, BLOCK);
        bench.metadata(fx);
        let (now, left) = current(&bench).expect("a disk");
        assert!((now != A) == crashed && left == B, "where the other was left stays written down: {now:?}, {left:?}");
    }
}
