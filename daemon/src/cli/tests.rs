//! The command line as people use it, without a daemon.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;

use clap::CommandFactory as _;

use super::*;

const MANIFESTS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: payments, labels: {tier: inner}}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: payments, labels: {app: api}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: frontend, namespace: web, labels: {app: frontend}}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: payments, labels: {team: a}}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}, podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]
    ports: [{port: http}]
";

/// What the arguments print, and how they end; `DIR` stands for the manifests.
fn netpol(arguments: &str) -> (Exit, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), MANIFESTS).unwrap();
    std::fs::write(directory.path().join(".hidden.yaml"), "nonsense: [").unwrap();
    std::fs::write(directory.path().join("all.yaml~"), "nonsense: [").unwrap();
    let path = directory.path().to_str().unwrap();
    let arguments = arguments
        .split_whitespace()
        .map(|word| word.replace("DIR", path));
    let cli = Cli::try_parse_from(std::iter::once("netpol".to_owned()).chain(arguments)).unwrap();
    let mut out = Vec::new();
    let exit = run(&cli, &mut out).unwrap();
    let text = anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string();
    (exit, text.replace(path, "DIR"))
}

fn json(arguments: &str) -> serde_json::Value {
    serde_json::from_str(&netpol(arguments).1).unwrap()
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn verdicts_say_why() {
    let (exit, text) =
        netpol("verdict --manifests DIR --from web/frontend --to payments/api --port 8080");
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(
        text.contains("allowed by NetworkPolicy payments/api spec.ingress[0].from[0]"),
        "{text}"
    );

    let (exit, text) =
        netpol("verdict --manifests DIR --from web/frontend --to payments/api --port 8081");
    assert_eq!(exit, Exit::No, "{text}");
    assert!(
        text.contains("ingress: denied: NetworkPolicy payments/api isolates payments/api, and no rule allows it"),
        "{text}"
    );
    let value =
        json("verdict --manifests DIR --from web/frontend --to payments/api --port 8080 -o json");
    assert_eq!(value["allowed"], true);
    assert_eq!(value["egress"]["isolated"], false);
    assert_eq!(
        value["ingress"]["by"],
        serde_json::json!([{"policy": "payments/api", "rule": 0, "peer": 0}])
    );
}

/// An application as it is published: workloads, a Service, a policy.
const APPLICATION: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432}]}
";
const ITS_POLICY: &str = "\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]
";

/// How a verb ends over a file of its own with this text, `FILE` in the arguments, or over an `EMPTY` folder, and what it
/// prints; of an error, exit code and message.
fn over(text: &str, arguments: &str) -> (Exit, String) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("one.yaml");
    std::fs::write(&path, text).unwrap();
    std::fs::create_dir(root.path().join("empty")).unwrap();
    let words = arguments.split_whitespace().map(|word| {
        word.replace("FILE", path.to_str().unwrap())
            .replace("EMPTY", root.path().join("empty").to_str().unwrap())
    });
    let cli = Cli::try_parse_from(std::iter::once("netpol".to_owned()).chain(words)).unwrap();
    let mut out = Vec::new();
    match run(&cli, &mut out) {
        Ok(exit) => {
            let text = String::from_utf8(out).unwrap();
            (exit, anstream::adapter::strip_str(&text).to_string())
        }
        Err(error) => (Exit::Failed, format!("{error:#}")),
    }
}

#[test]
fn every_offline_verb_reads_the_pods_of_workloads() {
    let all = format!("{APPLICATION}{ITS_POLICY}");
    let allowed = "--manifests FILE --from shop/web --to shop/db --port 5432";
    let denied = "--manifests FILE --from shop/web --to shop/db --port 5433";
    for (arguments, exit, part) in [
        (format!("verdict {allowed}"), Exit::Done, "allowed by"),
        (format!("verdict {denied}"), Exit::No, "denied"),
        (format!("explain {denied}"), Exit::No, "asked for 5433"),
        (
            "matrix --manifests FILE --port 5432 -o csv".to_owned(),
            Exit::Done,
            "shop/web,shop/db,TCP,5432,true",
        ),
        (
            "get pods -A --manifests FILE --show-labels".to_owned(),
            Exit::Done,
            "app=web",
        ),
        ("audit --manifests FILE".to_owned(), Exit::Done, ""),
        ("check --deny-warnings FILE".to_owned(), Exit::Done, ""),
    ] {
        let (ended, text) = over(&all, &arguments);
        assert_eq!(ended, exit, "{arguments}: {text}");
        assert!(text.contains(part), "{arguments}: {text}");
    }
    let misspelled = all.replace("app: web}}}]", "app: wep}}}]");
    let (exit, text) = over(&misspelled, "audit --manifests FILE");
    assert_eq!(exit, Exit::No, "{text}");
}

#[test]
fn a_policy_that_goes_opens_pairs_of_workloads() {
    let root = tempfile::tempdir().unwrap();
    let [old, new] = ["old.yaml", "new.yaml"].map(|name| root.path().join(name));
    std::fs::write(&old, format!("{APPLICATION}{ITS_POLICY}")).unwrap();
    std::fs::write(&new, APPLICATION).unwrap();
    let words = [
        "netpol",
        "diff",
        old.to_str().unwrap(),
        new.to_str().unwrap(),
    ];
    let cli = Cli::try_parse_from(words).unwrap();
    assert_eq!(run(&cli, &mut Vec::new()).unwrap(), Exit::No);
}

/// Exit code 1 is an answer: CI negates it.
#[test]
fn without_an_answer_the_exit_code_is_2() {
    let broken = MANIFESTS.replace("podSelector: {matchLabels: {app: api}}", "podSelector: 5");
    let ends = "--from web/frontend --to payments/api --port 8080";
    for arguments in [
        format!("verdict --manifests FILE {ends}"),
        format!("explain --manifests FILE {ends}"),
        "matrix --manifests FILE --port 8080".to_owned(),
        "get pods --manifests FILE".to_owned(),
        "audit --manifests FILE".to_owned(),
        "diff FILE FILE".to_owned(),
    ] {
        let (exit, text) = over(&broken, &arguments);
        assert_eq!(exit, Exit::Failed, "{arguments}: {text}");
        let (exit, text) = over("", &arguments.replace("FILE", "EMPTY"));
        assert_eq!(exit, Exit::Failed, "{arguments}: {text}");
        assert!(text.contains("no manifests in"), "{arguments}: {text}");
    }
    assert_eq!(over(&broken, "check FILE").0, Exit::No);
    for arguments in ["matrix --manifests FILE --port 1", "diff FILE FILE"] {
        let (exit, text) = over(ITS_POLICY, arguments);
        assert_eq!(exit, Exit::Failed, "{arguments}: {text}");
    }
}

/// A Compose service of two containers, and one beside it.
const SERVICES: &str = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: shop-web-1, namespace: shop, labels: {com.docker.compose.service: web}}, status: {podIP: 10.0.0.1}}
- {apiVersion: v1, kind: Pod, metadata: {name: shop-web-2, namespace: shop, labels: {com.docker.compose.service: web, canary: yes}}, status: {podIP: 10.0.0.2}}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}, {name: dns, protocol: UDP, containerPort: 53}]}]}
  status: {podIP: 10.0.0.3}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress:
    - {from: [{podSelector: {matchLabels: {com.docker.compose.service: web}, matchExpressions: [{key: canary, operator: DoesNotExist}]}}], ports: [{port: sql}]}
    - {from: [{ipBlock: {cidr: 1.0.0.0/8}}], ports: [{port: 53, protocol: UDP}]}
";

#[test]
fn ends_and_ports_have_the_same_names_in_every_verb() {
    // Quoted: `yes` alone is a boolean.
    let text = SERVICES.replace("canary: yes", "canary: \"yes\"");
    for (arguments, exit, part) in [
        (
            "--from shop/shop-web-1 --to shop/db --port sql",
            Exit::Done,
            "5432/TCP",
        ),
        (
            "--from shop/shop-web-1 --to shop/db --port 53/UDP",
            Exit::No,
            "53/UDP",
        ),
        (
            "--from 1.2.3.4 --to shop/db --port dns",
            Exit::Done,
            "53/UDP",
        ),
        (
            "--from ip:1.2.3.4 --to shop/db --port 53 --protocol UDP",
            Exit::Done,
            "53/UDP",
        ),
        (
            "--from world --to shop/db --port 53/UDP",
            Exit::No,
            "no ipBlock names: 2.201.102.53",
        ),
        ("--from host --to shop/db --port 5432", Exit::Done, "host"),
        // One of the service's two containers may.
        (
            "--from shop/web --to shop/db --port 5432",
            Exit::No,
            "shop/shop-web-2",
        ),
        (
            "--from shop/web --to shop/db --port nfs",
            Exit::Failed,
            "no port is named `nfs`",
        ),
        (
            "--from shop/web --to shop/db --port 53/UDP --protocol TCP",
            Exit::Failed,
            "--protocol says TCP",
        ),
        (
            "--from shop/wep --to shop/db --port 53",
            Exit::Failed,
            "no Pod is named",
        ),
    ] {
        for verb in ["verdict", "explain"] {
            let (ended, said) = over(&text, &format!("{verb} --manifests FILE {arguments}"));
            assert_eq!(ended, exit, "{verb} {arguments}: {said}");
            assert!(said.contains(part), "{verb} {arguments}: {said}");
        }
    }
    let (_, said) = over(
        &text,
        "verdict --manifests FILE --from shop/web --to shop/db --port sql -o json",
    );
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["allowed"], false);
    assert_eq!(said["verdicts"].as_array().unwrap().len(), 2);
    let (exit, said) = over(&text, "matrix --manifests FILE --port sql -o csv");
    assert_eq!(exit, Exit::Done);
    assert!(
        said.contains("shop/shop-web-1,shop/db,TCP,5432,true"),
        "{said}"
    );
}

#[test]
fn a_file_of_expectations_is_held_against_the_verdicts() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("expected.yaml");
    let expect = |probes: &str| {
        std::fs::write(&file, format!("probes:\n{probes}")).unwrap();
        let file = file.to_str().unwrap();
        let text = SERVICES.replace("canary: yes", "canary: \"yes\"");
        over(&text, &format!("verdict --manifests FILE --expect {file}"))
    };
    let one = "  - {from: shop/shop-web-1, to: shop/db, port: 5432, allow: true}\n";
    let two = "  - {from: 9.9.9.9, to: shop/db, port: 53, protocol: UDP, allow: false}\n";
    let (exit, text) = expect(&format!("{one}{two}"));
    assert_eq!(exit, Exit::Done, "{text}");
    assert_eq!(text.matches("PASS").count(), 2, "{text}");
    // The service's other container may not.
    let (exit, text) = expect(&one.replace("shop-web-1", "web"));
    assert_eq!(exit, Exit::No, "{text}");
    assert!(
        text.starts_with("FAIL shop/web -> shop/db 5432/TCP: expected allowed, denied"),
        "{text}"
    );
    assert_eq!(expect(&one.replace("shop-web-1", "nobody")).0, Exit::Failed);
    assert_eq!(expect("  []\n").0, Exit::Failed);
}

#[test]
fn a_link_that_leads_elsewhere_is_an_error_offline() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(root.path().join("all.yaml"), MANIFESTS).unwrap();
    std::os::unix::fs::symlink(other.path(), root.path().join("out")).unwrap();
    let path = root.path().to_str().unwrap();
    for arguments in [
        "check DIR",
        "verdict --manifests DIR --from web/frontend --to payments/api --port 8080",
        "matrix --manifests DIR --port 8080",
        "audit --manifests DIR",
        "get pods --manifests DIR",
        "diff DIR DIR",
    ] {
        let words = arguments.split_whitespace();
        let words = words.map(|word| word.replace("DIR", path));
        let cli = Cli::try_parse_from(std::iter::once("netpol".to_owned()).chain(words)).unwrap();
        let error = format!("{:#}", run(&cli, &mut Vec::new()).unwrap_err());
        assert!(
            error.contains("can't be listed") && error.contains("which is not followed"),
            "{arguments}: {error}"
        );
    }
}

#[test]
fn what_ipv6_gets_otherwise_is_said() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("all.yaml");
    let manifests = |block: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: shop}}\n\
             status: {{podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::1'}}]}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: b, namespace: shop, labels: {{app: b}}}}\n\
             status: {{podIPs: [{{ip: 10.0.0.2}}, {{ip: 'fd00::2'}}]}}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: b, namespace: shop}}\n\
             spec: {{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{{ipBlock: {{cidr: '{block}'}}}}]}}]}}\n"
        )
    };
    let asked = |verb: &str, from: &str| {
        let path = path.to_str().unwrap();
        netpol(&format!(
            "{verb} --manifests {path} --from {from} --to shop/b --port 80"
        ))
    };
    std::fs::write(&path, manifests("10.0.0.1/32")).unwrap();
    let (exit, text) = asked("verdict", "shop/a");
    assert_eq!(exit, Exit::Done);
    insta::assert_snapshot!(text, @r"
    allowed: shop/a -> shop/b 80/TCP
      egress:  allowed: no policy selects the endpoint in this direction
      ingress: allowed by NetworkPolicy shop/b spec.ingress[0].from[0]
      over IPv6: denied (ingress denied: NetworkPolicy shop/b isolates shop/b, and no rule allows it)
    ");
    let (_, text) = asked("explain", "shop/a");
    let top: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    insta::assert_snapshot!(top.join("\n"), @r"
    shop/a -> shop/b, 80/TCP: allowed
    over IPv6: denied (ingress denied: NetworkPolicy shop/b isolates shop/b, and no
      rule allows it)
    What follows is about IPv4; `ip:ADDRESS` for an end asks about IPv6.
    ");
    let (_, text) = asked("verdict -o json", "shop/a");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["families"],
        serde_json::json!({"IPv4": true, "IPv6": false})
    );
    let (exit, text) = asked("verdict", "ip:fd00::1");
    assert_eq!(exit, Exit::No);
    assert!(!text.contains("over IPv6"), "{text}");

    std::fs::write(&path, manifests("fd00::/64")).unwrap();
    let (exit, text) = asked("verdict", "shop/a");
    assert_eq!(exit, Exit::No);
    insta::assert_snapshot!(text, @r"
    denied: shop/a -> shop/b 80/TCP
      egress:  allowed: no policy selects the endpoint in this direction
      ingress: denied: NetworkPolicy shop/b isolates shop/b, and no rule allows it
      over IPv6: allowed (ingress allowed by NetworkPolicy shop/b spec.ingress[0].from[0])
    ");
}

#[test]
fn an_explanation_names_the_rule_that_came_closest() {
    let (exit, text) =
        netpol("explain --manifests DIR --from web/frontend --to payments/api --port 81");
    assert_eq!(exit, Exit::No);
    for sentence in [
        "web/frontend -> payments/api, 81/TCP: denied",
        "Closest for ingress: rule 0 of payments/api misses at ports[0]:",
        "Egress of web/frontend: allowed",
        "payments/api isolates it (podSelector app=api).",
        "from[0] Pods with app in `web`: matches",
        "- `http` is 8080 at payments/api, asked for 81",
        "  name: allow-api-from-frontend",
    ] {
        assert!(text.contains(sentence), "{sentence}\n{text}");
    }
    let (exit, text) =
        netpol("explain --manifests DIR --from web/frontend --to payments/api --port 8080");
    assert_eq!(exit, Exit::Done);
    assert!(
        text.contains("Rule 0 matches: from[0] Pods with app"),
        "{text}"
    );
    assert!(!text.contains("apiVersion"), "{text}");
}

#[test]
fn a_verdict_for_programs_has_its_explanation() {
    let asked = "--manifests DIR --from ip:192.0.2.1 --to payments/api --port 8080 -o json";
    let value = json(&format!("verdict {asked}"));
    assert_eq!(value, json(&format!("explain {asked}")));
    assert_eq!(value["allowed"], false);
    let ingress = &value["ingress"];
    assert_eq!(
        ingress["by"],
        serde_json::json!([{"policy": "payments/api"}])
    );
    assert_eq!(
        ingress["policies"][0]["rules"][0]["peers"][0]["missed"],
        serde_json::json!([{"condition": "not-a-pod", "is": "stranger"}])
    );
    let yaml = ingress["suggestion"]["yaml"].as_str().unwrap();
    let file = netpol_engine::manifest::parse("suggested", yaml);
    assert!(
        file.diagnostics.is_empty(),
        "{yaml}\n{:?}",
        file.diagnostics
    );
}

#[test]
fn what_is_only_audited_is_allowed_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    let annotated =
        "metadata: {name: api, namespace: payments, annotations: {netpold.io/mode: audit}";
    let named = "metadata: {name: api, namespace: payments, labels: {team: a}";
    put("all.yaml", MANIFESTS.replace(named, annotated));
    let path = directory.path().display();
    let ask = format!("--manifests {path} --from web/frontend --to payments/api --port 8081");
    let (exit, text) = netpol(&format!("verdict {ask}"));
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(
        text.contains("ingress: allowed: no policy selects")
            && text.contains("; audited: would be denied by NetworkPolicy payments/api\n"),
        "{text}"
    );
    let verdict = json(&format!("verdict {ask} -o json"));
    let by = serde_json::json!([{"policy": "payments/api"}]);
    assert_eq!(verdict["ingress"]["audited"], by);
    assert_eq!(verdict["ingress"]["isolated"], false);
    assert_eq!(verdict["ingress"]["policies"][0]["audited"], true);
    assert!(verdict["egress"].get("audited").is_none());
    let (_, policies) = netpol(&format!(
        "get netpol -n payments -o wide --manifests {path}"
    ));
    assert!(policies.contains("audit"), "{policies}");

    put(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, annotations: {netpold.io/mode: audit}}\n".to_owned(),
    );
    let (_, namespaces) = netpol(&format!("get ns -o wide --manifests {path}"));
    let modes: Vec<Vec<&str>> = namespaces
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (name, mode) in [("payments", "enforce"), ("web", "audit")] {
        let row = modes.iter().find(|row| row[0] == name).unwrap();
        assert!(row.contains(&mode), "{namespaces}");
    }
}

/// What an audit of these manifests prints as JSON: rules and fields.
fn audited(manifests: &str) -> Vec<(String, String)> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), manifests).unwrap();
    let path = directory.path().to_str().unwrap();
    let value = json(&format!("audit -o json --manifests {path}"));
    let text = |found: &serde_json::Value, key| found[key].as_str().unwrap().to_owned();
    let all = value.as_array().unwrap().iter();
    all.map(|found| (text(found, "rule"), text(found, "field")))
        .collect()
}

#[test]
fn an_audit_finds_what_means_nothing() {
    assert_eq!(netpol("audit --manifests DIR").0, Exit::Done);
    for (from, to, rule, field) in [
        (
            "port: http}",
            "port: https}",
            "port-name-unknown",
            "spec.ingress[0].ports[0].port",
        ),
        (
            "matchLabels: {app: api}",
            "matchLabels: {app: apis}",
            "selects-nobody",
            "spec.podSelector",
        ),
        (
            "metadata.name: web",
            "metadata.name: weeb",
            "namespace-matches-nobody",
            "spec.ingress[0].from[0].namespaceSelector",
        ),
        (
            "key: app, operator: Exists",
            "key: app, operator: DoesNotExist",
            "peer-matches-nobody",
            "spec.ingress[0].from[0]",
        ),
    ] {
        let lonely = MANIFESTS.replace(from, to);
        assert_eq!(
            audited(&lonely),
            [(rule.to_owned(), field.to_owned())],
            "{to}"
        );
        let silenced = lonely.replace(
            "labels: {team: a}",
            &format!("annotations: {{netpold.io/lint-ignore: {rule}}}"),
        );
        assert_eq!(audited(&silenced), [], "{to}");
    }
    // What opens too much is another matter.
    let open = MANIFESTS.replace("  - from:", "  - {}\n  - from:");
    assert_eq!(
        audited(&open),
        [("changes-nothing".to_owned(), "spec.ingress[1]".to_owned())]
    );
}

#[test]
fn an_audit_is_a_junit_suite() {
    let (exit, text) = netpol("audit --manifests DIR --junit");
    assert_eq!(exit, Exit::Done);
    assert!(text.contains("tests=\"1\" failures=\"0\""), "{text}");
    assert!(
        text.contains("<testcase classname=\"payments\" name=\"api\"/>"),
        "{text}"
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let lonely = MANIFESTS.replace("matchLabels: {app: api}", "matchLabels: {app: apis}");
    std::fs::write(directory.path().join("a.yaml"), lonely).unwrap();
    let (exit, shown) = netpol(&format!(
        "audit --manifests {path} --junit {path}/audit.xml"
    ));
    assert_eq!(exit, Exit::No);
    assert!(shown.contains("warning[selects-nobody]"), "{shown}");
    let text = std::fs::read_to_string(directory.path().join("audit.xml")).unwrap();
    for part in [
        "<testsuite name=\"netpol audit\" tests=\"1\" failures=\"1\" errors=\"0\" skipped=\"0\">",
        "<testcase classname=\"payments\" name=\"api selects-nobody spec.podSelector\">",
        "<failure type=\"selects-nobody\" message=\"",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn check_lints_and_explains_its_rules() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\n\
                spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";
    std::fs::write(directory.path().join("a.yaml"), deny).unwrap();
    let value = json(&format!("check -o json {path}"));
    assert_eq!(value[0]["rule"], "dns-missing");
    assert_eq!(value[0]["severity"], "warning");
    assert_eq!(
        (&value[0]["line"], &value[0]["column"]),
        (&4.into(), &25.into())
    );
    assert_eq!(netpol(&format!("check {path}")).0, Exit::Done);
    assert_eq!(netpol(&format!("check --deny-warnings {path}")).0, Exit::No);

    let (_, rules) = netpol("check --rules");
    assert!(
        rules.lines().any(|line| line.starts_with("dns-missing ")),
        "{rules}"
    );
    let (exit, page) = netpol("check --explain dns-missing");
    assert_eq!(exit, Exit::Done);
    assert!(
        page.starts_with("# dns-missing\n") && page.contains("## After"),
        "{page}"
    );
    let cli = Cli::try_parse_from(["netpol", "check", "--explain", "dns-mising"]).unwrap();
    let error = run(&cli, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("did you mean `dns-missing`?"), "{error}");
}

#[test]
fn a_matrix_is_a_square_or_a_list() {
    let (exit, text) = netpol("matrix --manifests DIR --port 81");
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        text,
        "81/TCP         payments/api   web/frontend\n\
         payments/api   -              yes\n\
         web/frontend   no             -\n"
    );
    let value = json("matrix --manifests DIR --port 8080 -o json");
    assert_eq!(value["protocol"], "TCP");
    assert_eq!(
        value["pairs"][1],
        serde_json::json!({"from": "web/frontend", "to": "payments/api", "allowed": true})
    );
}

#[test]
fn get_has_kubectls_columns() {
    let (_, text) = netpol("get netpol -n payments --manifests DIR");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("NAME   POD-SELECTOR   AGE"));
    assert!(
        lines.next().unwrap().starts_with("api    app=api        "),
        "{text}"
    );

    let (_, text) = netpol("get po -A --no-headers --show-labels --manifests DIR");
    let row: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        (row[0], row[1], row[2], row[4]),
        ("payments", "api", "Running", "app=api")
    );

    let (exit, text) = netpol("get pods --manifests DIR");
    assert_eq!((exit, text.as_str()), (Exit::Done, ""));
    let (exit, _) = netpol("get pods nobody --manifests DIR");
    assert_eq!(exit, Exit::No);
    let (_, text) = netpol("get ns -l tier=inner -o wide --manifests DIR");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn get_takes_names_and_kinds_as_kubectl_does() {
    let (exit, text) = netpol("get pods/api -n payments --manifests DIR --no-headers");
    assert_eq!(exit, Exit::Done);
    assert!(text.starts_with("api   Running   "), "{text}");
    let both = "get pod/api netpol/api -n payments --manifests DIR";
    assert_eq!(
        netpol(&format!("{both} -o name")),
        (
            Exit::Done,
            "pod/api\nnetworkpolicy.networking.k8s.io/api\n".to_owned()
        )
    );
    // Of several kinds each name says of which it is.
    let (_, text) = netpol("get netpol,po -n payments --manifests DIR");
    let first: Vec<Option<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        first,
        [
            Some("NAME"),
            Some("networkpolicy.networking.k8s.io/api"),
            None,
            Some("NAME"),
            Some("pod/api"),
        ]
    );
    // One object by name is itself, what else is asked for a list.
    assert_eq!(
        json("get po/api -n payments -o json --manifests DIR")["kind"],
        "Pod"
    );
    assert_eq!(
        json("get po -n payments -o json --manifests DIR")["kind"],
        "List"
    );
    assert_eq!(
        json("get po -n nobody -o json --manifests DIR")["items"],
        serde_json::json!([])
    );
    for wrong in ["get po/a b", "get po a/b", "get po/a x/b"] {
        let words = std::iter::once("netpol").chain(wrong.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        assert!(run(&cli, &mut Vec::new()).is_err(), "{wrong}");
    }
}

#[test]
fn what_get_does_not_find_is_no_list() {
    for arguments in [
        "get pods nobody -n payments -o json --manifests DIR",
        "get pods/api --manifests DIR",
        "get ns/nowhere --manifests DIR",
    ] {
        assert_eq!(netpol(arguments), (Exit::No, String::new()), "{arguments}");
    }
    // What is found is shown all the same.
    let (exit, text) = netpol("get pods api nobody -n payments -o name --manifests DIR");
    assert_eq!((exit, text.as_str()), (Exit::No, "pod/api\n"));
}

#[test]
fn get_writes_the_object_that_was_read() {
    let value = json("get netpol -A -o json --manifests DIR");
    assert_eq!(value["kind"], "List");
    let policy = &value["items"][0];
    assert_eq!(policy["metadata"]["labels"]["team"], "a");
    assert_eq!(
        policy["spec"],
        serde_json::json!({
            "podSelector": {"matchLabels": {"app": "api"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}},
                    "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
                }],
                "ports": [{"protocol": "TCP", "port": "http"}],
            }],
        })
    );
    // What is written can be read again.
    let (_, text) = netpol("get netpol -A -o yaml --manifests DIR");
    let file = netpol_engine::manifest::parse("again", &text);
    assert!(file.is_accepted(), "{text}\n{:?}", file.diagnostics);
    assert_eq!(file.documents.len(), 1);
}

#[test]
fn check_reports_what_it_is_asked_about() {
    let (exit, text) = netpol("check DIR");
    assert_eq!((exit, text.as_str()), (Exit::Done, ""));
    let (exit, text) = netpol("check DIR DIR/all.yaml~");
    assert_eq!(exit, Exit::No);
    assert!(text.contains("DIR/all.yaml~:1"), "{text}");
    let value = json("check -o json DIR/.hidden.yaml");
    assert_eq!(value[0]["severity"], "error");
    assert_eq!(
        value[0]["file"].as_str().unwrap().rsplit('/').next(),
        Some(".hidden.yaml")
    );
}

#[test]
fn a_check_for_code_review() {
    let log = json("check -o sarif DIR/.hidden.yaml");
    let run = &log["runs"][0];
    assert_eq!(
        (&log["version"], &run["tool"]["driver"]["name"]),
        (&"2.1.0".into(), &"netpol".into())
    );
    assert_eq!(run["results"][0]["ruleId"], "syntax");
    let log = json("check -o sarif DIR");
    assert_eq!(log["runs"][0]["results"], serde_json::json!([]));
}

/// What a check of these paths says where it can't be done.
fn no_check(paths: &[&std::path::Path]) -> String {
    let words = ["netpol", "check"].map(OsStr::new);
    let words = words
        .into_iter()
        .chain(paths.iter().map(|path| path.as_os_str()));
    let cli = Cli::try_parse_from(words).unwrap();
    let error = run(&cli, &mut Vec::new()).unwrap_err();
    message(&error)
}

#[test]
fn a_check_of_what_is_not_there_is_no_check() {
    let directory = tempfile::tempdir().unwrap();
    let said = no_check(&[directory.path()]);
    assert!(said.contains("no manifests in `"), "{said}");
    let good = directory.path().join("good.yaml");
    std::fs::write(&good, MANIFESTS).unwrap();
    let said = no_check(&[&good, &directory.path().join("absent.yaml")]);
    assert!(said.contains("absent.yaml`: No such file"), "{said}");
}

#[test]
fn a_check_of_bytes_that_are_no_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program.yaml");
    std::fs::write(&path, [0x7f, b'E', b'L', b'F', 0xff, 0]).unwrap();
    let cli = Cli::try_parse_from([OsStr::new("netpol"), OsStr::new("check"), path.as_os_str()]);
    let mut out = Vec::new();
    assert_eq!(run(&cli.unwrap(), &mut out).unwrap(), Exit::No);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("the file is not UTF-8 text"), "{text}");
}

#[test]
fn nonsense_is_refused() {
    for arguments in [
        "",
        "verdict --from a/b --to c/d",
        "verdict --from a --to c/d --port 80",
        "verdict --from a/b --to c/d --port 80 --protocol ICMP",
        "verdict --from a/b --to c/d --port 65536",
        "get services",
        "get pods,services",
        "get pods/",
        "diff",
        "diff a b c",
        "get pods -l a=b=c",
        "observe --verdict denied",
        "observe --from web",
        "wait --timeout soon",
        "check",
        "matrix --port 80 -o xml",
        "matrix --port 80 -o sarif",
        "get pods -o sarif",
    ] {
        let words = std::iter::once("netpol").chain(arguments.split_whitespace());
        assert!(Cli::try_parse_from(words).is_err(), "{arguments}");
    }
}

#[test]
fn the_daemons_verbs_do_not_pretend_offline() {
    let cli = Cli::try_parse_from(["netpol", "status", "--manifests", "/"]).unwrap();
    assert!(run(&cli, &mut Vec::new()).is_err());
}

#[test]
fn every_verb_has_a_page_and_completions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let cli = Cli::try_parse_from(["netpol", "man", path]).unwrap();
    assert_eq!(run(&cli, &mut Vec::new()).unwrap(), Exit::Done);
    for verb in Cli::command().get_subcommands() {
        let page = directory
            .path()
            .join(format!("netpol-{}.1", verb.get_name()));
        assert!(page.exists(), "{}", page.display());
    }
    assert!(netpol("completions bash").1.contains("verdict"));
}
