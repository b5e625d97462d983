//! The kernel's maps as ordered maps, both banks: what the daemon knows to be installed,
//! and what a plan is tried on before and beside the kernel.
//!
//! [`MapImage::judge`] is the verdict on the level of numbers (endpoint, direction, peer
//! address, protocol, port), in the kernel's order of look-ups; the packet's part of it
//! (parsing, connections, spoofing) lives in `netpol_abi`. Ports and numbers are host order.
//! Nothing here knows what a policy is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_abi::Reason;
use netpol_abi::packet::protocol::UDP;
use netpol_abi::tables::{
    Address, CLASS_ANY, CLASS_UNLISTED, Control, Endpoint, Interface, Leave, NOT_ISOLATED,
    OWNER_HOST, PortBlock, Prefix, Published, PublishedBank, SenderAddress, Verdict, VerdictKey,
    control_flags, endpoint_flags, published_flags,
};

use crate::plan::Step;
use crate::plan::both_banks;
use crate::plan::leaves::{LOWEST, longest};
use crate::plan::spread::{Spread, gather, spread_or_deny};
use crate::policy::Direction;
use crate::tables::{
    AddressEntry, EndpointEntry, InterfaceEntry, PortBlocks, PublishedAt, Tables, VerdictEntry,
};
use crate::world::published_where;

pub mod packets;
#[cfg(test)]
mod tests;

/// The maps that policy decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapImage {
    /// `CONTROL`; share and layout are the daemon's and stay 0 here.
    pub control: Control,
    /// `INTERFACES` and `INTERFACE_OVERFLOW`, by ifindex.
    pub interfaces: BTreeMap<u32, Interface>,
    /// `ENDPOINTS`, the slots that are not free.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// `ADDRESSES4` and `ADDRESSES6`.
    pub addresses: BTreeMap<IpAddr, Address>,
    /// `SENDERS`.
    pub senders: BTreeMap<u32, SenderAddress>,
    /// `LEAVES4` and `LEAVES6`, by slot and prefix.
    pub leaves: BTreeMap<(u32, IpNet), Leave>,
    /// `PUBLISHED`.
    pub published: BTreeMap<PublishedAt, Published>,
    /// `PREFIXES4` and `PREFIXES6`.
    pub prefixes: BTreeMap<IpNet, Prefix>,
    /// `VERDICTS`.
    pub verdicts: BTreeMap<VerdictKey, Verdict>,
    /// `PORT_BLOCKS`.
    pub port_blocks: BTreeMap<u64, PortBlock>,
}

/// What the tables say about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Why; [`Reason::allows`] tells whether it may pass.
    pub reason: Reason,
    /// The policy set that was asked; 0: none.
    pub policy_set: u64,
    /// The rule that decided, by its number in the policy set; 0: none.
    pub rule: u32,
    /// What it denies passes: of the endpoint, or of what denies, only audit is asked for.
    pub audited: bool,
}

impl Ruling {
    /// May it pass?
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.reason.allows() || self.audited
    }
}

impl MapImage {
    /// Both banks hold these tables: what a plan leaves behind.
    #[must_use]
    pub fn steady(tables: &Tables, generation: u64) -> Self {
        let mut banks = Self {
            control: Control {
                generation,
                flags: [tables.flags; 2],
                ..Control::default()
            },
            ..Self::default()
        };
        for (slot, entry) in &tables.endpoints {
            banks.endpoints.insert(*slot, both_banks::endpoint(entry));
        }
        for (ifindex, entry) in &tables.interfaces {
            banks
                .interfaces
                .insert(*ifindex, both_banks::interface(*ifindex, entry));
        }
        for (address, entry) in &tables.addresses {
            banks.addresses.insert(*address, both_banks::address(entry));
        }
        for (key, address) in &tables.senders {
            banks.senders.insert(*key, both_banks::sender(*address));
        }
        for (key, word) in &tables.leaves {
            banks.leaves.insert(*key, Leave { words: [*word; 2] });
        }
        for (at, bank) in &tables.published {
            let value = Published { banks: [*bank; 2] };
            banks.published.insert(*at, value);
        }
        for (net, class) in &*tables.prefixes {
            banks.prefixes.insert(*net, Prefix { class: [*class; 2] });
        }
        let mut ids = tables.port_blocks.clone();
        for (key, entry) in tables.verdicts.iter() {
            let Spread { verdict, blocks } = spread_or_deny(entry, |block| ids.id(block).0);
            banks.verdicts.insert(key, verdict);
            banks.port_blocks.extend(blocks);
        }
        banks
    }

    /// Does one step, as the kernel would.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::PutPortBlock { key, value } => {
                self.port_blocks.insert(*key, **value);
            }
            Step::PutVerdict { key, value } => {
                self.verdicts.insert(*key, *value);
            }
            Step::PutEndpoint { slot, value } if value.id == 0 => {
                self.endpoints.remove(slot);
            }
            Step::PutEndpoint { slot, value } => {
                self.endpoints.insert(*slot, *value);
            }
            Step::PutAddress { address, value } => {
                self.addresses.insert(*address, *value);
            }
            Step::PutSender { key, address } => {
                self.senders.insert(*key, both_banks::sender(*address));
            }
            Step::DeleteSender { key } => {
                self.senders.remove(key);
            }
            Step::PutLeave { slot, net, value } => {
                self.leaves.insert((*slot, *net), *value);
            }
            Step::DeleteLeave { slot, net } => {
                self.leaves.remove(&(*slot, *net));
            }
            Step::PutPublished { at, value } => {
                self.published.insert(*at, *value);
            }
            Step::DeletePublished { at } => {
                self.published.remove(at);
            }
            Step::PutPrefix { net, value } => {
                self.prefixes.insert(*net, *value);
            }
            Step::PutInterface { ifindex, value } => {
                self.interfaces.insert(*ifindex, *value);
            }
            Step::PutFlags { flags } => self.control.flags = *flags,
            Step::Commit { generation, flags } => {
                self.control.generation = *generation;
                self.control.flags = *flags;
            }
            Step::WaitGracePeriod => {}
            Step::DeleteInterface { ifindex } => {
                self.interfaces.remove(ifindex);
            }
            Step::DeleteVerdict { key } => {
                self.verdicts.remove(key);
            }
            Step::DeletePortBlock { key } => {
                self.port_blocks.remove(key);
            }
            Step::DeleteAddress { address } => {
                self.addresses.remove(address);
            }
            Step::DeletePrefix { net } => {
                self.prefixes.remove(net);
            }
        }
    }

    /// The step that puts back what this one would overwrite or delete; `None`, where there is
    /// nothing to put back, or no way back (a commit).
    #[must_use]
    pub fn inverse(&self, step: &Step) -> Option<Step> {
        Some(match step {
            Step::PutPortBlock { key, .. } | Step::DeletePortBlock { key } => {
                let key = *key;
                match self.port_blocks.get(&key) {
                    Some(value) => Step::PutPortBlock {
                        key,
                        value: Box::new(*value),
                    },
                    None => Step::DeletePortBlock { key },
                }
            }
            Step::PutVerdict { key, .. } | Step::DeleteVerdict { key } => {
                let key = *key;
                match self.verdicts.get(&key).copied() {
                    Some(value) => Step::PutVerdict { key, value },
                    None => Step::DeleteVerdict { key },
                }
            }
            Step::PutEndpoint { slot, .. } => Step::PutEndpoint {
                slot: *slot,
                value: self.endpoints.get(slot).copied().unwrap_or_default(),
            },
            Step::PutAddress { address, .. } | Step::DeleteAddress { address } => {
                let address = *address;
                match self.addresses.get(&address).copied() {
                    Some(value) => Step::PutAddress { address, value },
                    None => Step::DeleteAddress { address },
                }
            }
            Step::PutSender { key, .. } | Step::DeleteSender { key } => {
                let key = *key;
                match self.senders.get(&key) {
                    Some(address) => Step::PutSender {
                        key,
                        address: both_banks::address_of_sender(key, address),
                    },
                    None => Step::DeleteSender { key },
                }
            }
            Step::PutLeave { slot, net, .. } | Step::DeleteLeave { slot, net } => {
                let (slot, net) = (*slot, *net);
                match self.leaves.get(&(slot, net)).copied() {
                    Some(value) => Step::PutLeave { slot, net, value },
                    None => Step::DeleteLeave { slot, net },
                }
            }
            Step::PutPublished { at, .. } | Step::DeletePublished { at } => {
                let at = *at;
                match self.published.get(&at).copied() {
                    Some(value) => Step::PutPublished { at, value },
                    None => Step::DeletePublished { at },
                }
            }
            Step::PutPrefix { net, .. } | Step::DeletePrefix { net } => {
                let net = *net;
                match self.prefixes.get(&net).copied() {
                    Some(value) => Step::PutPrefix { net, value },
                    None => Step::DeletePrefix { net },
                }
            }
            Step::PutInterface { ifindex, .. } | Step::DeleteInterface { ifindex } => {
                let ifindex = *ifindex;
                match self.interfaces.get(&ifindex).copied() {
                    Some(value) => Step::PutInterface { ifindex, value },
                    None => Step::DeleteInterface { ifindex },
                }
            }
            Step::PutFlags { .. } => Step::PutFlags {
                flags: self.control.flags,
            },
            Step::Commit { .. } | Step::WaitGracePeriod => return None,
        })
    }

    /// What is in force: the bank that packets are judged by. Verdicts with a broken chain are
    /// left out (a plan puts them again), as are prefixes that say what their parent says.
    #[must_use]
    pub fn read_back(&self) -> Tables {
        let bank = self.control.bank();
        let endpoints: BTreeMap<u32, EndpointEntry> = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.banks[bank].revision != 0)
            .map(|(slot, endpoint)| {
                let policy = endpoint.banks[bank];
                let entry = EndpointEntry {
                    id: endpoint.id,
                    ingress: policy.ingress,
                    egress: policy.egress,
                    audited_ingress: policy.audited_ingress,
                    audited_egress: policy.audited_egress,
                    asks: policy.asks,
                    flags: policy.flags,
                    bridges: endpoint.bridges,
                    revision: policy.revision,
                };
                (*slot, entry)
            })
            .collect();
        let redundant: BTreeSet<IpNet> = self.redundant_prefixes(bank).collect();
        let needless: BTreeSet<(u32, IpNet)> = self.redundant_leaves(bank).collect();
        Tables {
            flags: self.control.flags[bank],
            interfaces: self
                .interfaces
                .iter()
                .map(|(ifindex, interface)| {
                    let entry = InterfaceEntry {
                        endpoint: interface.endpoint,
                        mac: interface.mac,
                        netns: interface.netns,
                    };
                    (*ifindex, entry)
                })
                .collect(),
            endpoints,
            addresses: self
                .addresses
                .iter()
                .filter(|(_, value)| value.class[bank] != CLASS_UNLISTED)
                .map(|(address, value)| {
                    let entry = AddressEntry {
                        class: value.class[bank],
                        owner: value.owner[bank],
                        slot: value.slot[bank],
                    };
                    (*address, entry)
                })
                .collect(),
            senders: self
                .senders
                .iter()
                .map(|(key, address)| (*key, both_banks::address_of_sender(*key, address)))
                .collect(),
            leaves: self
                .leaves
                .iter()
                .filter(|(key, _)| !needless.contains(key))
                .map(|(key, leave)| (*key, leave.words[bank]))
                .collect(),
            published: self
                .published
                .iter()
                .filter(|(_, found)| found.banks[bank].flags != 0)
                .map(|(at, found)| (*at, found.banks[bank]))
                .collect(),
            prefixes: Arc::new(
                self.prefixes
                    .iter()
                    .filter(|(net, _)| !redundant.contains(net))
                    .map(|(net, prefix)| (*net, prefix.class[bank]))
                    .collect(),
            ),
            verdicts: self
                .verdicts
                .keys()
                .filter_map(|key| Some((*key, self.entry(*key)?)))
                .collect(),
            port_blocks: PortBlocks::from_map(&self.port_blocks),
        }
    }

    /// Prefixes that say in this bank what the next shorter one says, or, without one,
    /// what a miss says.
    pub(crate) fn redundant_prefixes(&self, bank: usize) -> impl Iterator<Item = IpNet> {
        let mut above: Vec<(IpNet, u64)> = Vec::new();
        self.prefixes.iter().filter_map(move |(net, prefix)| {
            while above.last().is_some_and(|(outer, _)| !outer.contains(net)) {
                above.pop();
            }
            let parent = above.last().map_or(CLASS_ANY, |(_, class)| *class);
            above.push((*net, prefix.class[bank]));
            (prefix.class[bank] == parent).then_some(*net)
        })
    }

    /// Leaves that say in this bank what the next shorter one of their slot says, or, without one, nothing.
    pub(crate) fn redundant_leaves(&self, bank: usize) -> impl Iterator<Item = (u32, IpNet)> {
        self.leaves.iter().filter_map(move |(key, leave)| {
            let (slot, net) = key;
            let shorter = self
                .leaves
                .range((*slot, LOWEST)..=*key)
                .filter(|(other, _)| *other != key);
            let above = longest(
                shorter.map(|((_, net), leave)| (net, leave.words[bank])),
                net,
            );
            (above.unwrap_or(0) == leave.words[bank]).then_some(*key)
        })
    }

    /// The verdict of a pair of policy set and class, if there is one and its chain is whole.
    #[must_use]
    pub fn entry(&self, key: VerdictKey) -> Option<VerdictEntry> {
        gather(self.verdicts.get(&key)?, |key| self.port_blocks.get(&key))
    }

    /// Class and owner of an address in the bank that is read.
    #[must_use]
    pub fn peer(&self, address: IpAddr) -> AddressEntry {
        let bank = self.control.bank();
        if let Some(found) = self.addresses.get(&address)
            && found.class[bank] != CLASS_UNLISTED
        {
            return AddressEntry {
                class: found.class[bank],
                owner: found.owner[bank],
                slot: found.slot[bank],
            };
        }
        let class = self
            .prefixes
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(CLASS_ANY, |(_, prefix)| prefix.class[bank]);
        AddressEntry {
            class,
            ..AddressEntry::default()
        }
    }

    /// What the endpoint in this slot has leave for at an address, as a word of [`Leave`], in the bank that is read; 0:
    /// nothing. An address that has an owner is given by no leave, whatever this says.
    #[must_use]
    pub fn leave(&self, slot: u32, address: IpAddr) -> u32 {
        let bank = self.control.bank();
        let leaves = self.leaves.iter().filter(|((other, _), _)| *other == slot);
        let leaves = leaves.map(|((_, net), leave)| (net, leave.words[bank]));
        longest(leaves, &IpNet::from(address)).unwrap_or(0)
    }

    /// May this endpoint (by its number) open a connection to the peer (egress), or the peer to
    /// it (ingress)? `port` is the destination's; protocols without ports have 0. `None`:
    /// there is no such endpoint.
    #[must_use]
    pub fn judge(
        &self,
        endpoint: u32,
        direction: Direction,
        peer: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<Ruling> {
        let bank = self.control.bank();
        let found = self.endpoints.values().find(|found| found.id == endpoint)?;
        let policy = &found.banks[bank];
        let peer = self.peer(peer);
        let (policy_set, audited, host) = match direction {
            Direction::Ingress => (
                policy.ingress,
                policy.audited_ingress,
                control_flags::HOST_INGRESS,
            ),
            Direction::Egress => (
                policy.egress,
                policy.audited_egress,
                control_flags::HOST_EGRESS,
            ),
        };
        let rule = |policy_set| {
            let ruling = |reason, policy_set| Ruling {
                reason,
                policy_set,
                rule: 0,
                audited: false,
            };
            if peer.owner == endpoint {
                ruling(Reason::Itself, 0)
            } else if policy_set == NOT_ISOLATED {
                ruling(Reason::NotIsolated, 0)
            } else if peer.owner == OWNER_HOST && self.control.flags[bank] & host != 0 {
                ruling(Reason::Host, policy_set)
            } else {
                self.rule(policy_set, peer.class, protocol, port)
            }
        };
        let in_force = rule(policy_set);
        if !in_force.reason.allows() {
            return Some(Ruling {
                audited: (self.control.flags[bank] & control_flags::AUDIT != 0)
                    || (policy.flags & endpoint_flags::AUDIT != 0),
                ..in_force
            });
        }
        let if_enforced = rule(audited);
        Some(if if_enforced.reason.allows() {
            in_force
        } else {
            Ruling {
                audited: true,
                ..if_enforced
            }
        })
    }

    /// What the endpoint behind a published port says where another one, from this address of its own, dials an
    /// address there; `None`: no objection. Ports that no policy's endpoint is behind are not in the tables.
    #[must_use]
    pub fn behind(&self, from: IpAddr, to: IpAddr, protocol: u8, port: u16) -> Option<Ruling> {
        let bank = self.control.bank();
        let sender = self.peer(from);
        let policy = self.dialled(to, protocol, port)?;
        if policy.id == sender.owner {
            return None;
        }
        let objection = |policy_set| {
            let ruling = self.rule(policy_set, sender.class, protocol, policy.port);
            (policy_set != NOT_ISOLATED && !ruling.reason.allows()).then_some(ruling)
        };
        let is_audited = policy.flags & published_flags::AUDIT != 0
            || self.control.flags[bank] & control_flags::AUDIT != 0;
        let in_force = objection(policy.ingress).map(|ruling| Ruling {
            audited: is_audited,
            ..ruling
        });
        in_force.or_else(|| {
            objection(policy.audited_ingress).map(|ruling| Ruling {
                audited: true,
                ..ruling
            })
        })
    }

    fn dialled(&self, to: IpAddr, protocol: u8, port: u16) -> Option<&PublishedBank> {
        let bank = self.control.bank();
        let find = |address| {
            let at = PublishedAt {
                port,
                protocol,
                address,
            };
            let policy = &self.published.get(&at)?.banks[bank];
            (policy.flags & published_flags::LISTED != 0).then_some(policy)
        };
        let broadcast = PublishedAt {
            port: 0,
            protocol: 0,
            address: to,
        };
        let is_broadcast = |found: &Published| found.banks[bank].flags != 0;
        let reaches_host = self.peer(to).owner == OWNER_HOST
            || (protocol == UDP
                && (to.is_multicast() || self.published.get(&broadcast).is_some_and(is_broadcast)));
        let [dialled, everywhere, _] = published_where(to);
        find(dialled).or_else(|| find(everywhere).filter(|_| reaches_host))
    }

    /// What the rules of a policy set say to a peer of this class.
    fn rule(&self, policy_set: u64, class: u64, protocol: u8, port: u16) -> Ruling {
        let entry = [class, CLASS_ANY]
            .into_iter()
            .find_map(|class| self.entry(VerdictKey { policy_set, class }))
            .unwrap_or_default();
        let (rule, denies) = entry.decide(protocol, port);
        Ruling {
            reason: if denies {
                Reason::PolicyDenied
            } else {
                Reason::RuleAllowed
            },
            policy_set,
            rule,
            audited: false,
        }
    }
}
