//! Does one thing select or allow at most what another does?
//!
//! Told from what stands in the manifests alone, never from what happens to run: advice that
//! follows from it stays true when Pods come and go. *Yes* is certain; *no* may also mean
//! that it could not be told. Called by the rules of this module.

use ipnet::IpNet;

use crate::labels::{Operator, Requirement, Selector};
use crate::policy::{Action, IpBlock, Namespaces, Peer, Port, Ports, Rule};
use crate::world::World;

/// Pairs of peers that are compared for two rules; beyond, they count as different.
const MAX_PAIRS: usize = 10_000;

/// Does `wide` match whatever `narrow` matches?
pub(super) fn selector(narrow: &Selector, wide: &Selector) -> bool {
    wide.requirements().all(|wanted| {
        narrow
            .requirements()
            .any(|known| known.key == wanted.key && implies(known, wanted))
    })
}

/// Does the first hold for no value for which the second, of the same key, does not?
fn implies(one: &Requirement, two: &Requirement) -> bool {
    use Operator::{DoesNotExist, Exists, In, NotIn};
    match (&one.operator, &two.operator) {
        (In(some), In(all)) => some.is_subset(all),
        (In(values), NotIn(others)) => values.is_disjoint(others),
        (NotIn(all), NotIn(some)) => some.is_subset(all),
        (In(_) | Exists, Exists) | (DoesNotExist, DoesNotExist | NotIn(_)) => true,
        _ => false,
    }
}

/// Does the rule `wide` allow whatever `narrow` allows?
pub(super) fn rule(world: &World, narrow: &Rule, wide: &Rule) -> bool {
    narrow.action == Action::Allow
        && wide.action == Action::Allow
        && narrow.peers.len().saturating_mul(wide.peers.len()) <= MAX_PAIRS
        && narrow.ports.len().saturating_mul(wide.ports.len()) <= MAX_PAIRS
        && all_within(&narrow.ports, &wide.ports, port)
        && all_within(&narrow.peers, &wide.peers, |one, two| peer(world, one, two))
}

/// An empty list is everything, of peers as of ports.
fn all_within<T>(narrow: &[T], wide: &[T], within: impl Fn(&T, &T) -> bool) -> bool {
    wide.is_empty()
        || (!narrow.is_empty()
            && narrow
                .iter()
                .all(|one| wide.iter().any(|two| within(one, two))))
}

fn peer(world: &World, narrow: &Peer, wide: &Peer) -> bool {
    match (narrow, wide) {
        (Peer::Pods(one), Peer::Pods(two)) => {
            selector(&one.pods, &two.pods) && namespaces(world, &one.namespaces, &two.namespaces)
        }
        (Peer::Block(one), Peer::Block(two)) => block(one, two),
        _ => false,
    }
}

fn namespaces(world: &World, narrow: &Namespaces, wide: &Namespaces) -> bool {
    match (narrow, wide) {
        (Namespaces::Own(one), Namespaces::Own(two)) => one == two,
        (Namespaces::Own(own), Namespaces::Matching(wide)) => {
            wide.matches(&world.namespace_labels(own))
        }
        (Namespaces::Matching(one), Namespaces::Matching(two)) => selector(one, two),
        (Namespaces::Matching(narrow), Namespaces::Own(own)) => {
            let named = Selector::new([Requirement::equals(crate::world::METADATA_NAME, own)]);
            selector(narrow, &named)
        }
    }
}

fn block(narrow: &IpBlock, wide: &IpBlock) -> bool {
    let apart = |one: &IpNet, two: &IpNet| !one.contains(two) && !two.contains(one);
    wide.cidr.contains(&narrow.cidr)
        && wide.except.iter().all(|hole| {
            apart(hole, &narrow.cidr) || narrow.except.iter().any(|own| own.contains(hole))
        })
}

fn port(narrow: &Port, wide: &Port) -> bool {
    narrow.protocol == wide.protocol
        && match (&narrow.ports, &wide.ports) {
            (_, Ports::All) => true,
            (Ports::Range(first, last), Ports::Range(from, to)) => from <= first && last <= to,
            (Ports::Named(one), Ports::Named(two)) => one == two,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::policy::{PodPeer, Protocol};

    fn one(key: &str, operator: Operator) -> Selector {
        Selector::new([Requirement {
            key: key.to_owned(),
            operator,
        }])
    }

    fn values(list: &[&str]) -> std::collections::BTreeSet<String> {
        list.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn selectors() {
        use Operator::{DoesNotExist, Exists, In, NotIn};
        let both = Selector::new([
            Requirement::equals("app", "a"),
            Requirement::equals("tier", "b"),
        ]);
        assert!(selector(&both, &one("app", In(values(&["a", "x"])))));
        assert!(!selector(&one("app", In(values(&["a"]))), &both));
        assert!(selector(&both, &Selector::everything()));
        assert!(!selector(&Selector::everything(), &both));
        for (narrow, wide, expected) in [
            (In(values(&["a"])), NotIn(values(&["b"])), true),
            (In(values(&["a", "b"])), NotIn(values(&["b"])), false),
            (NotIn(values(&["a", "b"])), NotIn(values(&["b"])), true),
            (NotIn(values(&["b"])), NotIn(values(&["a", "b"])), false),
            (DoesNotExist, NotIn(values(&["b"])), true),
            (NotIn(values(&["b"])), DoesNotExist, false),
            (In(values(&["a"])), Exists, true),
            (Exists, In(values(&["a"])), false),
            (NotIn(values(&["a"])), Exists, false),
        ] {
            let (narrow, wide) = (one("app", narrow), one("app", wide));
            assert_eq!(selector(&narrow, &wide), expected, "{narrow} in {wide}");
        }
    }

    #[test]
    fn blocks() {
        let block = |cidr: &str, except: &[&str]| IpBlock {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let wide = block("10.0.0.0/8", &["10.1.0.0/16"]);
        for (narrow, expected) in [
            (block("10.2.0.0/16", &[]), true),
            (block("10.0.0.0/8", &[]), false),
            (block("10.0.0.0/8", &["10.0.0.0/15"]), true),
            (block("10.1.2.0/24", &[]), false),
            (block("192.0.2.0/24", &[]), false),
            (block("fd00::/8", &[]), false),
        ] {
            assert_eq!(super::block(&narrow, &wide), expected, "{narrow:?}");
        }
    }

    #[test]
    fn rules() {
        let tcp = |ports| Port {
            protocol: Protocol::Tcp,
            ports,
        };
        let web = Peer::Pods(PodPeer {
            namespaces: Namespaces::Own("shop".to_owned()),
            pods: one("app", Operator::In(values(&["web"]))),
        });
        let anywhere = Peer::Pods(PodPeer {
            namespaces: Namespaces::Matching(Selector::everything()),
            pods: Selector::everything(),
        });
        let rule = |peers: &[&Peer], ports: &[Port]| Rule {
            action: Action::Allow,
            peers: peers.iter().map(|peer| (*peer).clone()).collect(),
            ports: ports.to_vec(),
        };
        let named = || tcp(Ports::Named("http".to_owned()));
        let world = World::default();
        for (narrow, wide, expected) in [
            (
                rule(&[&web], &[tcp(Ports::Range(80, 80))]),
                rule(&[], &[]),
                true,
            ),
            (rule(&[], &[]), rule(&[&anywhere], &[]), false),
            (rule(&[&web], &[]), rule(&[&anywhere], &[]), true),
            (rule(&[&web], &[]), rule(&[&web], &[tcp(Ports::All)]), false),
            (
                rule(&[&web], &[named()]),
                rule(&[&web], &[tcp(Ports::All)]),
                true,
            ),
            (
                rule(&[&web], &[tcp(Ports::Range(80, 90))]),
                rule(&[&web], &[tcp(Ports::Range(80, 85)), named()]),
                false,
            ),
            (rule(&[&web, &anywhere], &[]), rule(&[&web], &[]), false),
        ] {
            assert_eq!(
                super::rule(&world, &narrow, &wide),
                expected,
                "{narrow:?} {wide:?}"
            );
        }
    }
}
