//! `opens-everything`: a rule that is for any peer and every port, or for every Pod there is and
//! every port. Empty lists are told while the manifest is read: here they are gone.

use super::Found;
use crate::lint::ground::{Ground, RuleAt};
use crate::policy::{Direction, Namespaces, Peer};

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    ground.rules().filter_map(empty).collect()
}

fn empty(at: RuleAt<'_>) -> Option<Found<'_>> {
    let RuleAt {
        policy, side, rule, ..
    } = at;
    if !rule.ports.is_empty() {
        return None;
    }
    let towards = match side.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    if rule.peers.is_empty() {
        return Some(Found {
            policy,
            field: at.field(),
            message: format!(
                "an empty rule allows everything: every port and protocol, {towards} anybody"
            ),
            help: format!(
                "name peers below `{}` or ports below `ports`; to allow nothing, remove the rule and \
                 leave `{}: []`",
                side.peers, side.rules
            ),
        });
    }
    let every = |peer: &Peer| match peer {
        Peer::Pods(pods) => {
            pods.pods.is_everything()
                && matches!(&pods.namespaces, Namespaces::Matching(all) if all.is_everything())
        }
        Peer::Block(_) => false,
    };
    let peer = rule.peers.iter().position(every)?;
    Some(Found {
        policy,
        field: at.peer(peer),
        message: format!(
            "an empty `namespaceSelector` is every Namespace: every port and protocol, {towards} every Pod"
        ),
        help:
            "name labels below it, or ports below `ports`; `podSelector: {}` alone is every Pod of \
               the policy's own Namespace"
                .to_owned(),
    })
}
