//! A server of a lab's own (an engine, a runtime, netpold): started in the lab's host namespace, waited for until it
//! answers, and ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::time_scale::within_time;

/// How long it may take to start or to end.
const TIME: Duration = Duration::from_secs(60);

/// Its process, while it runs. Its owner ends it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Option<Child>,
    host: PathBuf,
    log: PathBuf,
}

impl Server {
    /// One that logs into this file.
    pub(crate) fn new(lab: &Lab, log: PathBuf) -> Self {
        Self {
            child: None,
            host: lab.host().path(),
            log,
        }
    }

    /// Starts the process, also after its end.
    pub(crate) fn start(&mut self, mut command: Command) -> Result<()> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let program = command.get_program().display().to_string();
        let child = netns::inside(&self.host, move || command.spawn())?
            .with_context(|| format!("can't run {program}: is it installed?"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers.
    pub(crate) fn until(&self, answers: impl Fn() -> bool) -> Result<()> {
        within_time(TIME, "an answer", || Ok(answers())).with_context(|| self.log())
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Does it run?
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Ends it, where it runs.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<()> {
        self.end_within(TIME, signal)
    }

    /// The same, where it matters how long it takes at most.
    pub(crate) fn end_within(&mut self, time: Duration, signal: Signal) -> Result<()> {
        let Some(child) = self.child.take() else {
            return Ok(());
        };
        let ended = end(child, signal, time)?;
        ensure!(ended, "it did not end on {signal}:\n{}", self.log());
        Ok(())
    }

    /// The lab's host namespace.
    pub(crate) fn host(&self) -> &Path {
        &self.host
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Ends it by this signal. False: not within that time, and it was killed.
fn end(mut child: Child, signal: Signal, time: Duration) -> Result<bool> {
    kill(Pid::from_raw(child.id().try_into()?), signal)?;
    let deadline = Instant::now() + time;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        sleep(Duration::from_millis(10));
    }
    Ok(true)
}
