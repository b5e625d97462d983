//! Steps of `podman build`: their containers are in no listing of Podman's that has their process or their address. buildah,
//! which Podman builds with, makes each step an OCI container that is called `buildah-buildah` and a number, and the OCI
//! runtime puts its first process into a control group of that name before buildah makes the step's network
//! (buildah, `run_common.go`: `runUsingRuntime`).
//!
//! A control group outside those of containers is root's: a user who could give a process another one there could do what netpold
//! can. A container may have made groups below its own (`--cgroupns`, systemd inside), and the one who starts it may
//! choose what its group is below (`--cgroup-parent`): its ID stands in the path of both.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::links;
use crate::netns;
use crate::reconcile::observed::Namespace;
use crate::runtime::cgroup;
use crate::runtime::container::{Attachment, Container, Runtime, State};

/// Where the OCI runtime makes the group, below the root of a hierarchy: by itself, or as a scope of systemd's.
const FOLDERS: [&str; 3] = ["", "system.slice", "machine.slice"];
/// crun puts processes into a group below the scope.
const WITHIN: &str = "container";
/// What buildah calls a step begins so; a number follows.
const STEP: &str = "buildah-buildah";

/// Each step that runs: its first process, and its name.
pub fn steps() -> Vec<(u32, String)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for root in cgroup::hierarchies() {
        for folder in FOLDERS.map(|folder| Path::new(root).join(folder)) {
            let groups = fs::read_dir(folder).into_iter().flatten().flatten();
            for group in groups {
                let name = group.file_name();
                let Some(step) = name.to_str().and_then(step) else {
                    continue;
                };
                let first = ["", WITHIN].iter().find_map(|within| {
                    let path = group.path().join(within).join("cgroup.procs");
                    fs::read_to_string(path).ok()?.lines().next()?.parse().ok()
                });
                let first = first.filter(|pid| is_of(*pid, step));
                if let Some(pid) = first.filter(|_| seen.insert(step.to_owned())) {
                    found.push((pid, step.to_owned()));
                }
            }
        }
    }
    found
}

fn is_of(pid: u32, step: &str) -> bool {
    let text = cgroup::of_process(pid);
    text.is_some_and(|text| step_of_cgroup(&text, &cgroup::own()) == Some(step))
}

/// Is a process of a container in the network namespace that this one is in? A step may have been told to share one
/// (`podman build --network container:ID`), which is not its own then, even before it is known whose it is.
pub fn is_shared(pid: u32) -> bool {
    let Some(own) = netns::name_of_process(pid) else {
        return true;
    };
    let host = cgroup::own();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let mut there =
        numbers.filter(|process| netns::name_of_process(process).as_ref() == Some(&own));
    there.any(|process| {
        let text = cgroup::of_process(process).unwrap_or_default();
        !cgroup::containers(&text, &host).is_empty()
    })
}

/// The step that a process is of, by its `/proc/PID/cgroup`; none where it may be a container's, or another step's.
fn step_of_cgroup<'a>(text: &'a str, host: &str) -> Option<&'a str> {
    if !cgroup::containers(text, host).is_empty() {
        return None;
    }
    let paths = cgroup::paths(text);
    let steps = paths.filter_map(|path| {
        let path = path.strip_suffix(WITHIN).unwrap_or(path);
        step(path.trim_end_matches('/').rsplit('/').next()?)
    });
    let steps: BTreeSet<&str> = steps.collect();
    // The first of one.
    steps.first().copied().filter(|_| steps.len() == 1)
}

/// `buildah-buildah123`, and of systemd's `runc-buildah-buildah123.scope` the same.
fn step(group: &str) -> Option<&str> {
    let name = group.strip_suffix(".scope").unwrap_or(group);
    let name = name
        .strip_prefix("runc-")
        .or_else(|| name.strip_prefix("crun-"))
        .unwrap_or(name);
    let number = name.strip_prefix(STEP)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(name)
}

/// The endpoint that a step is: without labels.
pub fn container(step: &str, pid: u32) -> Container {
    Container {
        runtime: Runtime::Docker,
        id: step.to_owned(),
        name: format!("build-{}", step.strip_prefix(STEP).unwrap_or(step)),
        pid,
        state: State::Running,
        ..Container::default()
    }
}

/// The networks that a step is on, by what is inside: nothing else tells of them.
pub fn networks(namespace: &Namespace, links: &links::Snapshot) -> Vec<Attachment> {
    let veths = links.veths.iter();
    let veths = veths.filter(|veth| namespace.nsid.is_some() && veth.peer_nsid == namespace.nsid);
    let attachments = veths.filter_map(|veth| {
        let bridge = links.bridges.get(&veth.master?)?;
        let end = namespace.peer_of(veth)?;
        let mut attachment = Attachment {
            name: bridge.clone(),
            bridge: Some(bridge.clone()),
            mac: Some(end.mac?),
            ..Attachment::default()
        };
        for address in end.usable() {
            match address {
                IpAddr::V4(address) if !address.is_link_local() => {
                    attachment.ipv4.get_or_insert(address);
                }
                IpAddr::V6(address) if !address.is_unicast_link_local() => {
                    attachment.ipv6.get_or_insert(address);
                }
                _ => {}
            }
        }
        (attachment.ipv4.is_some() || attachment.ipv6.is_some()).then_some(attachment)
    });
    attachments.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::links::{Inside, Snapshot, Veth};

    #[test]
    fn a_step_is_known_by_its_control_group() {
        let name = "buildah-buildah2022681162";
        for text in [
            // Podman 4.3 with cgroupfs, on version 1, where one hierarchy is mounted further down.
            "9:name=systemd:/buildah-buildah2022681162\n\
             4:memory:/above/buildah-buildah2022681162\n0::/buildah-buildah2022681162\n",
            "0::/system.slice/runc-buildah-buildah2022681162.scope\n",
            "0::/system.slice/crun-buildah-buildah2022681162.scope/container\n",
            "0::/machine.slice/buildah-buildah2022681162.scope\n",
        ] {
            assert_eq!(step_of_cgroup(text, ""), Some(name), "{text}");
        }
    }

    #[test]
    fn no_container_is_taken_for_a_step() {
        assert!(is_shared(u32::MAX), "a process that is not there");
        let id = "0123456789abcdef".repeat(4);
        for text in [
            // Made by a container, below its own group.
            format!("0::/docker/{id}/buildah-buildah1\n"),
            format!("0::/machine.slice/libpod-{id}.scope/container/buildah-buildah1\n"),
            // Chosen by the one who starts it.
            format!("0::/buildah-buildah1/{id}\n"),
            format!("1:pids:/docker/{id}\n0::/buildah-buildah1\n"),
            "0::/buildah-buildah1/other\n".to_owned(),
            "1:pids:/buildah-buildah2\n0::/buildah-buildah1\n".to_owned(),
            "0::/user.slice/buildah-buildah1x\n0::/buildah-buildah\n0::/\n".to_owned(),
            "0::/mybuildah-buildah1\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(step_of_cgroup(&text, ""), None, "{text}");
        }
        // netpold itself in a container, which is around all that it sees.
        let host = format!("0::/docker/{id}\n");
        let text = format!("0::/docker/{id}/buildah-buildah1\n");
        assert_eq!(step_of_cgroup(&text, &host), Some("buildah-buildah1"));
    }

    #[test]
    fn a_step_has_the_addresses_that_are_inside() {
        let links = Snapshot {
            veths: vec![Veth {
                ifindex: 7,
                master: Some(3),
                peer_ifindex: Some(2),
                peer_nsid: Some(5),
                name: "vethcc044735".to_owned(),
                mac: [0; 6],
                up: true,
            }],
            bridges: [(3, "cni-podman0".to_owned())].into(),
            ..Snapshot::default()
        };
        let mut namespace = Namespace {
            nsid: Some(5),
            inside: vec![Inside {
                ifindex: 2,
                iflink: Some(7),
                mac: Some([2, 0, 0, 0, 0, 1]),
                addresses: vec!["fe80::1".parse().unwrap()],
                ..Inside::default()
            }],
            ..Namespace::default()
        };
        assert!(networks(&namespace, &links).is_empty());
        let address: IpAddr = "10.88.0.2".parse().unwrap();
        namespace.inside[0].addresses.push(address);
        let found = networks(&namespace, &links);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bridge.as_deref(), Some("cni-podman0"));
        assert_eq!(found[0].ipv4.map(IpAddr::V4), Some(address));
        assert_eq!(found[0].ipv6, None);
        namespace.nsid = None;
        assert!(networks(&namespace, &links).is_empty());
    }
}
