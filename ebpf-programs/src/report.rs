//! Counters, and records to the ring: first packets of connections, and drops, within
//! the endpoint's budget. What is over the budget is counted, in full. What is reported, and
//! what a record says, is `netpol_abi::report`'s to decide.

use netpol_abi::{
    Reason,
    connection::TICK_SHIFT,
    event::{Event, Kind},
    judge::{Outcome, ParsedFrame},
    packet::Direction,
    report::{self, Sighting},
};

use crate::{constants::now_ns, lookup::cell, maps};

/// Counts the packet under its reason.
#[inline(always)]
pub fn count(reason: Reason, direction: Direction, length: u32) {
    let index = report::counter(reason, direction);
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(index) {
        // SAFETY: the element is this processor's own.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(length);
        }
    }
}

/// Sends a record, where one is due and the endpoint's budget and the ring have room.
#[inline(always)]
pub fn report(
    outcome: &Outcome,
    parsed: &ParsedFrame,
    direction: Direction,
    ifindex: u32,
    length: u32,
) {
    let Some(kind) = report::kind(outcome) else {
        return;
    };
    let Some(cell) = cell(maps::USAGE.get_ptr_mut(outcome.slot)) else {
        return;
    };
    let seen = Sighting {
        time_ns: now_ns(),
        ifindex,
        length,
        direction,
    };
    let mut usage = cell.get();
    let tick = (seen.time_ns >> TICK_SHIFT) as u32;
    if !report::spend(&mut usage, kind, tick) || !write(kind, outcome, parsed, &seen) {
        usage.suppressed = usage.suppressed.wrapping_add(1);
    }
    cell.set(usage);
}

/// Was there room for the record?
#[inline(always)]
fn write(kind: Kind, outcome: &Outcome, parsed: &ParsedFrame, seen: &Sighting) -> bool {
    let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) else {
        return false;
    };
    // SAFETY: the ring's own memory, of the size and alignment of an event, of which every field
    // is written and none read.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    report::fill(event, kind, outcome, parsed, seen);
    entry.submit(0);
    true
}
