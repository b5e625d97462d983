//! Netlink on real interfaces: dumps, namespace ids, what is inside a namespace, hints.
//!
//! Needs root, and fails without it. Each case runs in a network namespace of its own;
//! the named ones that it makes are gone afterwards.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use netpold::links::{Hints, Links, Listener, inside};
use netpold::netns::Netns;
use netpold_tests::scaled;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

fn main() {
    let arguments = Arguments::from_args();
    let case = |name: &'static str, run: fn(&Site) -> Result<()>| {
        Trial::test(name, move || {
            in_site(name, run).map_err(|error| format!("{error:#}").into())
        })
    };
    let trials = vec![
        case(
            "veths_are_known_by_their_namespace",
            veths_are_known_by_their_namespace,
        ),
        case("the_inside_of_a_namespace", the_inside_of_a_namespace),
        case(
            "no_text_hides_an_interface_or_its_address",
            no_text_hides_an_interface_or_its_address,
        ),
        case("a_table_of_many_datagrams", a_table_of_many_datagrams),
        case(
            "hints_from_here_and_from_inside",
            hints_from_here_and_from_inside,
        ),
        case("lost_hints_are_a_hint", lost_hints_are_a_hint),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Two containers' namespaces.
struct Site {
    containers: [String; 2],
}

impl Drop for Site {
    fn drop(&mut self) {
        for name in &self.containers {
            let _ = Command::new("ip")
                .args(["netns", "del", name])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn in_site(name: &'static str, run: fn(&Site) -> Result<()>) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this suite needs root");
    let number = name.bytes().fold(std::process::id(), |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let case = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        let site = Site {
            containers: ["a", "b"].map(|end| format!("npd-ln-{number:08x}{end}")),
        };
        ip(&["link", "set", "lo", "up"])?;
        for container in &site.containers {
            ip(&["netns", "add", container])?;
        }
        run(&site)
    });
    match case.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("panicked"),
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn batch(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("a pipe")?
        .write_all(lines.as_bytes())?;
    ensure!(child.wait()?.success());
    Ok(())
}

impl Site {
    fn path(&self, container: usize) -> PathBuf {
        Path::new("/run/netns").join(&self.containers[container])
    }

    /// A veth `name` here, `eth0` in the container.
    fn veth(&self, name: &str, container: usize) -> Result<u32> {
        let namespace = &self.containers[container];
        ip(&[
            "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace,
        ])?;
        Ok(if_nametoindex(name)?)
    }
}

fn veths_are_known_by_their_namespace(site: &Site) -> Result<()> {
    ip(&["link", "add", "br0", "type", "bridge"])?;
    ip(&["addr", "add", "10.9.0.1/24", "dev", "br0"])?;
    // Named as if they were each other's.
    let first = site.veth("vethb", 0)?;
    let second = site.veth("vetha", 1)?;
    ip(&["link", "set", "vethb", "master", "br0", "up"])?;
    ip(&[
        "link", "add", "here0", "type", "veth", "peer", "name", "here1",
    ])?;

    let mut links = Links::open()?;
    let mut nsid = |path: &Path| links.nsid(&Netns::Path(path.to_owned()));
    let ids = [
        nsid(&site.path(0))?.context("an id")?,
        nsid(&site.path(1))?.context("an id")?,
    ];
    ensure!(ids[0] != ids[1]);
    ensure!(nsid(&site.path(0))? == Some(ids[0]), "it stays");
    ensure!(nsid(Path::new("/proc/thread-self/ns/net"))?.is_none());
    ensure!(nsid(Path::new("/run/netns/npd-ln-none")).is_err());
    ensure!(
        links.nsid(&Netns::Pid(std::process::id()))?.is_some(),
        "this thread is elsewhere"
    );

    let snapshot = links.dump()?;
    let leads_to: BTreeMap<u32, Option<i32>> = snapshot
        .veths
        .iter()
        .map(|veth| (veth.ifindex, veth.peer_nsid))
        .collect();
    ensure!(leads_to[&first] == Some(ids[0]) && leads_to[&second] == Some(ids[1]));
    let here = leads_to.values().filter(|nsid| nsid.is_none());
    ensure!(leads_to.len() == 4 && here.count() == 2, "{leads_to:?}");
    let bridge = if_nametoindex("br0")?;
    ensure!(snapshot.bridges == BTreeMap::from([(bridge, "br0".to_owned())]));
    let veth = &snapshot.veths[0];
    ensure!(veth.ifindex == first && veth.master == Some(bridge) && veth.up && veth.mac != [0; 6]);
    ensure!(!snapshot.veths[1].up);
    for address in ["127.0.0.1", "::1", "10.9.0.1"] {
        ensure!(
            snapshot.host_addresses.contains(&address.parse()?),
            "{address}"
        );
    }
    Ok(())
}

fn the_inside_of_a_namespace(site: &Site) -> Result<()> {
    let host_end = site.veth("out0", 0)?;
    ip(&["link", "set", "out0", "up"])?;
    let namespace = &site.containers[0];
    let run = |arguments: &[&str]| ip(&[&["-n", namespace], arguments].concat());
    run(&["link", "set", "eth0", "address", "02:00:00:00:00:07"])?;
    run(&["addr", "add", "10.9.0.2/24", "dev", "eth0"])?;
    run(&["addr", "add", "fd00::2/64", "dev", "eth0", "nodad"])?;
    run(&["addr", "add", "fe80::7/64", "dev", "eth0", "nodad"])?;
    run(&["link", "set", "eth0", "up"])?;
    let own = fs::read_link("/proc/thread-self/ns/net")?;
    let found = inside(&Netns::Path(site.path(0)))?;
    ensure!(fs::read_link("/proc/thread-self/ns/net")? == own);
    let eth0 = found
        .iter()
        .find(|interface| interface.name == "eth0")
        .context("eth0")?;
    ensure!(eth0.mac == Some([2, 0, 0, 0, 0, 7]) && eth0.kind.as_deref() == Some("veth"));
    ensure!(eth0.iflink == Some(host_end) && eth0.up);
    for address in ["10.9.0.2", "fd00::2", "fe80::7"] {
        let address: IpAddr = address.parse()?;
        ensure!(eth0.addresses.contains(&address), "{address}: {eth0:?}");
    }
    ensure!(found.iter().any(|interface| interface.name == "lo"));
    // One whose other end is neither here nor there, and both ends of one that is inside.
    let other = site.containers[1].as_str();
    run(&[
        "link", "add", "ov0", "type", "veth", "peer", "name", "x", "netns", other,
    ])?;
    run(&["link", "add", "in0", "type", "veth", "peer", "name", "in1"])?;
    let found = inside(&Netns::Path(site.path(0)))?;
    let hidden = found.iter().filter(|interface| interface.is_hidden);
    let hidden: Vec<&str> = hidden.map(|interface| interface.name.as_str()).collect();
    ensure!(hidden == ["ov0"], "{hidden:?}");
    // A process in it tells the same.
    let mut process = Command::new("ip")
        .args(["netns", "exec", namespace, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = process.id();
    let path = Netns::Path(site.path(0)).identity()?;
    // `ip` enters the namespace before it runs `cat`, which answers once it is there.
    process
        .stdin
        .as_mut()
        .context("a pipe")?
        .write_all(b"x\n")?;
    let mut answer = [0; 2];
    std::io::Read::read_exact(process.stdout.as_mut().context("a pipe")?, &mut answer)?;
    ensure!(Netns::Pid(pid).identity()? == path);
    ensure!(inside(&Netns::Pid(pid))? == inside(&Netns::Path(site.path(0)))?);
    drop(process.stdin.take());
    process.wait()?;
    ensure!(inside(&Netns::Pid(pid)).is_err(), "it ended");
    Ok(())
}

/// A container with CAP_NET_ADMIN chooses its interfaces' names, alternative names and aliases; the name is also the
/// label of an IPv4 address. The kernel takes any bytes for them, UTF-8 or not.
fn no_text_hides_an_interface_or_its_address(site: &Site) -> Result<()> {
    site.veth("out0", 0)?;
    let namespace = &site.containers[0];
    let run = |arguments: &[&[u8]]| -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", namespace]);
        command.args(arguments.iter().map(|one| OsStr::from_bytes(one)));
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    for name in ["alias", "altname", "name"] {
        ip(&[
            "link", "add", "link", "out0", "name", name, "netns", namespace, "type", "macvlan",
            "mode", "bridge",
        ])?;
    }
    run(&[b"link", b"set", b"dev", b"alias", b"alias", b"\xff"])?;
    run(&[
        b"link",
        b"property",
        b"add",
        b"dev",
        b"altname",
        b"altname",
        b"\xfe",
    ])?;
    run(&[b"link", b"set", b"dev", b"name", b"name", b"n\xff"])?;
    let names = [&b"alias"[..], b"altname", b"n\xff"];
    for (name, address) in names
        .iter()
        .zip(["10.9.1.2/32", "10.9.1.3/32", "10.9.1.4/32"])
    {
        run(&[b"addr", b"add", address.as_bytes(), b"dev", name])?;
    }
    let found = inside(&Netns::Path(site.path(0)))?;
    for (name, address) in [
        ("alias", "10.9.1.2"),
        ("altname", "10.9.1.3"),
        ("n\u{fffd}", "10.9.1.4"),
    ] {
        let interface = found.iter().find(|interface| interface.name == name);
        let interface = interface.with_context(|| format!("{name} is hidden: {found:?}"))?;
        ensure!(
            interface.kind.as_deref() == Some("macvlan") && interface.leads_out,
            "{interface:?}"
        );
        // MACVLAN_MODE_BRIDGE.
        ensure!(interface.mode == Some(4), "{interface:?}");
        let address: IpAddr = address.parse()?;
        ensure!(interface.addresses == [address], "{interface:?}");
    }
    Ok(())
}

fn a_table_of_many_datagrams(_: &Site) -> Result<()> {
    let mut lines = String::new();
    for number in 0..400 {
        lines.push_str(&format!("link add dmy{number} type bridge\n"));
        let (high, low) = (number / 200, number % 200);
        lines.push_str(&format!("addr add 10.8.{high}.{low}/32 dev lo\n"));
    }
    batch(&lines)?;
    let started = std::time::Instant::now();
    let snapshot = Links::open()?.dump()?;
    eprintln!("401 interfaces: {:?}", started.elapsed());
    ensure!(snapshot.bridges.len() == 400);
    ensure!(snapshot.host_addresses.len() >= 400);
    Ok(())
}

fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            tokio::time::timeout(scaled(Duration::from_secs(10)), future)
                .await
                .context("nothing came")
        })
}

fn hints_from_here_and_from_inside(site: &Site) -> Result<()> {
    wait(async {
        let mut listener = Listener::open()?;
        let ifindex = site.veth("out0", 0)?;
        let hints = until(&mut listener, |hints| hints.links.contains(&ifindex)).await?;
        ensure!(!hints.addresses && !hints.resync, "{hints:?}");
        // A dump gives the other end's namespace its id, and so makes it heard.
        let veths = Links::open()?.dump()?.veths;
        ensure!(veths[0].peer_nsid.is_some());
        let mut listener = Listener::open()?;
        let namespace = &site.containers[0];
        ip(&["-n", namespace, "addr", "add", "10.9.0.2/24", "dev", "eth0"])?;
        let hints = until(&mut listener, |hints| hints.inside).await?;
        ensure!(!hints.addresses && hints.links.is_empty(), "{hints:?}");
        ensure!(
            hints.namespaces == veths[0].peer_nsid.into_iter().collect(),
            "{hints:?}"
        );
        // The link-local address of that interface may still come to be usable.
        let mut listener = Listener::open()?;
        ip(&["addr", "add", "10.9.0.1/24", "dev", "out0"])?;
        let hints = until(&mut listener, |hints| hints.addresses).await?;
        ensure!(!hints.inside && hints.namespaces.is_empty(), "{hints:?}");
        Ok(())
    })?
}

async fn until(listener: &mut Listener, enough: impl Fn(&Hints) -> bool) -> Result<Hints> {
    let mut all = Hints::default();
    while !enough(&all) {
        all.merge(listener.next().await?);
    }
    Ok(all)
}

fn lost_hints_are_a_hint(_: &Site) -> Result<()> {
    wait(async {
        let mut listener = Listener::open()?;
        let mut lines = String::new();
        for _ in 0..8_000 {
            lines.push_str("addr add 10.8.0.1/32 dev lo\naddr del 10.8.0.1/32 dev lo\n");
        }
        batch(&lines)?;
        until(&mut listener, |hints| hints.resync).await?;
        // And it goes on.
        ip(&["addr", "add", "10.8.0.2/32", "dev", "lo"])?;
        until(&mut listener, |hints| hints.addresses).await?;
        Ok(())
    })?
}
