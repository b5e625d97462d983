//! The prefixes of two states side by side, each with what either state answers there.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netpol_abi::tables::CLASS_ANY;

use super::merge;

/// A prefix that one of the states has, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub net: IpNet,
    /// Its class in the installed state, if it is there.
    pub installed: Option<u64>,
    /// Its class in the desired state, if it is there.
    pub desired: Option<u64>,
    /// What the installed state answers for an address that no longer prefix covers.
    pub was: u64,
    /// What the desired state answers.
    pub will: u64,
}

/// All of them, an outer one before those inside it. One pass over both.
pub(super) fn walk(installed: &BTreeMap<IpNet, u64>, desired: &BTreeMap<IpNet, u64>) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(desired.len());
    let mut around: Vec<Node> = Vec::new();
    for (net, installed, desired) in merge(installed, desired) {
        let (net, installed, desired) = (*net, installed.copied(), desired.copied());
        while around.pop_if(|outer| !outer.net.contains(&net)).is_some() {}
        let parent = around.last();
        let node = Node {
            net,
            installed,
            desired,
            was: installed.unwrap_or(parent.map_or(CLASS_ANY, |outer| outer.was)),
            will: desired.unwrap_or(parent.map_or(CLASS_ANY, |outer| outer.will)),
        };
        around.push(node);
        nodes.push(node);
    }
    nodes
}
