//! The maps, without traffic: steps written and read back, full tables, a crash after each step of a plan,
//! another layout beside, sweeps of connections.
//!
//! Needs root, and fails without it. Each case has a fixture of its own (`netpold_tests::fixture`), which is gone
//! afterwards.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, MapInfo};
use libtest_mimic::Arguments;
use netpol_abi::limits::{INTERFACE_SLOTS, LAYOUT_VERSION};
use netpol_abi::tables::{Address, Control, Endpoint, Interface, PortRange, Verdict, VerdictKey};
use netpol_engine::plan::{Demand, Step, plan, recover};
use netpol_engine::tables::{AddressEntry, EndpointEntry, InterfaceEntry, Tables, VerdictEntry};
use netpold::datapath::Kernel;
use netpold::datapath::kernel::Origin;
use netpold::datapath::tables::StepError;
use netpold::datapath::wire::Wire;
use netpold_tests::kernel_fixture::{KernelFixture, case, endpoint, programs};

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        case(
            "steps_are_written_and_read_back",
            steps_are_written_and_read_back,
        ),
        case("a_full_table_changes_nothing", a_full_table_changes_nothing),
        case("a_plan_and_a_crash_in_it", a_plan_and_a_crash_in_it),
        case("interfaces_that_share_a_slot", interfaces_that_share_a_slot),
        case(
            "another_layout_is_replaced_beside",
            another_layout_is_replaced_beside,
        ),
        case(
            "flows_are_swept_and_accounted",
            flows_are_swept_and_accounted,
        ),
        case(
            "every_contract_map_is_in_the_programs",
            every_contract_map_is_in_the_programs,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn steps() -> Vec<Step> {
    let address = Address {
        class: [50, 51],
        owner: [77, 77],
        slot: [9, 9],
    };
    vec![
        Step::PutVerdict {
            key: VerdictKey {
                policy_set: 100,
                class: 50,
            },
            value: Verdict {
                other: 3,
                ..Verdict::default()
            },
        },
        Step::PutPortBlock {
            key: 500,
            value: Box::default(),
        },
        Step::PutEndpoint {
            slot: 9,
            value: endpoint(77),
        },
        Step::PutAddress {
            address: [10, 0, 0, 1].into(),
            value: address,
        },
        Step::PutAddress {
            address: "fd00::1".parse().expect("an address"),
            value: address,
        },
        Step::PutPrefix {
            net: "10.0.0.0/8".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [60, 61] },
        },
        Step::PutPrefix {
            net: "10.1.0.0/16".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [62, 63] },
        },
        Step::PutPrefix {
            net: "0.0.0.0/0".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [64, 65] },
        },
        Step::PutPrefix {
            net: "fd00::/8".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [66, 67] },
        },
        Step::PutInterface {
            ifindex: 40,
            value: interface(40),
        },
        Step::PutFlags { flags: [0, 6] },
        Step::Commit {
            generation: 1,
            flags: [0, 6],
        },
        Step::WaitGracePeriod,
    ]
}

fn interface(ifindex: u32) -> Interface {
    Interface {
        ifindex,
        endpoint: 9,
        mac: [2, 0, 0, 0, 0, 1],
        reserved: 0,
        netns: 3,
    }
}

fn steps_are_written_and_read_back(fixture: &KernelFixture) -> Result<()> {
    let mut kernel = fixture.open()?;
    kernel.tables.apply(&steps())?;
    let installed = kernel.tables.installed().clone();
    ensure!(installed.prefixes.len() == 4 && installed.addresses.len() == 2);
    kernel.tables.resync()?;
    ensure!(
        *kernel.tables.installed() == installed,
        "the mirror is what the kernel has"
    );
    drop(kernel);
    let mut kernel = fixture.open()?;
    ensure!(*kernel.tables.installed() == installed);
    ensure!(installed.control.generation == 1 && installed.control.flags == [0, 6]);
    let started = Instant::now();
    kernel.tables.apply(&[Step::WaitGracePeriod])?;
    eprintln!("grace period: {:?}", started.elapsed());
    kernel.tables.apply(&[
        Step::DeletePrefix {
            net: "10.0.0.0/8".parse()?,
        },
        Step::DeleteAddress {
            address: [10, 0, 0, 1].into(),
        },
        Step::DeleteAddress {
            address: [10, 0, 0, 99].into(),
        },
        Step::DeleteInterface { ifindex: 40 },
        Step::PutEndpoint {
            slot: 9,
            value: Endpoint::default(),
        },
    ])?;
    let installed = kernel.tables.installed().clone();
    ensure!(installed.prefixes.len() == 3 && installed.addresses.len() == 1);
    ensure!(installed.interfaces.is_empty() && installed.endpoints.is_empty());
    kernel.tables.resync()?;
    ensure!(*kernel.tables.installed() == installed);
    ensure!(
        kernel
            .tables
            .fill()
            .iter()
            .any(|fill| fill.table == "VERDICTS" && fill.entries == 1 && fill.limit == 4096)
    );
    Ok(())
}

fn a_full_table_changes_nothing(fixture: &KernelFixture) -> Result<()> {
    let mut kernel = fixture.open()?;
    kernel.tables.apply(&steps())?;
    let before = kernel.tables.installed().clone();
    let mut more = vec![
        Step::DeleteInterface { ifindex: 40 },
        Step::PutPrefix {
            net: "10.1.0.0/16".parse()?,
            value: netpol_abi::tables::Prefix { class: [1, 1] },
        },
    ];
    more.extend((0..5000).map(|class| Step::PutVerdict {
        key: VerdictKey {
            policy_set: 8,
            class,
        },
        value: Verdict::default(),
    }));
    more.push(Step::Commit {
        generation: 2,
        flags: [0, 6],
    });
    let error = kernel
        .tables
        .apply(&more)
        .expect_err("5000 do not fit 4096");
    ensure!(!error.committed && error.clean, "{error:?}");
    ensure!(
        matches!(
            error.cause,
            StepError::TableFull {
                map: "VERDICTS",
                limit: 4096
            }
        ),
        "{error:?}"
    );
    ensure!(*kernel.tables.installed() == before);
    kernel.tables.resync()?;
    ensure!(
        *kernel.tables.installed() == before,
        "in the kernel as well"
    );
    let error = kernel
        .tables
        .apply(&[Step::PutEndpoint {
            slot: 1 << 20,
            value: endpoint(1),
        }])
        .expect_err("there is no such slot");
    ensure!(matches!(error.cause, StepError::NoSlot { .. }), "{error:?}");
    Ok(())
}

/// Two endpoints, `rules` port ranges, and one of two prefixes by the evenness of `rules`.
fn desired(rules: u16) -> Result<Tables> {
    let mut tables = Tables {
        flags: 6,
        ..Tables::default()
    };
    for slot in 0..2 {
        let id = 10 + slot;
        let entry = EndpointEntry {
            id,
            ingress: 100 + u64::from(rules),
            audited_ingress: 100 + u64::from(rules),
            ..EndpointEntry::default()
        };
        tables.endpoints.insert(slot, entry);
        let entry = InterfaceEntry {
            endpoint: slot,
            mac: [2, 0, 0, 0, 0, slot as u8],
            netns: 7 + slot,
        };
        tables.interfaces.insert(40 + slot, entry);
        let entry = AddressEntry {
            class: 50,
            owner: id,
            slot,
        };
        tables
            .addresses
            .insert([10, 0, 0, slot as u8].into(), entry);
        let address = format!("fd00::{id}").parse()?;
        tables.addresses.insert(address, entry);
    }
    let net = if rules.is_multiple_of(2) {
        "10.0.0.0/8"
    } else {
        "10.1.0.0/16"
    };
    let prefixes = [(net.parse()?, 60), ("fd00::/8".parse()?, 60)];
    tables.prefixes = Arc::new(prefixes.into());
    let ranges = (0..rules)
        .map(|number| PortRange {
            first: number * 10,
            last: number * 10 + 5,
            protocol: 6,
            rule: 1,
            ..PortRange::default()
        })
        .collect();
    let key = VerdictKey {
        policy_set: 100 + u64::from(rules),
        class: 50,
    };
    tables
        .verdicts
        .insert(key, VerdictEntry { other: 0, ranges });
    Ok(tables)
}

/// Ends a plan after each of its steps as a crash would, and comes back.
fn a_plan_and_a_crash_in_it(fixture: &KernelFixture) -> Result<()> {
    let mut kernel = fixture.open()?;
    let (first, second) = (desired(3)?, desired(150)?);
    let go = |kernel: &mut Kernel, desired: &Tables, steps: Option<usize>| -> Result<Tables> {
        let installed = kernel.tables.installed();
        let made = plan(
            &installed.read_back(),
            desired,
            installed.control.generation,
        );
        kernel.tables.check(&made.demand)?;
        let end = steps.unwrap_or(made.steps.len()).min(made.steps.len());
        // The waits change nothing here and cost the test its time.
        let steps: Vec<_> = made.steps[..end]
            .iter()
            .filter(|step| **step != Step::WaitGracePeriod)
            .cloned()
            .collect();
        kernel.tables.apply(&steps)?;
        Ok(made.installed(desired.clone()))
    };
    let before = go(&mut kernel, &first, None)?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().read_back() == before);
    ensure!(recover(kernel.tables.installed()).is_empty());
    let installed = kernel.tables.installed();
    let made = plan(&before, &second, installed.control.generation);
    ensure!(
        made.steps
            .iter()
            .any(|step| matches!(step, Step::PutPortBlock { .. }))
    );
    let commit = made
        .steps
        .iter()
        .position(|step| matches!(step, Step::Commit { .. }))
        .context("a commit")?;
    for end in 0..=made.steps.len() {
        go(&mut kernel, &second, Some(end))?;
        kernel.tables.resync()?;
        let installed = kernel.tables.installed();
        let policy_set = |tables: &Tables| tables.endpoints.get(&0).map(|entry| entry.ingress);
        let expected = if end <= commit { 103 } else { 250 };
        ensure!(
            policy_set(&installed.read_back()) == Some(expected),
            "after {end}"
        );
        let repair = recover(installed);
        kernel.tables.apply(&repair)?;
        kernel.tables.resync()?;
        ensure!(recover(kernel.tables.installed()).is_empty(), "after {end}");
        let reached = go(&mut kernel, &second, None)?;
        kernel.tables.resync()?;
        ensure!(
            kernel.tables.installed().read_back() == reached,
            "after {end}"
        );
        go(&mut kernel, &first, None)?;
    }
    ensure!(matches!(
        kernel.tables.check(&Demand {
            verdicts: 4097,
            ..Demand::default()
        }),
        Err(StepError::TableFull {
            map: "VERDICTS",
            limit: 4096
        })
    ));
    Ok(())
}

fn interfaces_that_share_a_slot(fixture: &KernelFixture) -> Result<()> {
    let mut kernel = fixture.open()?;
    let (first, second) = (40, 40 + INTERFACE_SLOTS);
    let put = |ifindex| Step::PutInterface {
        ifindex,
        value: interface(ifindex),
    };
    kernel.tables.apply(&[put(first), put(second)])?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().interfaces.len() == 2);
    kernel
        .tables
        .apply(&[Step::DeleteInterface { ifindex: first }, put(second)])?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().interfaces.keys().eq([&second]));
    kernel
        .tables
        .apply(&[Step::DeleteInterface { ifindex: second }])?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().interfaces.is_empty());
    Ok(())
}

fn another_layout_is_replaced_beside(fixture: &KernelFixture) -> Result<()> {
    let ifindex = fixture.veth(9)?;
    let mut kernel = fixture.open()?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    kernel.tables.apply(&steps())?;
    drop(kernel);
    let pin = fixture.pins.join("maps/CONTROL");
    let old = MapInfo::from_pin(&pin)?.id();
    let mut control: aya::maps::Array<_, Wire<Control>> =
        Map::from_map_data(MapData::from_pin(&pin)?)?.try_into()?;
    let mut value = control.get(&0, 0)?;
    value.0.layout = LAYOUT_VERSION + 1;
    control.set(0, &value, 0)?;

    let kernel = fixture.open()?;
    ensure!(kernel.origin == Origin::Replacing);
    ensure!(kernel.tables.installed().endpoints.is_empty());
    ensure!(programs("npd9")? == [["netpold_egress"], ["netpold_ingress"]]);
    // It dies before it is done: the next one goes on with the new set.
    drop(kernel);
    let mut kernel = fixture.open()?;
    ensure!(kernel.origin == Origin::Adopted);
    ensure!(kernel.settle()?.swapped.len() == 2);
    ensure!(!fixture.pins.join("maps-next").exists());
    ensure!(MapInfo::from_pin(&pin)?.id() != old);
    drop(kernel);
    ensure!(fixture.open()?.origin == Origin::Adopted);
    Ok(())
}

fn flows_are_swept_and_accounted(fixture: &KernelFixture) -> Result<()> {
    use netpol_abi::tables::{Flow, FlowKey4, account, stamp};
    let mut options = fixture.options();
    options.timeouts = [50; _];
    let mut kernel = Kernel::open(&options)?;
    kernel.tables.apply(&[Step::PutEndpoint {
        slot: 9,
        value: endpoint(77),
    }])?;
    let open = |name: &str| -> Result<Map> {
        Ok(Map::from_map_data(MapData::from_pin(
            fixture.pins.join("maps").join(name),
        )?)?)
    };
    let mut flows: aya::maps::HashMap<_, Wire<FlowKey4>, Wire<Flow>> =
        open("FLOWS4")?.try_into()?;
    let key = |endpoint: u32, port| {
        Wire(FlowKey4 {
            owner: endpoint << 8 | 6,
            local_port: port,
            ..FlowKey4::default()
        })
    };
    let seen = |seen| {
        Wire(Flow {
            seen,
            payer: stamp(9, &[0; 16]) as u16,
            ..Flow::default()
        })
    };
    flows.insert(&key(77, 1), &seen(1000), 0)?;
    flows.insert(&key(77, 2), &seen(1060), 0)?;
    flows.insert(&key(77, 3), &seen(1095), 0)?;
    flows.insert(&key(78, 1), &seen(1099), 0)?;
    let mut entered: aya::maps::Array<_, u64> = open("ENTERED")?.try_into()?;
    entered.set(account(9, 0), &5, 0)?;
    entered.set(account(9, 1), &7, 0)?;
    entered.set(account(0, 0), &6, 0)?;
    let sweep = kernel.flows.sweep(1100)?;
    ensure!(sweep.removed == 2, "{sweep:?}");
    ensure!(sweep.next == Some(10));
    ensure!(sweep.fill[0].entries == 2 && sweep.held[&9] == 2);
    let collected: aya::maps::Array<_, u32> = open("COLLECTED")?.try_into()?;
    ensure!(collected.get(&account(9, 0), 0)? == 3, "5 - 3 are 2");
    ensure!(
        collected.get(&account(9, 1), 0)? == 7,
        "it has none of IPv6"
    );
    ensure!(collected.get(&account(0, 0), 0)? == 4, "the table holds 2");
    let sweep = kernel.flows.sweep(2000)?;
    ensure!(sweep.removed == 2 && sweep.next.is_none(), "{sweep:?}");
    ensure!(collected.get(&account(9, 0), 0)? == 5);
    ensure!(
        kernel
            .counters
            .read()?
            .iter()
            .all(|count| count.packets == 0)
    );
    Ok(())
}

/// A map that the programs renamed would be made again at every start, and lose its content.
fn every_contract_map_is_in_the_programs(fixture: &KernelFixture) -> Result<()> {
    let kernel = fixture.open()?;
    let mut pinned: Vec<String> = fs::read_dir(fixture.pins.join("maps"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    pinned.sort();
    let mut expected: Vec<_> = netpold::datapath::maps::MAPS
        .iter()
        .map(|spec| spec.name)
        .collect();
    expected.sort_unstable();
    ensure!(pinned == expected, "{pinned:?}");
    for spec in &netpold::datapath::maps::MAPS {
        let info = MapInfo::from_pin(fixture.pins.join("maps").join(spec.name))?;
        ensure!(
            (info.key_size(), info.value_size()) == (spec.key, spec.value),
            "{}",
            spec.name
        );
    }
    drop(kernel);
    Ok(())
}
