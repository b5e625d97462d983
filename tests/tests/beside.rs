//! What else is on an interface stays as it was: other programs run before and after ours, and
//! their verdicts count; offloads stay on, and what they leave whole is judged whole. Needs root.

use std::ffi::CString;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::tc::{NlOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttach, TcAttachType};
use aya::sys::{Stats, enable_stats};
use netpold::datapath::FLOOR;
use netpold::netns;
use netpold_tests::daemon::WITH_METRICS;
use netpold_tests::{Daemon, Family, Lab, residue, sockets};

const PORT: u16 = 5432;
const SHUT_PORT: u16 = 5433;
/// What was sent before has arrived by then, or never does.
const LATER: Duration = Duration::from_millis(300);
/// Datagrams of one kind: more than anything else that may pass meanwhile.
const MANY: u64 = 1000;

/// The store takes what front sends to one port.
const GUARD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: guard, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{protocol: UDP, port: 5432}, {port: 5432}]\n";

fn lab() -> Result<Lab> {
    Lab::with_pods(&["web/front", "db/store"])
}

/// A program that lets everything on. The kernel counts how often it runs.
struct Counting(Ebpf);

impl Counting {
    /// Puts it on the host's end of a veth.
    fn attach(lab: &Lab, interface: &str, attach: TcAttach) -> Result<Self> {
        let mut loaded = Ebpf::load(FLOOR)?;
        let clsact = matches!(attach, TcAttach::Netlink { .. });
        let interface = CString::new(interface)?;
        let program = program(&mut loaded)?;
        program.load()?;
        netns::inside(&lab.host().path(), || -> Result<()> {
            if clsact {
                // Another test may have added it before.
                let _ = qdisc_add_clsact(&interface);
            }
            program.attach(&interface, attach)?;
            Ok(())
        })??;
        Ok(Self(loaded))
    }

    fn runs(&mut self) -> Result<u64> {
        Ok(program(&mut self.0)?.info()?.run_count())
    }
}

fn program(loaded: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = loaded.program_mut("floor").context("no program")?;
    Ok(program.try_into()?)
}

fn filter(priority: u16) -> TcAttach {
    TcAttach::Netlink {
        parent: TcAttachType::Egress.into(),
        options: NlOptions {
            priority,
            ..NlOptions::default()
        },
    }
}

fn tcx(order: LinkOrder) -> TcAttach {
    TcAttach::Tcx {
        attach_type: TcAttachType::Egress,
        order,
    }
}

/// Sends many datagrams to each of these ports; how many are heard at the open one.
fn sent(lab: &Lab) -> Result<u64> {
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    let to = store.address(Family::V4)?;
    let server = sockets::udp(&store.namespace.path(), to, PORT)?;
    let client = sockets::udp(&front.namespace.path(), front.address(Family::V4)?, 0)?;
    let mut heard = 0;
    for _ in 0..MANY {
        client.send_to(b"no", (to, SHUT_PORT))?;
        client.send_to(b"yes", (to, PORT))?;
        heard += u64::from(sockets::heard(&server, sockets::scaled())?.is_some());
    }
    Ok(heard)
}

#[test]
fn other_programs_run_before_and_after_ours() -> Result<()> {
    let _counting = enable_stats(Stats::RunTime)?;
    let lab = lab()?;
    let interface = &lab.pod("db/store")?.host_interface;
    // One that is there already, those that come later, and filters, which run after all TCX.
    let mut old = Counting::attach(&lab, interface, tcx(LinkOrder::default()))?;
    let mut old_filter = Counting::attach(&lab, interface, filter(1))?;
    let daemon = Daemon::enforcing(&lab, &[("guard.yaml", GUARD)], "")?;
    let mut first = Counting::attach(&lab, interface, tcx(LinkOrder::first()))?;
    let mut last = Counting::attach(&lab, interface, tcx(LinkOrder::last()))?;
    let mut new_filter = Counting::attach(&lab, interface, filter(7))?;
    let mut programs = [
        ("the newest", &mut first, 2),
        ("one from before the daemon", &mut old, 1),
        ("the last", &mut last, 1),
        ("a filter from before the daemon", &mut old_filter, 1),
        ("a filter that came later", &mut new_filter, 1),
    ];
    let mut before = Vec::new();
    for (_, program, _) in &mut programs {
        before.push(program.runs()?);
    }
    let heard = sent(&lab)?;
    ensure!(heard == MANY, "{heard} were heard\n{}", daemon.log());
    for ((name, program, kinds), before) in programs.into_iter().zip(before) {
        let runs = program.runs()? - before;
        // Programs behind see nothing of what is dropped; address resolution is some more.
        let right = MANY * kinds..MANY * kinds + MANY / 10;
        ensure!(
            right.contains(&runs),
            "{name} ran {runs} times, not {}",
            right.start
        );
    }
    let name = lab.name.clone();
    drop((first, old, last, old_filter, new_filter, daemon, lab));
    residue::check(&name)
}

#[test]
fn what_another_filter_drops_is_dropped() -> Result<()> {
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[("guard.yaml", GUARD)], "")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    let to = store.address(Family::V4)?;
    let server = sockets::udp(&store.namespace.path(), to, PORT)?;
    let client = sockets::udp(&front.namespace.path(), front.address(Family::V4)?, 0)?;
    client.connect(server.local_addr()?)?;
    for (filtered, text) in [(false, "before"), (true, "meanwhile"), (false, "after")] {
        if filtered {
            lab.tc(&["qdisc", "add", "dev", &store.host_interface, "clsact"])?;
            lab.tc(&drop_datagrams(&store.host_interface))?;
        } else if text == "after" {
            lab.tc(&["qdisc", "del", "dev", &store.host_interface, "clsact"])?;
        }
        client.send(text.as_bytes())?;
        let timeout = if filtered { LATER } else { sockets::scaled() };
        let heard = sockets::heard(&server, timeout)?.is_some();
        ensure!(heard != filtered, "{text}: {heard}");
    }
    // A removal of the queueing discipline takes nothing of ours with it.
    client.connect((to, SHUT_PORT))?;
    let shut = sockets::udp(&store.namespace.path(), to, SHUT_PORT)?;
    client.send(b"no")?;
    ensure!(sockets::heard(&shut, LATER)?.is_none(), "{}", daemon.log());
    Ok(())
}

/// Takes datagrams off their way, by an action that small kernels have too: to the loopback
/// interface, where no test waits for them.
fn drop_datagrams(interface: &str) -> Vec<&str> {
    let place = ["filter", "add", "dev", interface, "egress"];
    let datagrams = [
        "protocol", "ip", "u32", "match", "ip", "protocol", "17", "0xff",
    ];
    let away = ["action", "mirred", "egress", "redirect", "dev", "lo"];
    [&place[..], &datagrams, &away].concat()
}

/// What ethtool(8) says of an interface's features.
fn features(place: &netpold_tests::lab::Namespace, interface: &str) -> Result<String> {
    let mut command = std::process::Command::new("ethtool");
    command.args(["-k", interface]);
    let output = netns::inside(&place.path(), move || command.output())?
        .context("can't run ethtool(8): is it installed?")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn offloads_stay_on_and_large_segments_are_judged_whole() -> Result<()> {
    let lab = lab()?;
    let all = |lab: &Lab| -> Result<Vec<String>> {
        let mut all = Vec::new();
        for pod in lab.pods() {
            all.push(features(lab.host(), &pod.host_interface)?);
            all.push(features(&pod.namespace, "eth0")?);
        }
        Ok(all)
    };
    let before = all(&lab)?;
    ensure!(
        before[0].contains("tcp-segmentation-offload: on"),
        "{}",
        before[0]
    );
    let daemon = Daemon::enforcing(&lab, &[("guard.yaml", GUARD)], WITH_METRICS)?;
    ensure!(all(&lab)? == before, "offloads were changed");
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    for family in Family::BOTH {
        let address = SocketAddr::new(store.address(family)?, PORT);
        let (from, to) = (front.namespace.path(), store.namespace.path());
        let connection = sockets::connect(&from, &to, address)?;
        let count = |what: &str| -> Result<u64> {
            let name = format!(
                "netpold_{what}_total{{reason=\"established\",direction=\"ingress\",verdict=\"forwarded\"}}"
            );
            Ok(daemon.metrics()?.get(&name).copied().unwrap_or(0))
        };
        let (bytes, packets) = (count("bytes")?, count("packets")?);
        sockets::transfer(&connection, 20 << 20)?;
        let (bytes, packets) = (count("bytes")? - bytes, count("packets")? - packets);
        ensure!(bytes >= 40 << 20, "{family:?}: {bytes} bytes were counted");
        // Half of the packets acknowledge; the others would be 1,514 bytes each.
        ensure!(
            bytes / packets > 3000,
            "{family:?}: {bytes} bytes in {packets} packets: what was whole is cut"
        );
    }
    Ok(())
}
