//! The reference with tiers, rules and compiled tables say the same of every connection, in random
//! worlds of the engine's own types: what no manifest can say yet is in them too.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;
use std::sync::Arc;

use netpol_abi::Reason;
use netpol_engine::compile::{Names, compile};
use netpol_engine::evaluate::{By, Party, Side, evaluate};
use netpol_engine::model::{Lanes, Ruling};
use netpol_engine::policy::{Direction, Protocol, Tier};
use netpol_engine::world::World;
use proptest::prelude::*;

use support::tiers::Tiers;
use support::{readings, reference, worlds};

/// Connections that some policy may have a say in.
fn probes(world: &World) -> Vec<(IpAddr, IpAddr, Protocol, u16)> {
    let addresses = worlds::addresses(world);
    let mut probes = Vec::new();
    for from in &addresses {
        for to in addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            let enforced =
                |one: &IpAddr| worlds::endpoints(world).any(|(_, pod)| pod.addresses.contains(one));
            if !enforced(from) && !enforced(to) {
                continue;
            }
            for protocol in Protocol::ALL {
                probes.extend(worlds::PORTS.map(|port| (*from, *to, protocol, port)));
            }
        }
    }
    probes
}

fn judge(
    world: &World,
    lanes: &Lanes,
    direction: Direction,
    (from, to, protocol, port): (IpAddr, IpAddr, Protocol, u16),
) -> Option<Ruling> {
    let (own, peer) = match direction {
        Direction::Egress => (from, to),
        Direction::Ingress => (to, from),
    };
    let (id, _) = worlds::endpoints(world).find(|(_, pod)| pod.addresses.contains(&own))?;
    if world.host.contains(&own) {
        return None;
    }
    let ruling = lanes.judge(id, direction, peer, protocol.number(), port);
    Some(ruling.expect("every endpoint is in the tables"))
}

/// What the tables report as the deciding rule is one that the rules themselves name.
fn names_the_same(world: &World, side: &Side, ruling: &Ruling, names: &Names) -> bool {
    // What is reported is what would be, whatever is in force.
    let by = if ruling.audited {
        assert_eq!(ruling.reason, Reason::PolicyDenied);
        &side.audited
    } else if world.audited.is_empty() {
        assert_eq!(side.reason, ruling.reason);
        &side.by
    } else {
        // The rules of an audited Namespace are not in force, and the tables name them.
        return true;
    };
    if world
        .policies
        .values()
        .any(|policy| policy.tier != Tier::NetworkPolicy)
    {
        // Where several tiers allow, the tables may name another one's rule.
        return true;
    }
    match names.rule(ruling.subject, ruling.rule) {
        Some(rule) => by
            .iter()
            .any(|by: &By| by.policy == rule.policy && by.rule == Some(rule.rule)),
        None => by.iter().all(|by| by.rule.is_none()),
    }
}

proptest! {
    #[test]
    fn reference_rules_and_tables_agree(world in worlds::world()) {
        let compiled = compile(&world).unwrap();
        let lanes = Lanes::steady(&compiled.tables, 7);
        let tiers = Tiers::of(&world);
        for probe in probes(&world) {
            let (from, to, protocol, port) = probe;
            let verdict = evaluate(&world, &Party::Address(from), &Party::Address(to), protocol, port).unwrap();
            prop_assert_eq!(verdict.allowed, tiers.allows(from, to, protocol, port), "rules, {:?}", probe);

            for (direction, theirs, side) in [
                (Direction::Egress, reference::Direction::Egress, &verdict.egress),
                (Direction::Ingress, reference::Direction::Ingress, &verdict.ingress),
            ] {
                let expected = tiers.side(theirs, from, to, protocol, port);
                prop_assert_eq!(readings::rules_answer(side), expected, "rules, {:?} {:?}", probe, direction);
                if let Some(ruling) = judge(&world, &lanes, direction, probe) {
                    prop_assert_eq!(readings::answer(&ruling), expected, "tables, {:?} {:?}", probe, direction);
                    prop_assert!(
                        names_the_same(&world, side, &ruling, &compiled.names),
                        "{:?} {:?} {:?} {:?}", probe, direction, side, ruling
                    );
                }
            }
        }
    }

    #[test]
    fn a_key_means_the_same_in_every_world(one in worlds::world(), two in worlds::world()) {
        // The same Pods under either's policies: what both tables know, they say alike.
        let mut third = one.clone();
        third.policies.extend(two.policies.clone());
        let (one, third) = (compile(&one).unwrap(), compile(&third).unwrap());
        for (subject, names) in &one.names.subjects {
            if let Some(others) = third.names.subjects.get(subject) {
                prop_assert_eq!(names, others);
            }
        }
        for (key, entry) in one.tables.verdicts.iter() {
            if let Some(other) = third.tables.verdicts.get(&key) {
                prop_assert_eq!(entry, other);
            }
        }
    }

    #[test]
    fn other_protocols_pass_by_rules_without_ports_alone(world in worlds::world()) {
        const ICMP: u8 = 1;
        let lanes = Lanes::steady(&compile(&world).unwrap().tables, 7);
        let mut without_ports = world.clone();
        for policy in without_ports.policies.values_mut().map(Arc::make_mut) {
            for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
                rules.retain(|rule| rule.ports.is_empty());
            }
        }
        for (id, pod) in worlds::endpoints(&world) {
            for own in &pod.addresses {
                for peer in worlds::addresses(&world) {
                    // What is left of the rules is the same for any port of any protocol.
                    let ruling = lanes.judge(id, Direction::Ingress, peer, ICMP, 0).unwrap();
                    let verdict = evaluate(
                        &without_ports, &Party::Address(peer), &Party::Address(*own), Protocol::Sctp, 9,
                    ).unwrap();
                    prop_assert_eq!(ruling.passes(), verdict.ingress.allowed, "{} {}", own, peer);
                }
            }
        }
    }
}
