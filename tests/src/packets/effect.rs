//! An effect as the lines that stand below a step: all of it, and nothing of what did not change.
//!
//! What a line leaves out is what the step itself says: an event has the reason and direction of
//! the packet above it, and is about the box on its interface; a new connection was seen now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_abi::connection::State as Phase;
use netpol_abi::event::{Event, Kind};
use netpol_abi::judge::{Sender, SenderKind};
use netpol_abi::limits::ENDPOINTS;
use netpol_abi::link::{Class, LINK_RATES, LinkRate, NEIGHBOURS, Neighbour, rate_index};
use netpol_abi::packet::Direction;
use netpol_abi::packet::ethertype;
use netpol_abi::tables::{
    Counter, Flow, Fragment, FragmentKey, NOT_ISOLATED, RULE_DEFAULT, Usage, flow_flags,
    stamped_slot,
};

use super::executor::BEGINNING;
use super::names::{show, show_flags, show_mac, show_protocol};
use super::scene::{BOX, INTERFACE, LOOPBACK, SLOT};
use super::state::{Connection, Effect, Fate};

/// What numbers stand for in the world at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meanings {
    /// The box's policy set for ingress.
    pub ingress: u64,
    /// The box's policy set for egress.
    pub egress: u64,
    /// The friend's policy set for ingress, as if all its policies were in force.
    pub friend: u64,
    /// The generation in force.
    pub generation: u64,
    /// The box's revision.
    pub revision: u32,
}

/// Lines of one kind that are shown in full; of more the first and the last.
const SHOWN: usize = 4;

/// The lines, without their indentation.
#[must_use]
pub fn lines(effect: &Effect, meanings: &Meanings, direction: Option<Direction>) -> Vec<String> {
    let mut lines = fates(&effect.fates);
    let alone = effect.fates.first().filter(|_| lines.len() == 1).copied();
    let events = effect.events.iter().map(|event| {
        let line = show_event(event, meanings, alone, direction, effect.after.tick);
        format!("event {line}")
    });
    lines.extend(abridged(events.collect()));
    lines.extend(abridged(flows(effect, meanings)));
    lines.extend(abridged(fragments(effect)));
    lines.extend(counters(effect));
    lines.extend(link_rates(effect));
    lines.extend(neighbours(effect));
    lines.extend(usages(effect));
    lines.extend(accounts(effect));
    lines
}

/// The first line of a packet: what becomes of it.
fn fates(fates: &[Fate]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for run in fates.chunk_by(PartialEq::eq) {
        let Some(Fate { reason, passes }) = run.first() else {
            continue;
        };
        let fate = if *passes { "passes" } else { "dropped" };
        let times = match run.len() {
            _ if fates.len() == 1 => String::new(),
            1 => ", once".to_owned(),
            2 => ", twice".to_owned(),
            times => format!(", {times} times"),
        };
        lines.push(format!("{fate}: {}{times}", reason.label()));
    }
    lines
}

fn abridged(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > SHOWN {
        let more = lines.len() - 2;
        lines.splice(1..lines.len() - 1, [format!("... {more} more")]);
    }
    lines
}

fn show_event(
    event: &Event,
    meanings: &Meanings,
    alone: Option<Fate>,
    direction: Option<Direction>,
    now: u32,
) -> String {
    let mut line = match Kind::from_number(event.kind) {
        Some(Kind::Opened) => "opened".to_owned(),
        Some(Kind::Dropped) => "dropped".to_owned(),
        Some(Kind::Audited) => "audited".to_owned(),
        None => format!("of kind {}", event.kind),
    };
    if alone.map(|fate| fate.reason as u8) != Some(event.reason) {
        let reason = netpol_abi::Reason::from_number(event.reason);
        let label = reason.map_or("?", netpol_abi::Reason::label);
        let _ = write!(line, " {label}");
    }
    if (event.rule, event.policy_set) != (0, NOT_ISOLATED) {
        let of = match event.policy_set {
            NOT_ISOLATED => "nobody".to_owned(),
            policy_set if policy_set == meanings.ingress => "ingress".to_owned(),
            policy_set if policy_set == meanings.egress => "egress".to_owned(),
            policy_set if policy_set == meanings.friend => "the friend's ingress".to_owned(),
            policy_set => format!("{policy_set:#x}"),
        };
        let _ = write!(line, ", {} of {of}", show_rule(event.rule));
    }
    if event.generation != meanings.generation {
        let _ = write!(line, ", generation {}", event.generation);
    }
    if direction.map(|direction| direction as u8) != Some(event.direction) {
        let _ = write!(line, ", direction {}", event.direction);
    }
    if (event.endpoint, event.ifindex) == (BOX, LOOPBACK) {
        line.push_str(", on lo");
    } else if (event.endpoint, event.ifindex) != (BOX, INTERFACE) {
        let _ = write!(line, ", endpoint {} on {}", event.endpoint, event.ifindex);
    }
    if event.time_ns != u64::from(now) {
        let _ = write!(line, ", at {}", event.time_ns);
    }
    if event.reply != 0 {
        line.push_str(", reply");
    }
    let sender = Sender(event.sender);
    match sender.kind() {
        SenderKind::Address => {}
        SenderKind::Translated => {
            let slot = show_slot(stamped_slot(sender.stamp()));
            let _ = write!(line, ", sent by {slot}");
        }
        SenderKind::NotHost => line.push_str(", not sent by the host"),
        SenderKind::Forged => line.push_str(", sent by somebody else"),
    }
    line.push_str(": ");
    line.push_str(&show_packet(event));
    let _ = write!(
        line,
        ", {} > {}",
        show_mac(event.source_mac),
        show_mac(event.destination_mac)
    );
    let usual = match event.version {
        4 => 0x0800,
        6 => 0x86dd,
        _ => 0,
    };
    if event.ethertype != usual {
        let _ = write!(line, " {:#06x}", event.ethertype);
    }
    let _ = write!(line, ", {} bytes", event.length);
    line
}

fn show_packet(event: &Event) -> String {
    let Event {
        version,
        protocol,
        source_port,
        destination_port,
        ..
    } = *event;
    if version == 0 && event.source == [0; 16] && event.destination == [0; 16] {
        return "no addresses".to_owned();
    }
    let ends = [event.source, event.destination].map(|octets| show(address(version, octets)));
    let name = match event.ethertype {
        ethertype::ARP => "arp".to_owned(),
        _ => show_protocol(protocol),
    };
    match name.as_str() {
        "tcp" | "udp" | "sctp" => {
            let flags = match name.as_str() {
                "tcp" => format!(" {}", show_flags(event.tcp_flags)),
                _ => String::new(),
            };
            format!(
                "{name} {}:{source_port} > {}:{destination_port}{flags}",
                ends[0], ends[1]
            )
        }
        "icmp" | "icmp6" => format!(
            "{name} {} > {} {source_port}/{destination_port}",
            ends[0], ends[1]
        ),
        _ => {
            let ports = match (source_port, destination_port) {
                (0, 0) => String::new(),
                _ => format!(" {source_port} {destination_port}"),
            };
            format!("{name} {} > {}{ports}", ends[0], ends[1])
        }
    }
}

fn address(version: u8, octets: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if version == 6 {
        Ipv6Addr::from(octets).into()
    } else {
        Ipv4Addr::new(a, b, c, d).into()
    }
}

fn show_rule(rule: u32) -> String {
    match rule {
        0 => "no rule".to_owned(),
        RULE_DEFAULT => "the default".to_owned(),
        rule => format!("rule {rule}"),
    }
}

fn show_connection(key: &Connection) -> String {
    let of = match key.endpoint {
        BOX => String::new(),
        other => format!("of {other} "),
    };
    let Connection {
        local_port,
        remote_port,
        ..
    } = key;
    format!(
        "{of}{} {}:{local_port} {}:{remote_port}",
        show_protocol(key.protocol),
        show(key.local),
        show(key.remote)
    )
}

fn flows(effect: &Effect, meanings: &Meanings) -> Vec<String> {
    let change = |key: &Connection, before: Option<&Flow>, after: Option<&Flow>| {
        let key = show_connection(key);
        match (before.copied(), after.copied()) {
            (None, None) => None,
            (Some(_), None) => Some(format!("flow - {key}")),
            (None, Some(flow)) => Some(format!(
                "flow + {key}: {}",
                show_flow(&flow, meanings, effect.after.tick)
            )),
            (Some(before), Some(after)) => (before != after)
                .then(|| format!("flow ~ {key}: {}", show_flow_change(&before, &after))),
        }
    };
    differences(&effect.before.flows, &effect.after.flows, change)
}

/// One line for each key whose value changed.
fn differences<K: Ord, V>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    line: impl Fn(&K, Option<&V>, Option<&V>) -> Option<String>,
) -> Vec<String> {
    let mut keys: Vec<&K> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let lines = keys.into_iter();
    lines
        .filter_map(|key| line(key, before.get(key), after.get(key)))
        .collect()
}

fn phase(number: u8) -> String {
    let phase = Phase::from_number(number);
    let name = format!("{phase:?}");
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    if phase as u8 == number {
        words
    } else {
        format!("state {number}")
    }
}

fn show_flags_of(flags: u8) -> String {
    let mut words = Vec::new();
    if flags & flow_flags::OPENED_BY_ENDPOINT != 0 {
        words.push("opened by the box".to_owned());
    } else {
        words.push("opened by the peer".to_owned());
    }
    if flags & flow_flags::AUDITED != 0 {
        words.push("audited".to_owned());
    }
    match Sender(u32::from(
        (flags & flow_flags::SENDER) >> flow_flags::SENDER_SHIFT,
    ))
    .kind()
    {
        SenderKind::Address => {}
        SenderKind::Translated => words.push("under another address".to_owned()),
        SenderKind::NotHost => words.push("not the host".to_owned()),
        SenderKind::Forged => words.push("forged".to_owned()),
    }
    if flags & flow_flags::BY_LEAVE != 0 {
        words.push("by leave".to_owned());
    }
    let known = flow_flags::OPENED_BY_ENDPOINT
        | flow_flags::AUDITED
        | flow_flags::SENDER
        | flow_flags::BY_LEAVE;
    if flags & !known != 0 {
        words.push(format!("flags {:#x}", flags & !known));
    }
    words.join(", ")
}

fn show_flow(flow: &Flow, meanings: &Meanings, now: u32) -> String {
    let mut words = vec![
        show_flags_of(flow.flags),
        phase(flow.state),
        show_rule(flow.rule),
    ];
    if flow.revision != meanings.revision {
        words.push(format!("revision {}", flow.revision));
    }
    if flow.seen != now {
        words.push(format!("seen {}", at(flow.seen)));
    }
    if flow.payer_slot() != SLOT {
        words.push(format!("charged to {}", show_slot(flow.payer_slot())));
    }
    words.join(", ")
}

/// A tick since the file's beginning.
fn at(tick: u32) -> i64 {
    i64::from(tick) - i64::from(BEGINNING)
}

fn show_flow_change(before: &Flow, after: &Flow) -> String {
    let mut words = Vec::new();
    let mut changed = |before: String, after: String| {
        if before != after {
            words.push(format!("{before} -> {after}"));
        }
    };
    changed(show_flags_of(before.flags), show_flags_of(after.flags));
    changed(phase(before.state), phase(after.state));
    changed(show_rule(before.rule), show_rule(after.rule));
    changed(
        format!("revision {}", before.revision),
        format!("revision {}", after.revision),
    );
    changed(
        format!("seen {}", at(before.seen)),
        format!("seen {}", at(after.seen)),
    );
    changed(
        format!("charged to {}", show_slot(before.payer_slot())),
        format!("charged to {}", show_slot(after.payer_slot())),
    );
    words.join(", ")
}

fn fragments(effect: &Effect) -> Vec<String> {
    type Key = (u32, FragmentKey);
    let change = |(set, key): &Key, before: Option<&Fragment>, after: Option<&Fragment>| {
        let way = match Direction::from_number(key.direction) {
            Some(Direction::Ingress) => "in",
            Some(Direction::Egress) => "out",
            None => "?",
        };
        let of = match key.owner >> 8 {
            BOX => String::new(),
            other => format!(" of {other}"),
        };
        let name = format!(
            "{way} {} {} > {} id {}{of} in set {set}",
            show_protocol((key.owner & 0xff) as u8),
            show(address(key.version, key.source)),
            show(address(key.version, key.destination)),
            key.id,
        );
        let value = |first: &Fragment| {
            let allowed = if first.allowed != 0 {
                "allowed"
            } else {
                "denied"
            };
            let mut words = format!("{allowed}, {} bytes judged", first.judged);
            if first.seen != effect.after.tick {
                let _ = write!(words, ", seen {}", at(first.seen));
            }
            words
        };
        match (before, after) {
            (None, None) => None,
            (Some(_), None) => Some(format!("fragments - {name}")),
            (None, Some(first)) => Some(format!("fragments + {name}: {}", value(first))),
            (Some(before), Some(after)) => (before != after)
                .then(|| format!("fragments ~ {name}: {} -> {}", value(before), value(after))),
        }
    };
    differences(&effect.before.fragments, &effect.after.fragments, change)
}

fn counters(effect: &Effect) -> Vec<String> {
    let change = |key: &(netpol_abi::Reason, Direction),
                  before: Option<&Counter>,
                  after: Option<&Counter>| {
        let before = before.copied().unwrap_or_default();
        let after = after.copied().unwrap_or_default();
        if before == after {
            return None;
        }
        let way = match key.1 {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        let packets = after.packets.wrapping_sub(before.packets);
        let bytes = after.bytes.wrapping_sub(before.bytes);
        Some(format!(
            "counter {} {way}: +{packets}, +{bytes} bytes",
            key.0.label()
        ))
    };
    differences(&effect.before.counters, &effect.after.counters, change)
}

/// What an endpoint spent of its budgets of link messages: whole ones, or sixteenths.
fn link_rates(effect: &Effect) -> Vec<String> {
    let change = |index: &u32, before: Option<&LinkRate>, after: Option<&LinkRate>| {
        let before = before.copied().unwrap_or_default();
        let after = after.copied().unwrap_or_default();
        let slot = index / (LINK_RATES / ENDPOINTS);
        let class = Class::ALL
            .into_iter()
            .find(|class| rate_index(slot, *class) == *index);
        let class = match class {
            Some(Class::Arp) => "arp",
            Some(Class::NeighbourDiscovery) => "nd",
            Some(Class::ListenerDiscovery) => "mld",
            Some(Class::GroupMembership) => "igmp",
            Some(Class::Lease) => "dhcp",
            None => "nothing",
        };
        let spent = |sixteenths: u32| {
            if sixteenths.is_multiple_of(16) {
                (sixteenths / 16).to_string()
            } else {
                format!("{sixteenths}/16")
            }
        };
        let of = match slot {
            SLOT => String::new(),
            slot => format!(" of {}", show_slot(slot)),
        };
        (before != after).then(|| {
            let (earlier, now) = (spent(before.spent), spent(after.spent));
            if earlier == now {
                // As much as came back meanwhile.
                return format!("spent{of} {class} {now} anew");
            }
            format!("spent{of} {class} {earlier} -> {now}")
        })
    };
    differences(&effect.before.link_rates, &effect.after.link_rates, change)
}

/// Strangers that were heard on the link.
fn neighbours(effect: &Effect) -> Vec<String> {
    let change = |index: &u32, before: Option<&Neighbour>, after: Option<&Neighbour>| {
        let before = before.copied().unwrap_or_default();
        let after = after.copied().unwrap_or_default();
        let slot = index / (NEIGHBOURS / ENDPOINTS);
        let of = match slot {
            SLOT => String::new(),
            slot => format!(" of {}", show_slot(slot)),
        };
        let mut words = vec![format!("{} unanswered", after.unanswered)];
        if after.tick != effect.after.tick {
            words.push(format!("seen {}", at(after.tick)));
        }
        (before != after).then(|| {
            let who = show(Ipv6Addr::from(after.address).into());
            format!("neighbour{of} {who}: {}", words.join(", "))
        })
    };
    differences(&effect.before.neighbours, &effect.after.neighbours, change)
}

fn usages(effect: &Effect) -> Vec<String> {
    let change = |slot: &u32, before: Option<&Usage>, after: Option<&Usage>| {
        let before = before.copied().unwrap_or_default();
        let after = after.copied().unwrap_or_default();
        let mut words = Vec::new();
        if before.tick != after.tick && before.tick != 0 {
            words.push("anew".to_owned());
        }
        for (name, before, after) in [
            ("reported opens", before.opens, after.opens),
            ("reported drops", before.drops, after.drops),
            ("not reported", before.suppressed, after.suppressed),
        ] {
            if before != after {
                words.push(format!("{name} {before} -> {after}"));
            }
        }
        let of = match *slot {
            SLOT => String::new(),
            0 => " of nobody".to_owned(),
            slot => format!(" of {}", show_slot(slot)),
        };
        (before != after).then(|| format!("usage{of} {}", words.join(", ")))
    };
    differences(&effect.before.usage, &effect.after.usage, change)
}

/// Who is charged for connections: one line for all whose accounts moved.
fn accounts(effect: &Effect) -> Option<String> {
    let change = |index: &u32, before: Option<&(u32, u32)>, after: Option<&(u32, u32)>| {
        let (before, after) = (before.unwrap_or(&(0, 0)), after.unwrap_or(&(0, 0)));
        let whose = match index / 2 {
            0 => "the table".to_owned(),
            slot => show_slot(slot),
        };
        let family = if index.is_multiple_of(2) {
            ""
        } else {
            "'s IPv6"
        };
        let mut words = Vec::new();
        if before.0 != after.0 {
            words.push(format!("{} -> {} entered", before.0, after.0));
        }
        if before.1 != after.1 {
            words.push(format!("{} -> {} collected", before.1, after.1));
        }
        (before != after).then(|| format!("{whose}{family} {}", words.join(", ")))
    };
    let changes = differences(&effect.before.accounts, &effect.after.accounts, change);
    (!changes.is_empty()).then(|| format!("accounts {}", changes.join("; ")))
}

/// An endpoint of the scene by its slot.
fn show_slot(slot: u32) -> String {
    let names = ["box", "friend", "foe"];
    let name = slot
        .checked_sub(SLOT)
        .and_then(|index| names.get(index as usize));
    name.map_or_else(|| format!("slot {slot}"), |name| (*name).to_owned())
}
