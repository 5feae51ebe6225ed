//! What a node that resigned in favour of another does next: pure.
//!
//! An office may come back: the other may not hold it yet, and this node takes it again. Then it is offered again. But only
//! an office that came back is. Prevents: 2 resigns in favour of 3, and whoever waits for that on 2 is not run for a while; 3
//! has taken office, and then it was asked to go to 1, and to 2. He sees that 2 is in office, takes it for what he gave
//! away, and gives it to 3 once more, behind the back of whoever was told that 2 coordinates.

use block::shared::{Epoch, NodeId};

use super::office::OfficeState;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Nobody has followed yet.
    Wait,
    /// The other has taken office.
    Taken,
    /// This node has taken it again, in this epoch, with nobody in between: it is offered again.
    Offer(Epoch),
    /// Others have followed, last this one: the move that was asked for is over.
    MovedOn(NodeId),
}

/// After `resigned` was given up in favour of `to`.
pub(super) fn next(resigned: Epoch, to: NodeId, state: &OfficeState) -> Next {
    let own = state.in_office.map(|right| (right.epoch(), right.client().node));
    let known = state.hint.as_ref().map(|hint| (hint.epoch, hint.node));
    match own.max(known) {
        Some((epoch, node)) if epoch > resigned => match own {
            _ if node == to => Next::Taken,
            Some((own, _)) if own == epoch && epoch.0 == resigned.0 + 1 => Next::Offer(epoch),
            _ => Next::MovedOn(node),
        },
        _ => Next::Wait,
    }
}

#[cfg(test)]
mod tests {
    use block::shared::Incarnation;

    use super::*;
    use crate::core::office::{FencedEpoch, LeaseView, Permission};
    use crate::proto::CoordinatorHint;
    use crate::types::ClientId;

    fn node(n: u8) -> NodeId {
        NodeId::new(n).expect("a node")
    }

    /// As node 2 sees it: who is known to coordinate, and its own reign.
    fn state(hint: Option<(u64, u8)>, own: Option<u64>) -> OfficeState {
        let me = ClientId { node: node(2), incarnation: Incarnation(1) };
        let right = |epoch: u64| {
            let before = LeaseView { epoch: Epoch(epoch - 1), ..LeaseView::new_volume() };
            FencedEpoch::by_resignation(&before, &before.taken_by(me, "", 1)).expect("nobody holds it")
        };
        OfficeState {
            client: None,
            hint: hint.map(|(epoch, n)| CoordinatorHint { epoch: Epoch(epoch), node: node(n) }),
            in_office: own.map(right),
            suspended: false,
            permission: Permission::Withheld,
            own_path_ok: true,
            over: false,
        }
    }

    #[test]
    fn what_was_resigned_is_waited_for_until_the_other_has_it_and_offered_again_if_it_comes_back() {
        let next = |hint, own| next(Epoch(6), node(3), &state(hint, own));
        assert_eq!(next(None, None), Next::Wait);
        assert_eq!(next(Some((6, 2)), None), Next::Wait);
        assert_eq!(next(Some((7, 3)), None), Next::Taken);
        assert_eq!(next(Some((9, 3)), None), Next::Taken, "whatever was in between");
        assert_eq!(next(Some((7, 2)), Some(7)), Next::Offer(Epoch(7)));
        assert_eq!(next(None, Some(7)), Next::Offer(Epoch(7)));
    }

    /// "node-2 is coordinator of v", and a moment later it was node 3.
    #[test]
    fn an_office_that_came_by_another_way_is_not_given_away() {
        let next = |hint, own| next(Epoch(6), node(3), &state(hint, own));
        assert_eq!(next(Some((9, 2)), Some(9)), Next::MovedOn(node(2)));
        assert_eq!(next(Some((6, 2)), Some(9)), Next::MovedOn(node(2)));
        assert_eq!(next(Some((7, 1)), None), Next::MovedOn(node(1)));
    }
}
