//! From the first packet: a container that sends from the instant in which there is an interface, and
//! one that is dialled from then on, with the daemon running, halted, killed, and not started since boot.
//!
//! The kernels count what arrives. Each test ends with what it shut being let through, so that it is
//! known that something would have come.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::starting_container::{Flood, gate};
use netpold_tests::time_scale::within;
use netpold_tests::{Daemon, Lab, StartingContainer, residue};
use nix::sys::signal::Signal;

/// Frames that are sent before it counts that none arrived.
const MANY: u32 = 2000;

/// As Docker names them.
fn name(number: u32) -> String {
    format!("veth{:07x}", 0xabc_de00 + number)
}

fn bridge(lab: &Lab, name: &str) -> Result<()> {
    let host = lab.host();
    host.ip(&["link", "add", name, "type", "bridge", "forward_delay", "0"])?;
    host.ip(&["link", "set", name, "up"])?;
    lab.plain_bridge()
}

fn connected(lab: &Lab, bridge: &str, interface: &str) -> Result<StartingContainer> {
    let one = StartingContainer::prepare(lab, interface)?;
    one.connect(lab, bridge)?;
    Ok(one)
}

fn declare(daemon: &Daemon, one: &StartingContainer, name: &str) -> Result<()> {
    let manifest = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"netpold.io/netns": one.namespace.path()}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    });
    daemon.put(&format!("{name}.json"), &manifest.to_string())
}

fn index(lab: &Lab, one: &StartingContainer) -> Result<String> {
    let shown = lab.host().ip(&["-o", "link", "show", &one.interface])?;
    Ok(shown.split(':').next().context("no index")?.to_owned())
}

fn is_ready(lab: &Lab, config: &Path, one: &StartingContainer) -> Result<bool> {
    let index = index(lab, one)?;
    let status = gate(lab, config, "status")?;
    let ready = status.lines().find(|line| line.starts_with("ready"));
    Ok(ready.is_some_and(|line| line.split(' ').any(|word| word == index)))
}

fn dropped(lab: &Lab, config: &Path) -> Result<u64> {
    let status = gate(lab, config, "status")?;
    let line = status.lines().find(|line| line.starts_with("dropped"));
    let numbers = line.into_iter().flat_map(|line| line.split(' '));
    Ok(numbers.filter_map(|word| word.parse::<u64>().ok()).sum())
}

/// So much is sent from now on.
fn sends(flood: &Flood) -> Result<()> {
    let from = flood.sent();
    within("sending", || Ok(flood.sent() - from >= MANY))
}

/// A new container, which sends to `peer` and to which `peer` sends, from the first instant: nothing
/// arrives on either side.
fn arrives_shut(
    lab: &Lab,
    peer: &StartingContainer,
    interface: &str,
) -> Result<(StartingContainer, Flood, Flood)> {
    let before = peer.received()?;
    let one = StartingContainer::prepare(lab, interface)?;
    let out = one.flood(peer);
    let back = peer.flood(&one);
    sends(&back)?;
    one.connect(lab, "docker0")?;
    sends(&out)?;
    sends(&back)?;
    nothing_came(&one, peer, before)?;
    Ok((one, out, back))
}

fn nothing_came(one: &StartingContainer, peer: &StartingContainer, before: u64) -> Result<()> {
    let (out, back) = (peer.received()? - before, one.received()?);
    ensure!(
        (out, back) == (0, 0),
        "{}: {out} datagrams left and {back} arrived",
        one.interface
    );
    Ok(())
}

#[test]
fn without_a_daemon_since_boot_nothing_passes() -> Result<()> {
    let lab = Lab::new()?;
    bridge(&lab, "docker0")?;
    let peer = connected(&lab, "docker0", &name(0))?;
    let daemon = Daemon::prepare(&lab, "")?;
    let config = daemon.config();
    // A container that is there already passes, as before.
    gate(&lab, &config, "install")?;
    ensure!(is_ready(&lab, &config, &peer)?);
    for number in 1..=20 {
        let (one, ..) = arrives_shut(&lab, &peer, &name(number))?;
        ensure!(!is_ready(&lab, &config, &one)?);
    }
    let before = dropped(&lab, &config)?;
    let (one, out, back) = arrives_shut(&lab, &peer, &name(21))?;
    let more = dropped(&lab, &config)? - before;
    ensure!(more >= u64::from(MANY), "only {more} frames counted");
    // A gate that is installed once more opens nothing.
    gate(&lab, &config, "install")?;
    sends(&out)?;
    ensure!(one.received()? == 0);
    gate(&lab, &config, "release")?;
    let arrived = peer.received()?;
    within("released", || {
        Ok(one.received()? > 0 && peer.received()? > arrived)
    })?;
    drop((out, back, one, peer, daemon));
    let name = lab.name.clone();
    drop(lab);
    residue::check(&name)
}

#[test]
fn a_daemon_that_runs_halts_and_dies() -> Result<()> {
    let lab = Lab::new()?;
    bridge(&lab, "docker0")?;
    let (peer, other) = (
        connected(&lab, "docker0", &name(0))?,
        connected(&lab, "docker0", &name(1))?,
    );
    // An engine that is there, and never says anything: a new container is on hold.
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("docker.sock");
    let _engine = UnixListener::bind(&socket)?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&socket), "")?;
    let config = daemon.config();
    declare(&daemon, &peer, "peer")?;
    declare(&daemon, &other, "other")?;
    gate(&lab, &config, "install")?;
    daemon.launch()?;
    let known = |one: &StartingContainer| within("ready", || is_ready(&lab, &config, one));
    known(&peer)?;
    known(&other)?;
    let talk = peer.flood(&other);
    sends(&talk)?;
    within("traffic that is allowed", || Ok(other.received()? > 0))?;

    let before = peer.received()?;
    let (one, out, back) = arrives_shut(&lab, &peer, &name(2)).context("running")?;
    known(&one)?;
    sends(&out)?;
    nothing_came(&one, &peer, before).context("running, and ready")?;
    drop((one, out, back));

    daemon.signal(Signal::SIGSTOP)?;
    let halted = arrives_shut(&lab, &peer, &name(3)).context("halted")?;
    ensure!(!is_ready(&lab, &config, &halted.0)?);
    daemon.signal(Signal::SIGCONT)?;
    known(&halted.0)?;
    sends(&halted.1)?;
    nothing_came(&halted.0, &peer, before).context("going on")?;
    drop(halted);

    daemon.kill()?;
    let (one, out, back) = arrives_shut(&lab, &peer, &name(4)).context("killed")?;
    ensure!(!is_ready(&lab, &config, &one)?);
    daemon.launch()?;
    known(&one)?;
    sends(&out)?;
    nothing_came(&one, &peer, before).context("back")?;

    let allowed = other.received()?;
    within(
        "allowed traffic goes on",
        || Ok(other.received()? > allowed),
    )?;
    // And now it is an endpoint.
    declare(&daemon, &one, "one")?;
    within("declared", || {
        Ok(one.received()? > 0 && peer.received()? > before)
    })?;
    drop((out, back, talk));
    Ok(())
}

#[test]
fn bridges_of_others_are_left_alone() -> Result<()> {
    let lab = Lab::new()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    let config = daemon.config();
    let installed = gate(&lab, &config, "install")?;
    let by_bridge = installed.contains("by bridge");
    // As libvirt, LXC, Incus and an operator name their bridges and interfaces.
    let mut others = vec![
        ("lxcbr0", ["vethAb3xYz", "vethq0Z9kk"].map(str::to_owned)),
        (
            "incusbr0",
            ["veth1a2b3c4d", "vethdeadbeef"].map(str::to_owned),
        ),
        ("br-lan", ["lan0", "lan1"].map(str::to_owned)),
        (
            "br-backend-prod",
            ["veth12345zz", "veth1234567x"].map(str::to_owned),
        ),
    ];
    if by_bridge {
        // Whatever their ports are called.
        others.push(("virbr0", [name(100), name(101)]));
        others.push(("br-0123456789a", [name(102), name(103)]));
        others.push(("br-0123456789aX", [name(104), name(105)]));
    }
    for when in ["alone", "beside the daemon"] {
        for (bridge_name, ports) in &others {
            bridge(&lab, bridge_name)?;
            let one = connected(&lab, bridge_name, &ports[0])?;
            let two = connected(&lab, bridge_name, &ports[1])?;
            let _flood = one.flood(&two);
            within(bridge_name, || Ok(two.received()? > 0)).context(when)?;
            lab.host().ip(&["link", "del", bridge_name])?;
        }
        ensure!(dropped(&lab, &config)? == 0, "{when}");
        if when == "alone" {
            daemon.launch()?;
            daemon.wait()?;
        }
    }
    Ok(())
}

/// Where the kernel can't tell bridges: names of CNI's plugins and of netavark are shut once a container was seen behind
/// such a name, also after a boot.
#[test]
fn names_that_engines_share_are_shut_where_a_container_had_one() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = Daemon::prepare(&lab, "")?;
    let config = daemon.config();
    if gate(&lab, &config, "install")?.contains("by bridge") {
        // Its bridge tells more than its name.
        return Ok(());
    }
    bridge(&lab, "lan")?;
    let cni = ["veth0a1b2c3d", "veth12345678"];
    let netavark = ["veth0", "veth19", "veth1234"];
    let others = [
        "veth12345",
        "vethAb3xYz",
        "vethx",
        "veth0a1b2c3h",
        "veth0a1b2c3d4",
    ];
    let passes = |name: &str, is_open: bool| -> Result<()> {
        let one = connected(&lab, "lan", name)?;
        let peer = connected(&lab, "lan", "lan0")?;
        let before = dropped(&lab, &config)?;
        let _flood = one.flood(&peer);
        within(name, || {
            Ok(peer.received()? > 0 || dropped(&lab, &config)? > before + u64::from(MANY))
        })?;
        let arrived = peer.received()? > 0;
        ensure!(arrived == is_open, "{name} passes: {arrived}");
        for interface in [name, "lan0"] {
            lab.host().ip(&["link", "del", interface])?;
        }
        Ok(())
    };
    for (seen, cni_is_open, netavark_is_open) in [
        ("", true, true),
        ("cni\n", false, true),
        ("netavark\n", true, false),
        ("cni\nnetavark\n", false, false),
    ] {
        fs::write(daemon.state().join("gate-namings"), seen)?;
        gate(&lab, &config, "install")?;
        cni.iter().try_for_each(|name| passes(name, cni_is_open))?;
        netavark
            .iter()
            .try_for_each(|name| passes(name, netavark_is_open))?;
        others.iter().try_for_each(|name| passes(name, true))?;
        passes(&name(7), false)?;
    }
    Ok(())
}

#[test]
fn a_flush_is_healed_at_once() -> Result<()> {
    let lab = Lab::new()?;
    bridge(&lab, "docker0")?;
    let peer = connected(&lab, "docker0", &name(0))?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("docker.sock");
    let _engine = UnixListener::bind(&socket)?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&socket), "")?;
    let config = daemon.config();
    declare(&daemon, &peer, "peer")?;
    daemon.launch()?;
    // Installed while it runs: no known interface is shut.
    gate(&lab, &config, "install")?;
    within("ready", || is_ready(&lab, &config, &peer))?;
    for flush in [
        ["flush", "ruleset"].as_slice(),
        &["flush", "table", "bridge", "netpold"],
        &["delete", "table", "bridge", "netpold"],
    ] {
        let times = daemon.log().matches("and is back").count();
        lab.host().nft(flush)?;
        within("restored", || {
            Ok(daemon.log().matches("and is back").count() > times)
        })?;
        ensure!(is_ready(&lab, &config, &peer)?, "{flush:?}");
        // The gate alone, and not a daemon that is fast.
        daemon.signal(Signal::SIGSTOP)?;
        let shut = arrives_shut(&lab, &peer, &name(1)).with_context(|| format!("{flush:?}"));
        daemon.signal(Signal::SIGCONT)?;
        shut?;
    }
    // A release is meant.
    gate(&lab, &config, "release")?;
    within("released", || Ok(daemon.log().contains("was released")))?;
    ensure!(gate(&lab, &config, "status").is_err());
    // Flushed while no daemon runs, it is back with the daemon.
    gate(&lab, &config, "install")?;
    daemon.kill()?;
    lab.host().nft(&["flush", "ruleset"])?;
    daemon.launch()?;
    within("restored", || Ok(gate(&lab, &config, "status").is_ok()))?;
    within("ready", || is_ready(&lab, &config, &peer))
}

#[test]
fn on_a_full_disk_a_flush_is_no_release() -> Result<()> {
    let lab = Lab::new()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    let (config, state) = (daemon.config(), daemon.state());
    daemon.state_on_a_small_disk()?;
    (|| -> Result<()> {
        let filler = daemon.fill_state()?;
        let said = gate(&lab, &config, "install").err();
        let said = said.context("all is well")?.to_string();
        ensure!(
            said.contains("can't be kept") && said.contains("make room"),
            "{said}"
        );
        gate(&lab, &config, "status")?;
        daemon.launch()?;
        daemon.wait()?;
        let status =
            || -> Result<String> { Ok(String::from_utf8(daemon.netpol(&["status"])?.stdout)?) };
        within("said", || Ok(status()?.contains("can't be kept")))?;
        lab.host().nft(&["flush", "ruleset"])?;
        within("restored", || Ok(gate(&lab, &config, "status").is_ok()))?;
        fs::remove_file(&filler)?;
        within("kept", || Ok(state.join("gate-installed").exists()))?;
        within(
            "no longer said",
            || Ok(!status()?.contains("can't be kept")),
        )?;
        gate(&lab, &config, "release")?;
        within("released", || Ok(daemon.log().contains("was released")))?;
        ensure!(gate(&lab, &config, "status").is_err());
        Ok(())
    })()
    .with_context(|| daemon.log())
}

/// Another netpold on this host, which is to have no gate, leaves this one's alone.
#[test]
fn a_netpold_without_a_gate_leaves_another_ones_alone() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = Daemon::prepare(&lab, "")?;
    gate(&lab, &daemon.config(), "install")?;
    let mut other = Daemon::prepare(&lab, "[gate]\nenabled = false\n")?;
    let said = gate(&lab, &other.config(), "install")?;
    ensure!(said.contains("there is to be no gate"), "{said}");
    gate(&lab, &daemon.config(), "status")?;
    other.launch()?;
    other.wait()?;
    // A change of the table has it looked at.
    lab.host()
        .nft(&["add", "chain", "bridge", "netpold", "foreign"])
        .with_context(|| other.log())?;
    lab.host()
        .nft(&["delete", "chain", "bridge", "netpold", "foreign"])?;
    other.wait()?;
    gate(&lab, &daemon.config(), "status")?;
    ensure!(
        !other.log().contains("the gate is released"),
        "{}",
        other.log()
    );
    Ok(())
}

#[test]
fn uninstall_takes_it_off_and_audit_has_none() -> Result<()> {
    let lab = Lab::new()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    let config = daemon.config();
    gate(&lab, &config, "install")?;
    let text = fs::read_to_string(&config)?;
    // An audit drops nothing: what was installed before goes, by the unit or by the daemon.
    fs::write(&config, format!("{text}[enforcement]\nmode = \"audit\"\n"))?;
    let said = gate(&lab, &config, "install")?;
    ensure!(said.contains("nothing is dropped with"), "{said}");
    ensure!(gate(&lab, &config, "status").is_err());
    fs::write(&config, &text)?;
    gate(&lab, &config, "install")?;
    let open = "[enforcement]\nunidentified = \"allow\"\n";
    fs::write(&config, format!("{text}{open}"))?;
    daemon.launch()?;
    within("taken away", || Ok(gate(&lab, &config, "status").is_err()))?;
    daemon.stop()?;
    fs::write(&config, &text)?;
    gate(&lab, &config, "install")?;
    daemon.launch()?;
    daemon.wait()?;
    let status = String::from_utf8(daemon.netpol(&["status"])?.stdout)?;
    ensure!(status.contains("gate: installed ("), "{status}");
    daemon.stop()?;
    let path = config.display().to_string();
    let host = lab.host().path();
    let output =
        netpold::netns::inside(&host, || daemon.netpol(&["uninstall", "--config", &path]))??;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("removed the gate"), "{said}");
    ensure!(gate(&lab, &config, "status").is_err());
    let state = config.with_file_name("state");
    for file in ["gate-installed", "gate-followed", "gate-bridges"] {
        ensure!(!state.join(file).exists(), "{file} is left");
    }
    Ok(())
}
