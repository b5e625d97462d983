//! Pods: real ones pass, and what is read of them is right.

use std::net::IpAddr;
use std::path::PathBuf;

use super::*;
use crate::policy::{ObjectName, Protocol};
use crate::world::NamedPort;

fn pod(text: &str) -> PodManifest {
    let mut file = clean(text);
    match file.documents.remove(0).value {
        Value::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_as_kubectl_prints_it() {
    let pod = pod(
        "apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: '2024-05-01T10:00:00Z'
  generateName: web-5d-
  labels: {app: web, pod-template-hash: 5d}
  name: web-5d-x
  namespace: shop
  ownerReferences:
  - {apiVersion: apps/v1, blockOwnerDeletion: true, controller: true, kind: ReplicaSet, name: web-5d, uid: u}
spec:
  affinity: {}
  automountServiceAccountToken: false
  initContainers:
  - {name: init, image: x, ports: [{name: early, containerPort: 1}]}
  containers:
  - name: web
    image: registry.example/web:1
    command: [run]
    env:
    - {name: A, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.hostIP}}}
    ports:
    - {name: http, containerPort: 8080, protocol: TCP, hostPort: 80, hostIP: 10.0.0.9}
    - {containerPort: 9000}
    - {name: dns, containerPort: 53, protocol: UDP}
    resources: {limits: {cpu: 500m, memory: 1Gi}}
    securityContext: {capabilities: {drop: [ALL]}}
    volumeMounts: [{mountPath: /x, name: v, readOnly: true}]
  - name: side
    image: side
    ports: [{name: metrics, containerPort: 9100, protocol: ''}]
  dnsPolicy: ClusterFirst
  enableServiceLinks: true
  hostIPC: false
  hostPID: false
  hostUsers: true
  hostname: x
  nodeName: host-1
  preemptionPolicy: PreemptLowerPriority
  priority: 0
  restartPolicy: Always
  schedulerName: default-scheduler
  serviceAccount: default
  serviceAccountName: default
  terminationGracePeriodSeconds: 30
  tolerations: [{effect: NoExecute, key: k, operator: Exists, tolerationSeconds: 300}]
  volumes: [{name: v, emptyDir: {}}]
status:
  conditions: [{lastProbeTime: null, status: 'True', type: Ready}]
  containerStatuses: []
  hostIP: 10.0.0.9
  hostIPs: [{ip: 10.0.0.9}]
  phase: Running
  podIP: 10.1.0.5
  podIPs: [{ip: 10.1.0.5}, {ip: 'fd00::5'}]
  qosClass: Burstable
  startTime: '2024-05-01T10:00:00Z'
",
    );
    assert_eq!(pod.name, ObjectName::new("shop", "web-5d-x"));
    let port = |name: &str, port, protocol| NamedPort {
        name: name.into(),
        port,
        protocol,
    };
    assert_eq!(
        pod.ports,
        [
            port("http", 8080, Protocol::Tcp),
            port("dns", 53, Protocol::Udp),
            port("metrics", 9100, Protocol::Tcp)
        ]
    );
    let addresses: Vec<String> = pod.pod_ips.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.1.0.5", "fd00::5"]);
    assert!(!pod.host_network && !pod.external && pod.netns.is_none());
}

#[test]
fn the_annotations_say_where_it_is() {
    let with_metadata = |rest: &str| {
        pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a{rest}}}\n"
        ))
    };
    let netns = with_metadata(", annotations: {netpold.io/netns: /run/netns/a}");
    assert_eq!(netns.netns, Some(PathBuf::from("/run/netns/a")));
    assert!(!netns.external);
    let external =
        with_metadata(", annotations: {netpold.io/external: 'true', other.example/x: z}");
    assert!(external.external && external.netns.is_none());
    assert_eq!(external.annotations.len(), 2);
    for named in ["shop-db-1", "4f1c0de4a1b2", "a.b_c"] {
        let container = with_metadata(&format!(", annotations: {{netpold.io/container: {named}}}"));
        assert_eq!(container.container.as_deref(), Some(named));
        assert!(!container.external && container.netns.is_none());
    }
    assert_eq!(with_metadata(""), with_metadata(", annotations: null"));
}

#[test]
fn what_it_may_use_by_leave_is_read_strictly() {
    let text = |annotations: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{{annotations}}}}}\nspec: {spec}\n"
        )
    };
    let given = pod(&text("netpold.io/addresses: '10.99.0.0/24,fd00::7'", "{}"));
    let nets: Vec<String> = given.leaves.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.99.0.0/24", "fd00::7/128"]);
    assert_eq!(crate::world::Pod::from(&given).leaves, given.leaves);
    for (annotations, spec, says) in [
        (
            "netpold.io/addresses: '10.99.0.1/24'",
            "{}",
            "write `10.99.0.0/24`",
        ),
        (
            "netpold.io/addresses: '10.0.0.300'",
            "{}",
            "`10.0.0.300` is neither",
        ),
        ("netpold.io/addresses: '127.0.0.1'", "{}", "loopback"),
        ("netpold.io/addresses: ''", "{}", "must name an address"),
        (
            "netpold.io/addresses: 10.0.0.7, netpold.io/external: 'true'",
            "{}",
            "not enforced here",
        ),
        (
            "netpold.io/addresses: 10.0.0.7",
            "{hostNetwork: true}",
            "not enforced here",
        ),
    ] {
        let file = parse("x.yaml", &text(annotations, spec));
        assert!(!file.is_accepted(), "{annotations}");
        let found = &file.diagnostics[0];
        assert!(found.message.contains(says), "{annotations}: {found:?}");
        assert_eq!(found.line, 3, "{annotations}: {found:?}");
        assert!(found.help.is_some(), "{annotations}: {found:?}");
    }
}

#[test]
fn a_pod_that_has_no_address_yet() {
    let pod = pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true}\nstatus: {phase: Pending, podIP: '', podIPs: null}\n",
    );
    assert!(pod.pod_ips.is_empty() && pod.host_network);
}

#[test]
fn either_field_of_the_address_will_do() {
    for status in [
        "{podIP: 10.0.0.1}",
        "{podIPs: [{ip: 10.0.0.1}]}",
        "{podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.1}]}",
    ] {
        let pod = pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nstatus: {status}\n"
        ));
        assert_eq!(pod.pod_ips, [IpAddr::from([10, 0, 0, 1])], "{status}");
    }
}
