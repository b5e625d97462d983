//! The host itself: its kernel, and what else it puts in the way of packets.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};

use super::{
    BPF_FILE_SYSTEM, BRIDGE_FILTER, GATE, IPTABLES, KERNEL, MAC_POLICY, NFT, PROGRAMS, PROXY,
    RESOLVERS,
};
use crate::api::wire::HealthItem;
use crate::config::{Config, Enabled};
use crate::datapath::pins::on_bpffs;
use crate::datapath::requirements;
use crate::gate::{self, GateState, Scope};
use crate::runtime::resolvers::nameservers;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(super) fn kernel() -> Vec<HealthItem> {
    let release = nix::sys::utsname::uname();
    let release = release
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let subject = format!("Linux {release}");
    if !is_root() {
        return vec![KERNEL.warning(
            &subject,
            "only root can ask the kernel for its features, rules and programs",
            "run it as root: `sudo netpol doctor`",
        )];
    }
    if let Some(missing) = requirements::missing() {
        let text = format!(
            "it has no {}: Linux {} is the first that does",
            missing.feature, missing.since
        );
        return vec![KERNEL.error(&subject, &text, "install a newer kernel")];
    }
    let mut all = vec![KERNEL.ok(&subject, "it has what the programs need")];
    all.extend(
        requirements::lacks()
            .iter()
            .map(|lack| KERNEL.note(&subject, &format!("it has {lack}"), "a newer kernel has it")),
    );
    all
}

pub(super) fn bpf_file_system(config: &Config) -> Vec<HealthItem> {
    let directory = &config.datapath.pin_directory;
    let subject = directory.display().to_string();
    vec![match on_bpffs(directory).unwrap_or(false) {
        true => BPF_FILE_SYSTEM.ok(&subject, "it is on a BPF file system"),
        false => BPF_FILE_SYSTEM.error(
            &subject,
            "it is not on a BPF file system: enforcement would end with the daemon",
            "`mount -t bpf bpf /sys/fs/bpf` (systemd does so by itself)",
        ),
    }]
}

pub(super) fn nft(config: &Config) -> Vec<HealthItem> {
    let version = output("nft", &["--version"]);
    vec![match (version, config.gate.enabled) {
        (Some(version), _) => NFT.ok("", version.trim()),
        (None, Enabled::No) => NFT.ok("", "it is not there, and `[gate] enabled = false`"),
        (None, _) => NFT.error(
            "",
            "nft(8) is not there: the gate cannot be installed, and a container is open until its programs are attached",
            "`apt install nftables`",
        ),
    }]
}

pub(super) fn gate(config: &Config) -> Vec<HealthItem> {
    if let Some(why) = gate::why_not(config) {
        return vec![GATE.note("", &format!("there is to be none: {why}"), "")];
    }
    if !is_root() {
        return Vec::new();
    }
    let kept = GateState::at(&config.state.directory);
    let found = gate::Kernel::open(&config.gate.table).and_then(|mut kernel| kernel.look());
    let install = "`systemctl enable --now netpold-gate` (without systemd: `netpol gate install`)";
    vec![match found {
        Ok(Some(found)) if !found.whole => GATE.error(
            "",
            "its rules were flushed: containers that start are open until their programs are attached",
            install,
        ),
        Ok(Some(found)) if found.scope == Scope::Names => GATE.warning(
            "",
            "it is installed; this kernel cannot tell it bridges (no CONFIG_NFT_BRIDGE_META), so it goes by the names of \
             interfaces",
            "a kernel with CONFIG_NFT_BRIDGE_META, as distributions have it; or delay starts (`netpold-oci`, `netpold-cni`)",
        ),
        Ok(Some(_)) => GATE.ok("", "it is installed"),
        Ok(None) if kept.was_in_use() => {
            GATE.error("", "it was installed, and is not there any more", install)
        }
        Ok(None) => GATE.warning(
            "",
            "it is not installed: a container that starts is open until its programs are attached",
            install,
        ),
        Err(error) => GATE.error("", &error.to_string(), "load nf_tables (`modprobe nf_tables`)"),
    }]
}

pub(super) fn bridge_filter() -> Vec<HealthItem> {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys/net/bridge").join(name));
    let names = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
    let on: Vec<&str> = names
        .into_iter()
        .filter(|name| read(name).is_ok_and(|value| value.trim() == "1"))
        .collect();
    vec![match on.is_empty() {
        true => BRIDGE_FILTER.ok("", "frames on bridges do not pass the host's packet filter"),
        false => BRIDGE_FILTER.note(
            &on.join(", "),
            "frames between containers of one bridge pass the host's iptables and nftables rules too, which may drop what \
             policy allows",
            "where two containers cannot talk although `netpol verdict` allows it, look at the rules of the chain FORWARD",
        ),
    }]
}

pub(super) fn iptables() -> Vec<HealthItem> {
    let Some(version) = output("iptables", &["--version"]) else {
        return vec![IPTABLES.ok("", "it is not there")];
    };
    vec![match version.contains("legacy") {
        true => IPTABLES.note(
            version.trim(),
            "rules of the legacy iptables give no event: NAT rules that hide senders are noticed at the start and with the \
             next change of nftables",
            "`update-alternatives --set iptables /usr/sbin/iptables-nft`, then restart the engines",
        ),
        false => IPTABLES.ok("", version.trim()),
    }]
}

pub(super) fn proxy() -> Vec<HealthItem> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_proxy = |entry: &fs::DirEntry| {
        let comm = fs::read_to_string(entry.path().join("comm"));
        comm.is_ok_and(|name| name.trim() == "docker-proxy")
    };
    vec![match processes.filter(is_proxy).count() {
        0 => PROXY.ok("", "it does not run"),
        count => PROXY.note(
            "",
            &format!(
                "{count} of it run: what reaches a published port by it comes to the container from the host; netpold judges \
                 it before, at the port, by the container's policy"
            ),
            "`\"userland-proxy\": false` in daemon.json has the kernel forward published ports alone",
        ),
    }]
}

pub(super) fn resolvers() -> Vec<HealthItem> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let all = nameservers(&text);
    let names: Vec<String> = all.iter().map(ToString::to_string).collect();
    let subject = names.join(", ");
    vec![if all.is_empty() {
        RESOLVERS.warning(
            "/etc/resolv.conf",
            "it names no resolver: the peer kube-dns has none of this host's",
            "name one there, or give containers theirs (`docker run --dns`, Compose `dns:`)",
        )
    } else if all.iter().any(|address| address.is_loopback()) {
        RESOLVERS.note(
            &subject,
            "an engine asks such a resolver from the host's network, where no program sees the query: netpold judges it at \
             the container's loopback interface",
            "containers with CAP_NET_ADMIN can get around that: `netpol status` names them",
        )
    } else {
        RESOLVERS.ok(
            &subject,
            "containers can ask them; they are part of the peer kube-dns",
        )
    }]
}

/// Interfaces whose programs are looked at: those that are ports of a bridge, or that have ours.
pub(super) fn programs() -> Vec<HealthItem> {
    if !is_root() {
        return Vec::new();
    }
    let interfaces = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let mut all = Vec::new();
    for interface in interfaces {
        if !interface.path().join("brport").exists() {
            continue;
        }
        let name = interface.file_name().to_string_lossy().into_owned();
        let others = others(&name);
        if !others.is_empty() {
            all.push(PROGRAMS.note(
                &name,
                &format!(
                    "programs of other software are attached: {}; what they drop or redirect first never reaches netpold",
                    others.join(", ")
                ),
                "`bpftool net show` has their order; netpold's stand last on the way in and first on the way out where it can",
            ));
        }
    }
    if all.is_empty() {
        all.push(PROGRAMS.ok("", "there are none on the ports of bridges"));
    }
    all
}

/// Names of the programs on an interface that are not ours.
fn others(interface: &str) -> Vec<String> {
    let Ok(name) = CString::new(interface) else {
        return Vec::new();
    };
    let hooks = [TcAttachType::Ingress, TcAttachType::Egress];
    let found = hooks.into_iter().flat_map(|hook| {
        let found = SchedClassifier::query_tcx(&name, hook);
        found.map(|(_, programs)| programs).unwrap_or_default()
    });
    found
        .map(|program| program.name_as_str().unwrap_or("?").to_owned())
        .filter(|name| !name.starts_with("netpold_"))
        .collect()
}

/// Directories of systemd.link(5), those that go first at the front.
const LINK_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];

pub(super) fn mac_policy() -> Vec<HealthItem> {
    if !Path::new("/run/udev/control").exists() {
        return vec![MAC_POLICY.ok("", "udev does not run")];
    }
    vec![match policy_for_veths(&LINK_DIRECTORIES.map(PathBuf::from)) {
        Some(file) => MAC_POLICY.note(
            &file.display().to_string(),
            "udev may give a bridge or a veth another MAC address just after an engine has made it: its first frames are late, \
             and ARP tables have the old one",
            "a file /etc/systemd/network/10-containers.link with `[Match] OriginalName=veth* br-* docker*` and `[Link] \
             MACAddressPolicy=none`",
        ),
        None => MAC_POLICY.ok("", "new veths keep their MAC addresses"),
    }]
}

/// The file by which udev gives veths a MAC address of its own: the first in order that matches them decides.
fn policy_for_veths(directories: &[PathBuf]) -> Option<PathBuf> {
    // A file of one name in a later directory is hidden by that of an earlier one.
    let mut files = std::collections::BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "link")
            {
                files.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    for path in files.into_values() {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix('='))
        };
        let matches = match (value("OriginalName"), value("Driver"), value("Kind")) {
            (Some(names), _, _) => names
                .split_whitespace()
                .any(|name| name == "*" || name.starts_with("veth")),
            (None, Some(driver), _) => driver.split_whitespace().any(|one| one == "veth"),
            (None, None, Some(kind)) => kind.split_whitespace().any(|one| one == "veth"),
            (None, None, None) => false,
        };
        if matches {
            let policy = value("MACAddressPolicy").map(str::trim);
            return (policy == Some("persistent")).then_some(path);
        }
    }
    None
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let is_done = output.status.success();
    is_done.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_link_file_that_matches_veths_decides() {
        let root = tempfile::tempdir().unwrap();
        let [own, shipped] = ["own", "shipped"].map(|name| root.path().join(name));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&shipped).unwrap();
        let both = [own.clone(), shipped.clone()];
        assert_eq!(policy_for_veths(&both), None);
        let default =
            "[Match]\nOriginalName=*\n\n[Link]\nNamePolicy=keep\nMACAddressPolicy=persistent\n";
        fs::write(shipped.join("99-default.link"), default).unwrap();
        assert_eq!(
            policy_for_veths(&both),
            Some(shipped.join("99-default.link"))
        );
        let others = "[Match]\nOriginalName=eth*\n[Link]\nMACAddressPolicy=none\n";
        fs::write(own.join("10-eth.link"), others).unwrap();
        assert!(policy_for_veths(&both).is_some());
        let none = "[Match]\nOriginalName=veth* br-*\n[Link]\nMACAddressPolicy=none\n";
        fs::write(own.join("10-veth.link"), none).unwrap();
        assert_eq!(policy_for_veths(&both), None);
        fs::remove_file(own.join("10-veth.link")).unwrap();
        // Masked by a file of the same name.
        fs::write(own.join("99-default.link"), "").unwrap();
        assert_eq!(policy_for_veths(&both), None);
    }
}
