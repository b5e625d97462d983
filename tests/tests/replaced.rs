//! Entries of the tables that are replaced while programs read them: the kernel gives their memory to the next entry at
//! once, and no packet may be judged by what another address, or another port, says. Needs root.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{TestRun as _, TestRunOptions};
use netpol_abi::Reason;
use netpol_abi::limits::INTERFACE_SLOTS;
use netpol_abi::packet::Direction;
use netpol_abi::tables::{
    Address, Endpoint, EndpointBank, Interface, NOT_ISOLATED, OWNER_HOST, control_flags,
};
use netpol_engine::plan::Step;
use netpold::datapath::{Hook, Kernel, KernelTables};
use netpold_tests::frames;
use netpold_tests::kernel::InKernel;
use zerocopy::IntoBytes as _;

/// Long enough for some runs that are held up between a look-up and the reading of what it found, on two processors.
const LONG: Duration = Duration::from_secs(15);
/// Threads that sleep for a moment again and again: the interrupts that wake them hold up a program between both.
const TICKING: u32 = 6;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN: [u8; 4] = [10, 0, 0, 9];
/// Of the endpoint that no policy selects.
const OWN_OF_FREE: [u8; 4] = [10, 0, 0, 10];
const PEER: [u8; 4] = [10, 0, 0, 2];
const HOST: [u8; 4] = [10, 0, 1, 0];

const fn address(class: u64, owner: u32, slot: u32) -> Address {
    Address {
        class: [class; 2],
        owner: [owner; 2],
        slot: [slot; 2],
    }
}

/// The host's addresses. As many as keep the memory of an entry from coming back to the same address within one run: the
/// daemon writes an entry twice at most between two grace periods.
const HOSTS: u8 = 16;

/// A peer's that nothing allows, and the host's, to which everything is allowed.
fn entries() -> Vec<([u8; 4], Address)> {
    let hosts = (0..HOSTS).map(|number| ([10, 0, 1, number], address(60, OWNER_HOST, 0)));
    let peer = (PEER, address(50, 0, 0));
    std::iter::once(peer).chain(hosts).collect()
}

/// Writes what is there already, as a plan does where another thing of an entry changes.
fn replace(table: &Path, goes_on: &dyn Fn() -> bool) -> Result<u64> {
    const SIZE: usize = size_of::<Address>();
    let map = Map::HashMap(MapData::from_pin(table)?);
    let mut map: HashMap<MapData, [u8; 4], [u8; SIZE]> = map.try_into()?;
    let entries = entries();
    let mut replaced = 0;
    while goes_on() {
        for (key, entry) in &entries {
            map.insert(key, &<[u8; SIZE]>::try_from(entry.as_bytes())?, 0)?;
            replaced += 1;
        }
    }
    Ok(replaced)
}

/// Runs a frame that leaves again and again, while a thread changes the tables: how many frames ran, and how many entries
/// were replaced.
fn under_changes(
    kernel: &mut Kernel,
    frame: &[u8],
    change: impl FnOnce(&mut KernelTables, &dyn Fn() -> bool) -> Result<u64> + Send,
) -> Result<(u64, u64)> {
    const REPEAT: u32 = 20_000;
    let Kernel {
        tables,
        attachments,
        ..
    } = kernel;
    let ended = &AtomicBool::new(false);
    thread::scope(|scope| {
        let goes_on = || !ended.load(Ordering::Relaxed);
        let writer = scope.spawn(move || change(tables, &goes_on));
        for _ in 0..TICKING {
            scope.spawn(move || {
                // It waits for nothing: the timer's interrupts are what the test needs (`TICKING`).
                while goes_on() {
                    thread::sleep(Duration::from_micros(1));
                }
            });
        }
        let begun = Instant::now();
        let mut run = || -> Result<()> {
            attachments
                .program(Hook::Egress)?
                .test_run(TestRunOptions {
                    data_in: Some(frame),
                    repeat: REPEAT,
                    ..TestRunOptions::new()
                })?;
            Ok(())
        };
        let (mut runs, mut result) = (0, Ok(()));
        while begun.elapsed() < LONG && result.is_ok() {
            result = run();
            runs += u64::from(REPEAT);
        }
        ended.store(true, Ordering::Relaxed);
        let replaced = writer.join().ok().context("the writer panicked")??;
        result?;
        println!("{runs} packets, {replaced} entries replaced");
        Ok((runs, replaced))
    })
}

#[test]
fn no_packet_is_judged_by_another_addresss_entry() -> Result<()> {
    let mut programs = InKernel::new("replaced", &|_| ())?;
    let bank = EndpointBank {
        ingress: 100,
        egress: 100,
        revision: 1,
        audited_ingress: 100,
        audited_egress: 100,
        ..EndpointBank::default()
    };
    let put = |(key, value): ([u8; 4], Address)| Step::PutAddress {
        address: key.into(),
        value,
    };
    let mut steps = vec![
        Step::PutFlags {
            flags: [control_flags::HOST_EGRESS; 2],
        },
        Step::PutEndpoint {
            slot: 9,
            value: Endpoint {
                id: 77,
                banks: [bank; 2],
                ..Endpoint::default()
            },
        },
        put((OWN, address(51, 77, 9))),
        Step::PutInterface {
            ifindex: 1,
            value: Interface {
                ifindex: 1,
                endpoint: 9,
                mac: MAC,
                ..Interface::default()
            },
        },
    ];
    steps.extend(entries().into_iter().map(put));
    programs.apply(&steps)?;
    // An ICMP message that opens nothing: no connection answers for the ones behind it.
    let frame = |to: [u8; 4]| {
        let packet = frames::ipv4(OWN, to, 1, &[13, 0, 0, 0, 0, 0, 0, 0]);
        frames::ethernet(
            MAC,
            [2, 0, 0, 0, 0, 2],
            0x0800,
            &frames::sealed_ipv4(packet),
        )
    };
    let to_peer = frame(PEER);
    for (frame, expected) in [
        (&to_peer, Reason::PolicyDenied),
        (&frame(HOST), Reason::Host),
    ] {
        let (found, _) = programs.judge(frame, Direction::Egress)?;
        ensure!(found == expected, "{found:?}");
    }
    let table = programs.map("ADDRESSES4");
    let (runs, replaced) = under_changes(&mut programs.kernel, &to_peer, |_, goes_on| {
        replace(&table, goes_on)
    })?;
    ensure!(replaced > 1000, "nothing was replaced");
    for count in programs.kernel.counters.read()? {
        let is_host = count.reason == Reason::Host && count.direction == Hook::Egress;
        let before = u64::from(is_host);
        ensure!(
            count.reason == Reason::PolicyDenied || count.packets == before,
            "of {runs} packets, {} were judged by another address's entry: {:?}",
            count.packets - before,
            count.reason
        );
    }
    Ok(())
}

#[test]
fn no_packet_is_judged_as_another_interfaces() -> Result<()> {
    let mut programs = InKernel::new("overflow", &|_| ())?;
    let endpoint = |slot: u32, policy_set: u64| {
        let bank = EndpointBank {
            ingress: policy_set,
            egress: policy_set,
            revision: 1,
            audited_ingress: policy_set,
            audited_egress: policy_set,
            ..EndpointBank::default()
        };
        let value = Endpoint {
            id: 70 + slot,
            banks: [bank; 2],
            ..Endpoint::default()
        };
        Step::PutEndpoint { slot, value }
    };
    let interface = |ifindex: u32, endpoint: u32| Step::PutInterface {
        ifindex,
        value: Interface {
            ifindex,
            endpoint,
            mac: MAC,
            ..Interface::default()
        },
    };
    // The slot of interface 1, that of a test run, is another's: so it stands in the hash, as one does whose endpoint no
    // policy selects.
    let (taken, isolated, free) = (1 + INTERFACE_SLOTS, 1, 1 + 2 * INTERFACE_SLOTS);
    let mut steps = vec![
        endpoint(9, 100),
        endpoint(10, NOT_ISOLATED),
        interface(taken, 9),
        interface(isolated, 9),
        interface(free, 10),
    ];
    for (address, slot) in [(OWN, 9), (OWN_OF_FREE, 10)] {
        steps.push(Step::PutAddress {
            address: address.into(),
            value: self::address(51, 70 + slot, slot),
        });
    }
    programs.apply(&steps)?;
    let packet = frames::ipv4(OWN, PEER, 1, &[13, 0, 0, 0, 0, 0, 0, 0]);
    let frame = frames::ethernet(
        MAC,
        [2, 0, 0, 0, 0, 2],
        0x0800,
        &frames::sealed_ipv4(packet),
    );
    let (found, _) = programs.judge(&frame, Direction::Egress)?;
    ensure!(found == Reason::PolicyDenied, "{found:?}");
    let (runs, replaced) = under_changes(&mut programs.kernel, &frame, |tables, goes_on| {
        let again = [interface(isolated, 9), interface(free, 10)];
        let mut replaced = 0;
        while goes_on() {
            tables.apply(&again)?;
            replaced += 2;
        }
        Ok(replaced)
    })?;
    ensure!(replaced > 100, "nothing was replaced");
    for count in programs.kernel.counters.read()? {
        ensure!(
            count.reason == Reason::PolicyDenied || count.packets == 0,
            "of {runs} packets, {} were judged as another interface's: {:?}",
            count.packets,
            count.reason
        );
    }
    Ok(())
}
