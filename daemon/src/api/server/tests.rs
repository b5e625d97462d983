//! Server and client against one another, over a real socket.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use netpol_engine::policy::ObjectName;
use netpol_engine::world::Pod;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::api::client::{Client, ClientError};
use crate::api::listener;
use crate::api::published::{GateMeter, Published};
use crate::api::wire::{GateDrops, Readiness, Rejected, Synced};
use crate::flows::Recorder;
use crate::flows::flow::Verdict;

struct Running {
    client: Client,
    flows: Arc<Recorder>,
    requests: mpsc::Receiver<SyncRequest>,
    questions: mpsc::Receiver<ReadyRequest>,
    _published: watch::Sender<Arc<Published>>,
    _directory: tempfile::TempDir,
}

async fn running(published: Published) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("netpold.sock");
    let socket = listener::bind(&path, None).await.unwrap();
    let (sender, receiver) = watch::channel(Arc::new(published));
    let (sync, requests) = mpsc::channel(1);
    let (ready, questions) = mpsc::channel(1);
    let flows = Arc::new(Recorder::default());
    let state = State {
        published: receiver,
        flows: Arc::clone(&flows),
        sync,
        ready,
        gate: GateMeter::new(|| GateDrops { from: 3, to: 4 }),
    };
    tokio::spawn(serve(socket, state, std::future::pending()));
    Running {
        client: Client::new(path),
        flows,
        requests,
        questions,
        _published: sender,
        _directory: directory,
    }
}

#[tokio::test]
async fn what_is_published_is_what_the_client_reads() {
    let mut published = Published::default();
    let mut world = netpol_engine::world::World::default();
    world
        .pods
        .insert(ObjectName::new("web", "frontend"), Pod::default());
    published.world = Arc::new(world.clone());
    published.status.rejected.push(Rejected {
        file: PathBuf::from("a.yaml"),
        ..Rejected::default()
    });
    let mut expected = published.status.clone();
    // Read on request.
    expected.gate.dropped = GateDrops { from: 3, to: 4 };
    health::complete(&mut expected, health::seconds_since_1970());
    assert_eq!(expected.problems[0].code, health::REJECTED.code);
    let running = running(published).await;
    assert_eq!(running.client.status().await.unwrap(), expected);
    assert_eq!(running.client.world().await.unwrap().world, world);
}

#[tokio::test]
async fn waiting_hands_over_the_loops_answer() {
    let mut running = running(Published::default()).await;
    let answer = Synced {
        generation: 7,
        ..Synced::default()
    };
    let given = answer.clone();
    let looping = tokio::spawn(async move {
        let request = running.requests.recv().await.unwrap();
        request.reply.send(given).unwrap();
    });
    let waited = running.client.wait(Duration::from_secs(60)).await.unwrap();
    assert_eq!(waited, Waited::Synced(answer));
    looping.await.unwrap();
}

#[tokio::test]
async fn who_is_not_ready_in_time_is_told_how_things_are() {
    let mut running = running(Published::default()).await;
    let held = Readiness {
        ready: false,
        reason: "veth1 is on hold".to_owned(),
    };
    let given = held.clone();
    let looping = tokio::spawn(async move {
        let first = running.questions.recv().await.unwrap();
        assert!(first.wait);
        let second = running.questions.recv().await.unwrap();
        assert!(!second.wait);
        let inode = |path: &str| std::fs::metadata(path).unwrap().ino();
        assert_eq!(
            second.netns.metadata().unwrap().ino(),
            inode("/proc/self/ns/net")
        );
        second.reply.send(Ok(given)).unwrap();
        let third = running.questions.recv().await.unwrap();
        third
            .reply
            .send(Err("no such namespace".to_owned()))
            .unwrap();
    });
    let netns = PathBuf::from("/proc/self/ns/net");
    let client = running.client;
    let answer = client.ready(&netns, Duration::from_millis(50)).await;
    assert_eq!(answer.unwrap(), held);
    let refused = client.ready(&netns, Duration::from_secs(60)).await;
    assert!(matches!(refused, Err(ClientError::Refused(why)) if why == "no such namespace"));
    looping.await.unwrap();
}

/// The loop hears of none of them.
#[tokio::test]
async fn only_what_is_a_namespace_is_opened() {
    let running = running(Published::default()).await;
    for (path, said) in [
        ("a", "an absolute path below /proc or /run"),
        ("/etc/passwd", "an absolute path below /proc or /run"),
        ("/run/../etc/passwd", "an absolute path below /proc or /run"),
        ("/run/netns/a b/none", "`/run/netns/a b/none`: No such file"),
        ("/proc/self/environ", "no network namespace"),
        ("/proc/kmsg", "no network namespace"),
    ] {
        let refused = running
            .client
            .ready(&PathBuf::from(path), Duration::ZERO)
            .await;
        assert!(
            matches!(&refused, Err(ClientError::Refused(why)) if why.contains(said)),
            "{path}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn waiting_ends_with_its_time() {
    let running = running(Published::default()).await;
    let waited = running.client.wait(Duration::ZERO).await.unwrap();
    assert_eq!(waited, Waited::TimedOut);
}

#[tokio::test]
async fn flows_are_filtered_and_followed() {
    let running = running(Published::default()).await;
    let flow = |uuid: &str, verdict| Flow {
        uuid: uuid.to_owned(),
        verdict,
        ..Flow::default()
    };
    for (uuid, verdict) in [
        ("a", Verdict::Dropped),
        ("b", Verdict::Dropped),
        ("c", Verdict::Forwarded),
    ] {
        running.flows.record(flow(uuid, verdict));
    }
    let filter = Filter {
        verdicts: vec![Verdict::Dropped],
        ..Filter::default()
    };
    let mut lines = running.client.observe(&filter, 1, true).await.unwrap();
    let mut uuid = async || match lines.next().await.unwrap() {
        Some(Line::Flow(flow)) => flow.uuid,
        other => panic!("{other:?}"),
    };
    assert_eq!(uuid().await, "b");
    running.flows.record(flow("d", Verdict::Forwarded));
    running.flows.record(flow("e", Verdict::Dropped));
    assert_eq!(uuid().await, "e");

    let mut lines = running.client.observe(&filter, 9, false).await.unwrap();
    let mut count = 0;
    while lines.next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn what_is_wrong_is_said_as_json() {
    let running = running(Published::default()).await;
    for (path, status, part) in [
        ("/v2/status", 404, "/v1/status"),
        ("/v1/observe?verdict=denied", 400, "unknown verdict"),
        ("/v1/observe?pod=a", 400, "unknown parameter `pod`"),
        ("/v1/verdict?from=a/b&to=a/b", 400, "port: missing"),
        (
            "/v1/verdict?from=a/b&to=a/b&port=1&port=2",
            400,
            "given twice",
        ),
        ("/v1/verdict?from=a/b&to=a/b&port=80", 404, "a/b"),
    ] {
        let (found, body) = raw(running.client.socket(), "GET", path).await;
        assert_eq!(found, status, "{path}: {body}");
        let failure: Failure = serde_json::from_str(&body).unwrap();
        assert!(failure.error.contains(part), "{path}: {body}");
    }
    let (found, _) = raw(running.client.socket(), "POST", "/v1/status").await;
    assert_eq!(found, 405);
}

#[tokio::test]
async fn a_missing_daemon_is_reported_with_the_remedy() {
    let error = Client::new("/nonexistent/socket")
        .status()
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }));
    let text = error.to_string();
    assert!(text.contains("/nonexistent/socket") && text.contains("systemctl status netpold"));
}

/// Status code and body of a request that the client would not make.
async fn raw(socket: &std::path::Path, method: &str, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: netpold\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
