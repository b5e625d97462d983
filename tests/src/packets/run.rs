//! Runs a file through the executors, holds what both did against each other and against the
//! file, or writes the file's effects (`BLESS=1`).

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use netpol_abi::packet::Direction;
use netpol_engine::plan::plan;
use netpol_engine::tables::Tables;

use super::effect::{self, Meanings};
use super::executor::{Executor, Modelled, show};
use super::frame::Bytes;
use super::loaded::Loaded;
use super::scene::{self, SLOT};
use super::script::{Action, Script, Step};
use super::state::Effect;

/// What a run showed.
pub struct Shown {
    /// The lines below each step.
    pub effects: Vec<Vec<String>>,
    /// Frames that both saw, and those that the model alone did.
    pub frames: [usize; 2],
    /// Why no kernel can see the others: the file says so, too.
    pub alone: Option<&'static str>,
    /// Why this kernel did not see the others, which those of other versions do.
    pub lacking: Option<&'static str>,
}

impl Shown {
    /// Why the kernel did not see all.
    #[must_use]
    pub fn unseen(&self) -> Option<&'static str> {
        self.alone.or(self.lacking)
    }
}

/// Both executors, the tables that are installed in them, and which of them still takes part.
pub struct Run<'a> {
    model: Modelled,
    kernel: Option<&'a mut Loaded>,
    installed: Tables,
    generation: u64,
    /// So far.
    pub shown: Shown,
}

/// Runs a file through the model, and through the kernel where one is given.
///
/// # Errors
/// The executors do not agree, or one fails.
pub fn run(script: &Script, kernel: Option<&mut Loaded>) -> Result<Shown> {
    let mut run = Run::new(script, kernel);
    for step in &script.steps {
        let lines = run
            .step(step)
            .with_context(|| format!("{}: `{}`", script.place(step.line), script.line(step)))?;
        run.shown.effects.push(lines);
    }
    run.end()
}

impl<'a> Run<'a> {
    /// Before the first step.
    #[must_use]
    pub fn new(script: &Script, kernel: Option<&'a mut Loaded>) -> Self {
        Self {
            model: Modelled::new(script.share, script.room),
            kernel,
            installed: Tables::default(),
            generation: 0,
            shown: Shown {
                effects: Vec::new(),
                frames: [0; 2],
                alone: None,
                lacking: None,
            },
        }
    }

    /// Takes the tables out again, so that the kernel's side can be used for another file.
    ///
    /// # Errors
    /// One of them refuses.
    pub fn end(mut self) -> Result<Shown> {
        self.install(Tables::default())?;
        Ok(self.shown)
    }

    /// Does a step, and gives the lines of its effect.
    ///
    /// # Errors
    /// The executors do not agree, or one fails.
    pub fn step(&mut self, step: &Step) -> Result<Vec<String>> {
        match &step.action {
            Action::World(text) => {
                let tables = scene::tables(text)?;
                self.quiet(|run| run.install(tables))
            }
            Action::Wait { ticks } => self.quiet(|run| {
                run.each(|executor| {
                    executor.wait(*ticks);
                    Ok(())
                })
            }),
            Action::Collect => self.quiet(|run| run.each(|executor| executor.collect())),
            Action::Frames { direction, frames } => {
                if let Some(why) = frames.iter().find_map(Loaded::refuses)
                    && self.shown.alone.is_none()
                {
                    self.shown.alone = Some(why);
                }
                let effect = self.frames(frames, *direction)?;
                let mut lines = effect::lines(&effect, &self.meanings(), Some(*direction));
                if let Some(why) = &self.shown.alone {
                    lines.insert(0, format!("the model alone: {why}"));
                }
                Ok(lines)
            }
        }
    }

    /// Shows frames to both.
    ///
    /// # Errors
    /// They do not agree, or one fails.
    pub fn frames(&mut self, frames: &[Bytes], direction: Direction) -> Result<Effect> {
        let said = show(&mut self.model, frames, direction)?;
        let meanings = self.meanings();
        let lacking = self.kernel().and_then(|kernel| kernel.lacks(frames));
        self.shown.lacking = self.shown.lacking.or(lacking);
        if let Some(kernel) = self.kernel() {
            agree(&said, &show(kernel, frames, direction)?, &meanings)?;
        }
        self.shown.frames[usize::from(self.shown.unseen().is_some())] += frames.len();
        Ok(said)
    }

    /// A step without frames: what it changes of what packets left behind.
    fn quiet(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<String>> {
        let before = self.model.state()?;
        act(self)?;
        let said = Effect {
            before,
            after: self.model.state()?,
            ..Effect::default()
        };
        let meanings = self.meanings();
        if let Some(kernel) = self.kernel() {
            let after = kernel.state()?;
            let seen = Effect {
                after,
                ..said.clone()
            };
            agree(&said, &seen, &meanings)?;
        }
        Ok(effect::lines(&said, &meanings, None))
    }

    fn kernel(&mut self) -> Option<&mut Loaded> {
        self.kernel
            .as_deref_mut()
            .filter(|_| self.shown.unseen().is_none())
    }

    fn each(&mut self, act: impl Fn(&mut dyn Executor) -> Result<()>) -> Result<()> {
        act(&mut self.model)?;
        match self.kernel.as_deref_mut() {
            Some(kernel) => act(kernel),
            None => Ok(()),
        }
    }

    fn install(&mut self, wanted: Tables) -> Result<()> {
        let change = plan(&self.installed, &wanted, self.generation);
        self.each(|executor| executor.apply(&change.steps))?;
        self.generation = change.generation;
        self.installed = change.installed(wanted);
        Ok(())
    }

    fn meanings(&self) -> Meanings {
        let own = self.installed.endpoints.get(&SLOT);
        let friend = self.installed.endpoints.get(&(SLOT + 1));
        Meanings {
            ingress: own.map_or(0, |own| own.ingress),
            egress: own.map_or(0, |own| own.egress),
            friend: friend.map_or(0, |friend| friend.audited_ingress),
            generation: self.generation,
            revision: own.map_or(0, |own| own.revision),
        }
    }
}

/// Both did the same, in all that is known of it.
fn agree(model: &Effect, kernel: &Effect, meanings: &Meanings) -> Result<()> {
    if model == kernel {
        return Ok(());
    }
    let lines = |effect| effect::lines(effect, meanings, None);
    let (said, seen) = (lines(model), lines(kernel));
    if said == seen {
        bail!("the model and the kernel differ:\n{model:#?}\n{kernel:#?}");
    }
    bail!(
        "the model (-) and the kernel (+) differ:\n{}",
        difference(&said, &seen)
    );
}

/// Holds a run against its file.
///
/// # Errors
/// Where they differ, with both.
pub fn compare(script: &Script, shown: &Shown) -> Result<()> {
    let mut message = String::new();
    for (step, effects) in script.steps.iter().zip(&shown.effects) {
        if step.expected != *effects {
            let place = script.place(step.line);
            let _ = writeln!(
                message,
                "{place}: `{}`: the file (-) and what happens (+) differ:\n{}",
                script.line(step),
                difference(&step.expected, effects)
            );
        }
    }
    ensure!(
        message.is_empty(),
        "{message}`BLESS=1` fills in what stands below a step"
    );
    Ok(())
}

/// Writes the effects into the file. What becomes of a packet is a person's to say: where a file
/// says it already, and otherwise, nothing is written.
///
/// # Errors
/// A fate that differs, or the file can't be written.
pub fn bless(script: &Script, shown: &Shown) -> Result<()> {
    for (step, effects) in script.steps.iter().zip(&shown.effects) {
        let fate = |lines: &[String]| -> Vec<String> {
            let fates = lines.iter();
            let fates =
                fates.filter(|line| line.starts_with("passes: ") || line.starts_with("dropped: "));
            fates.cloned().collect()
        };
        let (expected, happens) = (fate(&step.expected), fate(effects));
        ensure!(
            expected.is_empty() || expected == happens,
            "{}: `{}`: the file says\n{}\nand what happens is\n{}\nWhat becomes of a packet is not \
             written over: mend one of them",
            script.place(step.line),
            script.line(step),
            expected.join("\n"),
            happens.join("\n")
        );
    }
    std::fs::write(&script.path, script.with_effects(&shown.effects))?;
    Ok(())
}

fn difference(before: &[String], after: &[String]) -> String {
    let mut lines = String::new();
    for line in before.iter().filter(|line| !after.contains(line)) {
        let _ = writeln!(lines, "    - {line}");
    }
    for line in after.iter().filter(|line| !before.contains(line)) {
        let _ = writeln!(lines, "    + {line}");
    }
    if lines.is_empty() {
        lines.push_str("    (the same lines, in another order or number)\n");
    }
    lines
}
