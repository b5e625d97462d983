//! The way from the installed tables to the desired ones, as an ordered list of plain
//! steps: each one write to one map, or a wait. Nothing here writes; the datapath's
//! interpreter and [`crate::model::MapImage`] do.
//!
//! # The order, and why every packet meets the old state or the new
//!
//! Between plans both banks of every entry say the same. A plan
//!
//! 1. takes interfaces off that lead to an endpoint which is no longer there: they are on hold.
//!    Where a slot is given to another endpoint, a wait for a grace period follows, so that no packet
//!    that knows the slot from before is judged as the new endpoint;
//! 2. adds verdicts that are not there, each after the port blocks that it chains. Keys are
//!    content-addressed: no packet asks for them yet, and what is there keeps its meaning. That is
//!    not taken on trust: a pair of numbers that both states ask for, and that would say
//!    something else, is one of [`Plan::clashes`]. A block has an id that no other one has;
//! 3. writes the *standby* bank: flags, endpoints, addresses, prefixes. The active bank keeps
//!    its words. Entries that one of the two states does not have need care, as an
//!    entry is there for both banks:
//!    - an address that only one state has is [`CLASS_UNLISTED`] in the other's bank, and
//!      counts there as if it were missing;
//!    - a prefix that only one state has says in the other's bank what that one's next shorter
//!      prefix says. The longest of all prefixes that cover an address then answers in each bank
//!      as the longest of that bank's own would: whichever of them are there, in any order. Leaves likewise, each
//!      slot's for itself;
//!    - a published port that only one state has is not listed in the other's bank;
//!    - an endpoint that only one state has is without a revision in the other's bank, and no
//!      interface leads to it there;
//! 4. commits: one write of the generation. A packet reads it once, so all its look-ups are in
//!    one bank;
//! 5. releases new interfaces, whose endpoint is in the bank that is now read;
//! 6. waits until no packet is under way that began before the commit;
//! 7. settles: no packet reads the other bank, so it gets the same words, and what the new state
//!    has no use for is deleted: first verdicts, then blocks; an address that neither bank lists;
//!    a prefix that says what the next shorter one says.
//!
//! A step that fails before the commit is undone by [`crate::model::MapImage::inverse`] of what was done,
//! last first: every state on the way is one that this argument covers. After the commit
//! there is only forward: what is left over, also by a crash, is [`recover()`]'s.

pub mod both_banks;
pub(crate) mod leaves;
mod prefixes;
mod recover;
mod revision;
pub mod spread;
mod step;
mod verdicts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::net::IpAddr;

use ipnet::IpNet;
use netpol_abi::tables::{
    Address, CLASS_UNLISTED, Endpoint, EndpointBank, Prefix, Published, PublishedBank, VerdictKey,
};

use self::prefixes::Node;
pub use self::recover::recover;
pub use self::step::Step;
use self::verdicts::Staged;
use crate::tables::{AddressEntry, EndpointEntry, PortBlocks, Tables};

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// The generation in force afterwards.
    pub generation: u64,
    /// The endpoints as they are installed afterwards, with their revisions; all else is installed
    /// as it was desired.
    pub endpoints: BTreeMap<u32, EndpointEntry>,
    /// The ids of port blocks afterwards.
    pub port_blocks: PortBlocks,
    /// What the maps have to hold on the way.
    pub demand: Demand,
    /// Pairs that both states ask for, and that say something else in each: their numbers stand for
    /// something else than before. Where there are any, the plan must not be carried out: packets
    /// of the old state would meet verdicts of the new one.
    pub clashes: Vec<VerdictKey>,
}

impl Plan {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The tables that are installed once the plan, made for `desired`, is carried out.
    #[must_use]
    pub fn installed(&self, mut desired: Tables) -> Tables {
        desired.endpoints.clone_from(&self.endpoints);
        desired.port_blocks.clone_from(&self.port_blocks);
        desired
    }
}

/// The most entries that each table has at one time, and what fits none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// `ADDRESSES4`.
    pub addresses4: usize,
    /// `ADDRESSES6`.
    pub addresses6: usize,
    /// `LEAVES4`.
    pub leaves4: usize,
    /// `LEAVES6`.
    pub leaves6: usize,
    /// `PREFIXES4`.
    pub prefixes4: usize,
    /// `PREFIXES6`.
    pub prefixes6: usize,
    /// `PUBLISHED`.
    pub published: usize,
    /// `VERDICTS`.
    pub verdicts: usize,
    /// `PORT_BLOCKS`.
    pub port_blocks: usize,
    /// `ENDPOINTS`: the highest slot and one.
    pub endpoints: u32,
    /// Verdicts with more than [`spread::MAX_RANGES`] ranges. Where there are any, the plan must not be
    /// carried out: it would deny what they allow.
    pub too_many_ranges: Vec<VerdictKey>,
}

/// The steps from `installed`, which `generation` has put in force, to `desired`. Revisions in
/// `desired` are not looked at.
#[must_use]
pub fn plan(installed: &Tables, desired: &Tables, generation: u64) -> Plan {
    let nodes = prefixes::walk(&installed.prefixes, &desired.prefixes);
    let next = generation.wrapping_add(1);
    let endpoints = revision::revised(installed, desired, &nodes, next);
    let commits = installed.flags != desired.flags
        || installed.endpoints != endpoints
        || installed.addresses != desired.addresses
        || installed.senders != desired.senders
        || installed.leaves != desired.leaves
        || installed.published != desired.published
        || installed.prefixes != desired.prefixes;
    let mut planner = Planner {
        installed,
        desired,
        endpoints: &endpoints,
        new: (next & 1) as usize,
        steps: Vec::new(),
    };
    let taken = planner.take_interfaces();
    let mut verdicts = verdicts::stage(installed, desired);
    planner.steps.append(&mut verdicts.put);
    let mut settle = Vec::new();
    if commits {
        planner.stage_flags(&mut settle);
        planner.stage_endpoints(&mut settle);
        planner.stage_addresses(&mut settle);
        planner.stage_senders(&mut settle);
        planner.stage_leaves(&mut settle);
        planner.stage_published(&mut settle);
        planner.stage_prefixes(&nodes, &mut settle);
        planner.steps.push(Step::Commit {
            generation: next,
            flags: planner.banks(installed.flags, desired.flags),
        });
    }
    planner.release_interfaces(&taken);
    settle.append(&mut verdicts.delete);
    if commits || !settle.is_empty() {
        planner.steps.push(Step::WaitGracePeriod);
    }
    planner.steps.append(&mut settle);
    let steps = planner.steps;
    Plan {
        steps,
        generation: if commits { next } else { generation },
        endpoints,
        port_blocks: std::mem::take(&mut verdicts.blocks),
        clashes: std::mem::take(&mut verdicts.clashes),
        demand: demand(installed, desired, &nodes, verdicts),
    }
}

struct Planner<'a> {
    installed: &'a Tables,
    desired: &'a Tables,
    /// The desired ones, with their revisions.
    endpoints: &'a BTreeMap<u32, EndpointEntry>,
    /// The bank that is read after the commit.
    new: usize,
    steps: Vec<Step>,
}

impl Planner<'_> {
    /// One word per bank.
    fn banks<T: Copy>(&self, installed: T, desired: T) -> [T; 2] {
        let mut banks = [installed; 2];
        banks[self.new] = desired;
        banks
    }

    /// Takes interfaces off whose endpoint is another one, or none, afterwards.
    fn take_interfaces(&mut self) -> BTreeSet<u32> {
        let id = |tables: &Tables, slot| tables.endpoints.get(&slot).map(|found| found.id);
        let stays = |ifindex: &u32, slot: u32| {
            self.desired.interfaces.get(ifindex).is_some_and(|after| {
                after.endpoint == slot && id(self.installed, slot) == id(self.desired, slot)
            })
        };
        let taken: BTreeSet<u32> = self
            .installed
            .interfaces
            .iter()
            .filter(|(ifindex, interface)| !stays(ifindex, interface.endpoint))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in &taken {
            self.steps.push(Step::DeleteInterface { ifindex: *ifindex });
        }
        let given_on =
            self.installed.endpoints.iter().any(|(slot, before)| {
                id(self.desired, *slot).is_some_and(|after| after != before.id)
            });
        if given_on {
            self.steps.push(Step::WaitGracePeriod);
        }
        taken
    }

    fn release_interfaces(&mut self, taken: &BTreeSet<u32>) {
        for (ifindex, entry) in &self.desired.interfaces {
            let there = self.installed.interfaces.get(ifindex) == Some(entry);
            if !there || taken.contains(ifindex) {
                self.steps.push(Step::PutInterface {
                    ifindex: *ifindex,
                    value: both_banks::interface(*ifindex, entry),
                });
            }
        }
    }

    fn stage_flags(&mut self, settle: &mut Vec<Step>) {
        let (before, after) = (self.installed.flags, self.desired.flags);
        if before != after {
            let flags = self.banks(before, after);
            self.steps.push(Step::PutFlags { flags });
            settle.push(Step::PutFlags { flags: [after; 2] });
        }
    }

    fn stage_endpoints(&mut self, settle: &mut Vec<Step>) {
        let absent = |entry: &EndpointEntry| EndpointBank {
            revision: 0,
            ..both_banks::bank(entry)
        };
        for (slot, before, after) in changes(&self.installed.endpoints, self.endpoints) {
            let mut staged = Endpoint::default();
            let settled = match (before, after) {
                (Some(before), Some(after)) if before.id == after.id => {
                    staged.id = after.id;
                    staged.bridges = after.bridges;
                    staged.banks = self.banks(both_banks::bank(before), both_banks::bank(after));
                    both_banks::endpoint(after)
                }
                // The slot may have been another's: nothing leads there any more.
                (_, Some(after)) => {
                    staged.id = after.id;
                    staged.bridges = after.bridges;
                    staged.banks = self.banks(absent(after), both_banks::bank(after));
                    both_banks::endpoint(after)
                }
                (Some(before), None) => {
                    staged.id = before.id;
                    staged.bridges = before.bridges;
                    staged.banks = self.banks(both_banks::bank(before), absent(before));
                    Endpoint::default()
                }
                (None, None) => continue,
            };
            let slot = *slot;
            self.steps.push(Step::PutEndpoint {
                slot,
                value: staged,
            });
            settle.push(Step::PutEndpoint {
                slot,
                value: settled,
            });
        }
    }

    fn stage_addresses(&mut self, settle: &mut Vec<Step>) {
        let unlisted = AddressEntry {
            class: CLASS_UNLISTED,
            ..AddressEntry::default()
        };
        for (address, before, after) in changes(&self.installed.addresses, &self.desired.addresses)
        {
            let address = *address;
            let (was, will) = (before.unwrap_or(&unlisted), after.unwrap_or(&unlisted));
            let value = Address {
                class: self.banks(was.class, will.class),
                owner: self.banks(was.owner, will.owner),
                slot: self.banks(was.slot, will.slot),
            };
            self.steps.push(Step::PutAddress { address, value });
            settle.push(match after {
                Some(after) => Step::PutAddress {
                    address,
                    value: both_banks::address(after),
                },
                None => Step::DeleteAddress { address },
            });
        }
    }

    /// A stamp is an endpoint's slot and four bits of an address, and what an endpoint has of both goes with it: an
    /// entry that is there before the commit, or still after it, names an address of the very endpoint that sent the packet.
    fn stage_senders(&mut self, settle: &mut Vec<Step>) {
        for (key, _, after) in changes(&self.installed.senders, &self.desired.senders) {
            match after {
                Some(address) => self.steps.push(Step::PutSender {
                    key: *key,
                    address: *address,
                }),
                None => settle.push(Step::DeleteSender { key: *key }),
            }
        }
    }

    /// Where only one state has an entry, the other's bank does not list it.
    fn stage_published(&mut self, settle: &mut Vec<Step>) {
        for (at, before, after) in changes(&self.installed.published, &self.desired.published) {
            let at = *at;
            let bank = |found: Option<&PublishedBank>| found.copied().unwrap_or_default();
            let value = Published {
                banks: self.banks(bank(before), bank(after)),
            };
            self.steps.push(Step::PutPublished { at, value });
            settle.push(match after {
                Some(bank) => Step::PutPublished {
                    at,
                    value: Published { banks: [*bank; 2] },
                },
                None => Step::DeletePublished { at },
            });
        }
    }

    fn stage_prefixes(&mut self, nodes: &[Node], settle: &mut Vec<Step>) {
        for node in nodes.iter().filter(|node| node.installed != node.desired) {
            let net = node.net;
            let value = Prefix {
                class: self.banks(node.was, node.will),
            };
            self.steps.push(Step::PutPrefix { net, value });
            settle.push(match node.desired {
                Some(class) => Step::PutPrefix {
                    net,
                    value: Prefix { class: [class; 2] },
                },
                None => Step::DeletePrefix { net },
            });
        }
    }
}

/// Two maps side by side, by key. One pass over both: they may be large.
fn merge<'a, K: Ord + 'a, V: 'a>(
    before: impl IntoIterator<Item = (&'a K, &'a V)>,
    after: impl IntoIterator<Item = (&'a K, &'a V)>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    iter::from_fn(move || {
        let key = match (before.peek(), after.peek()) {
            (Some((one, _)), Some((two, _))) => (*one).min(*two),
            (Some((key, _)), None) | (None, Some((key, _))) => *key,
            (None, None) => return None,
        };
        let was = before.next_if(|(next, _)| *next == key);
        let will = after.next_if(|(next, _)| *next == key);
        Some((
            key,
            was.map(|(_, value)| value),
            will.map(|(_, value)| value),
        ))
    })
}

/// What two maps do not have alike, by key.
fn changes<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    merge(before, after).filter(|(_, was, will)| was != will)
}

fn demand(installed: &Tables, desired: &Tables, nodes: &[Node], verdicts: Staged) -> Demand {
    let more = |mut count: [usize; 2], v4: bool| {
        count[usize::from(!v4)] += 1;
        count
    };
    let new_addresses = desired
        .addresses
        .keys()
        .filter(|address| !installed.addresses.contains_key(address));
    let [addresses4, addresses6] = installed
        .addresses
        .keys()
        .chain(new_addresses)
        .fold([0; 2], |count, address| {
            more(count, matches!(address, IpAddr::V4(_)))
        });
    let [prefixes4, prefixes6] = nodes.iter().fold([0; 2], |count, node| {
        more(count, matches!(node.net, IpNet::V4(_)))
    });
    let new_leaves = desired
        .leaves
        .keys()
        .filter(|key| !installed.leaves.contains_key(key));
    let [leaves4, leaves6] = installed
        .leaves
        .keys()
        .chain(new_leaves)
        .fold([0; 2], |count, (_, net)| {
            more(count, matches!(net, IpNet::V4(_)))
        });
    let published = installed.published.len()
        + desired
            .published
            .keys()
            .filter(|at| !installed.published.contains_key(at))
            .count();
    let slots = installed.endpoints.keys().chain(desired.endpoints.keys());
    Demand {
        addresses4,
        addresses6,
        leaves4,
        leaves6,
        published,
        prefixes4,
        prefixes6,
        verdicts: verdicts.verdicts,
        port_blocks: verdicts.port_blocks,
        endpoints: slots.max().map_or(0, |slot| slot.saturating_add(1)),
        too_many_ranges: verdicts.too_many_ranges,
    }
}
