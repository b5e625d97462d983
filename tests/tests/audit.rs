//! Audit by annotation, on real packets: a policy or a Namespace with `netpold.io/mode: audit`
//! drops nothing, and what is reported is what is dropped once the annotation is gone. Needs root.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use netpold_tests::time_scale::scaled;
use netpold_tests::{Daemon, Lab};
use serde_json::Value;

/// How long a connection that is dropped is waited for.
const GIVEN_UP: Duration = Duration::from_millis(300);
/// How long reports may take.
const REPORTED: Duration = Duration::from_secs(5);

/// `db/store` takes 5432 from `db/other`, and opens nothing.
const TRIED: &str = "spec: {podSelector: {matchLabels: {app: store}}, policyTypes: [Ingress, Egress], \
    ingress: [{from: [{podSelector: {matchLabels: {app: other}}}], ports: [{port: 5432}]}]}";
/// `db/store` takes 5432 from every sender.
const BESIDE: &str =
    "spec: {podSelector: {matchLabels: {app: store}}, ingress: [{ports: [{port: 5432}]}]}";

/// A connection that is tried: sender, receiver, port.
type Tried = (&'static str, &'static str, u16);

const ALL: [Tried; 6] = [
    ("web/front", "db/store", 5432),
    ("web/front", "db/store", 5433),
    ("db/other", "db/store", 5432),
    ("db/other", "db/store", 5433),
    ("db/store", "db/other", 5432),
    ("web/front", "db/other", 5432),
];

/// What [`TRIED`] alone is against.
const DENIED: [Tried; 4] = [ALL[0], ALL[1], ALL[3], ALL[4]];

/// What a report says: source, destination, port, direction, reason, the policies that deny.
type Seen = (String, String, u64, String, String, Vec<String>);

/// The daemon first: it ends in the lab's namespace.
struct Site {
    daemon: Daemon,
    lab: Lab,
}

impl Site {
    fn new(files: &[(&str, String)]) -> Result<Self> {
        let mut lab = Lab::new()?;
        for (number, name) in ["web/front", "db/store", "db/other"].iter().enumerate() {
            lab.add_pod(name, &[format!("10.77.1.{}/16", number + 1).parse()?])?;
        }
        let mut daemon = Daemon::prepare(&lab, "")?;
        for pod in lab.pods() {
            let (_, app) = pod.reference.split_once('/').context("a Pod's name")?;
            daemon.put(&format!("pod-{app}.json"), &pod.manifest(&[("app", app)])?)?;
        }
        for (name, text) in files {
            daemon.put(name, text)?;
        }
        daemon.launch()?;
        daemon.wait()?;
        Ok(Self { lab, daemon })
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        self.daemon.put(name, text)?;
        self.daemon.wait()
    }

    /// Opens all connections: each that is denied fails, and each other one is answered.
    fn open(&self, denied: &[Tried]) -> Result<()> {
        for tried in ALL {
            let (from, to, port) = tried;
            let (one, two) = (self.lab.pod(from)?, self.lab.pod(to)?);
            let is_denied = denied.contains(&tried);
            let probe = Probe {
                from: one.namespace.path(),
                source: one.addresses[0],
                to: Some(two.namespace.path()),
                destination: SocketAddr::new(two.addresses[0], port),
                protocol: Protocol::Tcp,
                timeout: if is_denied {
                    GIVEN_UP
                } else {
                    scaled(REPORTED)
                },
            };
            let outcome = probe.run()?;
            let expected = if is_denied {
                Outcome::TimedOut
            } else {
                Outcome::Reached
            };
            ensure!(
                outcome == expected,
                "{tried:?}: {outcome:?}\n{}",
                self.daemon.log()
            );
        }
        Ok(())
    }

    /// What is reported with this verdict, of TCP and since the daemon's start.
    fn reported(&self, verdict: &str) -> Result<BTreeSet<Seen>> {
        let output = self
            .daemon
            .netpol(&["observe", "-o", "json", "--verdict", verdict])?;
        let text = String::from_utf8(output.stdout)?;
        let flows = text.lines().map(serde_json::from_str::<Value>);
        let flows: Vec<Value> = flows.collect::<Result<_, _>>()?;
        let flows = flows.iter().filter(|flow| !flow["l4"]["TCP"].is_null());
        flows.map(seen).collect()
    }

    /// Waits until just these are reported with this verdict.
    fn expect(&self, verdict: &str, expected: &BTreeSet<Seen>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let reported = self.reported(verdict)?;
            if reported == *expected {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < scaled(REPORTED),
                "{verdict}: {reported:#?}\ninstead of {expected:#?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `netpol status` names as only audited.
    fn audited(&self) -> Result<(Value, Vec<Value>)> {
        let status = self.daemon.netpol(&["status", "-o", "json"])?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        let policies = status["policies"].as_array().context("policies")?;
        let audited = policies.iter().filter(|policy| policy["mode"] == "audit");
        let names = audited.map(|policy| policy["name"].clone()).collect();
        Ok((status["audited_namespaces"].clone(), names))
    }
}

fn seen(flow: &Value) -> Result<Seen> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let end = |end: &Value| -> Result<String> {
        let (namespace, name) = (text(&end["namespace"])?, text(&end["pod_name"])?);
        Ok(format!("{namespace}/{name}"))
    };
    let denied = ["ingress_denied_by", "egress_denied_by"];
    let mut by = Vec::new();
    for policy in denied
        .into_iter()
        .filter_map(|key| flow[key].as_array())
        .flatten()
    {
        by.push(text(&policy["name"])?);
    }
    Ok((
        end(&flow["source"])?,
        end(&flow["destination"])?,
        flow["l4"]["TCP"]["destination_port"]
            .as_u64()
            .context("no port")?,
        text(&flow["traffic_direction"])?,
        text(&flow["extensions"]["value"]["reason"])?,
        by,
    ))
}

/// Reports of these, denied by these policies.
fn reports(tried: &[Tried], by: &[&str]) -> BTreeSet<Seen> {
    let report = |(from, to, port): &Tried| {
        let direction = if *from == "db/store" {
            "EGRESS"
        } else {
            "INGRESS"
        };
        (
            (*from).to_owned(),
            (*to).to_owned(),
            u64::from(*port),
            direction.to_owned(),
            "policy-denied".to_owned(),
            by.iter().map(|name| (*name).to_owned()).collect(),
        )
    };
    tried.iter().map(report).collect()
}

fn policy(name: &str, mode: Option<&str>, spec: &str) -> String {
    let annotations = mode.map(|mode| format!("netpold.io/mode: {mode}"));
    let annotations = annotations.unwrap_or_default();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: db, annotations: {{{annotations}}}}}\n{spec}\n"
    )
}

fn db(mode: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: db, annotations: {{netpold.io/mode: {mode}}}}}\n"
    )
}

#[test]
fn an_audited_policy_reports_what_it_would_drop() -> Result<()> {
    let site = Site::new(&[("tried.yaml", policy("tried", Some("audit"), TRIED))])?;
    let expected = reports(&DENIED, &["tried"]);
    site.open(&[])?;
    site.expect("audit", &expected)?;
    site.expect("dropped", &BTreeSet::new())?;
    ensure!(site.audited()? == (Value::Array(Vec::new()), vec!["db/tried".into()]));
    let text = site.daemon.netpol(&["status"])?;
    let text = String::from_utf8_lossy(&text.stdout);
    ensure!(
        text.contains("Only audited") && text.contains("db/tried"),
        "{text}"
    );

    site.put("tried.yaml", &policy("tried", None, TRIED))?;
    site.open(&DENIED)?;
    site.expect("dropped", &expected)?;
    site.expect("audit", &expected)?;
    ensure!(site.audited()? == (Value::Array(Vec::new()), Vec::new()));
    Ok(())
}

#[test]
fn an_audited_namespace_reports_what_its_policies_would_drop() -> Result<()> {
    let site = Site::new(&[
        ("tried.yaml", policy("tried", None, TRIED)),
        ("namespace.yaml", db("audit")),
    ])?;
    let expected = reports(&DENIED, &["tried"]);
    site.open(&[])?;
    site.expect("audit", &expected)?;
    site.expect("dropped", &BTreeSet::new())?;
    let namespaces = Value::Array(vec!["db".into()]);
    ensure!(site.audited()? == (namespaces, vec!["db/tried".into()]));

    site.put("namespace.yaml", &db("enforce"))?;
    site.open(&DENIED)?;
    site.expect("dropped", &expected)?;
    site.expect("audit", &expected)
}

#[test]
fn beside_a_policy_in_force_an_audited_one_adds_reports_alone() -> Result<()> {
    let site = Site::new(&[
        ("beside.yaml", policy("beside", None, BESIDE)),
        ("tried.yaml", policy("tried", Some("audit"), TRIED)),
    ])?;
    // Both allow 5432; 5433 is denied by the one in force, and alone.
    let in_force = [ALL[1], ALL[3]];
    let dropped = reports(&in_force, &["beside"]);
    let audited = reports(&[ALL[4]], &["tried"]);
    site.open(&in_force)?;
    site.expect("dropped", &dropped)?;
    site.expect("audit", &audited)?;

    site.put("tried.yaml", &policy("tried", Some("enforce"), TRIED))?;
    site.open(&[ALL[1], ALL[3], ALL[4]])?;
    let both = reports(&in_force, &["beside", "tried"]);
    let all = dropped.into_iter().chain(both).chain(audited.clone());
    site.expect("dropped", &all.collect())?;
    site.expect("audit", &audited)
}

#[test]
fn the_end_of_an_audit_counts_from_the_next_packet() -> Result<()> {
    let (audited, enforced) = (Some("audit"), None);
    for (files, name, end) in [
        (
            vec![("tried.yaml", policy("tried", audited, TRIED))],
            "tried.yaml",
            policy("tried", enforced, TRIED),
        ),
        (
            vec![
                ("tried.yaml", policy("tried", enforced, TRIED)),
                ("namespace.yaml", db("audit")),
            ],
            "namespace.yaml",
            db("enforce"),
        ),
    ] {
        let site = Site::new(&files)?;
        let (front, store) = (site.lab.pod("web/front")?, site.lab.pod("db/store")?);
        let address = SocketAddr::new(store.addresses[0], 5432);
        let listener = netns::inside(&store.namespace.path(), || TcpListener::bind(address))??;
        let mut client = netns::inside(&front.namespace.path(), || TcpStream::connect(address))??;
        let (mut server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(scaled(Duration::from_secs(2))))?;
        }
        client.write_all(b"?")?;
        server
            .read_exact(&mut [0])
            .context("what is audited is dropped")?;
        server.write_all(b"!")?;
        client
            .read_exact(&mut [0])
            .context("its answer is dropped")?;
        site.put(name, &end)?;
        client.write_all(b"?")?;
        ensure!(server.read_exact(&mut [0]).is_err(), "{name}: it was heard");
    }
    Ok(())
}
