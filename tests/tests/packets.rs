//! The packet corpus (`tests/packets`): every file through the model in user space and through
//! the loaded programs under BPF_PROG_TEST_RUN. Both must do the same, and what the file says.
//! Then the files' frames with random bends: whatever they are, both have one answer.
//!
//! `BLESS=1` writes what happens into the files, but for what becomes of a packet.
//!
//! Needs root, and fails without it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use netpol_abi::Reason;
use netpold_tests::packets::frame::Bytes;
use netpold_tests::packets::loaded::Loaded;
use netpold_tests::packets::run::{Run, Shown, bless, compare, run};
use netpold_tests::packets::scene::directory;
use netpold_tests::packets::script::{Action, Script, files};
use netpold_tests::time_scale::tries;

fn main() -> Result<()> {
    let arguments = Arguments::from_args();
    let kernels = Arc::new(Kernels::default());
    let mut trials = Vec::new();
    for path in files()? {
        let name = path.strip_prefix(directory())?.with_extension("");
        let kernels = Arc::clone(&kernels);
        trials.push(Trial::test(name.to_string_lossy(), move || {
            file(&path, &kernels).map_err(|error| format!("{error:#}").into())
        }));
    }
    let bending = Arc::clone(&kernels);
    trials.push(Trial::test("random-bends", move || {
        bent(&bending).map_err(|error| format!("{error:#}").into())
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        kernels.tell();
    }
    // What is pinned goes with its owner, which an exit does not drop.
    drop(kernels);
    conclusion.exit();
}

/// Loaded programs that are free, by the share and the room of their tables: to load them takes
/// longer than a file does.
#[derive(Default)]
struct Kernels {
    free: Mutex<BTreeMap<(u32, u32), Vec<Loaded>>>,
    shown: Mutex<Frames>,
}

/// How many frames were shown, to both and, by the reason, to the model alone.
#[derive(Default)]
struct Frames {
    both: usize,
    alone: BTreeMap<&'static str, usize>,
}

impl Kernels {
    fn count(&self, shown: &Shown) {
        let mut frames = lock(&self.shown);
        let [both, alone] = shown.frames;
        frames.both += both;
        if let Some(why) = shown.unseen() {
            *frames.alone.entry(why).or_default() += alone;
        }
    }

    fn tell(&self) {
        let frames = lock(&self.shown);
        println!("{} frames through the model and the kernel", frames.both);
        for (why, count) in &frames.alone {
            println!("{count} through the model alone: {why}");
        }
    }

    /// Lends one of them for a file. One that failed is not used again.
    fn lend<T>(&self, script: &Script, act: impl FnOnce(&mut Loaded) -> Result<T>) -> Result<T> {
        let key = (script.share, script.room);
        let free = lock(&self.free).get_mut(&key).and_then(Vec::pop);
        let mut kernel = match free {
            Some(mut kernel) => {
                kernel.reset()?;
                kernel
            }
            None => Loaded::new(&name(&script.path), script.share, script.room)?,
        };
        let given = act(&mut kernel)?;
        lock(&self.free).entry(key).or_default().push(kernel);
        Ok(given)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name for pins.
fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn file(path: &Path, kernels: &Kernels) -> Result<()> {
    let script = Script::read(path)?;
    let shown = kernels.lend(&script, |kernel| run(&script, Some(kernel)))?;
    kernels.count(&shown);
    if std::env::var_os("BLESS").is_some() {
        bless(&script, &shown)?;
        return Ok(());
    }
    compare(&script, &shown)
}

/// Bends of each frame.
const BENDS: usize = 8;

/// Every file's frames with bytes changed, cut and repeated, by a fixed generator: the model
/// and the kernel do the same, in all that can be read of it.
fn bent(kernels: &Kernels) -> Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = BTreeSet::new();
    for path in files()? {
        let script = Script::read(&path)?;
        kernels.lend(&script, |kernel| {
            bend(&script, kernel, &mut random, &mut seen)
        })?;
    }
    ensure!(seen.len() > 14, "the bends reach many reasons: {seen:?}");
    Ok(())
}

fn bend(
    script: &Script,
    kernel: &mut Loaded,
    random: &mut Random,
    seen: &mut BTreeSet<Reason>,
) -> Result<()> {
    let mut run = Run::new(script, Some(kernel));
    for step in &script.steps {
        if let Action::Frames { direction, frames } = &step.action {
            let frame = &frames[random.below(frames.len())];
            for _ in 0..tries(BENDS) {
                let bent = random.bend(frame);
                if Loaded::refuses(&bent).is_some() {
                    continue;
                }
                let effect = run
                    .frames(std::slice::from_ref(&bent), *direction)
                    .with_context(|| {
                        let place = script.place(step.line);
                        format!("{place}: {direction:?} {}", hex(&bent.bytes))
                    })?;
                seen.extend(effect.fates.iter().map(|fate| fate.reason));
            }
        }
        run.step(step)?;
    }
    run.end()?;
    Ok(())
}

/// Marsaglia's xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn bend(&mut self, frame: &Bytes) -> Bytes {
        let mut bytes = frame.bytes.clone();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            bytes[at] = match self.below(3) {
                0 => self.below(256) as u8,
                1 => bytes[at] ^ (1 << self.below(8)),
                _ => 0,
            };
        }
        if self.below(4) == 0 {
            bytes.truncate(14 + self.below(bytes.len()));
        }
        Bytes {
            bytes,
            ..Bytes::default()
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
