//! `metadata`: the ObjectMeta of every kind.
//!
//! Accepts every field that the API has (a manifest may come out of `kubectl get -o
//! yaml`), reads name, namespace, labels, annotations and the time of creation, and
//! validates those as `ValidateObjectMeta` does. The mode is an annotation that more than
//! one kind has; those of one kind are that kind's.

use std::collections::BTreeMap;

use super::bookkeeping;
use super::decode::{At, Decoder, Finding, clip, get, present, to_map};
use super::document::ANNOTATION_MODE;
use super::node::{Entry, Node, Value};
use crate::diagnostic::rule;
use crate::labels::Labels;
use crate::names;
use crate::object::Kind;
use crate::policy::{Mode, ObjectName};

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
    /// [`ANNOTATION_MODE`].
    pub(super) mode: Mode,
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
    if let Some(entry) = present(fields, "generateName") {
        prefix(decoder, &at, entry, kind);
    }
    bookkeeping::check(decoder, &at, fields);
    let labels = labels(decoder, &at, fields);
    let (annotations, mode) = annotations(decoder, &at, fields, kind);
    Metadata {
        name,
        labels,
        annotations,
        mode,
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
        // `kubectl apply` takes no generated name either: there is nothing to apply it to.
        let (place, finding) = match present(fields, "generateName") {
            Some(entry) => {
                let finding = Finding::required("cannot use generate name with apply");
                let help = "only an API server makes names from `generateName`: write `name`";
                (at.named("name", entry.span), finding.help(help))
            }
            None => {
                let finding = Finding::required("name or generateName is required");
                let help = format!("give the {} a `name` in `metadata`", kind.name());
                (at.missing("name"), finding.help(help))
            }
        };
        decoder.error(&place, finding);
        return object;
    };
    let place = at.field(entry);
    if let Some(name) = decoder.string(&place, &entry.value) {
        name.clone_into(&mut object.name);
        let rules = rules_of(kind);
        decoder.breaches(&place, name, rules(name), || such_as(name, rules));
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
    let help = || such_as(text, names::label);
    decoder.breaches(at, text, names::label(text), help);
}

/// What a name of this kind may look like.
fn rules_of(kind: Kind) -> fn(&str) -> names::Breaches {
    match kind {
        Kind::Namespace => names::label,
        Kind::Pod | Kind::NetworkPolicy => names::subdomain,
    }
}

fn such_as(name: &str, rules: fn(&str) -> names::Breaches) -> String {
    match names::lower_like(name, rules) {
        Some(valid) => format!("such as `{valid}`"),
        None => "such as `my-name`".to_owned(),
    }
}

/// `generateName`, with the letters that are to come.
fn prefix(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>, kind: Kind) {
    let at = at.field(entry);
    let Some(text) = decoder.string(&at, &entry.value) else {
        return;
    };
    // The API server judges a last dash as the letter before it.
    let masked = match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept = rest.char_indices().last().map_or(0, |(end, _)| end);
            format!("{}a", &rest[..kept])
        }
        _ => text.to_owned(),
    };
    if !text.is_empty() {
        let breaches = rules_of(kind)(&masked);
        decoder.breaches(&at, text, breaches, || "such as `my-name-`".to_owned());
    }
}

fn labels(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>]) -> Labels {
    let Some(entry) = present(fields, "labels") else {
        return Labels::new();
    };
    label_map(decoder, &at.field(entry), &entry.value, |_| None)
}

/// Labels, of an object or in `matchLabels`: valid keys and values. As the API server does,
/// findings name the map and not the key (`ValidateLabels`); the mark shows which it is.
pub(super) fn label_map(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    node: &Node<'_>,
    meant: fn(&Node<'_>) -> Option<String>,
) -> Labels {
    let pairs = decoder.string_map(at, node, meant);
    for (entry, value) in &pairs {
        label_key(decoder, &at.marking(entry.span), &entry.key);
        label_value(decoder, &at.marking(at.value(entry).span()), value);
    }
    to_map(&pairs)
}

/// `ValidateLabelName`
pub(super) fn label_key(decoder: &mut Decoder<'_>, at: &At<'_>, key: &str) {
    decoder.breaches(at, key, names::qualified(key), || {
        match names::like(key, names::qualified) {
            Some(valid) => format!("such as `{valid}`"),
            None => "such as `app` or `example.com/app`".to_owned(),
        }
    });
}

/// `IsValidLabelValue`
pub(super) fn label_value(decoder: &mut Decoder<'_>, at: &At<'_>, value: &str) {
    decoder.breaches(at, value, names::value(value), || {
        if value.contains('*') {
            return "a label has no patterns: name each value (matchExpressions, operator In), or ask for the key alone \
                    (operator Exists)"
                .to_owned();
        }
        if value.contains(',') {
            let values: Vec<&str> = value.split(',').map(str::trim).collect();
            return format!(
                "a label has one value; for one of several, write matchExpressions with operator: In and values: [{}]",
                clip(&values.join(", "))
            );
        }
        match names::like(value, names::value) {
            Some(valid) => format!("such as `{valid}`"),
            None => "such as `my-value`".to_owned(),
        }
    });
}

fn annotations(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
    kind: Kind,
) -> (BTreeMap<String, String>, Mode) {
    let Some(entry) = present(fields, "annotations") else {
        return Default::default();
    };
    let at = at.field(entry);
    let pairs = decoder.string_map(&at, &entry.value, |_| None);
    let mut size = 0;
    let mut mode = Mode::default();
    for (entry, value) in &pairs {
        if entry.key == ANNOTATION_MODE {
            mode = self::mode(decoder, &at, entry, value, kind);
        }
        size += entry.key.len() + value.len();
        let breaches = names::qualified(&entry.key.to_lowercase());
        let place = at.marking(entry.span);
        let help = || "such as `example.com/note`".to_owned();
        decoder.breaches(&place, &entry.key, breaches, help);
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        let help = format!("keys and values together have {size}");
        decoder.error(&at, Finding::new(rule::INVALID, message).help(help));
    }
    (to_map(&pairs), mode)
}

/// Whether an object is enforced, or audited. A word that is neither must not leave any Pod
/// believing in the other.
fn mode(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>, text: &str, kind: Kind) -> Mode {
    if kind == Kind::Pod {
        let message = "a Pod has no mode: this is ignored";
        let help = "write it on the Pod's Namespace, or on the NetworkPolicies that select it";
        let finding = Finding::new(rule::IGNORED_FIELD, message).help(help);
        decoder.warning(&at.key(entry), finding);
        return Mode::default();
    }
    let modes = [Mode::Audit, Mode::Enforce];
    if let Some(mode) = modes.into_iter().find(|mode| mode.name() == text) {
        return mode;
    }
    let mut finding = Finding::unsupported(text, &modes.map(Mode::name));
    if finding.help.is_none() {
        finding = finding.help("`audit` drops nothing, and reports what `enforce` would drop");
    }
    decoder.error(&at.value(entry), finding);
    Mode::default()
}
