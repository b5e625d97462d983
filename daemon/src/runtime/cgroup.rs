//! Control groups: which container a process belongs to, and what kind of engine made that container, as the control groups
//! of the process tell. The runtime puts a container's first process into its group before anything of the container's own
//! runs.
//!
//! The one place that knows how container engines name control groups, but for the steps of builds
//! (`reconcile/builds.rs`), which have a name of their own. Called by `reconcile`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::Path;

/// May a process be the one of the container with this ID, as its control group has it, below this parent?
/// A number is given again when a process ends.
pub(crate) fn is_of(pid: u32, id: &str, parent: &str) -> bool {
    of_process(pid).is_none_or(|text| may_be_of(&text, &own(), id, parent))
}

/// The control groups of a process, as the kernel writes them.
pub(crate) fn of_process(process: impl Display) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/cgroup")).ok()
}

/// Those that netpold is in.
pub(crate) fn own() -> String {
    of_process("self").unwrap_or_default()
}

/// Where runtimes put a container's first process unless they are told otherwise, below the root of a
/// hierarchy of control groups, by the container's ID.
const GROUPS: [(&str, &str); 6] = [
    ("docker/", ""),
    ("system.slice/docker-", ".scope"),
    ("machine.slice/libpod-", ".scope/container"),
    ("machine.slice/libpod-", ".scope"),
    ("libpod_parent/libpod-", ""),
    ("system.slice/nerdctl-", ".scope"),
];
/// The one hierarchy of version 2, and such as version 1 has.
const HIERARCHIES: [&str; 3] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/systemd",
];

/// The roots of hierarchies of control groups that are there.
pub(crate) fn hierarchies() -> Vec<&'static str> {
    let mut roots = HIERARCHIES.to_vec();
    roots.retain(|root| Path::new(root).join("cgroup.procs").exists());
    roots
}

/// A process for each of these containers, where it is in the usual control group: looks at
/// none of the others that there are.
pub(crate) fn in_usual_groups(wanted: &BTreeSet<&str>) -> Vec<(u32, String)> {
    let own = own();
    let roots = hierarchies();
    let first = |id: &str| {
        let groups = roots.iter().flat_map(|root| {
            GROUPS
                .iter()
                .map(move |(start, end)| format!("{root}/{start}{id}{end}/cgroup.procs"))
        });
        groups
            .filter_map(|group| fs::read_to_string(group).ok())
            .find_map(|processes| processes.lines().next()?.parse().ok())
    };
    let mut found: Vec<(u32, String)> = wanted
        .iter()
        // It becomes part of a path.
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .filter_map(|id| Some((first(id)?, (*id).to_owned())))
        .collect();
    found.retain(|(pid, id)| only_container(*pid, &own).as_ref() == Some(id));
    found
}

/// The one container that a process may be of; `own`: see [`own`].
pub(crate) fn only_container(pid: u32, own: &str) -> Option<String> {
    let text = of_process(pid)?;
    match containers(&text, own)[..] {
        [id] => Some(id.to_owned()),
        _ => None,
    }
}

/// The containers that a process may belong to, from its `/proc/PID/cgroup`, each once, from the outside
/// in: parts of a path with 64 hexadecimal digits (`docker-ID.scope`, `/docker/ID`, `libpod-ID.scope`).
///
/// The user who started a container may have chosen the groups around its part (`docker run --cgroup-parent`), and the
/// container the groups below. So of several none may be taken for the one, but where it is known how
/// many are around it: [`may_be_of`]. Those around netpold itself (`host`, its own `/proc/self/cgroup`) do not count.
#[must_use]
pub fn containers<'a>(text: &'a str, host: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    let around = match host {
        "" => Vec::new(),
        host => containers(host, ""),
    };
    for path in paths(text) {
        for id in ids(path) {
            if !all.contains(&id) && !around.contains(&id) {
                all.push(id);
            }
        }
    }
    all
}

/// The control groups of a process, as `/proc/PID/cgroup` has them: their paths, one for each hierarchy (cgroups(7)).
pub fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2))
}

fn ids(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit('-').next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })
}

/// May a process with this `/proc/PID/cgroup` be the container's of this ID, which its runtime was told to put
/// below `parent`? Where no container is named, nothing speaks against it.
#[must_use]
pub fn may_be_of(text: &str, host: &str, id: &str, parent: &str) -> bool {
    let found = containers(text, host);
    let around: BTreeSet<&str> = ids(parent).collect();
    match found.as_slice() {
        [] => true,
        found => found.iter().find(|one| !around.contains(*one)) == Some(&id),
    }
}

/// Whose containers have control groups of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// A Docker engine.
    Docker,
    /// Podman.
    Podman,
    /// A client of containerd's.
    Containerd,
    /// CRI-O, whose API netpold does not speak.
    CriO,
    /// Any of them: nothing but the container's ID is known.
    Unknown,
}

impl Maker {
    /// In words, for `container ID of …`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Docker => "a Docker engine",
            Self::Podman => "Podman",
            Self::Containerd => "a client of containerd",
            Self::CriO => "CRI-O",
            Self::Unknown => "an unknown engine",
        }
    }
}

/// The container that a process is in, and whose: of several the outermost, which an engine of this host started.
pub(crate) fn container<'a>(group: &'a str, host: &str) -> Option<(&'a str, Maker)> {
    let id = *containers(group, host).first()?;
    let paths = paths(group);
    let makers = paths.filter_map(|path| maker(path, id));
    let known = makers.max_by_key(|maker| *maker != Maker::Unknown);
    Some((id, known.unwrap_or(Maker::Unknown)))
}

/// Whose container's group has this ID in this path.
fn maker(path: &str, id: &str) -> Option<Maker> {
    let (before, _) = path.split_once(id)?;
    let (parent, start) = before.rsplit_once('/')?;
    let parent = parent.rsplit('/').next().unwrap_or_default();
    Some(match (start, parent) {
        ("docker-", _) | ("", "docker") => Maker::Docker,
        ("libpod-", _) => Maker::Podman,
        ("crio-", _) => Maker::CriO,
        ("cri-containerd-" | "nerdctl-", _) => Maker::Containerd,
        // containerd's own clients: `/NAMESPACE/ID`.
        ("", "default" | "k8s.io") => Maker::Containerd,
        _ => Maker::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_no_container() {
        let id = "a".repeat(64);
        assert!(in_usual_groups(&BTreeSet::from([id.as_str(), "../..", "web"])).is_empty());
    }

    #[test]
    fn control_groups_tell_whose_a_container_is() {
        let id = "0123456789abcdef".repeat(4);
        for (group, expected) in [
            (
                format!("0::/system.slice/docker-{id}.scope\n"),
                Maker::Docker,
            ),
            (format!("5:pids:/docker/{id}\n0::/\n"), Maker::Docker),
            (format!("0::/docker/{id}/init.scope\n"), Maker::Docker),
            (
                format!("0::/machine.slice/libpod-{id}.scope/container\n"),
                Maker::Podman,
            ),
            (format!("0::/libpod_parent/libpod-{id}\n"), Maker::Podman),
            (
                format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope\n"),
                Maker::Containerd,
            ),
            (format!("0::/default/{id}\n"), Maker::Containerd),
            (
                format!("0::/kubepods.slice/kubepods-pod1.slice/crio-{id}.scope\n"),
                Maker::CriO,
            ),
            (format!("0::/kubepods/pod1/{id}\n"), Maker::Unknown),
            (
                format!("1:pids:/docker/{id}\n0::/shop/{id}\n"),
                Maker::Docker,
            ),
        ] {
            assert_eq!(
                container(&group, ""),
                Some((id.as_str(), expected)),
                "{group}"
            );
        }
        for group in [
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "0::/lxc.payload.web\n",
            "0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope\n",
            "",
        ] {
            assert_eq!(container(group, ""), None, "{group}");
        }
    }

    #[test]
    fn a_process_names_its_container_or_none() {
        let (id, other) = ("a1".repeat(32), "b2".repeat(32));
        // Its control group, the parent that was asked for, which container may be meant, and whose it may be.
        let rows: [(String, String, &[&str], [bool; 2]); 9] = [
            (
                format!("0::/system.slice/docker-{id}.scope\n"),
                String::new(),
                &[&id],
                [true, false],
            ),
            (
                format!("12:pids:/docker/{id}\n3:cpu:/docker/{id}\n0::/\n"),
                String::new(),
                &[&id],
                [true, false],
            ),
            (
                format!("0::/machine.slice/libpod-{id}.scope/container\n"),
                "machine.slice".to_owned(),
                &[&id],
                [true, false],
            ),
            // A container that has containers, or gives itself control groups.
            (
                format!("0::/docker/{id}/docker/{other}\n"),
                String::new(),
                &[&id, &other],
                [true, false],
            ),
            (
                format!("0::/machine.slice/libpod-{id}.scope/container/{other}\n"),
                String::new(),
                &[&id, &other],
                [true, false],
            ),
            // Started below another one's name.
            (
                format!("0::/x/docker-{other}.scope/{id}\n"),
                format!("/x/docker-{other}.scope"),
                &[&other, &id],
                [true, false],
            ),
            (
                format!("0::/docker/{id}x\n"),
                String::new(),
                &[],
                [true, true],
            ),
            (
                "0::/user.slice/session-1.scope\n".to_owned(),
                String::new(),
                &[],
                [true, true],
            ),
            (String::new(), String::new(), &[], [true, true]),
        ];
        for (text, parent, found, of) in &rows {
            assert_eq!(containers(text, ""), *found, "{text}");
            let is = |id| may_be_of(text, "", id, parent);
            assert_eq!([is(&id), is(&other)], *of, "{text}");
        }
        // netpold itself in a container, with an engine.
        let (host, inner) = (
            format!("0::/docker/{other}\n"),
            format!("0::/docker/{other}/docker/{id}\n"),
        );
        assert_eq!(containers(&inner, &host), [&id]);
        assert!(may_be_of(&inner, &host, &id, ""));
    }
}
