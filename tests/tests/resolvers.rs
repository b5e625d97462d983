//! Whom containers ask for names, and whose questions no policy sees. Needs root, dockerd and busybox.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::netns;
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

/// How many questions a resolver was asked.
type Asked = Arc<AtomicUsize>;

/// Answers every question for an IPv4 address, in this namespace, over UDP and TCP, with the address that was asked.
fn serve(netns: &Path, own: Ipv4Addr) -> Result<Asked> {
    let asked = Asked::default();
    let udp = netns::inside(netns, move || UdpSocket::bind((own, 53)))??;
    let tcp = netns::inside(netns, move || TcpListener::bind((own, 53)))??;
    // They end with the suite.
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut question) {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = udp.send_to(&answer(&question[..length], own), from);
        }
    });
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { continue };
            let count = Arc::clone(&count);
            thread::spawn(move || -> std::io::Result<()> {
                loop {
                    let question = read_framed(&mut stream)?;
                    count.fetch_add(1, Ordering::SeqCst);
                    write_framed(&mut stream, &answer(&question, own))?;
                }
            });
        }
    });
    Ok(asked)
}

/// A message over TCP has its length before it (RFC 1035, 4.2.2).
fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

fn answer(question: &[u8], own: Ipv4Addr) -> Vec<u8> {
    let mut answer = question.to_vec();
    // An answer (RFC 1035, 4.1.1), with one record and no additional ones.
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let name = answer[12..].iter().position(|byte| *byte == 0).unwrap_or(0);
    answer.truncate(12 + name + 5);
    // The question's name, type A, class IN, a minute, four octets.
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(own.octets());
    answer
}

/// Which resolver answers a question to `resolver`, asked from this container's network namespace.
fn ask(container: &Running, resolver: Ipv4Addr) -> Result<Option<Ipv4Addr>> {
    ask_for(container, resolver, Protocol::Udp, "name.example")
}

/// The address that it gives for a name.
fn ask_for(
    container: &Running,
    resolver: Ipv4Addr,
    protocol: Protocol,
    name: &str,
) -> Result<Option<Ipv4Addr>> {
    let mut question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let length = question.len();
    let time = Duration::from_millis(1500);
    let over_udp = |question: &[u8]| -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(time))?;
        socket.connect((resolver, 53))?;
        let mut answer = [0; 512];
        socket.send(question)?;
        let length = socket.recv(&mut answer)?;
        Ok(answer[..length].to_vec())
    };
    let over_tcp = |question: &[u8]| -> std::io::Result<Vec<u8>> {
        let to = SocketAddr::from((resolver, 53));
        let mut stream = TcpStream::connect_timeout(&to, time)?;
        stream.set_read_timeout(Some(time))?;
        write_framed(&mut stream, question)?;
        read_framed(&mut stream)
    };
    let asked = move || match protocol {
        Protocol::Tcp => over_tcp(&question),
        _ => over_udp(&question),
    };
    // A refusal (ICMP, or a failure of Docker's resolver) is no answer, as silence is none.
    let answer = netns::inside(&container.netns(), asked)?.unwrap_or_default();
    let is_answer = answer.len() > length && answer[3] & 0xf == 0;
    let octets: Option<[u8; 4]> = answer.last_chunk().copied().filter(|_| is_answer);
    Ok(octets.map(Ipv4Addr::from))
}

/// What a verb of netpol says of questions of a Pod's to `kube-dns`: whether they are allowed, and its words.
fn asked_for_names(daemon: &Daemon, verb: &str, from: &str) -> Result<(bool, String)> {
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
    Ok((output.status.success(), text))
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
    netpold_tests::time_scale::within("the resolver is known", || {
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
    let engine = Engine::start_resolving(&lab, &etc, &[])?;
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

    // What no container has any longer is no container's resolver.
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

/// Over both protocols: does the engine's resolver answer a question for a name of the world?
fn resolves(daemon: &Daemon, who: &Running, udp: bool, tcp: bool) -> Result<()> {
    for (protocol, expected) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        let found = ask_for(who, EMBEDDED, protocol, "name.example")?;
        ensure!(
            found == expected.then_some(Ipv4Addr::LOCALHOST),
            "{} asks over {protocol}: {found:?}, expected an answer: {expected}\n{}\n{}",
            who.name,
            String::from_utf8_lossy(&daemon.netpol(&["status"])?.stdout),
            daemon.log()
        );
    }
    Ok(())
}

/// What a container sends to itself arrives, over UDP and TCP, at two loopback addresses.
fn speaks_to_itself(who: &Running) -> Result<()> {
    for own in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 12)] {
        let spoken = move || -> std::io::Result<()> {
            let time = Duration::from_secs(2);
            let server = UdpSocket::bind((own, 0))?;
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            server.set_read_timeout(Some(time))?;
            client.send_to(b"hello", server.local_addr()?)?;
            server.recv(&mut [0; 8])?;
            let server = TcpListener::bind((own, 0))?;
            TcpStream::connect_timeout(&server.local_addr()?, time)?;
            server.accept()?;
            Ok(())
        };
        netns::inside(&who.netns(), spoken)?.context("it does not hear itself")?;
    }
    Ok(())
}

/// Isolated for egress, with leave to ask `kube-dns` over these protocols.
fn asking(protocols: &[Protocol]) -> String {
    let ports = protocols
        .iter()
        .map(|it| format!("{{port: 53, protocol: {it}}}"));
    let ports = ports.collect::<Vec<_>>().join(", ");
    let both = "[{port: 53, protocol: UDP}, {port: 53}]";
    DNS.replace(both, &format!("[{ports}]"))
}

/// A site whose host has a resolver at a loopback address, so that the engine asks it from there.
struct Site {
    daemon: Daemon,
    engine: Engine,
    asked: Asked,
    etc: std::path::PathBuf,
    lab: Lab,
    directory: tempfile::TempDir,
}

impl Site {
    /// `arguments`: the engine's, by what a program of netpold's finds the daemon.
    fn new(arguments: &dyn Fn(&Path) -> Result<Vec<String>>) -> Result<Self> {
        let lab = Lab::new()?;
        let asked = serve(&lab.host().path(), Ipv4Addr::LOCALHOST)?;
        let directory = tempfile::tempdir()?;
        let etc = copy_of_etc(directory.path())?;
        resolve_by(&etc, Ipv4Addr::LOCALHOST)?;
        let arguments = arguments(directory.path())?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let engine = Engine::start_resolving(&lab, &etc, &arguments)?;
        engine.docker(&["network", "create", "shop"])?;
        let settings = netpold_tests::daemon::WITH_METRICS;
        let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), settings)?;
        std::os::unix::fs::symlink(daemon.socket(), directory.path().join("netpold.sock"))?;
        netpold(&mut daemon, &etc)?;
        Ok(Self {
            daemon,
            engine,
            asked,
            etc,
            lab,
            directory,
        })
    }

    fn put(&self, policy: &str) -> Result<()> {
        self.daemon.put("policy.yaml", policy)?;
        self.daemon.wait()
    }

    /// Nothing of it is left.
    fn leave(self) -> Result<()> {
        let name = self.lab.name.clone();
        drop((self.daemon, self.engine, self.lab, self.directory));
        residue::check(&name)
    }
}

/// Is the question judged where the container asks, by all its policies say?
#[test]
fn what_an_engine_asks_from_the_hosts_network_is_judged_as_the_containers_own() -> Result<()> {
    let mut site = Site::new(&|_| Ok(Vec::new()))?;
    let open = site.engine.run("open", &ON_A_NETWORK, &IDLE)?;
    site.engine.run("plain", &[], &IDLE)?;
    let server = GIVEN.to_string();
    let by_hand = [&ON_A_NETWORK[..], &["--dns", &server]].concat();
    let given = site.engine.run("given", &by_hand, &IDLE)?;
    site.daemon.wait()?;
    resolves(&site.daemon, &open, true, true)?;
    let neighbour = |who| ask_for(who, EMBEDDED, Protocol::Udp, "given");
    ensure!(neighbour(&open)?.is_some(), "{}", site.daemon.log());

    site.put(CLOSED)?;
    let before = site.asked.load(Ordering::SeqCst);
    resolves(&site.daemon, &open, false, false)?;
    // As in a cluster, where the resolver is asked for these, too.
    ensure!(neighbour(&open)?.is_none(), "{}", site.daemon.log());
    ensure!(site.asked.load(Ordering::SeqCst) == before, "it was asked");
    speaks_to_itself(&open)?;
    let found = unprotected(&site.daemon)?;
    ensure!(found == (true, Vec::new()), "{found:?}");
    ensure!(site.daemon.metrics()?["netpold_unprotected_containers"] == 0);
    let status = site.daemon.netpol(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    for endpoint in endpoints {
        let interfaces = endpoint["interfaces"].as_array().context("no list")?;
        let loopback = |one: &&serde_json::Value| one["inside"] == "loopback";
        let on: Vec<_> = interfaces.iter().filter(loopback).collect();
        let is_wanted = endpoint["name"] == "open";
        ensure!(
            on.len() == usize::from(is_wanted)
                && on
                    .iter()
                    .all(|one| one["name"] == "lo" && one["attached"] == true),
            "{endpoint}"
        );
    }
    let flows = site.daemon.netpol(&[
        "observe",
        "-o",
        "json",
        "--verdict",
        "dropped",
        "--from",
        "default/open",
        "--to",
        "kube-system/kube-dns",
    ])?;
    let flows = String::from_utf8_lossy(&flows.stdout).into_owned();
    for protocol in ["UDP", "TCP"] {
        let is_it = |flow: serde_json::Value| {
            let flow = if flow["flow"].is_null() {
                &flow
            } else {
                &flow["flow"]
            };
            flow["l4"][protocol]["destination_port"] == 53
                && flow["traffic_direction"] == "EGRESS"
                && flow["extensions"]["value"]["reason"] == "policy-denied"
                && flow["egress_denied_by"][0]["name"] == "closed"
        };
        let mut all = flows
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        ensure!(all.any(is_it), "{protocol}: {flows}");
    }
    for verb in ["verdict", "explain"] {
        let (is_allowed, text) = asked_for_names(&site.daemon, verb, "default/open")?;
        ensure!(
            !is_allowed && text.contains("denied") && !text.contains("all the same"),
            "{text}"
        );
    }
    expect(&site.daemon, &given, EMBEDDED, None)?;

    // It holds without a daemon, and another one takes it over.
    site.daemon.kill()?;
    resolves(&site.daemon, &open, false, false)?;
    speaks_to_itself(&open)?;
    netpold(&mut site.daemon, &site.etc)?;
    resolves(&site.daemon, &open, false, false)?;
    ensure!(
        unprotected(&site.daemon)? == (true, Vec::new()),
        "{}",
        site.daemon.log()
    );
    ensure!(
        !site.daemon.log().contains("taken off"),
        "{}",
        site.daemon.log()
    );

    // A change holds for the next question, and for what is open.
    site.put(&asking(&[Protocol::Udp]))?;
    resolves(&site.daemon, &open, true, false)?;
    site.put(&asking(&[Protocol::Tcp]))?;
    resolves(&site.daemon, &open, false, true)?;
    site.put(DNS)?;
    resolves(&site.daemon, &open, true, true)?;
    site.put(CLOSED)?;
    resolves(&site.daemon, &open, false, false)?;

    // Audited, it passes, and is said.
    site.put(&CLOSED.replace(
        "{name: closed}",
        "{name: tried, annotations: {netpold.io/mode: audit}}",
    ))?;
    resolves(&site.daemon, &open, true, true)?;
    let flows = site.daemon.netpol(&[
        "observe",
        "--verdict",
        "audit",
        "--to",
        "kube-system/kube-dns",
    ])?;
    let flows = String::from_utf8_lossy(&flows.stdout).into_owned();
    ensure!(
        flows.contains("default/open") && flows.contains("tried"),
        "{flows}"
    );
    site.leave()
}

/// A container that can get around the program is said to, and the program is put back where another process takes it off.
#[test]
fn whose_questions_may_pass_unseen_is_said() -> Result<()> {
    let mut site = Site::new(&|_| Ok(Vec::new()))?;
    let open = site.engine.run("open", &ON_A_NETWORK, &IDLE)?;
    let may = [&ON_A_NETWORK[..], &["--cap-add", "NET_ADMIN"]].concat();
    let admin = site.engine.run("admin", &may, &IDLE)?;
    site.daemon.wait()?;
    ensure!(
        unprotected(&site.daemon)? == (true, Vec::new()),
        "none is isolated"
    );
    site.put(CLOSED)?;
    let expected = (false, vec!["default/admin".to_owned()]);
    let found = unprotected(&site.daemon)?;
    ensure!(found == expected, "{found:?}\n{}", site.daemon.log());
    ensure!(
        site.daemon.log().contains("NET_ADMIN"),
        "{}",
        site.daemon.log()
    );
    let explained = |from: &str| -> Result<bool> {
        let (_, text) = asked_for_names(&site.daemon, "explain", from)?;
        Ok(text.contains("all the same"))
    };
    ensure!(explained("default/admin")? && !explained("default/open")?);
    resolves(&site.daemon, &admin, false, false)?;

    // By another process: the daemon looks every ten seconds.
    let is_tcx = String::from_utf8_lossy(&site.daemon.netpol(&["status"])?.stdout)
        .contains("attached by tcx");
    if is_tcx {
        for entry in fs::read_dir(site.daemon.pins().join("links"))? {
            let detached = Command::new("bpftool")
                .args(["link", "detach", "pinned"])
                .arg(entry?.path())
                .status()?;
            ensure!(detached.success());
        }
    } else {
        let netns = format!("--net={}", admin.netns().display());
        let deleted = Command::new("nsenter")
            .args([&netns, "tc", "qdisc", "del", "dev", "lo", "clsact"])
            .status()?;
        ensure!(deleted.success());
    }
    resolves(&site.daemon, &admin, true, true)?;
    netpold_tests::time_scale::within("the program is back", || {
        Ok(ask(&admin, EMBEDDED)?.is_none() && ask(&open, EMBEDDED)?.is_none())
    })?;
    ensure!(
        !is_tcx || site.daemon.log().contains("taken off"),
        "{}",
        site.daemon.log()
    );

    // Where no program can be put, that is said, too; another daemon knows it.
    site.put(DNS)?;
    ensure!(unprotected(&site.daemon)? == (true, Vec::new()));
    ensure!(
        site.daemon
            .log()
            .contains("no longer: the container is not protected"),
        "{}",
        site.daemon.log()
    );
    site.daemon.kill()?;
    netpold(&mut site.daemon, &site.etc)?;
    site.put(CLOSED)?;
    ensure!(
        unprotected(&site.daemon)? == expected,
        "{}",
        site.daemon.log()
    );
    site.leave()
}

/// How many containers are started of which each asks as its first instruction.
const STARTS: usize = 5;

#[test]
fn the_first_question_of_a_strict_start_is_judged() -> Result<()> {
    let oci = binary("netpold-oci")?;
    let mut site = Site::new(&|directory| {
        let arguments = [
            format!(
                "--netpold-socket={}",
                directory.join("netpold.sock").display()
            ),
            "--netpold-timeout=20".to_owned(),
        ];
        let settings = serde_json::json!({
            "runtimes": {"netpold": {"path": oci, "runtimeArgs": arguments}},
        });
        let file = directory.join("daemon.json");
        fs::write(&file, settings.to_string())?;
        Ok(vec!["--config-file".to_owned(), file.display().to_string()])
    })?;
    let strict = ["--runtime", "netpold", "--network", "shop"];
    let questions = |site: &Site| site.asked.load(Ordering::SeqCst);
    let ask_at_once = "busybox nslookup name.example 127.0.0.11; busybox sleep 1000";
    let start = |site: &Site, name: &str| {
        let command = ["busybox", "sh", "-c", ask_at_once];
        site.engine.run(name, &strict, &command)
    };
    start(&site, "free")?;
    netpold_tests::time_scale::within("the question of one that may ask", || {
        Ok(questions(&site) > 0)
    })?;
    site.engine.docker(&["rm", "--force", "free"])?;
    site.put(CLOSED)?;
    let before = questions(&site);
    let is_silent = |site: &Site, what: &str| {
        // A question that got out would have been heard by then: nothing else tells that none did.
        thread::sleep(netpold_tests::scaled(Duration::from_millis(700)));
        ensure!(
            questions(site) == before,
            "{what} got a question out\n{}",
            site.daemon.log()
        );
        Ok(())
    };
    for number in 0..STARTS {
        let name = format!("closed{number}");
        start(&site, &name)?;
        is_silent(&site, &name)?;
        site.engine.docker(&["rm", "--force", &name])?;
    }
    // One that was there before, with another daemon that has not heard of it yet.
    start(&site, "again")?;
    site.engine.docker(&["stop", "--time", "0", "again"])?;
    site.daemon.kill()?;
    netpold(&mut site.daemon, &site.etc)?;
    site.engine.docker(&["start", "again"])?;
    is_silent(&site, "a container that is started again")?;
    site.leave()
}
