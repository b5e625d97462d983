//! How much two containers that policy keeps apart can tell each other by what passes whatever
//! policy says: ARP, neighbour discovery, MLD and IGMP, on real wires. All tries to get a megabyte
//! through; what arrives is no more than the budgets that docs/reference.md states. Needs root.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netpol_abi::connection::ticks;
use netpol_abi::link::Class;
use netpold_tests::frames::{self, Mac, arp, icmp, ipv4_with_options, ipv6};
use netpold_tests::{Daemon, Lab, Wire, residue};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// Nothing may enter or leave these Pods.
const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: db}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n";
const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9469\"\n";

/// How long the end of a class's frames may take: several of the ticks in which a budget grows.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be told.
const BYTES: usize = 1 << 20;

struct Speaker {
    mac: Mac,
    v4: [u8; 4],
    v6: [u8; 16],
}

/// A part of the secret, as many addresses as a message takes.
type Words<'a> = &'a [[u8; 4]];

impl Speaker {
    fn arp(&self, words: Words<'_>) -> Vec<u8> {
        let question = arp(1, self.mac, self.v4, words[0]);
        frames::ethernet(self.mac, [0xff; 6], ARP, &question)
    }

    fn solicitation(&self, words: Words<'_>) -> Vec<u8> {
        let mut target = [0; 16];
        target[0] = 0x20;
        target[12..].copy_from_slice(&words[0]);
        let mut group = [0; 16];
        (group[0], group[1], group[11], group[12]) = (0xff, 2, 1, 0xff);
        group[13..].copy_from_slice(&target[13..]);
        let message = icmp(135, 0, [0; 4], &target);
        let mac = [0x33, 0x33, 0xff, group[13], group[14], group[15]];
        let packet = ipv6(self.v6, group, 58, 255, &message);
        frames::ethernet(self.mac, mac, IPV6, &packet)
    }

    fn listener_report(&self, words: Words<'_>) -> Vec<u8> {
        let records = words.iter().flat_map(|word| {
            let mut record = [0; 20];
            (record[0], record[4], record[5]) = (4, 0xff, 2);
            record[16..].copy_from_slice(word);
            record
        });
        let records: Vec<u8> = records.collect();
        let count = (words.len() as u16).to_be_bytes();
        let message = icmp(143, 0, [0, 0, count[0], count[1]], &records);
        let alert = [58, 0, 5, 2, 0, 0, 1, 0];
        let mut routers = [0; 16];
        (routers[0], routers[1], routers[15]) = (0xff, 2, 0x16);
        let payload = [&alert[..], &message].concat();
        let packet = ipv6(self.v6, routers, 0, 1, &payload);
        frames::ethernet(self.mac, [0x33, 0x33, 0, 0, 0, 0x16], IPV6, &packet)
    }

    fn membership_report(&self, words: Words<'_>) -> Vec<u8> {
        let records = words.iter().flat_map(|[_, b, c, d]| {
            // A group has four bits of its own.
            [4, 0, 0, 0, 239, *b, *c, *d]
        });
        let records: Vec<u8> = records.collect();
        let count = (words.len() as u16).to_be_bytes();
        let message = icmp(0x22, 0, [0, 0, count[0], count[1]], &records);
        let mut packet = ipv4_with_options(self.v4, [224, 0, 0, 22], 2, &[0x94, 4, 0, 0], &message);
        packet[8] = 1;
        frames::ethernet(self.mac, [1, 0, 0x5e, 0, 0, 0x16], IPV4, &packet)
    }

    /// A frame full of data behind a report of nothing.
    fn whole_frame(&self, words: Words<'_>) -> Vec<u8> {
        let mut frame = self.listener_report(&[]);
        frame.extend(words.concat());
        let length = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame
    }
}

/// How a class is spoken: what a message carries of it, and how it is made.
struct Way {
    class: Class,
    words: usize,
    frame: fn(&Speaker, Words<'_>) -> Vec<u8>,
}

const WAYS: [Way; 4] = [
    Way {
        class: Class::Arp,
        words: 1,
        frame: Speaker::arp,
    },
    Way {
        class: Class::NeighbourDiscovery,
        words: 1,
        frame: Speaker::solicitation,
    },
    Way {
        class: Class::ListenerDiscovery,
        words: 72,
        frame: Speaker::listener_report,
    },
    Way {
        class: Class::GroupMembership,
        words: 183,
        frame: Speaker::membership_report,
    },
];

struct Table {
    lab: Lab,
    from: Wire,
    to: Wire,
    speaker: Speaker,
}

impl Table {
    fn new() -> Result<Self> {
        let lab = Lab::with_pods(&["db/store", "db/other"])?;
        lab.plain_bridge()?;
        // One that snoops keeps reports from those that are no routers.
        let host = lab.host();
        host.ip(&[
            "link",
            "set",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ])?;
        let (store, other) = (lab.pod("db/store")?, lab.pod("db/other")?);
        let (from, to) = (Wire::open(other)?, Wire::open(store)?);
        let mut speaker = Speaker {
            mac: from.mac,
            v4: [0; 4],
            v6: [0; 16],
        };
        for address in &other.addresses {
            match address {
                std::net::IpAddr::V4(v4) => speaker.v4 = v4.octets(),
                std::net::IpAddr::V6(v6) => speaker.v6 = v6.octets(),
            }
        }
        Ok(Self {
            lab,
            from,
            to,
            speaker,
        })
    }

    /// Sends the frames and, by another class, that this is all; which of them arrived? The end is repeated until it
    /// arrives: the budget of its class may be spent for now.
    fn heard(&self, frames: &BTreeSet<Vec<u8>>, class: Class) -> Result<Vec<Vec<u8>>> {
        let end = [[2, 0, 0, class as u8]];
        let last = if class == Class::Arp {
            self.speaker.solicitation(&end)
        } else {
            self.speaker.arp(&end)
        };
        // The receiver's buffer must hold what may come.
        for frame in frames {
            self.from.send(frame)?;
        }
        let mut seen = Vec::new();
        let begun = Instant::now();
        while !seen.contains(&last) {
            ensure!(
                begun.elapsed() < TIMEOUT,
                "{class:?}: the end never arrived"
            );
            self.from.send(&last)?;
            std::thread::sleep(Duration::from_millis(100));
            seen.extend(self.to.seen()?);
        }
        seen.retain(|frame| frames.contains(frame));
        Ok(seen)
    }
}

/// A secret as frames: numbers, so that no two frames are alike.
fn frames_of(
    speaker: &Speaker,
    words: usize,
    bytes: usize,
    frame: fn(&Speaker, Words<'_>) -> Vec<u8>,
) -> BTreeSet<Vec<u8>> {
    let all: Vec<[u8; 4]> = (0..bytes as u32 / 4)
        .map(|number| (number | 0x0a << 24).to_be_bytes())
        .collect();
    all.chunks_exact(words)
        .map(|words| frame(speaker, words))
        .collect()
}

#[test]
fn what_keeps_a_link_working_carries_next_to_nothing() -> Result<()> {
    let table = Table::new()?;
    // No daemon: the frames are good ones, or the test says nothing.
    for way in &WAYS {
        let few = frames_of(&table.speaker, way.words, 16 * 4 * way.words, way.frame);
        let heard = table.heard(&few, way.class)?;
        ensure!(
            heard.len() == few.len(),
            "{:?}: without a daemon {} of {} arrive",
            way.class,
            heard.len(),
            few.len()
        );
    }
    let full = frames_of(&table.speaker, 350, 16 * 1400, Speaker::whole_frame);
    let heard = table.heard(&full, Class::ListenerDiscovery)?;
    ensure!(heard.len() == full.len(), "whole frames: {}", heard.len());

    let daemon = Daemon::enforcing(&table.lab, &[("shut.yaml", SHUT)], METRICS)?;
    let heard = table.heard(&full, Class::ListenerDiscovery)?;
    ensure!(heard.is_empty(), "{} whole frames arrive", heard.len());
    for way in &WAYS {
        let all = frames_of(&table.speaker, way.words, BYTES, way.frame);
        let begun = Instant::now();
        let heard = table.heard(&all, way.class)?;
        let budget = way.class.budget();
        // The first and the last tick are not whole.
        let elapsed = ticks(begun.elapsed().as_secs() as u32 + 1) + 1;
        let most = budget.at_once + elapsed * budget.sixteenths_each_tick / 16;
        let addresses = heard.len() * way.words;
        eprintln!(
            "{:?}: {} of {} messages, {addresses} addresses of at most {most}, in {:?}",
            way.class,
            heard.len(),
            all.len(),
            begun.elapsed()
        );
        ensure!(
            addresses <= most as usize && addresses * 8 > most as usize,
            "{:?}: {addresses} addresses of at most {most} came through",
            way.class
        );
    }
    let metrics = daemon.metrics()?;
    let count = |reason: &str, verdict: &str| {
        let name = format!(
            "netpold_packets_total{{reason=\"{reason}\",direction=\"egress\",verdict=\"{verdict}\"}}"
        );
        metrics.get(&name).copied().unwrap_or(0)
    };
    for reason in ["arp", "neighbour-discovery", "group-membership"] {
        ensure!(count(reason, "forwarded") > 0, "{reason}: {metrics:?}");
    }
    // Most of two megabytes in messages of four bytes each.
    ensure!(count("link-rate", "dropped") > 500_000, "{metrics:?}");
    let name = table.lab.name.clone();
    drop((daemon, table));
    residue::check(&name)
}
