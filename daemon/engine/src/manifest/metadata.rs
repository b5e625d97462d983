//! `metadata`: the ObjectMeta of every kind.
//!
//! Accepts every field that the API has (a manifest may come out of `kubectl get -o
//! yaml`), reads name, namespace, labels, annotations and the time of creation, and
//! validates those as `ValidateObjectMeta` does.

use std::collections::BTreeMap;

use super::Kind;
use super::decode::{At, Decoder, Finding, clip, get, present, quoted, to_map};
use super::names;
use super::tree::{Entry, Node, Value};
use crate::diagnostic::rule;
use crate::labels::Labels;
use crate::policy::ObjectName;

const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// `TotalAnnotationSizeLimitB`
const MAX_ANNOTATIONS: usize = 256 << 10;

/// What of it is read.
#[derive(Default)]
pub(super) struct Metadata {
    pub(super) name: ObjectName,
    pub(super) labels: Labels,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) created: Option<String>,
}

/// Decodes it, and tells the decoder whose findings the following are.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    root: &At<'_>,
    entries: &[Entry<'_>],
    kind: Kind,
) -> Metadata {
    let nothing = [];
    let (at, fields) = match get(entries, "metadata") {
        None => (root.missing("metadata"), &nothing[..]),
        Some(entry) => {
            let at = root.field(entry);
            let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
            (at, fields)
        }
    };
    let name = name(decoder, &at, fields, kind);
    decoder.only(&at, fields, FIELDS);
    Metadata {
        name,
        labels: labels(decoder, &at, fields),
        annotations: annotations(decoder, &at, fields),
        created: present(fields, "creationTimestamp").and_then(|entry| match &entry.value.value {
            Value::Scalar(text, _) => Some(clip(text).into_owned()),
            _ => None,
        }),
    }
}

fn name(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>], kind: Kind) -> ObjectName {
    let text = |name| match present(fields, name).map(|entry| &entry.value.value) {
        Some(Value::Scalar(text, _)) if !text.is_empty() => Some(text),
        _ => None,
    };
    // Known before anything is reported, so that the first finding is named too.
    let stated = text("namespace").map_or("default", |text| text);
    decoder.identity.name = text("name").map(|text| clip(text).into_owned());
    decoder.identity.namespace = (kind != Kind::Namespace).then(|| clip(stated).into_owned());

    let mut object = ObjectName::new(stated, "");
    if let Some(entry) = present(fields, "namespace") {
        namespace(decoder, &at.field(entry), &entry.value, kind);
    }
    if kind == Kind::Namespace {
        object.namespace.clear();
    }
    let Some(entry) = present(fields, "name").filter(|_| {
        // An empty name is a missing one.
        text("name").is_some()
            || present(fields, "name").is_some_and(|e| !matches!(e.value.value, Value::Scalar(..)))
    }) else {
        let finding = Finding::required("name or generateName is required");
        let finding = match present(fields, "generateName") {
            Some(_) => finding
                .help("only an API server makes names from `generateName`: write `name: …` here"),
            None => finding.help(format!("give the {} a `name` in `metadata`", kind.name())),
        };
        decoder.error(&at.missing("name"), finding);
        return object;
    };
    let place = at.field(entry);
    if let Some(name) = decoder.string(&place, &entry.value) {
        name.clone_into(&mut object.name);
        let check = match kind {
            Kind::Namespace => names::label(name),
            Kind::Pod | Kind::NetworkPolicy => names::subdomain(name),
        };
        if let Err(message) = check {
            let finding = Finding::invalid(quoted(name), message);
            decoder.error(&place, finding.help("such as `my-name` or `name-1`"));
        }
    }
    object
}

fn namespace(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>, kind: Kind) {
    let Some(text) = decoder.string(at, node) else {
        return;
    };
    if text.is_empty() {
        return;
    }
    if kind == Kind::Namespace {
        let message = "a Namespace stands in no namespace: this is ignored";
        decoder.warning(at, Finding::new(rule::IGNORED_FIELD, message));
        return;
    }
    if let Err(message) = names::label(text) {
        let finding = Finding::invalid(quoted(text), message);
        decoder.error(at, finding.help("such as `my-namespace`"));
    }
}

fn labels(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>]) -> Labels {
    let Some(entry) = present(fields, "labels") else {
        return Labels::new();
    };
    label_map(decoder, &at.field(entry), &entry.value)
}

/// Labels, of an object or in `matchLabels`: valid keys and values.
pub(super) fn label_map(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Labels {
    let pairs = decoder.string_map(at, node);
    for (entry, value) in &pairs {
        label_key(decoder, &at.key(entry), &entry.key);
        label_value(decoder, &at.value(entry), value);
    }
    to_map(&pairs)
}

/// `ValidateLabelName`
pub(super) fn label_key(decoder: &mut Decoder<'_>, at: &At<'_>, key: &str) {
    if let Err(message) = names::qualified(key) {
        let finding = Finding::invalid(quoted(key), message);
        decoder.error(at, finding.help("such as `app` or `example.com/app`"));
    }
}

/// `IsValidLabelValue`
pub(super) fn label_value(decoder: &mut Decoder<'_>, at: &At<'_>, value: &str) {
    if let Err(message) = names::value(value) {
        let finding = Finding::invalid(quoted(value), message);
        decoder.error(at, finding.help("such as `MyValue`, `my_value` or `12345`"));
    }
}

fn annotations(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
) -> BTreeMap<String, String> {
    let Some(entry) = present(fields, "annotations") else {
        return BTreeMap::new();
    };
    let at = at.field(entry);
    let pairs = decoder.string_map(&at, &entry.value);
    let mut size = 0;
    for (entry, value) in &pairs {
        size += entry.key.len() + value.len();
        let key = entry.key.to_ascii_lowercase();
        if let Err(message) = names::qualified(&key) {
            let finding = Finding::invalid(quoted(&entry.key), message);
            decoder.error(&at.key(entry), finding.help("such as `example.com/note`"));
        }
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        decoder.error(&at, Finding::new(rule::INVALID, message));
    }
    to_map(&pairs)
}
