//! The loaded programs under BPF_PROG_TEST_RUN: judged, but not attached anywhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use netpol_abi::Reason;
use netpol_abi::packet::{Arrival, Direction};
use netpol_engine::plan::Step;
use netpold::datapath::{ARRIVED, Hook, Kernel, Options};
use nix::errno::Errno;

/// `TC_ACT_SHOT`.
const SHOT: u32 = 2;

/// The programs with tables of their own; what was pinned is gone on drop.
pub struct InKernel {
    /// Its parts.
    pub kernel: Kernel,
    pins: PathBuf,
    counted: BTreeMap<(Reason, Hook), u64>,
    /// The program that says how a frame came, once one was asked for.
    arrived: Option<Ebpf>,
}

impl InKernel {
    /// Tables and programs of their own, under a name that no other has.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses.
    pub fn new(name: &str, options: &dyn Fn(&mut Options)) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "this suite needs root");
        let pins = PathBuf::from(format!("/sys/fs/bpf/npd-pkt-{}-{name}", std::process::id()));
        let mut wanted = Options::new(&pins);
        options(&mut wanted);
        let kernel = Kernel::open(&wanted)
            .inspect_err(|_| drop(std::fs::remove_dir_all(&pins)))
            .context("open the kernel's side")?;
        Ok(Self {
            kernel,
            pins,
            counted: BTreeMap::new(),
            arrived: None,
        })
    }

    /// Takes the steps of a plan.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn apply(&mut self, steps: &[Step]) -> Result<()> {
        self.kernel.tables.apply(steps).context("apply a plan")
    }

    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &'static str) -> PathBuf {
        self.pins.join("maps").join(name)
    }

    /// Runs a frame on interface 1 (a test run's): does the program let it pass?
    ///
    /// # Errors
    /// When the run fails.
    pub fn passes(&mut self, frame: &[u8], direction: Direction) -> Result<bool> {
        let program = self.kernel.attachments.program(hook(direction))?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        })?;
        Ok(result.return_value != SHOT)
    }

    /// Runs a frame on a loopback interface inside a namespace, by its number.
    ///
    /// # Errors
    /// When the run fails.
    pub fn passes_loopback(&mut self, frame: &[u8], number: u32) -> Result<bool> {
        let program = self.kernel.attachments.program_of(number, Hook::Egress)?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        })?;
        Ok(result.return_value != SHOT)
    }

    /// The same for a frame that came to the interface in some way, which a test run can't be given whole: the stamp
    /// is set by a program that stands before it.
    ///
    /// # Errors
    /// When the run fails.
    pub fn passes_arrived(&mut self, frame: &[u8], arrival: Arrival) -> Result<bool> {
        // `struct __sk_buff` (include/uapi/linux/bpf.h): where a test run is told these.
        const LENGTH: usize = 192;
        const INGRESS_IFINDEX: usize = 36;
        const CONTROL_BLOCK_1: usize = 52;
        let mut context = [0; LENGTH];
        let mut set = |at: usize, value: u32| {
            context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        set(INGRESS_IFINDEX, arrival.ifindex);
        set(CONTROL_BLOCK_1, arrival.tc_index.into());
        let result = before(self.arrived()?)?.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })?;
        Ok(result.return_value != SHOT)
    }

    /// Do test runs of this kernel take the interface by which a frame came (net/bpf/test_run.c,
    /// `convert___skb_to_skb`: `ingress_ifindex`)? Those of Linux 5.10 do not, those of 6.1 do.
    ///
    /// # Errors
    /// The run fails in another way.
    pub fn takes_arrivals(&mut self) -> Result<bool> {
        let arrival = Arrival {
            ifindex: 1,
            ..Arrival::default()
        };
        match self.passes_arrived(&[0; 64], arrival) {
            Ok(_) => Ok(true),
            Err(error) if is_invalid(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The program that says how a frame came, loaded with the first call.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn arrived(&mut self) -> Result<&mut Ebpf> {
        if self.arrived.is_none() {
            let program = self.kernel.attachments.program(Hook::Ingress)?;
            let mut loaded = Ebpf::load(ARRIVED).context("load the program before it")?;
            let table = loaded.map_mut("JUDGES").context("its table")?;
            ProgramArray::try_from(table)?.set(0, program.fd()?, 0)?;
            before(&mut loaded)?.load()?;
            self.arrived = Some(loaded);
        }
        self.arrived.as_mut().context("the program before it")
    }

    /// Runs a frame on interface 1, and reads from the counters which reason it
    /// got, and from the program's answer whether it passes.
    ///
    /// # Errors
    /// When the run fails, or not exactly one counter of the direction moves by one.
    pub fn judge(&mut self, frame: &[u8], direction: Direction) -> Result<(Reason, bool)> {
        let passes = self.passes(frame, direction)?;
        let hook = hook(direction);
        let mut changed = Vec::new();
        for count in self.kernel.counters.read()? {
            let before = self
                .counted
                .insert((count.reason, count.direction), count.packets)
                .unwrap_or(0);
            if count.packets != before {
                ensure!(
                    count.packets == before + 1,
                    "one packet counted {} times",
                    count.packets - before
                );
                ensure!(count.direction == hook, "counted in the other direction");
                changed.push(count.reason);
            }
        }
        ensure!(
            changed.len() == 1,
            "exactly one counter moves, not {changed:?}"
        );
        Ok((changed[0], passes))
    }
}

fn before(loaded: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = loaded
        .program_mut("arrived")
        .context("the program before it")?;
    Ok(program.try_into()?)
}

const fn hook(direction: Direction) -> Hook {
    match direction {
        Direction::Ingress => Hook::Ingress,
        Direction::Egress => Hook::Egress,
    }
}

impl Drop for InKernel {
    fn drop(&mut self) {
        // The lock goes with the kernel's parts, which are still here: the maps' pins are
        // removed by hand.
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

fn is_invalid(error: &anyhow::Error) -> bool {
    let invalid = Some(Errno::EINVAL as i32);
    let mut causes = error.chain();
    causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.raw_os_error() == invalid)
    })
}
