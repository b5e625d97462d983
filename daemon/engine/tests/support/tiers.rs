//! Orders and actions on top of the reference: the order in which policies of several tiers are
//! asked. What selects, what isolates and what a rule matches is the reference's answer; the API
//! of NetworkPolicy has no tiers, so their order can't come from its text.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use netpol_engine::policy::{Action, ObjectName, Policy, Protocol, Tier};
use netpol_engine::world::World;

use super::reference::{self, Answer, Cluster, Connection, Direction, Host};
use super::{writing, written};

/// A world and what the reference reads of it.
pub struct Tiers<'w> {
    world: &'w World,
    cluster: Cluster,
}

impl<'w> Tiers<'w> {
    pub fn new(world: &'w World) -> Self {
        let host = Host {
            addresses: world.host.iter().copied().collect(),
            reaches_pods: world.settings.host_ingress,
            reached_by_pods: world.settings.host_egress,
        };
        let text = writing::file(&written::documents(world), 0);
        let cluster = Cluster::read([text.as_str()], host).expect("a written world can be read");
        Self { world, cluster }
    }

    /// May `from` open a connection to `port` of `to`?
    pub fn allows(&self, from: IpAddr, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        [Direction::Egress, Direction::Ingress]
            .into_iter()
            .all(|direction| self.side(direction, from, to, protocol, port) != Answer::Dropped)
    }

    /// What one end makes of it.
    pub fn side(
        &self,
        direction: Direction,
        from: IpAddr,
        to: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Answer {
        let connection = Connection {
            from,
            to,
            protocol: written::protocol(protocol),
            port,
        };
        let standing = self.cluster.standing(direction, connection);
        standing.answer(|policies| self.allow(policies, direction, connection))
    }

    fn allow(
        &self,
        policies: &[&NetworkPolicy],
        direction: Direction,
        connection: Connection,
    ) -> bool {
        let decided = |tier| {
            let policies = self.of_tier(policies, tier);
            let mut matched = policies
                .into_iter()
                .flat_map(|(ours, theirs)| self.matched(ours, theirs, direction, connection));
            match matched.next()? {
                Action::Allow => Some(true),
                Action::Deny => Some(false),
                // The rest of the tier is not asked.
                Action::Pass => None,
            }
        };
        if let Some(verdict) = decided(Tier::Admin) {
            return verdict;
        }
        let middle = self.of_tier(policies, Tier::NetworkPolicy);
        if !middle.is_empty() {
            return middle.into_iter().any(|(ours, theirs)| {
                !self.matched(ours, theirs, direction, connection).is_empty()
            });
        }
        decided(Tier::Baseline).unwrap_or(true)
    }

    /// By name, as the world has them and as they were read.
    fn of_tier<'c>(
        &self,
        policies: &[&'c NetworkPolicy],
        tier: Tier,
    ) -> Vec<(&'w Policy, &'c NetworkPolicy)> {
        let mut found: Vec<_> = policies
            .iter()
            .filter_map(|theirs| {
                let namespace = reference::namespace(&theirs.metadata);
                let name = theirs.metadata.name.as_deref()?;
                let ours = &*self.world.policies[&ObjectName::new(namespace, name)];
                (ours.tier == tier).then_some((ours, *theirs))
            })
            .collect();
        found.sort_by(|one, two| one.0.name.cmp(&two.0.name));
        found
    }

    /// The actions of the rules that match.
    fn matched(
        &self,
        ours: &Policy,
        theirs: &NetworkPolicy,
        direction: Direction,
        connection: Connection,
    ) -> Vec<Action> {
        let rules = match direction {
            Direction::Ingress => ours.ingress.iter(),
            Direction::Egress => ours.egress.iter(),
        };
        rules
            .flatten()
            .enumerate()
            .filter(|(index, _)| {
                self.cluster
                    .rule_matches(theirs, direction, *index, connection)
            })
            .map(|(_, rule)| rule.action)
            .collect()
    }
}
