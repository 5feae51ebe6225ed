//! What the core reports, as sentences: of the log, and of `status`.

use super::status;
use crate::compare::{Rule, Verdict};
use crate::core::event::{Moved, RemoveRefusal, Report, ResizeRefusal};
use crate::ids::{Ballot, Grant, NodeId, NodeSet, SECTOR, Span, Volume};

/// A node, as its certificate names it.
pub(super) fn name(node: NodeId) -> String {
    format!("node-{}", node.get())
}

fn names(nodes: NodeSet) -> String {
    listed(nodes.iter().map(name), "nobody")
}

fn listed(words: impl Iterator<Item = String>, none: &str) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { none.to_owned() } else { words.join(", ") }
}

/// Round and node: which attempt to reign it was.
pub(super) fn ballot(ballot: Ballot) -> String {
    match NodeId::new(ballot.node) {
        Some(node) => format!("round {} of {}", ballot.round, name(node)),
        None => "none".to_owned(),
    }
}

/// A grant, with those that it names.
pub(super) fn grant(grant: Grant) -> String {
    let Grant { ballot: by, version, generation, members } = grant;
    format!("{}, version {version}, generation {generation:?}, to {}", ballot(by), names(members))
}

/// What two nodes are to one another, and the rules that said so.
pub(super) fn met(verdict: Verdict, rules: &[Rule]) -> String {
    let word = match verdict {
        Verdict::NoSync => "NoSync",
        Verdict::Source { full: false } => "Source",
        Verdict::Source { full: true } => "Source of everything",
        Verdict::Target { full: false } => "Target",
        Verdict::Target { full: true } => "Target of everything",
        Verdict::Wait => "Wait",
        Verdict::Retry => "Retry",
        Verdict::SplitBrain => "SplitBrain",
        Verdict::Unrelated => "Unrelated",
        Verdict::PrimaryWouldLose => "PrimaryWouldLose",
    };
    // The rules' names are those of the documents.
    let rules = listed(rules.iter().map(|r| format!("{r:?}")), "");
    if rules.is_empty() { word.to_owned() } else { format!("{word} by {rules}") }
}

fn bytes(sectors: u64) -> u64 {
    sectors.saturating_mul(SECTOR)
}

/// A range of a volume, in bytes.
pub(super) fn range(span: Span) -> String {
    let volume = Volume::of(span.at).map_or(0, Volume::get);
    format!("{} bytes from {} on of volume {volume}", bytes(span.len), bytes(Volume::local(span.at)))
}

/// A sentence, without its end.
pub(super) fn report(report: &Report) -> String {
    match report {
        Report::Decided(node, verdict, rules) => {
            format!("this node has met {}, and is to it: {}", name(*node), met(*verdict, rules))
        }
        Report::Preview(node, verdict, rules, sectors) => {
            let (node, met) = (name(*node), met(*verdict, rules));
            format!("this node would be to {node}: {met}; {} bytes are marked", bytes(*sectors))
        }
        Report::Promoted(by) => format!("this node is primary: {}", ballot(*by)),
        Report::Forced(over) => format!("it becomes so by force, over what was granted last: {}", grant(*over)),
        Report::NotPromoted(why) => format!("this node does not become primary: {}", status::refusal(*why)),
        Report::Demoted => "this node is secondary again".to_owned(),
        Report::Deposed => "this node is primary no more: another was granted that".to_owned(),
        Report::Granted(given) => format!("granted: {}", grant(*given)),
        Report::Synchronised(node, Moved { sent, zeroed, equal }) => {
            let node = name(*node);
            format!("{node} is synchronised: {sent} blocks sent, {zeroed} zeroed, {equal} were equal")
        }
        Report::Detached => "the local disk is left".to_owned(),
        Report::DiskHangs => "the local disk does not answer in time".to_owned(),
        Report::PassedOn(span) => format!("the local disk failed at {}, and is kept", range(*span)),
        Report::AtRest(true) => "this node has come to rest".to_owned(),
        Report::AtRest(false) => "this node cannot come to rest".to_owned(),
        Report::Quorum(true) => "there is quorum".to_owned(),
        Report::Quorum(false) => "there is no quorum".to_owned(),
        Report::LeftBehind(node) => format!("{} is slow, and is left behind", name(*node)),
        Report::Verified(node, differs, skipped) => {
            let (node, differs, skipped) = (name(*node), bytes(*differs), bytes(*skipped));
            format!("{node} was compared with this node: {differs} bytes differ, {skipped} could not be compared")
        }
        Report::Repaired(node, bytes) => format!("{bytes} bytes are as {} had them", name(*node)),
        Report::NotRepaired(bytes) => format!("{bytes} bytes were to be repaired, and are not"),
        other => of_volumes(other),
    }
}

fn of_volumes(report: &Report) -> String {
    match report {
        Report::Grown(volume, sectors) => format!("volume {} has {} bytes here", volume.get(), bytes(*sectors)),
        Report::Resized(volume, sectors) => {
            format!("volume {} has {} bytes on all nodes", volume.get(), bytes(*sectors))
        }
        Report::NotResized(why) => format!("nothing grows: {}", not_resized(*why)),
        Report::OtherSize(node, volume, sectors) => {
            format!("volume {} has {} bytes at {}", volume.get(), bytes(*sectors), name(*node))
        }
        Report::TakenAway(volume) => format!("volume {} is taken away here", volume.get()),
        Report::Removed(volume) => format!("volume {} is taken away on all nodes", volume.get()),
        Report::NotRemoved(why) => format!("no volume is taken away: {}", not_removed(*why)),
        Report::OtherLife(node, volume) => {
            format!("volume {} was taken away at {} or here, and is used by the other", volume.get(), name(*node))
        }
        // Every other one has its sentence above.
        _ => String::new(),
    }
}

fn not_resized(why: ResizeRefusal) -> String {
    match why {
        ResizeRefusal::NotPrimary => "this node is not primary".to_owned(),
        ResizeRefusal::NoDisk => "this node has left its disk".to_owned(),
        ResizeRefusal::Busy => "that is being done already".to_owned(),
        ResizeRefusal::Away(node) => format!("{} is not connected, or not equal", name(node)),
        ResizeRefusal::Shrinks => "it never becomes smaller".to_owned(),
        ResizeRefusal::Same => "it has that size".to_owned(),
        ResizeRefusal::NoRoom(node, most) => format!("{} has room for {} bytes", name(node), bytes(most)),
        ResizeRefusal::Lost(node) => format!("{} was lost, or did not answer", name(node)),
    }
}

fn not_removed(why: RemoveRefusal) -> String {
    match why {
        RemoveRefusal::NotPrimary => "this node is not primary".to_owned(),
        RemoveRefusal::NoDisk => "this node has left its disk".to_owned(),
        RemoveRefusal::First => "the first one has the metadata of all".to_owned(),
        RemoveRefusal::NotThere => "there is none of this number".to_owned(),
        RemoveRefusal::NoQuorum => "there is no quorum".to_owned(),
        RemoveRefusal::Busy => "something is being done with the volumes already".to_owned(),
        RemoveRefusal::Away(node) => format!("{} is not connected, or not equal", name(node)),
        RemoveRefusal::InUse => "what is under way there does not end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Refusal;
    use crate::ids::Generation;

    #[test]
    fn reports_are_told_in_plain_words() {
        let node = NodeId::new(2).expect("a node");
        let by = Ballot { round: 3, node: 2 };
        let given = Grant { ballot: by, version: 1, generation: Generation(0x10), members: NodeSet::of(node) };
        for (told, said) in [
            (Report::Promoted(by), "this node is primary: round 3 of node-2"),
            (
                Report::NotPromoted(Refusal::Overtaken(node)),
                "this node does not become primary: node-2 is being promoted as well, or was just before",
            ),
            (Report::Granted(given), "granted: round 3 of node-2, version 1, generation 0000000000000010, to node-2"),
            (
                Report::Decided(node, Verdict::Source { full: true }, vec![Rule::JustCreatedPeer, Rule::DiskStates]),
                "this node has met node-2, and is to it: Source of everything by JustCreatedPeer, DiskStates",
            ),
            (
                Report::PassedOn(Span::new(8, 2)),
                "the local disk failed at 1024 bytes from 4096 on of volume 0, and is kept",
            ),
            (Report::OtherSize(node, Volume::FIRST, 8), "volume 0 has 4096 bytes at node-2"),
            (Report::NotResized(ResizeRefusal::NoRoom(node, 2)), "nothing grows: node-2 has room for 1024 bytes"),
        ] {
            assert_eq!(report(&told), said);
        }
        assert_eq!((ballot(Ballot::default()), names(NodeSet::EMPTY)), ("none".to_owned(), "nobody".to_owned()));
    }
}
