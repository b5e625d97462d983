//! The container in a network namespace that no engine has claimed, as the control groups of its processes tell: for people, who
//! are to know which engine to name in the configuration. Nothing becomes an endpoint by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::links::Links;
use crate::netns::{self, Netns};
use crate::runtime::cgroup::{self, Maker};

/// Where ip(8) and container runtimes mount network namespaces that outlive processes.
const MOUNTED: &str = "/run/netns";

/// What is in the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A container of some engine's.
    Container {
        /// Its ID.
        id: String,
        /// Whose it is.
        maker: Maker,
        /// One of its processes, in words.
        process: String,
    },
    /// A process that is in no container's control group.
    Process(String),
    /// No process that can be seen: the namespace is mounted there.
    Mounted(PathBuf),
}

impl Behind {
    /// The container's ID and whose it is, if it is one.
    pub fn container(&self) -> Option<(&str, Maker)> {
        match self {
            Self::Container { id, maker, .. } => Some((id, *maker)),
            _ => None,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Container { id, maker, process } => {
                let short = id.get(..12).unwrap_or(id);
                format!("container {short} of {} ({process})", maker.label())
            }
            Self::Process(process) => format!("no container that can be told: {process}"),
            Self::Mounted(path) => format!("the network namespace {}", path.display()),
        }
    }
}

/// What is in each of these network namespaces, by the ids that they have here. Looks at every process: some
/// milliseconds where there are a thousand.
pub fn look(links: &mut Links, wanted: &BTreeSet<i32>) -> BTreeMap<i32, Behind> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    let host = cgroup::own();
    let own = netns::name_of_process("self");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut pids: Vec<u32> = names.filter_map(|name| name.parse().ok()).collect();
    // A namespace's first process has the lowest number, but for those that wrapped around.
    pids.sort_unstable();
    let mut ids: BTreeMap<PathBuf, Option<i32>> = BTreeMap::new();
    for pid in pids {
        let Some(there) = netns::name_of_process(pid).filter(|there| own.as_ref() != Some(there))
        else {
            continue;
        };
        let id = ids
            .entry(there)
            .or_insert_with(|| links.known_nsid(&Netns::Pid(pid)));
        let Some(id) = id.filter(|id| wanted.contains(id)) else {
            continue;
        };
        // A process in a container's group tells more than one that entered the namespace later.
        if matches!(found.get(&id), Some(Behind::Container { .. })) {
            continue;
        }
        let group = cgroup::of_process(pid).unwrap_or_default();
        let process = words_of_process(pid, &group);
        match cgroup::container(&group, &host) {
            Some((id_there, maker)) => {
                let id_there = id_there.to_owned();
                let there = Behind::Container {
                    id: id_there,
                    maker,
                    process,
                };
                found.insert(id, there);
            }
            None => {
                found.entry(id).or_insert(Behind::Process(process));
            }
        }
    }
    for entry in fs::read_dir(MOUNTED).into_iter().flatten().flatten() {
        let id = links.known_nsid(&Netns::Path(entry.path()));
        if let Some(id) = id.filter(|id| wanted.contains(id)) {
            found.entry(id).or_insert(Behind::Mounted(entry.path()));
        }
    }
    found
}

/// `process 4711, "sleep", control group /docker/…`.
fn words_of_process(pid: u32, group: &str) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let paths = cgroup::paths(group);
    let path = paths.max_by_key(|path| path.len()).unwrap_or_default();
    format!("process {pid}, `{}`, control group {path}", name.trim())
}

/// Is this process a Docker engine of root's? Each user may give a process that name, and an engine that netpold follows says
/// which labels containers have: so the help never names the socket of another user's process.
fn is_engine(process: &Path) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "dockerd")
        && fs::metadata(process).is_ok_and(|it| it.uid() == 0 && it.gid() == 0)
}

/// Sockets at which root's Docker engines listen that are in this network namespace, as the kernel tells.
pub fn docker_sockets() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = netns::name_of_process("self");
    let engines = entries
        .map(|entry| entry.path())
        .filter(|process| is_engine(process) && namespace_of(process) == own);
    let mut sockets = BTreeSet::new();
    for process in engines {
        let files = fs::read_dir(process.join("fd"));
        let files = files.into_iter().flatten().flatten();
        let links = files.filter_map(|file| fs::read_link(file.path()).ok());
        let own: BTreeSet<String> = links
            .filter_map(|link| {
                let link = link.to_str()?;
                let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect();
        let all = fs::read_to_string(process.join("net/unix")).unwrap_or_default();
        sockets.extend(listening(&all, &own));
    }
    sockets.into_iter().collect()
}

/// The network namespace of the process with this folder in `/proc`.
fn namespace_of(process: &Path) -> Option<PathBuf> {
    netns::name_of_process(process.file_name()?.display())
}

/// Of `/proc/PID/net/unix`, the paths at which these sockets listen for clients of the engine's API.
fn listening(all: &str, own: &BTreeSet<String>) -> Vec<PathBuf> {
    /// `__SO_ACCEPTCON`
    const LISTENS: &str = "00010000";
    let lines = all.lines().map(|line| line.split_whitespace());
    let paths = lines.filter_map(|mut words| {
        let flags = words.nth(3)?;
        let inode = words.nth(2)?;
        let path = Path::new(words.next()?);
        // What dockerd has for its own parts.
        let is_internal = path.ends_with("metrics.sock")
            || path.ends_with("swarm/control.sock")
            || path
                .parent()
                .is_some_and(|folder| folder.ends_with("libnetwork"));
        (flags == LISTENS && own.contains(inode) && path.is_absolute() && !is_internal)
            .then(|| path.to_owned())
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_name_alone_makes_no_engine() {
        use std::os::unix::process::CommandExt as _;
        use std::process::Command;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = folder.path().join("dockerd");
        fs::copy("/bin/sleep", &program).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let is_engine_of = |user: Option<u32>| {
            let mut command = Command::new(&program);
            command.arg("60");
            if let Some(user) = user {
                command.uid(user).gid(user);
            }
            let mut child = command.spawn().unwrap();
            let process = PathBuf::from(format!("/proc/{}", child.id()));
            // The kernel names a process after it has let its parent go on (`begin_new_exec`).
            let is_named = || fs::read_to_string(process.join("comm")).unwrap().trim() == "dockerd";
            while !is_named() {
                std::thread::yield_now();
            }
            let found = is_engine(&process);
            child.kill().unwrap();
            child.wait().unwrap();
            found
        };
        assert_eq!(is_engine_of(None), is_root);
        // Other processes can't become another user, and are not root.
        assert!(!is_engine_of(is_root.then_some(65534)));
    }

    #[test]
    fn an_engines_sockets_are_those_that_take_clients() {
        let all = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 11 /run/two/docker.sock\n\
            0000: 00000002 00000000 00010000 0001 01 12 /run/docker/metrics.sock\n\
            0000: 00000002 00000000 00010000 0001 01 13 /run/docker/libnetwork/1b.sock\n\
            0000: 00000003 00000000 00000000 0001 03 14 /run/two/docker.sock\n\
            0000: 00000002 00000000 00010000 0001 01 15 @abstract\n\
            0000: 00000002 00000000 00010000 0001 01 16 /run/podman/podman.sock\n\
            0000: 00000002 00000000 00010000 0001 01 17\n";
        let own = ["11", "12", "13", "14", "15", "17"]
            .map(str::to_owned)
            .into();
        assert_eq!(
            listening(all, &own),
            [PathBuf::from("/run/two/docker.sock")]
        );
    }
}
