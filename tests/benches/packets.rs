//! What a packet costs, as a multiple of the floor: a program that reads the five-tuple and
//! looks it up in one table. Both under BPF_PROG_TEST_RUN, in turn, in one run.
//!
//! Only the ratios mean something. Needs root. `cargo bench -p netpold-tests -- denied` times the
//! cases with that in their name.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use netpol_abi::packet::Direction;
use netpol_engine::plan::plan;
use netpol_engine::tables::Tables;
use netpold::datapath::{FLOOR, Hook};
use netpold_tests::kernel::InKernel;
use netpold_tests::packets::{frame, scene};

/// A frame, and where it passes.
type Passing<'a> = (Hook, &'a [u8]);
/// Name, world, the frames that come before, the one that is timed.
type Case<'a> = (&'a str, &'a str, &'a [Passing<'a>], Passing<'a>);

const ROUNDS: usize = 31;
const REPEAT: u32 = 20_000;

fn main() -> Result<()> {
    let mut floor = Ebpf::load(FLOOR).context("load the floor")?;
    let floor: &mut SchedClassifier = floor
        .program_mut("floor")
        .context("the floor's program")?
        .try_into()?;
    floor.load()?;
    let towards = |line| Ok::<_, anyhow::Error>(frame::build(line, Direction::Ingress, 0)?.bytes);
    let from = |line| Ok::<_, anyhow::Error>(frame::build(line, Direction::Egress, 0)?.bytes);
    let syn = towards("ip friend box / tcp 40000 8080 SYN")?;
    let syn_ack = from("ip box friend / tcp 8080 40000 SYN,ACK")?;
    let segment = towards("ip friend box / tcp 40000 8080 ACK")?;
    let reply = from("ip box friend / tcp 8080 40000 ACK")?;
    let syn6 = towards("ip6 friend6 box6 / tcp 40000 8080 SYN")?;
    let syn_ack6 = from("ip6 box6 friend6 / tcp 8080 40000 SYN,ACK")?;
    let segment6 = towards("ip6 friend6 box6 / tcp 40000 8080 ACK")?;
    let denied = towards("ip foe box / tcp 40000 8080 SYN")?;
    let handshake: [Passing<'_>; 3] = [
        (Hook::Ingress, &syn),
        (Hook::Egress, &syn_ack),
        (Hook::Ingress, &segment),
    ];
    let handshake6: [Passing<'_>; 3] = [
        (Hook::Ingress, &syn6),
        (Hook::Egress, &syn_ack6),
        (Hook::Ingress, &segment6),
    ];
    let (segment_in, segment6_in) = ((Hook::Ingress, &*segment), (Hook::Ingress, &*segment6));
    let cases: [Case<'_>; 5] = [
        ("established, IPv4", "guarded", &handshake, segment_in),
        ("reply, IPv4", "guarded", &handshake, (Hook::Egress, &reply)),
        ("established, IPv6", "guarded", &handshake6, segment6_in),
        ("denied", "guarded", &[], (Hook::Ingress, &denied)),
        ("nobody isolates", "open", &handshake, segment_in),
    ];
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    println!("{:<20} {:>8} {:>8} {:>8}", "", "ns", "floor", "ratio");
    for (name, world, before, (hook, frame)) in cases {
        if wanted
            .as_ref()
            .is_some_and(|part| !name.contains(part.as_str()))
        {
            continue;
        }
        let mut kernel = InKernel::new(&format!("bench-{}", name.len()), &|_| {})?;
        kernel.apply(&plan(&Tables::default(), &scene::tables(world)?, 0).steps)?;
        for (hook, frame) in before {
            time(kernel.kernel.attachments.program(*hook)?, frame, 1)?;
        }
        let (mut ours, mut least, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let one = time(kernel.kernel.attachments.program(hook)?, frame, REPEAT)?;
            let other = time(floor, &segment, REPEAT)?;
            ours.push(one);
            least.push(other);
            ratios.push(one / other);
        }
        println!(
            "{name:<20} {:>8.0} {:>8.0} {:>8.2}",
            median(&mut ours),
            median(&mut least),
            median(&mut ratios)
        );
    }
    Ok(())
}

/// Nanoseconds per run, the loop's own cost (some 16) included.
fn time(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<f64> {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat,
        ..TestRunOptions::new()
    };
    Ok(program.test_run(options)?.duration.as_nanos() as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
