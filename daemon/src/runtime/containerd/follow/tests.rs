//! What is known after listings and answers, whatever containerd leaves out of them.

use tonic::{Code, Status};

use super::*;

fn container(id: &str, nanos: i32) -> wire::Container {
    wire::Container {
        id: id.to_owned(),
        created_at: Some(wire::Timestamp { seconds: 7, nanos }),
        ..wire::Container::default()
    }
}

fn task(id: &str, pid: u32, status: i32) -> wire::Process {
    wire::Process {
        id: id.to_owned(),
        pid,
        status,
        ..wire::Process::default()
    }
}

fn said(known: &BTreeMap<String, Known>) -> Vec<(&str, State, u32)> {
    known
        .iter()
        .map(|(id, known)| (id.as_str(), known.container.state, known.container.pid))
        .collect()
}

fn refusal(code: Code) -> ClientError {
    ClientError::Refused {
        call: "x",
        status: Box::new(Status::new(code, "")),
    }
}

const RUNNING: i32 = wire::status::RUNNING;

#[test]
fn a_task_that_is_not_listed_is_asked_for_and_runs_until_there_is_an_answer() {
    let two = || vec![container("a", 1), container("b", 2)];
    let tasks = [task("a", 41, RUNNING), task("b", 42, RUNNING)];
    let (before, unsaid) = listed("default", two(), &tasks, BTreeMap::new());
    assert!(unsaid.is_empty());
    assert_eq!(
        said(&before),
        [("a", State::Running, 41), ("b", State::Running, 42)]
    );
    // b's shim does not answer.
    let (mut now, unsaid) = listed("default", two(), &tasks[..1], before);
    assert_eq!(unsaid, ["b"]);
    assert_eq!(now["b"].container.pid, 42);
    for code in [Code::Unknown, Code::DeadlineExceeded] {
        let b = now.get_mut("b").map(|known| &mut known.container);
        assert!(b.is_some_and(|b| answered(b, Err(refusal(code))).is_ok()));
        assert_eq!(said(&now)[1], ("b", State::Running, 42), "{code:?}");
    }
    // The connection breaks: that says nothing of b.
    let b = now.get_mut("b").map(|known| &mut known.container);
    assert!(b.is_some_and(|b| answered(b, Err(refusal(Code::Unavailable))).is_err()));
    assert_eq!(said(&now)[1], ("b", State::Running, 42));
    let b = now.get_mut("b").map(|known| &mut known.container);
    assert!(b.is_some_and(|b| answered(b, Err(refusal(Code::NotFound))).is_ok()));
    assert_eq!(said(&now)[1], ("b", State::Created, 0));
    // It has ended: there is no further question until it has another task.
    let (now, unsaid) = listed("default", two(), &tasks[..1], now);
    assert!(unsaid.is_empty());
    assert_eq!(said(&now)[1], ("b", State::Created, 0));
    let (now, _) = listed("default", two(), &tasks, now);
    assert_eq!(said(&now)[1], ("b", State::Running, 42));
    // It is removed.
    let (now, unsaid) = listed("default", vec![container("a", 1)], &tasks, now);
    assert!(unsaid.is_empty());
    assert_eq!(said(&now), [("a", State::Running, 41)]);
}

#[test]
fn of_a_container_that_was_never_seen_without_a_task_it_is_asked() {
    let (mut found, unsaid) = listed("default", vec![container("a", 1)], &[], BTreeMap::new());
    assert_eq!(unsaid, ["a"]);
    // Perhaps it runs, and was an endpoint before the daemon started.
    assert_eq!(said(&found), [("a", State::Running, 0)]);
    let a = found.get_mut("a").map(|known| &mut known.container);
    let answer = Ok(task("a", 41, wire::status::CREATED));
    assert!(a.is_some_and(|a| answered(a, answer).is_ok()));
    assert_eq!(said(&found), [("a", State::Created, 41)]);
}

#[test]
fn dockers_own_namespace_is_left_to_docker() {
    let all = World::new(vec![]);
    assert!(all.is_followed("default") && all.is_followed("k8s.io") && !all.is_followed("moby"));
    let some = World::new(vec!["k8s.io".to_owned(), "moby".to_owned()]);
    assert!(!some.is_followed("default") && some.is_followed("k8s.io") && some.is_followed("moby"));
}

#[test]
fn containers_are_in_the_order_of_their_making() {
    let mut world = World::default();
    for (namespace, containers) in [
        ("b", vec![container("1", 3), container("2", 1)]),
        ("a", vec![container("1", 2)]),
    ] {
        let (found, _) = listed(namespace, containers, &[], BTreeMap::new());
        world.namespaces.insert(namespace.to_owned(), found);
    }
    let ids: Vec<String> = world.containers().into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["b/2", "a/1", "b/1"]);
}

#[test]
fn a_burst_of_events_is_one_listing() {
    let event = |topic: &str, namespace: &str| wire::Envelope {
        topic: topic.to_owned(),
        namespace: namespace.to_owned(),
        event: None,
    };
    let mut stale = Stale::default();
    for namespace in ["a", "b", "a"] {
        stale.add(event("/tasks/start", namespace));
    }
    let two = ["a".to_owned(), "b".to_owned()].into();
    assert_eq!(stale, Stale::Namespaces(two));
    stale.add(event("/namespaces/create", "c"));
    stale.add(event("/tasks/start", "a"));
    assert_eq!(stale, Stale::All);
}
