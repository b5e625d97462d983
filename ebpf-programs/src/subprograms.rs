//! The subprograms of a verdict. Each is a global function (Linux 5.6): the verifier checks it once, with any arguments,
//! and not again on each path that leads to it. A global function takes plain integers and the context; everything else is
//! handed over in [`maps::SCRATCH`].
//!
//! A subprogram and its callers share 512 bytes of stack.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use netpol_abi::{
    Reason,
    judge::{
        Answer, Dialled, Later, Opening, ParsedFrame, Question, Remembered, Subprograms, answer,
        answer_of_own, answer_of_target, class_of_own, dialled, find_asking_endpoint,
        find_endpoint, find_rule, first_fragment, is_established, is_related, later_fragment,
        leave, link_control, policy_set_of, question, read, remember, rule, search_blocks,
    },
    packet::{Direction, Frame, Socket, protocol, records},
    tables::VerdictKey,
};

use crate::{
    constants::is_inside,
    lookup::Maps,
    maps,
    report::{count, report},
    skb::{Skb, context, set_stamp},
};

/// The maps for a subprogram that needs no packet.
const WITHOUT_PACKET: Maps = Maps {
    skb: core::ptr::null_mut(),
};

/// The packet at hand as it was read. It does not fit the stack beside the rest; there is none
/// without this element, and nothing passes without it.
#[inline(always)]
fn parsed<'a>() -> Option<&'a ParsedFrame> {
    // SAFETY: the element is this processor's own, and a TC program is not entered again on the
    // same processor while it runs; it is written before these functions read it.
    maps::SCRATCH.get_ptr(0).map(|parsed| unsafe { &*parsed })
}

/// The same, to write.
#[inline(always)]
fn parsed_to_fill<'a>() -> Option<&'a mut ParsedFrame> {
    // SAFETY: as above; the function that fills it has no other reference to it.
    maps::SCRATCH
        .get_ptr_mut(0)
        .map(|parsed| unsafe { &mut *parsed })
}

/// Each part of a verdict is the global function below. The packet at hand is in a map, and not an argument.
impl Subprograms for Maps {
    #[inline(always)]
    fn leave(&self, slot: u32, version: u8, high: u64, low: u64) -> u64 {
        netpold_leave(slot, version.into(), high, low)
    }

    #[inline(always)]
    fn socket(&self, _: &ParsedFrame, listens: bool) -> Option<Socket> {
        match netpold_socket(self.skb, listens.into()) {
            CONNECTED => Some(Socket::Connected),
            LISTENING => Some(Socket::Listening),
            _ => None,
        }
    }

    #[inline(always)]
    fn search_blocks(&self, spill: u64, protocol: u8, port: u32) -> u32 {
        netpold_blocks(spill, protocol.into(), port)
    }

    #[inline(always)]
    fn find_rule(&self, key: &VerdictKey, protocol: u8, port: u32) -> u32 {
        netpold_rule(key.policy_set, key.class, protocol.into(), port)
    }

    #[inline(always)]
    fn ask(&self, _: &ParsedFrame, question: Question) -> Answer {
        Answer(netpold_policy(question.0))
    }

    #[inline(always)]
    fn ask_own(&self, _: &ParsedFrame, question: Question) -> Answer {
        Answer(netpold_own_policy(question.0))
    }

    #[inline(always)]
    fn ask_target(&self, _: &ParsedFrame, question: Question) -> Answer {
        Answer(netpold_target_policy(question.0))
    }

    #[inline(always)]
    fn dialled(&self, _: &ParsedFrame, opening: Direction) -> Dialled {
        Dialled::from_number(netpold_dialled(opening as u32))
    }

    #[inline(always)]
    fn class_of_own(&self, _: &ParsedFrame) -> u64 {
        netpold_class()
    }

    #[inline(always)]
    fn policy_set_of(&self, _: &ParsedFrame, opening: Direction, answer: Answer) -> u64 {
        netpold_policy_set(opening as u32, answer.0)
    }

    #[inline(always)]
    fn remember(&self, _: &ParsedFrame, opening: Opening, rule: u32) -> Remembered {
        Remembered::from_number(netpold_remember(opening.0, rule))
    }

    #[inline(always)]
    fn is_related<F: Frame>(&self, _: &F, _: &ParsedFrame) -> bool {
        netpold_related(self.skb) != 0
    }

    #[inline(always)]
    fn link_control<F: Frame>(&self, _: &F, _: &ParsedFrame) -> Option<Reason> {
        Reason::from_number(netpold_link(self.skb) as u8)
    }

    #[inline(always)]
    fn records<F: Frame>(&self, _: &F, _: &ParsedFrame) -> u32 {
        netpold_records(self.skb)
    }

    #[inline(always)]
    fn first_fragment(&self, _: &ParsedFrame, allowed: bool) {
        netpold_first_fragment(allowed.into());
    }

    #[inline(always)]
    fn later_fragment(&self, _: &ParsedFrame) -> Later {
        Later(netpold_later_fragment())
    }
}

/// The fast path. Nonzero: the packet passes, and is counted.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_fast(skb: *mut __sk_buff, direction: u32) -> u32 {
    let context = context(skb);
    let direction = Direction::of_bit(direction);
    let frame = Skb::new(&context);
    let Some(tc_index) = is_established(&Maps { skb }, &frame, direction, ifindex(skb)) else {
        return 0;
    };
    count(Reason::Established, direction, context.len());
    if direction as u8 == Direction::Egress as u8 {
        set_stamp(skb, tc_index);
    }
    1
}

/// The slow path: judges a packet. Nonzero: it passes.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_judge(skb: *mut __sk_buff, direction: u32) -> u32 {
    let context = context(skb);
    let direction = Direction::of_bit(direction);
    let read = read_result(netpold_read(skb));
    let (maps, frame) = (Maps { skb }, Skb::new(&context));
    match parsed_to_fill() {
        Some(parsed) => find_endpoint(&maps, direction, ifindex(skb), parsed),
        None => return 0,
    }
    // The other subprograms read it, too: nothing writes it from here on.
    let (Some(parsed), Some(outcome)) = (parsed(), maps::OUTCOME.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: the element is this processor's own, and used here alone until it is reported.
    let room = unsafe { &mut *outcome };
    let outcome = rule(&maps, &frame, parsed, read, room);
    if direction as u8 == Direction::Egress as u8 {
        // Also where it is none: what the container's own namespace left there says nothing.
        set_stamp(skb, outcome.tc_index);
    }
    outcome.passes.into()
}

/// Judges a packet to the engine's resolver. Nonzero: it passes.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_question(skb: *mut __sk_buff) -> u32 {
    let read = read_result(netpold_read(skb));
    let maps = Maps { skb };
    match parsed_to_fill() {
        Some(parsed) => find_asking_endpoint(&maps, ifindex(skb), parsed),
        None => return 0,
    }
    let (Some(parsed), Some(outcome)) = (parsed(), maps::OUTCOME.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: the element is this processor's own, and used here alone until it is reported.
    let room = unsafe { &mut *outcome };
    question(&maps, parsed, read, room).passes.into()
}

/// What [`netpold_read`] has returned.
#[inline(always)]
fn read_result(number: u32) -> Result<(), Reason> {
    match number {
        0 => Ok(()),
        // It is a reason's number; another one could only mean that nothing was read.
        number => Err(Reason::from_number(number as u8).unwrap_or(Reason::Truncated)),
    }
}

/// Counts and reports what was judged.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_report(skb: *mut __sk_buff, direction: u32) -> u32 {
    let (Some(parsed), Some(outcome)) = (parsed(), maps::OUTCOME.get_ptr(0)) else {
        return 0;
    };
    // SAFETY: the element is this processor's own, and was just written.
    let outcome = unsafe { (*outcome).assume_init_ref() };
    let (length, direction) = (context(skb).len(), Direction::of_bit(direction));
    count(outcome.reason, direction, length);
    report(outcome, parsed, direction, ifindex(skb), length);
    0
}

/// The interface's number in the tables. Inside other namespaces those that come before these programs
/// (`bin/inside.rs`) say which it is.
#[inline(always)]
fn ifindex(skb: *const __sk_buff) -> u32 {
    // SAFETY: the context is valid for the whole run of the program. Volatile, or the compiler makes one load at a
    // computed place of the two, which the verifier does not take.
    let (here, told) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*skb).ifindex),
            core::ptr::read_volatile(&raw const (*skb).cb[0]),
        )
    };
    if is_inside() { told } else { here }
}

/// Reads the headers. 0, or the number of the reason why they can't be read.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netpold_read(skb: *mut __sk_buff) -> u32 {
    let context = context(skb);
    let Some(parsed) = parsed_to_fill() else {
        return Reason::Truncated as u32;
    };
    match read(&Skb::new(&context), parsed) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// What policy says.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_policy(question: u32) -> u64 {
    let Some(parsed) = parsed() else { return 0 };
    answer(&WITHOUT_PACKET, parsed, Question(question)).0
}

/// What the endpoint's own policies say.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_own_policy(question: u32) -> u64 {
    let Some(parsed) = parsed() else { return 0 };
    answer_of_own(&WITHOUT_PACKET, parsed, Question(question)).0
}

/// What the container behind a published port says.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_target_policy(question: u32) -> u64 {
    let Some(parsed) = parsed() else { return 0 };
    answer_of_target(&WITHOUT_PACKET, parsed, Question(question)).0
}

/// Which entry speaks for the port that the endpoint dials.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_dialled(opening: u32) -> u32 {
    let Some(parsed) = parsed() else { return 0 };
    dialled(&WITHOUT_PACKET, parsed, Direction::of_bit(opening)) as u32
}

/// The class of the endpoint's own address.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_class() -> u64 {
    let Some(parsed) = parsed() else { return 0 };
    class_of_own(&WITHOUT_PACKET, parsed)
}

/// The policy set that has given an answer.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_policy_set(opening: u32, answer: u64) -> u64 {
    let Some(parsed) = parsed() else { return 0 };
    policy_set_of(
        &WITHOUT_PACKET,
        parsed,
        Direction::of_bit(opening),
        Answer(answer),
    )
}

/// The leave for an address.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_leave(slot: u32, version: u32, high: u64, low: u64) -> u64 {
    leave(&WITHOUT_PACKET, slot, version, high, low)
}

/// The rule that allows.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_rule(policy_set: u64, class: u64, protocol: u32, port: u32) -> u32 {
    find_rule(&WITHOUT_PACKET, policy_set, class, protocol as u8, port)
}

/// Looks through spilled port ranges.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_blocks(spill: u64, protocol: u32, port: u32) -> u32 {
    search_blocks(&WITHOUT_PACKET, spill, protocol as u8, port)
}

/// Enters a connection.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_remember(opening: u32, rule: u32) -> u32 {
    let Some(parsed) = parsed() else {
        return u32::MAX;
    };
    remember(&WITHOUT_PACKET, parsed, Opening(opening), rule) as u32
}

/// Is an ICMP error about a connection of the endpoint? Nonzero: yes.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_related(skb: *mut __sk_buff) -> u32 {
    let (Some(parsed), Some(quoted)) = (parsed(), maps::QUOTED.get_ptr_mut(0)) else {
        return 0;
    };
    let context = context(skb);
    // SAFETY: the element is this processor's own, and used here alone.
    let quoted = unsafe { &mut *quoted };
    is_related(&Maps { skb }, &Skb::new(&context), parsed, quoted).into()
}

/// Rules on what keeps a link working. 0: the packet is nothing of that kind.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_link(skb: *mut __sk_buff) -> u32 {
    let Some(parsed) = parsed() else {
        return Reason::Truncated as u32;
    };
    let context = context(skb);
    match link_control(&Maps { skb }, &Skb::new(&context), parsed) {
        Some(reason) => reason as u32,
        None => 0,
    }
}

/// Counts the addresses in a report of group membership. 0: it is not exactly one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_records(skb: *mut __sk_buff) -> u32 {
    let Some(parsed) = parsed() else { return 0 };
    let context = context(skb);
    records(&Skb::new(&context), &parsed.packet)
}

/// Remembers a first fragment.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_first_fragment(allowed: u32) -> u32 {
    if let Some(parsed) = parsed() {
        first_fragment(&WITHOUT_PACKET, parsed, allowed != 0);
    }
    0
}

/// Rules on a later one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_later_fragment() -> u32 {
    let Some(parsed) = parsed() else {
        return Reason::Truncated as u32;
    };
    later_fragment(&WITHOUT_PACKET, parsed).0
}

/// What [`netpold_socket`] says of a socket; 0: there is none.
const CONNECTED: u32 = 1;
const LISTENING: u32 = 2;

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface that the packet is at.
const CURRENT_NETNS: u64 = u64::MAX;

/// Looks up a socket of the endpoint.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netpold_socket(skb: *mut __sk_buff, listens: u32) -> u32 {
    let Some(parsed) = parsed() else { return 0 };
    let packet = &parsed.packet;
    let netns = if is_inside() {
        CURRENT_NETNS
    } else if parsed.endpoint.netns != 0 {
        u64::from(parsed.endpoint.netns - 1)
    } else {
        // An interface that does not know its namespace.
        return 0;
    };
    let is_egress = parsed.endpoint.direction() as u8 == Direction::Egress as u8;
    let (local, remote, local_port, remote_port) = if is_egress {
        let (local, remote) = (&packet.source, &packet.destination);
        (local, remote, packet.source_port, packet.destination_port)
    } else {
        let (local, remote) = (&packet.destination, &packet.source);
        (local, remote, packet.destination_port, packet.source_port)
    };
    let remote_port = if listens == 0 { remote_port.to_be() } else { 0 };
    let (mut tuple, bytes) = tuple(
        packet.version,
        local,
        remote,
        local_port.to_be(),
        remote_port,
    );
    let is_tcp = packet.protocol == protocol::TCP;
    let tuple: *mut bpf_sock_tuple = (&raw mut tuple).cast();
    // SAFETY: `bytes` of the tuple are written; a socket that is found is released.
    unsafe {
        // No function pointer: BPF has no indirect calls.
        let socket = if is_tcp {
            // Not `bpf_sk_lookup_tcp`, which loses a request socket on kernels before 6.0.
            bpf_skc_lookup_tcp(skb.cast(), tuple, bytes, netns, 0)
        } else {
            bpf_sk_lookup_udp(skb.cast(), tuple, bytes, netns, 0)
        };
        if socket.is_null() {
            return 0;
        }
        let found = classify((*socket).state, (*socket).dst_port, is_tcp, remote_port);
        bpf_sk_release(socket.cast());
        found
    }
}

/// `struct bpf_sock_tuple`, and how many bytes of it count. A packet's source is the remote side; ports
/// in network order. An array, as all of a union would have to be written.
#[inline(always)]
fn tuple(
    version: u8,
    local: &[u8; 16],
    remote: &[u8; 16],
    local_port: u16,
    remote_port: u16,
) -> ([u32; 9], u32) {
    let words = |address: &[u8; 16]| {
        let whole = u128::from_ne_bytes(*address);
        [
            whole as u32,
            (whole >> 32) as u32,
            (whole >> 64) as u32,
            (whole >> 96) as u32,
        ]
    };
    let ([r0, r1, r2, r3], [l0, l1, l2, l3]) = (words(remote), words(local));
    let ([a, b], [c, d]) = (remote_port.to_ne_bytes(), local_port.to_ne_bytes());
    let ports = u32::from_ne_bytes([a, b, c, d]);
    if version == 4 {
        ([r0, l0, ports, 0, 0, 0, 0, 0, 0], 12)
    } else {
        ([r0, r1, r2, r3, l0, l1, l2, l3, ports], 36)
    }
}

/// What a socket is to a connection with this port of the other side, in network order.
#[inline(always)]
const fn classify(state: u32, port: u16, is_tcp: bool, remote_port: u16) -> u32 {
    // Those that are not the connection's, or not any more (include/net/tcp_states.h).
    const SYN_SENT: u32 = 2;
    const SYN_RECV: u32 = 3;
    const TIME_WAIT: u32 = 6;
    const CLOSE: u32 = 7;
    const LISTEN: u32 = 10;
    const NEW_SYN_RECV: u32 = 12;
    match state {
        // A UDP socket that is not connected has no peer.
        _ if !is_tcp && port != remote_port => LISTENING,
        _ if !is_tcp => CONNECTED,
        LISTEN => LISTENING,
        SYN_SENT | SYN_RECV | NEW_SYN_RECV | TIME_WAIT | CLOSE => 0,
        _ => CONNECTED,
    }
}
