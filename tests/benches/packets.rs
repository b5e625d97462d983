//! What a packet costs, as a multiple of the floor: a program that reads the five-tuple and
//! looks it up in one table. Both under BPF_PROG_TEST_RUN, in turn, in one run.
//!
//! Only the ratios mean something. Needs root.

#[path = "../tests/corpus/scene.rs"]
#[allow(dead_code, reason = "the corpus uses the rest")]
mod scene;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use netpol_abi::packet::tcp::{ACK, SYN};
use netpol_engine::compile::compile;
use netpol_engine::plan::plan;
use netpol_engine::tables::Tables;
use netpol_engine::world::World;
use netpold::datapath::{FLOOR, Hook};
use netpold_tests::frames::{ethernet, ipv4, ipv6, tcp};
use netpold_tests::kernel::InKernel;
use scene::{BOX, BOX_MAC, BOX6, FOE, FRIEND, FRIEND6, OTHER_MAC, guarded, open};

/// A frame, and where it passes.
type Passing<'a> = (Hook, &'a [u8]);
/// Name, world, the frames that come before, the one that is timed.
type Case<'a> = (&'a str, fn() -> World, &'a [Passing<'a>], Passing<'a>);

const ROUNDS: usize = 31;
const REPEAT: u32 = 20_000;

fn main() -> Result<()> {
    let mut floor = Ebpf::load(FLOOR).context("load the floor")?;
    let floor: &mut SchedClassifier = floor
        .program_mut("floor")
        .context("the floor's program")?
        .try_into()?;
    floor.load()?;
    let syn = ethernet(
        OTHER_MAC,
        BOX_MAC,
        0x0800,
        &ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, SYN)),
    );
    let segment = ethernet(
        OTHER_MAC,
        BOX_MAC,
        0x0800,
        &ipv4(FRIEND, BOX, 6, &tcp(40000, 8080, ACK)),
    );
    let reply = ethernet(
        BOX_MAC,
        OTHER_MAC,
        0x0800,
        &ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, ACK)),
    );
    let syn_ack = ethernet(
        BOX_MAC,
        OTHER_MAC,
        0x0800,
        &ipv4(BOX, FRIEND, 6, &tcp(8080, 40000, SYN | ACK)),
    );
    let syn_ack6 = ethernet(
        BOX_MAC,
        OTHER_MAC,
        0x86dd,
        &ipv6(BOX6, FRIEND6, 6, 64, &tcp(8080, 40000, SYN | ACK)),
    );
    let syn6 = ethernet(
        OTHER_MAC,
        BOX_MAC,
        0x86dd,
        &ipv6(FRIEND6, BOX6, 6, 64, &tcp(40000, 8080, SYN)),
    );
    let segment6 = ethernet(
        OTHER_MAC,
        BOX_MAC,
        0x86dd,
        &ipv6(FRIEND6, BOX6, 6, 64, &tcp(40000, 8080, ACK)),
    );
    let denied = ethernet(
        OTHER_MAC,
        BOX_MAC,
        0x0800,
        &ipv4(FOE, BOX, 6, &tcp(40000, 8080, SYN)),
    );
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
        ("established, IPv4", guarded, &handshake, segment_in),
        ("reply, IPv4", guarded, &handshake, (Hook::Egress, &reply)),
        ("established, IPv6", guarded, &handshake6, segment6_in),
        ("denied", guarded, &[], (Hook::Ingress, &denied)),
        ("nobody isolates", open, &handshake, segment_in),
    ];
    println!("{:<20} {:>8} {:>8} {:>8}", "", "ns", "floor", "ratio");
    for (name, world, before, (hook, frame)) in cases {
        let mut kernel = InKernel::new(&format!("bench-{}", name.len()), &|_| {})?;
        kernel.apply(&plan(&Tables::default(), &compile(&world()).tables, 0).steps)?;
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
