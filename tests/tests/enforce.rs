//! The whole daemon on declared Pods: files in, packets dropped or not. Needs root.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::datapath::requirements;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use netpold_tests::{Daemon, Lab, residue};

const V4: usize = 0;
const V6: usize = 1;

/// `web/front`, `db/store` and `db/other`, on both families.
fn lab() -> Result<Lab> {
    let mut lab = Lab::new()?;
    for (number, name) in ["web/front", "db/store", "db/other"].iter().enumerate() {
        let (v4, v6) = (
            format!("10.77.1.{}/16", number + 1),
            format!("fd77::1{}/64", number + 1),
        );
        lab.add_pod(name, &[v4.parse()?, v6.parse()?])?;
    }
    Ok(lab)
}

/// A daemon that knows the lab's Pods, labelled by their name.
fn daemon(lab: &Lab) -> Result<Daemon> {
    let mut daemon = Daemon::prepare(lab, "")?;
    declare(lab, &daemon)?;
    daemon.launch()?;
    daemon.wait()?;
    Ok(daemon)
}

fn declare(lab: &Lab, daemon: &Daemon) -> Result<()> {
    for pod in lab.pods() {
        let name = pod.reference.replace('/', "-");
        let app = pod.reference.split('/').next_back().unwrap_or_default();
        daemon.put(&format!("pod-{name}.json"), &pod.manifest(&[("app", app)])?)?;
    }
    Ok(())
}

/// A policy for `db/store`: only `web/front` may, on this port.
fn only_front(protocol: Protocol, port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: only-front, namespace: db}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: store}}}}\n  policyTypes: [Ingress]\n  ingress:\n  \
         - from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: web}}}}, podSelector: {{matchLabels: {{app: front}}}}}}]\n    \
         ports: [{{protocol: {protocol}, port: {port}}}]\n"
    )
}

fn outcome(
    lab: &Lab,
    (from, to): (&str, &str),
    family: usize,
    protocol: Protocol,
    port: u16,
) -> Result<Outcome> {
    let (from, to) = (lab.pod(from)?, lab.pod(to)?);
    let probe = Probe {
        from: from.namespace.path(),
        source: from.addresses[family],
        to: Some(to.namespace.path()),
        destination: SocketAddr::new(to.addresses[family], port),
        protocol,
        timeout: Duration::from_millis(800),
    };
    Ok(probe.run()?)
}

/// Holds probes on both families against what is expected.
fn expect(
    lab: &Lab,
    daemon: &Daemon,
    ends: (&str, &str),
    protocol: Protocol,
    port: u16,
    allowed: bool,
) -> Result<()> {
    for family in [V4, V6] {
        let outcome = outcome(lab, ends, family, protocol, port)?;
        ensure!(
            (outcome == Outcome::Reached) == allowed,
            "{ends:?} {protocol} {port} (family {family}): {outcome:?}, expected allowed: {allowed}\n{}",
            daemon.log()
        );
    }
    Ok(())
}

fn ping(lab: &Lab, from: &str, to: &str) -> Result<bool> {
    let target = lab.pod(to)?.addresses[V4];
    let status = std::process::Command::new("ip")
        .args(["netns", "exec", lab.pod(from)?.namespace.name()])
        .args(["busybox", "ping", "-c1", "-W1", "-q", &target.to_string()])
        .stdout(std::process::Stdio::null())
        .status()
        .context("can't run busybox: its ping is needed")?;
    Ok(status.success())
}

#[test]
fn a_policy_file_decides_about_packets() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    let (front, other) = (("web/front", "db/store"), ("db/other", "db/store"));
    for ends in [front, other] {
        for protocol in Protocol::ALL {
            expect(&lab, &daemon, ends, protocol, 5432, true)?;
        }
    }
    ensure!(ping(&lab, "db/other", "db/store")?, "nothing isolates yet");

    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.wait()?;
    expect(&lab, &daemon, front, Protocol::Tcp, 5432, true)?;
    expect(&lab, &daemon, front, Protocol::Tcp, 5433, false)?;
    expect(&lab, &daemon, front, Protocol::Udp, 5432, false)?;
    for protocol in Protocol::ALL {
        expect(&lab, &daemon, other, protocol, 5432, false)?;
        // The other way round nothing isolates.
        let back = ("db/store", "db/other");
        expect(&lab, &daemon, back, protocol, 5432, true)?;
    }
    ensure!(!ping(&lab, "db/other", "db/store")?, "ICMP is not allowed");
    ensure!(ping(&lab, "db/store", "db/other")?, "its replies are");

    // A change, then the removal.
    daemon.put("policy.yaml", &only_front(Protocol::Udp, 5432))?;
    daemon.wait()?;
    expect(&lab, &daemon, front, Protocol::Tcp, 5432, false)?;
    expect(&lab, &daemon, front, Protocol::Udp, 5432, true)?;
    daemon.remove("policy.yaml")?;
    daemon.wait()?;
    expect(&lab, &daemon, other, Protocol::Tcp, 5432, true)?;
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn egress_is_isolated_as_well() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    daemon.put(
        "egress.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out, namespace: db}\n\
         spec:\n  podSelector: {matchLabels: {app: other}}\n  policyTypes: [Egress]\n  egress:\n  \
         - to: [{podSelector: {matchLabels: {app: store}}}]\n    ports: [{port: 80}]\n",
    )?;
    daemon.wait()?;
    expect(
        &lab,
        &daemon,
        ("db/other", "db/store"),
        Protocol::Tcp,
        80,
        true,
    )?;
    expect(
        &lab,
        &daemon,
        ("db/other", "db/store"),
        Protocol::Tcp,
        81,
        false,
    )?;
    expect(
        &lab,
        &daemon,
        ("db/other", "web/front"),
        Protocol::Tcp,
        80,
        false,
    )?;
    expect(
        &lab,
        &daemon,
        ("web/front", "db/other"),
        Protocol::Tcp,
        80,
        true,
    )?;
    Ok(())
}

#[test]
fn an_invalid_file_keeps_what_was_in_force() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.wait()?;
    daemon.put("policy.yaml", "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: x}\nspec: {podSelektor: {}}\n")?;
    let waited = daemon.netpol(&["wait"])?;
    ensure!(waited.status.code() == Some(1), "{waited:?}");
    let status = daemon.netpol(&["status", "-o", "json"])?;
    ensure!(status.status.code() == Some(1), "{status:?}");
    let text = String::from_utf8_lossy(&status.stdout);
    ensure!(
        text.contains("podSelektor") && text.contains("db/only-front"),
        "{text}"
    );
    expect(
        &lab,
        &daemon,
        ("web/front", "db/store"),
        Protocol::Tcp,
        5432,
        true,
    )?;
    expect(
        &lab,
        &daemon,
        ("db/other", "db/store"),
        Protocol::Tcp,
        5432,
        false,
    )?;
    Ok(())
}

/// A TCP connection between two Pods, and its server's end.
fn connection(lab: &Lab, from: &str, to: &str, port: u16) -> Result<(TcpStream, TcpStream)> {
    let address = SocketAddr::new(lab.pod(to)?.addresses[V4], port);
    let listener = netns::inside(&lab.pod(to)?.namespace.path(), || {
        TcpListener::bind(address)
    })??;
    let client = netns::inside(&lab.pod(from)?.namespace.path(), || {
        TcpStream::connect_timeout(&address, Duration::from_secs(5))
    })??;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(Duration::from_secs(3)))?;
    }
    Ok((client, server))
}

fn speaks((client, server): &mut (TcpStream, TcpStream)) -> Result<()> {
    let mut byte = [0];
    client.write_all(b"x")?;
    server.read_exact(&mut byte).context("to the server")?;
    server.write_all(b"y")?;
    client.read_exact(&mut byte).context("to the client")?;
    Ok(())
}

#[test]
fn a_crash_changes_nothing_and_a_new_daemon_goes_on() -> Result<()> {
    let lab = lab()?;
    let mut daemon = daemon(&lab)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.wait()?;
    let mut connection = connection(&lab, "web/front", "db/store", 5432)?;
    speaks(&mut connection)?;
    let before = daemon.netpol(&["status", "-o", "json"])?.stdout;
    daemon.kill()?;
    let other = ("db/other", "db/store");
    expect(&lab, &daemon, other, Protocol::Tcp, 5432, false)?;
    speaks(&mut connection).context("without a daemon")?;
    daemon.launch()?;
    daemon.wait()?;
    speaks(&mut connection).context("with a new daemon")?;
    expect(&lab, &daemon, other, Protocol::Tcp, 5432, false)?;
    let endpoints = |text: &[u8]| -> Result<serde_json::Value> {
        let status: serde_json::Value = serde_json::from_slice(text)?;
        Ok(status["endpoints"].clone())
    };
    let after = daemon.netpol(&["status", "-o", "json"])?.stdout;
    ensure!(
        endpoints(&before)? == endpoints(&after)?,
        "the endpoints have other numbers: {} {}",
        String::from_utf8_lossy(&before),
        String::from_utf8_lossy(&after)
    );
    // The policy went while no daemon ran.
    daemon.stop()?;
    speaks(&mut connection).context("after a stop")?;
    expect(&lab, &daemon, other, Protocol::Tcp, 5432, false)?;
    daemon.remove("policy.yaml")?;
    daemon.launch()?;
    daemon.wait()?;
    expect(&lab, &daemon, other, Protocol::Tcp, 5432, true)?;
    speaks(&mut connection)?;
    Ok(())
}

#[test]
fn a_connection_that_the_new_policy_denies_is_cut() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    let mut connection = connection(&lab, "db/other", "db/store", 5432)?;
    speaks(&mut connection)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.wait()?;
    ensure!(speaks(&mut connection).is_err(), "it goes on");
    Ok(())
}

#[test]
fn a_namespace_that_comes_later_is_enforced_and_one_that_goes_is_forgotten() -> Result<()> {
    let mut lab = lab()?;
    let daemon = daemon(&lab)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    lab.add_pod(
        "web/late",
        &["10.77.1.9/16".parse()?, "fd77::19/64".parse()?],
    )?;
    let late = lab.pod("web/late")?;
    daemon.put("late.json", &late.manifest(&[("app", "front")])?)?;
    daemon.wait()?;
    expect(
        &lab,
        &daemon,
        ("web/late", "db/store"),
        Protocol::Tcp,
        5432,
        true,
    )?;
    // Its labels change: no policy knows it any more.
    daemon.put("late.json", &late.manifest(&[("app", "late")])?)?;
    daemon.wait()?;
    expect(
        &lab,
        &daemon,
        ("web/late", "db/store"),
        Protocol::Tcp,
        5432,
        false,
    )?;
    daemon.remove("late.json")?;
    daemon.wait()?;
    let status = String::from_utf8(daemon.netpol(&["status", "-o", "json"])?.stdout)?;
    ensure!(
        !status.contains("web/late") && !status.contains("\"late\""),
        "{status}"
    );
    Ok(())
}

#[test]
fn drops_are_named() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.wait()?;
    expect(
        &lab,
        &daemon,
        ("db/other", "db/store"),
        Protocol::Tcp,
        5432,
        false,
    )?;
    let flows = daemon.netpol(&["observe", "--verdict", "dropped", "-o", "json"])?;
    let text = String::from_utf8_lossy(&flows.stdout);
    ensure!(
        text.contains("only-front") && text.contains("\"other\"") && text.contains("POLICY_DENIED"),
        "{text}"
    );
    Ok(())
}

#[test]
fn programs_that_are_taken_off_are_put_back() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.wait()?;
    let links = daemon.pins().join("links");
    let with_tcx = requirements::has_tcx();
    if with_tcx {
        for link in std::fs::read_dir(&links)? {
            std::fs::remove_file(link?.path())?;
        }
    } else {
        // All filters go with what they hang on.
        for pod in lab.pods() {
            lab.tc(&["qdisc", "del", "dev", &pod.host_interface, "clsact"])?;
        }
    }
    // What detaches is detached by the kernel a little later; the daemon looks when it is asked.
    daemon.wait()?;
    expect(
        &lab,
        &daemon,
        ("db/other", "db/store"),
        Protocol::Tcp,
        5432,
        false,
    )?;
    if with_tcx {
        ensure!(std::fs::read_dir(&links)?.count() == 6, "not all are back");
        return Ok(());
    }
    for pod in lab.pods() {
        for hook in ["ingress", "egress"] {
            let shown = lab.tc(&["filter", "show", "dev", &pod.host_interface, hook])?;
            ensure!(shown.contains("netpold_"), "{hook}: {shown}");
        }
    }
    Ok(())
}

#[test]
fn metrics_tell_of_drops() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::prepare(&lab, "[metrics]\nlisten = \"127.0.0.1:9469\"")?;
    declare(&lab, &daemon)?;
    daemon.put("policy.yaml", &only_front(Protocol::Tcp, 5432))?;
    daemon.launch()?;
    daemon.wait()?;
    expect(
        &lab,
        &daemon,
        ("db/other", "db/store"),
        Protocol::Tcp,
        5432,
        false,
    )?;
    let mut stream = netns::inside(&lab.host().path(), || {
        TcpStream::connect(("127.0.0.1", 9469))
    })??;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let dropped = text.lines().find_map(|line| {
        line.strip_prefix(
            "netpold_packets_total{reason=\"policy-denied\",direction=\"ingress\",verdict=\"dropped\"} ",
        )
    });
    let dropped: u64 = dropped.context("no such line")?.parse()?;
    ensure!(
        dropped > 0 && text.contains("netpold_endpoints 3"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_bad_configuration_and_a_second_daemon_are_refused_in_a_sentence() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab)?;
    let netpold = netpold_tests::daemon::binary("netpold")?;
    let second = std::process::Command::new(&netpold)
        .arg("--config")
        .arg(daemon.config())
        .output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(
        second.status.code() == Some(1) && said.contains("another netpold answers on"),
        "{said}"
    );
    let wrong = daemon.config().with_file_name("wrong.toml");
    std::fs::write(&wrong, "[docker]\nenabeld = true\n")?;
    let refused = std::process::Command::new(&netpold)
        .arg("--config")
        .arg(&wrong)
        .output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(2) && said.contains("enabeld") && said.contains(":2:"),
        "{said}"
    );
    Ok(())
}
