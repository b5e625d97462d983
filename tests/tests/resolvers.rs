//! Whom containers ask for names, and whose questions no policy sees. Needs root, dockerd and busybox.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use netpold::probe::namespace;
use netpold_tests::daemon::binary;
use netpold_tests::docker::{Running, copy_of_etc, resolving};
use netpold_tests::outside::Outside;
use netpold_tests::{Daemon, Engine, Lab, residue};

const IDLE: [&str; 2] = ["sleep", "1000"];
const ON_A_NETWORK: [&str; 2] = ["--network", "shop"];
/// Docker's own resolver in a container.
const EMBEDDED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Resolvers beyond the host: the first, the one that replaces it, and one that is given by hand.
const OLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const NEW: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const GIVEN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

const CLOSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\n\
    spec: {podSelector: {}, policyTypes: [Egress]}\n";
const DNS: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: dns}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress:\n  \
    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, \
    podSelector: {matchLabels: {k8s-app: kube-dns}}}]\n    \
    ports: [{port: 53, protocol: UDP}, {port: 53}]\n";

/// Answers every question for an IPv4 address, in this namespace, with the address that was asked.
fn serve(netns: &Path, own: Ipv4Addr) -> Result<()> {
    let socket = namespace::inside(netns, move || UdpSocket::bind((own, 53)))??;
    // It ends with the suite.
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let mut answer = question[..length].to_vec();
            // An answer (RFC 1035, 4.1.1), with one record and no additional ones.
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            let name = answer[12..].iter().position(|byte| *byte == 0).unwrap_or(0);
            answer.truncate(12 + name + 5);
            // The question's name, type A, class IN, a minute, four octets.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(own.octets());
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(())
}

/// Which resolver answers a question to `resolver`, asked from this container's network namespace.
fn ask(container: &Running, resolver: Ipv4Addr) -> Result<Option<Ipv4Addr>> {
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04name\x07example\0\0\x01\0\x01";
    let asked = move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(1500)))?;
        socket.connect((resolver, 53))?;
        let mut answer = [0; 512];
        // A refusal (ICMP, or a failure of Docker's resolver) is no answer, as silence is none.
        let length = socket.send(question).and_then(|_| socket.recv(&mut answer));
        let answer = length.map(|length| answer[..length].to_vec());
        std::io::Result::Ok(answer.unwrap_or_default())
    };
    let answer = namespace::inside(&container.netns(), asked)??;
    let is_answer = answer.len() > question.len() && answer[3] & 0xf == 0;
    let octets: Option<[u8; 4]> = answer.last_chunk().copied().filter(|_| is_answer);
    Ok(octets.map(Ipv4Addr::from))
}

fn expect(daemon: &Daemon, who: &Running, whom: Ipv4Addr, answers: Option<Ipv4Addr>) -> Result<()> {
    let found = ask(who, whom)?;
    ensure!(
        found == answers,
        "{} asks {whom}: {found:?} answers, expected {answers:?}\n{}",
        who.name,
        daemon.log()
    );
    Ok(())
}

fn netpold(daemon: &mut Daemon, etc: &Path) -> Result<()> {
    daemon.launch_by(resolving(etc, &binary("netpold")?))?;
    daemon.wait()
}

/// Replaces the file, as DHCP clients do.
fn resolve_by(etc: &Path, resolver: Ipv4Addr) -> Result<()> {
    let new = etc.join("resolv.conf.new");
    fs::write(&new, format!("nameserver {resolver}\n"))?;
    Ok(fs::rename(new, etc.join("resolv.conf"))?)
}

/// A replaced file is noticed by its event, which nothing asks for.
fn until_known(daemon: &Daemon, who: &str, whom: Ipv4Addr) -> Result<()> {
    let to = format!("ip:{whom}");
    let question = [
        "verdict",
        "--from",
        who,
        "--to",
        &to,
        "--port",
        "53",
        "--protocol",
        "UDP",
    ];
    netpold_tests::patience::within("the resolver is known", || {
        Ok(daemon.netpol(&question)?.status.success())
    })
}

#[test]
fn a_container_may_ask_whom_it_was_given_at_its_start() -> Result<()> {
    let lab = Lab::new()?;
    let beyond = [OLD, NEW, GIVEN];
    let outside = Outside::new(&lab, &beyond.map(IpAddr::V4).into())?;
    for resolver in beyond {
        serve(&outside.path(), resolver)?;
    }
    let directory = tempfile::tempdir()?;
    let etc = copy_of_etc(directory.path())?;
    resolve_by(&etc, OLD)?;
    let engine = Engine::start_resolving(&lab, &etc)?;
    engine.docker(&["network", "create", "shop"])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("dns.yaml", DNS)?;
    netpold(&mut daemon, &etc)?;
    let early = engine.run("early", &ON_A_NETWORK, &IDLE)?;
    let plain = engine.run("plain", &[], &IDLE)?;
    daemon.wait()?;
    expect(&daemon, &early, EMBEDDED, Some(OLD))?;
    expect(&daemon, &plain, OLD, Some(OLD))?;
    expect(&daemon, &plain, NEW, None)?;

    resolve_by(&etc, NEW)?;
    until_known(&daemon, "default/early", NEW)?;
    expect(&daemon, &early, EMBEDDED, Some(OLD))?;
    expect(&daemon, &plain, OLD, Some(OLD))?;
    let late = engine.run("late", &ON_A_NETWORK, &IDLE)?;
    daemon.wait()?;
    expect(&daemon, &late, EMBEDDED, Some(NEW))?;

    // Another daemon reads the new file, and knows of the old one.
    daemon.kill()?;
    netpold(&mut daemon, &etc)?;
    expect(&daemon, &early, EMBEDDED, Some(OLD))?;
    expect(&daemon, &plain, OLD, Some(OLD))?;
    expect(&daemon, &late, EMBEDDED, Some(NEW))?;

    expect(&daemon, &late, GIVEN, None)?;
    let server = GIVEN.to_string();
    let by_hand = [&ON_A_NETWORK[..], &["--dns", &server]].concat();
    let given = engine.run("given", &by_hand, &IDLE)?;
    daemon.wait()?;
    expect(&daemon, &given, EMBEDDED, Some(GIVEN))?;

    // What nobody has any longer is nobody's resolver.
    engine.docker(&["rm", "--force", "given", "early", "plain"])?;
    daemon.wait()?;
    expect(&daemon, &late, GIVEN, None)?;
    expect(&daemon, &late, OLD, None)?;
    expect(&daemon, &late, NEW, Some(NEW))?;
    let name = lab.name.clone();
    drop((daemon, engine, outside, lab));
    residue::check(&name)
}

fn unprotected(daemon: &Daemon) -> Result<(bool, Vec<String>)> {
    let output = daemon.netpol(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let listed = status["unprotected"].as_array().context("no list")?;
    let names = listed.iter().filter_map(|one| one["container"].as_str());
    let names = names.map(ToOwned::to_owned).collect();
    Ok((output.status.success(), names))
}

#[test]
fn whose_names_are_asked_for_past_its_policy_is_said() -> Result<()> {
    let lab = Lab::new()?;
    serve(&lab.host().path(), Ipv4Addr::LOCALHOST)?;
    let directory = tempfile::tempdir()?;
    let etc = copy_of_etc(directory.path())?;
    resolve_by(&etc, Ipv4Addr::LOCALHOST)?;
    let engine = Engine::start_resolving(&lab, &etc)?;
    engine.docker(&["network", "create", "shop"])?;
    let settings = netpold_tests::daemon::WITH_METRICS;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), settings)?;
    netpold(&mut daemon, &etc)?;
    let open = engine.run("open", &ON_A_NETWORK, &IDLE)?;
    engine.run("plain", &[], &IDLE)?;
    let server = GIVEN.to_string();
    let by_hand = [&ON_A_NETWORK[..], &["--dns", &server]].concat();
    let given = engine.run("given", &by_hand, &IDLE)?;
    daemon.wait()?;
    ensure!(
        unprotected(&daemon)? == (true, Vec::new()),
        "none is isolated"
    );

    daemon.put("policy.yaml", CLOSED)?;
    daemon.wait()?;
    // It is so, and it is said.
    expect(&daemon, &open, EMBEDDED, Some(Ipv4Addr::LOCALHOST))?;
    let expected = (false, vec!["default/open".to_owned()]);
    let found = unprotected(&daemon)?;
    ensure!(found == expected, "{found:?}\n{}", daemon.log());
    ensure!(daemon.metrics()?["netpold_unprotected_containers"] == 1);
    ensure!(
        daemon
            .log()
            .contains("resolves names past its egress policy"),
        "{}",
        daemon.log()
    );
    for verb in ["verdict", "explain"] {
        let said = |from| -> Result<bool> {
            let to = "kube-system/kube-dns";
            let output = daemon.netpol(&[
                verb,
                "--from",
                from,
                "--to",
                to,
                "--port",
                "53",
                "--protocol",
                "UDP",
            ])?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(
                !output.status.success() && text.contains("denied"),
                "{text}"
            );
            Ok(text.contains("asks from the host's network"))
        };
        ensure!(said("default/open")? && !said("default/given")?, "{verb}");
    }
    // Another daemon knows it too.
    daemon.kill()?;
    netpold(&mut daemon, &etc)?;
    ensure!(unprotected(&daemon)? == expected, "{}", daemon.log());
    expect(&daemon, &given, EMBEDDED, None)?;

    daemon.put("policy.yaml", DNS)?;
    daemon.wait()?;
    ensure!(unprotected(&daemon)? == (true, Vec::new()));
    ensure!(
        daemon
            .log()
            .contains("no longer: the container is not protected"),
        "{}",
        daemon.log()
    );
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}
