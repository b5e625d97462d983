//! Interfaces that lead to a container, as far as can be told, and that no policy reaches for longer than a start takes: no
//! engine that is followed has claimed them. What is said of them: where they lead to, whether anything passes, and
//! what to set.
//!
//! An interface on hold is shut until an engine claims it. One that passes is on a bridge with an engine's name whose
//! engine is not there, or is a container's on a bridge of another name: what no policy can select is never
//! cut, so it passes, and is said. Veths of virtual machines, LXC and scripts on bridges of their own are none of
//! netpold's business, and are not said. Pure: the caller has the clock, and looks where they lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::assemble::{Desired, ENDED, UNKNOWN};
use super::observed::{Engine, Observed};
use super::sources::behind::Behind;
use crate::api::wire::Unreached;
use crate::bridges;
use crate::datapath::is_inside;
use crate::runtime::cgroup::Maker;

/// A container's start takes a second or two, on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest time from one question of the engines to the next: interfaces may come at a high rate.
const BETWEEN: Duration = Duration::from_secs(5);
/// Podman's socket, as its package has it.
const PODMAN: &str = "/run/podman/podman.sock";

/// An interface that no policy reaches at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unclaimed {
    name: String,
    /// Its index in the network namespace that it is in.
    ifindex: u32,
    bridge: Option<String>,
    /// The network namespace that it leads to, by its id here.
    nsid: Option<i32>,
    /// Why it is on hold; `None`: it passes.
    hold: Option<String>,
}

/// How long one has been so.
#[derive(Clone, Debug)]
struct Waiting {
    since: Instant,
    state: State,
    unclaimed: Unclaimed,
    behind: Option<Behind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It may be claimed yet.
    Young,
    /// It is old, and the engines are asked once more.
    Asked,
    /// Every engine was asked since it appeared, and none has claimed it.
    Lasting,
}

/// What is known of them, by their numbers in the tables.
#[derive(Debug, Default)]
pub struct Watch {
    waiting: BTreeMap<u32, Waiting>,
    asking: bool,
    /// Not before this.
    next: Option<Instant>,
    /// Sockets of Docker engines that run here.
    sockets: Vec<PathBuf>,
}

impl Watch {
    /// Takes up how things stand now.
    pub fn look(&mut self, observed: &Observed, desired: &Desired, now: Instant) {
        let mut before = std::mem::take(&mut self.waiting);
        for (number, unclaimed) in unclaimed(observed, desired) {
            let known = before.remove(&number);
            // With another one behind it, it is another one. Where an engine has come or gone, it has its time.
            let is_same = |known: &Unclaimed| {
                known.nsid == unclaimed.nsid && known.hold.is_some() == unclaimed.hold.is_some()
            };
            let known = known.filter(|known| is_same(&known.unclaimed));
            let waiting = match known {
                Some(known) => Waiting { unclaimed, ..known },
                None => Waiting {
                    since: now,
                    state: State::Young,
                    unclaimed,
                    behind: None,
                },
            };
            self.waiting.insert(number, waiting);
        }
    }

    /// When to [`Watch::begin`].
    pub fn due(&self) -> Option<Instant> {
        if self.asking {
            return None;
        }
        let waiting = self.waiting.values();
        let young = waiting.filter(|one| one.state == State::Young);
        let oldest = young.map(|one| one.since + PATIENCE).min()?;
        Some(self.next.map_or(oldest, |next| oldest.max(next)))
    }

    /// The engines are about to be asked about those that are old enough. The network namespaces that these lead to.
    pub fn begin(&mut self, now: Instant) -> BTreeSet<i32> {
        self.asking = true;
        self.next = Some(now + BETWEEN);
        let old = self.waiting.values_mut();
        let old = old.filter(|one| one.state == State::Young && one.since + PATIENCE <= now);
        old.filter_map(|one| {
            one.state = State::Asked;
            one.unclaimed.nsid
        })
        .collect()
    }

    /// The engines have answered, and what they said was taken up by [`Watch::look`]. `behind`: the containers in those
    /// namespaces. `sockets`: at which Docker engines of this host listen, if that was looked for.
    pub fn end(&mut self, behind: &BTreeMap<i32, Behind>, sockets: Vec<PathBuf>) {
        self.asking = false;
        if !sockets.is_empty() {
            self.sockets = sockets;
        }
        for one in self.waiting.values_mut() {
            if one.state == State::Asked {
                one.state = State::Lasting;
                one.behind = one
                    .unclaimed
                    .nsid
                    .and_then(|nsid| behind.get(&nsid).cloned());
            }
        }
    }

    /// Network namespaces of which it is not known yet what is in them.
    pub fn unseen(&self) -> BTreeSet<i32> {
        let waiting = self.waiting.values();
        let unseen = waiting.filter(|one| {
            let is_said = one.unclaimed.hold.is_some() || one.unclaimed.bridge.is_some();
            one.state == State::Lasting && one.behind.is_none() && is_said
        });
        unseen.filter_map(|one| one.unclaimed.nsid).collect()
    }

    /// What is in those is known by now. True: of one.
    pub fn see(&mut self, behind: &BTreeMap<i32, Behind>) -> bool {
        let mut is_news = false;
        for one in self.waiting.values_mut() {
            let found = one.unclaimed.nsid.and_then(|nsid| behind.get(&nsid));
            if let Some(found) =
                found.filter(|_| one.state == State::Lasting && one.behind.is_none())
            {
                one.behind = Some(found.clone());
                is_news = true;
            }
        }
        is_news
    }

    /// What is to be said. `holds_pass`: the configuration lets pass what is on hold. `is_shut`: the gate shuts an
    /// interface on this bridge.
    pub fn said(
        &self,
        observed: &Observed,
        holds_pass: bool,
        is_shut: impl Fn(u32, &str) -> bool,
    ) -> Vec<Unreached> {
        let lasting = self.waiting.iter();
        let lasting = lasting.filter(|(_, one)| one.state == State::Lasting);
        let said = lasting.filter_map(|(number, one)| {
            let Unclaimed { bridge, hold, .. } = &one.unclaimed;
            if hold.is_none() && !is_containers(one, observed) {
                return None;
            }
            let passes = match (hold, bridge) {
                (Some(_), _) => holds_pass,
                (None, Some(bridge)) => !is_shut(*number, bridge),
                (None, None) => true,
            };
            let (reason, help) = self.words(one, observed);
            Some(Unreached {
                interface: one.unclaimed.name.clone(),
                ifindex: one.unclaimed.ifindex,
                bridge: bridge.clone(),
                leads_to: one.behind.as_ref().map(Behind::words),
                passes,
                reason,
                help,
            })
        });
        said.collect()
    }

    /// Why, and what to do.
    fn words(&self, one: &Waiting, observed: &Observed) -> (String, String) {
        let engines = observed.engines().filter(|engine| engine.followed);
        let (there, absent): (Vec<&Engine>, Vec<&Engine>) =
            engines.partition(|engine| engine.may_have_containers());
        let silent = there.iter().find(|engine| !engine.snapshot.connected);
        let container = one.behind.as_ref().and_then(Behind::container);
        if let Some((id, _)) = container
            && let Some(known) = observed
                .all_containers()
                .find(|known| known.id.ends_with(id))
            && let Some(engine) = observed.engine_of(known.runtime, &known.id)
        {
            let hold = one
                .unclaimed
                .hold
                .as_deref()
                .unwrap_or("it was not claimed");
            return (
                format!(
                    "{} has the container {}, but {hold}",
                    engine.label, known.name
                ),
                "see netpold's log for why, and start the container again".to_owned(),
            );
        }
        let is_unknown = one
            .unclaimed
            .hold
            .as_ref()
            .is_none_or(|hold| hold == UNKNOWN);
        if let Some(hold) = one.unclaimed.hold.as_ref().filter(|_| !is_unknown) {
            let help = match silent {
                Some(engine) => format!("see why {} does not answer", engine.label),
                None if hold == ENDED => "end what still runs in its network namespace".to_owned(),
                None => "see netpold's log, and start the container again".to_owned(),
            };
            return (hold.clone(), help);
        }
        let name =
            |engine: &Engine| format!("{} at {}", engine.runtime.name(), engine.path.display());
        let names: Vec<String> = there.iter().map(|engine| name(engine)).collect();
        let reason = match (silent, names.as_slice()) {
            (Some(engine), _) => format!(
                "no engine that netpold follows has claimed it, and {} does not answer",
                name(engine)
            ),
            (None, []) => "no engine that netpold follows is there".to_owned(),
            (None, [name]) => format!("{name}, which netpold follows, does not have it"),
            (None, names) => {
                format!(
                    "none of the engines that netpold follows has it: {}",
                    names.join(", ")
                )
            }
        };
        (reason, self.help(one, observed, &absent))
    }

    fn help(&self, one: &Waiting, observed: &Observed, absent: &[&Engine]) -> String {
        let followed: Vec<&Path> = observed.docker.iter().map(|it| it.path.as_path()).collect();
        let add = |socket: &str| {
            format!(
                "add {socket} to `[docker] sockets` in netpold.toml, then `systemctl reload netpold`"
            )
        };
        let podman = || {
            let start = "start Podman's API: `systemctl enable --now podman.socket`";
            match absent
                .iter()
                .find(|engine| engine.path == Path::new(PODMAN))
            {
                Some(_) => start.to_owned(),
                None if followed.contains(&Path::new(PODMAN)) => {
                    add("the API socket of the Podman that started it")
                }
                None => format!("{start}; and {}", add(&format!("\"{PODMAN}\""))),
            }
        };
        let docker = || {
            let others: Vec<String> = self
                .sockets
                .iter()
                .filter(|socket| !followed.contains(&socket.as_path()))
                .map(|socket| format!("\"{}\"", socket.display()))
                .collect();
            match others.as_slice() {
                [] => add("the socket of the Docker engine that started it"),
                others => add(&others.join(" or ")),
            }
        };
        let declare = "declare it by a Pod's manifest with `netpold.io/netns`, or put it on a bridge that is no engine's";
        match &one.behind {
            Some(Behind::Container { maker, .. }) => match maker {
                Maker::Docker => docker(),
                Maker::Podman => podman(),
                Maker::Containerd => {
                    "set `[containerd] socket`, and `namespaces` if it is set, so that they include it, then `systemctl reload netpold`"
                        .to_owned()
                }
                Maker::CriO => {
                    "netpold does not speak CRI-O's API: run the container by Docker, Podman or containerd".to_owned()
                }
                Maker::Unknown => add("the socket of the engine that started it, if it speaks Docker's API"),
            },
            Some(Behind::Mounted(path)) => format!(
                "if no engine made it, {declare} (`netpold.io/netns: {}`)",
                path.display()
            ),
            Some(Behind::Process(_)) => format!("if no engine made it, {declare}"),
            None if one.unclaimed.bridge.as_deref().is_some_and(is_podmans) => podman(),
            None => format!("{}; if no engine made it, {declare}", docker()),
        }
    }
}

/// Interfaces that no policy reaches at this moment, and that lead somewhere.
fn unclaimed(observed: &Observed, desired: &Desired) -> Vec<(u32, Unclaimed)> {
    let hold = |name: &str, ifindex: u32| {
        let mut held = desired.unidentified.iter();
        let held = held.find(|held| held.ifindex == ifindex && held.interface == name);
        held.map_or_else(String::new, |held| held.reason.clone())
    };
    let links = &observed.links;
    let outside = links.veths.iter().filter_map(|veth| {
        let hold = match desired.interfaces.get(&veth.ifindex) {
            Some(Some(_)) => return None,
            Some(None) => Some(hold(&veth.name, veth.ifindex)),
            // An end that leads to this very namespace leads nowhere, and what leads to an engine's own is that engine's.
            None if observed.engines_own.contains(&veth.peer_nsid?) => return None,
            None => None,
        };
        let bridge = veth.master.and_then(|master| links.bridges.get(&master));
        let unclaimed = Unclaimed {
            name: veth.name.clone(),
            ifindex: veth.ifindex,
            bridge: bridge.cloned(),
            nsid: veth.peer_nsid,
            hold,
        };
        Some((veth.ifindex, unclaimed))
    });
    let inside = desired.interfaces.iter().filter_map(|(number, owner)| {
        if !is_inside(*number) || owner.is_some() {
            return None;
        }
        let child = desired.inside.get(number);
        let name = child.map_or("inside a container", |child| &child.name);
        let ifindex = child.map_or(0, |child| child.within.location.ifindex);
        let unclaimed = Unclaimed {
            name: name.to_owned(),
            ifindex,
            bridge: None,
            nsid: None,
            hold: Some(hold(name, ifindex)),
        };
        Some((*number, unclaimed))
    });
    outside.chain(inside).collect()
}

/// Is one that passes to be taken for a container's, of an engine that the configuration does not tell to leave alone?
fn is_containers(one: &Waiting, observed: &Observed) -> bool {
    let dockers = || observed.docker.iter().any(|engine| engine.followed);
    let containerd = observed.containerd.followed;
    match one.behind.as_ref().and_then(Behind::container) {
        Some((_, Maker::Docker | Maker::Podman)) => return dockers(),
        Some((_, Maker::Containerd)) => return containerd,
        Some((_, Maker::CriO | Maker::Unknown)) => return dockers() || containerd,
        None => {}
    }
    let Some(bridge) = &one.unclaimed.bridge else {
        return false;
    };
    match bridges::maker(bridge) {
        Some(bridges::Maker::Docker) => dockers(),
        Some(bridges::Maker::Cni) => containerd,
        Some(bridges::Maker::Either) => dockers() || containerd,
        None => {
            let mut engines = observed.docker.iter();
            engines.any(|engine| engine.followed && engine.bridges.contains(bridge))
        }
    }
}

/// Is a bridge of this name one that Podman makes?
fn is_podmans(bridge: &str) -> bool {
    bridge.starts_with("podman") || bridge.starts_with("cni-podman")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use netpol_engine::policy::ObjectName;

    use super::*;
    use crate::links::Veth;
    use crate::reconcile::assemble::Unidentified;
    use crate::runtime::container::{Runtime, Snapshot};

    const BRIDGE: u32 = 3;
    const VETH: u32 = 7;
    const NSID: i32 = 5;

    /// An engine at this socket; `is_there`: its socket is, and it has answered.
    fn engine(socket: &str, is_there: bool) -> Engine {
        Engine {
            path: socket.into(),
            label: "docker".to_owned(),
            followed: true,
            socket: is_there,
            listed: is_there,
            snapshot: Arc::new(Snapshot {
                connected: is_there,
                ..Snapshot::default()
            }),
            ..Engine::default()
        }
    }

    /// A veth on this bridge into another network namespace, beside these engines.
    fn observed(bridge: &str, docker: Vec<Engine>) -> Observed {
        let mut observed = Observed {
            docker,
            containerd: Engine {
                runtime: Runtime::Containerd,
                label: "containerd".to_owned(),
                followed: true,
                ..Engine::default()
            },
            ..Observed::default()
        };
        observed.links.bridges.insert(BRIDGE, bridge.to_owned());
        observed.links.veths.push(Veth {
            ifindex: VETH,
            name: "veth7".to_owned(),
            mac: [0; 6],
            master: Some(BRIDGE),
            peer_nsid: Some(NSID),
            peer_ifindex: Some(2),
            up: true,
        });
        observed
    }

    fn held(reason: &str) -> Desired {
        let mut held = Desired::default();
        held.interfaces.insert(VETH, None);
        held.unidentified.push(Unidentified {
            interface: "veth7".to_owned(),
            ifindex: VETH,
            reason: reason.to_owned(),
        });
        held
    }

    fn container(maker: Maker) -> Behind {
        Behind::Container {
            id: "ab".repeat(32),
            maker,
            process: "process 9, `sleep`".to_owned(),
        }
    }

    /// What is said once it is old, of the container behind it.
    fn said(observed: &Observed, desired: &Desired, behind: Option<Behind>) -> Vec<Unreached> {
        let begun = Instant::now();
        let mut watch = Watch::default();
        watch.look(observed, desired, begun);
        watch.begin(begun + PATIENCE);
        let sockets = vec!["/run/one.sock".into(), "/run/two.sock".into()];
        let behind = behind.map(|behind| (NSID, behind)).into_iter().collect();
        watch.end(&behind, sockets);
        watch.said(observed, false, |_, _| false)
    }

    #[test]
    fn it_is_said_after_ten_seconds_and_a_last_question_and_until_an_engine_claims_it() {
        let observed = observed("docker0", vec![engine("/run/one.sock", true)]);
        let unknown = held(UNKNOWN);
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut watch = Watch::default();
        assert_eq!(watch.due(), None);
        watch.look(&observed, &unknown, begun);
        // However often something else happens meanwhile.
        watch.look(&observed, &unknown, at(9));
        assert_eq!(watch.due(), Some(at(10)));
        let all = |watch: &Watch| watch.said(&observed, false, |_, _| false).len();
        assert_eq!(all(&watch), 0);
        assert_eq!(watch.begin(at(10)), BTreeSet::from([NSID]));
        assert_eq!(
            (watch.due(), all(&watch)),
            (None, 0),
            "the engines are being asked"
        );
        watch.end(&BTreeMap::new(), Vec::new());
        assert_eq!((watch.due(), all(&watch)), (None, 1));
        assert_eq!(watch.unseen(), BTreeSet::from([NSID]));
        let behind = BTreeMap::from([(NSID, container(Maker::Docker))]);
        assert!(watch.see(&behind) && !watch.see(&behind));
        // It has an owner.
        let mut claimed = Desired::default();
        let web = ObjectName::new("shop", "web");
        claimed.interfaces.insert(VETH, Some(web));
        watch.look(&observed, &claimed, at(20));
        assert_eq!(all(&watch), 0);
        // An engine has gone, and it passes: from the beginning. And so where one has come.
        watch.look(&observed, &Desired::default(), at(21));
        assert_eq!((watch.due(), all(&watch)), (Some(at(31)), 0));
        watch.look(&observed, &unknown, at(25));
        assert_eq!((watch.due(), all(&watch)), (Some(at(35)), 0));
        watch.look(&observed, &claimed, at(26));
        // It has none once more.
        watch.look(&observed, &unknown, at(30));
        assert_eq!((watch.due(), all(&watch)), (Some(at(40)), 0));
        // Claimed while the engines are asked.
        watch.begin(at(40));
        watch.look(&observed, &claimed, at(40));
        watch.end(&BTreeMap::new(), Vec::new());
        assert_eq!(all(&watch), 0);
    }

    #[test]
    fn what_to_set_follows_from_who_is_behind_it() {
        let docker = || engine("/run/one.sock", true);
        let beside = |other: Engine| observed("docker0", vec![docker(), other]);
        let podman = engine(PODMAN, false);
        let unknown = held(UNKNOWN);
        let help = |observed: &Observed, behind: Option<Behind>| {
            let mut said = said(observed, &unknown, behind);
            assert_eq!(said.len(), 1);
            let one = said.remove(0);
            assert!(!one.passes);
            one.help
        };
        let alone = observed("docker0", vec![docker()]);
        let said = help(&alone, Some(container(Maker::Docker)));
        assert!(
            said.starts_with("add \"/run/two.sock\" to `[docker] sockets`"),
            "{said}"
        );
        let start = "start Podman's API: `systemctl enable --now podman.socket`";
        assert_eq!(help(&beside(podman), Some(container(Maker::Podman))), start);
        let said = help(&alone, Some(container(Maker::Podman)));
        assert!(
            said.starts_with(start) && said.contains(&format!("add \"{PODMAN}\"")),
            "{said}"
        );
        let other = beside(engine(PODMAN, true));
        let said = help(&other, Some(container(Maker::Podman)));
        assert!(
            said.starts_with("add the API socket of the Podman"),
            "{said}"
        );
        let said = help(&alone, Some(Behind::Mounted("/run/netns/lab".into())));
        assert!(
            said.contains("`netpold.io/netns: /run/netns/lab`"),
            "{said}"
        );
        let said = help(&alone, Some(Behind::Process("process 9".to_owned())));
        assert!(
            said.contains("put it on a bridge that is no engine's"),
            "{said}"
        );
        let said = help(&alone, None);
        assert!(
            said.starts_with("add \"/run/two.sock\" to") && said.contains("; if no engine"),
            "{said}"
        );
    }

    #[test]
    fn the_reason_why_no_engine_has_claimed_it_is_said() {
        let reason =
            |observed: &Observed, hold: &str| said(observed, &held(hold), None).remove(0).reason;
        let one = observed("docker0", vec![engine("/run/one.sock", true)]);
        assert_eq!(
            reason(&one, UNKNOWN),
            "docker at /run/one.sock, which netpold follows, does not have it"
        );
        let mut silent = engine("/run/two.sock", true);
        silent.snapshot = Arc::default();
        let two = observed("docker0", vec![engine("/run/one.sock", true), silent]);
        assert_eq!(
            reason(&two, UNKNOWN),
            "no engine that netpold follows has claimed it, and docker at /run/two.sock does not answer"
        );
        let mac = "the MAC address of the container's end is not known yet";
        assert_eq!(reason(&one, mac), mac);
        assert_eq!(reason(&one, ENDED), ENDED);
    }

    #[test]
    fn what_passes_is_said_where_it_is_a_containers() {
        let none = Desired::default();
        let absent = || vec![engine("/run/one.sock", false)];
        let there = || vec![engine("/run/one.sock", true)];
        let process = || Some(Behind::Process("process 9".to_owned()));
        let rows = [
            // An engine's bridge, and no engine: whatever is there.
            ("docker0", absent(), None, 1),
            ("podman0", absent(), process(), 1),
            ("br-0123456789ab", absent(), None, 1),
            ("cni0", there(), None, 1),
            // Others' bridges: containers alone.
            ("virbr0", there(), process(), 0),
            ("lxcbr0", absent(), None, 0),
            ("shop0", there(), None, 0),
            ("shop0", there(), Some(container(Maker::Docker)), 1),
            ("shop0", absent(), Some(container(Maker::CriO)), 1),
        ];
        for (bridge, docker, behind, expected) in rows {
            let found = said(&observed(bridge, docker), &none, behind);
            assert_eq!(found.len(), expected, "{bridge}: {found:?}");
            assert!(found.iter().all(|one| one.passes), "{bridge}: {found:?}");
        }
        // Engines that are to be left alone.
        let mut alone = observed("docker0", absent());
        alone.docker[0].followed = false;
        assert!(said(&alone, &none, Some(container(Maker::Docker))).is_empty());
        alone.links.bridges.insert(BRIDGE, "cni0".to_owned());
        assert_eq!(said(&alone, &none, None).len(), 1);
        alone.containerd.followed = false;
        assert!(said(&alone, &none, Some(container(Maker::Containerd))).is_empty());
        // Behind the gate.
        let observed = observed("docker0", absent());
        let mut watch = Watch::default();
        watch.look(&observed, &none, Instant::now());
        watch.begin(Instant::now() + PATIENCE);
        watch.end(&BTreeMap::new(), Vec::new());
        let shut = |number, bridge: &str| number == VETH && bridge == "docker0";
        assert!(!watch.said(&observed, false, shut)[0].passes);
        // An engine's own.
        let mut own = observed.clone();
        own.engines_own.insert(NSID);
        assert!(said(&own, &none, None).is_empty());
        // A veth with both ends here leads to no container.
        let mut both = observed;
        both.links.veths[0].peer_nsid = None;
        assert!(said(&both, &none, None).is_empty());
    }
}
