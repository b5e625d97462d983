//! Programs on real interfaces: pins, adoption after a kill, swaps under traffic, healing,
//! uninstall. The maps are `tables.rs`'s.
//!
//! Needs root, and fails without it. Each case has a fixture of its own (`netpold_tests::fixture`), which is gone
//! afterwards.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData};
use libtest_mimic::Arguments;
use netpol_abi::Reason;
use netpol_abi::tables::{Control, control_flags};
use netpol_engine::plan::Step;
use netpold::datapath::kernel::Origin;
use netpold::datapath::pins::PinsError;
use netpold::datapath::requirements;
use netpold::datapath::uninstall::UninstallError;
use netpold::datapath::wire::Wire;
use netpold::datapath::{Attached, Hook, Kernel, Mechanism, OpenError, Options, uninstall};
use netpold_tests::kernel_fixture::{
    KernelFixture, case, endpoint, filters, ip, programs, run, tcx,
};
use netpold_tests::scaled;
use nix::sched::CloneFlags;
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
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn attach_pin_drop_adopt_uninstall(fixture: &KernelFixture) -> Result<()> {
    let ifindex = fixture.veth(1)?;
    let mut kernel = fixture.open()?;
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

    let mut kernel = fixture.open()?;
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

    let removed = uninstall(&fixture.pins)?;
    ensure!(
        removed.hooks.len() == 2 && removed.lingering.is_empty(),
        "{removed:?}"
    );
    ensure!(removed.hooks[0].interface.as_deref() == Some("npd1"));
    ensure!(tcx("npd1")? == [[""; 0], [""; 0]]);
    ensure!(!fixture.pins.exists());
    ensure!(matches!(
        uninstall(&fixture.pins),
        Err(UninstallError::Pins(PinsError::Absent(_)))
    ));
    Ok(())
}

fn clsact_does_the_same(fixture: &KernelFixture) -> Result<()> {
    let ifindex = fixture.veth(2)?;
    let other = fixture.veth(3)?;
    let mut options = fixture.options();
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
    let removed = uninstall(&fixture.pins)?;
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

fn killed_and_adopted(fixture: &KernelFixture) -> Result<()> {
    let ifindex = fixture.veth(4)?;
    let mut daemon = Command::new(std::env::current_exe()?)
        .env(CHILD, &fixture.pins)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = daemon.stdout.take().context("the child's output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == "attached", "{line}");
    ensure!(matches!(
        Kernel::open(&fixture.options()),
        Err(OpenError::Pins(PinsError::InUse(_)))
    ));
    ensure!(matches!(
        uninstall(&fixture.pins),
        Err(UninstallError::Pins(PinsError::InUse(_)))
    ));
    kill(Pid::from_raw(i32::try_from(daemon.id())?), Signal::SIGKILL)?;
    daemon.wait()?;
    ensure!(programs("npd4")? == [["netpold_egress"], ["netpold_ingress"]]);
    let mut kernel = fixture.open()?;
    ensure!(kernel.origin == Origin::Adopted);
    ensure!(kernel.tables.installed().endpoints[&9] == endpoint(77));
    ensure!(kernel.settle()?.swapped.len() == 2);
    ensure!(kernel.attachments.attached()?[&ifindex].complete());
    Ok(())
}

fn swaps_lose_no_packet(fixture: &KernelFixture) -> Result<()> {
    swap_under_traffic(fixture, Mechanism::Tcx)
}

fn clsact_swaps_lose_no_packet(fixture: &KernelFixture) -> Result<()> {
    swap_under_traffic(fixture, Mechanism::Clsact)
}

fn swap_under_traffic(fixture: &KernelFixture, mechanism: Mechanism) -> Result<()> {
    let mut options = fixture.options();
    options.mechanism = Some(mechanism);
    let ifindex = fixture.veth(5)?;
    let mut kernel = Kernel::open(&options)?;
    kernel.tables.apply(&[Step::PutFlags {
        flags: [control_flags::UNIDENTIFIED_PASS; 2],
    }])?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    let receiver = UdpSocket::bind("10.9.5.1:9999")?;
    receiver.set_read_timeout(Some(scaled(Duration::from_secs(2))))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, total) = mpsc::channel();
    let (container, stopped) = (fixture.container.clone(), Arc::clone(&stop));
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
            socket.set_read_timeout(Some(scaled(Duration::from_secs(2))))?;
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

/// An unidentified interface passes nothing: not while the daemon is gone, not while its
/// programs are replaced, not while maps of another layout are. Each way of the path is
/// open before the first attach, so the test would see a packet.
fn an_unknown_interface_is_held_throughout(fixture: &KernelFixture) -> Result<()> {
    let ifindex = fixture.veth(6)?;
    let receiver = UdpSocket::bind("10.9.6.1:9999")?;
    receiver.set_read_timeout(Some(scaled(Duration::from_secs(2))))?;
    let container = fixture.container.clone();
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
    let mut kernel = fixture.open()?;
    kernel.settle()?;
    kernel.attachments.attach(ifindex)?;
    receiver.set_nonblocking(true)?;
    kernel.tables.apply(&[Step::WaitGracePeriod])?;
    while receiver.recv(&mut packet).is_ok() {}
    for round in 0..4 {
        if round == 2 {
            drop(kernel);
            let pin = fixture.pins.join("maps/CONTROL");
            let mut control: aya::maps::Array<_, Wire<Control>> =
                Map::from_map_data(MapData::from_pin(&pin)?)?.try_into()?;
            let mut value = control.get(&0, 0)?;
            value.0.layout += 1;
            control.set(0, &value, 0)?;
        } else {
            drop(kernel);
        }
        kernel = fixture.open()?;
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
    uninstall(&fixture.pins)?;
    receiver.set_nonblocking(false)?;
    receiver.recv(&mut packet).context("it is open after")?;
    stop.store(true, Ordering::Relaxed);
    ensure!(sender.join().expect("the sender does not panic")? > 0);
    Ok(())
}

fn vanished_interfaces(fixture: &KernelFixture) -> Result<()> {
    vanish(fixture, Mechanism::Tcx)
}

fn clsact_vanished_interfaces(fixture: &KernelFixture) -> Result<()> {
    vanish(fixture, Mechanism::Clsact)
}

fn vanish(fixture: &KernelFixture, mechanism: Mechanism) -> Result<()> {
    let mut options = fixture.options();
    options.mechanism = Some(mechanism);
    let ifindex = fixture.veth(6)?;
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
    let ifindex = fixture.veth(7)?;
    kernel.attachments.attach(ifindex)?;
    drop(kernel);
    ip(&["link", "del", "npd7"])?;
    let mut kernel = Kernel::open(&options)?;
    let adopted = kernel.settle()?;
    ensure!(
        adopted.swapped.is_empty() && adopted.stale.len() == 2,
        "{adopted:?}"
    );

    // Healing: another process took a link or a filter away.
    let ifindex = fixture.veth(8)?;
    kernel.attachments.attach(ifindex)?;
    match mechanism {
        Mechanism::Tcx => {
            let pin = fixture.pins.join(format!("links/{ifindex}-ingress"));
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

fn a_second_daemon_is_refused(fixture: &KernelFixture) -> Result<()> {
    let kernel = fixture.open()?;
    // One part alone keeps the lock.
    let only_counters = |kernel: Kernel| kernel.counters;
    let counters = only_counters(kernel);
    ensure!(matches!(
        fixture
            .open()
            .map(drop)
            .map_err(|error| error.downcast::<OpenError>()),
        Err(Ok(OpenError::Pins(PinsError::InUse(_))))
    ));
    drop(counters);
    fixture.open()?;
    Ok(())
}
