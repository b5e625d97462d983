//! The whole daemon beside a containerd of its own, with CNI's networks. Needs root, containerd,
//! the CNI plugins and busybox.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::{Containerd, Daemon, Lab, residue};
use serde_json::json;

const IDLE: [&str; 2] = ["sleep", "1000"];

/// A policy for `app: db` of the Namespace `shop`: only its `web` may, on 5432.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

/// A network of a bridge, one of routed pairs, and one whose interfaces stand on the lab's bridge and have no end on the host.
fn plugins(kind: &str) -> serde_json::Value {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    match kind {
        "bridge" => json!([{"type": kind, "bridge": "lab0", "isGateway": true, "ipam": ipam}]),
        "macvlan" => json!([{"type": kind, "master": "br0", "mode": "bridge", "ipam": ipam}]),
        _ => json!([{"type": kind, "ipam": ipam}]),
    }
}

fn labelled<'a>(labels: &'a [String], options: &[&'a str]) -> Vec<&'a str> {
    let labels = labels.iter().flat_map(|label| ["--label", label]);
    labels.chain(options.iter().copied()).collect()
}

/// A container of the Namespace `shop`, `app: NAME`.
fn service(containerd: &Containerd, name: &str, options: &[&str]) -> Result<Running> {
    let labels = [
        "netpold.io/namespace=shop".to_owned(),
        format!("app={name}"),
    ];
    let options = labelled(&labels, options);
    containerd.run("default", name, &options, &IDLE)
}

fn expect(
    daemon: &Daemon,
    (from, to): (&Running, &Running),
    port: u16,
    allowed: bool,
) -> Result<()> {
    for to_address in &to.addresses {
        let same_family = |own: &&std::net::IpAddr| own.is_ipv4() == to_address.is_ipv4();
        let source = from.addresses.iter().find(same_family);
        let probe = Probe {
            from: from.netns(),
            source: *source.context("no address of that family")?,
            to: Some(to.netns()),
            destination: SocketAddr::new(*to_address, port),
            protocol: Protocol::Tcp,
            // What is allowed is over as soon as it arrives. A neighbour that is asked for again, as the host's own new
            // address may not be used in its first second, takes one second more.
            timeout: Duration::from_millis(if allowed { 5000 } else { 800 }),
        };
        let outcome = probe.run()?;
        ensure!(
            (outcome == Outcome::Reached) == allowed,
            "{} to {} {to_address} {port}: {outcome:?}, expected allowed: {allowed}\n{}\n{}\n{}",
            from.name,
            to.name,
            String::from_utf8_lossy(&daemon.netpol(&["observe", "--last", "40"])?.stdout),
            String::from_utf8_lossy(&daemon.netpol(&["status"])?.stdout),
            daemon.log()
        );
    }
    ensure!(!to.addresses.is_empty(), "{} has no address", to.name);
    Ok(())
}

fn status(daemon: &Daemon) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(
        &daemon.netpol(&["status", "-o", "json"])?.stdout,
    )?)
}

fn names(daemon: &Daemon) -> Result<Vec<String>> {
    let status = status(daemon)?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let name = |one: &serde_json::Value| {
        Some(format!(
            "{}/{}",
            one["namespace"].as_str()?,
            one["name"].as_str()?
        ))
    };
    Ok(endpoints.iter().filter_map(name).collect())
}

fn follow(lab: &Lab, containerd: &Containerd) -> Result<Daemon> {
    let daemon = Daemon::prepare_following(lab, None, Some(&containerd.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    Ok(daemon)
}

/// The endpoint of this name, as `netpol status` has it.
fn endpoint(daemon: &Daemon, name: &str) -> Result<serde_json::Value> {
    let status = status(daemon)?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let found = endpoints.iter().find(|one| one["name"] == name);
    found
        .cloned()
        .with_context(|| format!("no {name}: {status}"))
}

fn labels_decide(kind: &str) -> Result<()> {
    let lab = Lab::new()?;
    let mut containerd = Containerd::start(&lab)?;
    containerd.network("lab", &plugins(kind))?;
    let db = service(&containerd, "db", &["--cni"])?;
    let mut daemon = follow(&lab, &containerd)?;
    daemon.launch()?;
    daemon.wait()?;
    let web = service(&containerd, "web", &["--cni"])?;
    let other = service(&containerd, "other", &["--cni"])?;
    daemon.wait()?;
    let enforced = |daemon: &Daemon| -> Result<()> {
        expect(daemon, (&web, &db), 5432, true)?;
        expect(daemon, (&web, &db), 5433, false)?;
        expect(daemon, (&other, &db), 5432, false)?;
        expect(daemon, (&db, &other), 5432, true)
    };
    enforced(&daemon)?;
    ensure!(
        names(&daemon)? == ["shop/db", "shop/other", "shop/web"],
        "{:?}",
        names(&daemon)?
    );

    containerd.kill()?;
    enforced(&daemon).context("containerd has ended")?;
    daemon.kill()?;
    daemon.launch()?;
    daemon.wait()?;
    enforced(&daemon).context("containerd and the daemon have ended")?;
    containerd.launch()?;
    daemon.wait()?;
    enforced(&daemon).context("containerd is back")?;
    let late = service(&containerd, "late", &["--cni"])?;
    daemon.wait()?;
    expect(&daemon, (&late, &db), 5432, false).context("made after containerd was back")?;
    expect(&daemon, (&db, &late), 5432, true)?;

    containerd.remove("default", "other")?;
    daemon.wait()?;
    ensure!(
        names(&daemon)? == ["shop/db", "shop/late", "shop/web"],
        "{:?}",
        names(&daemon)?
    );
    let name = lab.name.clone();
    drop((daemon, containerd, lab));
    residue::check(&name)
}

#[test]
fn labels_decide_on_a_bridge() -> Result<()> {
    labels_decide("bridge")
}

#[test]
fn labels_decide_between_routed_pairs() -> Result<()> {
    labels_decide("ptp")
}

#[test]
fn labels_decide_between_macvlans() -> Result<()> {
    labels_decide("macvlan")
}

#[test]
fn the_parts_of_a_pod_are_one_endpoint() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = Containerd::start(&lab)?;
    containerd.network("lab", &plugins("bridge"))?;
    let mut daemon = follow(&lab, &containerd)?;
    daemon.launch()?;
    daemon.wait()?;
    let part = |kind: &str, pod: &str, app: &str| {
        [
            format!("io.cri-containerd.kind={kind}"),
            format!("io.kubernetes.pod.name={pod}"),
            "io.kubernetes.pod.namespace=shop".to_owned(),
            format!("io.kubernetes.pod.uid=uid-of-{pod}"),
            format!("app={app}"),
        ]
    };
    let run = |id: &str, labels: &[String], options: &[&str]| {
        containerd.run("k8s.io", id, &labelled(labels, options), &IDLE)
    };
    let sandbox = run("pause", &part("sandbox", "store-0", "db"), &["--cni"])?;
    let with = format!("network:/proc/{}/ns/net", sandbox.pid);
    // What the container itself is labelled does not count.
    let main = run(
        "main",
        &part("container", "store-0", "web"),
        &["--with-ns", &with],
    )?;
    let web = service(&containerd, "web", &["--cni"])?;
    let with = format!("network:/proc/{}/ns/net", web.pid);
    let side = service(&containerd, "side", &["--with-ns", &with])?;
    let other = service(&containerd, "other", &["--cni"])?;
    let on_host = part("sandbox", "agent", "agent");
    run("agent-pause", &on_host, &["--net-host"])?;
    run(
        "agent",
        &part("container", "agent", "agent"),
        &["--net-host"],
    )?;
    // Docker tells of its own itself.
    containerd.run("moby", "dockers", &["--net-host"], &IDLE)?;
    daemon.wait()?;
    let check = |daemon: &Daemon| -> Result<()> {
        let found = names(daemon)?;
        ensure!(
            found == ["shop/other", "shop/store-0", "shop/web"],
            "{found:?}"
        );
        expect(daemon, (&side, &main), 5432, true)?;
        expect(daemon, (&other, &main), 5432, false)?;
        let status = status(daemon)?;
        let unprotected = status["unprotected"].as_array().context("none")?;
        ensure!(
            unprotected.len() == 1 && unprotected[0]["container"] == "shop/agent",
            "{status}"
        );
        Ok(())
    };
    check(&daemon)?;
    daemon.stop()?;
    daemon.launch()?;
    daemon.wait()?;
    check(&daemon).context("after a restart")?;
    // The Pod's first container ends and another one takes its place.
    containerd.remove("k8s.io", "main")?;
    daemon.wait()?;
    ensure!(names(&daemon)?.len() == 3, "{:?}", names(&daemon)?);
    Ok(())
}

#[test]
fn a_container_never_sends_what_is_denied_and_its_first_connection_arrives() -> Result<()> {
    for kind in ["bridge", "ptp"] {
        let lab = Lab::new()?;
        let containerd = Containerd::start(&lab)?;
        containerd.network("lab", &plugins(kind))?;
        let mut daemon = follow(&lab, &containerd)?;
        daemon.launch()?;
        daemon.wait()?;
        let labels = ["netpold.io/namespace=shop", "app=db"].map(ToOwned::to_owned);
        let serve = "while true; do nc -l -p 5432 -e echo hello; done";
        let options = labelled(&labels, &["--cni"]);
        let db = containerd.run("default", "db", &options, &["sh", "-c", serve])?;
        let address = db.addresses[0].to_string();
        let dial = format!(
            "for i in 1 2 3; do nc -w 1 {address} 5432 </dev/null && exit 0; done; echo no"
        );
        for (app, allowed) in [("web", true), ("other", false), ("web", true)] {
            let answer = containerd.say(
                "default",
                "short",
                &[
                    "--cni",
                    "--label",
                    "netpold.io/namespace=shop",
                    "--label",
                    &format!("app={app}"),
                ],
                &["sh", "-c", &dial],
            )?;
            ensure!(
                (answer == "hello") == allowed,
                "{kind}: {app}: {answer}\n{}",
                daemon.log()
            );
        }
    }
    Ok(())
}

/// Two containers talk, a word at a time, while something happens. How many words were answered;
/// an error, where one was not.
fn conversation(from: &Running, to: &Running, act: impl FnOnce() -> Result<()>) -> Result<u32> {
    let address = SocketAddr::new(*to.addresses.first().context("no address")?, 5432);
    let listener = netns::inside(&to.netns(), || TcpListener::bind(address))??;
    let server = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut word = [0; 4];
        while stream.read_exact(&mut word).is_ok() {
            stream.write_all(&word)?;
        }
        Ok(())
    });
    let mut stream = netns::inside(&from.netns(), || TcpStream::connect(address))??;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let done = AtomicBool::new(false);
    let said = thread::scope(|scope| -> Result<u32> {
        let talk = scope.spawn(|| -> Result<u32> {
            let mut said = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let word = said.to_be_bytes();
                stream.write_all(&word)?;
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).context("no answer")?;
                ensure!(answer == word, "another answer");
                said += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Ok(said)
        });
        let acted = act();
        done.store(true, Ordering::Relaxed);
        let said = talk.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        acted.and(said)
    });
    drop(stream);
    server.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    said
}

#[test]
fn restarts_of_both_lose_no_word() -> Result<()> {
    let lab = Lab::new()?;
    let mut containerd = Containerd::start(&lab)?;
    containerd.network("lab", &plugins("bridge"))?;
    let mut daemon = follow(&lab, &containerd)?;
    daemon.launch()?;
    let db = service(&containerd, "db", &["--cni"])?;
    let web = service(&containerd, "web", &["--cni"])?;
    let other = service(&containerd, "other", &["--cni"])?;
    daemon.wait()?;
    let before = endpoint(&daemon, "db")?["id"].clone();
    let said = conversation(&web, &db, || {
        for _ in 0..2 {
            containerd.kill()?;
            thread::sleep(Duration::from_millis(300));
            daemon.kill()?;
            daemon.launch()?;
            daemon.wait()?;
            expect(&daemon, (&other, &db), 5433, false)?;
            containerd.launch()?;
            daemon.wait()?;
            daemon.stop()?;
            daemon.launch()?;
            daemon.wait()?;
        }
        Ok(())
    })?;
    ensure!(said > 100, "{said} words");
    ensure!(endpoint(&daemon, "db")?["id"] == before, "another number");
    // A container that came and one that went while the daemon was down.
    daemon.stop()?;
    containerd.remove("default", "other")?;
    let fresh = service(&containerd, "fresh", &["--cni"])?;
    daemon.launch()?;
    daemon.wait()?;
    let found = names(&daemon)?;
    ensure!(found == ["shop/db", "shop/fresh", "shop/web"], "{found:?}");
    expect(&daemon, (&fresh, &db), 5433, false)
}

#[test]
fn an_address_that_a_container_gives_itself_is_not_its_own() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = Containerd::start(&lab)?;
    containerd.network("lab", &plugins("bridge"))?;
    let mut daemon = follow(&lab, &containerd)?;
    daemon.launch()?;
    let web = service(&containerd, "web", &["--cni", "--cap-add", "CAP_NET_ADMIN"])?;
    daemon.wait()?;
    let before = endpoint(&daemon, "web")?["addresses"].clone();
    let taken = "10.88.77.7/16";
    containerd.ctr(
        "default",
        &[
            "task",
            "exec",
            "--exec-id",
            "x",
            "web",
            "ip",
            "addr",
            "add",
            taken,
            "dev",
            "eth0",
        ],
    )?;
    for restart in [false, true] {
        if restart {
            daemon.stop()?;
            daemon.launch()?;
        }
        daemon.wait()?;
        let after = endpoint(&daemon, "web")?["addresses"].clone();
        ensure!(before == after, "restarted: {restart}: {before} {after}");
    }
    // It has what it took, but for netpold.
    let now = containerd.look("default", "web")?;
    ensure!(now.addresses.len() == web.addresses.len() + 1, "{now:?}");
    Ok(())
}

#[test]
fn a_strict_network_starts_what_is_in_force() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = Containerd::start(&lab)?;
    let mut daemon = follow(&lab, &containerd)?;
    let strict = |on_timeout: &str| -> Result<()> {
        let mut plugins = plugins("bridge");
        let own = json!({
            "type": "netpold-cni", "socket": daemon.socket(), "timeout": 2, "onTimeout": on_timeout,
        });
        plugins
            .as_array_mut()
            .context("no list of plugins")?
            .push(own);
        containerd.network("lab", &plugins)
    };
    strict("refuse")?;
    let Err(refused) = service(&containerd, "early", &["--cni"]) else {
        anyhow::bail!("it started without netpold");
    };
    ensure!(
        refused.to_string().contains("no netpold answers"),
        "{refused}"
    );
    strict("allow")?;
    service(&containerd, "allowed", &["--cni"]).context("allowed")?;
    strict("refuse")?;
    daemon.launch()?;
    daemon.wait()?;
    let db = service(&containerd, "db", &["--cni"])?;
    // No wait is needed: it is in force since before it started.
    let web = service(&containerd, "web", &["--cni"])?;
    let found = names(&daemon)?;
    ensure!(
        found.contains(&"shop/db".to_owned()) && found.contains(&"shop/web".to_owned()),
        "{found:?}"
    );
    expect(&daemon, (&web, &db), 5432, true)?;
    expect(&daemon, (&web, &db), 5433, false)
}
