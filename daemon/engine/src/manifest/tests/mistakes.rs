//! Mistakes as people make them, in whole files, and what they read then: change a word, and
//! see all of it.

use super::messages::report;
use crate::manifest::parse;

const HEAD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  podSelector:\n    matchLabels:\n      app: web\n";

fn below_the_head(cases: &[(&'static str, &str)]) -> String {
    let cases: Vec<_> = cases
        .iter()
        .map(|(title, rest)| (*title, format!("{HEAD}{rest}")))
        .collect();
    report(&cases)
}

#[test]
fn indents() {
    let text = below_the_head(&[
        (
            "a selector's labels at the selector's own indent",
            "  ingress:\n  - from:\n    - podSelector:\n      matchLabels:\n        app: api\n",
        ),
        (
            "ports of a peer",
            "  ingress:\n  - from:\n    - podSelector: {}\n      ports:\n      - port: 80\n",
        ),
        (
            "rules beside the spec",
            "ingress:\n- from:\n  - podSelector: {}\n",
        ),
        (
            "a rule without a dash",
            "  ingress:\n    from:\n    - podSelector: {}\n",
        ),
        (
            "a peer without a dash",
            "  ingress:\n    - from:\n        podSelector:\n          matchLabels:\n            app: api\n",
        ),
        (
            "a port without a dash",
            "  ingress:\n  - ports:\n      port: 80\n",
        ),
        (
            "a block in the peer",
            "  egress:\n  - to:\n    - cidr: 10.0.0.0/8\n",
        ),
        (
            "a block in a selector's peer",
            "  ingress:\n  - from:\n    - podSelector: {}\n      ipBlock:\n        cidr: 10.0.0.0/8\n",
        ),
        ("a peer in the rule", "  ingress:\n  - podSelector: {}\n"),
        (
            "a line at no indent",
            "  ingress:\n  - from:\n    - podSelector: {}\n     ports:\n     - port: 80\n",
        ),
        ("a tab", "\tingress: []\n"),
        (
            "from in an egress rule",
            "  egress:\n  - from:\n    - podSelector: {}\n",
        ),
        (
            "policyTypes in a rule",
            "  egress:\n  - policyTypes: [Egress]\n",
        ),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn shorthands() {
    let text = below_the_head(&[
        ("a number for the ports", "  ingress:\n  - ports: 80\n"),
        (
            "numbers for ports",
            "  ingress:\n  - ports:\n    - 80\n    - 443/tcp\n    - ''\n",
        ),
        (
            "a port with its protocol",
            "  ingress:\n  - ports:\n    - port: 80/TCP\n",
        ),
        (
            "a range",
            "  ingress:\n  - ports:\n    - port: 8000-9000\n    - port: 8000:9000\n",
        ),
        (
            "several ports in one",
            "  ingress:\n  - ports:\n    - port: 80,443\n    - port: [80, 443]\n",
        ),
        (
            "any port",
            "  ingress:\n  - ports:\n    - port: any\n    - port: '*'\n",
        ),
        (
            "a protocol for all",
            "  ingress:\n  - ports:\n    - protocol: ANY\n",
        ),
        (
            "a name for the Namespace",
            "  ingress:\n  - from:\n    - namespaceSelector: prod\n    - namespaceSelector:\n        name: prod\n",
        ),
        (
            "labels as in kubectl get",
            "  ingress:\n  - from:\n    - podSelector: app=api,tier=front\n    - app=api\n",
        ),
        (
            "a name for the Pod",
            "  ingress:\n  - from:\n    - podSelector: api\n    - pod: api\n",
        ),
        (
            "a block for the ipBlock",
            "  ingress:\n  - from:\n    - ipBlock: 10.0.0.0/8\n    - 10.0.0.0/8\n",
        ),
        (
            "an address for a block",
            "  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.1\n",
        ),
        (
            "several blocks in one",
            "  ingress:\n  - from:\n    - ipBlock:\n        cidr: [10.0.0.0/8, 172.16.0.0/12]\n",
        ),
        (
            "a name for a block",
            "  egress:\n  - to:\n    - ipBlock:\n        cidr: example.com\n    - ipBlock:\n        cidr: any\n",
        ),
        (
            "a host's address with its network's length",
            "  egress:\n  - to:\n    - ipBlock:\n        cidr: 192.168.1.7/24\n",
        ),
        (
            "an except that is no list",
            "  egress:\n  - to:\n    - ipBlock:\n        cidr: 0.0.0.0/0\n        except: 10.0.0.0/8\n",
        ),
        ("a type that is no list", "  policyTypes: ingress\n"),
        ("types in one text", "  policyTypes: Ingress, Egress\n"),
        (
            "types of elsewhere",
            "  policyTypes: [Inbound, out, Both]\n",
        ),
        ("true for all", "  ingress: true\n  egress: false\n"),
        ("a rule's action", "  ingress:\n  - action: Allow\n"),
        (
            "an expression's single value",
            "  ingress:\n  - from:\n    - podSelector:\n        matchExpressions:\n        - key: app\n          operator: Equals\n          value: api\n",
        ),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn broken() {
    let text = below_the_head(&[
        ("a key without its colon", "  ingress\n  - from: []\n"),
        ("a quote that is open", "  ingress: \"[]\n"),
        ("a bracket that is open", "  ingress: [{from: []}\n"),
        (
            "a star",
            "  ingress:\n  - from:\n    - ipBlock:\n        cidr: *\n",
        ),
        (
            "a merge that is not finished",
            "<<<<<<< HEAD\n  ingress: []\n=======\n  egress: []\n>>>>>>> other\n",
        ),
        (
            "a template's block",
            "  ingress:\n{{- if .Values.open }}\n  - {}\n{{- end }}\n",
        ),
        ("a template's value", "  ingress: {{ .Values.rules }}\n"),
        ("a template's text", "  ingress: {{ .Values.rules }}s\n"),
        (
            "a field twice",
            "  ingress: []\n  egress: []\n  ingress:\n  - {}\n",
        ),
        ("a text behind the dashes", "--- # next\n--- kind: x\n"),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn heads() {
    let cases: Vec<_> = [
        (
            "labels in the selector itself",
            "    matchLabels:\n      app: web\n",
            "    app: web\n",
        ),
        (
            "labels as a list",
            "    matchLabels:\n      app: web\n",
            "    matchLabels:\n    - app: web\n",
        ),
        ("a colon without a space", "app: web", "app:web"),
        ("a yes", "app: web", "enabled: yes"),
        (
            "an old version",
            "networking.k8s.io/v1",
            "extensions/v1beta1",
        ),
        (
            "a group with a slip",
            "networking.k8s.io/v1",
            "networking.k8.io/v1",
        ),
        ("a kind in small letters", "NetworkPolicy", "networkpolicy"),
        ("a kind with a slip", "NetworkPolicy", "NetworkPolcy"),
        (
            "a kind of Cilium's",
            "networking.k8s.io/v1\nkind: NetworkPolicy",
            "cilium.io/v2\nkind: CiliumNetworkPolicy",
        ),
        (
            "a name with an underscore",
            "name: web\n",
            "name: web_policy\n",
        ),
        (
            "a namespace in capitals",
            "namespace: shop",
            "namespace: Shop",
        ),
        (
            "a template's name",
            "name: web\n",
            "name: {{ .Release.Name }}-web\n",
        ),
        (
            "a spec's fields beside it",
            "  podSelector:\n    matchLabels:\n      app",
            "podSelector:\n  matchLabels:\n    app",
        ),
        (
            "a name where the metadata should be",
            "metadata:\n  name: web\n  namespace: shop\n",
            "name: web\nnamespace: shop\n",
        ),
    ]
    .map(|(title, right, wrong)| (title, HEAD.replacen(right, wrong, 1)))
    .into();
    insta::assert_snapshot!(report(&cases));
}

/// What people expect a NetworkPolicy to have gets the way to say it, and not the nearest field's name.
#[test]
fn expectations_from_elsewhere_are_answered() {
    for (spec, help) in [
        (
            "ingress: [{from: [{podSelector: {}, namespace: web}]}]",
            "kubernetes.io/metadata.name: NAME",
        ),
        ("ingress: [{from: [{nodeSelector: {}}]}]", "knows no nodes"),
        (
            "ingress: [{ports: [{port: 80, name: http}]}]",
            "`port: http`",
        ),
        ("action: Deny", "has no actions"),
        ("ingress: [{from: any}]", "leave the field out"),
        ("ingress: deny", "to deny all write []"),
        ("ingress: all", "[{}]"),
        ("ingress: {}", "to allow nothing write []"),
        (
            "ingress: [{from: [{podSelector: {matchLabels: {app: 'web,api'}}}]}]",
            "values: [web, api]",
        ),
        (
            "ingress: [{from: [{podSelector: {matchLabels: {app: 'web-*'}}}]}]",
            "no patterns",
        ),
        (
            "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/8']}}]}]",
            "two families",
        ),
    ] {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: a}}\nspec:\n  podSelector: {{}}\n  {spec}\n"
        );
        let file = parse("a.yaml", &text);
        let helps: Vec<&str> = file
            .diagnostics
            .iter()
            .filter_map(|found| found.help.as_deref())
            .collect();
        assert!(
            helps.iter().any(|found| found.contains(help)),
            "{spec}: {helps:?}"
        );
    }
}
