//! Where the kernel side is tried by itself, without a daemon: a network namespace for the host's part, which is the
//! thread's own, one for the container's, and a pin directory.

use std::ffi::CString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use libtest_mimic::Trial;
use netpol_abi::tables::{BRIDGES, Endpoint, EndpointBank};
use netpold::datapath::requirements;
use netpold::datapath::{Kernel, Options, uninstall};
use nix::sched::{CloneFlags, unshare};

/// A case, to run in a fixture of its own. Needs root, and fails without it.
pub fn case(name: &'static str, run: fn(&KernelFixture) -> Result<()>) -> Trial {
    Trial::test(name, move || {
        in_fixture(name, run).map_err(|error| format!("{error:#}").into())
    })
}

/// Where a case runs.
pub struct KernelFixture {
    /// The pin directory.
    pub pins: PathBuf,
    /// The container's namespace, below `/run/netns`.
    pub container: String,
}

impl Drop for KernelFixture {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.container])
            .stderr(Stdio::null())
            .status();
        let _ = uninstall(&self.pins);
    }
}

/// Runs a case in a thread with a network namespace of its own.
fn in_fixture(name: &'static str, run: fn(&KernelFixture) -> Result<()>) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this suite needs root");
    let number = name.bytes().fold(std::process::id(), |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        let fixture = KernelFixture {
            pins: PathBuf::from(format!("/sys/fs/bpf/npd-test-{number:08x}")),
            container: format!("npd-dp-{number:08x}"),
        };
        ip(&["link", "set", "lo", "up"])?;
        ip(&["netns", "add", &fixture.container])?;
        run(&fixture)?;
        ensure!(
            !fixture.pins.exists() || uninstall(&fixture.pins).is_ok(),
            "the pin directory can be uninstalled"
        );
        ensure!(!fixture.pins.exists(), "the pin directory is gone");
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

/// ip(8).
///
/// # Errors
/// It fails.
pub fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

/// A program that has to succeed.
///
/// # Errors
/// It does not.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl KernelFixture {
    /// For small tables, pinned here.
    #[must_use]
    pub fn options(&self) -> Options {
        let mut options = Options::new(&self.pins);
        options.sizes.flows4 = 4096;
        options.sizes.flows6 = 4096;
        options.sizes.verdicts = 4096;
        options
    }

    /// The kernel side.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(&self) -> Result<Kernel> {
        Ok(Kernel::open(&self.options())?)
    }

    /// A veth `10.9.N.1` ↔ `10.9.N.2`, its other end in the container's namespace; its index.
    ///
    /// # Errors
    /// It can't be made.
    pub fn veth(&self, number: u32) -> Result<u32> {
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
///
/// # Errors
/// There is no such interface.
pub fn programs(name: &str) -> Result<[Vec<String>; 2]> {
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

/// Those that TCX has there.
///
/// # Errors
/// The kernel has no TCX, or no such interface.
pub fn tcx(name: &str) -> Result<[Vec<String>; 2]> {
    let name = CString::new(name)?;
    let names = |kind| -> Result<Vec<String>> {
        let (_, programs) = SchedClassifier::query_tcx(&name, kind)?;
        Ok(programs
            .iter()
            .map(|program| program.name_as_str().unwrap_or_default().to_owned())
            .collect())
    };
    Ok([names(TcAttachType::Ingress)?, names(TcAttachType::Egress)?])
}

/// What tc(8) shows of an interface's clsact filters on one hook.
///
/// # Errors
/// There is no tc(8).
pub fn filters(name: &str, hook: &str) -> Result<String> {
    let output = Command::new("tc")
        .args(["filter", "show", "dev", name, hook])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An endpoint that is isolated in one direction.
#[must_use]
pub fn endpoint(id: u32) -> Endpoint {
    Endpoint {
        bridges: [0; BRIDGES],
        id,
        reserved: 0,
        banks: [EndpointBank {
            ingress: 100,
            egress: 0,
            revision: 1,
            ..EndpointBank::default()
        }; 2],
    }
}
