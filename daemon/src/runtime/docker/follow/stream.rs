//! Whatever an engine does, and however late one hears of it: bytes as a stream of what happens
//! in an engine and of what its follower is told. When all has been told, the follower knows
//! what a new one would.
//!
//! Bytes so that a fuzzer can write them (`tests/fuzz`); its finds are replayed below. Events come
//! in order, as on their connection, and some twice; a listing, an inspection and a network's
//! members are of some time between question and answer, and tell of containers what the engine had saved by then.

use std::collections::VecDeque;

use serde_json::json;

use super::*;

/// IDs; none is ever given twice.
const CONTAINERS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
const NETWORKS: [&str; 2] = ["n0", "n1"];
/// The ID of the network that the engine adds a container to which runs on the second one, an overlay.
const GATEWAY: &str = "gw";

/// Runs a stream, and panics where the follower ends up elsewhere than a new one. A stream
/// that begins with 255 is the engine's own text: it may be nonsense, and breaks nothing.
pub fn hold(bytes: &[u8]) {
    if let [255, text @ ..] = bytes {
        return nonsense(text);
    }
    let mut run = Run::default();
    run.list();
    for &[what, which] in bytes.as_chunks().0.iter().take(512) {
        run.step(what, usize::from(which));
    }
    run.settle();
}

/// Lines, each taken for every kind of answer.
fn nonsense(text: &[u8]) {
    let mut world = World::default();
    for line in text.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<wire::Event>(line) {
            world.take(&event, Instant::now());
        }
        let listed = serde_json::from_slice(line).unwrap_or_default();
        let networks: Vec<wire::Network> = serde_json::from_slice(line).unwrap_or_default();
        world.listed(listed, networks);
        if let Ok(members) = serde_json::from_slice(line) {
            let question = Question {
                network: String::new(),
                departures: world.departures,
                asked: Instant::now(),
            };
            let _ = world.met(question, Ok(members));
        }
        while let Some(id) = world.next_to_inspect() {
            let answer = serde_json::from_slice(line).unwrap_or_default();
            let _ = world.inspected(&id, Ok(answer));
        }
    }
}

/// A container as the engine has it.
#[derive(Clone, Debug, Default)]
struct Real {
    state: &'static str,
    pid: u32,
    label: u8,
    /// Its number in each network that it is on.
    networks: BTreeMap<&'static str, u8>,
    /// Its number in the one that the engine adds it to by itself, and does not report; 0: it is not on it.
    gateway: u8,
}

impl Real {
    /// It is on the engine's own network while it runs on an overlay.
    fn adjust_gateway(&mut self, number: u8) {
        let runs = matches!(self.state, "running" | "paused");
        let needs_it = runs && self.networks.contains_key(NETWORKS[1]);
        self.gateway = match (needs_it, self.gateway) {
            (false, _) => 0,
            (true, 0) => number,
            (true, own) => own,
        };
    }
}

#[derive(Default)]
struct Run {
    /// What its answers about containers are made from: the engine tells of changes before it saves them.
    saved: BTreeMap<&'static str, Real>,
    real: BTreeMap<&'static str, Real>,
    given: BTreeSet<&'static str>,
    pids: u32,
    numbers: u8,
    /// Events on their way.
    events: VecDeque<serde_json::Value>,
    world: World,
    /// Inspections under way, with their answer once the engine has made it.
    inspections: VecDeque<(String, Option<serde_json::Value>)>,
    /// Questions for members under way, likewise.
    members: VecDeque<(Question, Option<serde_json::Value>)>,
}

impl Run {
    fn step(&mut self, what: u8, number: usize) {
        let id = CONTAINERS[number % CONTAINERS.len()];
        let network = NETWORKS[(number / 4) % NETWORKS.len()];
        match what % 16 {
            0 if self.given.insert(id) => {
                let networks = BTreeMap::from([(network, 0)]);
                let real = Real {
                    state: "created",
                    label: (number / 8) as u8 % 3,
                    networks,
                    ..Real::default()
                };
                self.real.insert(id, real);
                self.event("create", id);
            }
            1 => self.start(id),
            2 => self.end(id),
            3 => {
                self.end(id);
                if self.real.remove(id).is_some() {
                    self.event("destroy", id);
                }
            }
            4 => self.connect(id, network),
            5 => self.disconnect(id, network),
            6 => {
                if let Some(real) = self.real.get_mut(id) {
                    let (to, said) = match real.state {
                        "running" => ("paused", "pause"),
                        "paused" => ("running", "unpause"),
                        _ => return,
                    };
                    real.state = to;
                    self.event(said, id);
                }
            }
            7 => self.event("exec_start: sh", id),
            8 | 9 => self.hear(number % 4, false),
            10 => self.hear(1, true),
            11 => {
                self.inspections
                    .extend(self.world.next_to_inspect().map(|id| (id, None)));
                self.members
                    .extend(self.world.next_to_meet().map(|question| (question, None)));
            }
            12 => self.answer(),
            13 if number.is_multiple_of(2) => self.inspection_arrives(),
            13 => self.members_arrive(),
            // A client wants to be sure.
            14 => {
                self.world.mark_all_stale();
                self.list();
            }
            15 if number.is_multiple_of(2) => self.saved.clone_from(&self.real),
            _ => self.list(),
        }
    }

    fn start(&mut self, id: &'static str) {
        let Some(real) = self.real.get_mut(id) else {
            return;
        };
        if matches!(real.state, "running" | "paused") {
            return;
        }
        self.pids += 1;
        (real.state, real.pid) = ("running", self.pids);
        self.numbers = self.numbers.wrapping_add(1).max(1);
        real.adjust_gateway(self.numbers);
        let networks: Vec<&'static str> = real.networks.keys().copied().collect();
        for network in networks {
            self.numbers = self.numbers.wrapping_add(1).max(1);
            if let Some(real) = self.real.get_mut(id) {
                real.networks.insert(network, self.numbers);
            }
            self.network_event("connect", id, network);
        }
        self.event("start", id);
    }

    fn end(&mut self, id: &'static str) {
        let Some(real) = self.real.get_mut(id) else {
            return;
        };
        if !matches!(real.state, "running" | "paused") {
            return;
        }
        (real.state, real.pid) = ("exited", 0);
        let networks: Vec<&'static str> = real.networks.keys().copied().collect();
        for number in real.networks.values_mut() {
            *number = 0;
        }
        real.adjust_gateway(0);
        for network in networks {
            self.network_event("disconnect", id, network);
        }
        self.event("die", id);
    }

    fn connect(&mut self, id: &'static str, network: &'static str) {
        let Some(real) = self.real.get_mut(id) else {
            return;
        };
        if real.networks.contains_key(network) {
            return;
        }
        let runs = matches!(real.state, "running" | "paused");
        self.numbers = self.numbers.wrapping_add(1).max(1);
        real.networks
            .insert(network, if runs { self.numbers } else { 0 });
        real.adjust_gateway(self.numbers);
        self.network_event("connect", id, network);
    }

    fn disconnect(&mut self, id: &'static str, network: &'static str) {
        let gone = |real: &mut Real| {
            let gone = real.networks.remove(network);
            real.adjust_gateway(real.gateway);
            gone
        };
        if self.real.get_mut(id).and_then(gone).is_some() {
            self.network_event("disconnect", id, network);
        }
    }

    fn event(&mut self, action: &str, id: &str) {
        let event = json!({"Type": "container", "Action": action, "Actor": {"ID": id}});
        self.events.push_back(event);
    }

    fn network_event(&mut self, action: &str, id: &str, network: &str) {
        self.events.push_back(json!({
            "Type": "network", "Action": action,
            "Actor": {"ID": network, "Attributes": {"container": id, "name": network}},
        }));
    }

    /// A burst of events arrives, and is one listing; `twice`: it stays to come again.
    fn hear(&mut self, burst: usize, twice: bool) {
        for _ in 0..=burst {
            let Some(event) = self.events.front().cloned() else {
                break;
            };
            if !twice {
                self.events.pop_front();
            }
            self.world.take(&read(event), Instant::now());
        }
        if self.world.is_stale {
            self.list();
        }
    }

    fn list(&mut self) {
        self.world.is_stale = false;
        self.world.listed(self.listing(), networks());
    }

    fn listing(&self) -> Vec<wire::Summary> {
        let listed = self.saved.iter().map(|(id, real)| {
            read(json!({
                "Id": id, "Names": [format!("/c{id}")], "Labels": {"l": real.label.to_string()},
                "State": real.state, "Created": 7, "HostConfig": {"NetworkMode": "n0"},
                "NetworkSettings": endpoints(real),
            }))
        });
        listed.collect()
    }

    fn inspection(&self, id: &str) -> serde_json::Value {
        match self.saved.get(id) {
            None => serde_json::Value::Null,
            Some(real) => json!({
                "State": {"Status": real.state, "Pid": real.pid},
                "NetworkSettings": endpoints(real),
            }),
        }
    }

    fn of_network(&self, network: &str) -> serde_json::Value {
        let containers: BTreeMap<&str, serde_json::Value> = self
            .real
            .iter()
            .filter_map(|(id, real)| {
                let number = match network {
                    GATEWAY => real.gateway,
                    network => *real.networks.get(network)?,
                };
                let address = format!("{}/16", ipv4(network, number));
                (number != 0).then(|| (*id, json!({"IPv4Address": address})))
            })
            .collect();
        let name = if network == GATEWAY {
            model::GATEWAY
        } else {
            network
        };
        json!({"Name": name, "Containers": containers})
    }

    /// The engine answers the oldest questions; the answers are on their way.
    fn answer(&mut self) {
        let unanswered = self
            .inspections
            .iter()
            .position(|(_, answer)| answer.is_none());
        if let Some(index) = unanswered {
            let answer = self.inspection(&self.inspections[index].0);
            self.inspections[index].1 = Some(answer);
        }
        let unanswered = self.members.iter().position(|(_, answer)| answer.is_none());
        if let Some(index) = unanswered {
            let answer = self.of_network(&self.members[index].0.network);
            self.members[index].1 = Some(answer);
        }
    }

    fn inspection_arrives(&mut self) {
        let Some((id, answer)) = self.inspections.pop_front() else {
            return;
        };
        let answer = match answer.unwrap_or_else(|| self.inspection(&id)) {
            serde_json::Value::Null => Err(gone()),
            answer => Ok(read(answer)),
        };
        assert!(self.world.inspected(&id, answer).is_ok());
    }

    fn members_arrive(&mut self) {
        let Some((question, answer)) = self.members.pop_front() else {
            return;
        };
        let answer = answer.unwrap_or_else(|| self.of_network(&question.network));
        assert!(self.world.met(question, Ok(read(answer))).is_ok());
    }

    /// The engine rests, and everything arrives, what it saved at last as well.
    fn settle(&mut self) {
        while !self.events.is_empty() {
            self.hear(0, false);
        }
        self.all_arrives();
        self.saved.clone_from(&self.real);
        self.world.recheck(Instant::now() + SECOND_LOOK);
        if self.world.is_stale {
            self.list();
        }
        self.all_arrives();
        assert!(!self.world.is_incomplete());

        let mut fresh = World::default();
        fresh.listed(self.listing(), networks());
        while let Some(id) = fresh.next_to_inspect() {
            assert!(fresh.inspected(&id, Ok(read(self.inspection(&id)))).is_ok());
        }
        while let Some(question) = fresh.next_to_meet() {
            let answer = read(self.of_network(&question.network));
            assert!(fresh.met(question, Ok(answer)).is_ok());
        }
        assert_eq!(self.world.known(), fresh.known());
    }

    fn all_arrives(&mut self) {
        while !self.inspections.is_empty() {
            self.inspection_arrives();
        }
        while !self.members.is_empty() {
            self.members_arrive();
        }
        while let Some(question) = self.world.next_to_meet() {
            self.members.push_back((question, None));
            self.members_arrive();
        }
        while let Some(id) = self.world.next_to_inspect() {
            self.inspections.push_back((id, None));
            self.inspection_arrives();
        }
    }
}

fn read<T: for<'de> serde::Deserialize<'de>>(value: serde_json::Value) -> T {
    match serde_json::from_value(value) {
        Ok(read) => read,
        Err(error) => panic!("{error}"),
    }
}

fn networks() -> Vec<wire::Network> {
    let network = |id: &str, name: &str, driver: &str| {
        read(json!({"Id": id, "Name": name, "Driver": driver}))
    };
    vec![
        network(NETWORKS[0], NETWORKS[0], "bridge"),
        network(NETWORKS[1], NETWORKS[1], "overlay"),
        network(GATEWAY, model::GATEWAY, "bridge"),
    ]
}

fn ipv4(network: &str, number: u8) -> String {
    let second = match network {
        "n0" => 17,
        "n1" => 18,
        _ => 19,
    };
    format!("172.{second}.0.{number}")
}

/// Without an address until it has started.
fn endpoints(real: &Real) -> serde_json::Value {
    let networks: BTreeMap<&str, serde_json::Value> = real
        .networks
        .iter()
        .map(|(name, number)| {
            let address = match number {
                0 => String::new(),
                number => ipv4(name, *number),
            };
            (*name, json!({"NetworkID": name, "IPAddress": address}))
        })
        .collect();
    json!({"Networks": networks})
}

fn gone() -> EngineError {
    EngineError::Refused {
        path: String::new(),
        status: 404,
        message: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams;

    #[test]
    fn random_streams_hold() {
        streams::random(1_000, hold);
    }

    #[test]
    fn the_fuzzers_finds_hold() {
        streams::finds("docker", hold);
    }
}
