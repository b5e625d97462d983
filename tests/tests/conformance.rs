//! The conformance cases with real traffic: a Pod is a network namespace, the daemon enforces, and
//! every expected verdict is a connection that gets there or does not. Needs root.
//!
//! Pods that are external, and addresses that no Pod has, are beyond a router. `NAME-step1`,
//! `NAME-step2` are applied in turn to one running daemon. The format is in
//! `tests/conformance/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use libtest_mimic::{Arguments, Trial};
use netpol_engine::evaluate::EndpointSpec;
use netpol_engine::manifest::{PodManifest, Value, parse};
use netpol_engine::policy::ObjectName;
use netpold::probe::{Outcome, Probe};
use netpold_tests::cases::{self, Expected};
use netpold_tests::outside::host_prefix;
use netpold_tests::{Daemon, Lab, Outside, residue};

/// What is expected to arrive has this long: it is over as soon as it did.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What is expected to be dropped is waited for this long.
const SILENCE: Duration = Duration::from_millis(400);
/// Probes under way at a time: most of the time they wait.
const AT_A_TIME: usize = 48;
/// Cases under way at a time, unless `--test-threads` says otherwise.
const CASES_AT_A_TIME: usize = 8;

fn main() {
    let mut arguments = Arguments::from_args();
    // They wait for silence most of the time.
    arguments.test_threads.get_or_insert(CASES_AT_A_TIME);
    let conformance = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut groups: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in cases::folders(&conformance, "cases") {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let stem = name.rsplit_once("-step").map_or(&*name, |(stem, _)| stem);
        groups.entry(stem.to_owned()).or_default().push(folder);
    }
    let trials = groups.into_iter().map(|(name, steps)| {
        Trial::test(name, move || {
            run(&steps).map_err(|error| format!("{error:#}").into())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// One step: its documents as they stand, those of its Pods apart, and what is expected.
struct Step {
    name: String,
    others: String,
    pods: Vec<(PodManifest, serde_json::Value)>,
    expected: Expected,
}

impl Step {
    fn read(folder: &Path) -> Result<Self> {
        let text = cases::text(&folder.join("manifests.yaml"));
        let mut step = Self {
            name: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            others: String::new(),
            pods: Vec::new(),
            expected: Expected::read(folder),
        };
        for document in text.split("\n---\n") {
            let mut objects = parse(&step.name, document).documents.into_iter();
            match objects.next().map(|object| object.value) {
                Some(Value::Pod(pod)) => {
                    step.pods.push((pod, serde_saphyr::from_str(document)?));
                }
                // The policies reach the daemon to the letter.
                _ => {
                    step.others.push_str(document);
                    step.others.push_str("\n---\n");
                }
            }
            ensure!(
                objects.next().is_none(),
                "{}: documents not told apart",
                step.name
            );
        }
        ensure!(!step.pods.is_empty(), "{}: no Pods", step.name);
        Ok(step)
    }
}

/// Where each Pod and address is.
struct Site {
    // Drops in this order: what is in the lab first.
    daemon: Daemon,
    outside: Outside,
    lab: Lab,
    places: BTreeMap<ObjectName, (PathBuf, Vec<IpAddr>)>,
}

fn run(folders: &[PathBuf]) -> Result<()> {
    let steps: Vec<Step> = folders
        .iter()
        .map(|path| Step::read(path))
        .collect::<Result<_>>()?;
    let site = Site::build(&steps)?;
    for step in &steps {
        site.apply(step)?;
        site.probe(step)
            .with_context(|| format!("{}\nthe daemon's log:\n{}", step.name, site.daemon.log()))?;
    }
    let name = site.lab.name.clone();
    drop(site);
    residue::check(&name)
}

impl Site {
    fn build(steps: &[Step]) -> Result<Self> {
        let mut lab = Lab::new()?;
        let mut beyond = BTreeSet::new();
        let mut elsewhere = BTreeMap::new();
        for (pod, _) in &steps[0].pods {
            if pod.external {
                beyond.extend(pod.pod_ips.iter().copied());
                elsewhere.insert(pod.name.clone(), pod);
            } else if pod.host_network {
                for address in &pod.pod_ips {
                    let own = host_prefix(*address);
                    lab.host().ip(&["addr", "add", &own, "dev", "br0"])?;
                }
                elsewhere.insert(pod.name.clone(), pod);
            } else {
                let own: Vec<IpNet> = pod
                    .pod_ips
                    .iter()
                    .map(|address| IpNet::new(*address, if address.is_ipv4() { 16 } else { 64 }))
                    .collect::<Result<_, _>>()?;
                lab.add_pod(&pod.name.to_string(), &own)?;
            }
        }
        for step in steps {
            for probe in step.expected.expectations(&BTreeSet::new()) {
                for end in [probe.from, probe.to] {
                    if let EndpointSpec::Address(address) = end.parse()? {
                        beyond.insert(address);
                    }
                }
            }
        }
        let outside = Outside::new(&lab, &beyond)?;
        let mut places = BTreeMap::new();
        for pod in lab.pods() {
            let place = (pod.namespace.path(), pod.addresses.clone());
            places.insert(pod.reference.parse()?, place);
        }
        for (name, pod) in elsewhere {
            let path = if pod.external {
                outside.path()
            } else {
                lab.host().path()
            };
            places.insert(name, (path, pod.pod_ips.clone()));
        }
        // The machine's own resolvers are no part of the cases.
        let daemon = Daemon::start(&lab, "[dns]\nkube-dns = false")?;
        Ok(Self {
            daemon,
            outside,
            lab,
            places,
        })
    }

    fn apply(&self, step: &Step) -> Result<()> {
        let mut items = Vec::new();
        for (pod, document) in &step.pods {
            let mut document = document.clone();
            if !pod.external && !pod.host_network {
                let place = self.lab.pod(&pod.name.to_string())?.namespace.path();
                document["metadata"]["annotations"]["netpold.io/netns"] =
                    serde_json::to_value(place)?;
            }
            items.push(document);
        }
        let pods = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.daemon.put("pods.json", &pods.to_string())?;
        self.daemon.put("others.yaml", &step.others)?;
        self.daemon.wait()
    }

    /// Namespace and addresses of an end.
    fn place(&self, end: &str) -> Result<(PathBuf, Vec<IpAddr>)> {
        match end.parse()? {
            EndpointSpec::Address(address) => Ok((self.outside.path(), vec![address])),
            EndpointSpec::Pod(name) => self
                .places
                .get(&name)
                .cloned()
                .with_context(|| format!("no Pod is `{name}`")),
        }
    }

    fn probe(&self, step: &Step) -> Result<()> {
        let mut probes = Vec::new();
        let pods = self.places.keys().cloned().collect();
        for expected in step.expected.expectations(&pods) {
            let (from, sources) = self.place(&expected.from)?;
            let (to, destinations) = self.place(&expected.to)?;
            let before = probes.len();
            for source in sources {
                for destination in destinations
                    .iter()
                    .filter(|to| to.is_ipv4() == source.is_ipv4())
                {
                    let probe = Probe {
                        from: from.clone(),
                        source,
                        to: Some(to.clone()),
                        destination: SocketAddr::new(*destination, expected.port),
                        protocol: expected.protocol,
                        timeout: if expected.allow { TIMEOUT } else { SILENCE },
                    };
                    probes.push((expected.clone(), probe));
                }
            }
            ensure!(probes.len() > before, "{expected:?}: no family in common");
        }
        let count = probes.len();
        let queue = Mutex::new(probes.into_iter());
        let wrong = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME.min(count) {
                scope.spawn(|| {
                    while let Some((expected, probe)) = locked(&queue).next() {
                        let outcome = probe.run();
                        if outcome.as_ref().ok().and_then(Outcome::arrived) != Some(expected.allow)
                        {
                            locked(&wrong).push(format!("{expected:?}: {outcome:?}"));
                        }
                    }
                });
            }
        });
        let wrong = locked(&wrong);
        if !wrong.is_empty() {
            bail!(
                "{} of {count} probes miss:\n{}",
                wrong.len(),
                wrong.join("\n")
            );
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
