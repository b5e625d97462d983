//! What this kernel lacks is what its version promises, and is said; what the programs ask of its
//! verifier leaves room. Needs root. `make test-kernels` runs it on others.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use netpol_abi::limits::FIRST_LOOPBACK;
use netpold::datapath::requirements::lacks;
use netpold::datapath::{Hook, Kernel, Options, uninstall};
use netpold_tests::{Daemon, Lab, residue};

/// What the verifier looks at before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`, since 5.2).
const LIMIT: u32 = 1_000_000;

/// `(5, 10)` of `5.10.0-46-amd64`.
fn version() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-', '+']);
    let mut next = || {
        numbers
            .next()
            .context("a number")
            .and_then(|n| Ok(n.parse()?))
    };
    Ok((next()?, next()?))
}

#[test]
fn what_the_kernel_lacks_is_what_its_version_promises_and_is_said() -> Result<()> {
    let version = version()?;
    let lacks = lacks();
    let found: Vec<_> = lacks.iter().map(|lack| lack.what.since).collect();
    let expected: Vec<_> = [("6.6", (6, 6)), ("5.11", (5, 11))]
        .into_iter()
        .filter(|(_, since)| version < *since)
        .map(|(since, _)| since)
        .collect();
    ensure!(found == expected, "Linux {version:?} lacks {lacks:?}");

    let lab = Lab::new()?;
    let daemon = Daemon::start(&lab, "")?;
    daemon.wait()?;
    let status = daemon.netpol(&["status"])?;
    let status = String::from_utf8_lossy(&status.stdout);
    let how = if found.contains(&"6.6") {
        "clsact"
    } else {
        "tcx"
    };
    ensure!(status.contains(&format!("attached by {how},")), "{status}");
    for text in [&*status, &daemon.log()] {
        ensure!(
            text.matches("this kernel has no ").count() == lacks.len(),
            "{text}"
        );
        for lack in &lacks {
            ensure!(text.contains(&lack.to_string()), "{lack} is not in\n{text}");
        }
    }
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn the_verifier_is_far_from_its_limit() -> Result<()> {
    let pins = PathBuf::from(format!("/sys/fs/bpf/npd-room-{}", std::process::id()));
    let counted = (|| {
        let mut kernel = Kernel::open(&Options::new(&pins))?;
        let mut counted = Vec::new();
        for (what, number, hook) in [
            ("egress", 0, Hook::Egress),
            ("ingress", 0, Hook::Ingress),
            ("questions", FIRST_LOOPBACK, Hook::Egress),
        ] {
            let info = kernel.attachments.judge(number, hook)?.info()?;
            // Kernels before 5.16 do not tell.
            let verified = info.verified_instruction_count();
            counted.push((what, info.size_jitted(), verified));
        }
        anyhow::Ok(counted)
    })();
    uninstall(&pins)?;
    for (what, bytes, verified) in counted? {
        eprintln!("{what}: {bytes} bytes of machine code, {verified:?} instructions verified");
        ensure!(verified.is_none_or(|verified| verified < LIMIT / 2));
    }
    Ok(())
}
