//! Whose each address is, and where each endpoint stands in the kernel's tables: its number, its slot, its
//! interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_engine::leave::{ADDRESSES, is_wide};
use netpol_engine::policy::ObjectName;
use netpol_engine::resolver;
use netpol_engine::world::{self, Place, Pod};

use super::Conflict;
use super::{Assembly, Candidate};
use crate::datapath::{is_inside, is_loopback};
use crate::reconcile::register::{Key, Record, Register};

impl Assembly<'_> {
    /// Engines with network namespaces of their own draw from the same subnets as the host's engine. The tables have room
    /// for one owner of an address: the endpoint that has it here. The other endpoint is not enforced, rather than cut for
    /// an address that it truly has: the programs would take its packets for forged ones.
    pub(super) fn yield_addresses(&mut self, register: &Register) {
        let (dns, _) = resolver::kube_dns(BTreeSet::new());
        let host = self.out.world.host.iter();
        let host = host.map(|address| (*address, "this host".to_owned()));
        let external = self.out.world.pods.iter();
        let external = external.filter(|(name, pod)| pod.place == Place::External && **name != dns);
        let external = external.flat_map(|(name, pod)| {
            let addresses = pod.addresses.iter();
            addresses.map(|address| (*address, name.to_string()))
        });
        let own = |candidate: &Candidate| {
            let name = candidate.name.to_string();
            let claims = candidate.claims.iter();
            let claims = claims.map(move |address| (*address, name.clone()));
            claims.collect::<Vec<_>>()
        };
        let here = self.candidates.iter().filter(|candidate| !candidate.apart);
        let here = here.flat_map(own);
        let mut taken: BTreeMap<IpAddr, String> = host.chain(external).chain(here).collect();
        let candidates = self.candidates.iter().enumerate();
        let mut apart: Vec<usize> = candidates
            .filter_map(|(index, candidate)| candidate.apart.then_some(index))
            .collect();
        // Of two such engines the one keeps an address that had it first.
        apart.sort_by_key(|index| !register.records.contains_key(&self.candidates[*index].key));
        for index in apart {
            let candidate = &mut self.candidates[index];
            let mut claims = candidate.claims.iter();
            let other = claims.find_map(|address| Some((*address, taken.get(address)?.clone())));
            let Some((address, other)) = other else {
                taken.extend(own(candidate));
                continue;
            };
            candidate.apart = false;
            candidate.asks = None;
            candidate.claims.retain(|claim| !taken.contains_key(claim));
            let hidden = std::mem::take(&mut candidate.hidden);
            let is_there = |number: &u32| hidden.contains(number) || is_loopback(*number);
            let all = std::mem::take(&mut candidate.interfaces).into_iter();
            let (yielded, kept): (BTreeMap<_, _>, _) = all.partition(|(it, _)| is_there(it));
            candidate.interfaces = kept;
            let name = candidate.name.clone();
            for number in yielded.into_keys() {
                let child = self.out.inside.remove(&number);
                self.out
                    .yielded
                    .extend(child.map(|child| child.within.location));
                self.yielded.insert(number);
            }
            self.unprotected(
                &name,
                format!(
                    "its engine has a network namespace of its own, and gave it {address}, which is {other}'s here: nothing is \
                     enforced on it until that engine has other subnets (Docker's `bip` and `default-address-pools`, Podman's `default_subnet_pools`)"
                ),
            );
        }
    }

    /// Whose each address is.
    pub(super) fn addresses(&mut self, register: &Register) {
        let holders = register.holders();
        let mut given: BTreeMap<IpAddr, ObjectName> = BTreeMap::new();
        for candidate in &self.candidates {
            for address in &candidate.claims {
                if holders.get(address) == Some(&&candidate.key) {
                    given.insert(*address, candidate.name.clone());
                }
            }
        }
        let (dns, _) = resolver::kube_dns(BTreeSet::new());
        let dns_is_ours = !self.out.origins.pods.contains_key(&dns);
        let host = self.out.world.host.clone();
        let mut conflicts = Vec::new();
        let mut warnings = Vec::new();
        let mut claim = |name: &ObjectName, addresses: &mut BTreeSet<IpAddr>, quiet: bool| {
            addresses.retain(|address| {
                if host.contains(address) {
                    if !quiet {
                        warnings.push(format!(
                            "Pod {name}: {address} is the host's own address, and stays the host's"
                        ));
                    }
                    return false;
                }
                let holder = given.entry(*address).or_insert_with(|| name.clone());
                if holder == name {
                    return true;
                }
                if !quiet {
                    conflicts.push(Conflict {
                        address: *address,
                        holder: holder.clone(),
                        other: name.clone(),
                    });
                }
                false
            });
        };
        for (name, pod) in &mut self.out.world.pods {
            if pod.place == Place::External && (*name != dns || !dns_is_ours) {
                claim(name, &mut pod.addresses, false);
            }
        }
        // Addresses that an engine reports take precedence over declared ones.
        let (declared, containers): (Vec<_>, Vec<_>) = self
            .candidates
            .iter_mut()
            .partition(|candidate| matches!(candidate.key, Key::Declared(_)));
        for candidate in containers.into_iter().chain(declared) {
            claim(&candidate.name, &mut candidate.claims, false);
        }
        if dns_is_ours && let Some(pod) = self.out.world.pods.get_mut(&dns) {
            claim(&dns, &mut pod.addresses, true);
        }
        warnings.extend(self.other_hosts(&host, &given, &mut conflicts));
        self.out.conflicts.append(&mut conflicts);
        self.out.warnings.append(&mut warnings);
    }

    /// Pods on a host's network whose stated addresses are not this host's. Netlink alone says what
    /// is this host's: such an address stays with the Pod that has it, else it is a stranger's.
    fn other_hosts(
        &mut self,
        host: &BTreeSet<IpAddr>,
        given: &BTreeMap<IpAddr, ObjectName>,
        conflicts: &mut Vec<Conflict>,
    ) -> Option<String> {
        let mut others = Vec::new();
        for (name, pod) in &mut self.out.world.pods {
            if pod.place != Place::HostNetwork {
                continue;
            }
            pod.addresses.retain(|address| match given.get(address) {
                Some(holder) if !host.contains(address) => {
                    conflicts.push(Conflict {
                        address: *address,
                        holder: holder.clone(),
                        other: name.clone(),
                    });
                    false
                }
                _ => true,
            });
            if let Some(address) = pod.addresses.iter().find(|one| !host.contains(one)) {
                others.push((name.clone(), *address));
            }
        }
        let ((name, address), more) = others.split_first()?;
        // An exported cluster has some for each of its nodes: one line for all of them.
        let more = match more.len() {
            0 => String::new(),
            1 => " (so is one more Pod)".to_owned(),
            more => format!(" (so are {more} more Pods)"),
        };
        Some(format!(
            "Pod {name} is on the host's network, but its address {address} is not this host's: \
             it is taken for a host elsewhere{more}"
        ))
    }

    /// Numbers, and the register as it is from now on.
    pub(super) fn places(&mut self, register: &mut Register) {
        let links = &self.observed.links.veths;
        let there: BTreeSet<u32> = links.iter().map(|veth| veth.ifindex).collect();
        for (key, record) in &register.records {
            let interfaces = record.interfaces.keys();
            let owned = interfaces.map(|ifindex| (*ifindex, key.clone()));
            register.owned.extend(owned);
        }
        register.owned.retain(|ifindex, _| there.contains(ifindex));
        let known: BTreeSet<&Key> = self
            .candidates
            .iter()
            .filter(|candidate| !candidate.interfaces.is_empty())
            .map(|candidate| &candidate.key)
            .collect();
        register.records.retain(|key, _| known.contains(key));
        let veths = self.observed.links.veths.iter();
        let bridges: BTreeMap<u32, u32> = veths
            .filter_map(|veth| Some((veth.ifindex, veth.master?)))
            .collect();
        for candidate in std::mem::take(&mut self.candidates) {
            for net in candidate.leaves.iter().filter(|net| is_wide(net)) {
                self.out.warnings.push(format!(
                    "Pod {}: `{ADDRESSES}` has {net}: it may send under any address in it that is no endpoint's, no \
                     external Pod's and not the host's",
                    candidate.name
                ));
            }
            let mut pod = Pod {
                labels: candidate.labels,
                ports: candidate.ports,
                addresses: candidate.claims,
                leaves: candidate.leaves,
                published: candidate.published,
                place: Place::Local,
            };
            if let Some(path) = candidate.path {
                self.out.namespaces.insert(candidate.name.clone(), path);
            }
            if !candidate.interfaces.is_empty() {
                if let Some((id, slot)) = register.number(&candidate.key, candidate.netns) {
                    pod.place = Place::Attached(world::Attached {
                        slot,
                        id,
                        interfaces: candidate
                            .interfaces
                            .iter()
                            .map(|(ifindex, interface)| (*ifindex, interface.mac))
                            .collect(),
                        bridges: candidate
                            .interfaces
                            .keys()
                            .filter_map(|ifindex| bridges.get(ifindex).copied())
                            .collect(),
                        on_wire: candidate.interfaces.keys().any(|number| {
                            let is_other =
                                is_loopback(*number) || candidate.hidden.contains(number);
                            is_inside(*number) && !is_other
                        }),
                        // All of them lead to one namespace, which has one id.
                        netns: candidate
                            .interfaces
                            .values()
                            .find_map(|interface| u32::try_from(interface.nsid?).ok()),
                        asks: candidate.asks.clone(),
                    });
                    for ifindex in candidate.interfaces.keys() {
                        if let Some(child) = self.out.inside.get(ifindex) {
                            self.out
                                .interface_names
                                .insert(*ifindex, child.name.clone());
                        }
                        self.out
                            .interfaces
                            .insert(*ifindex, Some(candidate.name.clone()));
                    }
                    let record = Record {
                        netns: candidate.netns,
                        id,
                        slot,
                        name: candidate.name.clone(),
                        labels: pod.labels.clone(),
                        ports: pod.ports.clone(),
                        addresses: pod.addresses.clone(),
                        leaves: pod.leaves.clone(),
                        published: pod.published.clone(),
                        interfaces: candidate.interfaces,
                        hidden: candidate.hidden,
                        apart: candidate.apart,
                        given: candidate.given,
                        asks: candidate.asks,
                    };
                    register.records.insert(candidate.key, record);
                } else {
                    self.out.warnings.push(format!(
                        "Pod {}: there is no room for another endpoint: its traffic is dropped",
                        candidate.name
                    ));
                    for ifindex in candidate.interfaces.keys() {
                        self.on_hold
                            .insert(*ifindex, "there is no room for another endpoint".to_owned());
                    }
                }
            }
            self.out.world.pods.insert(candidate.name, pod);
        }
    }
}
