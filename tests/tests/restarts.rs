//! What other software does to the host beside the daemon: pins removed, the BPF file system unmounted,
//! programs detached, a full disk. What is denied stays denied throughout, what is allowed loses
//! nothing, and it is said. Needs root and bpftool.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::{LinkOrder, SchedClassifier, TcAttach, TcAttachType};
use netpold::datapath::FLOOR;
use netpold::netns;
use netpold_tests::load::{Load, under_load};
use netpold_tests::starting_container::gate;
use netpold_tests::time_scale::{within, within_time};
use netpold_tests::{Daemon, Lab, residue};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Its store admits `web/front` alone.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
    metadata: {name: store, namespace: db}\nspec:\n  podSelector: {matchLabels: {app: store}}\n  \
    policyTypes: [Ingress]\n  ingress:\n  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}]\n";

/// Sooner than the next look that nothing brings about.
const SOON: Duration = Duration::from_secs(5);

fn lab() -> Result<Lab> {
    Lab::with_pods(&["web/front", "db/store", "db/other"])
}

fn links(daemon: &Daemon) -> Result<Vec<PathBuf>> {
    let pins = daemon.pins().join("links");
    let entries = std::fs::read_dir(&pins).with_context(|| pins.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[test]
fn pins_that_are_removed_take_nothing_off_and_come_back() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::enforcing(&lab, &[("store.yaml", POLICY)], "")?;
    let said = under_load(&lab, Load::default(), || {
        let before = links(&daemon)?;
        ensure!(before.len() >= 6, "{before:?}");
        for round in 0..3 {
            for path in links(&daemon)? {
                std::fs::remove_file(path)?;
            }
            if round == 1 {
                std::fs::remove_file(daemon.pins().join("maps/FLOWS4"))?;
            }
            // It is noticed without a question.
            within_time(SOON, "the pins are back", || {
                Ok(links(&daemon)?.len() == before.len())
            })?;
            within_time(SOON, "the map is back", || {
                Ok(daemon.pins().join("maps/FLOWS4").exists())
            })?;
            daemon.kill()?;
            daemon.launch()?;
            daemon.wait()?;
        }
        Ok(())
    })
    .with_context(|| daemon.log())?;
    ensure!(said.late == 0, "{said:?}");
    ensure!(daemon.log().contains("are put back"), "{}", daemon.log());
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn programs_that_are_detached_are_put_back() -> Result<()> {
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[("store.yaml", POLICY)], "")?;
    for path in links(&daemon)? {
        let done = Command::new("bpftool")
            .args(["link", "detach", "pinned"])
            .arg(&path)
            .output()
            .context("can't run bpftool")?;
        ensure!(done.status.success(), "{done:?}");
    }
    // The kernel gives no event of this: a sync does not wait for the next look.
    daemon.wait()?;
    let log = daemon.log();
    ensure!(
        log.contains("were taken off interfaces by somebody else"),
        "{log}"
    );
    let said = under_load(&lab, Load::default(), || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    ensure!(said.late == 0, "{said:?}");
    Ok(())
}

/// Another program of others on an interface, until it is dropped.
fn stranger(lab: &Lab, interface: &str) -> Result<Ebpf> {
    let mut loaded = Ebpf::load(FLOOR)?;
    let program = loaded.program_mut("floor").context("no program")?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    let interface = CString::new(interface)?;
    netns::inside(&lab.host().path(), || {
        let last = TcAttach::Tcx {
            attach_type: TcAttachType::Egress,
            order: LinkOrder::last(),
        };
        program.attach(&interface, last)
    })??;
    Ok(loaded)
}

#[test]
fn without_programs_no_container_is_let_through_and_with_them_every_one() -> Result<()> {
    /// What a hook takes (`bpf_mprog_max`).
    const MOST: usize = 63;
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[("store.yaml", POLICY)], "")?;
    let config = daemon.config();
    gate(&lab, &config, "install")?;
    let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    let store = status["endpoints"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "store"))
        .context("no endpoint")?;
    let interface = &store["interfaces"][0];
    let (name, index) = (
        interface["name"].as_str().context("no name")?,
        interface["ifindex"].to_string(),
    );
    let is_ready = || -> Result<bool> {
        let status = gate(&lab, &config, "status")?;
        let ready = status.lines().find(|line| line.starts_with("ready"));
        Ok(ready.is_some_and(|line| line.split(' ').any(|word| word == index)))
    };
    within("ready", is_ready)?;
    let mut others = Vec::new();
    for _ in 1..MOST {
        others.push(stranger(&lab, name)?);
    }
    let detached = Command::new("bpftool")
        .args(["link", "detach", "pinned"])
        .arg(daemon.pins().join(format!("links/{index}-ingress")))
        .output()?;
    ensure!(detached.status.success(), "{detached:?}");
    // There is no room for it any more.
    others.push(stranger(&lab, name)?);
    within("shut", || Ok(!is_ready()?)).with_context(|| daemon.log())?;
    drop(others);
    // Nothing happens meanwhile that it would be told of.
    within("let through again", is_ready).with_context(|| daemon.log())
}

#[test]
fn an_unmounted_file_system_is_said_and_pinned_to_again() -> Result<()> {
    let lab = lab()?;
    let place = tempfile::Builder::new().prefix("npd-bpffs-").tempdir()?;
    let mount_it = || {
        mount(
            Some("bpf"),
            place.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
    };
    mount_it()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    daemon.pin_below(place.path())?;
    daemon.put("store.yaml", POLICY)?;
    for pod in lab.pods() {
        daemon.declare(pod)?;
    }
    daemon.launch()?;
    daemon.wait()?;
    let warnings = |daemon: &Daemon| -> Result<String> {
        let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
        let status: serde_json::Value = serde_json::from_slice(&status)?;
        Ok(status["warnings"].to_string())
    };
    let done = under_load(&lab, Load::default(), || {
        umount2(place.path(), MntFlags::MNT_DETACH)?;
        daemon.wait()?;
        ensure!(
            warnings(&daemon)?.contains("not pinned"),
            "{}",
            warnings(&daemon)?
        );
        mount_it()?;
        daemon.wait()?;
        ensure!(
            !warnings(&daemon)?.contains("not pinned"),
            "{}",
            warnings(&daemon)?
        );
        daemon.kill()?;
        daemon.launch()?;
        daemon.wait()
    })
    .with_context(|| daemon.log());
    drop(daemon);
    let unmounted = umount2(place.path(), MntFlags::MNT_DETACH);
    ensure!(done?.late == 0, "words were late");
    unmounted?;
    Ok(())
}

#[test]
fn a_full_disk_costs_what_it_can_not_keep_and_nothing_that_is_in_force() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    daemon.state_on_a_small_disk()?;
    daemon.put("store.yaml", POLICY)?;
    for pod in lab.pods() {
        daemon.declare(pod)?;
    }
    daemon.launch()?;
    daemon.wait()?;
    let done = under_load(&lab, Load::default(), || {
        let filler = daemon.fill_state()?;
        // A policy that comes now is in force, and it is said that it can't be kept.
        daemon.put("more.yaml", &POLICY.replace("name: store", "name: more"))?;
        daemon.wait()?;
        let status = daemon.netpol(&["status"])?;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        ensure!(text.contains("could not be saved"), "{text}");
        daemon.kill()?;
        daemon.launch()?;
        daemon.wait()?;
        std::fs::remove_file(&filler)?;
        daemon.wait()?;
        let status = daemon.netpol(&["status"])?;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        ensure!(!text.contains("could not be saved"), "{text}");
        Ok(())
    })
    .with_context(|| daemon.log());
    ensure!(done?.late == 0, "words were late");
    Ok(())
}

/// The value of a line `generation` in what `netpol status` says of the tables, and its warnings.
fn said(daemon: &Daemon) -> Result<(u64, String)> {
    let output = daemon.netpol(&["status", "--output", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let generation = status["datapath"]["generation"].as_u64();
    Ok((
        generation.with_context(|| status.to_string())?,
        status["warnings"].to_string(),
    ))
}

/// The key of the tables' numbers: kept over a restart, nothing is written; lost, replaced or not
/// kept, all tables change, and no packet meets a wrong verdict.
#[test]
fn the_key_of_the_tables_numbers_is_kept_and_may_be_lost() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::enforcing(&lab, &[("store.yaml", POLICY)], "")?;
    let path = daemon.state().join("numbers.key");
    let key = std::fs::read(&path)?;
    ensure!(std::fs::metadata(&path)?.permissions().mode() & 0o7777 == 0o600);
    let (first, warnings) = said(&daemon)?;
    ensure!(!warnings.contains("numbers.key"), "{warnings}");
    let again = |daemon: &mut Daemon| -> Result<()> {
        daemon.kill()?;
        daemon.launch()?;
        daemon.wait()
    };
    let load = under_load(&lab, Load::default(), || {
        again(&mut daemon)?;
        ensure!(std::fs::read(&path)? == key);
        let (same, _) = said(&daemon)?;
        ensure!(
            same == first,
            "the same tables: generation {first}, then {same}"
        );
        ensure!(!daemon.log().contains("numbers.key"), "{}", daemon.log());

        std::fs::write(&path, "no key")?;
        again(&mut daemon)?;
        let (other, _) = said(&daemon)?;
        ensure!(
            other == first + 1,
            "one commit: generation {first}, then {other}"
        );
        ensure!(
            daemon.log().contains("it is not 32 hexadecimal digits"),
            "{}",
            daemon.log()
        );
        ensure!(std::fs::metadata(&path)?.len() == 33 && std::fs::read(&path)? != key);

        std::fs::remove_file(&path)?;
        std::fs::create_dir(&path)?;
        again(&mut daemon)?;
        let (third, warnings) = said(&daemon)?;
        ensure!(
            third == other + 1,
            "one commit: generation {other}, then {third}"
        );
        ensure!(warnings.contains("can't be kept"), "{warnings}");
        std::fs::remove_dir(&path)?;
        daemon.put("unrelated.yaml", &POLICY.replace("store", "other"))?;
        daemon.wait()?;
        let (_, warnings) = said(&daemon)?;
        ensure!(
            path.is_file() && !warnings.contains("numbers.key"),
            "{warnings}"
        );
        Ok(())
    })
    .with_context(|| daemon.log())?;
    ensure!(load.late == 0, "{load:?}");
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}
