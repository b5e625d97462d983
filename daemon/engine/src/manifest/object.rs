//! Documents to objects: which kind a document is, Lists unpacked, other kinds
//! passed over with a warning.
//!
//! A kind of ours in a version of Kubernetes' own that is not (`extensions/v1beta1`)
//! is an error, not a warning: its author believes it to be in force.

use std::collections::{HashMap, hash_map};

use super::decode::{At, Decoder, Finding, below, clip, get, present, quoted};
use super::document::{Object, Position, Value, Workload};
use super::node::{Document, Entry, Node, Problem, Span, Value as Tree};
use super::report::Report;
use super::workload;
use super::{assemble, metadata, network_policy, pod, syntax};
use crate::diagnostic::rule;
use crate::names;
use crate::object::{Kind, ObjectId};
use crate::spelling::nearest;

/// Lists in lists that are followed.
pub(super) const MAX_LISTS: usize = 8;

/// What documents hold.
pub(super) struct Reader<'f> {
    path: &'f str,
    /// Each once: of two with one name the first.
    pub(super) objects: Vec<Object>,
    pub(super) workloads: Vec<Workload>,
    pub(super) report: Report,
    seen: HashMap<ObjectId, Position>,
    /// Documents that are no trees.
    broken: usize,
}

impl<'f> Reader<'f> {
    pub(super) fn new(path: &'f str) -> Self {
        Self {
            path,
            objects: Vec::new(),
            workloads: Vec::new(),
            report: Report::default(),
            seen: HashMap::new(),
            broken: 0,
        }
    }

    /// A document of this text that is no tree.
    pub(super) fn broken(&mut self, problem: &Problem, text: &str) {
        let mut decoder = Decoder::new(self.path);
        // Each look at the text costs its length; so many mistakes of this kind are no typing.
        let (span, finding) = if self.broken < 100 {
            syntax::with_text(problem, text)
        } else {
            (problem.span, syntax::finding(problem))
        };
        self.broken += 1;
        decoder.error(&At::root(span), finding);
        self.report.extend(decoder.diagnostics);
    }

    /// One document; an empty one is nothing.
    pub(super) fn document(&mut self, document: &Document<'_>) {
        let root = &document.root;
        if root.is_null() && document.problems.is_empty() {
            return;
        }
        self.value(&At::root(root.span), root, None, &document.problems, 0);
    }

    /// A document, or an item of a List: `implied` is the kind that a typed List gives its items.
    fn value(
        &mut self,
        at: &At<'_>,
        node: &Node<'_>,
        implied: Option<Kind>,
        problems: &[Problem],
        depth: usize,
    ) {
        let mut decoder = Decoder::new(self.path);
        let Tree::Mapping(entries) = &node.value else {
            decoder.wrong_type(
                at,
                node,
                "a mapping with `apiVersion`, `kind` and `metadata`",
            );
            self.finish(decoder, problems);
            return;
        };
        decoder.identity = identity(entries, implied);
        match kind_of(&mut decoder, at, entries, implied) {
            Some(Found::Ours(kind)) => {
                // Paths begin at the object, as the API server's do, wherever it stands.
                let at = At::root(at.span());
                if kind != Kind::Namespace && decoder.identity.namespace.is_none() {
                    decoder.identity.namespace = Some("default".to_owned());
                }
                decoder.no_duplicates(&at, node);
                let object = decode(&mut decoder, &at, entries, kind, start(node, entries));
                if !decoder.has_errors() && problems.is_empty() {
                    self.keep(object);
                }
            }
            Some(Found::List(implied)) => self.list(&mut decoder, at, node, implied, depth),
            Some(Found::Other { version, kind }) => {
                self.workloads
                    .extend(workload::read(entries, version, kind));
                // What is wrong in it is its reader's business.
                self.finish(decoder, &[]);
                return;
            }
            None => {}
        }
        self.finish(decoder, problems);
    }

    fn finish(&mut self, mut decoder: Decoder<'_>, problems: &[Problem]) {
        for problem in problems {
            decoder.error(&At::root(problem.span), syntax::finding(problem));
        }
        self.report.extend(decoder.diagnostics);
    }

    fn keep(&mut self, object: Object) {
        match self.seen.entry(object.id()) {
            hash_map::Entry::Vacant(entry) => {
                entry.insert(object.position);
                self.objects.push(object);
            }
            hash_map::Entry::Occupied(first) => {
                let first = (self.path, *first.get());
                let diagnostic = assemble::given_twice(&object, self.path, first);
                self.report.extend([diagnostic]);
            }
        }
    }

    fn list(
        &mut self,
        decoder: &mut Decoder<'_>,
        at: &At<'_>,
        node: &Node<'_>,
        implied: Option<Kind>,
        depth: usize,
    ) {
        let entries = decoder.mapping(at, node).unwrap_or_default();
        let known = &["apiVersion", "kind", "metadata", "items"];
        // A List without items is to kubectl an unknown kind; what else stands in a
        // List never reaches the server.
        let Some(entry) = get(entries, "items") else {
            if decoder.only(at, entries, known) {
                let finding = Finding::required("").help("a List has its objects below `items`");
                decoder.error(&at.missing("items"), finding);
            }
            return;
        };
        for other in entries.iter().filter(|other| !known.contains(&&*other.key)) {
            let message = "a List has no such field: this is ignored";
            let finding = Finding::new(rule::IGNORED_FIELD, message);
            let place = at.named(&other.key, other.span);
            decoder.warning(&place, finding.help("a List has its objects below `items`"));
        }
        let at = at.field(entry);
        if depth >= MAX_LISTS {
            let message = format!("Lists are nested more than {MAX_LISTS} deep");
            decoder.error(&at, Finding::new(rule::LIMIT, message));
            return;
        }
        for (index, item) in decoder.items(&at, entry) {
            self.value(&at.index(index, item), item, implied, &[], depth + 1);
        }
    }
}

/// A List's item begins at its first key, not at its dash.
pub(super) fn start(node: &Node<'_>, entries: &[Entry<'_>]) -> Position {
    let Span { line, column, .. } = entries.first().map_or(node.span, |entry| {
        // Merged keys stand elsewhere.
        entry.span.max(node.span)
    });
    Position {
        line: line as usize,
        column: column as usize,
    }
}

/// What can be said of an object before it is decoded.
fn identity(entries: &[Entry<'_>], implied: Option<Kind>) -> super::decode::Identity {
    let text = |entries: &[Entry<'_>], name| match &present(entries, name)?.value.value {
        Tree::Scalar(text, _) if !text.is_empty() => Some(clip(text).into_owned()),
        _ => None,
    };
    let metadata = present(entries, "metadata").map_or(&[][..], below);
    super::decode::Identity {
        kind: text(entries, "kind").or(implied.map(|kind| kind.name().to_owned())),
        namespace: text(metadata, "namespace"),
        name: text(metadata, "name"),
    }
}

enum Found<'n> {
    Ours(Kind),
    List(Option<Kind>),
    Other { version: &'n str, kind: &'n str },
}

fn kind_of<'n>(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    entries: &'n [Entry<'_>],
    implied: Option<Kind>,
) -> Option<Found<'n>> {
    let fallback = (
        implied.map_or("", Kind::api_version),
        implied.map_or("", Kind::name),
    );
    let version = field(decoder, at, entries, "apiVersion", fallback.0);
    let kind = field(decoder, at, entries, "kind", fallback.1);
    let (version, kind) = (version?, kind?);
    let typed = |ours: Kind| kind.strip_suffix("List") == Some(ours.name());
    if kind == "List" && version == "v1" {
        return Some(Found::List(None));
    }
    for ours in Kind::ALL {
        if version == ours.api_version() {
            if kind == ours.name() {
                return Some(Found::Ours(ours));
            }
            if typed(ours) {
                return Some(Found::List(Some(ours)));
            }
        }
        // In our own version, what looks like our kind is no other tool's.
        let named = kind.eq_ignore_ascii_case(ours.name())
            || typed(ours)
            || (version == ours.api_version()
                && (nearest(kind, &[ours.name()]).is_some() || is_unknown_kind(version, kind)));
        if named && is_kubernetes(version) {
            let message = format!(
                "no matches for kind {} in version {}",
                quoted(kind),
                quoted(version)
            );
            let help = format!(
                "write apiVersion: {} and kind: {}",
                ours.api_version(),
                ours.name()
            );
            let finding = Finding::new(rule::UNKNOWN_VERSION, message).help(help);
            let name = if kind == ours.name() || typed(ours) {
                "apiVersion"
            } else {
                "kind"
            };
            match get(entries, name) {
                Some(entry) => decoder.error(&at.field(entry), finding),
                None => decoder.error(at, finding),
            }
            return None;
        }
    }
    ignored(decoder, at, entries, version, kind);
    Some(Found::Other { version, kind })
}

fn ignored(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    entries: &[Entry<'_>],
    version: &str,
    kind: &str,
) {
    let name = match &decoder.identity.name {
        Some(name) => format!(" `{name}`"),
        None => String::new(),
    };
    let message = format!("{} {}{name} is ignored", clip(version), clip(kind));
    let help = if kind.ends_with("NetworkPolicy") {
        "nothing of it is enforced: netpold reads NetworkPolicy of networking.k8s.io/v1 alone"
    } else {
        "netpold reads NetworkPolicy, Namespace, Pod and Lists of them"
    };
    let finding = Finding::new(rule::IGNORED_KIND, message).help(help);
    match get(entries, "kind") {
        Some(entry) => decoder.warning(&at.field(entry), finding),
        None => decoder.warning(at, finding),
    }
}

/// The other kinds of the policies' own version.
const NETWORKING: &[&str] = &["Ingress", "IngressClass", "IPAddress", "ServiceCIDR"];

/// Is there no such kind in the policies' own version (`kind: NetworkPolicies`)? To pass it over
/// would leave a policy out of force whose author believes in it.
fn is_unknown_kind(version: &str, kind: &str) -> bool {
    let one = kind.strip_suffix("List").unwrap_or(kind);
    version == Kind::NetworkPolicy.api_version() && !NETWORKING.contains(&one)
}

/// Is the version one of Kubernetes' own groups, or a slip of one? A kind of that name in
/// another group is another kind, as Calico's NetworkPolicy is.
fn is_kubernetes(version: &str) -> bool {
    let group = version.split_once('/').map_or(version, |(group, _)| group);
    !group.contains('.')
        || group.ends_with(".k8s.io")
        || nearest(group, &["networking.k8s.io"]).is_some()
}

/// `apiVersion` or `kind`: a text that is not empty.
fn field<'n>(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    entries: &'n [Entry<'_>],
    name: &'static str,
    implied: &'static str,
) -> Option<&'n str> {
    let is_empty = |entry: &&Entry<'_>| match &entry.value.value {
        Tree::Scalar(text, _) => text.is_empty(),
        _ => false,
    };
    let Some(entry) = present(entries, name).filter(|entry| !is_empty(entry)) else {
        if !implied.is_empty() {
            return Some(implied);
        }
        // In the words of Kubernetes' decoder, which names the type's field in one case.
        let finding = Finding::required(match name {
            "kind" => "Object 'Kind' is missing",
            _ => "Object 'apiVersion' is missing",
        });
        let slip = entries
            .iter()
            .find(|entry| nearest(&entry.key, &[name]).is_some());
        let help = match slip {
            Some(entry) if entry.key == name => format!("`{name}` has no value"),
            Some(entry) => format!("`{}` is written `{name}`", clip(&entry.key)),
            None if name == "kind" => "such as `kind: NetworkPolicy`".to_owned(),
            None => "such as `apiVersion: networking.k8s.io/v1`".to_owned(),
        };
        decoder.error(&at.missing(name), finding.help(help));
        return None;
    };
    decoder.string(&at.field(entry), &entry.value)
}

fn decode(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    entries: &[Entry<'_>],
    kind: Kind,
    position: Position,
) -> Object {
    decoder.identity.kind = Some(kind.name().to_owned());
    if kind == Kind::NetworkPolicy {
        decoder.homes = network_policy::HOMES;
    }
    let metadata = metadata::decode(decoder, at, entries, kind);
    let value = match kind {
        Kind::NetworkPolicy => {
            Value::NetworkPolicy(network_policy::decode(decoder, at, entries, &metadata).into())
        }
        Kind::Pod => Value::Pod(pod::decode(decoder, at, entries, &metadata)),
        Kind::Namespace => {
            namespace(decoder, at, entries);
            Value::Namespace {
                name: metadata.name.name,
                mode: metadata.mode,
            }
        }
    };
    Object {
        position,
        labels: metadata.labels,
        annotations: metadata.annotations,
        created: metadata.created,
        value,
    }
}

/// The finalizers that need no prefix (`standardFinalizers`).
const FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// A Namespace's spec and status say nothing here; what is wrong in them is wrong all the same
/// (`ValidateNamespace`).
fn namespace(decoder: &mut Decoder<'_>, at: &At<'_>, entries: &[Entry<'_>]) {
    decoder.only(
        at,
        entries,
        &["apiVersion", "kind", "metadata", "spec", "status"],
    );
    if let Some(entry) = present(entries, "spec") {
        let at = at.field(entry);
        let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
        decoder.only(&at, fields, &["finalizers"]);
        if let Some(entry) = present(fields, "finalizers") {
            finalizers(decoder, &at.field(entry), entry);
        }
    }
    if let Some(entry) = present(entries, "status") {
        let at = at.field(entry);
        let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
        decoder.only(&at, fields, &["phase", "conditions"]);
    }
}

fn finalizers(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>) {
    for (index, item) in decoder.items(at, entry) {
        let Some(text) = decoder.string(&at.index(index, item), item) else {
            continue;
        };
        let mut breaches = names::qualified(text);
        if breaches.is_empty() && !text.contains('/') && !FINALIZERS.contains(&text) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            breaches.push(detail.to_owned());
        }
        let help = || "such as `kubernetes` or `example.com/cleanup`".to_owned();
        decoder.breaches(&at.marking(item.span), text, breaches, help);
    }
}
