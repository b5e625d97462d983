//! The reference with tiers, rules and compiled tables say the same of every connection, in random
//! worlds of the engine's own types: what no manifest can say yet is in them too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use netpol_abi::Reason;
use netpol_abi::tables::{NOT_ISOLATED, asks_index};
use netpol_engine::compile::{Names, compile};
use netpol_engine::evaluate::{By, EndpointSpec, Side, evaluate};
use netpol_engine::explain::explain;
use netpol_engine::model::{MapImage, Ruling};
use netpol_engine::policy::{Direction, Mode, Protocol, Tier};
use netpol_engine::resolver;
use netpol_engine::world::{Place, Pod, World};
use proptest::prelude::*;

use support::reference::Answer;
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
    banks: &MapImage,
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
    let ruling = banks.judge(id, direction, peer, protocol.number(), port);
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
    match names.rule(ruling.policy_set, ruling.rule) {
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
        let banks = MapImage::steady(&compiled.tables, 7);
        let tiers = Tiers::new(&world);
        for probe in probes(&world) {
            let (from, to, protocol, port) = probe;
            let ends = [from, to].map(EndpointSpec::Address);
            let verdict = evaluate(&world, &ends[0], &ends[1], protocol, port).unwrap();
            prop_assert_eq!(verdict.allowed, tiers.allows(from, to, protocol, port), "rules, {:?}", probe);

            for (direction, theirs, side) in [
                (Direction::Egress, reference::Direction::Egress, &verdict.egress),
                (Direction::Ingress, reference::Direction::Ingress, &verdict.ingress),
            ] {
                let expected = tiers.side(theirs, from, to, protocol, port);
                prop_assert_eq!(readings::rules_answer(side), expected, "rules, {:?} {:?}", probe, direction);
                if let Some(ruling) = judge(&world, &banks, direction, probe) {
                    prop_assert_eq!(readings::answer(&ruling), expected, "tables, {:?} {:?}", probe, direction);
                    prop_assert!(
                        names_the_same(&world, side, &ruling, &compiled.names),
                        "{:?} {:?} {:?} {:?}", probe, direction, side, ruling
                    );
                }
            }
        }
    }

    /// What is said behind a published port is what the container's own policies say of the client: the address that
    /// the port leads to stands in the world.
    #[test]
    fn behind_a_published_port_the_containers_policies_are_asked(world in worlds::world()) {
        let banks = MapImage::steady(&compile(&world).unwrap().tables, 7);
        let tiers = Tiers::new(&world);
        let froms = worlds::endpoints(&world).flat_map(|(id, pod)| pod.addresses.iter().map(move |from| (id, *from)));
        for (id, from) in froms {
            for to in worlds::addresses(&world).into_iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
                for (protocol, port) in Protocol::ALL.into_iter().flat_map(|it| worlds::PUBLISHED.map(|port| (it, port))) {
                    let ruling = banks.behind(from, to, protocol.number(), port);
                    let of_kind = |wanted: &[&str]| -> Vec<(u32, &Pod, u16)> {
                        let wanted: Vec<IpAddr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
                        let mut found = Vec::new();
                        for (id, pod) in worlds::endpoints(&world) {
                            for one in &pod.published {
                                let is_at = wanted.contains(&one.address) || (wanted.is_empty() && one.address == to);
                                if is_at && (one.protocol, one.port) == (protocol, port) {
                                    found.push((id, pod, one.target));
                                }
                            }
                        }
                        found
                    };
                    // The address itself, then its family, then the other one.
                    let mut behind = of_kind(&[]);
                    if behind.is_empty() && world.host.contains(&to) {
                        let families = if to.is_ipv4() { ["0.0.0.0", "::"] } else { ["::", "0.0.0.0"] };
                        behind = of_kind(&families[..1]);
                        if behind.is_empty() {
                            behind = of_kind(&families[1..]);
                        }
                    }
                    // `None`: its own port. Of several one of those that are isolated.
                    let answers: Vec<Option<Answer>> = behind
                        .into_iter()
                        .map(|(other, pod, target)| {
                            let own = *pod.addresses.iter().next().unwrap();
                            let side = tiers.side(reference::Direction::Ingress, from, own, protocol, target);
                            (other != id).then_some(side)
                        })
                        .collect();
                    let found = match ruling.as_ref().map(readings::answer) {
                        Some(now) => answers.contains(&Some(now)),
                        None => answers.is_empty() || answers.iter().any(|one| one.is_none_or(|one| one == Answer::Passes)),
                    };
                    prop_assert!(found, "{} {} {} {}: {:?} {:?}", from, to, protocol, port, ruling, answers);
                    if world.host.contains(&to) {
                        let ends = [EndpointSpec::Address(from), EndpointSpec::Address(to)];
                        let verdict = evaluate(&world, &ends[0], &ends[1], protocol, port).unwrap();
                        let expected = ruling.as_ref().map_or(Answer::Passes, readings::answer);
                        prop_assert_eq!(readings::rules_answer(&verdict.ingress), expected, "{} {} {} {}", from, to, protocol, port);
                        let explained = explain(&world, &ends[0], &ends[1], protocol, port).unwrap();
                        prop_assert_eq!(explained.ingress.verdict, verdict.ingress);
                        prop_assert_eq!(explained.allowed, verdict.allowed);
                    }
                }
            }
        }
    }

    #[test]
    fn an_engine_may_ask_what_its_container_may_ask_of_some_resolver(world in worlds::world(), has_peer: bool) {
        let mut world = world;
        let (name, peer) = resolver::kube_dns(BTreeSet::new());
        if has_peer {
            world.pods.insert(name.clone(), peer);
        }
        let tables = compile(&world).unwrap().tables;
        // Nothing is only audited: once as if what is were not there, and once as if all of it were in force.
        world.audited.clear();
        let (mut without, mut with) = (world.clone(), world.clone());
        without.policies.retain(|_, policy| policy.mode == Mode::Enforce);
        for policy in with.policies.values_mut() {
            Arc::make_mut(policy).mode = Mode::Enforce;
        }
        for (from, pod) in &world.pods {
            let Place::Attached(attached) = &pod.place else { continue };
            let endpoint = tables.endpoints[&attached.slot];
            let Some(resolvers) = &attached.asks else {
                prop_assert_eq!(endpoint.asks, [0; 4]);
                continue;
            };
            let addresses = resolvers.iter().copied().map(EndpointSpec::Address);
            let asked: Vec<EndpointSpec> = addresses.chain(has_peer.then(|| EndpointSpec::Pod(name.clone()))).collect();
            let cases = [(&without, endpoint.egress, false), (&with, endpoint.audited_egress, true)];
            for (world, policy_set, is_audited) in cases {
                for (protocol, is_tcp) in [(Protocol::Udp, false), (Protocol::Tcp, true)] {
                    let may = |to: &EndpointSpec| {
                        let verdict = evaluate(world, &EndpointSpec::Pod(from.clone()), to, protocol, 53);
                        verdict.unwrap().egress.allowed
                    };
                    // What no policy isolates is not asked.
                    let expected = policy_set != NOT_ISOLATED && asked.iter().any(may);
                    let word = endpoint.asks[asks_index(is_tcp, is_audited)];
                    prop_assert_eq!(word != 0, expected, "{} {:?}, audited {}: {:#x}", from, protocol, is_audited, word);
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
        for (policy_set, names) in &one.names.policy_sets {
            if let Some(others) = third.names.policy_sets.get(policy_set) {
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
        let banks = MapImage::steady(&compile(&world).unwrap().tables, 7);
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
                    let ruling = banks.judge(id, Direction::Ingress, peer, ICMP, 0).unwrap();
                    let verdict = evaluate(
                        &without_ports, &EndpointSpec::Address(peer), &EndpointSpec::Address(*own), Protocol::Sctp, 9,
                    ).unwrap();
                    prop_assert_eq!(ruling.passes(), verdict.ingress.allowed, "{} {}", own, peer);
                }
            }
        }
    }
}
