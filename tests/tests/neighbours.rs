//! A container that starts again is reached by its neighbours at once, also where its engine gives it another MAC address
//! each time (Docker 28, Podman 5), which the neighbours learn by what it announces, or else after up to a minute.
//! With both families; without netpold, beside one that runs, and across a time in which none runs. Needs root, dockerd,
//! podman and busybox.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use netpold_tests::docker::Running;
use netpold_tests::starting_container::gate;
use netpold_tests::{Daemon, Engine, Lab, residue, scaled, sockets};

/// One for each family: a socket for any address of IPv6 has those of IPv4, too.
const PORTS: [u16; 2] = [5432, 5433];
const IDLE: [&str; 2] = ["sleep", "1000"];
/// Starts of each kind. An announcement that is lost is lost nearly each time: what counts is the one in the middle, as a
/// busy machine may be late with a single one.
const TIMES: usize = 5;
/// What neighbours wait, from when the engine says that the container runs, or netpold that all is in force. A lost
/// question for an address costs a second, of which some is over by then.
const SOON: Duration = Duration::from_millis(500);
/// The same where none ran: a neighbour that gave up meanwhile asks once a second.
const AGAIN: Duration = Duration::from_millis(1500);
/// By then a neighbour that believes in the old address has asked by itself.
const LATE: Duration = Duration::from_secs(75);
/// Makes it do so within seconds: how long it believes, instead of up to 45 s, and how long it waits then, instead of 5.
const DOUBTS: [(&str, &str); 2] = [
    ("base_reachable_time_ms", "2000"),
    ("delay_first_probe_time", "1"),
];
/// Between two datagrams of a neighbour that goes on sending.
const PAUSE: Duration = Duration::from_millis(10);
/// The container speaks with its neighbours alone.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n\
    spec:\n  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]\n  \
    ingress: [{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{protocol: UDP, port: 5432, endPort: 5433}]}]\n";

struct Site {
    lab: Lab,
    engine: Engine,
    front: Running,
    web: [IpAddr; 2],
}

impl Site {
    fn new(start: fn(&Lab) -> Result<Engine>) -> Result<Self> {
        let lab = Lab::new()?;
        let engine = start(&lab)?;
        let mut create = vec!["network", "create", "--ipv6", "--subnet", "10.67.0.0/24"];
        create.extend(["--subnet", "fd00:67::/64", "shop"]);
        engine.docker(&create)?;
        let (label, on) = (["--label", "app=front"], ["--network", "shop"]);
        let front = engine.run("front", &[label, on].concat(), &IDLE)?;
        let mut web = vec!["--label", "app=web", "--network", "shop"];
        web.extend(["--ip", "10.67.0.80", "--ip6", "fd00:67::80"]);
        engine.run("web", &web, &IDLE)?;
        Ok(Self {
            lab,
            engine,
            front,
            web: ["10.67.0.80".parse()?, "fd00:67::80".parse()?],
        })
    }

    /// What the neighbour sends from: a socket of each family.
    fn sockets(&self) -> Result<[UdpSocket; 2]> {
        let netns = self.front.netns();
        let own = |is_ipv6: bool| {
            let mut all = self.front.addresses.iter();
            let own = all.find(|address| address.is_ipv6() == is_ipv6);
            own.copied().context("the neighbour lacks a family")
        };
        Ok([
            sockets::udp(&netns, own(false)?, 0)?,
            sockets::udp(&netns, own(true)?, 0)?,
        ])
    }

    /// What the neighbour waits for each family, while it goes on sending: starts the container again by `restart`, and
    /// counts from there.
    fn waited(&self, restart: &mut dyn FnMut() -> Result<()>) -> Result<[Duration; 2]> {
        let ends = AtomicBool::new(false);
        let from = self.sockets()?;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    for ((socket, to), port) in from.iter().zip(self.web).zip(PORTS) {
                        // The answer that no server listens is an error of the next datagram's.
                        let _ = socket.send_to(b"word", SocketAddr::new(to, port));
                    }
                    sleep(PAUSE);
                }
            });
            let waited = restart().and_then(|()| {
                let web = self.engine.inspect("web")?;
                let begun = Instant::now();
                let mut waited = [Duration::ZERO; 2];
                // A new address may not be bound yet.
                let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
                for (number, waited) in waited.iter_mut().enumerate() {
                    let socket = sockets::udp(&web.netns(), any[number], PORTS[number])?;
                    let heard = sockets::heard(&socket, LATE)?;
                    ensure!(heard.is_some(), "{} is never reached", self.web[number]);
                    *waited = begun.elapsed();
                }
                Ok(waited)
            });
            ends.store(true, Ordering::Relaxed);
            waited
        })
    }

    /// From now on the neighbour does not believe for long.
    fn doubt(&self) -> Result<()> {
        for (key, value) in DOUBTS {
            for family in ["ipv4", "ipv6"] {
                let path = format!("/proc/sys/net/{family}/neigh/eth0/{key}");
                netns::inside(&self.front.netns(), || fs::write(&path, value))?.context(path)?;
            }
        }
        Ok(())
    }

    fn restart(&self) -> Result<()> {
        self.engine.docker(&["restart", "--time", "0", "web"])?;
        Ok(())
    }

    /// What a neighbour waits for the slower family: the median of so many starts.
    fn median(
        &self,
        times: usize,
        what: &str,
        restart: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Duration> {
        let mut all = Vec::new();
        for number in 0..times {
            let waited = self.waited(restart);
            let [v4, v6] = waited.with_context(|| format!("{what}, start {number}"))?;
            all.push(v4.max(v6));
        }
        all.sort();
        Ok(all[times / 2])
    }
}

fn docker(lab: &Lab) -> Result<Engine> {
    Engine::start(lab, &[])
}

fn restarts(start: fn(&Lab) -> Result<Engine>) -> Result<()> {
    let site = Site::new(start)?;
    let first = site.median(1, "without netpold", &mut || site.restart())?;
    // Podman 4 with CNI's plugins draws an address each time, too, and does not announce it. Then it is reached at some time.
    let is_announced = first < scaled(AGAIN);
    let (times, limits) = if is_announced {
        (TIMES, [SOON, AGAIN])
    } else {
        site.doubt()?;
        (1, [LATE; 2])
    };
    let mut daemon = Daemon::prepare_beside(&site.lab, Some(&site.engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    gate(&site.lab, &daemon.config(), "install")?;
    daemon.launch()?;
    daemon.wait()?;
    let beside = site.median(times, "beside netpold", &mut || site.restart())?;
    let after = site.median(times, "after a time without netpold", &mut || {
        daemon.stop()?;
        site.restart()?;
        // Long enough that what the container announced is over.
        sleep(Duration::from_secs(2));
        daemon.launch()?;
        daemon.wait()
    })?;
    ensure!(
        beside < scaled(limits[0]) && after < scaled(limits[1]),
        "a neighbour waits for {first:?} without netpold, {beside:?} beside it, {after:?} after a time without it\n{}",
        daemon.log()
    );
    let name = site.lab.name.clone();
    drop((daemon, site));
    residue::check(&name)
}

#[test]
fn a_container_of_docker_that_starts_again_is_reached_at_once() -> Result<()> {
    restarts(docker)
}

#[test]
fn a_container_of_podman_that_starts_again_is_reached_at_once() -> Result<()> {
    restarts(Engine::start_podman)
}
