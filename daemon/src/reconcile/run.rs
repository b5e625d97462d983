//! The loop itself, from the start to SIGTERM.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use netpol_abi::tables::control_flags;
use netpol_engine::world;
use nix::sys::signal::SigSet;
use nix::unistd::AccessFlags;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::announcer::Announcer;
use super::assemble::{self, Desired, Settings};
use super::attacher;
use super::gate::GateController;
use super::installer::{self, Installer};
use super::lints::Lints;
use super::metrics;
use super::number_key::KeyFile;
use super::observed::Engine;
use super::pins::Pins;
use super::program::Program;
use super::progress::Progress;
use super::readiness::{self, ReadinessInput};
use super::register::{self, EmptyTables, Register};
use super::report::{self, Applied, EnforcementInfo};
use super::sources::{self, Sources, SourcesError};
use super::traffic::{self, Claim, Naming, Waker};
use super::unreached;
use super::worker::Worker;
use crate::api::listener::ListenError;
use crate::api::wire::Synced;
use crate::api::{self, Published, ReadyRequest, SyncRequest};
use crate::config::{Config, ConfigError, Established, HostTraffic, Mode, Unidentified};
use crate::datapath::counters::CounterTable;
use crate::datapath::maps::MapsError;
use crate::datapath::pins::Layout;
use crate::datapath::requirements::Lack;
use crate::datapath::tables::{Fill, StepError};
use crate::datapath::{AttachError, Kernel, Mechanism, OpenError, Options, Origin, Within};
use crate::flows::{Namer, Recorder};
use crate::printable::printable;
use crate::runtime::container::Runtime;
use crate::runtime::follow::Follower;
use crate::telemetry::systemd;
use crate::watch::WatchError;

/// Why the daemon could not start, or go on. What was enforced before still is.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel's side.
    #[error("{0}")]
    Kernel(#[from] OpenError),
    /// The pins.
    #[error("{0}")]
    Watch(#[from] WatchError),
    /// Files, interfaces.
    #[error("{0}")]
    Sources(#[from] SourcesError),
    /// The API's socket.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The kernel's tables.
    #[error("the kernel's tables can't be written: {0}")]
    Tables(#[from] StepError),
    /// The connections.
    #[error("the kernel's connections can't be read: {0}")]
    Flows(#[from] MapsError),
    /// The programs of an earlier daemon.
    #[error("the programs of an earlier netpold can't be replaced: {0}")]
    Settle(#[from] AttachError),
    /// The metrics' address.
    #[error("metrics can't be served on {listen}: {source}\nhelp: set another `[metrics] listen`")]
    Metrics {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A thread has ended.
    #[error("the {0} has ended unexpectedly: enforcement stays as it is")]
    Ended(&'static str),
    /// What is in force is not pinned.
    #[error(
        "what is in force is not pinned, and ends with netpold ({why}): containers are {} until it is back\n\
         help: `mount -t bpf bpf /sys/fs/bpf && systemctl restart netpold`",
        if *shut { "shut by the gate" } else { "open" }
    )]
    Unpinned {
        /// Why not.
        why: String,
        /// The gate is shut instead.
        shut: bool,
    },
}

/// Why the daemon ended, while what is in force stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// Its configuration is another one now: it has to begin anew.
    Anew,
}

/// Runs until SIGTERM or SIGINT, or until `read` gives another configuration after SIGHUP. To be
/// called inside a tokio runtime of one thread, in the host's network namespace.
///
/// # Errors
/// The daemon can't start; afterwards, one of its threads has ended.
pub async fn run(
    config: Config,
    read: impl Fn() -> Result<Config, ConfigError>,
) -> Result<End, StartError> {
    let mut signals = Signals::new()?;
    // The socket first: a second daemon stops here, before it touches anything.
    let socket = api::listener::bind(&config.api.socket).await?;
    let state = &config.state.directory;
    if let Err(error) = writable(state) {
        let help = systemd::read_only_help("netpold", state, &error);
        tracing::error!(
            "what is accepted can't be kept for a restart: `{}`: {error}{}{}",
            state.display(),
            if help.is_some() { "\n" } else { "" },
            help.unwrap_or_default()
        );
    }
    let mut gate = GateController::open(&config);
    if Layout::new(&config.datapath.pin_directory).is_ok_and(|layout| layout.is_empty()) {
        gate.shut_all();
    }
    let kernel = Kernel::open(&Options {
        timeouts: config.timeouts.ticks(),
        ..Options::new(&config.datapath.pin_directory)
    })?;
    let origin = kernel.origin;
    tracing::info!(
        pins = %config.datapath.pin_directory.display(),
        "{}",
        match origin {
            Origin::Fresh => "nothing was enforced before",
            Origin::Adopted => "what an earlier netpold enforced is adopted",
            Origin::Replacing => "an earlier netpold's tables are of another layout, and replaced",
        }
    );
    for lack in &kernel.lacks {
        tracing::warn!("this kernel has {lack}");
    }
    let sources = Sources::open(&config)?;
    let (published, seen) = watch::channel(Arc::new(Published::default()));
    let (ask, asked) = mpsc::channel(64);
    let (ask_ready, asked_ready) = mpsc::channel(64);
    let recorder = Arc::new(Recorder::default());
    let state = api::State {
        published: seen,
        flows: Arc::clone(&recorder),
        sync: ask,
        ready: ask_ready,
        gate: gate.meter(),
    };
    let (mut daemon, counters) =
        Daemon::start(&config, kernel, sources, published, recorder, gate)?;
    if let Some(listen) = config.metrics.listen {
        metrics::serve(listen, counters, state.clone())
            .await
            .map_err(|source| StartError::Metrics { listen, source })?;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(api::server::serve(socket, state, async {
        // Dropped or sent: both end it.
        let _ = stopped.await;
    }));
    let ended = daemon
        .run_loop(asked, asked_ready, &mut signals, || changed(&config, &read))
        .await;
    let ended = match ended {
        Ok(end) => daemon.leave().await.map(|()| end),
        Err(error) => Err(error),
    };
    match ended {
        Ok(End::Anew) => {
            tracing::info!("beginning anew with another configuration");
            systemd::reloading();
        }
        Ok(End::Stopped) => {
            tracing::info!("stopping; what is in force stays in force");
            systemd::stopping();
        }
        Err(_) => systemd::stopping(),
    }
    drop(stop);
    // Removes the socket's name.
    let _ = server.await;
    ended
}

/// How often it is looked whether programs are where they were put. Interfaces and pins tell when
/// they change; a link that is detached by force, and a file system that is unmounted, don't.
const ROUND: Duration = Duration::from_secs(10);
/// How long an engine may take to list its containers once more, before it is said that no engine has claimed an interface.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// How long the last look may take, behind what else is being attached.
const LAST_LOOK: Duration = Duration::from_secs(10);

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // Blocked while the process began anew.
        SigSet::from(nix::sys::signal::Signal::SIGHUP).thread_unblock()?;
        Ok(signals)
    }
}

/// Somebody waits for a full sync.
struct Waiting {
    /// A round that began after this one has everything.
    since: u64,
    reply: oneshot::Sender<Synced>,
}

struct Daemon {
    settings: Settings,
    how: EnforcementInfo,
    state: PathBuf,
    boot: String,
    node: String,
    sources: Sources,
    register: Register,
    saved: Register,
    installer: Worker<installer::Order, installer::Answer>,
    attacher: Worker<attacher::Order, attacher::Answer>,
    lints: Lints,
    announcer: Announcer,
    gate: GateController,
    waker: Waker,
    flows: watch::Receiver<Vec<Fill>>,
    /// Addresses that packets claimed and that are not known to be their endpoints'.
    claims: mpsc::Receiver<Claim>,
    pins: Pins,
    naming: watch::Sender<Naming>,
    published: watch::Sender<Arc<Published>>,
    /// The newest state, and its number.
    desired: Arc<Desired>,
    round: u64,
    /// The round that is being installed.
    installing: Option<u64>,
    /// The round that was answered last.
    installed: u64,
    in_force: Applied,
    programs: BTreeMap<u32, Program>,
    /// Interfaces that were found without their programs. Those that are gone are among them: whether somebody took the
    /// programs off shows when they are put back.
    lost: BTreeSet<u32>,
    /// Where interfaces inside other namespaces are, as the attacher was told last.
    found: BTreeMap<u32, Within>,
    /// The kernel was asked where they are.
    looking: bool,
    /// Answers of the attacher so far.
    answers: u64,
    progress: Threads,
    waiting: Vec<Waiting>,
    /// Containers that wait to be in force.
    starting: Vec<ReadyRequest>,
    /// Interfaces that no engine has claimed.
    unreached: unreached::Watch,
    /// What is on hold passes.
    holds_pass: bool,
    ready: bool,
}

/// The threads that the loop gives work.
#[derive(Debug, Default)]
struct Threads {
    installer: Progress,
    attacher: Progress,
}

impl Daemon {
    fn start(
        config: &Config,
        mut kernel: Kernel,
        mut sources: Sources,
        published: watch::Sender<Arc<Published>>,
        recorder: Arc<Recorder>,
        gate: GateController,
    ) -> Result<(Self, CounterTable), StartError> {
        let settings = settings(config);
        let boot = register::boot();
        let key = KeyFile::open(&config.state.directory)?;
        let mut installer = Installer::new(&mut kernel.tables, flags(config), key)?;
        let saved = Register::read(&config.state.directory, &boot);
        let saved = match config.docker.sockets.first() {
            Some(first) => saved.of_engines(first),
            None => saved,
        };
        let mut register = saved.clone().adopt(
            installer.installed(),
            match kernel.origin {
                Origin::Fresh => EmptyTables::NobodyEnforced,
                Origin::Adopted => EmptyTables::No,
                Origin::Replacing => EmptyTables::OthersStillEnforce,
            },
        );
        // In force before, and so known to their neighbours.
        let before = register.records.values().flat_map(|record| {
            let interfaces = record.interfaces.keys();
            interfaces.map(|ifindex| (*ifindex, record.addresses.clone()))
        });
        let before = before.collect();
        // Connections of endpoints that went while nobody looked: their numbers may be given again
        // after sixteen million.
        traffic::sweep_once(&mut kernel.flows)?;
        let programmed: BTreeMap<u32, Program> = kernel
            .attachments
            .attached()?
            .into_keys()
            .map(|ifindex| (ifindex, Program::Pending))
            .collect();
        let desired = assemble::assemble(
            sources.gather(),
            &settings,
            &programmed.keys().copied().collect(),
            &mut register,
        );
        let order = installer::Order {
            round: 1,
            world: Arc::new(desired.world.clone()),
        };
        let answer = installer.install(&mut kernel.tables, order);
        if kernel.origin == Origin::Replacing
            && answer.installed.is_none()
            && let Some(error) = &answer.error
        {
            // What enforces now knows more than empty tables.
            return Err(StartError::System(std::io::Error::other(format!(
                "the policies can't be put in force: {error}"
            ))));
        }
        let adopted = kernel.settle()?;
        if !adopted.swapped.is_empty() {
            tracing::info!(
                hooks = adopted.swapped.len(),
                "the programs that an earlier netpold attached were replaced in place"
            );
        }
        let how = EnforcementInfo {
            attach: match kernel.attachments.mechanism() {
                Mechanism::Tcx => "tcx",
                Mechanism::Clsact => "clsact",
            },
            mode: match config.enforcement.mode {
                Mode::Enforce => "enforce",
                Mode::Audit => "audit",
            },
            lacks: kernel.lacks.iter().map(Lack::to_string).collect(),
        };
        let on = kernel.attachments.attached()?;
        let programs = programmed
            .into_keys()
            // An earlier netpold had them there: somebody unpinned them since.
            .chain(saved.interfaces())
            .map(|ifindex| {
                let complete = on.get(&ifindex).is_some_and(|hooks| hooks.complete());
                let program = if complete {
                    Program::On
                } else {
                    Program::Failed("it had not both programs at the start".to_owned())
                };
                (ifindex, program)
            })
            .collect();
        let Kernel {
            tables,
            attachments,
            events,
            flows,
            counters,
            ..
        } = kernel;
        let (waker, filled) = traffic::sweep(flows)?;
        let pins = Pins::watch(attachments.pinned())?;
        let node = node();
        let (naming, names) = watch::channel(Naming {
            generation: answer.generation,
            namer: Arc::new(Namer::new(node.clone(), Arc::default(), Arc::default())),
        });
        let (claims, claimed) = mpsc::channel(traffic::CLAIMS);
        tokio::spawn(traffic::report(
            events.listen()?,
            names,
            recorder,
            waker.clone(),
            claims,
        ));
        let mut daemon = Self {
            settings,
            how,
            state: config.state.directory.clone(),
            boot,
            node,
            sources,
            register,
            saved,
            installer: installer.spawn(tables)?,
            attacher: attacher::spawn(attachments)?,
            lints: Lints::spawn()?,
            announcer: Announcer::spawn(before)?,
            gate,
            waker,
            flows: filled,
            claims: claimed,
            pins,
            naming,
            published,
            desired: Arc::new(desired),
            round: 1,
            installing: Some(1),
            installed: 0,
            in_force: Applied::default(),
            programs,
            lost: BTreeSet::new(),
            found: BTreeMap::new(),
            looking: false,
            answers: 0,
            progress: Threads::default(),
            waiting: Vec::new(),
            starting: Vec::new(),
            unreached: unreached::Watch::default(),
            holds_pass: config.enforcement.unidentified == Unidentified::Allow,
            ready: false,
        };
        daemon.wait_for_claims();
        // The gate first: whoever has lost his programs waits behind it.
        daemon.sync_gate();
        daemon.attach();
        // It may have been flushed while nobody looked.
        daemon.gate.check();
        daemon.lint();
        daemon.answered(answer);
        Ok((daemon, counters))
    }

    async fn run_loop(
        &mut self,
        mut asked: mpsc::Receiver<SyncRequest>,
        mut asked_ready: mpsc::Receiver<ReadyRequest>,
        signals: &mut Signals,
        is_other: impl Fn() -> bool,
    ) -> Result<End, StartError> {
        let mut syncing = FuturesUnordered::new();
        let mut claiming = FuturesUnordered::new();
        let mut rounds = tokio::time::interval(ROUND);
        let mut watchdog = systemd::watchdog().map(tokio::time::interval);
        loop {
            let overdue = self.unreached.due();
            let overdue = async {
                match overdue {
                    Some(time) => tokio::time::sleep_until(time.into()).await,
                    None => std::future::pending().await,
                }
            };
            let beat = async {
                match &mut watchdog {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(End::Stopped),
                _ = signals.interrupt.recv() => return Ok(End::Stopped),
                _ = signals.hangup.recv() => {
                    if is_other() {
                        match &self.in_force.unpinned {
                            None => return Ok(End::Anew),
                            // It would take everything off, to begin with.
                            Some(why) => tracing::error!(
                                "the configuration stays as it was, as what is in force is not pinned: {why}"
                            ),
                        }
                    }
                    tracing::info!("looking at everything again");
                    // What it gives comes by itself.
                    drop(self.sources.look_at_manifests());
                    self.sources.doubt_all();
                    self.look();
                    self.look_at_programs();
                }
                links = self.sources.changed() => {
                    if self.sources.ended().is_some() {
                        return Err(StartError::Ended("reader of the manifests"));
                    }
                    self.look();
                    if links {
                        self.look_at_programs();
                    }
                }
                answer = self.installer.answer() => {
                    self.answered(answer.ok_or(StartError::Ended("writer of the kernel's tables"))?);
                }
                // The sweeper's thread ends with the daemon alone.
                Ok(()) = self.flows.changed() => self.publish(),
                Some(claim) = self.claims.recv() => self.claimed(claim),
                answer = self.attacher.answer() => {
                    self.attached(answer.ok_or(StartError::Ended("attacher of programs"))?);
                }
                answer = self.lints.answer() => self.lints.found(answer),
                () = self.gate.turned() => {
                    self.gate.check();
                    self.publish();
                }
                Some(request) = asked_ready.recv() => {
                    // Its interfaces may be newer than what was told of.
                    self.sources.doubt_links();
                    self.look();
                    self.starting.push(request);
                }
                Some(request) = asked.recv() => {
                    let engines = self.sources.engines();
                    let manifests = self.sources.look_at_manifests();
                    syncing.push(async move {
                        let engines = engines.iter().map(Follower::sync);
                        // Its thread may have ended: the loop does so too.
                        let _ = tokio::join!(futures_util::future::join_all(engines), manifests);
                        request
                    });
                }
                Some(request) = syncing.next(), if !syncing.is_empty() => {
                    self.sources.doubt_all();
                    self.waiting.push(Waiting { since: self.round, reply: request.reply });
                    self.look();
                    self.look_at_programs();
                }
                () = overdue => {
                    let wanted = self.unreached.begin(std::time::Instant::now());
                    let engines = self.sources.engines();
                    claiming.push(async move {
                        let answers = futures_util::future::join_all(engines.iter().map(Follower::sync));
                        // One that takes longer does not answer: what is known is said.
                        let _ = tokio::time::timeout(LAST_ANSWER, answers).await;
                        wanted
                    });
                }
                Some(wanted) = claiming.next(), if !claiming.is_empty() => {
                    self.sources.doubt_all();
                    self.look();
                    let (behind, sockets) = self.sources.look_behind(&wanted);
                    self.unreached.end(&behind, sockets);
                    self.publish();
                }
                () = self.pins.changed() => self.look_at_programs(),
                _ = rounds.tick() => {
                    self.gate.try_again();
                    if self.in_force.unkept_key.is_some() {
                        // The installer tries once more to keep it, with whatever it is given.
                        self.install();
                    }
                    if !self.programs.is_empty() {
                        self.look_at_programs();
                    }
                    let unseen = self.unreached.unseen();
                    if !unseen.is_empty() {
                        let (behind, _) = self.sources.look_behind(&unseen);
                        if self.unreached.see(&behind) {
                            self.publish();
                        }
                    }
                }
                now = beat => match self.stuck(now) {
                    // No longer fed: systemd ends it, and starts another one.
                    Some(thread) => tracing::error!("the {thread} is stuck"),
                    None => systemd::alive(),
                },
            }
            self.reply();
            self.let_start();
        }
    }

    /// Sees to it that what is in force stays so without netpold; else the gate is shut.
    async fn leave(&mut self) -> Result<(), StartError> {
        self.attacher.order(attacher::Order::Look);
        let looked = async {
            while let Some(answer) = self.attacher.answer().await {
                if let attacher::Answer::Found { unpinned, .. } = answer {
                    return unpinned;
                }
            }
            None
        };
        let unpinned = tokio::time::timeout(LAST_LOOK, looked)
            .await
            .unwrap_or_else(|_| self.in_force.unpinned.clone());
        match unpinned {
            None => Ok(()),
            Some(why) => Err(StartError::Unpinned {
                why,
                shut: self.gate.shut(&self.programs.keys().copied().collect()),
            }),
        }
    }

    /// Has the engine asked whether an address is an endpoint's own that its packets claimed.
    fn claimed(&mut self, claim: Claim) {
        let mut records = self.register.records.iter();
        let Some((key, record)) = records.find(|(_, record)| record.id == claim.endpoint) else {
            return;
        };
        // The report is older than what is known by now.
        if let Some(address) = claim.address.filter(|it| record.addresses.contains(it)) {
            return sources::truthful(&record.name.to_string(), address);
        }
        if let Some((Runtime::Docker, id)) = key.container() {
            self.sources.claimed(id, claim.address);
        }
    }

    /// Gathers, assembles, and orders what follows from it.
    fn look(&mut self) {
        let observed = self.sources.gather();
        let programmed: BTreeSet<u32> = self.programs.keys().copied().collect();
        let desired = assemble::assemble(observed, &self.settings, &programmed, &mut self.register);
        self.round += 1;
        let same = desired.world == self.desired.world;
        self.desired = Arc::new(desired);
        self.wait_for_claims();
        self.lint();
        self.attach();
        self.sync_gate();
        self.announce();
        if same && self.installing.is_none() && self.in_force.failure.is_none() {
            self.installed = self.round;
            self.save();
            self.publish();
        } else {
            self.install();
        }
    }

    /// Takes up which interfaces no engine has claimed.
    fn wait_for_claims(&mut self) {
        let now = std::time::Instant::now();
        self.unreached
            .look(self.sources.observed(), &self.desired, now);
    }

    /// Has the manifests linted that are new.
    fn lint(&mut self) {
        self.lints
            .look(&self.desired, &self.sources.observed().store);
    }

    /// Orders the newest state to be installed, once the one before is.
    fn install(&mut self) {
        if self.installing.is_some() {
            return;
        }
        self.installing = Some(self.round);
        let order = installer::Order {
            round: self.round,
            world: Arc::new(self.desired.world.clone()),
        };
        self.installer.order(order);
    }

    /// Orders programs where they have to be, and off where they do not.
    fn attach(&mut self) {
        let wanted = &self.desired.interfaces;
        let unwanted: Vec<u32> = self
            .programs
            .keys()
            .filter(|ifindex| !wanted.contains_key(ifindex))
            .copied()
            .collect();
        for ifindex in unwanted {
            self.programs.remove(&ifindex);
            self.lost.remove(&ifindex);
            self.found.remove(&ifindex);
            self.attacher.order(attacher::Order::Detach(ifindex));
        }
        for (ifindex, owner) in wanted {
            let inside = self.desired.inside.get(ifindex);
            let within = inside.map(|child| &child.within);
            // What has programs may have been found only now.
            let is_found = within.is_some() && self.found.get(ifindex) != within;
            if !is_found
                && matches!(
                    self.programs.get(ifindex),
                    Some(Program::On | Program::Pending)
                )
            {
                continue;
            }
            if let Some(within) = within {
                self.found.insert(*ifindex, within.clone());
            }
            let urgent = owner.as_ref().is_none_or(|name| {
                self.desired
                    .world
                    .policies
                    .keys()
                    .any(|policy| policy.namespace == name.namespace)
            });
            self.programs.insert(*ifindex, Program::Pending);
            self.attacher.order(attacher::Order::Attach {
                ifindex: *ifindex,
                within: within.cloned(),
                urgent,
            });
        }
    }

    /// Brings the gate up to date.
    fn sync_gate(&mut self) {
        let programs = &self.programs;
        let program = |ifindex: u32| programs.get(&ifindex).cloned();
        self.gate.keep(
            self.sources.observed(),
            &self.desired,
            &self.register.bridges,
            program,
        );
    }

    fn attached(&mut self, answer: attacher::Answer) {
        use attacher::Answer;
        self.answers += 1;
        let put = |programs: &mut BTreeMap<u32, Program>, ifindex, program| {
            // It may have been ordered off meanwhile.
            if let Some(known) = programs.get_mut(&ifindex) {
                *known = program;
            }
        };
        let looked = matches!(answer, Answer::Found { .. });
        match answer {
            Answer::On(ifindex) => {
                put(&mut self.programs, ifindex, Program::On);
                if self.lost.remove(&ifindex) {
                    let names = &self.desired.interface_names;
                    let name = names.get(&ifindex).map_or("", String::as_str);
                    tracing::warn!(
                        interface = %printable(name),
                        "programs were taken off interfaces by somebody else, and are back"
                    );
                }
            }
            Answer::Gone(ifindex) => {
                self.lost.remove(&ifindex);
                self.programs.remove(&ifindex);
                self.found.remove(&ifindex);
            }
            // Said with the status, once: it is tried again in each round.
            Answer::Failed(ifindex, why) => {
                put(&mut self.programs, ifindex, Program::Failed(why));
            }
            Answer::Found { on, unpinned } => {
                self.looking = false;
                self.in_force.unpinned = unpinned;
                let Some(found) = on else { return };
                for (ifindex, program) in &mut self.programs {
                    if *program == Program::On && !found.contains(ifindex) {
                        *program = Program::Failed("its programs were taken off".to_owned());
                        self.lost.insert(*ifindex);
                    }
                }
            }
        }
        self.sync_gate();
        self.announce();
        if looked {
            // Shut by now, who has lost his: before they are waited for.
            self.attach();
        }
        if !self.is_attaching() {
            self.publish();
        }
    }

    /// Announces to their neighbours the endpoints that have come into force.
    fn announce(&mut self) {
        let records = &self.register.records;
        let observed = self.sources.observed();
        let place = |id| {
            let (key, record) = records.iter().find(|(_, record)| record.id == id)?;
            let namespace = match key.container() {
                Some((_, id)) => observed.containers.get(id)?,
                None => {
                    let mut declared = observed.declared.iter();
                    let declared = declared.find(|declared| declared.name == record.name)?;
                    declared.namespace.as_ref().ok()?
                }
            };
            (namespace.identity == record.netns).then_some(namespace)
        };
        self.announcer
            .announce(&self.in_force.world, &self.programs, place);
    }

    /// Asks the kernel whether the programs are where they were put.
    fn look_at_programs(&mut self) {
        self.looking = true;
        self.attacher.order(attacher::Order::Look);
    }

    fn is_attaching(&self) -> bool {
        self.looking
            || self
                .programs
                .values()
                .any(|program| *program == Program::Pending)
    }

    /// The thread that does not get on with what it was given.
    fn stuck(&mut self, now: Instant) -> Option<&'static str> {
        let attaching = self.is_attaching().then_some(self.answers);
        let installer = self.progress.installer.is_stuck(self.installing, now);
        let attacher = self.progress.attacher.is_stuck(attaching, now);
        (installer.then_some("writer of the kernel's tables"))
            .or(attacher.then_some("attacher of programs"))
    }

    fn answered(&mut self, answer: installer::Answer) {
        self.installing = None;
        self.installed = answer.round;
        if answer.removed {
            self.waker.now();
        }
        self.in_force.failure = answer.error.as_ref().map(ToString::to_string);
        self.in_force.fill = answer.fill;
        self.in_force.unkept_key = answer.unkept_key;
        self.in_force.generation = answer.generation;
        if let Some(installed) = answer.installed {
            self.in_force.world = installed.world;
            self.in_force.names = installed.names;
            self.in_force.endpoints = installed.endpoints;
            self.naming.send_replace(Naming {
                generation: answer.generation,
                namer: Arc::new(Namer::new(
                    self.node.clone(),
                    Arc::clone(&self.in_force.world),
                    Arc::clone(&self.in_force.names),
                )),
            });
        }
        self.announce();
        if self.round > answer.round && self.desired.world != *answer.asked {
            self.install();
        } else {
            self.installed = self.round;
        }
        self.save();
        self.publish();
    }

    fn save(&mut self) {
        if self.register.is_same_on_disk(&self.saved) {
            return;
        }
        match self.register.save(&self.state, &self.boot) {
            Ok(()) => self.saved = self.register.clone(),
            Err(error) => {
                tracing::warn!(%error, "the endpoints can't be kept for a restart");
            }
        }
    }

    fn publish(&mut self) {
        let observed = self.sources.observed();
        let mut status = report::status(
            observed,
            &self.desired,
            &self.in_force,
            &self.programs,
            &self.how,
            &self.flows.borrow_and_update(),
            &self.gate,
        );
        let is_shut = |number, bridge: &str| self.gate.shuts(number, bridge);
        status.unreached = self.unreached.said(observed, self.holds_pass, is_shut);
        let before = Arc::clone(&self.published.borrow());
        if before.status != status {
            report::log(&before.status, &status);
            if self.ready {
                systemd::status(&report::line(&status));
            }
        }
        if !self.ready && self.is_done() {
            self.ready = true;
            tracing::info!("{}", report::line(&status));
            systemd::ready(&report::line(&status));
        }
        let mut origins = self.desired.origins.clone();
        for (name, asked) in &self.desired.asked_from_host {
            if let Some(origin) = origins.pods.get_mut(name) {
                origin.asked_from_host = report::unseen(asked, &self.programs).is_some();
            }
        }
        self.published.send_replace(Arc::new(Published {
            world: Arc::clone(&self.in_force.world),
            origins,
            status,
        }));
    }

    /// Is all that is known in force, as far as it can be?
    fn is_done(&self) -> bool {
        self.installing.is_none() && self.installed == self.round && !self.is_attaching()
    }

    /// Answers those who are in force, and those who do not wait for it.
    fn let_start(&mut self) {
        let mut awaited = BTreeSet::new();
        for request in std::mem::take(&mut self.starting) {
            if request.reply.is_closed() {
                continue;
            }
            let asked = self.sources.look_at(&request.netns);
            let nsid = asked.as_ref().ok().and_then(|asked| asked.nsid);
            let answer = asked.map_err(|error| error.to_string()).map(|asked| {
                readiness::of(
                    &asked,
                    &ReadinessInput {
                        observed: self.sources.observed(),
                        desired: &self.desired,
                        world: &self.in_force.world,
                        programs: &self.programs,
                    },
                )
            });
            let waits = request.wait && answer.as_ref().is_ok_and(|answer| !answer.ready);
            if waits {
                awaited.extend(nsid);
                self.starting.push(request);
            } else {
                // Whoever asked may have gone.
                let _ = request.reply.send(answer);
            }
        }
        // No veth may tell of who is there.
        if self.sources.expect(awaited) {
            self.look();
        }
    }

    /// Answers those whose sync is complete.
    fn reply(&mut self) {
        if self.waiting.is_empty()
            || !self.is_done()
            || !self.lints.is_done()
            || !self.sources.observed().store.settled
        {
            return;
        }
        let observed = self.sources.observed();
        let incomplete = |engine: &Engine| engine.snapshot.connected && engine.snapshot.incomplete;
        if observed.engines().any(incomplete) {
            return;
        }
        let mut failures: Vec<String> = self.in_force.failure.iter().cloned().collect();
        failures.extend(observed.problems.iter().cloned());
        failures.extend(self.programs.values().filter_map(|program| match program {
            Program::Failed(why) => Some(why.clone()),
            _ => None,
        }));
        let round = self.installed;
        if !self.waiting.iter().any(|waiting| waiting.since < round) {
            return;
        }
        let synced = Synced {
            generation: self.in_force.generation,
            rejected: report::rejected(observed),
            failures,
            findings: self.lints.news(&observed.store),
        };
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| waiting.since < round);
        self.waiting = waiting;
        for waiting in done {
            // Whoever asked may have gone.
            let _ = waiting.reply.send(synced.clone());
        }
    }
}

/// Can files be made in this directory, or can it be made?
fn writable(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    Ok(nix::unistd::access(directory, AccessFlags::W_OK)?)
}

/// Is the configuration another one now? One that can't be changes nothing.
fn changed(config: &Config, read: impl Fn() -> Result<Config, ConfigError>) -> bool {
    match read() {
        Ok(now) => now != *config,
        Err(error) => {
            tracing::error!("the configuration stays as it was: {error}");
            false
        }
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        labels: config.labels.clone(),
        namespaces: config.namespaces.clone(),
        host: world::Settings {
            host_ingress: config.host.ingress == HostTraffic::Allow,
            host_egress: config.host.egress == HostTraffic::Allow,
        },
        kube_dns: config.dns.kube_dns,
    }
}

fn flags(config: &Config) -> u32 {
    let enforcement = &config.enforcement;
    let mut flags = 0;
    if enforcement.mode == Mode::Audit {
        flags |= control_flags::AUDIT;
    }
    if enforcement.established == Established::Keep {
        flags |= control_flags::KEEP_ESTABLISHED;
    }
    if enforcement.unidentified == Unidentified::Allow {
        flags |= control_flags::UNIDENTIFIED_PASS;
    }
    flags
}

/// This host's name.
fn node() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
