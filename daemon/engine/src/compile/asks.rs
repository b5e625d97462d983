//! What policy says of the questions for names that engines ask for their containers, of which the kernel sees no
//! destination but the engine's own resolver ([`netpol_abi::judge::question`]).
//!
//! A question is allowed if the container's policy set allows port 53 of the peer `kube-dns`, or of one of the resolvers
//! that the engine asks. All of that is in the verdicts, and is looked up here, once for a change.

use std::collections::BTreeMap;

use netpol_abi::Reason;
use netpol_abi::tables::{ASKS_PASS, CLASS_ANY, NOT_ISOLATED, OWNER_HOST, VerdictKey, asks_index};

use super::classes::Classes;
use crate::policy::Protocol;
use crate::tables::{AddressEntry, EndpointEntry, Verdicts};
use crate::world::{Place, World};

/// The port of questions for names.
const PORT: u16 = 53;

/// Completes the endpoints whose engine asks for them.
pub(super) fn update(
    world: &World,
    classes: &Classes,
    verdicts: &Verdicts,
    endpoints: &mut BTreeMap<u32, EndpointEntry>,
) {
    for pod in world.pods.values() {
        let Place::Attached(attached) = &pod.place else {
            continue;
        };
        let (Some(resolvers), Some(endpoint)) = (&attached.asks, endpoints.get_mut(&attached.slot))
        else {
            continue;
        };
        let addresses = resolvers.iter();
        let addresses = addresses.filter_map(|address| classes.resolvers.get(address));
        let asked: Vec<&AddressEntry> = classes.kube_dns.iter().chain(addresses).collect();
        for (policy_set, is_audited) in [(endpoint.egress, false), (endpoint.audited_egress, true)]
        {
            for (protocol, is_tcp) in [(Protocol::Udp, false), (Protocol::Tcp, true)] {
                let say = |one: &&AddressEntry| {
                    let host_passes = world.settings.host_egress;
                    says(
                        verdicts,
                        policy_set,
                        attached.id,
                        host_passes,
                        one,
                        protocol,
                    )
                };
                let word = asked.iter().map(say).find(|word| *word != 0);
                endpoint.asks[asks_index(is_tcp, is_audited)] = word.unwrap_or(0);
            }
        }
    }
}

/// What a policy set says of one of them, as a word of the endpoint.
fn says(
    verdicts: &Verdicts,
    policy_set: u64,
    id: u32,
    host_passes: bool,
    asked: &AddressEntry,
    protocol: Protocol,
) -> u32 {
    if policy_set == NOT_ISOLATED {
        return 0;
    }
    if asked.owner == id {
        return ASKS_PASS | Reason::Itself as u32;
    }
    if asked.owner == OWNER_HOST && host_passes {
        return ASKS_PASS | Reason::Host as u32;
    }
    let verdict = |class| verdicts.get(&VerdictKey { policy_set, class });
    let Some(entry) = verdict(asked.class).or_else(|| verdict(CLASS_ANY)) else {
        return 0;
    };
    match entry.decide(protocol.number(), PORT) {
        (_, true) => 0,
        (rule, false) => rule,
    }
}
