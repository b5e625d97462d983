//! Bytes as what happens on the box's interface: frames, time, changes of the world, over the scene
//! of the packet corpus. Whatever they are, after each step:
//!
//! - what passes is what the tables allow, or part of a connection that they allowed when it was
//!   opened and (unless connections are kept) allow now;
//! - a connection comes to be only by a packet that was allowed to open it, or in audit mode;
//! - from the endpoint only its own addresses pass, and only under its own MAC;
//! - audit mode drops nothing, and nothing else lets pass what it would drop;
//! - what passes as a link message is no longer than it says, whichever it is;
//! - no endpoint holds more than its share, no budget is overspent, every frame is counted once.
//!
//! The tables are asked by `MapImage::judge`, which knows neither packets nor connections.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_abi::Reason;
use netpol_abi::connection::{State, default_timeouts};
use netpol_abi::judge::Outcome;
use netpol_abi::limits::EVENTS_PER_TICK;
use netpol_abi::link::{Class, rate_index};
use netpol_abi::packet::{self, Arrival, Direction, ETHERNET, Packet, Piece, ethertype, protocol};
use netpol_abi::tables::{Flow, OWNER_HOST, account, control_flags, flow_flags};
use netpol_engine::model::MapImage;
use netpol_engine::model::packets::{Datapath, Seen};
use netpol_engine::plan::plan;
use netpol_engine::policy;
use netpol_engine::tables::Tables;
use netpold_tests::frames::{self, Mac};
use netpold_tests::packets::executor::{BEGINNING, lifetime};
use netpold_tests::packets::frame::Bytes;
use netpold_tests::packets::names::{ADDRESSES, MACS};
use netpold_tests::packets::scene::{self, BOX, INTERFACE, SLOT};
use netpold_tests::packets::script::{Action, Script};
use netpold_tests::packets::state::Connection;

/// Every world that a sequence can be in.
const WORLDS: [&str; 23] = [
    "guarded",
    "open",
    "pinging",
    "many-ports",
    "guarded audit",
    "pinging audit",
    "guarded keep",
    "pinging keep",
    "guarded host-policy",
    "guarded unknown",
    "guarded unknown audit",
    "guarded unknown unidentified-pass",
    "open keep",
    "by-block",
    "guarded-foe",
    "asking",
    "asking audit",
    "asking-by-block",
    "behind",
    "behind-shut",
    "behind-trial",
    "behind-shut audit",
    "behind-shut keep",
];

/// Peers of made-up segments.
const PEERS: [&str; 8] = [
    "friend", "foe", "stranger", "block", "host", "friend6", "foe6", "box",
];
/// Ports of made-up segments.
const PORTS: [u16; 8] = [8080, 53, 3868, 5432, 443, 40000, 40001, 1010];

/// Connections that each table has room for.
const ROOM: u32 = 12;

/// Steps of a sequence.
const MOST: usize = 256;

pub fn hold(bytes: &[u8]) {
    let mut bytes = Reader(bytes);
    let mut host = Host::new(1 + u32::from(bytes.byte() & 7));
    host.world(bytes.byte());
    for _ in 0..MOST {
        if bytes.0.is_empty() {
            break;
        }
        let operation = bytes.byte();
        let direction = if operation & 1 == 0 {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        match operation % 12 {
            0..=3 => {
                let frame = Bytes {
                    tagged: operation & 2 != 0,
                    bytes: bytes.block(),
                    ..Bytes::default()
                };
                host.see(&frame, direction);
            }
            4..=8 => {
                let frame = made_up(direction, [bytes.byte(), bytes.byte(), bytes.byte()]);
                host.see(&frame, direction);
            }
            9 => host.wait(1 << (bytes.byte() % 20)),
            10 => host.world(bytes.byte()),
            _ => host.collect(),
        }
    }
}

/// A packet file as such bytes, for a beginning.
pub fn encode(script: &Script) -> Vec<u8> {
    let mut bytes = vec![(script.share.clamp(1, 8) - 1) as u8];
    for step in &script.steps {
        match &step.action {
            Action::World(name) => {
                // What holds here of every sequence does not where an endpoint may use others' addresses, or where
                // others' policies are asked. Nothing here asks an engine for names. Nor does it where policies are only
                // audited, so they are in force here.
                let words = name.split(' ').filter(|word| !word.contains('='));
                let words = words.filter(|word| *word != "audited");
                let name = words.collect::<Vec<_>>().join(" ");
                let name = name.replace("asking-tried", "asking");
                let index = WORLDS.iter().position(|known| *known == name);
                let index = index.unwrap_or_else(|| panic!("`{name}` is not among the worlds"));
                // The first has no operation.
                if bytes.len() > 1 {
                    bytes.push(10);
                }
                bytes.push(index as u8);
            }
            Action::Wait { ticks } => {
                bytes.extend([9, (ticks.next_power_of_two().ilog2() % 20) as u8]);
            }
            Action::Collect => bytes.push(11),
            Action::Frames { direction, frames } => {
                // What the fuzzer can't make anyway is left out.
                let short = frames.iter().filter(|frame| {
                    frame.bytes.len() < 2000
                        && frame.arrival == Arrival::default()
                        && !frame.loopback
                });
                for frame in short.take(12) {
                    bytes.push(*direction as u8 | u8::from(frame.tagged) << 1);
                    bytes.extend((frame.bytes.len() as u16).to_le_bytes());
                    bytes.extend(&frame.bytes);
                }
            }
        }
    }
    bytes
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A length, and as many bytes.
    fn block(&mut self) -> Vec<u8> {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (block, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        block.to_vec()
    }
}

/// A segment of few addresses and ports, so that packets belong together.
fn made_up(direction: Direction, [peer, ports, kind]: [u8; 3]) -> Bytes {
    let address = |name: &str| {
        ADDRESSES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|found| found.1)
    };
    let peer = address(PEERS[usize::from(peer & 7)]);
    let own = PORTS[usize::from(ports & 7)];
    let other = PORTS[usize::from(ports >> 3 & 7)];
    let (from, to) = match direction {
        Direction::Ingress => (other, own),
        Direction::Egress => (own, other),
    };
    let (number, number6, payload) = match kind >> 6 {
        0 | 1 => (6, 6, frames::tcp(from, to, kind & 0x17)),
        2 => (17, 17, frames::udp(from, to, b"?")),
        _ if kind & 1 == 0 => (132, 132, frames::sctp(from, to)),
        _ => {
            let reply = kind & 2 != 0;
            let id = [0, 5, 0, 1];
            match peer {
                Some(IpAddr::V6(_)) => (1, 58, frames::icmp(128 + u8::from(reply), 0, id, b"?")),
                _ => (1, 58, frames::icmp(if reply { 0 } else { 8 }, 0, id, b"?")),
            }
        }
    };
    let (kind, packet) = match peer {
        Some(IpAddr::V6(peer)) => {
            let own = address("box6").and_then(|own| match own {
                IpAddr::V6(own) => Some(own.octets()),
                IpAddr::V4(_) => None,
            });
            let (source, destination) = ends(direction, own.unwrap_or_default(), peer.octets());
            (
                ethertype::IPV6,
                frames::ipv6(source, destination, number6, 64, &payload),
            )
        }
        Some(IpAddr::V4(peer)) => {
            let (source, destination) = ends(direction, [10, 0, 0, 2], peer.octets());
            (
                ethertype::IPV4,
                frames::ipv4(source, destination, number, &payload),
            )
        }
        None => panic!("a peer without an address"),
    };
    let (source, destination) = ends(direction, MACS[0].1, MACS[1].1);
    Bytes {
        bytes: frames::ethernet(source, destination, kind, &packet),
        ..Bytes::default()
    }
}

fn ends<T>(direction: Direction, own: T, peer: T) -> (T, T) {
    match direction {
        Direction::Ingress => (peer, own),
        Direction::Egress => (own, peer),
    }
}

thread_local! {
    /// Each world is compiled once.
    static COMPILED: RefCell<BTreeMap<usize, Tables>> = const { RefCell::new(BTreeMap::new()) };
}

fn compiled(index: usize) -> Tables {
    COMPILED.with_borrow_mut(|known| {
        let make = || scene::tables(WORLDS[index]).expect("a world of the corpus");
        known.entry(index).or_insert_with(make).clone()
    })
}

type Flows = BTreeMap<Connection, Flow>;
/// Identification, protocol, both addresses, direction.
type Datagram = (u32, u8, [u8; 16], [u8; 16], Direction);

/// A datapath, and what is known of it without looking into it.
struct Host {
    datapath: Datapath,
    installed: Tables,
    generation: u64,
    share: u32,
    frames: u64,
    /// Datagrams whose first fragment passed.
    firsts: BTreeSet<Datagram>,
}

impl Host {
    fn new(share: u32) -> Self {
        let mut datapath = Datapath::new(MapImage::default());
        let control = &mut datapath.banks.control;
        control.flow_share = share;
        control.flow_rooms = [ROOM; 2];
        control.timeouts = default_timeouts();
        control.since = BEGINNING;
        datapath.tick = BEGINNING;
        Self {
            datapath,
            installed: Tables::default(),
            generation: 0,
            share,
            frames: 0,
            firsts: BTreeSet::new(),
        }
    }

    fn world(&mut self, index: u8) {
        let wanted = compiled(usize::from(index) % WORLDS.len());
        let change = plan(&self.installed, &wanted, self.generation);
        for step in &change.steps {
            self.datapath.banks.apply(step);
        }
        self.generation = change.generation;
        self.installed = change.installed(wanted);
    }

    fn wait(&mut self, ticks: u32) {
        self.datapath.tick = self.datapath.tick.wrapping_add(ticks);
    }

    fn collect(&mut self) {
        let before = self.flows();
        self.datapath.collect();
        for (key, flow) in &before {
            let gone = !self.flows().contains_key(key);
            let age = self.datapath.tick.wrapping_sub(flow.seen);
            assert_eq!(
                gone,
                age >= lifetime(flow, key.protocol),
                "{key:?} {flow:?}"
            );
        }
        self.account();
    }

    fn flows(&self) -> Flows {
        let four = self.datapath.flows4().into_iter();
        let six = self.datapath.flows6().into_iter();
        four.map(|(key, flow)| (key.into(), flow))
            .chain(six.map(|(key, flow)| (key.into(), flow)))
            .collect()
    }

    const fn flag(&self, flag: u32) -> bool {
        self.installed.flags & flag != 0
    }

    fn see(&mut self, frame: &Bytes, direction: Direction) {
        let before = self.flows();
        let outcome = self.judged(frame, direction);
        self.frames += 1;
        let after = self.flows();
        let audits = self.flag(control_flags::AUDIT);
        assert_eq!(
            outcome.passes,
            outcome.reason.allows() || audits,
            "{outcome:?}"
        );
        if !self.installed.interfaces.contains_key(&INTERFACE) {
            let open = self.flag(control_flags::UNIDENTIFIED_PASS);
            assert_eq!(outcome.reason == Reason::UnidentifiedAllowed, open);
            assert!(!outcome.reason.allows() || open, "{outcome:?}");
        }
        self.account();
        let read = read(frame);
        if let Some(packet) = &read {
            self.source(packet, frame, direction, &outcome);
            Self::nothing_behind(packet, frame, direction, &outcome);
            self.allowed(packet, direction, &outcome, &before);
            if packet.piece == Piece::First && outcome.passes {
                self.firsts.insert(datagram(packet, direction));
            }
        } else {
            assert!(
                !matches!(
                    outcome.reason,
                    Reason::RuleAllowed | Reason::Established | Reason::Related
                ),
                "{outcome:?} of what can't be read"
            );
        }
        self.entered(&before, &after, read.as_ref(), direction, &outcome);
    }

    /// Shows the frame, and gives the whole verdict on it: where it passes the short way, the whole
    /// one says the same, and has nothing to change any more.
    fn judged(&mut self, frame: &Bytes, direction: Direction) -> Outcome {
        match self.datapath.see(frame, direction, INTERFACE) {
            Seen::Judged(outcome) => outcome,
            Seen::Shortly => {
                let before = self.flows();
                let outcome = self.datapath.judge(frame, direction, INTERFACE);
                assert!(
                    outcome.reason == Reason::Established && !outcome.opened,
                    "{outcome:?}"
                );
                assert_eq!(self.flows(), before, "the short way leaves something out");
                outcome
            }
        }
    }

    /// Shares, budgets, counters.
    fn account(&self) {
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for (key, flow) in self.flows() {
            for slot in [0, flow.payer_slot()] {
                *held
                    .entry(account(slot, key.remote.is_ipv6().into()))
                    .or_default() += 1;
            }
        }
        for (account, (entered, collected)) in self.datapath.accounts() {
            let held = held.remove(&account).unwrap_or(0);
            assert_eq!(entered.wrapping_sub(collected), held, "account {account}");
            let most = if account < 2 { ROOM } else { self.share };
            assert!(held <= most, "account {account} holds {held} of {most}");
        }
        assert!(held.is_empty(), "held at no account's expense: {held:?}");
        let counters = self.datapath.counters();
        let counted: u64 = counters.values().map(|counter| counter.packets).sum();
        assert_eq!(counted, self.frames);
        for (index, rate) in self.datapath.link_rates() {
            let class = Class::ALL
                .into_iter()
                .find(|class| rate_index(SLOT, *class) == index);
            let class = class.expect("a budget of the box");
            assert!(rate.spent <= class.budget().at_once * 16, "{class:?}");
        }
        for (_, usage) in self.datapath.usages() {
            assert!(usage.drops <= EVENTS_PER_TICK && usage.opens <= EVENTS_PER_TICK);
        }
    }

    /// What the endpoint sends, it sends as itself.
    fn source(&self, packet: &Packet, frame: &Bytes, direction: Direction, outcome: &Outcome) {
        let known = self.installed.interfaces.contains_key(&INTERFACE);
        if direction == Direction::Ingress || !outcome.reason.allows() || !known {
            return;
        }
        let mac: Mac = MACS[0].1;
        assert_eq!(frame.bytes[6..12], mac, "another's MAC: {outcome:?}");
        let source = address(packet.version, packet.source);
        let asks = packet.protocol == protocol::UDP
            && (packet.source_port, packet.destination_port) == (68, 67);
        let is_link = matches!(
            outcome.reason,
            Reason::LinkControl | Reason::NeighbourDiscovery | Reason::GroupMembership
        );
        let no_sender = source.is_unspecified() && (asks || is_link);
        assert!(
            no_sender || self.owner(source) == BOX,
            "{source} passes: {outcome:?}"
        );
    }

    /// A link message from the endpoint is all that its frame holds, but for zeros.
    fn nothing_behind(packet: &Packet, frame: &Bytes, direction: Direction, outcome: &Outcome) {
        let is_link = matches!(
            outcome.reason,
            Reason::NeighbourDiscovery | Reason::GroupMembership
        );
        if direction == Direction::Ingress || !is_link {
            return;
        }
        let behind = &frame.bytes[packet.end as usize..];
        let padded = frame.bytes.len() == 60 && behind.iter().all(|byte| *byte == 0);
        assert!(behind.is_empty() || padded, "{packet:?}: {outcome:?}");
    }

    fn owner(&self, address: IpAddr) -> u32 {
        let entry = self.installed.addresses.get(&address);
        entry.map_or(0, |entry| entry.owner)
    }

    /// What the tables say of a connection.
    fn tables_say(&self, opening: Direction, key: &Connection) -> Option<Reason> {
        let (direction, port) = match opening {
            Direction::Ingress => (policy::Direction::Ingress, key.local_port),
            Direction::Egress => (policy::Direction::Egress, key.remote_port),
        };
        let port = if has_ports(key.protocol) { port } else { 0 };
        let ruling = self
            .datapath
            .banks
            .judge(BOX, direction, key.remote, key.protocol, port)?;
        Some(ruling.reason)
    }

    /// What passes is what the tables allow, or belongs to what they allowed.
    fn allowed(&self, packet: &Packet, direction: Direction, outcome: &Outcome, before: &Flows) {
        let key = connection(packet, direction);
        let said = self.tables_say(direction, &key);
        match outcome.reason {
            Reason::RuleAllowed | Reason::Host | Reason::Itself => {
                assert!(
                    said.is_some_and(Reason::allows),
                    "{key:?} passes: {outcome:?}, {said:?}"
                );
                if outcome.reason == Reason::Host {
                    assert_eq!(self.owner(key.remote), OWNER_HOST);
                }
            }
            Reason::NotIsolated => {
                // A neighbour's frame that the bridge floods has no owner, too.
                let own = self.owner(key.local) == BOX;
                assert!(
                    !own || said.is_some_and(Reason::allows),
                    "{key:?}: {said:?}"
                );
            }
            Reason::Established if packet.piece == Piece::Later => {
                assert!(
                    self.firsts.contains(&datagram(packet, direction)),
                    "no first: {key:?}"
                );
            }
            Reason::Established => {
                let flow = before.get(&key);
                let Some(flow) = flow else {
                    panic!("{key:?} is established out of nothing");
                };
                let audited = flow.flags & flow_flags::AUDITED != 0;
                let keeps = self.flag(control_flags::KEEP_ESTABLISHED);
                if !keeps && !audited {
                    let said = self.tables_say(opener(flow), &key);
                    assert!(
                        said.is_some_and(Reason::allows),
                        "{key:?} {flow:?}: {said:?}"
                    );
                }
                if audited && !self.flag(control_flags::AUDIT) {
                    let said = self.tables_say(opener(flow), &key);
                    assert!(
                        said.is_some_and(Reason::allows),
                        "only audited: {key:?} {flow:?}"
                    );
                }
                let over = State::from_number(flow.state).is_over();
                let opens = packet.protocol == protocol::TCP && packet.tcp_flags & 0x17 == 0x02;
                let reply = opener(flow) != direction;
                assert!(!(opens && (reply || over)), "{key:?} {flow:?}");
                let age = self.datapath.tick.wrapping_sub(flow.seen);
                assert!(
                    age <= lifetime(flow, key.protocol),
                    "{key:?} {flow:?} is over"
                );
            }
            Reason::FragmentEarly => assert_eq!(packet.piece, Piece::Later),
            Reason::Related => {
                assert!(!before.is_empty(), "related to nothing");
                assert!(packet.is_icmp_error());
            }
            Reason::PolicyDenied => {
                // Its own opening, or that of the connection that it belongs to.
                let opening = before.get(&key).map_or(direction, opener);
                let denied = [direction, opening]
                    .map(|opening| self.tables_say(opening, &key))
                    .into_iter()
                    .flatten()
                    .any(|said| !said.allows());
                assert!(denied, "{key:?} is denied: {said:?}");
            }
            Reason::PolicyRevoked => {
                assert!(before.contains_key(&key), "nothing to revoke: {key:?}");
            }
            _ => {}
        }
    }

    /// A connection comes to be by a packet that may open it.
    fn entered(
        &self,
        before: &Flows,
        after: &Flows,
        packet: Option<&Packet>,
        direction: Direction,
        outcome: &Outcome,
    ) {
        for (key, flow) in after {
            let Some(earlier) = before.get(key) else {
                self.opened(key, flow, packet, direction, outcome);
                continue;
            };
            if opener(earlier) != opener(flow) {
                self.opened(key, flow, packet, direction, outcome);
            }
            if earlier != flow {
                let own = packet.map(|packet| connection(packet, direction));
                assert_eq!(own.as_ref(), Some(key), "another's connection changes");
                // What is dropped can only have been judged again meanwhile.
                let judged = Flow {
                    revision: earlier.revision,
                    rule: earlier.rule,
                    flags: flow.flags | earlier.flags & flow_flags::AUDITED,
                    ..*flow
                };
                assert!(outcome.passes || judged == *earlier, "{key:?}: {outcome:?}");
            }
        }
        assert!(
            before.keys().all(|key| after.contains_key(key)),
            "a frame removes nothing"
        );
        assert!(
            !outcome.opened || (outcome.passes && outcome.reason.allows()),
            "{outcome:?}"
        );
    }

    fn opened(
        &self,
        key: &Connection,
        flow: &Flow,
        packet: Option<&Packet>,
        direction: Direction,
        outcome: &Outcome,
    ) {
        let packet = packet.expect("what can't be read opens nothing");
        assert_eq!(connection(packet, direction), *key);
        assert_eq!((opener(flow), flow.seen), (direction, self.datapath.tick));
        assert_eq!(self.owner(key.local), BOX, "{key:?} is not the box's");
        let said = self.tables_say(direction, key);
        if flow.flags & flow_flags::AUDITED == 0 {
            assert!(outcome.opened, "{key:?} is opened and not reported");
            assert!(
                said.is_some_and(Reason::allows),
                "{key:?} is opened: {said:?}"
            );
        } else {
            assert!(
                self.flag(control_flags::AUDIT) && !outcome.opened,
                "{key:?} {outcome:?}"
            );
        }
    }
}

fn opener(flow: &Flow) -> Direction {
    if flow.flags & flow_flags::OPENED_BY_ENDPOINT != 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

fn datagram(packet: &Packet, direction: Direction) -> Datagram {
    (
        packet.fragment_id,
        packet.cut_protocol,
        packet.source,
        packet.destination,
        direction,
    )
}

fn address(version: u8, octets: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if version == 4 {
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(octets).into()
    }
}

/// The packet's connection as the box sees it.
fn connection(packet: &Packet, direction: Direction) -> Connection {
    let source = (address(packet.version, packet.source), packet.source_port);
    let destination = (
        address(packet.version, packet.destination),
        packet.destination_port,
    );
    let ((local, local_port), (remote, remote_port)) = match direction {
        Direction::Ingress => (destination, source),
        Direction::Egress => (source, destination),
    };
    let (local_port, remote_port) = match (packet.protocol, packet.source_port) {
        (number, _) if has_ports(number) => (local_port, remote_port),
        // Echoes by their identifier, and by the end that asked: 8 stands for the box.
        (protocol::ICMP, kind @ (0 | 8)) | (protocol::ICMPV6, kind @ (128 | 129)) => {
            let request = matches!(kind, 8 | 128);
            let box_asked = request == (direction == Direction::Egress);
            (packet.echo_id, if box_asked { 8 } else { 0 })
        }
        _ => (0, 0),
    };
    Connection {
        endpoint: BOX,
        protocol: packet.protocol,
        local,
        local_port,
        remote,
        remote_port,
    }
}

/// The headers, where all of them can be read.
fn read(frame: &Bytes) -> Option<Packet> {
    let ethernet = packet::ethernet(frame).ok()?;
    let mut found = Packet::default();
    match ethernet.ethertype {
        _ if frame.tagged => return None,
        ethertype::IPV4 => packet::ipv4(frame, ETHERNET, false, &mut found).ok()?,
        ethertype::IPV6 => packet::ipv6(frame, ETHERNET, false, &mut found).ok()?,
        _ => return None,
    }
    packet::transport(frame, &mut found, false).ok()?;
    Some(found)
}
