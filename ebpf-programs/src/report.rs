//! Counters, and records to the ring: first packets of connections, and drops, within
//! the endpoint's budget. What is over the budget is counted, in full.

use core::mem::MaybeUninit;

use netpol_abi::{
    Reason,
    connection::TICK_SHIFT,
    event::{Event, Kind},
    judge::{Outcome, View},
    limits::EVENTS_PER_TICK,
    packet::Direction,
};

use crate::{
    lookup::{cell, now_ns},
    maps,
};

/// Counts the packet under its reason.
#[inline(always)]
pub fn count(reason: Reason, direction: Direction, length: u32) {
    let index = reason as u32 * 2 + direction as u32;
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(index) {
        // SAFETY: the element is this processor's own.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(length);
        }
    }
}

/// Sends a record, where the endpoint's budget and the ring have room.
#[inline(always)]
pub fn report(outcome: &Outcome, view: &View, direction: Direction, ifindex: u32, length: u32) {
    let now = now_ns();
    let Some(cell) = cell(maps::USAGE.get_ptr_mut(outcome.slot)) else {
        return;
    };
    let mut usage = cell.get();
    let tick = (now >> TICK_SHIFT) as u32;
    if usage.tick != tick {
        usage.tick = tick;
        usage.drops = 0;
        usage.opens = 0;
    }
    let spent = if outcome.opened {
        &mut usage.opens
    } else {
        &mut usage.drops
    };
    let room = *spent < EVENTS_PER_TICK;
    if room {
        *spent += 1;
        if let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) {
            fill(&mut entry, now, outcome, view, direction, ifindex, length);
            entry.submit(0);
            cell.set(usage);
            return;
        }
    }
    usage.suppressed = usage.suppressed.wrapping_add(1);
    cell.set(usage);
}

#[inline(always)]
fn fill(
    entry: &mut MaybeUninit<Event>,
    now: u64,
    outcome: &Outcome,
    view: &View,
    direction: Direction,
    ifindex: u32,
    length: u32,
) {
    let kind = if outcome.opened {
        Kind::Opened
    } else if outcome.passes {
        Kind::Audited
    } else {
        Kind::Dropped
    };
    let packet = &view.packet;
    // SAFETY: the ring's own memory, of the size and alignment of an event; every field is written
    // below. In place: on the stack there is no room for it.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    event.time_ns = now;
    event.generation = outcome.generation;
    event.subject = outcome.subject;
    event.rule = outcome.rule;
    event.endpoint = outcome.endpoint;
    event.ifindex = ifindex;
    event.length = length;
    event.source = packet.source;
    event.destination = packet.destination;
    event.source_port = packet.source_port;
    event.destination_port = packet.destination_port;
    event.ethertype = view.ethernet.ethertype;
    event.version = packet.version;
    event.protocol = packet.protocol;
    event.direction = direction as u8;
    event.kind = kind as u8;
    event.reason = outcome.reason as u8;
    event.tcp_flags = packet.tcp_flags;
    event.reply = outcome.reply.into();
    event.reserved = [0; 3];
    event.source_mac = view.ethernet.source;
    event.destination_mac = view.ethernet.destination;
    event.reserved_end = [0; 4];
}
