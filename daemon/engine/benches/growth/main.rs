//! What checking, compiling and a change cost, and how that grows with the world.
//!
//! Milliseconds are those of the machine at hand; the factors, from each size to the next
//! one, are the point. Every number is the least of several runs, in time on the processor, which
//! is one core's. Needs no root.

mod misshapen;
mod synthetic_cluster;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpol_engine::compile::{Compiler, compile};
use netpol_engine::labels::{Requirement, Selector};
use netpol_engine::lint::{self, Census, Scope};
use netpol_engine::manifest::{self, File};
use netpol_engine::plan::plan;
use netpol_engine::policy::{Namespaces, ObjectName, Peer, Policy, Ports, Rule};
use netpol_engine::tables::Tables;
use netpol_engine::world::{Attached, Place, Pod, World};
use nix::time::{ClockId, clock_gettime};

/// Policies; Pods are a fifth of that, Namespaces a fiftieth.
const SIZES: [usize; 4] = [100, 1_000, 5_000, 10_000];

/// Of a compiler's answer.
const NUMBERED: &str = "no two things have one number";

/// One change of a world.
type Change = fn(&mut World);

/// What happens to a world in force, one at a time.
const CHANGES: [(&str, Change); 9] = [
    ("a rule's port changed", port_changed),
    ("a policy added", policy_added),
    ("a policy removed", policy_removed),
    ("a Pod added", pod_added),
    ("a Pod removed", pod_removed),
    ("a Pod relabelled", pod_relabelled),
    ("a Namespace relabelled", namespace_relabelled),
    ("a wide rule's port changed", wide_port_changed),
    ("a wide rule's peer changed", wide_peer_changed),
];

fn main() {
    let mut table = Table::default();
    for size in SIZES {
        let texts = synthetic_cluster::files(size);
        let (parse, files) = time(|| parse(&texts));
        table.add("read and validate", parse);
        let (assemble, assembled) = time(|| manifest::assemble(&files));
        table.add("assemble", assemble);
        assert_eq!(assembled.diagnostics, Vec::new());
        let found = files.iter().flat_map(|file| &file.diagnostics).next();
        assert_eq!(found, None, "the cluster's manifests are valid");
        // Reading and validating, and this, is all that `netpol check` does.
        let text: BTreeMap<&str, &str> = texts
            .iter()
            .map(|(path, text)| (&**path, &**text))
            .collect();
        let (lints, found) = time(|| lint::check(&files, |path| text.get(path).copied()));
        table.add("assemble and lint", lints);
        eprintln!("{size} policies: {} findings", found.len());
        let (from_objects, world) = time(|| assembled.world());
        table.add("world of the objects", from_objects);
        let world = attached(world);
        assert_eq!(world.policies.len(), size);
        let (full, compiled) = time(|| compile(&world).expect(NUMBERED));
        table.add("compile", full);
        let (first, _) = time(|| plan(&Tables::default(), &compiled.tables, 0));
        table.add("plan from nothing", first);
        let world = Arc::new(world);
        let mut compiler = Compiler::default();
        for (name, change) in CHANGES {
            let change = Changed::measure(&mut compiler, &world, change);
            table.add(&format!("{name}: compile"), change.compile);
            table.add(&format!("{name}: plan"), change.plan);
        }
        table.sizes.push(format!(
            "{size} policies, {} Pods, {} verdicts",
            world.pods.len(),
            compiled.tables.verdicts.len()
        ));
    }
    table.print();

    println!("\nmisshapen worlds of {} policies, ms", misshapen::POLICIES);
    println!(
        "{:<40} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "verdicts", "compile", "change", "plan", "lint"
    );
    let cluster = attached(
        manifest::assemble(&parse(&synthetic_cluster::files(misshapen::POLICIES))).world(),
    );
    for (name, shape) in misshapen::SHAPES {
        let mut world = cluster.clone();
        shape(&mut world);
        let (full, compiled) = time(|| compile(&world).expect(NUMBERED));
        let scopes = [Scope::Policies, Scope::World];
        let (lints, _) = time(|| lint::lint(&world, Census::Complete, &scopes));
        let mut compiler = Compiler::default();
        let change = Changed::measure(&mut compiler, &Arc::new(world), port_changed);
        println!(
            "{name:<40} {:>9} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
            compiled.tables.verdicts.len(),
            ms(full),
            ms(change.compile),
            ms(change.plan),
            ms(lints)
        );
    }
}

fn parse(texts: &[(String, String)]) -> Vec<File> {
    let parse = |(path, text): &(String, String)| manifest::parse(path, text);
    texts.iter().map(parse).collect()
}

/// As the daemon numbers them: all but one Pod in ten are endpoints of this host.
fn attached(mut world: World) -> World {
    for (number, pod) in (1_u32..).zip(world.pods.values_mut()) {
        attach(pod, number);
    }
    world
}

fn attach(pod: &mut Pod, number: u32) {
    pod.place = if number.is_multiple_of(10) {
        Place::External
    } else {
        let [_, b, c, d] = number.to_be_bytes();
        Place::Attached(Attached {
            slot: number,
            id: number,
            interfaces: BTreeMap::from([(number + 10, [2, 0, 0, b, c, d])]),
            bridges: [].into(),
            on_wire: false,
            netns: None,
            asks: None,
        })
    };
}

/// What a change costs.
struct Changed {
    compile: Duration,
    plan: Duration,
}

impl Changed {
    /// Of a world in force; and back again, for the next change.
    fn measure(compiler: &mut Compiler, world: &Arc<World>, change: Change) -> Self {
        let mut changed = World::clone(world);
        change(&mut changed);
        assert!(changed != **world, "nothing is changed");
        let changed = Arc::new(changed);
        let before = compiler.next(world).expect(NUMBERED).tables;
        let (compile, after) = time_after(
            compiler,
            |compiler| drop(black_box(compiler.next(world).expect(NUMBERED))),
            |compiler| compiler.next(&changed).expect(NUMBERED),
        );
        let installed = plan(&Tables::default(), &before, 0).installed(before);
        let (plan, _) = time(|| plan(&installed, &after.tables, 1));
        Self { compile, plan }
    }
}

/// The policy of this name in the namespace in the middle.
fn middle<'w>(world: &'w mut World, name: &str) -> &'w mut Policy {
    let mut found: Vec<&mut Arc<Policy>> = world
        .policies
        .values_mut()
        .filter(|policy| policy.name.name == name)
        .collect();
    let middle = found.len() / 2;
    Arc::make_mut(found.swap_remove(middle))
}

fn ingress(policy: &mut Policy) -> &mut Rule {
    &mut policy.ingress.as_mut().expect("it has ingress rules")[0]
}

fn port_changed(world: &mut World) {
    ingress(middle(world, "api-from-worker-31")).ports[0].ports = Ports::Range(4711, 4711);
}

fn policy_added(world: &mut World) {
    let mut policy = middle(world, "api-from-worker-31").clone();
    policy.name.name = "added".to_owned();
    ingress(&mut policy).ports[0].ports = Ports::Range(4711, 4711);
    world.policies.insert(policy.name.clone(), policy.into());
}

fn policy_removed(world: &mut World) {
    let name = middle(world, "api-from-worker-31").name.clone();
    world.policies.remove(&name);
}

/// An `api` Pod of the namespace in the middle.
fn a_pod(world: &mut World) -> ObjectName {
    ObjectName::new(
        middle(world, "default-deny").name.namespace.clone(),
        "api-0",
    )
}

fn pod_added(world: &mut World) {
    let name = a_pod(world);
    let mut pod = world.pods[&name].clone();
    pod.addresses = ["10.250.0.1".parse().expect("an address")].into();
    // A new release: its labels are its own.
    pod.labels
        .insert("pod-template-hash".to_owned(), "new".to_owned());
    attach(&mut pod, 100_001);
    world
        .pods
        .insert(ObjectName::new(name.namespace, "api-2"), pod);
}

fn pod_removed(world: &mut World) {
    let name = a_pod(world);
    world.pods.remove(&name);
}

fn pod_relabelled(world: &mut World) {
    let name = a_pod(world);
    if let Some(pod) = world.pods.get_mut(&name) {
        let tier = "app.kubernetes.io/name".to_owned();
        pod.labels.insert(tier, "cache".to_owned());
    }
}

fn namespace_relabelled(world: &mut World) {
    let name = a_pod(world).namespace;
    let labels = world.namespaces.entry(name).or_default();
    labels.insert("stage".to_owned(), "canary".to_owned());
}

fn wide_port_changed(world: &mut World) {
    ingress(middle(world, "allow-probes")).ports[0].ports = Ports::Range(4711, 4711);
}

/// From every namespace to those of a label that no other rule asks for.
fn wide_peer_changed(world: &mut World) {
    let peers = &mut ingress(middle(world, "allow-probes")).peers;
    if let Some(Peer::Pods(peer)) = peers.first_mut() {
        let prod = Requirement::equals("stage", "prod");
        peer.namespaces = Namespaces::Matching(Selector::new([prod]));
    }
}

/// Rows by name, in the order in which they came, a column for each size.
#[derive(Default)]
struct Table {
    sizes: Vec<String>,
    rows: Vec<(String, Vec<Duration>)>,
}

impl Table {
    fn add(&mut self, name: &str, took: Duration) {
        match self.rows.iter_mut().find(|(row, _)| row == name) {
            Some((_, cells)) => cells.push(took),
            None => self.rows.push((name.to_owned(), vec![took])),
        }
    }

    fn print(&self) {
        for (size, what) in SIZES.iter().zip(&self.sizes) {
            println!("{size:>6}: {what}");
        }
        print!("\n{:<40} {:>9}", "ms, and times the size before", SIZES[0]);
        for size in &SIZES[1..] {
            print!(" {size:>9} {:>6}", "");
        }
        println!();
        for (name, cells) in &self.rows {
            print!("{name:<40} {:>9.2}", ms(cells[0]));
            for pair in cells.windows(2) {
                print!(" {:>9.2} {:>5.1}x", ms(pair[1]), ms(pair[1]) / ms(pair[0]));
            }
            println!();
        }
    }
}

/// The least of some runs, as others may use the machine, and what the last one gave.
fn time<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    time_after(&mut (), |()| (), |()| run())
}

/// The same, for what needs something done before every run.
fn time_after<S, T>(
    state: &mut S,
    prepare: impl Fn(&mut S),
    mut run: impl FnMut(&mut S) -> T,
) -> (Duration, T) {
    let begin = Instant::now();
    let (mut least, mut rounds) = (Duration::MAX, 0);
    loop {
        prepare(state);
        let start = on_cpu();
        let value = black_box(run(state));
        least = least.min(on_cpu() - start);
        rounds += 1;
        if rounds == 25 || rounds >= 5 && begin.elapsed() > Duration::from_millis(400) {
            return (least, value);
        }
    }
}

/// The time that this thread has been running.
fn on_cpu() -> Duration {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock_gettime(clock).expect("Linux has this clock").into()
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
