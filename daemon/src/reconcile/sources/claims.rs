//! Addresses that containers' packets claimed and that are not known to be the containers' own: for how long the engine is
//! asked about them, and what it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::agreement;
use crate::printable::printable;
use crate::reconcile::observed::{Engine, Namespace};
use crate::runtime::container::{self, Container};
use crate::runtime::follow::OpenQuestions;

/// How long the engine is asked about an address.
const LASTING: Duration = Duration::from_secs(10);
/// How many addresses of one container the engine is asked about.
const MOST: usize = 16;

/// The claims, by container: each address, and until when the engine is asked about it.
#[derive(Debug, Default)]
pub struct Claims {
    claims: BTreeMap<String, BTreeMap<IpAddr, Instant>>,
}

impl Claims {
    /// A packet of this container claimed an address; `None`: the report does not say which. True: the claim is new.
    pub fn add(&mut self, id: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let claims = self.claims.entry(id.to_owned()).or_default();
        claims.retain(|_, until| *until > now);
        claims.len() < MOST && claims.insert(address, now + LASTING).is_none()
    }

    /// When the next claim ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.claims
            .values()
            .flat_map(BTreeMap::values)
            .min()
            .copied()
    }

    /// Forgets the claims that have ended.
    pub fn end(&mut self, now: Instant) {
        self.claims.retain(|_, claims| {
            claims.retain(|_, until| *until > now);
            !claims.is_empty()
        });
    }

    /// What the engine is to be asked: about containers of which it says something else than the kernel, or than their
    /// packets.
    pub fn questions(
        &mut self,
        engine: &Engine,
        containers: &BTreeMap<String, Namespace>,
    ) -> OpenQuestions {
        let mut questions = OpenQuestions::default();
        let listed = engine.snapshot.containers.iter();
        for container in listed.filter(|one| one.build.is_none()) {
            let Some(namespace) = containers.get(&container.id) else {
                continue;
            };
            let mut open = agreement::disputed(container, namespace);
            open.extend(self.open(container));
            // A process of a container that is not known to run: its start is under way, or was not saved yet.
            if !open.is_empty() || container.pid == 0 {
                let id = container::split(&container.id).1.to_owned();
                questions.containers.insert(id, open);
            }
        }
        questions
    }

    /// The addresses that the container's packets claimed, without those that its engine has named by now.
    fn open(&mut self, container: &Container) -> BTreeSet<IpAddr> {
        let Some(claims) = self.claims.get_mut(&container.id) else {
            return BTreeSet::new();
        };
        claims.retain(|address, _| {
            let mut networks = container.networks.iter();
            let is_own = networks.any(|network| network.addresses().any(|own| own == *address));
            if is_own {
                tell_own_address(&container.name, *address);
            }
            !is_own
        });
        claims.keys().copied().collect()
    }
}

/// Tells that drops which read as an attack were none.
pub fn tell_own_address(container: &str, address: IpAddr) {
    tracing::info!(
        container = %printable(container),
        %address,
        "the address is the container's own: packets under it were dropped as spoofed or forged before the engine told of it"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::container::{Attachment, Snapshot};

    #[test]
    fn an_address_is_asked_about_until_the_engine_names_it_or_its_time_is_over() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let own = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        let mut claims = Claims::default();
        assert!(claims.add("1", Some(own), now));
        assert!(!claims.add("1", Some(own), at(1)), "it is known");
        assert!(claims.add("1", None, at(2)), "an address that is not told");
        assert_eq!(
            claims.next_end(),
            Some(at(11)),
            "claimed again after a second"
        );
        let mut container = Container {
            id: "1".to_owned(),
            pid: 7,
            ..Container::default()
        };
        let namespaces = BTreeMap::from([("1".to_owned(), Namespace::default())]);
        let asked = |claims: &mut Claims, container: &Container| {
            let snapshot = Snapshot {
                containers: vec![container.clone()],
                ..Snapshot::default()
            };
            let engine = Engine {
                snapshot: snapshot.into(),
                ..Engine::default()
            };
            let questions = claims.questions(&engine, &namespaces);
            questions.containers.get("1").map_or(0, BTreeSet::len)
        };
        assert_eq!(asked(&mut claims, &container), 2);
        container.networks.push(Attachment {
            ipv4: Some(Ipv4Addr::new(10, 0, 0, 2)),
            ..Attachment::default()
        });
        assert_eq!(asked(&mut claims, &container), 1, "the engine named one");
        claims.end(at(12));
        assert_eq!(asked(&mut claims, &container), 0);
        assert_eq!(claims.next_end(), None);
    }

    #[test]
    fn a_container_that_claims_everything_is_asked_about_for_a_few_addresses() {
        let now = Instant::now();
        let mut claims = Claims::default();
        let new = (0..200).filter(|last| {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, *last));
            claims.add("1", Some(address), now)
        });
        assert_eq!(new.count(), MOST);
    }
}
