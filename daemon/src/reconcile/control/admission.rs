//! Which interfaces the gate lets through. Pure.
//!
//! An interface is admitted once it has its programs: the programs decide then, whatever is behind the interface. A veth on
//! a bridge that the gate is not about, and that is not to have programs, is admitted as well: nothing would ever admit it
//! later. An admitted interface stays admitted while it exists, as its programs do (the kernel does not give an index to
//! another interface soon), unless the interface has lost its programs.

use std::collections::{BTreeMap, BTreeSet};

use crate::gate::rules::may_be_added;
use crate::gate::state::RememberedBridge;
use crate::gate::{Contents, Scope, Seen, VethNaming};
use crate::links::Veth;
use crate::reconcile::assemble::Desired;
use crate::reconcile::observed::Observed;
use crate::reconcile::program::Program;

/// Which interfaces the gate is to let through, and which bridges it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Veths that exist.
    present: BTreeSet<u32>,
    /// Veths that are admitted.
    admitted: BTreeSet<u32>,
    /// Veths that are to have programs, and don't.
    failed: BTreeSet<u32>,
    /// Bridges that containers of engines are on, or may be from now on, each with its engine.
    bridges: BTreeSet<RememberedBridge>,
    /// Namings of veths that a container was seen behind, and that other software has as well.
    namings: BTreeSet<VethNaming>,
}

impl Admission {
    /// What an earlier netpold has left: the bridges and the namings.
    pub fn remembered(bridges: BTreeSet<RememberedBridge>, namings: BTreeSet<VethNaming>) -> Self {
        Self {
            bridges,
            namings,
            ..Self::default()
        }
    }

    /// What follows from what was observed, what is desired, and where the programs are. `seen`: where containers were.
    pub fn decide(
        observed: &Observed,
        desired: &Desired,
        programs: &BTreeMap<u32, Program>,
        seen: &Seen,
    ) -> Self {
        let bridges = bridges(observed, &seen.bridges);
        let names: BTreeSet<&String> = bridges.iter().map(|(name, _)| name).collect();
        // On a bridge that the gate is about, and on a bridge whose name is not known yet, it may be a container whose
        // runtime has not told of it. A veth on no bridge does not pass the gate.
        let is_stranger = |veth: &Veth| {
            let bridge = veth.master;
            let bridge = bridge.and_then(|bridge| observed.links.bridges.get(&bridge));
            let is_open = bridge.is_some_and(|bridge| !names.contains(bridge));
            is_open && !desired.interfaces.contains_key(&veth.ifindex)
        };
        let veths = &observed.links.veths;
        let select = |is_selected: &dyn Fn(&Veth) -> bool| -> BTreeSet<u32> {
            let selected = veths.iter().filter(|veth| is_selected(veth));
            selected.map(|veth| veth.ifindex).collect()
        };
        Self {
            present: select(&|_| true),
            admitted: select(&|veth| match programs.get(&veth.ifindex) {
                Some(program) => *program == Program::On,
                None => is_stranger(veth),
            }),
            failed: select(&|veth| matches!(programs.get(&veth.ifindex), Some(Program::Failed(_)))),
            bridges,
            namings: seen
                .namings
                .intersection(&VethNaming::SHARED.into())
                .copied()
                .collect(),
        }
    }

    /// Is any interface admitted?
    pub fn admits_any(&self) -> bool {
        !self.admitted.is_empty()
    }

    /// The bridges that the gate is about, beside those that engines' names tell.
    pub const fn bridges(&self) -> &BTreeSet<RememberedBridge> {
        &self.bridges
    }

    /// The namings that the gate is about, beside Docker's, where it goes by names.
    pub const fn namings(&self) -> &BTreeSet<VethNaming> {
        &self.namings
    }

    /// What a gate should have, after `before`, whatever it goes by.
    pub fn contents(&self, before: &Contents) -> Contents {
        let still = before.ready.intersection(&self.present);
        let still = still.filter(|ifindex| !self.failed.contains(ifindex));
        Contents {
            ready: self.admitted.iter().chain(still).copied().collect(),
            bridges: self.bridges.iter().map(|(name, _)| name.clone()).collect(),
            namings: self.namings.clone(),
        }
    }

    /// What the gate of this scope should have, after `before`.
    pub fn contents_of(&self, scope: Scope, before: &Contents) -> Contents {
        let mut contents = self.contents(before);
        match scope {
            Scope::Bridges => contents.namings.clear(),
            Scope::Names => contents.bridges.clear(),
        }
        contents
    }
}

/// Bridges of the engines' networks, and bridges on which a container was seen.
fn bridges(observed: &Observed, seen: &BTreeSet<String>) -> BTreeSet<RememberedBridge> {
    let engines = observed.docker.iter().enumerate();
    let named = engines.flat_map(|(place, engine)| {
        let path = (place > 0).then_some(&engine.path);
        engine.bridges.iter().map(move |bridge| (bridge, path))
    });
    let all = named.chain(seen.iter().map(|bridge| (bridge, None)));
    all.filter(|(bridge, _)| may_be_added(bridge))
        .map(|(bridge, path)| (bridge.clone(), path.cloned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::observed::Engine;

    const LAB: u32 = 100;
    const ENGINES: u32 = 101;

    fn veth(ifindex: u32, master: Option<u32>) -> Veth {
        Veth {
            ifindex,
            name: format!("veth{ifindex}"),
            mac: [0; 6],
            master,
            peer_nsid: Some(1),
            peer_ifindex: Some(2),
            up: true,
        }
    }

    /// Two bridges: one of an engine that names its bridge `apps`, and one of a laboratory.
    fn observed(veths: Vec<Veth>) -> Observed {
        let mut observed = Observed {
            docker: vec![Engine {
                bridges: ["apps".to_owned()].into(),
                ..Engine::default()
            }],
            ..Observed::default()
        };
        observed.links.veths = veths;
        observed.links.bridges = [(LAB, "lab0".to_owned()), (ENGINES, "apps".to_owned())].into();
        observed
    }

    fn contents(admission: &Admission, before: &[u32]) -> BTreeSet<u32> {
        let before = Contents {
            ready: before.iter().copied().collect(),
            ..Contents::default()
        };
        admission.contents(&before).ready
    }

    #[test]
    fn interfaces_are_admitted_with_their_programs_and_shut_when_they_have_lost_them() {
        let veths = [3, 4, 5].map(|ifindex| veth(ifindex, Some(ENGINES)));
        let observed = observed(veths.to_vec());
        let desired = Desired {
            interfaces: [(3, None), (4, None), (5, None)].into(),
            ..Desired::default()
        };
        let failed = Program::Failed("taken off".to_owned());
        let mut programs = BTreeMap::from([(3, Program::On), (4, Program::Pending), (5, failed)]);
        let decide =
            |programs: &_| Admission::decide(&observed, &desired, programs, &Seen::default());
        let admission = decide(&programs);
        assert!(admission.admits_any());
        assert_eq!(contents(&admission, &[]), [3].into());
        // Interface 4 was admitted before, as its programs are being replaced; 9 no longer exists.
        assert_eq!(contents(&admission, &[4, 5, 9]), [3, 4].into());
        programs.insert(5, Program::On);
        assert_eq!(contents(&decide(&programs), &[3, 4]), [3, 4, 5].into());
    }

    #[test]
    fn strangers_are_admitted_on_bridges_that_the_gate_is_not_about() {
        let veths = vec![
            veth(3, Some(LAB)),
            veth(4, Some(ENGINES)),
            veth(5, None),
            // A bridge that is not listed yet.
            veth(6, Some(102)),
        ];
        let observed = observed(veths);
        let decide = |desired: &Desired, seen: &[&str]| {
            let seen = Seen {
                bridges: seen.iter().map(|bridge| (*bridge).to_owned()).collect(),
                namings: [VethNaming::Docker, VethNaming::Cni].into(),
            };
            Admission::decide(&observed, desired, &BTreeMap::new(), &seen)
        };
        let admission = decide(&Desired::default(), &[]);
        assert_eq!(contents(&admission, &[]), [3].into());
        // One that is to have programs waits for them.
        let wanted = Desired {
            interfaces: [(3, None)].into(),
            ..Desired::default()
        };
        assert_eq!(contents(&decide(&wanted, &[]), &[]), [].into());
        // A container was seen on the laboratory's bridge.
        let admission = decide(&Desired::default(), &["lab0"]);
        assert_eq!(contents(&admission, &[]), [].into());
        let bridges = admission.contents_of(Scope::Bridges, &Contents::default());
        assert_eq!(
            bridges.bridges,
            ["apps".to_owned(), "lab0".to_owned()].into()
        );
        let names = admission.contents_of(Scope::Names, &Contents::default());
        assert!(names.bridges.is_empty());
        assert_eq!(names.namings, [VethNaming::Cni].into());
        assert!(bridges.namings.is_empty());
    }
}
