//! Everything that the loop hears: one event at a time, from whatever speaks first. Decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, interval, sleep_until, timeout};

use super::gate::GateController;
use super::lints::{self, Lints};
use super::outcome::StartError;
use super::pins::Pins;
use super::sources::Sources;
use super::traffic::Claim;
use super::worker::Worker;
use super::{attacher, installer};
use crate::api::{ReadyRequest, SyncRequest};
use crate::datapath::tables::Fill;
use crate::runtime::follow::Follower;
use crate::telemetry::systemd;

/// How often the loop looks whether programs are where they were put. Interfaces and pins tell when they change; a
/// link that is detached by force, and a file system that is unmounted, don't.
const ROUND: Duration = Duration::from_secs(10);
/// How long an engine may take to list its containers once more, before the status says that no engine has claimed an
/// interface.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// What the loop has heard.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// Files, engines, interfaces, resolvers or NAT rules may have changed.
    Changed {
        /// Interfaces may have changed.
        links: bool,
    },
    /// The writer of the kernel's tables has answered.
    Installed(installer::Answer),
    /// The attacher of programs has answered.
    Attached(attacher::Answer),
    /// The lints have answered.
    Linted(lints::Answer),
    /// The connections were swept, and counted.
    ConnectionsCounted,
    /// A packet claimed an address that is not known to be its endpoint's.
    Claimed(Claim),
    /// nftables may have changed.
    GateChanged,
    /// A client asks whether a network namespace is in force.
    ReadyRequested(ReadyRequest),
    /// A client asked for a full sync, and engines and manifests have been read since.
    SyncRequested(SyncRequest),
    /// Interfaces have been without an owner for so long that the engines are to be asked once more.
    UnclaimedOverdue,
    /// The engines have been asked about the interfaces that lead to these network namespaces.
    EnginesAsked(BTreeSet<i32>),
    /// Pins may have been removed.
    PinsChanged,
    /// It is time to look whether all is as it was left.
    Round,
    /// It is time to tell systemd that the daemon works.
    Beat(Instant),
}

/// Requests of clients of the API.
pub struct Requests {
    /// Full syncs.
    pub sync: mpsc::Receiver<SyncRequest>,
    /// Whether a network namespace is in force.
    pub ready: mpsc::Receiver<ReadyRequest>,
}

/// The signals that the daemon takes.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> std::io::Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // Blocked while the process started once more.
        SigSet::from(nix::sys::signal::Signal::SIGHUP).thread_unblock()?;
        Ok(signals)
    }
}

/// Everything that the loop listens to, and gives work.
pub struct Inputs {
    pub sources: Sources,
    pub installer: Worker<installer::Order, installer::Answer>,
    pub attacher: Worker<attacher::Order, attacher::Answer>,
    pub lints: Lints,
    pub gate: GateController,
    pub pins: Pins,
    /// How full the tables of connections are.
    pub connections: watch::Receiver<Vec<Fill>>,
    /// Addresses that packets claimed and that are not known to be their endpoints'.
    pub claims: mpsc::Receiver<Claim>,
}

/// The inputs, the requests, and the clocks.
pub struct Events {
    pub inputs: Inputs,
    requests: Requests,
    signals: Signals,
    /// Syncs that wait for the engines and the manifests.
    syncing: FuturesUnordered<LocalBoxFuture<'static, SyncRequest>>,
    /// Questions about interfaces that no engine has claimed.
    asking: FuturesUnordered<LocalBoxFuture<'static, BTreeSet<i32>>>,
    rounds: Interval,
    watchdog: Option<Interval>,
}

impl Events {
    /// Begins to listen. To be called inside a tokio runtime.
    pub fn new(inputs: Inputs, requests: Requests, signals: Signals) -> Self {
        Self {
            inputs,
            requests,
            signals,
            syncing: FuturesUnordered::new(),
            asking: FuturesUnordered::new(),
            rounds: interval(ROUND),
            watchdog: systemd::watchdog().map(interval),
        }
    }

    /// The next event. `overdue`: when to give [`Event::UnclaimedOverdue`].
    ///
    /// # Errors
    /// A thread has ended, without which nothing goes on.
    pub async fn next(&mut self, overdue: Option<std::time::Instant>) -> Result<Event, StartError> {
        loop {
            if let Some(event) = self.hear(overdue).await? {
                return Ok(event);
            }
        }
    }

    /// What speaks first; `None`: work for this room alone.
    async fn hear(
        &mut self,
        overdue: Option<std::time::Instant>,
    ) -> Result<Option<Event>, StartError> {
        let Inputs {
            sources,
            installer,
            attacher,
            lints,
            gate,
            pins,
            connections,
            claims,
        } = &mut self.inputs;
        let Signals {
            terminate,
            interrupt,
            hangup,
        } = &mut self.signals;
        let overdue = async {
            match overdue {
                Some(time) => sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        let beat = async {
            match &mut self.watchdog {
                Some(interval) => interval.tick().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            _ = terminate.recv() => Event::Stop,
            _ = interrupt.recv() => Event::Stop,
            _ = hangup.recv() => Event::Reload,
            links = sources.changed() => {
                if sources.ended().is_some() {
                    return Err(StartError::Ended("reader of the manifests"));
                }
                Event::Changed { links }
            }
            answer = installer.answer() => {
                Event::Installed(answer.ok_or(StartError::Ended("writer of the kernel's tables"))?)
            }
            answer = attacher.answer() => {
                Event::Attached(answer.ok_or(StartError::Ended("attacher of programs"))?)
            }
            answer = lints.answer() => Event::Linted(answer),
            // The sweeper's thread ends with the daemon alone.
            Ok(()) = connections.changed() => Event::ConnectionsCounted,
            Some(claim) = claims.recv() => Event::Claimed(claim),
            () = gate.turned() => Event::GateChanged,
            Some(request) = self.requests.ready.recv() => Event::ReadyRequested(request),
            Some(request) = self.requests.sync.recv() => {
                self.syncing.push(read_everything(sources, request));
                return Ok(None);
            }
            Some(request) = self.syncing.next(), if !self.syncing.is_empty() => {
                Event::SyncRequested(request)
            }
            () = overdue => Event::UnclaimedOverdue,
            Some(namespaces) = self.asking.next(), if !self.asking.is_empty() => {
                Event::EnginesAsked(namespaces)
            }
            () = pins.changed() => Event::PinsChanged,
            _ = self.rounds.tick() => Event::Round,
            now = beat => Event::Beat(now),
        };
        Ok(Some(event))
    }

    /// Asks the engines for all their containers, and then gives [`Event::EnginesAsked`].
    pub fn ask_engines(&self, namespaces: BTreeSet<i32>) {
        let engines = self.inputs.sources.engines();
        self.asking.push(Box::pin(async move {
            let answers = join_all(engines.iter().map(Follower::sync));
            // An engine that takes longer does not answer: the status says what is known.
            let _ = timeout(LAST_ANSWER, answers).await;
            namespaces
        }));
    }
}

/// Ends when the engines and the manifests have been read.
fn read_everything(
    sources: &Sources,
    request: SyncRequest,
) -> LocalBoxFuture<'static, SyncRequest> {
    let engines = sources.engines();
    let manifests = sources.look_at_manifests();
    Box::pin(async move {
        let engines = engines.iter().map(Follower::sync);
        // The manifests' thread may have ended: the loop ends then, too.
        let _ = tokio::join!(join_all(engines), manifests);
        request
    })
}
