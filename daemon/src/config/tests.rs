//! What a file means, and what is said of one that is wrong.
#![allow(clippy::unwrap_used)]

use super::*;

fn problems(text: &str) -> Vec<Problem> {
    match parse(Path::new("/c.toml"), text.as_bytes()) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{text:?} gives {other:?}"),
    }
}

fn good(text: &str) -> Config {
    parse(Path::new("/c.toml"), text.as_bytes()).unwrap()
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "\n# nothing\n", "[docker]\n", "\u{feff}"] {
        assert_eq!(good(text), Config::default(), "{text:?}");
    }
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    let shipped = include_str!("../../../config/netpold.toml");
    assert_eq!(good(shipped), Config::default());
    let shown: String = shipped
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(good(&shown), Config::default());
    // As many as there are.
    let keys = shown
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#'));
    assert_eq!(keys.count(), 23 + Timeout::ALL.len());
}

#[test]
fn every_key_is_read() {
    let config = good(
        r#"
[manifests]
directory = "/m//"
follow = ["/srv/policies/", "/var/lib/p"]
[docker]
enabled = false
socket = "/d.sock"
[containerd]
enabled = true
socket = "/c.sock"
namespaces = ["a", "b"]
[labels]
rename = { "x y" = "netpold.io/x" }
[namespaces]
from = []
default = "lab"
[enforcement]
mode = "audit"
unidentified = "allow"
established = "keep"
[host]
ingress = "policy"
egress = "policy"
[dns]
kube-dns = false
[timeouts]
tcp-syn = 1
tcp-syn-ack = 2
tcp-established = 86_400
tcp-fin = 4
tcp-time-wait = 5
tcp-reset = 6
udp = 7
udp-stream = 0x8
sctp-init = 9
sctp-established = 10
icmp = 11
other = 31536000
[datapath]
pin-directory = "/sys/fs/bpf/x"
[gate]
enabled = true
table = "np2"
[state]
directory = "/s"
[api]
socket = "/a.sock"
group = "adm"
[metrics]
listen = "[::1]:9469"
"#,
    );
    let expected = Config {
        manifests: Manifests {
            directory: "/m".into(),
            follow: vec!["/srv/policies".into(), "/var/lib/p".into()],
        },
        docker: Docker {
            enabled: Enabled::No,
            sockets: vec!["/d.sock".into()],
        },
        containerd: Containerd {
            enabled: Enabled::Yes,
            socket: "/c.sock".into(),
            namespaces: vec!["a".into(), "b".into()],
        },
        labels: LabelSettings {
            rename: BTreeMap::from([("x y".into(), "netpold.io/x".into())]),
        },
        namespaces: Namespaces {
            from: vec![],
            default: "lab".into(),
        },
        enforcement: Enforcement {
            mode: Mode::Audit,
            unidentified: Unidentified::Allow,
            established: Established::Keep,
        },
        host: Host {
            ingress: HostTraffic::Policy,
            egress: HostTraffic::Policy,
        },
        dns: Dns { kube_dns: false },
        timeouts: {
            let mut timeouts = Timeouts::default();
            let seconds = [1, 2, 86_400, 4, 5, 6, 7, 8, 9, 10, 11, 31_536_000];
            for (timeout, seconds) in Timeout::ALL.iter().zip(seconds) {
                timeouts.set(*timeout, seconds);
            }
            timeouts
        },
        datapath: Datapath {
            pin_directory: "/sys/fs/bpf/x".into(),
        },
        gate: Gate {
            enabled: Enabled::Yes,
            table: "np2".into(),
        },
        state: State {
            directory: "/s".into(),
        },
        api: Api {
            socket: "/a.sock".into(),
            group: Some("adm".to_owned()),
        },
        metrics: Metrics {
            listen: Some("[::1]:9469".parse().unwrap()),
        },
    };
    assert_eq!(config, expected);
}

#[test]
fn a_time_that_is_none_is_refused() {
    for value in [
        "0",
        "-1",
        "1.5",
        "\"5d\"",
        "31536001",
        "99999999999999999999",
        "true",
    ] {
        let text = format!("[timeouts]\nudp = {value}");
        let problems = problems(&text);
        assert_eq!(problems.len(), 1, "{value}");
        assert_eq!(problems[0].key, "timeouts.udp");
        assert_eq!(problems[0].help, "it is whole seconds, 1 to 31536000");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest() {
    let rows = [
        (
            "[docker]\nsoket = \"/x\"",
            "2:1: `docker.soket`: unknown key\n  help: did you mean `socket`?",
        ),
        (
            "[dns]\n  kube_dns = true",
            "2:3: `dns.kube_dns`: unknown key\n  help: did you mean `kube-dns`?",
        ),
        (
            "[dokcer]",
            "1:2: `dokcer`: unknown section\n  help: did you mean `docker`?",
        ),
        (
            "mode = \"audit\"",
            "1:1: `mode`: unknown section\n  help: `mode` belongs to `[enforcement]`",
        ),
        (
            "[host]\nsocket = 1",
            "2:1: `host.socket`: unknown key\n  help: `socket` belongs to `[docker]` or `[containerd]` or `[api]`",
        ),
        (
            "[host]\nzzz = 1",
            "2:1: `host.zzz`: unknown key\n  help: `[host]` has `ingress`, `egress`",
        ),
    ];
    for (text, expected) in rows {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text:?}");
        assert_eq!(found[0].to_string(), expected, "{text:?}");
    }
}

#[test]
fn what_is_named_has_to_be_there_and_the_default_engines_but_the_first_may() {
    let engines = |text: &str| -> Vec<(Enabled, String)> {
        let config = parse(Path::new("x"), text.as_bytes()).unwrap();
        let engines = config.docker.engines();
        engines
            .map(|(enabled, socket)| (enabled, socket.display().to_string()))
            .collect()
    };
    let [docker, podman] = ["/run/docker.sock", "/run/podman/podman.sock"].map(str::to_owned);
    let (auto, yes) = (Enabled::Auto, Enabled::Yes);
    for (text, expected) in [
        ("", vec![(auto, docker.clone()), (auto, podman.clone())]),
        (
            "[docker]\nenabled = true",
            vec![(yes, docker), (auto, podman)],
        ),
        (
            "[docker]\nenabled = true\nsockets = [\"/run/a\", \"/run/b\"]",
            vec![(yes, "/run/a".to_owned()), (yes, "/run/b".to_owned())],
        ),
        (
            "[docker]\nsocket = \"/run/a\"",
            vec![(auto, "/run/a".to_owned())],
        ),
    ] {
        assert_eq!(engines(text), expected, "{text}");
    }
}

#[test]
fn a_value_that_cannot_be_is_named_with_what_would_be_right() {
    let rows = [
        (
            "[docker]\nenabled = \"yes\"",
            "docker.enabled",
            "\"auto\", true or false",
        ),
        (
            "[docker]\nsocket = \"run/x\"",
            "docker.socket",
            "absolute path",
        ),
        (
            "[docker]\nsockets = []",
            "docker.sockets",
            "`enabled = false` follows none",
        ),
        (
            "[docker]\nsockets = \"/run/x\"",
            "docker.sockets",
            "a list of sockets",
        ),
        (
            "[docker]\nsockets = [\"/run/x\", \"run/y\"]",
            "docker.sockets",
            "absolute path",
        ),
        (
            "[docker]\nsockets = [\"/run/x\", \"/run//x\"]",
            "docker.sockets",
            "each socket once",
        ),
        (
            "[docker]\nsocket = \"/run/y\"\nsockets = [\"/run/x\"]",
            "docker.socket",
            "into that list",
        ),
        (
            "[docker]\nsocket = \"unix:///run/x\"",
            "docker.socket",
            "\"/run/x\"",
        ),
        (
            "[state]\ndirectory = \"/a/../b\"",
            "state.directory",
            "absolute path",
        ),
        ("[state]\ndirectory = 7", "state.directory", "absolute path"),
        (
            "[enforcement]\nmode = \"Audit\"",
            "enforcement.mode",
            "\"enforce\" or \"audit\"",
        ),
        (
            "[host]\negress = true",
            "host.egress",
            "\"allow\" or \"policy\"",
        ),
        (
            "[metrics]\nlisten = \":9469\"",
            "metrics.listen",
            "127.0.0.1:9469",
        ),
        (
            "[namespaces]\nfrom = \"x\"",
            "namespaces.from",
            "list of strings",
        ),
        ("[namespaces]\nfrom = [1]", "namespaces.from", "a string"),
        (
            "[namespaces]\ndefault = \"My_NS\"",
            "namespaces.default",
            "lower-case",
        ),
        (
            "[labels]\nrename = { a = \"b c\" }",
            "labels.rename.a",
            "Pod label",
        ),
        (
            "[dns]\nkube-dns = \"true\"",
            "dns.kube-dns",
            "without quotes",
        ),
    ];
    for (text, key, right) in rows {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text:?}");
        assert_eq!((found[0].line, found[0].key.as_str()), (2, key), "{text:?}");
        assert!(found[0].help.contains(right), "{text:?}: {}", found[0].help);
    }
    let long = format!("[api]\nsocket = \"/{}\"", "x".repeat(107));
    assert_eq!(problems(&long)[0].message, "too long for a Unix socket");
    assert_eq!(problems("docker = 1")[0].message, "1 is not a section");
}

#[test]
fn all_problems_come_in_the_order_of_the_file() {
    let found = problems("[host]\ningress = 1\n[dns]\nx = 1\n[api]\nsocket = \"\"\n");
    let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 4, 6]);
}

#[test]
fn what_is_not_toml_is_said_with_its_place() {
    let found = problems("[docker]\nsocket = \n");
    assert_eq!((found[0].line, found[0].key.as_str()), (2, ""));
    assert_eq!(problems("[a]\nx = 1\nx = 2\n")[0].line, 3);
    let error = parse(Path::new("/c.toml"), b"# \xff").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/c.toml:1:3: not UTF-8\n  help: TOML files are UTF-8 text"
    );
}

#[test]
fn only_the_default_file_may_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml");
    let error = load(Some(&missing)).unwrap_err();
    assert!(error.to_string().contains("none.toml"), "{error}");
    std::fs::write(&missing, "[dns]\nkube-dns = false\n").unwrap();
    assert!(!load(Some(&missing)).unwrap().dns.kube_dns);
}
