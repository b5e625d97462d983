//! Which process belongs to which container, as control groups say. The runtime puts a
//! container's first process into its group before anything of the container's own runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::runtime::identity::container_of_cgroup;

/// The container that a process belongs to; `None`: to none, or it has ended.
pub(super) fn container(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    container_of_cgroup(&text).map(ToOwned::to_owned)
}

/// One process in a network namespace of its own for each of these containers that has one.
pub(super) fn by_container(wanted: &BTreeSet<&str>) -> Vec<(u32, String)> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let mut found = BTreeMap::new();
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        if namespace.is_none() || namespace == own {
            continue;
        }
        if let Some(id) = container(pid).filter(|id| wanted.contains(id.as_str())) {
            // The first process has the lowest number, but for those that wrapped around.
            found.entry(id).or_insert(pid);
        }
    }
    found.into_iter().map(|(id, pid)| (pid, id)).collect()
}
