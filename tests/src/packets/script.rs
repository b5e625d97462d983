//! A packet file's text: what it is about, what happens, and below each step its effect.
//!
//! ```text
//! # What it is about.
//! world guarded
//!
//! > ip friend box / tcp 40000 8080 SYN
//!   passes: rule-allowed
//!   …
//! ```
//!
//! Read strictly: whatever is not understood stops the file, at its line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use netpol_abi::connection::TICK_SHIFT;
use netpol_abi::packet::Direction;

use super::frame::{self, Bytes};
use super::names::number;
use super::scene::directory;

/// A file.
#[derive(Debug)]
pub struct Script {
    /// Where it is.
    pub path: PathBuf,
    /// Connections that one endpoint may hold.
    pub share: u32,
    /// Connections that the table has room for, each family.
    pub room: u32,
    /// What happens, in order.
    pub steps: Vec<Step>,
    text: Vec<String>,
}

/// One thing that happens.
#[derive(Debug)]
pub struct Step {
    /// Its line, from 0.
    pub line: usize,
    /// What the line has the test do.
    pub action: Action,
    /// The effect as it stands below.
    pub expected: Vec<String>,
}

/// What can happen.
#[derive(Debug)]
pub enum Action {
    /// The policies change, see [`super::scene::tables`].
    World(String),
    /// Time passes.
    Wait {
        /// Ticks.
        ticks: u32,
    },
    /// The daemon removes what timed out.
    Collect,
    /// Frames on the box's interface: one, or a repeated line.
    Frames {
        /// The endpoint's view.
        direction: Direction,
        /// Each of them.
        frames: Vec<Bytes>,
    },
}

/// Every packet file.
///
/// # Errors
/// A directory can't be read.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "pkt") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Repetitions that a line may ask for.
const MOST: u64 = 2000;

impl Script {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} can't be read", path.display()))?;
        Self::parse(path, &text)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut script = Self {
            path: path.to_owned(),
            share: 1 << 16,
            room: 512,
            steps: Vec::new(),
            text: text.lines().map(ToOwned::to_owned).collect(),
        };
        for line in 0..script.text.len() {
            let text = script.text[line].clone();
            script
                .take(line, &text)
                .with_context(|| script.place(line))?;
        }
        let about = script.text.first().is_some_and(|first| {
            let about = first.strip_prefix('#').map(str::trim);
            about.is_some_and(|about| !about.is_empty())
        });
        ensure!(
            about,
            "{}: a file begins with what it is about (`# …`)",
            script.place(0)
        );
        ensure!(
            matches!(
                script.steps.first(),
                Some(Step {
                    action: Action::World(_),
                    ..
                })
            ),
            "{}: the first step is a world",
            script.place(0)
        );
        Ok(script)
    }

    /// A line, for a message.
    #[must_use]
    pub fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }

    /// A step's own line.
    #[must_use]
    pub fn line(&self, step: &Step) -> &str {
        self.text.get(step.line).map_or("", String::as_str)
    }

    fn take(&mut self, line: usize, text: &str) -> Result<()> {
        ensure!(
            !text.contains('\t') && text.trim_end() == text,
            "a tab, or spaces at the end"
        );
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        if let Some(effect) = text.strip_prefix("  ") {
            let step = self.steps.last_mut().context("an effect of nothing")?;
            step.expected.push(effect.to_owned());
            return Ok(());
        }
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let action = match word {
            ">" => frames(Direction::Ingress, rest)?,
            "<" => frames(Direction::Egress, rest)?,
            "world" => Action::World(rest.to_owned()),
            "wait" => Action::Wait {
                ticks: ticks(rest)?,
            },
            "collect" => Action::Collect,
            "share" | "room" => {
                ensure!(
                    self.steps.is_empty(),
                    "`{word}` stands before the first step"
                );
                let value = number(rest, 0)?;
                if word == "share" {
                    self.share = value;
                } else {
                    self.room = value;
                }
                return Ok(());
            }
            _ => bail!(
                "`{word}` is nothing that can happen: `>` towards the box, `<` from it, world, \
                 wait, collect, share, room"
            ),
        };
        self.steps.push(Step {
            line,
            action,
            expected: Vec::new(),
        });
        Ok(())
    }

    /// The file's text with these effects in place of its own.
    #[must_use]
    pub fn with_effects(&self, effects: &[Vec<String>]) -> String {
        let mut text = String::new();
        for (number, line) in self.text.iter().enumerate() {
            if line.starts_with("  ") {
                continue;
            }
            let _ = writeln!(text, "{line}");
            let step = self.steps.iter().position(|step| step.line == number);
            for effect in step
                .and_then(|step| effects.get(step))
                .into_iter()
                .flatten()
            {
                let _ = writeln!(text, "  {effect}");
            }
        }
        text
    }
}

/// `repeat N / …` is the same line N times; else one.
fn frames(direction: Direction, line: &str) -> Result<Action> {
    let (times, line) = match line
        .strip_prefix("repeat ")
        .and_then(|rest| rest.split_once(" / "))
    {
        Some((times, line)) => (number::<u64>(times, 0)?, line),
        None => (1, line),
    };
    ensure!(
        (1..=MOST).contains(&times),
        "{times} repetitions: {MOST} are the most"
    );
    let frames: Result<Vec<Bytes>> = (0..times)
        .map(|repetition| frame::build(line, direction, repetition))
        .collect();
    Ok(Action::Frames {
        direction,
        frames: frames?,
    })
}

/// `130s`, `5d`, or `28 ticks`. A time that is no whole number of ticks is at least that long.
fn ticks(text: &str) -> Result<u32> {
    if let Some(count) = text
        .strip_suffix(" ticks")
        .or_else(|| text.strip_suffix(" tick"))
    {
        return number(count, 0);
    }
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (count, seconds) =
        found.with_context(|| format!("`{text}`: how long is that? `130s`, `28 ticks`"))?;
    let nanoseconds = number::<u64>(count, 0)? * seconds * 1_000_000_000;
    Ok(u32::try_from(nanoseconds.div_ceil(1 << TICK_SHIFT))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Script> {
        Script::parse(Path::new("a.pkt"), text)
    }

    #[test]
    fn a_file_is_steps_with_effects_below_them() {
        let text = "# About.\nshare 2\n\nworld open\n> ip friend box / udp 1 2\n  passes: x\n# Why.\nwait 130s\n< repeat 3 / ip box friend / udp 1+1 2\n";
        let script = parse(text).expect("a script");
        assert_eq!((script.share, script.steps.len()), (2, 4));
        assert_eq!(script.steps[1].expected, ["passes: x"]);
        assert!(matches!(
            script.steps[2].action,
            Action::Wait { ticks: 122 }
        ));
        let Action::Frames { direction, frames } = &script.steps[3].action else {
            panic!("frames");
        };
        assert_eq!((*direction, frames.len()), (Direction::Egress, 3));
        let effects = [vec![], vec!["passes: y".to_owned()], vec![], vec![]];
        let blessed = text.replace("passes: x", "passes: y");
        assert_eq!(script.with_effects(&effects), blessed);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            (
                "world open\n",
                "a.pkt:1: a file begins with what it is about",
            ),
            (
                "# A.\n> ip friend box / udp 1 2\n",
                "a.pkt:1: the first step is a world",
            ),
            ("# A.\n  passes: x\n", "a.pkt:2: an effect of nothing"),
            (
                "# A.\nworld open\nwurld\n",
                "a.pkt:3: `wurld` is nothing that can happen",
            ),
            (
                "# A.\nworld open\nshare 3\n",
                "a.pkt:3: `share` stands before the first step",
            ),
            (
                "# A.\nworld open\nwait long\n",
                "a.pkt:3: `long`: how long is that?",
            ),
            (
                "# A.\nworld open \n",
                "a.pkt:2: a tab, or spaces at the end",
            ),
            (
                "# A.\nworld open\n> repeat 0 / arp\n",
                "a.pkt:3: 0 repetitions",
            ),
            (
                "# A.\nworld open\n> ip a b\n",
                "a.pkt:3: `ip`: `a` is neither an address",
            ),
        ] {
            let error = parse(text).expect_err(text);
            let message = format!("{error:#}");
            assert!(message.starts_with(expected), "{text:?}: {message}");
        }
    }
}
