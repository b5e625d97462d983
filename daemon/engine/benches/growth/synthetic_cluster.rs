//! Manifests as people write them, of any size, as text: what a directory holds after some
//! years, made by rule so that two runs measure the same.
//!
//! A namespace has five applications of two replicas and fifty policies: the default deny,
//! DNS, the ingress controller, the scrape, rules from application to application with ports
//! by number, range and name, blocks with `except`s, and some for what runs elsewhere.

use std::fmt::Write as _;

/// Policies of one namespace.
const POLICIES: usize = 50;
const APPS: [&str; 5] = ["web", "api", "worker", "db", "cache"];
const PORTS: [u16; 7] = [8080, 8443, 9000, 5432, 6379, 9090, 50051];
const TEAMS: [&str; 4] = ["checkout", "search", "billing", "platform"];

/// What other namespaces' rules are about: DNS, metrics, ingress.
const SHARED: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: monitoring
  labels:
    purpose: monitoring
---
apiVersion: v1
kind: Namespace
metadata:
  name: ingress-nginx
  labels:
    app.kubernetes.io/part-of: ingress-nginx
";

/// The files of a directory with this many policies, by name: one for each namespace.
pub fn files(policies: usize) -> Vec<(String, String)> {
    let namespaces = policies / POLICIES;
    let mut shared = SHARED.to_owned();
    for (number, (namespace, app)) in [
        ("kube-system", "kube-dns"),
        ("monitoring", "prometheus"),
        ("ingress-nginx", "controller"),
    ]
    .into_iter()
    .enumerate()
    {
        let labels = [
            ("k8s-app", app.to_owned()),
            ("app.kubernetes.io/name", app.to_owned()),
        ];
        pod(
            &mut shared,
            namespace,
            app,
            &labels,
            [10, 200, 0, number as u8 + 1],
        );
    }
    let mut files = vec![("shared.yaml".to_owned(), shared)];
    for number in 0..namespaces {
        let mut text = String::new();
        namespace(&mut text, number, namespaces);
        files.push((format!("{}.yaml", name(number)), text));
    }
    files
}

/// The name of a namespace.
fn name(number: usize) -> String {
    format!("{}-{number}", TEAMS[number % TEAMS.len()])
}

fn namespace(text: &mut String, number: usize, namespaces: usize) {
    let team = TEAMS[number % TEAMS.len()];
    let stage = if number.is_multiple_of(3) {
        "staging"
    } else {
        "prod"
    };
    let namespace = name(number);
    let _ = write!(
        text,
        "\
apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
  labels:
    team: {team}
    stage: {stage}
"
    );
    for (index, app) in APPS.iter().enumerate() {
        for replica in 0..2 {
            let labels = [
                ("app.kubernetes.io/name", (*app).to_owned()),
                ("app.kubernetes.io/part-of", format!("shop-{}", number % 10)),
                ("tier", if index < 2 { "front" } else { "back" }.to_owned()),
                ("pod-template-hash", format!("{:010x}", number * 5 + index)),
            ];
            let address = [
                10,
                100 + (number / 256) as u8,
                (number % 256) as u8,
                (index * 2 + replica) as u8 + 1,
            ];
            pod(
                text,
                &namespace,
                &format!("{app}-{replica}"),
                &labels,
                address,
            );
        }
    }
    for (index, (name, spec)) in policies(number, namespaces).into_iter().enumerate() {
        let _ = write!(
            text,
            "\
---
# {team}: number {index} of this namespace.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {name}
  namespace: {namespace}
  labels:
    app.kubernetes.io/managed-by: Helm
    team: {team}
  annotations:
    meta.helm.sh/release-name: {namespace}
{spec}"
        );
    }
}

fn pod(text: &mut String, namespace: &str, name: &str, labels: &[(&str, String)], ip: [u8; 4]) {
    let _ = write!(
        text,
        "\
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels:
"
    );
    for (key, value) in labels {
        let _ = writeln!(text, "    {key}: \"{value}\"");
    }
    let [a, b, c, d] = ip;
    let _ = write!(
        text,
        "\
spec:
  containers:
    - name: main
      image: registry.example/{name}:1.4.2
      ports:
        - name: http
          containerPort: {port}
        - name: metrics
          containerPort: 9102
          protocol: TCP
      resources:
        requests: {{cpu: 100m, memory: 128Mi}}
status:
  podIPs:
    - ip: {a}.{b}.{c}.{d}
    - ip: fd00:{b}:{c}::{d}
",
        port = PORTS[usize::from(d) % PORTS.len()],
    );
}

/// Names and specs of a namespace's policies. One namespace in ten serves all others.
fn policies(number: usize, namespaces: usize) -> Vec<(String, String)> {
    let mut policies: Vec<(String, String)> = [
        ("default-deny", DEFAULT_DENY),
        ("allow-dns", ALLOW_DNS),
        ("allow-scrape", ALLOW_SCRAPE),
        ("allow-ingress-controller", ALLOW_CONTROLLER),
        ("allow-internet", ALLOW_INTERNET),
        ("allow-auth", ALLOW_AUTH),
        ("allow-probes", ALLOW_PROBES),
    ]
    .into_iter()
    .take(if number % 10 == 1 { 7 } else { 5 })
    .map(|(name, spec)| (name.to_owned(), spec.to_owned()))
    .collect();
    while policies.len() < POLICIES {
        let index = policies.len();
        let seed = number * 7 + index;
        let (to, from) = (APPS[index % 5], APPS[(index / 5 + index) % 5]);
        let port = PORTS[seed % PORTS.len()];
        let name = format!("{to}-from-{from}-{index}");
        let numbered = format!("port: {port}");
        let spec = match index % 8 {
            // For applications that run on other hosts.
            0 => app_to_app(&format!("{to}-batch"), from, &numbered),
            1 => app_to_app(to, from, "port: http"),
            2 => app_to_app(
                to,
                from,
                &format!("{numbered}\n          endPort: {}", port + 20),
            ),
            3 => partner(to, seed),
            4 => other_namespaces(to, [seed, seed + 3].map(|other| other % namespaces), port),
            5 => egress(to, from, port),
            6 => release(to, number / 10, port),
            _ => app_to_app(to, from, &numbered),
        };
        policies.push((name, spec));
    }
    policies
}

const DEFAULT_DENY: &str = "\
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
";

const ALLOW_DNS: &str = "\
spec:
  podSelector: {}
  policyTypes:
    - Egress
  egress:
    - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: kube-system
          podSelector:
            matchLabels:
              k8s-app: kube-dns
      ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
";

const ALLOW_SCRAPE: &str = "\
spec:
  podSelector: {}
  policyTypes:
    - Ingress
  ingress:
    - from:
        - namespaceSelector:
            matchLabels:
              purpose: monitoring
      ports:
        - port: metrics
          protocol: TCP
";

const ALLOW_CONTROLLER: &str = "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: web
  policyTypes:
    - Ingress
  ingress:
    - from:
        - namespaceSelector:
            matchLabels:
              app.kubernetes.io/part-of: ingress-nginx
      ports:
        - port: http
";

const ALLOW_AUTH: &str = "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: api
  ingress:
    - from:
        - namespaceSelector: {}
          podSelector:
            matchLabels:
              tier: front
      ports:
        - port: 8443
";

const ALLOW_PROBES: &str = "\
spec:
  podSelector:
    matchExpressions:
      - {key: tier, operator: In, values: [front, edge]}
  ingress:
    - from:
        - namespaceSelector: {}
      ports:
        - port: 8081
";

const ALLOW_INTERNET: &str = "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: worker
  policyTypes:
    - Egress
  egress:
    - to:
        - ipBlock:
            cidr: 0.0.0.0/0
            except:
              - 10.0.0.0/8
              - 172.16.0.0/12
              - 192.168.0.0/16
              - 169.254.0.0/16
      ports:
        - port: 443
";

fn app_to_app(to: &str, from: &str, port: &str) -> String {
    format!(
        "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {to}
  policyTypes:
    - Ingress
  ingress:
    - from:
        - podSelector:
            matchLabels:
              app.kubernetes.io/name: {from}
      ports:
        - protocol: TCP
          {port}
"
    )
}

/// Networks beyond the cluster, some of them used by many policies.
fn partner(app: &str, seed: usize) -> String {
    let (high, low) = (seed / 5 % 200 + 1, seed / 10 % 250);
    format!(
        "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {app}
  policyTypes:
    - Egress
  egress:
    - to:
        - ipBlock:
            cidr: 172.20.{high}.0/24
            except:
              - 172.20.{high}.128/26
        - ipBlock:
            cidr: 198.51.100.{low}/32
        - ipBlock:
            cidr: 2001:db8:{high:x}::/48
      ports:
        - port: 443
        - port: 8443
"
    )
}

fn other_namespaces(app: &str, others: [usize; 2], port: u16) -> String {
    let [one, two] = others.map(name);
    format!(
        "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {app}
  policyTypes:
    - Ingress
  ingress:
    - from:
        - namespaceSelector:
            matchExpressions:
              - key: kubernetes.io/metadata.name
                operator: In
                values:
                  - {one}
                  - {two}
          podSelector:
            matchExpressions:
              - key: tier
                operator: NotIn
                values:
                  - back
      ports:
        - protocol: TCP
          port: {port}
"
    )
}

fn egress(app: &str, to: &str, port: u16) -> String {
    format!(
        "\
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {app}
  policyTypes:
    - Egress
  egress:
    - to:
        - podSelector:
            matchLabels:
              app.kubernetes.io/name: {to}
      ports:
        - port: http
        - port: {port}
"
    )
}

fn release(app: &str, release: usize, port: u16) -> String {
    format!(
        "\
spec:
  podSelector:
    matchExpressions:
      - key: app.kubernetes.io/name
        operator: In
        values:
          - {app}
          - legacy-{app}
  policyTypes:
    - Ingress
    - Egress
  ingress:
    - from:
        - namespaceSelector:
            matchLabels:
              stage: prod
          podSelector:
            matchLabels:
              app.kubernetes.io/part-of: shop-{release}
        - podSelector: {{}}
      ports:
        - port: {port}
    - from:
        - ipBlock:
            cidr: 10.32.0.0/16
  egress:
    - to:
        - podSelector: {{}}
"
    )
}
