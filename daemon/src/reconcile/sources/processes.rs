//! Which processes there are: a search of all of them for those of containers, within bounds of time, and what a process can
//! do in its network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use crate::netns;
use crate::reconcile::observed::Rights;
use crate::runtime::cgroup;

/// One process in a network namespace of its own for each of these containers that has one. One that may be
/// of several containers tells nothing.
pub fn by_container(wanted: &BTreeSet<&str>) -> Vec<(u32, String)> {
    let own_namespace = netns::name_of_process("self");
    let own = cgroup::own();
    let mut found = BTreeMap::new();
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let namespace = netns::name_of_process(pid);
        if namespace.is_none() || namespace == own_namespace {
            continue;
        }
        if let Some(id) =
            cgroup::only_container(pid, &own).filter(|id| wanted.contains(id.as_str()))
        {
            // The first process has the lowest number, but for those that wrapped around.
            found.entry(id).or_insert(pid);
        }
    }
    found.into_iter().map(|(id, pid)| (pid, id)).collect()
}

/// When all processes may be looked at: at once for what was not looked for before, else so that it takes a
/// twentieth of the time at most, however often something happens.
#[derive(Debug, Default)]
pub struct SearchPace {
    /// Containers that were looked for.
    containers: BTreeSet<String>,
    /// Network namespaces of which it was not known whose they are.
    namespaces: BTreeSet<i32>,
    /// Not the same again before this.
    next: Option<Instant>,
    /// It was wanted before that.
    is_owed: bool,
}

impl SearchPace {
    /// Is it time? If not, [`SearchPace::owed`] says when.
    pub fn begins(
        &mut self,
        containers: &BTreeSet<&str>,
        namespaces: &BTreeSet<i32>,
        now: Instant,
    ) -> bool {
        let is_new = !namespaces.is_subset(&self.namespaces)
            || containers.iter().any(|id| !self.containers.contains(*id));
        let begins = is_new || self.next.is_none_or(|next| now >= next);
        self.is_owed = !begins;
        if begins {
            self.containers = containers.iter().map(|id| (*id).to_owned()).collect();
            self.namespaces.clone_from(namespaces);
        }
        begins
    }

    /// It has ended, after so long.
    pub fn ended(&mut self, took: Duration, now: Instant) {
        self.next = Some(now + took * 19);
    }

    /// Whether it is wanted is about to be said again.
    pub fn settle(&mut self) {
        self.is_owed = false;
    }

    /// When to look for what could not be looked for.
    pub fn owed(&self) -> Option<Instant> {
        self.next.filter(|_| self.is_owed)
    }
}

/// What a process and all that it may start can do in its network namespace; nothing, once it has ended.
pub fn rights(pid: u32) -> Rights {
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => rights_of(&status),
        Err(_) => Rights::default(),
    }
}

/// What these processes, which share a network namespace, can do there. 0: one that its engine does not name for a moment, as
/// after it said that a container has started: `before` holds until it does.
pub fn shared_rights(processes: impl Iterator<Item = u32>, before: Rights) -> Rights {
    let each = processes.map(|pid| match pid {
        0 => before,
        pid => rights(pid),
    });
    each.fold(Rights::default(), Rights::or)
}

fn rights_of(status: &str) -> Rights {
    const NET_ADMIN: u32 = 12;
    const NET_RAW: u32 = 13;
    // The bounding set: a file on disk may give back what it leaves.
    let mut lines = status.lines();
    let bounds = lines.find_map(|line| line.strip_prefix("CapBnd:"));
    let bounds = bounds.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let has = |capability: u32| bounds.is_none_or(|bounds| bounds >> capability & 1 != 0);
    Rights {
        net_admin: has(NET_ADMIN),
        net_raw: has(NET_RAW),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_looked_for_at_once_and_the_same_seldom() {
        let mut search = SearchPace::default();
        let begun = Instant::now();
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let (one, two) = (BTreeSet::from(["a"]), BTreeSet::from(["a", "b"]));
        let (first, second) = (BTreeSet::from([1]), BTreeSet::from([1, 2]));
        assert!(search.begins(&one, &first, at(0)));
        search.ended(Duration::from_millis(10), at(10));
        for hint in 11..200 {
            assert!(!search.begins(&one, &first, at(hint)));
        }
        assert_eq!(search.owed(), Some(at(200)));
        search.settle();
        assert_eq!(search.owed(), None, "nothing is to be found any more");
        assert!(search.begins(&one, &first, at(200)));
        search.ended(Duration::from_millis(10), at(210));
        assert_eq!(search.owed(), None, "it was not wanted since");
        assert!(search.begins(&two, &first, at(211)), "another container");
        search.ended(Duration::from_millis(10), at(221));
        assert!(search.begins(&two, &second, at(222)), "another namespace");
        search.ended(Duration::from_millis(10), at(232));
        assert!(!search.begins(&one, &second, at(233)), "one less");
    }

    #[test]
    fn rights_are_those_of_the_bounding_set() {
        let rights = |bounds: &str| {
            let status = format!("Name:\tsh\nCapEff:\t0000000000000000\nCapBnd:\t{bounds}\n");
            let rights = rights_of(&status);
            (rights.net_admin, rights.net_raw)
        };
        // Docker's default, that with NET_ADMIN, that without NET_RAW.
        assert_eq!(rights("00000000a80425fb"), (false, true));
        assert_eq!(rights("00000000a80435fb"), (true, true));
        assert_eq!(rights("00000000a80405fb"), (false, false));
        assert_eq!(rights("not a number"), (true, true));
    }

    #[test]
    fn a_process_that_is_not_named_for_a_moment_keeps_its_rights() {
        let raw = Rights {
            net_admin: false,
            net_raw: true,
        };
        let shared = |processes: &[u32]| shared_rights(processes.iter().copied(), raw);
        assert_eq!(shared(&[]), Rights::default());
        assert_eq!(shared(&[u32::MAX]), Rights::default(), "it has ended");
        assert_eq!(shared(&[u32::MAX, 0]), raw);
        let own = std::process::id();
        assert_eq!(shared(&[own]), rights(own));
    }
}
