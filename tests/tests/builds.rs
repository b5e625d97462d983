//! Builds of images: what a step of a Dockerfile runs is in a container that no listing of the engine's has. No policy
//! selects it, so it reaches what is open for every Pod, and no policy names it, so it reaches nothing else. By docker(1)'s
//! own builder, BuildKit, Compose and Podman. Needs root, dockerd, podman and busybox.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use netpold_tests::docker::{Builder, client_with_buildkit, has_compose};
use netpold_tests::starting_container::gate;
use netpold_tests::{Daemon, Engine, Lab, docker, residue, scaled, sockets};

const PORT: u16 = 5432;
const TIME: Duration = Duration::from_secs(5);
/// `app: shut` is for `app: web`.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut}\n\
    spec:\n  podSelector: {matchLabels: {app: shut}}\n  policyTypes: [Ingress]\n  \
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]\n";
/// Nothing in the Namespace may ask anything.
const NOTHING: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: all}\n\
    spec: {podSelector: {}, policyTypes: [Egress]}\n";

fn main() {
    let arguments = Arguments::from_args();
    let case = |name: &str, start: fn(&Lab) -> Result<Engine>, builder: Builder| {
        Trial::test(name, move || {
            builds(start, builder).map_err(|error| format!("{error:#}").into())
        })
    };
    let lacks_buildkit = client_with_buildkit().is_none();
    let trials = vec![
        case("docker", engine, Builder::Engine),
        case("docker_by_buildkit", engine, Builder::BuildKit)
            .with_kind("needs buildx")
            .with_ignored_flag(lacks_buildkit),
        case("docker_compose", engine, Builder::Compose)
            .with_kind("needs compose")
            .with_ignored_flag(!has_compose()),
        case("podman", Engine::start_podman, Builder::Podman),
        case("podman_by_its_api", Engine::start_podman, Builder::Engine),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn engine(lab: &Lab) -> Result<Engine> {
    Engine::start(lab, &[])
}

/// A container that answers.
struct Server {
    address: IpAddr,
    /// Whom it answered.
    clients: Receiver<IpAddr>,
}

/// One with this label on the engine's default network.
fn serve(engine: &Engine, app: &str) -> Result<Server> {
    let label = format!("app={app}");
    let running = engine.run(app, &["--label", &label], &["sleep", "1000"])?;
    let address = *running.addresses.first().context("no address")?;
    let listener = sockets::listen(&running.netns(), address, PORT)?;
    let (sender, clients) = channel();
    // Until the process ends.
    thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            if client.write_all(b"hello\n").is_err() || sender.send(from.ip()).is_err() {
                break;
            }
        }
    });
    Ok(Server { address, clients })
}

fn builds(start: fn(&Lab) -> Result<Engine>, builder: Builder) -> Result<()> {
    let lab = Lab::new()?;
    let engine = start(&lab)?;
    let (open, shut) = (serve(&engine, "open")?, serve(&engine, "shut")?);
    // Under which address a step got there.
    let dials = |server: &Server| -> Result<IpAddr> {
        let dial = format!("nc -w 5 {} {PORT} < /dev/null > /said", server.address);
        let step = format!("{dial}; read word < /said && [ $word = hello ]");
        let file = format!("FROM {}\nRUN {step}\n", docker::IMAGE);
        engine.build(builder, &file)?;
        Ok(server.clients.recv_timeout(scaled(TIME))?)
    };
    let mut is_host = false;
    for server in [&open, &shut] {
        let seen = dials(server).context("without netpold")?;
        // Some engines give a step the host's network: it is the host.
        is_host = lab.host().ip(&["address"])?.contains(&format!(" {seen}/"));
    }
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("shut.yaml", POLICY)?;
    gate(&lab, &daemon.config(), "install")?;
    daemon.launch()?;
    daemon.wait()?;
    dials(&open).with_context(|| daemon.log())?;
    let seen = dials(&shut);
    ensure!(
        seen.is_ok() == is_host,
        "a step that is the host: {is_host}; it reaches what is for others: {seen:?}\n{}",
        String::from_utf8_lossy(&daemon.netpol(&["observe"])?.stdout)
    );
    // A policy that selects every Pod isolates builds too.
    daemon.put("all.yaml", NOTHING)?;
    daemon.wait()?;
    let seen = dials(&open);
    ensure!(seen.is_ok() == is_host, "{seen:?}\n{}", daemon.log());
    // Docker's own builder runs each step in a container with a name.
    let is_container = builder == Builder::Engine;
    ensure!(
        is_host || is_container || daemon.log().contains("endpoint=default/build-"),
        "{}",
        daemon.log()
    );
    // Nothing of the builds is left for the daemon to wait for.
    daemon.wait()?;
    let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    ensure!(
        status["endpoints"].as_array().map(Vec::len) == Some(2)
            && status["unidentified"].as_array().is_none_or(Vec::is_empty),
        "{status:#}"
    );
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}
