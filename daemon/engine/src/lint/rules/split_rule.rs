//! `split-rule`: a rule with peers alone beside one with ports alone, where one dash was probably too
//! many. Each is a rule by itself: the peers may have every port, and any peer those ports.

use super::Found;
use crate::lint::ground::{Ground, SIDES, Side};
use crate::policy::{Direction, Policy, Port, Ports, Rule};

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for policy in ground.policies() {
        for side in SIDES {
            let rules = policy.rules(side.direction).unwrap_or_default();
            for (index, two) in rules.windows(2).enumerate() {
                if is_half(&two[0], &two[1]) || is_half(&two[1], &two[0]) {
                    found.push(report(ground, policy, side, index, two));
                }
            }
        }
    }
    found
}

/// Has the one peers and no ports, and the other ports and no peers? A rule for DNS to any peer is
/// usually meant as it stands.
fn is_half(peers: &Rule, ports: &Rule) -> bool {
    let is_dns = |port: &Port| port.ports == Ports::Range(53, 53);
    !peers.peers.is_empty()
        && peers.ports.is_empty()
        && ports.peers.is_empty()
        && !ports.ports.iter().all(is_dns)
}

fn report<'w>(
    ground: &Ground<'w>,
    policy: &'w Policy,
    side: Side,
    index: usize,
    two: &[Rule],
) -> Found<'w> {
    let any_peer = match side.direction {
        Direction::Ingress => "from anybody",
        Direction::Egress => "to anybody",
    };
    let peers = side.peers;
    let mut help =
        "where these ports of those peers are meant, make it one rule: write the second without its dash"
            .to_owned();
    let mut meant: Vec<usize> = two
        .iter()
        .flat_map(|rule| &rule.peers)
        .flat_map(|peer| ground.peers(peer))
        .collect();
    meant.sort_unstable();
    meant.dedup();
    if !meant.is_empty() {
        let pairs = ground.pairs(side, policy, &meant);
        help.push_str(&format!(
            "\nas written: every port of {pairs}, and these ports {any_peer}\nas one rule: these ports of {pairs}"
        ));
    }
    Found {
        policy,
        field: side.rule(index + 1),
        message: format!(
            "these two items are two rules: every port of what is below `{peers}`, and these ports {any_peer}"
        ),
        help,
    }
}
