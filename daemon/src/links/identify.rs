//! Whose veth is whose: by the namespace that its other end is in, never by a name, as
//! anybody may choose those. Pure.

use std::collections::BTreeMap;

use super::Veth;

/// Veths and their owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified<K> {
    /// The owner of the namespace that each veth (by index) leads to.
    pub owned: BTreeMap<u32, K>,
    /// Veths into namespaces that nobody owns (yet).
    pub unowned: Vec<u32>,
    /// Veths with both ends here: not moved yet, or the host's own.
    pub here: Vec<u32>,
}

/// Matches veths with the owners of namespaces, by the namespaces' ids.
pub fn identify<K: Clone>(veths: &[Veth], owners: &BTreeMap<i32, K>) -> Identified<K> {
    let mut identified = Identified {
        owned: BTreeMap::new(),
        unowned: Vec::new(),
        here: Vec::new(),
    };
    for veth in veths {
        match veth.peer_nsid.map(|nsid| owners.get(&nsid)) {
            Some(Some(owner)) => {
                identified.owned.insert(veth.ifindex, owner.clone());
            }
            Some(None) => identified.unowned.push(veth.ifindex),
            None => identified.here.push(veth.ifindex),
        }
    }
    identified
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veth(ifindex: u32, name: &str, peer_nsid: Option<i32>) -> Veth {
        Veth {
            ifindex,
            name: name.to_owned(),
            mac: [0; 6],
            master: None,
            peer_nsid,
            peer_ifindex: Some(2),
            up: true,
        }
    }

    #[test]
    fn the_namespace_decides_and_the_name_does_not() {
        let veths = [
            veth(3, "web", Some(0)),
            veth(4, "web", Some(1)),
            veth(5, "veth5", Some(0)),
            veth(6, "web", None),
            veth(7, "veth7", Some(9)),
        ];
        let owners = BTreeMap::from([(0, "web"), (1, "db"), (2, "idle")]);
        let found = identify(&veths, &owners);
        let expected = BTreeMap::from([(3, "web"), (4, "db"), (5, "web")]);
        assert_eq!(found.owned, expected);
        assert_eq!(found.unowned, [7]);
        assert_eq!(found.here, [6]);
    }

    #[test]
    fn no_owner_owns_nothing() {
        let found = identify::<()>(&[veth(3, "a", Some(0))], &BTreeMap::new());
        assert!(found.owned.is_empty());
        assert_eq!(found.unowned, [3]);
    }
}
