//! Which process belongs to which container, as control groups say. The runtime puts a
//! container's first process into its group before anything of the container's own runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::runtime::identity::{self, containers_of_cgroup};

/// May a process be the one of the container with this ID, as its control group has it, below this parent?
/// A number is given again when a process ends.
pub(super) fn is_of(pid: u32, id: &str, parent: &str) -> bool {
    group(&pid.to_string()).is_none_or(|text| identity::is_of(&text, &own(), id, parent))
}

fn group(process: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/cgroup")).ok()
}

fn own() -> String {
    group("self").unwrap_or_default()
}

/// One process in a network namespace of its own for each of these containers that has one. One that may be
/// of several containers is nobody's.
pub(super) fn by_container(wanted: &BTreeSet<&str>) -> Vec<(u32, String)> {
    let own_namespace = fs::read_link("/proc/self/ns/net").ok();
    let own = own();
    let mut found = BTreeMap::new();
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        if namespace.is_none() || namespace == own_namespace {
            continue;
        }
        let text = group(&pid.to_string()).unwrap_or_default();
        if let [id] = containers_of_cgroup(&text, &own)[..]
            && wanted.contains(id)
        {
            // The first process has the lowest number, but for those that wrapped around.
            found.entry(id.to_owned()).or_insert(pid);
        }
    }
    found.into_iter().map(|(id, pid)| (pid, id)).collect()
}
