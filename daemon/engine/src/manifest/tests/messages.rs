//! What a person reads for each mistake, as a whole: change a word, see all of it.

use std::fmt::Write as _;

use super::*;
use crate::diagnostic::render;

/// Every finding of these texts, rendered below its title.
pub(super) fn report(cases: &[(&str, String)]) -> String {
    let mut report = String::new();
    for (title, text) in cases {
        let file = parse("a.yaml", text);
        assert!(!file.diagnostics.is_empty(), "{title}: no finding");
        writeln!(report, "## {title}").unwrap();
        for found in &file.diagnostics {
            writeln!(report, "{}\n", render(found, text, false)).unwrap();
        }
    }
    report
}

fn spec(spec: &str) -> String {
    with_spec(&format!("{{podSelector: {{}}, {spec}}}"))
}

fn ingress(rule: &str) -> String {
    spec(&format!("ingress: [{rule}]"))
}

#[test]
fn network_policy_rules() {
    let cases = [
        (
            "endPort below port",
            ingress("{ports: [{port: 90, endPort: 80}]}"),
        ),
        ("endPort without port", ingress("{ports: [{endPort: 80}]}")),
        (
            "endPort with a name",
            ingress("{ports: [{port: http, endPort: 80}]}"),
        ),
        (
            "endPort too large",
            ingress("{ports: [{port: 80, endPort: 65536}]}"),
        ),
        (
            "endPort in quotes",
            ingress("{ports: [{port: 80, endPort: '90'}]}"),
        ),
        ("port zero", ingress("{ports: [{port: 0}]}")),
        ("port too large", ingress("{ports: [{port: 70000}]}")),
        (
            "port beyond all numbers",
            ingress("{ports: [{port: 99999999999999999999}]}"),
        ),
        ("port negative", ingress("{ports: [{port: -1}]}")),
        ("port with a fraction", ingress("{ports: [{port: 80.5}]}")),
        ("port in quotes", ingress("{ports: [{port: '80'}]}")),
        ("port in octal", ingress("{ports: [{port: 0100}]}")),
        ("port as a range", ingress("{ports: [{port: 80-90}]}")),
        (
            "port name too long",
            ingress("{ports: [{port: abcdefghijklmnop}]}"),
        ),
        ("port name in capitals", ingress("{ports: [{port: HTTP}]}")),
        ("port is a boolean", ingress("{ports: [{port: on}]}")),
        ("port is a list", ingress("{ports: [{port: [80]}]}")),
        ("ports is a number", ingress("{ports: 80}")),
        (
            "protocol in small letters",
            ingress("{ports: [{protocol: tcp}]}"),
        ),
        ("protocol ICMP", ingress("{ports: [{protocol: ICMP}]}")),
        ("protocol empty", ingress("{ports: [{protocol: ''}]}")),
        ("protocol any", ingress("{ports: [{protocol: ANY}]}")),
        ("port item without value", ingress("{ports: [null]}")),
        ("peer without content", ingress("{from: [{}]}")),
        ("peer without value", ingress("{from: [{podSelector: }]}")),
        (
            "block beside selector",
            ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}"),
        ),
        (
            "namespaceSelector without value",
            ingress("{from: [{podSelector: {}, namespaceSelector: }]}"),
        ),
        ("from is a mapping", ingress("{from: {podSelector: {}}}")),
        ("from without value", ingress("{from: }")),
        (
            "to in an ingress rule",
            ingress("{to: [{podSelector: {}}]}"),
        ),
        ("a rule without value", ingress("null")),
        (
            "unknown field in a peer",
            ingress("{from: [{podselector: {}}]}"),
        ),
        (
            "a label where a selector should be",
            ingress("{from: [{podSelector: {app: a}}]}"),
        ),
        ("cidr missing", ingress("{from: [{ipBlock: {}}]}")),
        (
            "cidr is an address",
            ingress("{from: [{ipBlock: {cidr: 10.0.0.1}}]}"),
        ),
        (
            "cidr padded",
            ingress("{from: [{ipBlock: {cidr: 010.0.0.0/8}}]}"),
        ),
        (
            "cidr mapped",
            ingress("{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}"),
        ),
        ("cidr nonsense", ingress("{from: [{ipBlock: {cidr: all}}]}")),
        (
            "cidr with host bits",
            ingress("{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}"),
        ),
        (
            "except outside",
            ingress("{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [198.51.100.0/25]}}]}"),
        ),
        (
            "except as large",
            ingress("{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/24]}}]}"),
        ),
        (
            "except of the other family",
            ingress("{from: [{ipBlock: {cidr: 0.0.0.0/0, except: ['2001:db8::/32']}}]}"),
        ),
        (
            "except is a string",
            ingress("{from: [{ipBlock: {cidr: 0.0.0.0/0, except: 10.0.0.0/8}}]}"),
        ),
        ("policyTypes unknown", spec("policyTypes: [ingress]")),
        (
            "policyTypes three",
            spec("policyTypes: [Ingress, Egress, Ingress]"),
        ),
        ("policyTypes is a string", spec("policyTypes: Ingress")),
        (
            "rules without effect",
            spec("policyTypes: [Egress], ingress: [{}]"),
        ),
        ("unknown field in the spec", spec("ingres: []")),
        ("podSelector without value", with_spec("{podSelector: }")),
        ("no spec", with_spec("")),
        ("spec is a list", with_spec("[]")),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn selectors() {
    let selecting = |selector: &str| with_spec(&format!("{{podSelector: {selector}}}"));
    let expression = |expression: &str| selecting(&format!("{{matchExpressions: [{expression}]}}"));
    let cases = [
        ("In without values", expression("{key: app, operator: In}")),
        (
            "NotIn without values",
            expression("{key: app, operator: NotIn, values: []}"),
        ),
        (
            "Exists with values",
            expression("{key: app, operator: Exists, values: [a]}"),
        ),
        (
            "operator in small letters",
            expression("{key: app, operator: in, values: [a]}"),
        ),
        (
            "operator unknown",
            expression("{key: app, operator: Equals, values: [a]}"),
        ),
        ("operator missing", expression("{key: app}")),
        ("key missing", expression("{operator: Exists}")),
        ("key invalid", expression("{key: a b, operator: Exists}")),
        (
            "values are a string",
            expression("{key: app, operator: In, values: a}"),
        ),
        (
            "a value is a number",
            expression("{key: app, operator: In, values: [1]}"),
        ),
        (
            "a value is invalid",
            expression("{key: app, operator: In, values: [a b]}"),
        ),
        ("label is a boolean", selecting("{matchLabels: {app: on}}")),
        ("label is a number", selecting("{matchLabels: {app: 1}}")),
        ("label is a mapping", selecting("{matchLabels: {app: {}}}")),
        ("label without value", selecting("{matchLabels: {app: }}")),
        ("label invalid", selecting("{matchLabels: {app: -a}}")),
        ("label key invalid", selecting("{matchLabels: {a/b/c: d}}")),
        (
            "label key is a boolean",
            selecting("{matchLabels: {on: d}}"),
        ),
        ("labels are a list", selecting("{matchLabels: [a]}")),
        ("selector is a string", selecting("app=a")),
        (
            "selector's unknown field",
            selecting("{matchlabels: {a: b}}"),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn metadata() {
    let with_metadata =
        |metadata: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n");
    let cases = [
        ("no metadata", "apiVersion: v1\nkind: Pod\n".to_owned()),
        ("no name", with_metadata("{namespace: ns}")),
        ("empty name", with_metadata("{name: ''}")),
        ("generateName", with_metadata("{generateName: a-}")),
        ("name is a number", with_metadata("{name: 1}")),
        ("name is a mapping", with_metadata("{name: {}}")),
        ("name invalid", with_metadata("{name: A_b}")),
        (
            "namespace invalid",
            with_metadata("{name: a, namespace: a.b}"),
        ),
        ("unknown field", with_metadata("{name: a, lables: {}}")),
        (
            "labels invalid",
            with_metadata("{name: a, labels: {app: on, b: c d, -e: f}}"),
        ),
        (
            "annotation is a boolean",
            with_metadata("{name: a, annotations: {netpold.io/external: true}}"),
        ),
        (
            "annotation key invalid",
            with_metadata("{name: a, annotations: {a b: c}}"),
        ),
        ("metadata is a list", with_metadata("[]")),
        ("duplicate", with_metadata("{name: a, name: b}")),
        (
            "a Namespace in a namespace",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n".to_owned(),
        ),
        (
            "a Namespace's name",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n".to_owned(),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn pods() {
    let pod_with =
        |rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\n{rest}\n");
    let ports = |ports: &str| {
        pod_with(&format!(
            "spec: {{containers: [{{name: m, ports: [{ports}]}}]}}"
        ))
    };
    let annotated = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n"
        )
    };
    let cases = [
        ("containerPort missing", ports("{name: http}")),
        (
            "containerPort is a name",
            ports("{name: http, containerPort: web}"),
        ),
        (
            "containerPort in quotes",
            ports("{name: http, containerPort: '80'}"),
        ),
        ("containerPort too large", ports("{containerPort: 65536}")),
        (
            "protocol unknown",
            ports("{containerPort: 80, protocol: udp}"),
        ),
        ("name invalid", ports("{name: HTTP, containerPort: 80}")),
        (
            "name twice",
            ports("{name: http, containerPort: 80}, {name: http, containerPort: 81}"),
        ),
        ("unknown field of a port", ports("{containerport: 80}")),
        (
            "hostNetwork is a string",
            pod_with("spec: {hostNetwork: 'true'}"),
        ),
        (
            "hostNetwork misspelt",
            pod_with("spec: {hostnetwork: true}"),
        ),
        (
            "podIP with a prefix",
            pod_with("status: {podIP: 10.0.0.1/24}"),
        ),
        ("podIP padded", pod_with("status: {podIP: 10.0.0.01}")),
        (
            "podIPs of strings",
            pod_with("status: {podIPs: [10.0.0.1]}"),
        ),
        ("external is no", annotated("netpold.io/external: 'no'")),
        (
            "netns is relative",
            annotated("netpold.io/netns: run/netns/a"),
        ),
        (
            "both places",
            annotated("netpold.io/netns: /run/netns/a, netpold.io/external: 'true'"),
        ),
        (
            "container is a path",
            annotated("netpold.io/container: /db"),
        ),
        ("container is empty", annotated("netpold.io/container: ''")),
        (
            "a container elsewhere",
            annotated("netpold.io/container: db, netpold.io/external: 'true'"),
        ),
        (
            "container and netns",
            annotated("netpold.io/container: db, netpold.io/netns: /run/netns/a"),
        ),
        (
            "container and hostNetwork",
            format!(
                "{}spec: {{hostNetwork: true}}\n",
                annotated("netpold.io/container: db")
            ),
        ),
        (
            "netns and hostNetwork",
            format!(
                "{}spec: {{hostNetwork: true}}\n",
                annotated("netpold.io/netns: /run/netns/a")
            ),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn documents() {
    let cases = [
        ("a list", "- a\n".to_owned()),
        ("a text", "hello\n".to_owned()),
        ("no kind", "apiVersion: v1\nmetadata: {name: a}\n".to_owned()),
        ("no apiVersion", "kind: NetworkPolicy\nmetadata: {name: a}\n".to_owned()),
        ("apiversion misspelt", "apiversion: v1\nkind: Pod\nmetadata: {name: a}\n".to_owned()),
        ("an old version", "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\n".to_owned()),
        ("the core version", "apiVersion: v1\nkind: NetworkPolicy\nmetadata: {name: a}\n".to_owned()),
        ("kind in small letters", "apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\nmetadata: {name: a}\n".to_owned()),
        ("another kind", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: b}\n".to_owned()),
        ("Calico's", "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a}\n".to_owned()),
        ("a template", "apiVersion: v1\nkind: Pod\nmetadata: {name: {{ .Values.name }}}\n".to_owned()),
        ("a tag", "apiVersion: v1\nkind: Pod\nmetadata: {name: !Ref a}\n".to_owned()),
        ("tabs", "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n".to_owned()),
        ("an open list", "apiVersion: v1\nkind: [Pod\nmetadata: {name: a}\n".to_owned()),
        ("an unknown alias", "apiVersion: v1\nkind: Pod\nmetadata: {name: *a}\n".to_owned()),
        ("an alias in itself", "apiVersion: v1\nkind: Pod\nmetadata: &a {name: *a}\n".to_owned()),
        ("a bad merge", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, <<: b}\n".to_owned()),
        ("given twice", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n".to_owned()),
        ("an item of a List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: A}\n- 1\n- metadata: {}\n".to_owned()),
        ("several at once", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: deny\n  namespace: shop\nspec:\n  podSelector:\n    matchLabels:\n      app: yes\n  policyTypes: [Inbound]\n  ingress:\n    - from:\n        - ipBlock:\n            cidr: 10.0.0.0/8\n            except:\n              - 192.168.0.0/16\n      ports:\n        - port: 90\n          endPort: 80\n          protocol: tcp\n".to_owned()),
    ];
    insta::assert_snapshot!(report(&cases));
}
