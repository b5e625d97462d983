//! The loop against an engine of a few lines, which says what a test wants.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;

use super::*;
use crate::runtime::container::Snapshot;

const SOON: Duration = Duration::from_secs(10);

/// An engine: paths with their answers, and a stream of events.
#[derive(Clone)]
struct Fake {
    answers: Arc<Mutex<BTreeMap<String, String>>>,
    events: broadcast::Sender<String>,
}

impl Fake {
    fn new() -> Self {
        let fake = Self {
            answers: Arc::default(),
            events: broadcast::channel(16).0,
        };
        fake.put("/version", r#"{"ApiVersion":"1.41"}"#);
        fake.put("/v1.41/networks", "[]");
        fake.list(&[]);
        fake
    }

    fn put(&self, path: &str, answer: &str) {
        self.answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), answer.to_owned());
    }

    /// Containers as `id=state`; those that run have the PID that their ID is.
    fn list(&self, containers: &[&str]) {
        let mut listed = Vec::new();
        for container in containers {
            let (id, state) = container.split_once('=').unwrap();
            listed.push(format!(
                r#"{{"Id":"{id}","Names":["/n{id}"],"State":"{state}"}}"#
            ));
            let inspection = format!(r#"{{"State":{{"Status":"{state}","Pid":{id}}}}}"#);
            self.put(&format!("/v1.41/containers/{id}/json"), &inspection);
        }
        self.put(
            "/v1.41/containers/json?all=true",
            &format!("[{}]", listed.join(",")),
        );
    }

    fn event(&self, action: &str, id: &str) {
        let event =
            format!(r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}"}}}}"#);
        self.events.send(format!("{event}\n")).unwrap();
    }

    /// Serves until dropped.
    fn serve(&self, socket: &Path) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        let fake = self.clone();
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(fake.clone().answer(stream));
            }
        })
    }

    async fn answer(self, mut stream: UnixStream) {
        let mut events = self.events.subscribe();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.split(' ').nth(1).unwrap();
        if path.starts_with("/v1.41/events") {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            while let Ok(event) = events.recv().await {
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                if stream.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
            return;
        }
        let answer = self.answers.lock().unwrap().get(path).cloned();
        let (status, body) = match answer {
            Some(body) => (200, body),
            None => (404, r#"{"message":"no such container"}"#.to_owned()),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        // The client may be gone.
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }
}

fn settings(socket: PathBuf) -> (Enabled, PathBuf) {
    (Enabled::Auto, socket)
}

fn follow((enabled, socket): &(Enabled, PathBuf)) -> Result<Follower, WatchError> {
    super::follow(*enabled, socket, &[])
}

async fn until(follower: &mut Follower, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let found = follower.snapshot.wait_for(|snapshot| wanted(snapshot));
    let found = tokio::time::timeout(SOON, found)
        .await
        .expect("it never says so")
        .unwrap();
    Arc::clone(&found)
}

fn pids(snapshot: &Snapshot) -> Vec<u32> {
    snapshot
        .containers
        .iter()
        .map(|container| container.pid)
        .collect()
}

/// Labels are whatever an image or its user says.
#[tokio::test]
async fn a_container_with_too_large_a_description_hides_no_other() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("docker.sock");
    let fake = Fake::new();
    fake.list(&["1=running", "2=running"]);
    let label = "x".repeat(70 << 20);
    let path = "/v1.41/containers/json?all=true";
    let listed = fake.answers.lock().unwrap()[path].clone();
    let large = format!(r#"{{"Id":"3","Names":["/n3"],"Labels":{{"a":"{label}"}}}}"#);
    fake.put(path, &listed.replacen('[', &format!("[{large},"), 1));
    let _server = fake.serve(&socket);
    let mut follower = follow(&settings(socket)).unwrap();
    let snapshot = until(&mut follower, |snapshot| {
        snapshot.connected && !snapshot.incomplete
    })
    .await;
    assert_eq!(pids(&snapshot), [1, 2]);
    let said = snapshot.error.as_deref().unwrap_or_default();
    assert!(said.ends_with("are on hold: 3"), "{said}");
}

#[tokio::test]
async fn an_engine_that_comes_and_goes_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("run/docker.sock");
    let mut follower = follow(&settings(socket.clone())).unwrap();
    follower.sync().await;
    assert_eq!(*follower.snapshot(), Snapshot::default());

    let fake = Fake::new();
    fake.list(&["11=running", "22=exited"]);
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    let server = fake.serve(&socket);
    let first = until(&mut follower, |now| now.connected && !now.incomplete).await;
    assert_eq!(
        (pids(&first), first.containers[0].name.as_str()),
        (vec![11, 0], "n11")
    );

    fake.list(&["11=running", "22=running"]);
    fake.event("start", "22");
    until(&mut follower, |now| pids(now) == [11, 22]).await;
    fake.list(&["22=running"]);
    fake.event("destroy", "11");
    until(&mut follower, |now| pids(now) == [22]).await;

    server.abort();
    let lost = until(&mut follower, |now| !now.connected).await;
    assert_eq!(pids(&lost), [22], "its containers may live on");
    std::fs::remove_file(&socket).unwrap();
    fake.list(&["33=paused"]);
    let _server = fake.serve(&socket);
    until(&mut follower, |now| now.connected && pids(now) == [33]).await;
}

#[tokio::test]
async fn a_sync_sees_what_no_event_told() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("docker.sock");
    let fake = Fake::new();
    fake.list(&["11=running"]);
    let _server = fake.serve(&socket);
    let mut follower = follow(&settings(socket)).unwrap();
    until(&mut follower, |now| pids(now) == [11]).await;
    fake.list(&["11=running", "22=running"]);
    fake.put(
        "/v1.41/containers/11/json",
        r#"{"State":{"Status":"running","Pid":99}}"#,
    );
    tokio::time::timeout(SOON, follower.sync()).await.unwrap();
    assert_eq!(pids(&follower.snapshot()), [99, 22]);
}

#[tokio::test]
async fn a_container_that_cannot_be_inspected_does_not_hide_the_others() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("docker.sock");
    let fake = Fake::new();
    fake.list(&["11=running", "22=running", "33=running"]);
    fake.put("/v1.41/containers/11/json", "nonsense");
    fake.answers
        .lock()
        .unwrap()
        .remove("/v1.41/containers/22/json");
    let _server = fake.serve(&socket);
    let mut follower = follow(&settings(socket)).unwrap();
    let found = until(&mut follower, |now| now.connected && !now.incomplete).await;
    assert_eq!(pids(&found), [0, 33]);
}

#[tokio::test]
async fn an_engine_that_must_be_there_is_missed() {
    let root = tempfile::tempdir().unwrap();
    let mut wanted = settings(root.path().join("docker.sock"));
    wanted.0 = Enabled::Yes;
    let mut follower = follow(&wanted).unwrap();
    let said = until(&mut follower, |now| now.error.is_some()).await;
    assert!(said.error.as_ref().unwrap().contains("docker.sock"));
    wanted.0 = Enabled::No;
    let mut follower = follow(&wanted).unwrap();
    follower.sync().await;
    assert_eq!(*follower.snapshot(), Snapshot::default());
}

#[tokio::test]
async fn a_container_that_starts_before_netpold_listens_is_found_on_its_network() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let fake = Fake::new();
    let container = |id: u32, state: &str| {
        format!(
            r#"{{"Id":"{id}","Names":["/n{id}"],"State":"{state}","NetworkSettings":{{"Networks":{{"shop":{{"NetworkID":"77"}}}}}}}}"#
        )
    };
    let all = [(1, "created"), (2, "exited"), (3, "exited")];
    let listed = all.map(|(id, state)| container(id, state)).join(",");
    fake.put("/v1.41/containers/json?all=true", &format!("[{listed}]"));
    let network = r#"{"Id":"77","Name":"shop","Driver":"bridge"}"#;
    fake.put("/v1.41/networks", &format!("[{network}]"));
    let member = |low: u32| {
        format!(
            r#""{low}":{{"MacAddress":"02:00:00:00:00:0{low}","IPv4Address":"10.0.0.{low}/24"}}"#
        )
    };
    fake.put(
        "/v1.41/networks/77",
        &format!(
            r#"{{"Name":"shop","Containers":{{{},{}}}}}"#,
            member(1),
            member(2)
        ),
    );
    fake.serve(&socket);
    let mut follower = follow(&settings(socket)).unwrap();
    let met = |snapshot: &Snapshot, at: usize| {
        let container = &snapshot.containers[at];
        (container.state, container.networks[0].mac.map(|mac| mac[5]))
    };
    let snapshot = until(&mut follower, |snapshot| {
        snapshot.containers.len() == 3 && met(snapshot, 0).1.is_some()
    })
    .await;
    assert_eq!(met(&snapshot, 0), (State::Created, Some(1)));
    // It has ended, and is on its network: it is being started again.
    assert_eq!(met(&snapshot, 1), (State::Created, Some(2)));
    assert_eq!(met(&snapshot, 2), (State::Ended, None));
}

/// What the kernel shows is asked about until an answer explains it, without any event.
#[tokio::test]
async fn what_the_engine_has_not_saved_yet_is_asked_about_until_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let fake = Fake::new();
    fake.list(&["11=running", "22=running"]);
    let _server = fake.serve(&socket);
    let mut follower = follow(&settings(socket)).unwrap();
    until(&mut follower, |now| now.connected && !now.incomplete).await;
    let address = "10.0.0.9".parse::<std::net::Ipv4Addr>().unwrap();
    let shown = BTreeMap::from([("22".to_owned(), BTreeSet::from([address.into()]))]);
    follower.question(OpenQuestions {
        containers: shown,
        bridges: BTreeMap::new(),
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let none = &follower.snapshot().containers[1].networks.clone();
    assert!(none.is_empty(), "{none:?}");
    let networks = r#"{"shop":{"NetworkID":"77","IPAddress":"10.0.0.9"}}"#;
    fake.put(
        "/v1.41/containers/22/json",
        &format!(
            r#"{{"State":{{"Status":"running","Pid":22}},"NetworkSettings":{{"Networks":{networks}}}}}"#
        ),
    );
    let has_it = |now: &Snapshot| {
        let mut networks = now.containers[1].networks.iter();
        networks.any(|network| network.ipv4 == Some(address))
    };
    until(&mut follower, has_it).await;
    // And from the network alone, which may know it first: the interface is all that there is to be asked about.
    let network = r#"{"Id":"88aaaaaaaaaaaaaa","Name":"lan","Driver":"bridge"}"#;
    fake.put("/v1.41/networks", &format!("[{network}]"));
    fake.put(
        "/v1.41/networks/88aaaaaaaaaaaaaa",
        r#"{"Name":"lan","Containers":{"11":{"IPv4Address":"10.8.0.2/24"}}}"#,
    );
    follower.question(OpenQuestions {
        containers: BTreeMap::new(),
        bridges: BTreeMap::from([("br-88aaaaaaaaaa".to_owned(), BTreeSet::from([7]))]),
    });
    let met = until(&mut follower, |now| !now.containers[0].networks.is_empty()).await;
    let lan = &met.containers[0].networks[0];
    assert_eq!(lan.ipv4, Some("10.8.0.2".parse().unwrap()));
    assert_eq!(lan.bridge.as_deref(), Some("br-88aaaaaaaaaa"));
}

/// The network by which a container reaches beyond an overlay is in nothing that the engine says of the container.
#[test]
fn on_the_gateway_only_its_own_listing_names_containers() {
    fn read<T: for<'de> serde::Deserialize<'de>>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }
    let networks = || -> Vec<wire::Network> {
        let network = |id: &str, name: &str, driver: &str| serde_json::json!({"Id": id, "Name": name, "Driver": driver});
        read(serde_json::json!([
            network("gateway", "docker_gwbridge", "bridge"),
            network("overlay", "ov", "overlay"),
            network("default", "bridge", "bridge"),
        ]))
    };
    let inspection = || -> wire::Inspection {
        read(serde_json::json!({
            "State": {"Status": "running", "Pid": 7},
            "NetworkSettings": {"Networks": {
                "ov": {"NetworkID": "overlay", "IPAddress": "10.0.1.2", "MacAddress": "02:42:0a:00:01:02"},
                "bridge": {"NetworkID": "default", "IPAddress": "172.30.0.2"},
            }},
        }))
    };
    let members = |world: &mut World, all: serde_json::Value| {
        let question = world.next_to_meet().expect("nothing is asked");
        assert_eq!(question.network, "gateway");
        let answer = read(serde_json::json!({"Name": "docker_gwbridge", "Containers": all}));
        world.met(question, Ok(answer)).unwrap();
    };
    let all = || {
        serde_json::json!({
            "c": {"MacAddress": "02:42:ac:11:00:03", "IPv4Address": "172.17.0.3/16"},
            "ingress-sbox": {"MacAddress": "02:42:ac:11:00:02", "IPv4Address": "172.17.0.2/16"},
            "ep-0698ccd2": {"MacAddress": "02:42:ac:11:00:04", "IPv4Address": "172.17.0.4/16"},
        })
    };
    let gateway = |world: &World| -> Option<Attachment> {
        let known = world.known();
        let mut of_container = known.iter().find(|one| one.id == "c")?.networks.iter();
        of_container
            .find(|one| one.name == "docker_gwbridge")
            .cloned()
    };
    let event = |action: &str, network: &str| -> wire::Event {
        read(serde_json::json!({
            "Type": "network", "Action": action,
            "Actor": {"ID": network, "Attributes": {"container": "c", "name": network}},
        }))
    };
    let now = Instant::now();
    let mut world = World::default();
    let running = read(serde_json::json!([{"Id": "c", "State": "running"}]));
    world.listed(running, networks());
    assert_eq!(world.next_to_inspect().as_deref(), Some("c"));
    world.inspected("c", Ok(inspection())).unwrap();
    assert!(world.is_incomplete(), "an address is missing");
    members(&mut world, all());
    assert!(!world.is_incomplete());
    let found = gateway(&world).unwrap();
    assert_eq!(found.ipv4, Some([172, 17, 0, 3].into()));
    // The engine's own interface is no container's; the third has no owner.
    assert_eq!(world.known().len(), 1);
    let (ingress, _) = world.ingress().unwrap();
    assert_eq!(ingress.mac, Some([2, 0x42, 172, 17, 0, 2]));
    // It leaves another network: it stays there, until the listing says otherwise.
    world.take(&event("disconnect", "default"), now);
    assert!(gateway(&world).is_some());
    world.take(&event("disconnect", "overlay"), now);
    assert!(gateway(&world).is_some());
    members(&mut world, serde_json::json!({}));
    assert_eq!(gateway(&world), None);
    assert_eq!(world.ingress(), None);
    // It joins one; the kernel shows it before any event.
    world.take(&event("connect", "overlay"), now);
    while let Some(question) = world.next_to_meet() {
        let (name, all) = match question.network.as_str() {
            "gateway" => ("docker_gwbridge", all()),
            name => (name, serde_json::json!({})),
        };
        let answer = read(serde_json::json!({"Name": name, "Containers": all}));
        world.met(question, Ok(answer)).unwrap();
    }
    assert!(gateway(&world).is_some());
    let shown = BTreeSet::from(["172.17.0.9".parse().unwrap()]);
    world.question(
        OpenQuestions {
            containers: [("c".to_owned(), shown)].into(),
            ..OpenQuestions::default()
        },
        now,
    );
    world.recheck(now);
    assert!(world.joined.contains("gateway"));
    // It ends, and leaves all.
    let died = serde_json::json!({"Type": "container", "Action": "die", "Actor": {"ID": "c"}});
    world.take(&read(died), now);
    assert_eq!(gateway(&world), None);
}
