//! The packets and what must become of them.
//!
//! The scene: endpoint `lab/box` (number 7, 10.0.0.2, fd00::2, fe80::2, MAC 02:…:02) is on the
//! interface under test. Peers: `lab/friend` 10.0.0.3 and fd00::3, `lab/foe` 10.0.0.4 and
//! fd00::4 (both endpoints of this host), the host 10.0.0.1, and strangers.

mod scene;

use netpol_abi::Reason::{self, *};
use netpol_abi::packet::Direction;
use netpol_abi::packet::tcp::{ACK, FIN, RST, SYN};
use netpol_abi::tables::control_flags::{AUDIT, KEEP_ESTABLISHED};
use netpol_engine::world::World;
use netpold_tests::frames::{
    self, icmp, ipv4, ipv4_piece, ipv4_with_options, ipv6, sctp, tcp, udp,
};

use scene::*;

/// A sequence.
pub struct Case {
    /// Its name, a test's.
    pub name: &'static str,
    /// The world that it starts in.
    pub world: World,
    /// Control flags beside the world's.
    pub flags: u32,
    /// A small table instead of the usual one.
    pub flow_share: Option<u32>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One thing that happens.
pub enum Step {
    /// A frame on the endpoint's interface.
    Packet {
        /// The endpoint's view.
        direction: Direction,
        /// Its bytes.
        frame: Vec<u8>,
        /// What must become of it.
        expected: Reason,
    },
    /// The policies change.
    Change(World, u32),
}

fn to_box(payload: Vec<u8>, expected: Reason) -> Step {
    let version = if payload[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    Step::Packet {
        direction: Direction::Ingress,
        frame: frames::ethernet(OTHER_MAC, BOX_MAC, version, &payload),
        expected,
    }
}

fn from_box(payload: Vec<u8>, expected: Reason) -> Step {
    let version = if payload[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    Step::Packet {
        direction: Direction::Egress,
        frame: frames::ethernet(BOX_MAC, OTHER_MAC, version, &payload),
        expected,
    }
}

fn raw(
    direction: Direction,
    source: frames::Mac,
    ethertype: u16,
    payload: &[u8],
    expected: Reason,
) -> Step {
    Step::Packet {
        direction,
        frame: frames::ethernet(source, OTHER_MAC, ethertype, payload),
        expected,
    }
}

fn case(name: &'static str, world: World, steps: Vec<Step>) -> Case {
    Case {
        name,
        world,
        flags: 0,
        flow_share: None,
        steps,
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut cases = connections();
    cases.extend(spoofing());
    cases.extend(hostile_shapes());
    cases.extend(fragments());
    cases.extend(errors());
    cases.extend(changes());
    cases
}

fn connections() -> Vec<Case> {
    vec![
        case(
            "nobody_isolates",
            open(),
            vec![
                from_box(ipv4(BOX, STRANGER, 6, &tcp(40000, 443, SYN)), NotIsolated),
                to_box(
                    ipv4(STRANGER, BOX, 6, &tcp(443, 40000, SYN | ACK)),
                    Established,
                ),
                to_box(ipv4(FOE, BOX, 17, &udp(5000, 53, b"?")), NotIsolated),
                from_box(ipv4(BOX, FOE, 17, &udp(53, 5000, b"!")), Established),
            ],
        ),
        case(
            "tcp_in_both_directions",
            guarded(),
            vec![
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)), RuleAllowed),
                from_box(
                    ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, SYN | ACK)),
                    Established,
                ),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, ACK)), Established),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40001, 8081, SYN)), PolicyDenied),
                to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, SYN)), PolicyDenied),
                from_box(ipv4(BOX, FRIEND, 6, &tcp(40000, 5432, SYN)), RuleAllowed),
                to_box(
                    ipv4(FRIEND, BOX, 6, &tcp(5432, 40000, SYN | ACK)),
                    Established,
                ),
                from_box(ipv4(BOX, FOE, 6, &tcp(40000, 5432, SYN)), PolicyDenied),
                from_box(ipv4(BOX, STRANGER, 6, &tcp(40000, 443, SYN)), PolicyDenied),
                from_box(ipv4(BOX, BLOCKED_IN, 6, &tcp(40000, 443, SYN)), RuleAllowed),
                from_box(
                    ipv4(BOX, BLOCKED_EXCEPT, 6, &tcp(40000, 443, SYN)),
                    PolicyDenied,
                ),
            ],
        ),
        case(
            "ipv6_means_the_same",
            guarded(),
            vec![
                to_box(
                    ipv6(FRIEND6, BOX6, 6, 64, &tcp(40000, 8080, SYN)),
                    RuleAllowed,
                ),
                from_box(
                    ipv6(BOX6, FRIEND6, 6, 64, &tcp(8080, 40000, SYN | ACK)),
                    Established,
                ),
                to_box(
                    ipv6(FOE6, BOX6, 6, 64, &tcp(40000, 8080, SYN)),
                    PolicyDenied,
                ),
                from_box(
                    ipv6(BOX6, FOE6, 6, 64, &tcp(40000, 5432, SYN)),
                    PolicyDenied,
                ),
            ],
        ),
        case(
            "scans_get_nothing",
            guarded(),
            vec![
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, FIN)), TcpNotOpening),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, 0)), TcpNotOpening),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, RST)), TcpNotOpening),
                to_box(
                    ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN | ACK)),
                    TcpNotOpening,
                ),
                to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, ACK)), PolicyDenied),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 22, ACK)), PolicyDenied),
            ],
        ),
        case(
            "the_denied_side_takes_over_no_ports",
            guarded(),
            vec![
                from_box(ipv4(BOX, FRIEND, 6, &tcp(40000, 5432, SYN)), RuleAllowed),
                to_box(
                    ipv4(FRIEND, BOX, 6, &tcp(5432, 40000, SYN | ACK)),
                    Established,
                ),
                // A SYN of the side that answered is a connection of its own.
                to_box(ipv4(FRIEND, BOX, 6, &tcp(5432, 40000, SYN)), PolicyDenied),
                from_box(
                    ipv4(BOX, FRIEND, 6, &tcp(40000, 5432, FIN | ACK)),
                    Established,
                ),
                to_box(
                    ipv4(FRIEND, BOX, 6, &tcp(5432, 40000, FIN | ACK)),
                    Established,
                ),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(5432, 40000, SYN)), PolicyDenied),
                from_box(ipv4(BOX, FRIEND, 6, &tcp(40000, 5432, SYN)), RuleAllowed),
            ],
        ),
        case(
            "udp_and_sctp_are_not_tcp",
            guarded(),
            vec![
                to_box(ipv4(FRIEND, BOX, 17, &udp(40000, 8080, b"x")), PolicyDenied),
                to_box(ipv4(FRIEND, BOX, 17, &udp(40000, 53, b"x")), RuleAllowed),
                from_box(ipv4(BOX, FRIEND, 17, &udp(53, 40000, b"y")), Established),
                from_box(ipv4(BOX, FRIEND, 17, &udp(53, 40001, b"y")), PolicyDenied),
                to_box(ipv4(FRIEND, BOX, 132, &sctp(40000, 53)), PolicyDenied),
                to_box(ipv4(FRIEND, BOX, 132, &sctp(40000, 3868)), RuleAllowed),
                from_box(ipv4(BOX, FRIEND, 132, &sctp(3868, 40000)), Established),
            ],
        ),
        case(
            "echo_finds_its_way_back",
            pinging(),
            vec![
                from_box(
                    ipv4(BOX, FRIEND, 1, &icmp(8, 0, [0, 5, 0, 1], b"ping")),
                    RuleAllowed,
                ),
                to_box(
                    ipv4(FRIEND, BOX, 1, &icmp(0, 0, [0, 5, 0, 1], b"ping")),
                    Established,
                ),
                to_box(
                    ipv4(FRIEND, BOX, 1, &icmp(0, 0, [0, 6, 0, 1], b"ping")),
                    PolicyDenied,
                ),
                to_box(
                    ipv4(FRIEND, BOX, 1, &icmp(8, 0, [0, 5, 0, 1], b"ping")),
                    PolicyDenied,
                ),
                from_box(
                    ipv6(BOX6, FRIEND6, 58, 64, &icmp(128, 0, [0, 5, 0, 1], b"ping")),
                    RuleAllowed,
                ),
                to_box(
                    ipv6(FRIEND6, BOX6, 58, 64, &icmp(129, 0, [0, 5, 0, 1], b"ping")),
                    Established,
                ),
            ],
        ),
        case(
            "the_host_and_itself",
            guarded(),
            vec![
                to_box(ipv4(HOST, BOX, 6, &tcp(40000, 22, SYN)), Host),
                from_box(ipv4(BOX, HOST, 17, &udp(40000, 53, b"x")), Host),
                to_box(ipv4(BOX, BOX, 6, &tcp(40000, 9, SYN)), Itself),
            ],
        ),
        case("many_ports", many_ports(), {
            let mut steps: Vec<Step> = (0..60)
                .map(|index| {
                    to_box(
                        ipv4(FRIEND, BOX, 6, &tcp(40000, 1000 + index * 10, SYN)),
                        RuleAllowed,
                    )
                })
                .collect();
            steps
                .extend([999, 1005, 1591, 2000].map(|port| {
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, port, SYN)), PolicyDenied)
                }));
            steps.push(to_box(
                ipv4(FRIEND, BOX, 17, &udp(40000, 1000, b"x")),
                PolicyDenied,
            ));
            steps
        }),
        Case {
            flow_share: Some(2),
            ..case(
                "a_share_that_is_used_up",
                guarded(),
                vec![
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)), RuleAllowed),
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40001, 8080, SYN)), RuleAllowed),
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40002, 8080, SYN)), FlowShareFull),
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40001, 8080, SYN)), Established),
                ],
            )
        },
        Case {
            flags: AUDIT,
            ..case(
                "audit_drops_nothing",
                guarded(),
                vec![
                    to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, SYN)), PolicyDenied),
                    from_box(ipv4(BOX, FOE, 6, &tcp(8080, 40000, SYN | ACK)), Established),
                    to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, ACK)), PolicyDenied),
                    to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, 0)), TcpState),
                    from_box(ipv4(STRANGER, FOE, 17, &udp(1, 2, b"x")), SpoofedAddress),
                    Step::Change(guarded(), 0),
                    to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, ACK)), PolicyDenied),
                    from_box(ipv4(BOX, FOE, 6, &tcp(8080, 40000, ACK)), PolicyDenied),
                ],
            )
        },
    ]
}

fn spoofing() -> Vec<Case> {
    let lies = |world: World, name| {
        case(
            name,
            world,
            vec![
                from_box(ipv4(FRIEND, STRANGER, 17, &udp(1, 2, b"x")), SpoofedAddress),
                from_box(ipv4(STRANGER, FRIEND, 6, &tcp(1, 2, SYN)), SpoofedAddress),
                from_box(
                    ipv6(FRIEND6, FOE6, 17, 64, &udp(1, 2, b"x")),
                    SpoofedAddress,
                ),
                raw(
                    Direction::Egress,
                    OTHER_MAC,
                    0x0800,
                    &ipv4(BOX, FRIEND, 17, &udp(1, 2, b"x")),
                    SpoofedMac,
                ),
                raw(
                    Direction::Egress,
                    BOX_MAC,
                    0x0806,
                    &frames::arp(1, BOX_MAC, BOX, FRIEND),
                    LinkControl,
                ),
                raw(
                    Direction::Egress,
                    BOX_MAC,
                    0x0806,
                    &frames::arp(1, BOX_MAC, [0; 4], BOX),
                    LinkControl,
                ),
                raw(
                    Direction::Egress,
                    BOX_MAC,
                    0x0806,
                    &frames::arp(2, BOX_MAC, HOST, FRIEND),
                    ForgedArp,
                ),
                raw(
                    Direction::Egress,
                    BOX_MAC,
                    0x0806,
                    &frames::arp(2, OTHER_MAC, BOX, FRIEND),
                    ForgedArp,
                ),
                raw(
                    Direction::Ingress,
                    OTHER_MAC,
                    0x0806,
                    &frames::arp(2, OTHER_MAC, FRIEND, BOX),
                    LinkControl,
                ),
                from_box(
                    neighbour(136, BOX6_LINK, FRIEND6, BOX6, Some((2, BOX_MAC))),
                    LinkControl,
                ),
                from_box(
                    neighbour(136, BOX6_LINK, FRIEND6, FRIEND6, Some((2, BOX_MAC))),
                    ForgedNd,
                ),
                from_box(
                    neighbour(136, BOX6_LINK, FRIEND6, BOX6, Some((2, OTHER_MAC))),
                    ForgedNd,
                ),
                from_box(
                    neighbour(135, BOX6_LINK, FRIEND6, FRIEND6, Some((1, BOX_MAC))),
                    LinkControl,
                ),
                from_box(neighbour(135, [0; 16], FRIEND6, BOX6, None), LinkControl),
                from_box(
                    neighbour(135, FRIEND6, FOE6, FOE6, Some((1, BOX_MAC))),
                    ForgedNd,
                ),
                from_box(
                    ipv6(
                        BOX6_LINK,
                        ALL_NODES,
                        58,
                        255,
                        &icmp(134, 0, [64, 0, 7, 8], &[0; 8]),
                    ),
                    ForgedNd,
                ),
                from_box(
                    ipv6(BOX6_LINK, FRIEND6, 58, 255, &icmp(137, 0, [0; 4], &[0; 32])),
                    ForgedNd,
                ),
                to_box(
                    ipv6(FRIEND6, BOX6, 58, 64, &icmp(135, 0, [0; 4], &BOX6)),
                    ForgedNd,
                ),
                // Tags come off on the way, and what they hid is read then.
                raw(
                    Direction::Egress,
                    BOX_MAC,
                    0x8100,
                    &[&[0, 0, 8, 6][..], &frames::arp(2, BOX_MAC, HOST, FRIEND)].concat(),
                    Vlan,
                ),
                raw(Direction::Egress, BOX_MAC, 0x88a8, &[0, 1, 8, 0], Vlan),
                from_box(
                    ipv6(FRIEND6, FOE6, 60, 255, &advertisement_behind(12)),
                    ExtensionHeaders,
                ),
                from_box(
                    ipv6(BOX6, FOE6, 60, 255, &advertisement_behind(12)),
                    ExtensionHeaders,
                ),
                from_box(
                    ipv6(BOX6, FOE6, 60, 255, &advertisement_behind(3)),
                    ForgedNd,
                ),
            ],
        )
    };
    vec![
        lies(guarded(), "lies_of_an_isolated_endpoint"),
        lies(open(), "lies_of_an_endpoint_nobody_isolates"),
        case(
            "what_can_not_be_read_goes_under_its_own_name",
            open(),
            vec![
                raw(Direction::Egress, BOX_MAC, 0x88cc, b"lldp", NotIsolated),
                from_box(
                    ipv4_piece(BOX, STRANGER, 6, 9, 0x2000, &tcp(1, 2, SYN)[..8]),
                    NotIsolated,
                ),
                from_box(
                    ipv4_piece(FRIEND, STRANGER, 6, 9, 0x2000, &tcp(1, 2, SYN)[..8]),
                    SpoofedAddress,
                ),
                from_box(ipv6(FOE6, FRIEND6, 17, 64, &[0, 1, 0]), SpoofedAddress),
            ],
        ),
    ]
}

/// A neighbour advertisement for `lab/friend` behind so many destination options.
fn advertisement_behind(headers: usize) -> Vec<u8> {
    let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers);
    payload[(headers - 1) * 8] = 58;
    payload.extend(icmp(136, 0, [0x20, 0, 0, 0], &FRIEND6));
    payload
}

fn hostile_shapes() -> Vec<Case> {
    let whole = ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN));
    let mut short_header = whole.clone();
    short_header[0] = 0x44;
    let mut lies_long = whole.clone();
    lies_long[3] = 200;
    let mut lies_short = whole.clone();
    lies_short[3] = 30;
    let mut other_version = whole.clone();
    other_version[0] = 0x55;
    let mut small_tcp = whole.clone();
    small_tcp[20 + 12] = 0x40;
    let segment = tcp(40000, 8080, SYN);
    let behind =
        |next: u8, headers: &[u8]| ipv6(FRIEND6, BOX6, next, 64, &[headers, &segment].concat());
    let frame = |payload: Vec<u8>, expected| Step::Packet {
        direction: Direction::Ingress,
        frame: frames::ethernet(
            OTHER_MAC,
            BOX_MAC,
            if payload[0] >> 4 == 6 { 0x86dd } else { 0x0800 },
            &payload,
        ),
        expected,
    };
    vec![
        case(
            "what_can_not_be_read",
            guarded(),
            vec![
                raw(Direction::Ingress, OTHER_MAC, 0x88cc, b"lldp", EtherType),
                raw(
                    Direction::Egress,
                    BOX_MAC,
                    0x8100,
                    &[0, 1, 8, 0, 0x45],
                    Vlan,
                ),
                raw(
                    Direction::Ingress,
                    OTHER_MAC,
                    0x88a8,
                    &[0, 1, 8, 0, 0x45],
                    Vlan,
                ),
                frame(short_header, Malformed),
                frame(lies_long, Truncated),
                frame(lies_short, Truncated),
                raw(
                    Direction::Ingress,
                    OTHER_MAC,
                    0x0800,
                    &other_version,
                    Malformed,
                ),
                frame(small_tcp, Malformed),
                frame(ipv4(FRIEND, BOX, 6, &segment[..12]), Truncated),
                frame(ipv4(FOE, BOX, 17, &[1, 2, 3]), Truncated),
            ],
        ),
        case(
            "options_do_not_move_the_ports",
            guarded(),
            vec![
                // Options that look like a segment to port 8080, before one to port 22.
                frame(
                    ipv4_with_options(FRIEND, BOX, 6, &tcp(40000, 8080, SYN), &tcp(40000, 22, SYN)),
                    PolicyDenied,
                ),
                frame(
                    ipv4_with_options(FRIEND, BOX, 6, &[1; 12], &tcp(40000, 8080, SYN)),
                    RuleAllowed,
                ),
            ],
        ),
        case(
            "extension_headers",
            guarded(),
            vec![
                frame(behind(60, &[6, 0, 1, 4, 0, 0, 0, 0]), RuleAllowed),
                frame(
                    behind(0, &[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]),
                    Established,
                ),
                frame(
                    behind(60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]),
                    ExtensionHeaders,
                ),
                frame(behind(43, &[6, 0, 0, 1, 0, 0, 0, 0]), ExtensionHeaders),
                frame(
                    behind(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(12)),
                    ExtensionHeaders,
                ),
                frame(behind(60, &[6, 9, 1, 4, 0, 0, 0, 0]), Truncated),
                // An atomic fragment is a whole datagram.
                frame(behind(44, &[6, 0, 0, 0, 0, 0, 0, 9]), Established),
                frame(
                    ipv6(FRIEND6, BOX6, 253, 64, b"experiment"),
                    ExtensionHeaders,
                ),
            ],
        ),
        case(
            "not_for_this_endpoint",
            guarded(),
            vec![
                to_box(ipv4(FRIEND, FOE, 6, &tcp(40000, 8080, SYN)), NotForEndpoint),
                to_box(
                    ipv4(FRIEND, [224, 0, 0, 251], 17, &udp(5353, 5353, b"x")),
                    PolicyDenied,
                ),
            ],
        ),
    ]
}

fn fragments() -> Vec<Case> {
    const MORE: u16 = 0x2000;
    let long = udp(40000, 53, &[7; 1000]);
    let denied = udp(40000, 54, &[7; 1000]);
    vec![
        case(
            "fragments_follow_their_first",
            guarded(),
            vec![
                to_box(
                    ipv4_piece(FRIEND, BOX, 17, 9, MORE, &long[..504]),
                    RuleAllowed,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 17, 9, 63, &long[504..]),
                    Established,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 17, 10, 63, &long[504..]),
                    FragmentEarly,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 17, 11, MORE, &denied[..504]),
                    PolicyDenied,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 17, 11, 63, &denied[504..]),
                    FragmentWithoutFirst,
                ),
                to_box(
                    ipv4_piece(FOE, BOX, 17, 9, 63, &long[504..]),
                    FragmentWithoutFirst,
                ),
            ],
        ),
        case(
            "tiny_fragments_smuggle_nothing",
            guarded(),
            vec![
                to_box(
                    ipv4_piece(FRIEND, BOX, 6, 9, MORE, &tcp(40000, 8080, SYN)[..8]),
                    FragmentTiny,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 6, 10, MORE, &tcp(40000, 8080, SYN)),
                    RuleAllowed,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 6, 10, MORE | 1, &[0; 16]),
                    FragmentTiny,
                ),
                to_box(
                    ipv4_piece(FRIEND, BOX, 6, 10, MORE | 2, &[0; 16]),
                    FragmentTiny,
                ),
            ],
        ),
        case(
            "fragments_of_an_open_endpoint_are_its_own",
            open(),
            vec![
                from_box(ipv4_piece(BOX, FRIEND, 17, 9, 63, &[7; 100]), NotIsolated),
                from_box(
                    ipv4_piece(FRIEND, FOE, 17, 9, 63, &[7; 100]),
                    SpoofedAddress,
                ),
            ],
        ),
    ]
}

fn errors() -> Vec<Case> {
    let sent = ipv4(BOX, FRIEND, 6, &tcp(40000, 5432, SYN));
    let sent6 = ipv6(BOX6, FRIEND6, 6, 64, &tcp(40000, 5432, SYN));
    let never = ipv4(BOX, FRIEND, 6, &tcp(40009, 5432, SYN));
    let got = ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN));
    let too_big = [0, 0, 5, 0];
    vec![case(
        "icmp_errors_about_allowed_connections",
        guarded(),
        vec![
            from_box(sent.clone(), RuleAllowed),
            to_box(
                ipv4(STRANGER, BOX, 1, &icmp(3, 4, too_big, &sent[..28])),
                Related,
            ),
            to_box(ipv4(STRANGER, BOX, 1, &icmp(11, 0, [0; 4], &sent)), Related),
            to_box(
                ipv4(STRANGER, BOX, 1, &icmp(3, 4, too_big, &never[..28])),
                UnrelatedError,
            ),
            // The quoted packet must be the endpoint's own, not one that it got.
            to_box(
                ipv4(
                    STRANGER,
                    BOX,
                    1,
                    &icmp(3, 4, too_big, &ipv4(FRIEND, BOX, 6, &tcp(5432, 40000, ACK))),
                ),
                UnrelatedError,
            ),
            to_box(
                ipv4(STRANGER, BOX, 1, &icmp(5, 1, FOE, &sent[..28])),
                PolicyDenied,
            ),
            // An error is for who sent the packet, or it would carry anything to anybody.
            to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)), RuleAllowed),
            from_box(
                ipv4(BOX, FRIEND, 1, &icmp(3, 4, too_big, &got[..28])),
                Related,
            ),
            from_box(
                ipv4(BOX, STRANGER, 1, &icmp(3, 4, too_big, &got[..28])),
                UnrelatedError,
            ),
            from_box(
                ipv4(BOX, FOE, 1, &icmp(11, 0, [0; 4], &got)),
                UnrelatedError,
            ),
            from_box(sent6.clone(), RuleAllowed),
            to_box(
                ipv6(STRANGER6, BOX6, 58, 64, &icmp(2, 0, too_big, &sent6)),
                Related,
            ),
            to_box(
                ipv6(
                    STRANGER6,
                    BOX6,
                    58,
                    64,
                    &icmp(2, 0, too_big, &ipv6(BOX6, FOE6, 6, 64, &tcp(1, 2, SYN))),
                ),
                UnrelatedError,
            ),
        ],
    )]
}

fn changes() -> Vec<Case> {
    vec![
        case(
            "a_changed_policy_is_judged_anew",
            guarded(),
            vec![
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)), RuleAllowed),
                from_box(
                    ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, SYN | ACK)),
                    Established,
                ),
                from_box(ipv4(BOX, FRIEND, 6, &tcp(40001, 5432, SYN)), RuleAllowed),
                Step::Change(pinging(), 0),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, ACK)), PolicyRevoked),
                from_box(ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, ACK)), PolicyRevoked),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(5432, 40001, ACK)), Established),
                Step::Change(guarded(), 0),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, ACK)), Established),
            ],
        ),
        Case {
            flags: KEEP_ESTABLISHED,
            ..case(
                "or_kept",
                guarded(),
                vec![
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)), RuleAllowed),
                    Step::Change(pinging(), KEEP_ESTABLISHED),
                    from_box(
                        ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, SYN | ACK)),
                        Established,
                    ),
                    to_box(ipv4(FRIEND, BOX, 6, &tcp(40001, 8080, SYN)), PolicyDenied),
                ],
            )
        },
        case(
            "an_isolation_later_keeps_what_it_allows",
            open(),
            vec![
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)), NotIsolated),
                to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, SYN)), NotIsolated),
                from_box(
                    ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, SYN | ACK)),
                    Established,
                ),
                Step::Change(guarded(), 0),
                to_box(ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, ACK)), Established),
                from_box(ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, ACK)), Established),
                to_box(ipv4(FOE, BOX, 6, &tcp(40000, 8080, ACK)), PolicyRevoked),
            ],
        ),
    ]
}
