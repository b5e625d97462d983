//! From containerd's answers to [`Container`]s.
//!
//! Owns the reading of what containerd says. Pure. Labels are chosen by the user who makes a
//! container, and images bring theirs: a name that is none is not taken. Called by `follow`.

use prost::Message as _;

use super::wire::{self, status};
use crate::runtime::container::{Container, Part, Runtime, State};

/// What is followed of what happens.
pub(super) const TOPICS: [&str; 12] = [
    "/namespaces/create",
    "/namespaces/delete",
    "/containers/create",
    "/containers/update",
    "/containers/delete",
    "/tasks/create",
    "/tasks/start",
    "/tasks/exit",
    "/tasks/delete",
    "/tasks/paused",
    "/tasks/resumed",
    "/tasks/checkpointed",
];

/// What an event is a reason for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Which namespaces there are.
    Namespaces,
    /// What is in this one.
    Namespace(String),
    /// Nothing: it is about a process that joined a container.
    Nothing,
}

/// What an event is a reason for.
pub(super) fn hint(event: wire::Envelope) -> Hint {
    if event.topic.starts_with("/namespaces/") || event.namespace.is_empty() {
        return Hint::Namespaces;
    }
    if event.topic == "/tasks/exit" {
        let exit = event
            .event
            .and_then(|event| wire::TaskExit::decode(&*event.value).ok());
        // A health check ends once a second, and changes nothing.
        if exit.is_some_and(|exit| !exit.id.is_empty() && exit.id != exit.container_id) {
            return Hint::Nothing;
        }
    }
    Hint::Namespace(event.namespace)
}

/// The container that a process is the first of.
pub(super) fn container_of(process: &wire::Process) -> &str {
    match process.container_id.as_str() {
        "" => &process.id,
        id => id,
    }
}

/// A container without its task: that may be being made.
pub(super) fn container(namespace: &str, listed: wire::Container) -> Container {
    let part = part(&listed);
    let name = name(&listed, part.is_some()).to_owned();
    Container {
        runtime: Runtime::Containerd,
        id: format!("{namespace}/{}", listed.id),
        name,
        labels: listed.labels,
        part,
        state: State::Created,
        created: listed.created_at.map_or(0, |created| created.seconds),
        ..Container::default()
    }
}

/// Adds what its task says.
pub(super) fn with_task(container: &mut Container, task: &wire::Process) {
    container.state = match task.status {
        status::CREATED => State::Created,
        status::RUNNING => State::Running,
        status::PAUSED | status::PAUSING => State::Paused,
        status::STOPPED => State::Ended,
        // Unknown to us: it may run, and its process tells.
        _ => State::Running,
    };
    container.pid = match container.state {
        State::Ended => 0,
        _ => task.pid,
    };
}

/// As Kubernetes' part of containerd labels what it makes.
fn part(listed: &wire::Container) -> Option<Part> {
    let sandbox = match listed.labels.get("io.cri-containerd.kind")?.as_str() {
        "sandbox" => true,
        "container" => false,
        _ => return None,
    };
    Some(Part {
        pod: listed.labels.get("io.kubernetes.pod.uid")?.clone(),
        sandbox,
    })
}

/// A Pod's, or nerdctl's; else the container's ID.
fn name(listed: &wire::Container, of_pod: bool) -> &str {
    let given = |key: &str| {
        listed
            .labels
            .get(key)
            .map(String::as_str)
            .filter(|name| is_name(name))
    };
    of_pod
        .then(|| given("io.kubernetes.pod.name"))
        .flatten()
        .or_else(|| given("nerdctl/name"))
        .unwrap_or(&listed.id)
}

/// As container names are: it stands in `NAMESPACE/NAME`.
fn is_name(name: &str) -> bool {
    name.len() <= 253
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn listed(id: &str, labels: &[(&str, &str)]) -> wire::Container {
        wire::Container {
            id: id.to_owned(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            created_at: Some(wire::Timestamp {
                seconds: 7,
                nanos: 5,
            }),
        }
    }

    /// As containerd 1.6 sends it: with an image, a specification and what else there is.
    #[test]
    fn fields_that_are_not_declared_are_skipped() {
        let mut bytes = vec![0x0a, 3, b'w', b'e', b'b'];
        // labels: {"app": "x"}
        bytes.extend([0x12, 8, 0x0a, 3, b'a', b'p', b'p', 0x12, 1, b'x']);
        // image, runtime, spec.
        bytes.extend([0x1a, 2, b'b', b'b', 0x22, 3, 0x0a, 1, b'r']);
        bytes.extend([0x2a, 4, 0x12, 2, b'{', b'}']);
        // created_at
        bytes.extend([0x42, 4, 0x08, 7, 0x10, 5]);
        let read = wire::Container::decode(&*bytes).unwrap();
        assert_eq!(read, listed("web", &[("app", "x")]));
        assert!(wire::Container::decode(&bytes[..7]).is_err());
    }

    #[test]
    fn a_container_is_named_by_who_made_it() {
        let pod = [
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.uid", "u"),
            ("nerdctl/name", "n"),
        ];
        let nerdctl = |name| vec![("nerdctl/name", name)];
        let rows = [
            ("", vec![], "1234"),
            ("", nerdctl("shop-web-1"), "shop-web-1"),
            ("", nerdctl("a/b"), "1234"),
            ("", nerdctl(""), "1234"),
            // Only Kubernetes' part says so.
            ("", pod.to_vec(), "n"),
            ("sandbox", pod.to_vec(), "web-0"),
        ];
        for (kind, mut all, expected) in rows {
            all.push(("io.cri-containerd.kind", kind));
            let found = container("k8s.io", listed("1234", &all));
            assert_eq!(found.name, expected, "{all:?}");
            assert_eq!(found.id, "k8s.io/1234");
            assert_eq!(found.created, 7);
        }
    }

    #[test]
    fn a_part_of_a_pod_says_which() {
        let rows = [
            ("sandbox", Some("u"), Some(true)),
            ("container", Some("u"), Some(false)),
            ("container", None, None),
            ("image", Some("u"), None),
        ];
        for (kind, pod, expected) in rows {
            let mut labels = vec![("io.cri-containerd.kind", kind)];
            labels.extend(pod.map(|pod| ("io.kubernetes.pod.uid", pod)));
            let found = container("k8s.io", listed("1", &labels)).part;
            assert_eq!(found.map(|part| part.sandbox), expected, "{kind} {pod:?}");
        }
    }

    #[test]
    fn a_task_tells_the_state_and_the_process() {
        let rows = [
            (status::CREATED, State::Created, 42),
            (status::RUNNING, State::Running, 42),
            (status::PAUSED, State::Paused, 42),
            (status::PAUSING, State::Paused, 42),
            (status::STOPPED, State::Ended, 0),
            // What it may come to be called.
            (0, State::Running, 42),
            (99, State::Running, 42),
        ];
        for (status, state, pid) in rows {
            let mut found = container("default", listed("1", &[]));
            assert_eq!((found.state, found.pid), (State::Created, 0));
            let task = wire::Process {
                pid: 42,
                status,
                ..wire::Process::default()
            };
            with_task(&mut found, &task);
            assert_eq!((found.state, found.pid), (state, pid), "{status}");
        }
    }

    #[test]
    fn a_task_names_its_container_in_either_field() {
        let process = |container: &str, id: &str| wire::Process {
            container_id: container.to_owned(),
            id: id.to_owned(),
            ..wire::Process::default()
        };
        assert_eq!(container_of(&process("", "a")), "a");
        assert_eq!(container_of(&process("a", "b")), "a");
    }

    #[test]
    fn events_say_what_to_list() {
        let event = |topic: &str, namespace: &str, value: &[u8]| wire::Envelope {
            namespace: namespace.to_owned(),
            topic: topic.to_owned(),
            event: Some(wire::Any {
                value: value.to_owned(),
            }),
        };
        let own = Hint::Namespace("default".to_owned());
        let exit = |container: &str, id: &str| {
            let exit = wire::TaskExit {
                container_id: container.to_owned(),
                id: id.to_owned(),
            };
            hint(event("/tasks/exit", "default", &exit.encode_to_vec()))
        };
        assert_eq!(exit("a", "a"), own);
        assert_eq!(exit("a", ""), own);
        assert_eq!(exit("a", "check"), Hint::Nothing);
        assert_eq!(hint(event("/tasks/exit", "default", &[0xff])), own);
        assert_eq!(hint(event("/tasks/start", "default", &[])), own);
        assert_eq!(
            hint(event("/namespaces/create", "x", &[])),
            Hint::Namespaces
        );
        assert_eq!(hint(event("/tasks/start", "", &[])), Hint::Namespaces);
    }
}
