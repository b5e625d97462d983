//! A container whose first instruction opens a connection: it is not later than without netpold, which may hold the
//! interface for some milliseconds, but must not cost a question for an address, or a SYN: each is asked again after a
//! second. Needs root, dockerd, podman and busybox.

use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::starting_container::gate;
use netpold_tests::{Daemon, Engine, Lab, residue, scaled, sockets};

const PORT: u16 = 5432;
/// Starts of each kind.
const TIMES: usize = 10;
/// What a first connection may take: less than what is lost takes until it is sent again.
const SOON: Duration = Duration::from_millis(900);
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  \
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]\n";

struct Site {
    lab: Lab,
    engine: Engine,
    db: IpAddr,
}

impl Site {
    fn new(start: fn(&Lab) -> Result<Engine>) -> Result<Self> {
        let lab = Lab::new()?;
        let engine = start(&lab)?;
        engine.import_program(Path::new(env!("CARGO_BIN_EXE_first_dial")), "dialler")?;
        engine.docker(&["network", "create", "shop"])?;
        let db = ["--label", "app=db", "--network", "shop"];
        let db = engine.run("db", &db, &["sleep", "1000"])?;
        let address = *db.addresses.first().context("no address")?;
        let listener = sockets::listen(&db.netns(), address, PORT)?;
        thread::spawn(move || serve(&listener));
        Ok(Self {
            lab,
            engine,
            db: address,
        })
    }

    /// How long a new container's first connection takes.
    fn takes(&self, name: &str) -> Result<Duration> {
        let (address, port) = (self.db.to_string(), PORT.to_string());
        let mut run = vec!["run", "--detach", "--name", name];
        run.extend(["--label", "app=web", "--network", "shop"]);
        run.extend(["dialler", "/program", &address, &port]);
        self.engine.docker(&run)?;
        self.engine.docker(&["wait", name])?;
        let said = self.engine.docker(&["logs", name])?;
        self.engine.docker(&["rm", "--force", name])?;
        let took = said.strip_suffix(" hello");
        let took = took.with_context(|| format!("{name} was not answered: {said:?}"))?;
        Ok(Duration::from_millis(took.parse()?))
    }

    fn is_not_late(&self, what: &str) -> Result<()> {
        let all: Result<Vec<Duration>> = (0..TIMES)
            .map(|number| self.takes(&format!("web-{number}")))
            .collect();
        let all = all.with_context(|| what.to_owned())?;
        let late = all.iter().filter(|took| **took > scaled(SOON)).count();
        ensure!(late == 0, "{what}: {late} are late: {all:?}");
        Ok(())
    }
}

/// Answers until the process ends.
fn serve(listener: &TcpListener) {
    for client in listener.incoming() {
        // One that went away is no matter of the next one's.
        let _ = client.and_then(|mut client| client.write_all(b"hello"));
    }
}

fn docker(lab: &Lab) -> Result<Engine> {
    Engine::start(lab, &[])
}

fn starts(start: fn(&Lab) -> Result<Engine>) -> Result<()> {
    let site = Site::new(start)?;
    site.is_not_late("without netpold")?;
    let mut daemon = Daemon::prepare_beside(&site.lab, Some(&site.engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    gate(&site.lab, &daemon.config(), "install")?;
    daemon.launch()?;
    daemon.wait()?;
    site.is_not_late("beside netpold")
        .with_context(|| daemon.log())?;
    let name = site.lab.name.clone();
    drop((daemon, site));
    residue::check(&name)
}

#[test]
fn the_first_connection_by_docker_is_not_late() -> Result<()> {
    starts(docker)
}

#[test]
fn the_first_connection_by_podman_is_not_late() -> Result<()> {
    starts(Engine::start_podman)
}
