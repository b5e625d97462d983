//! One corpus of packets, two executors: the model in user space and the loaded programs
//! under BPF_PROG_TEST_RUN. Each sequence names every verdict it expects, and both must
//! give it; then random and mutated frames must get the same answer from both.
//!
//! Needs root, and fails without it.

mod corpus;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use netpol_abi::Reason;
use netpol_abi::connection::default_timeouts;
use netpol_abi::judge::{Outcome, is_established};
use netpol_abi::tables::control_flags;
use netpol_engine::compile::compile;
use netpol_engine::model::Lanes;
use netpol_engine::model::packets::Datapath;
use netpol_engine::plan::plan;
use netpol_engine::tables::Tables;
use netpol_engine::world::World;
use netpold_tests::kernel::InKernel;
use netpold_tests::patience::tries;

use corpus::{Case, Step};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = corpus::cases()
        .into_iter()
        .map(|case| {
            Trial::test(case.name, move || {
                run(&case).map_err(|error| format!("{error:#}").into())
            })
        })
        .collect();
    trials.push(Trial::test("mutated_frames_agree", || {
        mutated().map_err(|error| format!("{error:#}").into())
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The tables of a world, as the daemon would make them.
fn tables(world: &World, flags: u32) -> Tables {
    let mut tables = compile(world).tables;
    tables.flags |= flags;
    tables
}

fn run(case: &Case) -> Result<()> {
    let mut kernel = InKernel::new(case.name, &|options| {
        if let Some(flows) = case.flow_share {
            options.flow_share = flows;
        }
    })?;
    let mut now = tables(&case.world, case.flags);
    let installing = plan(&Tables::default(), &now, 0);
    kernel
        .kernel
        .tables
        .apply(&installing.steps)
        .context("the first plan")?;
    let mut model = Datapath::new(Lanes::default());
    ready(&mut model, case.flow_share);
    for step in &installing.steps {
        model.lanes.apply(step);
    }
    let mut generation = installing.generation;
    now = installing.installed(now);
    for (index, step) in case.steps.iter().enumerate() {
        match step {
            Step::Change(world, flags) => {
                let next = tables(world, *flags);
                let change = plan(&now, &next, generation);
                kernel
                    .kernel
                    .tables
                    .apply(&change.steps)
                    .context("a change of the world")?;
                for step in &change.steps {
                    model.lanes.apply(step);
                }
                generation = change.generation;
                now = change.installed(next);
            }
            Step::Packet {
                direction,
                frame,
                expected,
            } => {
                let context = || format!("step {index}: {direction:?} {}", hex(frame));
                let short = is_established(&model, &frame.as_slice(), *direction, 1);
                let said = model.judge(&frame.as_slice(), *direction, 1);
                ensure!(
                    !short || is_plain_yes(&said),
                    "{}: passed the short way, though the model says {said:?}",
                    context()
                );
                ensure!(
                    said.reason == *expected,
                    "{}: the model says {:?}, not {expected:?}",
                    context(),
                    said.reason
                );
                let (reason, passes) = kernel.judge(frame, *direction).with_context(context)?;
                ensure!(
                    reason == *expected,
                    "{}: the kernel says {reason:?}, not {expected:?}",
                    context()
                );
                ensure!(
                    passes == said.passes,
                    "{}: the kernel lets it {}, the model does not agree",
                    context(),
                    if passes { "pass" } else { "not pass" }
                );
                let audits = now.flags & control_flags::AUDIT != 0;
                ensure!(
                    passes == (expected.allows() || audits),
                    "{}: passes: {passes}",
                    context()
                );
            }
        }
    }
    Ok(())
}

/// The whole verdict is all that the short way may say.
fn is_plain_yes(said: &Outcome) -> bool {
    said.reason == Reason::Established && said.passes && !said.opened
}

/// What the daemon, not policy, decides.
fn ready(model: &mut Datapath, flow_share: Option<u32>) {
    model.lanes.control.flow_share = flow_share.unwrap_or(1 << 16);
    model.lanes.control.flow_rooms = [1 << 18; 2];
    model.lanes.control.timeouts = default_timeouts();
    model.tick = 1000;
}

/// Every case's frames with bytes changed, cut and repeated, by a fixed generator.
fn mutated() -> Result<()> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    let mut seen = BTreeSet::new();
    for case in corpus::cases() {
        if case.flow_share.is_some() {
            continue;
        }
        let mut kernel = InKernel::new(&format!("m-{}", case.name), &|_| {})?;
        let wanted = tables(&case.world, case.flags);
        kernel.apply(&plan(&Tables::default(), &wanted, 0).steps)?;
        let mut model = Datapath::new(Lanes::default());
        ready(&mut model, None);
        for step in &plan(&Tables::default(), &wanted, 0).steps {
            model.lanes.apply(step);
        }
        for step in &case.steps {
            let Step::Packet {
                direction, frame, ..
            } = step
            else {
                continue;
            };
            for _ in 0..tries(24) {
                let mut bent = frame.clone();
                for _ in 0..=next(3) {
                    let at = next(bent.len());
                    bent[at] = match next(3) {
                        0 => next(256) as u8,
                        1 => bent[at] ^ (1 << next(8)),
                        _ => 0,
                    };
                }
                if next(4) == 0 {
                    bent.truncate(14 + next(bent.len()));
                }
                // A test run takes no frame that is shorter than the header its ethertype
                // promises (net/bpf/test_run.c, `bpf_prog_test_run_skb`).
                let least = match bent.get(12..14) {
                    Some([0x08, 0x00]) => 34,
                    Some([0x86, 0xdd]) => 54,
                    _ => 14,
                };
                bent.resize(bent.len().max(least), 0);
                let short = is_established(&model, &bent.as_slice(), *direction, 1);
                let said = model.judge(&bent.as_slice(), *direction, 1);
                ensure!(
                    !short || is_plain_yes(&said),
                    "{}: {}: passed the short way, though the model says {said:?}",
                    case.name,
                    hex(&bent)
                );
                let (reason, passes) = kernel
                    .judge(&bent, *direction)
                    .with_context(|| hex(&bent))?;
                ensure!(
                    (reason, passes) == (said.reason, said.passes),
                    "{}: {direction:?} {}: the kernel says {reason:?}, the model {:?}",
                    case.name,
                    hex(&bent),
                    said.reason
                );
                seen.insert(reason);
            }
        }
    }
    ensure!(
        seen.len() > 12,
        "the mutations reach many reasons: {seen:?}"
    );
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
