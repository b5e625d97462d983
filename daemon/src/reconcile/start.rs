//! The life of the daemon: opens everything, takes over what an earlier netpold enforces, puts the first state in force, runs
//! the loop, and sees to it that what is in force outlives it.
//!
//! # A restart
//! The last accepted manifests, and the endpoints with their numbers and labels, are on disk. Until the container engine
//! has listed its containers, endpoints that it reported before stay as they were, with the policies of now, as long as
//! their interfaces exist. The listing then confirms them, by container and network namespace, or takes them off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netpol_abi::tables::control_flags;
use netpol_engine::world;
use nix::unistd::AccessFlags;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::announcer::Announcer;
use super::assemble::{self, Desired, Settings};
use super::clients::Clients;
use super::control::{Attachments, Control};
use super::events::{Events, Inputs, Requests, Signals};
use super::gate::GateController;
use super::installer::{self, Installer};
use super::lints::Lints;
use super::metrics;
use super::number_key::KeyFile;
use super::outcome::{End, StartError};
use super::pins::Pins;
use super::program::Program;
use super::publication::Publication;
use super::records::Records;
use super::register::EmptyTables;
use super::report::EnforcementInfo;
use super::run::Loop;
use super::sources::Sources;
use super::traffic::PacketNames;
use super::{attacher, traffic, unreached};
use crate::api::{self, Published};
use crate::config::{Config, ConfigError, Established, HostTraffic, Mode, Unidentified};
use crate::datapath::counters::CounterTable;
use crate::datapath::pins::Layout;
use crate::datapath::requirements::Lack;
use crate::datapath::{Kernel, Mechanism, Options, Origin};
use crate::flows::Recorder;
use crate::telemetry::systemd;

/// How long the last look at the programs may take, behind what else is being attached.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT, or until `read` gives another configuration after SIGHUP. To be called inside a tokio
/// runtime of one thread, in the host's network namespace.
///
/// # Errors
/// The daemon can't start; afterwards, one of its threads has ended.
pub async fn run(
    config: Config,
    read: impl Fn() -> Result<Config, ConfigError>,
) -> Result<End, StartError> {
    let signals = Signals::new()?;
    // The socket first: a second daemon stops here, before it touches anything.
    let socket = api::listener::bind(&config.api.socket, config.api.group.as_deref()).await?;
    check_state_directory(&config.state.directory);
    let mut gate = GateController::open(&config);
    if Layout::new(&config.datapath.pin_directory).is_ok_and(|layout| layout.is_empty()) {
        gate.shut_all();
    }
    let kernel = open_kernel(&config)?;
    let sources = Sources::open(&config)?;
    let (published, seen) = watch::channel(Arc::new(Published::default()));
    let (ask_sync, sync) = mpsc::channel(64);
    let (ask_ready, ready) = mpsc::channel(64);
    let recorder = Arc::new(Recorder::default());
    let state = api::State {
        published: seen,
        flows: Arc::clone(&recorder),
        sync: ask_sync,
        ready: ask_ready,
        gate: gate.meter(),
    };
    let opened = Opened {
        kernel,
        sources,
        gate,
        recorder,
        publication: Publication::new(published),
        requests: Requests { sync, ready },
        signals,
    };
    let (mut reconciler, counters) = opened.start(&config)?;
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
    let ended = match reconciler.run(|| has_changed(&config, &read)).await {
        Ok(end) => leave(&mut reconciler).await.map(|()| end),
        Err(error) => Err(error),
    };
    match ended {
        Ok(End::Reexec) => {
            tracing::info!("starting once more with another configuration");
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

/// Opens the kernel's side, or takes over what an earlier netpold has pinned there.
fn open_kernel(config: &Config) -> Result<Kernel, StartError> {
    let kernel = Kernel::open(&Options {
        timeouts: config.timeouts.ticks(),
        ..Options::new(&config.datapath.pin_directory)
    })?;
    tracing::info!(
        pins = %config.datapath.pin_directory.display(),
        "{}",
        match kernel.origin {
            Origin::Fresh => "nothing was enforced before",
            Origin::Adopted => "what an earlier netpold enforced is adopted",
            Origin::Replacing => "an earlier netpold's tables are of another layout, and replaced",
        }
    );
    for lack in &kernel.lacks {
        tracing::warn!("this kernel has {lack}");
    }
    Ok(kernel)
}

/// What is open before the first state is put in force.
struct Opened {
    kernel: Kernel,
    sources: Sources,
    gate: GateController,
    recorder: Arc<Recorder>,
    publication: Publication,
    requests: Requests,
    signals: Signals,
}

impl Opened {
    /// Puts the first state in force, starts the threads, and makes the loop.
    fn start(self, config: &Config) -> Result<(Loop, CounterTable), StartError> {
        let Self {
            mut kernel,
            mut sources,
            gate,
            recorder,
            publication,
            requests,
            signals,
        } = self;
        let settings = settings(config);
        let key = KeyFile::open(&config.state.directory)?;
        let mut installer = Installer::new(&mut kernel.tables, flags(config), key)?;
        let first = config.docker.sockets.first();
        let mut records = Records::read(&config.state.directory, first.map(AsRef::as_ref));
        records.adopt(
            installer.installed(),
            match kernel.origin {
                Origin::Fresh => EmptyTables::NothingEnforced,
                Origin::Adopted => EmptyTables::No,
                Origin::Replacing => EmptyTables::OthersStillEnforce,
            },
        );
        let announced = announced(&records);
        // Connections of endpoints that went while no netpold ran: their numbers may be given again after sixteen million.
        traffic::sweep_once(&mut kernel.flows)?;
        let programmed: BTreeSet<u32> = kernel.attachments.attached()?.into_keys().collect();
        let observed = sources.gather();
        let desired = assemble::assemble(observed, &settings, &programmed, &mut records.register);
        let answer = install_first(&mut installer, &mut kernel, &desired)?;
        let adopted = kernel.settle()?;
        if !adopted.swapped.is_empty() {
            tracing::info!(
                hooks = adopted.swapped.len(),
                "the programs that an earlier netpold attached were replaced in place"
            );
        }
        let info = enforcement_info(config, &kernel);
        let attachments = Attachments::new(found_programs(&mut kernel, programmed, &records)?);
        let Kernel {
            tables,
            attachments: attached,
            events: reports,
            flows,
            counters,
            ..
        } = kernel;
        let (sweeper, connections) = traffic::sweep(flows)?;
        let pins = Pins::watch(attached.pinned())?;
        let (packet_names, names) = PacketNames::new(node(), answer.generation);
        let (claim, claims) = mpsc::channel(traffic::CLAIMS);
        tokio::spawn(traffic::report(
            reports.listen()?,
            names,
            recorder,
            sweeper.clone(),
            claim,
        ));
        let inputs = Inputs {
            sources,
            installer: installer.spawn(tables)?,
            attacher: attacher::spawn(attached)?,
            lints: Lints::spawn()?,
            gate,
            pins,
            connections,
            claims,
        };
        let mut reconciler = Loop {
            events: Events::new(inputs, requests, signals),
            control: Control::new(desired, attachments),
            clients: Clients::default(),
            settings,
            records,
            unreached: unreached::Watch::default(),
            announcer: Announcer::spawn(announced)?,
            packet_names,
            sweeper,
            publication,
            info,
            holds_pass: config.enforcement.unidentified == Unidentified::Allow,
        };
        reconciler.begin(answer);
        Ok((reconciler, counters))
    }
}

/// Interfaces that were in force before, so that their neighbours know their addresses.
fn announced(records: &Records) -> BTreeMap<u32, BTreeSet<IpAddr>> {
    let records = records.register.records.values();
    let announced = records.flat_map(|record| {
        let interfaces = record.interfaces.keys();
        interfaces.map(|ifindex| (*ifindex, record.addresses.clone()))
    });
    announced.collect()
}

/// Puts the first state in force, before the programs of an earlier netpold are replaced.
fn install_first(
    installer: &mut Installer,
    kernel: &mut Kernel,
    desired: &Desired,
) -> Result<installer::Answer, StartError> {
    let order = installer::Order {
        version: 1,
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
    Ok(answer)
}

fn enforcement_info(config: &Config, kernel: &Kernel) -> EnforcementInfo {
    EnforcementInfo {
        attach: match kernel.attachments.mechanism() {
            Mechanism::Tcx => "tcx",
            Mechanism::Clsact => "clsact",
        },
        mode: match config.enforcement.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        },
        lacks: kernel.lacks.iter().map(Lack::to_string).collect(),
    }
}

/// The interfaces that have programs, or should have them as an earlier netpold had put them there.
fn found_programs(
    kernel: &mut Kernel,
    programmed: BTreeSet<u32>,
    records: &Records,
) -> Result<BTreeMap<u32, Program>, StartError> {
    let on = kernel.attachments.attached()?;
    let expected = programmed.into_iter().chain(records.saved().interfaces());
    let programs = expected.map(|ifindex| {
        let is_complete = on.get(&ifindex).is_some_and(|hooks| hooks.complete());
        let program = match is_complete {
            true => Program::On,
            false => Program::Failed("it had not both programs at the start".to_owned()),
        };
        (ifindex, program)
    });
    Ok(programs.collect())
}

/// Sees to it that what is in force stays so without netpold; else the gate is shut. Answers to earlier questions are no
/// answer: the pins may have been removed since.
async fn leave(reconciler: &mut Loop) -> Result<(), StartError> {
    reconciler.look_at_programs();
    let looked = async {
        while !reconciler.control.attachments().has_looked() {
            match reconciler.events.inputs.attacher.answer().await {
                Some(answer) => reconciler.attached(answer),
                None => return,
            }
        }
    };
    // One that takes longer does not answer: what is known counts.
    let _ = timeout(LAST_LOOK, looked).await;
    let attachments = reconciler.control.attachments();
    match attachments.unpinned() {
        None => Ok(()),
        Some(why) => Err(StartError::Unpinned {
            why: why.to_owned(),
            shut: reconciler
                .events
                .inputs
                .gate
                .shut(&attachments.interfaces()),
        }),
    }
}

/// Tells when the state directory can't be written: everything that is in force stays so, and is lost with a restart.
fn check_state_directory(directory: &Path) {
    let Err(error) = writable(directory) else {
        return;
    };
    let help = systemd::read_only_help("netpold", directory, &error);
    tracing::error!(
        "what is accepted can't be kept for a restart: `{}`: {error}{}{}",
        directory.display(),
        if help.is_some() { "\n" } else { "" },
        help.unwrap_or_default()
    );
}

/// Can files be made in this directory, or can it be made?
fn writable(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    Ok(nix::unistd::access(directory, AccessFlags::W_OK)?)
}

/// Is the configuration another one now? One that can't be changes nothing.
fn has_changed(config: &Config, read: impl Fn() -> Result<Config, ConfigError>) -> bool {
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
