//! The short way for what nearly all packets are: part of a connection that is known, goes on, and
//! is allowed by the policy in force.
//!
//! It says yes only where the whole verdict ([`super::judge`]) would say `established` and change
//! no more than the time at which the connection was last seen; everything else it leaves to
//! that. Tests hold the two against each other on every frame they have.

use core::cell::Cell;

use super::{
    Tables, sender,
    track::{opening_of, owner},
};
use crate::{
    connection::{Change, State, Timeout, age},
    packet::{Direction, Frame, Plain, Route, plain, tcp},
    tables::{Flow, FlowKey4, FlowKey6, flow_flags, stamp},
};

/// Does the frame belong to such a connection? Then what it carries in `tc_index` from here on, where it leaves an
/// endpoint; 0: nothing.
#[inline(always)]
pub fn is_established<T: Tables, F: Frame>(
    tables: &T,
    frame: &F,
    direction: Direction,
    ifindex: u32,
) -> Option<u32> {
    let packet = plain(frame)?;
    let control = tables.control()?;
    let interface = tables.interface(ifindex)?;
    let endpoint = tables.endpoint(interface.endpoint)?;
    let policy = &endpoint.banks[control.bank() & 1];
    let spoofed = direction as u8 == Direction::Egress as u8 && packet.source_mac != interface.mac;
    if endpoint.id == 0 || policy.revision == 0 || spoofed {
        return None;
    }
    let cell = find(tables, &packet, direction, endpoint.id)?;
    let flow = tables.read_flow(cell);
    let now = tables.tick();
    let state = State::from_number(flow.state);
    let reply = opening_of(&flow) as u8 != direction as u8;
    let lifetime = control.timeout(Timeout::for_state(packet.protocol, state));
    let goes_on = flow.revision == policy.revision
        && !sender::is_another(control, frame.tc_index(), direction, &flow)
        && flow.flags & flow_flags::AUDITED == 0
        && age(now, flow.seen) <= lifetime
        && matches!(
            state.after(packet.protocol, tcp::ACK, reply),
            Change::To(next) if next as u8 == state as u8
        );
    if !goes_on {
        return None;
    }
    // Most packets change nothing: the cache line stays clean.
    if flow.seen != now {
        tables.see_flow(cell, now);
    }
    let is_own = flow.flags & flow_flags::BY_LEAVE == 0;
    Some(if direction as u8 == Direction::Egress as u8 && is_own {
        control.stamp_on_wire(stamp(interface.endpoint, &packet.route.source))
    } else {
        0
    })
}

#[inline(always)]
fn find<'t, T: Tables>(
    tables: &'t T,
    packet: &Plain,
    direction: Direction,
    id: u32,
) -> Option<&'t Cell<Flow>> {
    let owner = owner(id, packet.protocol);
    let is_egress = direction as u8 == Direction::Egress as u8;
    let (local_port, remote_port) = if is_egress {
        (packet.source_port, packet.destination_port)
    } else {
        (packet.destination_port, packet.source_port)
    };
    let Route {
        is_v6,
        source,
        destination,
    } = packet.route;
    let (local, remote) = if is_egress {
        (source, destination)
    } else {
        (destination, source)
    };
    if is_v6 {
        tables.flow6(&key6(owner, local, remote, [local_port, remote_port]))
    } else {
        let [a, b, c, d, ..] = local;
        let [e, f, g, h, ..] = remote;
        tables.flow4(&FlowKey4 {
            owner,
            local: [a, b, c, d],
            remote: [e, f, g, h],
            local_port,
            remote_port,
        })
    }
}

/// The key as whole words: written by its fields, the compiler puts it together of halves that lie
/// misaligned, which the verifier does not take on the stack.
#[inline(always)]
fn key6(
    owner: u32,
    local: [u8; 16],
    remote: [u8; 16],
    [local_port, remote_port]: [u16; 2],
) -> FlowKey6 {
    const { assert!(cfg!(target_endian = "little")) };
    let (local, remote) = (u128::from_le_bytes(local), u128::from_le_bytes(remote));
    let words = [
        local as u64,
        (local >> 64) as u64,
        remote as u64,
        (remote >> 64) as u64,
        u64::from(owner) | u64::from(local_port) << 32 | u64::from(remote_port) << 48,
    ];
    zerocopy::transmute!(words)
}
