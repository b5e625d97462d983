//! The container engines that are followed, and what each of them said last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::config::{Config, Enabled};
use crate::gate::GateState;
use crate::gate::rules::{is_engines, may_be_added};
use crate::reconcile::observed::Engine;
use crate::runtime::container::{Runtime, Snapshot};
use crate::runtime::docker;
use crate::runtime::follow::Follower;
use crate::watch::WatchError;

/// A runtime that may be followed.
pub struct FollowedRuntime {
    pub follower: Follower,
    pub socket: PathBuf,
    /// Sockets of which this one may be another name.
    pub others: Vec<PathBuf>,
}

impl FollowedRuntime {
    /// Engines that speak Docker's API, and what is known of them at the start.
    pub fn docker(config: &Config) -> Result<(Vec<Self>, Vec<Engine>), WatchError> {
        let kept = GateState::at(&config.state.directory).bridges_by_engine();
        let is_one = config.docker.sockets.len() == 1;
        let (mut runs, mut engines) = (Vec::new(), Vec::new());
        for (place, (enabled, socket)) in config.docker.engines().enumerate() {
            let others = config.docker.sockets[..place].to_vec();
            let is_of = |of: &Option<PathBuf>| match of {
                Some(of) => of == socket,
                // An earlier netpold knew one engine.
                None => place == 0,
            };
            let bridges = kept.iter().filter(|(_, of)| is_of(of));
            engines.push(Engine {
                label: match is_one {
                    true => Runtime::Docker.name().to_owned(),
                    false => format!("{} at {}", Runtime::Docker.name(), socket.display()),
                },
                bridges: bridges.map(|(name, _)| name.clone()).collect(),
                ..engine(Runtime::Docker, enabled, socket)
            });
            runs.push(Self {
                follower: docker::follow(enabled, socket, &others)?,
                socket: socket.to_owned(),
                others,
            });
        }
        Ok((runs, engines))
    }

    /// Is there an engine of its own?
    pub fn is_there(&self) -> bool {
        self.socket.exists() && docker::same(&self.socket, &self.others).is_none()
    }

    /// Brings up to date what is known of the engine. `bridges`: those that the host has.
    pub fn ask(&mut self, engine: &mut Engine, bridges: &BTreeMap<u32, String>) {
        let mut snapshot = self.follower.snapshot();
        if engine.runtime == Runtime::Docker {
            snapshot = Arc::new(snapshot.of_engine(&self.socket));
        }
        learn(engine, snapshot, bridges);
    }
}

/// Takes up what an engine says. A bridge that it has named stays its own for as long as the host has the bridge: what a
/// busy engine leaves out of one answer must not make its containers' interfaces another's, which the gate lets through.
fn learn(engine: &mut Engine, snapshot: Arc<Snapshot>, bridges: &BTreeMap<u32, String>) {
    let is_all = snapshot.connected && !snapshot.incomplete;
    engine.listed |= is_all;
    if is_all {
        engine
            .bridges
            .retain(|bridge| bridges.values().any(|there| there == bridge));
    }
    let of_containers = snapshot.containers.iter().flat_map(|one| &one.networks);
    let named = of_containers
        .filter_map(|network| network.bridge.as_ref())
        .chain(&snapshot.bridges)
        .filter(|bridge| is_engines(bridge) || may_be_added(bridge));
    engine.bridges.extend(named.cloned());
    engine.snapshot = snapshot;
}

/// What is known of an engine before it has answered.
pub fn engine(runtime: Runtime, enabled: Enabled, socket: &Path) -> Engine {
    Engine {
        runtime,
        path: socket.to_owned(),
        label: runtime.name().to_owned(),
        followed: enabled != Enabled::No,
        required: enabled == Enabled::Yes,
        ..Engine::default()
    }
}

/// Returns when one of them says something new. Dropping the future loses nothing.
pub async fn any_changed(engines: &mut [FollowedRuntime]) {
    let all = engines.iter_mut().map(|engine| engine.follower.changed());
    let mut all: FuturesUnordered<_> = all.collect();
    if all.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_stays_its_engines_until_the_host_has_it_no_more() {
        let mut engine = Engine::default();
        let mut bridges = BTreeMap::from([(4, "podman1".to_owned()), (5, "podman2".to_owned())]);
        let mut said = |named: &[&str], incomplete, bridges: &BTreeMap<u32, String>| {
            let snapshot = Snapshot {
                connected: true,
                incomplete,
                bridges: named.iter().map(|name| (*name).to_owned()).collect(),
                ..Snapshot::default()
            };
            learn(&mut engine, Arc::new(snapshot), bridges);
            let known = engine.bridges.iter().cloned();
            known.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            said(&["podman1", "podman2"], false, &bridges),
            "podman1 podman2"
        );
        assert_eq!(said(&["podman1"], false, &bridges), "podman1 podman2");
        bridges.remove(&5);
        assert_eq!(
            said(&["podman1"], true, &bridges),
            "podman1 podman2",
            "not all of it"
        );
        assert_eq!(said(&["podman1"], false, &bridges), "podman1");
        // One that the host has not shown yet.
        assert_eq!(said(&["podman3"], false, &bridges), "podman1 podman3");
    }
}
