//! The kernel side on real interfaces: pins, adoption after a kill, swaps under traffic,
//! uninstall.
//!
//! Needs root, and fails without it. Each case has a network namespace for the host's
//! part (its own thread's), one for the container's, and a pin directory of its own;
//! all of them are gone afterwards.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData, MapInfo};
use aya::programs::{SchedClassifier, TcAttachType};
use libtest_mimic::{Arguments, Trial};
use netpol_abi::Reason;
use netpol_abi::limits::{INTERFACE_SLOTS, LAYOUT_VERSION};
use netpol_abi::tables::{
    Address, Control, Endpoint, EndpointLane, Interface, PortRange, Verdict, VerdictKey,
    control_flags,
};
use netpol_engine::plan::{Demand, Step, plan, recover};
use netpol_engine::tables::{AddressEntry, EndpointEntry, InterfaceEntry, Tables, VerdictEntry};
use netpold::datapath::kernel::Origin;
use netpold::datapath::pins::PinsError;
use netpold::datapath::requirements;
use netpold::datapath::tables::StepError;
use netpold::datapath::uninstall::UninstallError;
use netpold::datapath::wire::Wire;
use netpold::datapath::{Attached, Hook, Kernel, Mechanism, OpenError, Options, uninstall};
use netpold_tests::patience;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set for the process that is to be killed: the pin directory.
const CHILD: &str = "NPD_DATAPATH_CHILD";

fn main() {
    if let Ok(directory) = std::env::var(CHILD) {
        if let Err(error) = child(Path::new(&directory)) {
            eprintln!("the child could not attach: {error:#}");
        }
        return;
    }
    let arguments = Arguments::from_args();
    let case = |name: &'static str, run: fn(&Site) -> Result<()>| {
        Trial::test(name, move || {
            in_site(name, run).map_err(|error| format!("{error:#}").into())
        })
    };
    // Without root the kernel can't be asked, and every case fails by itself.
    let lacks_tcx = nix::unistd::geteuid().is_root() && !requirements::has_tcx();
    let tcx_case = |name, run| {
        case(name, run)
            .with_kind("needs TCX")
            .with_ignored_flag(lacks_tcx)
    };
    let trials = vec![
        tcx_case(
            "attach_pin_drop_adopt_uninstall",
            attach_pin_drop_adopt_uninstall,
        ),
        case("clsact_does_the_same", clsact_does_the_same),
        case("killed_and_adopted", killed_and_adopted),
        case("clsact_swaps_lose_no_packet", clsact_swaps_lose_no_packet),
        tcx_case("swaps_lose_no_packet", swaps_lose_no_packet),
        tcx_case("vanished_interfaces", vanished_interfaces),
        case("clsact_vanished_interfaces", clsact_vanished_interfaces),
        case(
            "an_unknown_interface_is_held_throughout",
            an_unknown_interface_is_held_throughout,
        ),
        case("a_second_daemon_is_refused", a_second_daemon_is_refused),
        case(
            "steps_are_written_and_read_back",
            steps_are_written_and_read_back,
        ),
        case("a_full_table_changes_nothing", a_full_table_changes_nothing),
        case("a_plan_and_a_crash_in_it", a_plan_and_a_crash_in_it),
        case("interfaces_that_share_a_slot", interfaces_that_share_a_slot),
        case(
            "another_layout_is_replaced_beside",
            another_layout_is_replaced_beside,
        ),
        case(
            "flows_are_swept_and_accounted",
            flows_are_swept_and_accounted,
        ),
        case(
            "every_contract_map_is_in_the_programs",
            every_contract_map_is_in_the_programs,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Where a case runs.
struct Site {
    pins: PathBuf,
    container: String,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.container])
            .stderr(Stdio::null())
            .status();
        let _ = uninstall(&self.pins);
    }
}

/// Runs a case in a thread with a network namespace of its own.
fn in_site(name: &'static str, run: fn(&Site) -> Result<()>) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this suite needs root");
    let number = name.bytes().fold(std::process::id(), |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        let site = Site {
            pins: PathBuf::from(format!("/sys/fs/bpf/npd-test-{number:08x}")),
            container: format!("npd-dp-{number:08x}"),
        };
        ip(&["link", "set", "lo", "up"])?;
        ip(&["netns", "add", &site.container])?;
        run(&site)?;
        ensure!(
            !site.pins.exists() || uninstall(&site.pins).is_ok(),
            "the pin directory can be uninstalled"
        );
        ensure!(!site.pins.exists(), "the pin directory is gone");
        Ok(())
    })
    .join()
    .unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        bail!("panicked: {}", text.unwrap_or_default())
    })
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Site {
    fn options(&self) -> Options {
        let mut options = Options::new(&self.pins);
        options.sizes.flows4 = 4096;
        options.sizes.flows6 = 4096;
        options.sizes.verdicts = 4096;
        options
    }

    fn open(&self) -> Result<Kernel> {
        Ok(Kernel::open(&self.options())?)
    }

    /// A veth `10.9.N.1` ↔ `10.9.N.2`, its other end in the container's namespace.
    fn veth(&self, number: u32) -> Result<u32> {
        let (host, peer) = (format!("npd{number}"), format!("npp{number}"));
        ip(&["link", "add", &host, "type", "veth", "peer", "name", &peer])?;
        ip(&["link", "set", &peer, "netns", &self.container])?;
        ip(&["addr", "add", &format!("10.9.{number}.1/24"), "dev", &host])?;
        ip(&["link", "set", &host, "up"])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", &self.container], arguments].concat());
        inside(&["addr", "add", &format!("10.9.{number}.2/24"), "dev", &peer])?;
        inside(&["link", "set", &peer, "up"])?;
        Ok(nix::net::if_::if_nametoindex(host.as_str())?)
    }
}

/// The programs on an interface's hooks, the container's own packets' first, however the
/// kernel lets them be attached.
fn programs(name: &str) -> Result<[Vec<String>; 2]> {
    if requirements::has_tcx() {
        return tcx(name);
    }
    let names = |hook| -> Result<Vec<String>> {
        let shown = filters(name, hook)?;
        // A filter's line has the program's name twice: the filter's own, and the kernel's for it.
        let name = |line: &str| {
            let mut words = line.split_whitespace();
            words
                .find(|word| word.starts_with("netpold_"))
                .map(str::to_owned)
        };
        Ok(shown.lines().filter_map(name).collect())
    };
    Ok([names("ingress")?, names("egress")?])
}

fn tcx(name: &str) -> Result<[Vec<String>; 2]> {
    let names = |kind| -> Result<Vec<String>> {
        let (_, programs) = SchedClassifier::query_tcx(name, kind)?;
        Ok(programs
            .iter()
            .map(|program| program.name_as_str().unwrap_or_default().to_owned())
            .collect())
    };
    Ok([names(TcAttachType::Ingress)?, names(TcAttachType::Egress)?])
}

/// What tc(8) shows of an interface's clsact filters on one hook.
fn filters(name: &str, hook: &str) -> Result<String> {
    let output = Command::new("tc")
        .args(["filter", "show", "dev", name, hook])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn attach_pin_drop_adopt_uninstall(site: &Site) -> Result<()> {
    let ifindex = site.veth(1)?;
    let mut kernel = site.open()?;
    ensure!(kernel.origin == Origin::Fresh);
    ensure!(kernel.attachments.mechanism() == Mechanism::Tcx);
    ensure!(kernel.settle()?.swapped.is_empty());
    let started = Instant::now();
    ensure!(kernel.attachments.attach(ifindex)? == Attached::Yes);
    eprintln!("attach, both hooks: {:?}", started.elapsed());
    let expected = [["netpold_egress"], ["netpold_ingress"]];
    ensure!(tcx("npd1")? == expected, "{:?}", tcx("npd1")?);
    ensure!(kernel.attachments.attached()?[&ifindex].complete());
    drop(kernel);
    ensure!(tcx("npd1")? == expected, "enforced without a daemon");

    let mut kernel = site.open()?;
    ensure!(kernel.origin == Origin::Adopted);
    ensure!(
        !kernel.attachments.attached()?[&ifindex].complete(),
        "still the old programs"
    );
    let started = Instant::now();
    let adopted = kernel.settle()?;
    eprintln!("swap, both hooks: {:?}", started.elapsed());
    ensure!(adopted.swapped.len() == 2 && adopted.stale.is_empty());
    ensure!(tcx("npd1")? == expected);
    ensure!(kernel.attachments.attached()?[&ifindex].complete());
    // Attaching again is a swap, not a second program.
    kernel.attachments.attach(ifindex)?;
    ensure!(tcx("npd1")? == expected);
    drop(kernel);

    let removed = uninstall(&site.pins)?;
    ensure!(
        removed.hooks.len() == 2 && removed.lingering.is_empty(),
        "{removed:?}"
    );
    ensure!(removed.hooks[0].interface.as_deref() == Some("npd1"));
    ensure!(tcx("npd1")? == [[""; 0], [""; 0]]);
    ensure!(!site.pins.exists());
    ensure!(matches!(
        uninstall(&site.pins),
        Err(UninstallError::Pins(PinsError::Absent(_)))
    ));
    Ok(())
}

fn clsact_does_the_same(site: &Site) -> Result<()> {
    let ifindex = site.veth(2)?;
    let other = site.veth(3)?;
    let mut options = site.options();
    options.mechanism = Some(Mechanism::Clsact);
    let mut kernel = Kernel::open(&options)?;
    kernel.settle()?;
    ensure!(kernel.attachments.attach(ifindex)? == Attached::Yes);
    ensure!(kernel.attachments.attach(other)? == Attached::Yes);
    let count = |shown: &str| shown.matches("netpold_").count();
    let both = |name| Ok::<_, anyhow::Error>(filters(name, "ingress")? + &filters(name, "egress")?);
    let first = both("npd2")?;
    drop(kernel);
    ensure!(both("npd2")? == first, "enforced without a daemon");

    let mut kernel = Kernel::open(&options)?;
    ensure!(kernel.origin == Origin::Adopted);
    ensure!(kernel.settle()?.swapped.len() == 4);
    kernel.attachments.attach(ifindex)?;
    let second = both("npd2")?;
    ensure!(
        count(&first) == count(&second) && count(&first) > 0,
        "{first}\n{second}"
    );
    ensure!(first != second, "another program is in the same place");
    ensure!(kernel.attachments.attached()?[&ifindex].complete());
    kernel.attachments.detach(other)?;
    ensure!(count(&both("npd3")?) == 0);
    drop(kernel);
    let removed = uninstall(&site.pins)?;
    ensure!(removed.hooks.len() == 2, "{removed:?}");
    ensure!(count(&both("npd2")?) == 0);
    Ok(())
}

/// Attaches to `npd4` and waits to be killed.
fn child(directory: &Path) -> Result<()> {
    let mut kernel = Kernel::open(&Options::new(directory))?;
    kernel.settle()?;
    kernel
        .attachments
        .attach(nix::net::if_::if_nametoindex("npd4")?)?;
    kernel.tables.apply(&[Step::PutEndpoint {
        slot: 9,
        value: endpoint(77),
    }])?;
    println!("attached");
    loop {
        thread::park();
    }
}

fn killed_and_adopted(site: &Site) -> Result<()> {
    let ifindex = site.veth(4)?;
    let mut daemon = Command::new(std::env::current_exe()?)
        .env(CHILD, &site.pins)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = daemon.stdout.take().context("the child's output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == "attached", "{line}");
    ensure!(matches!(
        Kernel::open(&site.options()),
        Err(OpenError::Pins(PinsError::InUse(_)))
    ));
    ensure!(matches!(
        uninstall(&site.pins),
        Err(UninstallError::Pins(PinsError::InUse(_)))
    ));
    kill(Pid::from_raw(i32::try_from(daemon.id())?), Signal::SIGKILL)?;
    daemon.wait()?;
    ensure!(programs("npd4")? == [["netpold_egress"], ["netpold_ingress"]]);
    let mut kernel = site.open()?;
    ensure!(kernel.origin == Origin::Adopted);
    ensure!(kernel.tables.installed().endpoints[&9] == endpoint(77));
    ensure!(kernel.settle()?.swapped.len() == 2);
    ensure!(kernel.attachments.attached()?[&ifindex].complete());
    Ok(())
}

fn swaps_lose_no_packet(site: &Site) -> Result<()> {
    swap_under_traffic(site, Mechanism::Tcx)
}

fn clsact_swaps_lose_no_packet(site: &Site) -> Result<()> {
    swap_under_traffic(site, Mechanism::Clsact)
}

fn swap_under_traffic(site: &Site, mechanism: Mechanism) -> Result<()> {
    let mut options = site.options();
    options.mechanism = Some(mechanism);
    let ifindex = site.veth(5)?;
    let mut kernel = Kernel::open(&options)?;
    kernel.tables.apply(&[Step::PutFlags {
        flags: [control_flags::UNIDENTIFIED_PASS; 2],
    }])?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    let receiver = UdpSocket::bind("10.9.5.1:9999")?;
    receiver.set_read_timeout(Some(patience(Duration::from_secs(2))))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, total) = mpsc::channel();
    let (container, stopped) = (site.container.clone(), Arc::clone(&stop));
    let sender = thread::spawn(move || -> Result<()> {
        let namespace = fs::File::open(Path::new("/run/netns").join(container))?;
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind("10.9.5.2:0")?;
        let mut count = 0_u32;
        // Lock step, so that a full socket buffer is never taken for a lost packet.
        while !stopped.load(Ordering::Relaxed) {
            for _ in 0..16 {
                socket.send_to(&count.to_be_bytes(), "10.9.5.1:9999")?;
                count += 1;
            }
            let mut answer = [0; 4];
            socket.set_read_timeout(Some(patience(Duration::from_secs(2))))?;
            socket
                .recv(&mut answer)
                .with_context(|| format!("a packet before {count} was lost"))?;
        }
        sent.send(count)?;
        Ok(())
    });
    let flag = Arc::clone(&stop);
    let echo = thread::spawn(move || -> Result<u32> {
        let mut expected = 0_u32;
        loop {
            let mut packet = [0; 4];
            match receiver.recv_from(&mut packet) {
                Ok((_, from)) => {
                    ensure!(u32::from_be_bytes(packet) == expected, "lost {expected}");
                    expected += 1;
                    if expected.is_multiple_of(16) {
                        receiver.send_to(&packet, from)?;
                    }
                }
                Err(_) if flag.load(Ordering::Relaxed) => return Ok(expected),
                Err(error) => return Err(error).context(format!("after {expected}")),
            }
        }
    });
    for _ in 0..5 {
        drop(kernel);
        kernel = Kernel::open(&options)?;
        ensure!(kernel.settle()?.swapped.len() == 2);
    }
    stop.store(true, Ordering::Relaxed);
    sender.join().expect("the sender does not panic")?;
    let received = echo.join().expect("the receiver does not panic")?;
    let sent = total.recv()?;
    ensure!(
        sent == received && sent > 100,
        "sent {sent}, received {received}"
    );
    Ok(())
}

/// What nobody has identified passes nothing: not while the daemon is gone, not while its
/// programs are replaced, not while maps of another layout are. Each way of the path is
/// open before the first attach, so the test would see a packet.
fn an_unknown_interface_is_held_throughout(site: &Site) -> Result<()> {
    let ifindex = site.veth(6)?;
    let receiver = UdpSocket::bind("10.9.6.1:9999")?;
    receiver.set_read_timeout(Some(patience(Duration::from_secs(2))))?;
    let container = site.container.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sender = thread::spawn(move || -> Result<u32> {
        let namespace = fs::File::open(Path::new("/run/netns").join(container))?;
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind("10.9.6.2:0")?;
        let mut sent = 0;
        while !stopped.load(Ordering::Relaxed) {
            // An unanswered ARP question is an error in time, and as good as a packet here.
            sent += u32::from(socket.send_to(b"x", "10.9.6.1:9999").is_ok());
            thread::yield_now();
        }
        Ok(sent)
    });
    let mut packet = [0; 8];
    receiver.recv(&mut packet).context("it is open before")?;
    let mut kernel = site.open()?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    receiver.set_nonblocking(true)?;
    kernel.tables.apply(&[Step::Fence])?;
    while receiver.recv(&mut packet).is_ok() {}
    for round in 0..4 {
        if round == 2 {
            drop(kernel);
            let pin = site.pins.join("maps/CONTROL");
            let mut control: aya::maps::Array<_, Wire<Control>> =
                Map::from_map_data(MapData::from_pin(&pin)?)?.try_into()?;
            let mut value = control.get(&0, 0)?;
            value.0.layout += 1;
            control.set(0, value, 0)?;
        } else {
            drop(kernel);
        }
        kernel = site.open()?;
        ensure!(kernel.settle()?.swapped.len() == 2);
        ensure!(
            receiver.recv(&mut packet).is_err(),
            "a packet passed in round {round}"
        );
    }
    let counts = kernel.counters.read()?;
    let held = counts
        .iter()
        .find(|count| count.reason == Reason::Unidentified && count.direction == Hook::Egress);
    ensure!(held.is_some_and(|count| count.packets > 0), "{counts:?}");
    drop(kernel);
    uninstall(&site.pins)?;
    receiver.set_nonblocking(false)?;
    receiver.recv(&mut packet).context("it is open after")?;
    stop.store(true, Ordering::Relaxed);
    ensure!(sender.join().expect("the sender does not panic")? > 0);
    Ok(())
}

fn vanished_interfaces(site: &Site) -> Result<()> {
    vanish(site, Mechanism::Tcx)
}

fn clsact_vanished_interfaces(site: &Site) -> Result<()> {
    vanish(site, Mechanism::Clsact)
}

fn vanish(site: &Site, mechanism: Mechanism) -> Result<()> {
    let mut options = site.options();
    options.mechanism = Some(mechanism);
    let ifindex = site.veth(6)?;
    let mut kernel = Kernel::open(&options)?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    ip(&["link", "del", "npd6"])?;
    let gone = kernel
        .attachments
        .attach(ifindex)
        .context("attaching to what is gone")?;
    ensure!(gone == Attached::Gone);
    ensure!(
        kernel.attachments.attached()?.is_empty(),
        "its pins are gone"
    );
    ensure!(kernel.attachments.attach(999_999)? == Attached::Gone);

    // One that went while no daemon ran.
    let ifindex = site.veth(7)?;
    kernel.attachments.attach(ifindex)?;
    drop(kernel);
    ip(&["link", "del", "npd7"])?;
    let mut kernel = Kernel::open(&options)?;
    let adopted = kernel.settle()?;
    ensure!(
        adopted.swapped.is_empty() && adopted.stale.len() == 2,
        "{adopted:?}"
    );

    // Healing: somebody took a link or a filter away.
    let ifindex = site.veth(8)?;
    kernel.attachments.attach(ifindex)?;
    match mechanism {
        Mechanism::Tcx => {
            let pin = site.pins.join(format!("links/{ifindex}-ingress"));
            fs::remove_file(&pin)?;
            // It is held, too.
            ensure!(kernel.attachments.attached()?[&ifindex].complete());
            ensure!(kernel.attachments.restore()? && pin.exists());
            ensure!(!kernel.attachments.restore()?, "nothing is missing");
        }
        Mechanism::Clsact => {
            run(
                "tc",
                &["filter", "del", "dev", "npd8", "egress", "pref", "1"],
            )?;
            ensure!(filters("npd8", "egress")?.is_empty());
        }
    }
    ensure!(kernel.attachments.attached()?[&ifindex].complete());
    if mechanism == Mechanism::Clsact {
        ensure!(filters("npd8", "egress")?.contains("netpold_ingress"));
    }
    kernel.attachments.detach(ifindex)?;
    ensure!(kernel.attachments.attached()?.is_empty());
    // Before the kernel has finished with the first.
    for _ in 0..5 {
        kernel.attachments.attach(ifindex)?;
        kernel.attachments.detach(ifindex)?;
    }
    Ok(())
}

fn a_second_daemon_is_refused(site: &Site) -> Result<()> {
    let kernel = site.open()?;
    // One part alone keeps the lock.
    let only_counters = |kernel: Kernel| kernel.counters;
    let counters = only_counters(kernel);
    ensure!(matches!(
        site.open()
            .map(drop)
            .map_err(|error| error.downcast::<OpenError>()),
        Err(Ok(OpenError::Pins(PinsError::InUse(_))))
    ));
    drop(counters);
    site.open()?;
    Ok(())
}

fn endpoint(id: u32) -> Endpoint {
    Endpoint {
        id,
        reserved: 0,
        lanes: [EndpointLane {
            ingress: 100,
            egress: 0,
            revision: 1,
            ..EndpointLane::default()
        }; 2],
    }
}

fn steps() -> Vec<Step> {
    let address = Address {
        class: [50, 51],
        owner: [77, 77],
        slot: [9, 9],
    };
    vec![
        Step::PutVerdict {
            key: VerdictKey {
                subject: 100,
                class: 50,
            },
            value: Verdict {
                other: 3,
                ..Verdict::default()
            },
        },
        Step::PutPortBlock {
            key: 500,
            value: Box::default(),
        },
        Step::PutEndpoint {
            slot: 9,
            value: endpoint(77),
        },
        Step::PutAddress {
            address: [10, 0, 0, 1].into(),
            value: address,
        },
        Step::PutAddress {
            address: "fd00::1".parse().expect("an address"),
            value: address,
        },
        Step::PutPrefix {
            net: "10.0.0.0/8".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [60, 61] },
        },
        Step::PutPrefix {
            net: "10.1.0.0/16".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [62, 63] },
        },
        Step::PutPrefix {
            net: "0.0.0.0/0".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [64, 65] },
        },
        Step::PutPrefix {
            net: "fd00::/8".parse().expect("a net"),
            value: netpol_abi::tables::Prefix { class: [66, 67] },
        },
        Step::PutInterface {
            ifindex: 40,
            value: interface(40),
        },
        Step::PutFlags { flags: [0, 6] },
        Step::Flip {
            generation: 1,
            flags: [0, 6],
        },
        Step::Fence,
    ]
}

fn interface(ifindex: u32) -> Interface {
    Interface {
        ifindex,
        endpoint: 9,
        mac: [2, 0, 0, 0, 0, 1],
        reserved: 0,
        netns: 3,
    }
}

fn steps_are_written_and_read_back(site: &Site) -> Result<()> {
    let mut kernel = site.open()?;
    kernel.tables.apply(&steps())?;
    let installed = kernel.tables.installed().clone();
    ensure!(installed.prefixes.len() == 4 && installed.addresses.len() == 2);
    kernel.tables.resync()?;
    ensure!(
        *kernel.tables.installed() == installed,
        "the mirror is what the kernel has"
    );
    drop(kernel);
    let mut kernel = site.open()?;
    ensure!(*kernel.tables.installed() == installed);
    ensure!(installed.control.generation == 1 && installed.control.flags == [0, 6]);
    let started = Instant::now();
    kernel.tables.apply(&[Step::Fence])?;
    eprintln!("fence: {:?}", started.elapsed());
    kernel.tables.apply(&[
        Step::DeletePrefix {
            net: "10.0.0.0/8".parse()?,
        },
        Step::DeleteAddress {
            address: [10, 0, 0, 1].into(),
        },
        Step::DeleteAddress {
            address: [10, 0, 0, 99].into(),
        },
        Step::DeleteInterface { ifindex: 40 },
        Step::PutEndpoint {
            slot: 9,
            value: Endpoint::default(),
        },
    ])?;
    let installed = kernel.tables.installed().clone();
    ensure!(installed.prefixes.len() == 3 && installed.addresses.len() == 1);
    ensure!(installed.interfaces.is_empty() && installed.endpoints.is_empty());
    kernel.tables.resync()?;
    ensure!(*kernel.tables.installed() == installed);
    ensure!(
        kernel
            .tables
            .fill()
            .iter()
            .any(|fill| fill.table == "VERDICTS" && fill.entries == 1 && fill.limit == 4096)
    );
    Ok(())
}

fn a_full_table_changes_nothing(site: &Site) -> Result<()> {
    let mut kernel = site.open()?;
    kernel.tables.apply(&steps())?;
    let before = kernel.tables.installed().clone();
    let mut more = vec![
        Step::DeleteInterface { ifindex: 40 },
        Step::PutPrefix {
            net: "10.1.0.0/16".parse()?,
            value: netpol_abi::tables::Prefix { class: [1, 1] },
        },
    ];
    more.extend((0..5000).map(|class| Step::PutVerdict {
        key: VerdictKey { subject: 8, class },
        value: Verdict::default(),
    }));
    more.push(Step::Flip {
        generation: 2,
        flags: [0, 6],
    });
    let error = kernel
        .tables
        .apply(&more)
        .expect_err("5000 do not fit 4096");
    ensure!(!error.flipped && error.clean, "{error:?}");
    ensure!(
        matches!(
            error.cause,
            StepError::TableFull {
                map: "VERDICTS",
                limit: 4096
            }
        ),
        "{error:?}"
    );
    ensure!(*kernel.tables.installed() == before);
    kernel.tables.resync()?;
    ensure!(
        *kernel.tables.installed() == before,
        "in the kernel as well"
    );
    let error = kernel
        .tables
        .apply(&[Step::PutEndpoint {
            slot: 1 << 20,
            value: endpoint(1),
        }])
        .expect_err("there is no such slot");
    ensure!(matches!(error.cause, StepError::NoSlot { .. }), "{error:?}");
    Ok(())
}

/// Two endpoints, `rules` port ranges, and one of two prefixes by the evenness of `rules`.
fn desired(rules: u16) -> Result<Tables> {
    let mut tables = Tables {
        flags: 6,
        ..Tables::default()
    };
    for slot in 0..2 {
        let id = 10 + slot;
        let entry = EndpointEntry {
            id,
            ingress: 100 + u64::from(rules),
            audited_ingress: 100 + u64::from(rules),
            ..EndpointEntry::default()
        };
        tables.endpoints.insert(slot, entry);
        let entry = InterfaceEntry {
            endpoint: slot,
            mac: [2, 0, 0, 0, 0, slot as u8],
            netns: 7 + slot,
        };
        tables.interfaces.insert(40 + slot, entry);
        let entry = AddressEntry {
            class: 50,
            owner: id,
            slot,
        };
        tables
            .addresses
            .insert([10, 0, 0, slot as u8].into(), entry);
        let address = format!("fd00::{id}").parse()?;
        tables.addresses.insert(address, entry);
    }
    let net = if rules.is_multiple_of(2) {
        "10.0.0.0/8"
    } else {
        "10.1.0.0/16"
    };
    let prefixes = [(net.parse()?, 60), ("fd00::/8".parse()?, 60)];
    tables.prefixes = Arc::new(prefixes.into());
    let ranges = (0..rules)
        .map(|number| PortRange {
            first: number * 10,
            last: number * 10 + 5,
            protocol: 6,
            rule: 1,
            ..PortRange::default()
        })
        .collect();
    let key = VerdictKey {
        subject: 100 + u64::from(rules),
        class: 50,
    };
    tables
        .verdicts
        .insert(key, VerdictEntry { other: 0, ranges });
    Ok(tables)
}

/// Ends a plan after each of its steps as a crash would, and comes back.
fn a_plan_and_a_crash_in_it(site: &Site) -> Result<()> {
    let mut kernel = site.open()?;
    let (first, second) = (desired(3)?, desired(150)?);
    let go = |kernel: &mut Kernel, desired: &Tables, steps: Option<usize>| -> Result<Tables> {
        let installed = kernel.tables.installed();
        let made = plan(
            &installed.read_back(),
            desired,
            installed.control.generation,
        );
        kernel.tables.check(&made.demand)?;
        let end = steps.unwrap_or(made.steps.len()).min(made.steps.len());
        // The waits change nothing here and cost the test its time.
        let steps: Vec<_> = made.steps[..end]
            .iter()
            .filter(|step| **step != Step::Fence)
            .cloned()
            .collect();
        kernel.tables.apply(&steps)?;
        Ok(made.installed(desired.clone()))
    };
    let before = go(&mut kernel, &first, None)?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().read_back() == before);
    ensure!(recover(kernel.tables.installed()).is_empty());
    let installed = kernel.tables.installed();
    let made = plan(&before, &second, installed.control.generation);
    ensure!(
        made.steps
            .iter()
            .any(|step| matches!(step, Step::PutPortBlock { .. }))
    );
    let flip = made
        .steps
        .iter()
        .position(|step| matches!(step, Step::Flip { .. }))
        .context("a flip")?;
    for end in 0..=made.steps.len() {
        go(&mut kernel, &second, Some(end))?;
        kernel.tables.resync()?;
        let installed = kernel.tables.installed();
        let subject = |tables: &Tables| tables.endpoints.get(&0).map(|entry| entry.ingress);
        let expected = if end <= flip { 103 } else { 250 };
        ensure!(
            subject(&installed.read_back()) == Some(expected),
            "after {end}"
        );
        let repair = recover(installed);
        kernel.tables.apply(&repair)?;
        kernel.tables.resync()?;
        ensure!(recover(kernel.tables.installed()).is_empty(), "after {end}");
        let reached = go(&mut kernel, &second, None)?;
        kernel.tables.resync()?;
        ensure!(
            kernel.tables.installed().read_back() == reached,
            "after {end}"
        );
        go(&mut kernel, &first, None)?;
    }
    ensure!(matches!(
        kernel.tables.check(&Demand {
            verdicts: 4097,
            ..Demand::default()
        }),
        Err(StepError::TableFull {
            map: "VERDICTS",
            limit: 4096
        })
    ));
    Ok(())
}

fn interfaces_that_share_a_slot(site: &Site) -> Result<()> {
    let mut kernel = site.open()?;
    let (first, second) = (40, 40 + INTERFACE_SLOTS);
    let put = |ifindex| Step::PutInterface {
        ifindex,
        value: interface(ifindex),
    };
    kernel.tables.apply(&[put(first), put(second)])?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().interfaces.len() == 2);
    kernel
        .tables
        .apply(&[Step::DeleteInterface { ifindex: first }, put(second)])?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().interfaces.keys().eq([&second]));
    kernel
        .tables
        .apply(&[Step::DeleteInterface { ifindex: second }])?;
    kernel.tables.resync()?;
    ensure!(kernel.tables.installed().interfaces.is_empty());
    Ok(())
}

fn another_layout_is_replaced_beside(site: &Site) -> Result<()> {
    let ifindex = site.veth(9)?;
    let mut kernel = site.open()?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    kernel.tables.apply(&steps())?;
    drop(kernel);
    let pin = site.pins.join("maps/CONTROL");
    let old = MapInfo::from_pin(&pin)?.id();
    let mut control: aya::maps::Array<_, Wire<Control>> =
        Map::from_map_data(MapData::from_pin(&pin)?)?.try_into()?;
    let mut value = control.get(&0, 0)?;
    value.0.layout = LAYOUT_VERSION + 1;
    control.set(0, value, 0)?;

    let kernel = site.open()?;
    ensure!(kernel.origin == Origin::Replacing);
    ensure!(kernel.tables.installed().endpoints.is_empty());
    ensure!(programs("npd9")? == [["netpold_egress"], ["netpold_ingress"]]);
    // It dies before it is done: the next one goes on with the new set.
    drop(kernel);
    let mut kernel = site.open()?;
    ensure!(kernel.origin == Origin::Adopted);
    ensure!(kernel.settle()?.swapped.len() == 2);
    ensure!(!site.pins.join("maps-next").exists());
    ensure!(MapInfo::from_pin(&pin)?.id() != old);
    drop(kernel);
    ensure!(site.open()?.origin == Origin::Adopted);
    Ok(())
}

fn flows_are_swept_and_accounted(site: &Site) -> Result<()> {
    use netpol_abi::tables::{Flow, FlowKey4, account};
    let mut options = site.options();
    options.timeouts = [50; _];
    let mut kernel = Kernel::open(&options)?;
    kernel.tables.apply(&[Step::PutEndpoint {
        slot: 9,
        value: endpoint(77),
    }])?;
    let open = |name: &str| -> Result<Map> {
        Ok(Map::from_map_data(MapData::from_pin(
            site.pins.join("maps").join(name),
        )?)?)
    };
    let mut flows: aya::maps::HashMap<_, Wire<FlowKey4>, Wire<Flow>> =
        open("FLOWS4")?.try_into()?;
    let key = |endpoint: u32, port| {
        Wire(FlowKey4 {
            owner: endpoint << 8 | 6,
            local_port: port,
            ..FlowKey4::default()
        })
    };
    let seen = |seen| {
        Wire(Flow {
            seen,
            payer: 9,
            ..Flow::default()
        })
    };
    flows.insert(key(77, 1), seen(1000), 0)?;
    flows.insert(key(77, 2), seen(1060), 0)?;
    flows.insert(key(77, 3), seen(1095), 0)?;
    flows.insert(key(78, 1), seen(1099), 0)?;
    let mut entered: aya::maps::Array<_, u64> = open("ENTERED")?.try_into()?;
    entered.set(account(9, 0), 5, 0)?;
    entered.set(account(9, 1), 7, 0)?;
    entered.set(account(0, 0), 6, 0)?;
    let sweep = kernel.flows.sweep(1100)?;
    ensure!(sweep.removed == 2, "{sweep:?}");
    ensure!(sweep.next == Some(10));
    ensure!(sweep.fill[0].entries == 2 && sweep.held[&9] == 2);
    let collected: aya::maps::Array<_, u32> = open("COLLECTED")?.try_into()?;
    ensure!(collected.get(&account(9, 0), 0)? == 3, "5 - 3 are 2");
    ensure!(
        collected.get(&account(9, 1), 0)? == 7,
        "it has none of IPv6"
    );
    ensure!(collected.get(&account(0, 0), 0)? == 4, "the table holds 2");
    let sweep = kernel.flows.sweep(2000)?;
    ensure!(sweep.removed == 2 && sweep.next.is_none(), "{sweep:?}");
    ensure!(collected.get(&account(9, 0), 0)? == 5);
    ensure!(
        kernel
            .counters
            .read()?
            .iter()
            .all(|count| count.packets == 0)
    );
    Ok(())
}

/// A map that the programs renamed would be made anew at every start, and lose its content.
fn every_contract_map_is_in_the_programs(site: &Site) -> Result<()> {
    let kernel = site.open()?;
    let mut pinned: Vec<String> = fs::read_dir(site.pins.join("maps"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    pinned.sort();
    let mut expected: Vec<_> = netpold::datapath::maps::MAPS
        .iter()
        .map(|spec| spec.name)
        .collect();
    expected.sort_unstable();
    ensure!(pinned == expected, "{pinned:?}");
    for spec in &netpold::datapath::maps::MAPS {
        let info = MapInfo::from_pin(site.pins.join("maps").join(spec.name))?;
        ensure!(
            (info.key_size(), info.value_size()) == (spec.key, spec.value),
            "{}",
            spec.name
        );
    }
    drop(kernel);
    Ok(())
}
