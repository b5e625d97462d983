//! The decoder: trees to typed values, collecting every mistake on the way.
//!
//! Owns field paths (in the API server's notation), the wording of type errors,
//! unknown fields and repeated keys, and the report of one object. Knows no kind.
//! A method that returns `None` has reported why; the caller goes on with the rest,
//! so that one run shows all mistakes. Called by the files that know kinds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

pub(super) use super::finding::{Finding, clip, json, quoted};
use super::node::{Entry, Node, Span, Value};
use super::report;
use super::scalar::Scalar;
use crate::diagnostic::{Diagnostic, Mark, Severity, rule};
use crate::names;
use crate::spelling::nearest;

/// A field and its place: a list on the stack, written out only for a report.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    parent: Option<&'p At<'p>>,
    step: Step<'p>,
    span: Span,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Key(&'p str),
    Index(usize),
}

impl<'p> At<'p> {
    /// An object as a whole.
    pub(super) fn root(span: Span) -> At<'static> {
        At {
            parent: None,
            step: Step::Root,
            span,
        }
    }

    /// A field of it that is there.
    pub(super) fn field(&'p self, entry: &'p Entry<'_>) -> At<'p> {
        let span = match entry.value.value {
            // A block's own place is its first key: too far from what is meant.
            Value::Mapping(_) | Value::List(_) => entry.span,
            Value::Scalar(..) if entry.value.span.length == 0 => entry.span,
            Value::Scalar(..) => entry.value.span,
        };
        At {
            parent: Some(self),
            step: Step::Field(&entry.key),
            span,
        }
    }

    /// A field of it that is missing, or whose key is meant.
    pub(super) fn named(&'p self, name: &'p str, span: Span) -> At<'p> {
        At {
            parent: Some(self),
            step: Step::Field(name),
            span,
        }
    }

    /// A field of it that is missing.
    pub(super) fn missing(&'p self, name: &'p str) -> At<'p> {
        self.named(name, self.span)
    }

    /// The key of an entry whose keys the author chooses, as a label's.
    pub(super) fn key(&'p self, entry: &'p Entry<'_>) -> At<'p> {
        At {
            parent: Some(self),
            step: Step::Key(&entry.key),
            span: entry.span,
        }
    }

    /// The value of such an entry.
    pub(super) fn value(&'p self, entry: &'p Entry<'_>) -> At<'p> {
        At {
            span: self.field(entry).span,
            ..self.key(entry)
        }
    }

    /// An item of it.
    pub(super) fn index(&'p self, index: usize, node: &Node<'_>) -> At<'p> {
        let span = match &node.value {
            // A block begins at its first key, which shows better than its first letter.
            Value::Mapping(entries) => match entries.first() {
                Some(entry) if entry.span.place() == node.span.place() => entry.span,
                _ => node.span,
            },
            _ => node.span,
        };
        At {
            parent: Some(self),
            step: Step::Index(index),
            span,
        }
    }

    /// The same field, another place marked: the API server names a map of labels as a
    /// whole, and the author wants to see which of them.
    pub(super) fn marking(&self, span: Span) -> At<'p> {
        At { span, ..*self }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }
}

/// `spec.ingress[0].from[1]`
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{}]", clip(key)),
            Step::Field(name) => {
                if self.parent.is_some_and(|at| at.parent.is_some()) {
                    f.write_str(".")?;
                }
                f.write_str(&clip(name))
            }
        }
    }
}

/// Whose findings these are.
#[derive(Clone, Default)]
pub(super) struct Identity {
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

/// Fields that people expect beside a field of the API, and what they are to write.
const MISTAKEN: &[(&str, &str, &str)] = &[
    (
        "ipBlock",
        "namespace",
        "a peer names a Namespace by its label: namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}",
    ),
    (
        "ipBlock",
        "nodeSelector",
        "a NetworkPolicy knows no nodes: a peer has podSelector, namespaceSelector or ipBlock",
    ),
    (
        "endPort",
        "name",
        "a port's name stands in `port`, in the place of its number: `port: http`",
    ),
    (
        "policyTypes",
        "action",
        "a NetworkPolicy has no actions: the Pods that it selects are denied all that no rule allows",
    ),
];

/// Where fields of a kind belong: for one that stands elsewhere, most often by its indent.
pub(super) type Homes = &'static [(&'static str, &'static str)];

/// Decodes one object and collects what is wrong with it.
pub(super) struct Decoder<'f> {
    path: &'f str,
    pub(super) identity: Identity,
    pub(super) homes: Homes,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl<'f> Decoder<'f> {
    pub(super) fn new(path: &'f str) -> Self {
        Self {
            path,
            identity: Identity::default(),
            homes: &[],
            diagnostics: Vec::new(),
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    pub(super) fn error(&mut self, at: &At<'_>, finding: Finding) {
        self.report(Severity::Error, at, finding);
    }

    pub(super) fn warning(&mut self, at: &At<'_>, finding: Finding) {
        self.report(Severity::Warning, at, finding);
    }

    /// `Invalid value` for each rule that a text breaks, as the API server lists them. Most
    /// texts break none, and then no code has to think of help.
    pub(super) fn breaches(
        &mut self,
        at: &At<'_>,
        text: &str,
        breaches: names::Breaches,
        help: impl FnOnce() -> String,
    ) {
        if breaches.is_empty() {
            return;
        }
        let help = help();
        for breach in breaches {
            let finding = Finding::invalid(quoted(text), breach);
            self.error(at, finding.help(&*help));
        }
    }

    fn report(&mut self, severity: Severity, at: &At<'_>, finding: Finding) {
        // The first error is always kept, so that the object never looks valid.
        if self.diagnostics.len() >= report::MAX
            && (severity == Severity::Warning || self.has_errors())
        {
            return;
        }
        let field = at.to_string();
        let also = finding.also.map(|(span, label)| Mark {
            line: span.line as usize,
            column: span.column as usize,
            length: span.length as usize,
            label,
        });
        self.diagnostics.push(Diagnostic {
            path: self.path.to_owned(),
            line: at.span.line as usize,
            column: at.span.column as usize,
            length: at.span.length as usize,
            also,
            severity,
            rule: finding.rule,
            kind: self.identity.kind.clone(),
            namespace: self.identity.namespace.clone(),
            name: self.identity.name.clone(),
            field: Some(field).filter(|field| !field.is_empty()),
            message: finding.message,
            help: finding.help,
        });
    }

    /// The entries of a mapping; null has none, as in the API.
    pub(super) fn mapping<'n, 'a>(
        &mut self,
        at: &At<'_>,
        node: &'n Node<'a>,
    ) -> Option<&'n [Entry<'a>]> {
        self.mapping_or(at, node, |_| None)
    }

    /// As [`Self::mapping`]; where there is none, what the text was probably meant as.
    pub(super) fn mapping_or<'n, 'a>(
        &mut self,
        at: &At<'_>,
        node: &'n Node<'a>,
        meant: impl FnOnce(&Node<'a>) -> Option<String>,
    ) -> Option<&'n [Entry<'a>]> {
        match &node.value {
            Value::Mapping(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => {
                self.wrong_type_meant(at, node, "a mapping", meant(node));
                None
            }
        }
    }

    /// The items of a list; null has none.
    pub(super) fn list<'n, 'a>(
        &mut self,
        at: &At<'_>,
        node: &'n Node<'a>,
    ) -> Option<&'n [Node<'a>]> {
        self.list_or(at, node, |_| None)
    }

    /// As [`Self::list`]; where there is none, what the text was probably meant as.
    pub(super) fn list_or<'n, 'a>(
        &mut self,
        at: &At<'_>,
        node: &'n Node<'a>,
        meant: impl FnOnce(&Node<'a>) -> Option<String>,
    ) -> Option<&'n [Node<'a>]> {
        match &node.value {
            Value::List(nodes) => Some(nodes),
            _ if node.is_null() => Some(&[]),
            _ => {
                self.wrong_type_meant(at, node, "a list", meant(node));
                None
            }
        }
    }

    /// The items of a field that is a list, numbered.
    pub(super) fn items<'n, 'a>(
        &mut self,
        at: &At<'_>,
        entry: &'n Entry<'a>,
    ) -> std::iter::Enumerate<std::slice::Iter<'n, Node<'a>>> {
        self.items_or(at, entry, |_| None)
    }

    /// As [`Self::items`]; where there is no list, what the text was probably meant as.
    pub(super) fn items_or<'n, 'a>(
        &mut self,
        at: &At<'_>,
        entry: &'n Entry<'a>,
        meant: impl FnOnce(&Node<'a>) -> Option<String>,
    ) -> std::iter::Enumerate<std::slice::Iter<'n, Node<'a>>> {
        self.list_or(at, &entry.value, meant)
            .unwrap_or_default()
            .iter()
            .enumerate()
    }

    /// A string; null is the empty one, as in the API.
    pub(super) fn string<'n>(&mut self, at: &At<'_>, node: &'n Node<'_>) -> Option<&'n str> {
        match &node.value {
            Value::Scalar(text, Scalar::Text) => Some(text),
            Value::Scalar(_, Scalar::Null) => Some(""),
            _ => {
                self.wrong_type(at, node, "a string");
                None
            }
        }
    }

    /// A boolean; null is false.
    pub(super) fn boolean(&mut self, at: &At<'_>, node: &Node<'_>) -> Option<bool> {
        match &node.value {
            Value::Scalar(_, Scalar::Bool(value)) => Some(*value),
            Value::Scalar(_, Scalar::Null) => Some(false),
            _ => {
                self.wrong_type(at, node, "a boolean");
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn integer(&mut self, at: &At<'_>, node: &Node<'_>) -> Option<i128> {
        if let Value::Scalar(text, scalar) = &node.value
            && let Some(value) = whole(*scalar)
        {
            if value.to_string() != *text {
                let message = format!("`{}` is read as {value}", clip(text));
                let help = "write it in plain decimal digits";
                self.warning(at, Finding::new(rule::YAML_READING, message).help(help));
            }
            return Some(value);
        }
        self.wrong_type(at, node, "a whole number");
        None
    }

    /// Strings by string, with the place of each.
    pub(super) fn string_map<'n, 'a>(
        &mut self,
        at: &At<'_>,
        node: &'n Node<'a>,
        meant: fn(&Node<'_>) -> Option<String>,
    ) -> Vec<(&'n Entry<'a>, &'n str)> {
        let entries = self.mapping_or(at, node, meant).unwrap_or_default();
        let mut pairs = Vec::with_capacity(entries.len());
        for entry in entries {
            let place = at.value(entry);
            if let Some(written) = &entry.written {
                let message = format!("the key `{}` is read as `{}`", clip(written), entry.key);
                let finding = Finding::new(rule::YAML_READING, message);
                self.warning(&at.key(entry), finding.help("write the key in quotes"));
            }
            if entry.value.is_null() {
                let message = "null is read as the empty string";
                let help = "write \"\" where the empty string is meant";
                self.warning(&place, Finding::new(rule::NULL_FIELD, message).help(help));
            }
            if let Some(text) = self.string(&place, &entry.value) {
                pairs.push((entry, text));
            }
        }
        pairs
    }

    pub(super) fn wrong_type(&mut self, at: &At<'_>, node: &Node<'_>, expected: &str) {
        self.wrong_type_meant(at, node, expected, None);
    }

    /// As [`Self::wrong_type`], with what was probably meant.
    pub(super) fn wrong_type_meant(
        &mut self,
        at: &At<'_>,
        node: &Node<'_>,
        expected: &str,
        meant: Option<String>,
    ) {
        let finding = match &node.value {
            Value::Scalar(text, scalar) => {
                let value = match scalar {
                    Scalar::Text => quoted(text),
                    _ => clip(text).into_owned(),
                };
                let message = format!(
                    "Invalid value: {value}: must be {expected}, not {}",
                    scalar.describe()
                );
                let finding = Finding::new(rule::WRONG_TYPE, message);
                match (expected, scalar) {
                    ("a string", Scalar::Bool(value)) if value.to_string() != *text => finding
                        .help(format!(
                            "YAML reads `{0}` as the boolean {value}: write \"{0}\", in quotes",
                            clip(text)
                        )),
                    ("a string", _) => finding.help(format!("write \"{}\", in quotes", clip(text))),
                    ("a whole number" | "a boolean", Scalar::Text)
                        if Scalar::plain(text) != Scalar::Text =>
                    {
                        finding.help("write it without quotes")
                    }
                    ("a list", _) => finding.help(format!("write [{}], in brackets", clip(text))),
                    ("a mapping", Scalar::Text) => match text.split_once(':') {
                        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                            let (key, value) = (clip(key), clip(value.trim()));
                            let help = "a space follows the colon";
                            finding.help(format!("write `{key}: {value}`: {help}"))
                        }
                        _ => finding,
                    },
                    _ => finding,
                }
            }
            Value::List(_) => Finding::new(
                rule::WRONG_TYPE,
                format!("Invalid value: must be {expected}, not a list"),
            ),
            Value::Mapping(_) => {
                let message = format!("Invalid value: must be {expected}, not a mapping");
                let finding = Finding::new(rule::WRONG_TYPE, message);
                if expected == "a list" {
                    finding.help("begin each item with `- `")
                } else {
                    finding
                }
            }
        };
        self.error(
            at,
            match meant {
                Some(meant) => finding.help(meant),
                None => finding,
            },
        );
    }

    /// Reports fields that the API does not have here. Are there none?
    pub(super) fn only(&mut self, at: &At<'_>, entries: &[Entry<'_>], known: &[&str]) -> bool {
        let mut all_known = true;
        for entry in entries {
            if !known.contains(&&*entry.key) {
                self.unknown(at, entry, known);
                all_known = false;
            }
        }
        all_known
    }

    fn unknown(&mut self, at: &At<'_>, entry: &Entry<'_>, known: &[&str]) {
        let place = at.named(&entry.key, entry.span);
        let message = format!("unknown field {}", quoted(&place.to_string()));
        let home = || self.homes.iter().find(|(field, _)| *field == entry.key);
        let mistaken = MISTAKEN
            .iter()
            .find(|(sibling, field, _)| known.contains(sibling) && *field == entry.key);
        let help = match nearest(&entry.key, known) {
            _ if mistaken.is_some() => mistaken.map_or("", |(_, _, help)| help).to_owned(),
            Some(meant) => format!("did you mean `{meant}`?"),
            None => match home() {
                Some((field, home)) => format!("`{field}` belongs {home}: check the indentation"),
                None => format!("the fields here are {}", known.join(", ")),
            },
        };
        self.error(
            &place,
            Finding::new(rule::UNKNOWN_FIELD, message).help(help),
        );
    }

    /// Reports keys that stand twice in one mapping, anywhere below.
    pub(super) fn no_duplicates(&mut self, at: &At<'_>, node: &Node<'_>) {
        match &node.value {
            Value::Scalar(..) => {}
            Value::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    if !matches!(node.value, Value::Scalar(..)) {
                        self.no_duplicates(&at.index(index, node), node);
                    }
                }
            }
            Value::Mapping(entries) => {
                self.duplicates(at, entries);
                for entry in entries {
                    if !matches!(entry.value.value, Value::Scalar(..)) {
                        self.no_duplicates(&at.field(entry), &entry.value);
                    }
                }
            }
        }
    }

    fn duplicates(&mut self, at: &At<'_>, entries: &[Entry<'_>]) {
        // Most mappings are small, and a comparison of all pairs needs no memory.
        if entries.len() <= 8 {
            for (index, entry) in entries.iter().enumerate() {
                if let Some(first) = entries[..index].iter().find(|e| e.key == entry.key) {
                    self.duplicate(at, entry, first.span);
                }
            }
            return;
        }
        let mut seen: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        for entry in entries {
            match seen.get(&*entry.key) {
                Some(first) => self.duplicate(at, entry, *first),
                None => {
                    seen.insert(&entry.key, entry.span);
                }
            }
        }
    }

    fn duplicate(&mut self, at: &At<'_>, entry: &Entry<'_>, first: Span) {
        let place = at.named(&entry.key, entry.span);
        let message = format!("duplicate field {}", quoted(&place.to_string()));
        let help = format!(
            "it stands at line {} already: keep one of the two, or merge them",
            first.line
        );
        let finding = Finding::new(rule::DUPLICATE_KEY, message).help(help);
        self.error(&place, finding.also(first, "first here"));
    }
}

/// The field of this name. Where it stands twice the first; that is reported elsewhere.
pub(super) fn get<'n, 'a>(entries: &'n [Entry<'a>], name: &str) -> Option<&'n Entry<'a>> {
    entries.iter().find(|entry| entry.key == name)
}

/// As [`get`], with null as absent: what the API's pointers, lists and mappings make of it.
pub(super) fn present<'n, 'a>(entries: &'n [Entry<'a>], name: &str) -> Option<&'n Entry<'a>> {
    get(entries, name).filter(|entry| !entry.value.is_null())
}

/// The fields below an entry, where it is a mapping; reports nothing.
pub(super) fn below<'n, 'a>(entry: &'n Entry<'a>) -> &'n [Entry<'a>] {
    match &entry.value.value {
        Value::Mapping(fields) => fields,
        _ => &[],
    }
}

/// A number that JSON writes without a fraction: go-yaml turns `80.0` into `80`.
pub(super) fn whole(scalar: Scalar) -> Option<i128> {
    match scalar {
        Scalar::Int(value) => Some(value),
        // Go writes floats from 1e21 on with an exponent, which is no integer to its decoder.
        #[allow(clippy::cast_possible_truncation)]
        Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 1e21 => Some(value as i128),
        _ => None,
    }
}

/// Pairs of a mapping as an owned map.
pub(super) fn to_map(pairs: &[(&Entry<'_>, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(entry, value)| (entry.key.clone().into_owned(), (*value).to_owned()))
        .collect()
}

/// `null` where it widens or narrows what the author sees: the API takes it as left out.
pub(super) fn warn_null(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>, so: &str) {
    if entry.value.is_null() {
        let message = format!("no value is the same as leaving the field out: {so}");
        let help = "remove the field, or give it a value";
        decoder.warning(at, Finding::new(rule::NULL_FIELD, message).help(help));
    }
}
