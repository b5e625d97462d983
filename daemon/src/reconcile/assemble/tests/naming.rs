//! Names, and the manifests that name a container.

use super::*;

#[test]
fn a_container_cannot_take_the_name_of_the_resolvers_or_of_a_declared_pod() {
    let labels = [("netpold.io/namespace", "kube-system")];
    let mut fake = container(1, &labels);
    fake.name = "kube-dns".to_owned();
    let mut observed = engine(vec![fake]);
    observed.resolvers.addresses = ["10.0.0.53".parse().unwrap()].into();
    let (found, dns) = kube_dns(&observed, &mut Register::default());
    assert_eq!(dns, ["10.0.0.53".parse().unwrap()].into());
    assert!(
        found
            .world
            .pods
            .contains_key(&"kube-system/kube-dns-000000000000".parse().unwrap())
    );
}

/// A manifest that names a container.
fn naming(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: lab\n  \
         labels: {{app: named}}\n  annotations: {{netpold.io/container: '{container}'}}\n\
         spec: {{containers: [{{ports: [{{name: http, containerPort: 8080}}]}}]}}\n---\n"
    )
}

#[test]
fn a_manifest_completes_the_container_that_it_names() {
    let mut observed = engine(vec![container(1, &[("app", "own"), ("tier", "back")])]);
    let mut register = Register::default();
    let before = go(&observed, &mut register);
    let own = ObjectName::new("default", "c1");
    let place = before.world.pods[&own].place.clone();
    assert!(matches!(place, Place::Attached(_)));

    for text in ["c1".to_owned(), container(1, &[]).id] {
        observed.store = manifests(&naming("db", &text));
        let out = go(&observed, &mut register);
        let name = ObjectName::new("lab", "db");
        let pod = &out.world.pods[&name];
        let labels: Vec<&str> = pod.labels.values().map(String::as_str).collect();
        assert_eq!((labels, pod.ports.len()), (vec!["named", "back"], 1));
        // It is the endpoint that it was, at its addresses.
        assert_eq!(pod.place, place);
        assert!(!out.world.pods.contains_key(&own) && out.warnings.is_empty());
        let origin = &out.origins.pods[&name];
        assert!(origin.file.is_some());
        let reported = origin.container.as_ref().unwrap();
        assert_eq!((&reported.pod, reported.name.as_str()), (&own, "c1"));
        assert_eq!(reported.labels["app"], "own");
    }
    // Without the manifest it is what it was.
    observed.store = Arc::default();
    assert_eq!(go(&observed, &mut register).world, before.world);
}

#[test]
fn a_manifest_that_names_no_container_is_reported_and_labels_none() {
    let mut sidecar = container(3, &[]);
    sidecar.joined = Some(container(1, &[]).id);
    let mut observed = engine(vec![container(1, &[]), container(2, &[])]);
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers.push(sidecar);
    observed.store = manifests(
        &[("a", "c9"), ("b", "c2"), ("c", "c2"), ("d", "c3")]
            .map(|(name, container)| naming(name, container))
            .concat(),
    );
    let out = go(&observed, &mut Register::default());
    let place = |name: &str| out.world.pods[&ObjectName::new("lab", name)].place.clone();
    assert_eq!((place("a"), place("c")), (Place::Local, Place::Local));
    assert!(matches!(place("b"), Place::Attached(_)));
    // Who shares a namespace is the endpoint whose namespace it is.
    assert!(matches!(place("d"), Place::Attached(_)));
    assert_eq!(
        out.warnings,
        [
            "Pod lab/c: container `c2` is Pod lab/b already: its labels and ports are not added",
            "Pod lab/a: `c9`: no container of that name or ID runs: nothing is enforced for it until one does",
        ]
    );
}

/// A user who may start containers may give them any name.
#[test]
fn a_new_container_takes_no_manifest_by_its_name() {
    let victim = container(1, &[]);
    let short = victim.id[..12].to_owned();
    for text in [victim.name.clone(), short.clone()] {
        let mut thief = container(2, &[]);
        thief.name = text.clone();
        let mut observed = engine(vec![victim.clone()]);
        observed.store = manifests(&naming("db", &text));
        let mut register = Register::default();
        let before = attached(&go(&observed, &mut register), "lab/db").id;
        // Even one that says that it is older.
        thief.created = -1;
        let mut observed = engine(vec![victim.clone(), thief]);
        observed.store = manifests(&naming("db", &text));
        let out = go(&observed, &mut register);
        assert_eq!(attached(&out, "lab/db").id, before, "{text}");
        assert!(
            out.warnings[0].contains("means 2 containers"),
            "{:?}",
            out.warnings
        );
    }
}

#[test]
fn a_renamed_container_has_its_new_name() {
    let mut observed = engine(vec![container(1, &[])]);
    let mut register = Register::default();
    go(&observed, &mut register);
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers[0].name = "renamed".to_owned();
    let out = go(&observed, &mut register);
    let names: Vec<String> = out.world.pods.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["default/renamed"]);
}
