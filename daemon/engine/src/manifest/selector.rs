//! LabelSelector: `matchLabels` and `matchExpressions`, all of which must hold
//! (`ValidateLabelSelector`). Used by podSelector and namespaceSelector.

use std::collections::BTreeSet;

use super::decode::{At, Decoder, Finding, clip, get, json, present, quoted, warn_null};
use super::metadata::{label_key, label_map, label_value};
use super::node::{Entry, Node, Value};
use super::scalar::Scalar;
use crate::diagnostic::rule;
use crate::labels::{Operator, Requirement, Selector};
use crate::names;
use crate::spelling::nearest;

const FIELDS: &[&str] = &["matchLabels", "matchExpressions"];
const EXPRESSION: &[&str] = &["key", "operator", "values"];
/// The label that every Namespace has.
const NAME: &str = "kubernetes.io/metadata.name";
const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist"];

/// A selector, the value of `podSelector` or `namespaceSelector`. What is wrong in it is
/// reported, and the object not used.
pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>) -> Selector {
    let meant = |node: &Node<'_>| meant_selector(&entry.key, node);
    let Some(fields) = decoder.mapping_or(at, &entry.value, meant) else {
        return Selector::everything();
    };
    for field in fields {
        match (&field.value.value, names::qualified(&field.key).is_empty()) {
            // `podSelector: {app: web}`
            (Value::Scalar(value, _), true) if !is_known(&field.key) => {
                let place = at.named(&field.key, field.span);
                let message = format!("unknown field {}", quoted(&place.to_string()));
                let finding = Finding::new(rule::UNKNOWN_FIELD, message);
                let (key, value) = (clip(&field.key), clip(value));
                let help = if (&*entry.key, &*key) == ("namespaceSelector", "name") {
                    format!("to name it, write matchLabels: {{{NAME}: {value}}}")
                } else {
                    format!("labels stand below `matchLabels`: {{{key}: {value}}}")
                };
                decoder.error(&place, finding.help(help));
            }
            _ => {
                decoder.only(at, std::slice::from_ref(field), FIELDS);
            }
        }
    }
    for name in FIELDS {
        if let Some(entry) = get(fields, name) {
            let so = "the selector asks for nothing here, and so selects more";
            warn_null(decoder, &at.field(entry), entry, so);
        }
    }
    let mut requirements = Vec::new();
    if let Some(entry) = present(fields, "matchLabels") {
        let labels = label_map(decoder, &at.field(entry), &entry.value, meant_label_map);
        let equal = |(key, value)| Requirement::equals(key, value);
        requirements.extend(labels.into_iter().map(equal));
    }
    if let Some(entry) = present(fields, "matchExpressions") {
        let at = at.field(entry);
        for (index, item) in decoder.items_or(&at, entry, meant_expressions) {
            requirements.extend(requirement(decoder, &at.index(index, item), item));
        }
    }
    Selector::new(requirements)
}

/// Is the field one of a selector's, a slip of one, or part of an expression?
fn is_known(field: &str) -> bool {
    nearest(field, FIELDS).is_some() || EXPRESSION.contains(&field)
}

/// What a selector that is no mapping was probably meant as.
fn meant_selector(field: &str, node: &Node<'_>) -> Option<String> {
    let Value::Scalar(text, Scalar::Text) = &node.value else {
        return None;
    };
    if let Some(labels) = meant_labels(text) {
        return Some(format!("write {{matchLabels: {labels}}}"));
    }
    if !names::label(text).is_empty() {
        let means_all = ["*", ""].contains(&&**text);
        return means_all.then(|| "{} selects all".to_owned());
    }
    Some(if field == "namespaceSelector" {
        format!("to name it, write {{matchLabels: {{{NAME}: {text}}}}}")
    } else {
        format!("write {{matchLabels: {{KEY: {text}}}}}, with the label that those Pods have")
    })
}

/// `app=web,tier=front`, as `kubectl get -l` has it.
pub(super) fn meant_labels(text: &str) -> Option<String> {
    let pairs: Option<Vec<_>> = text
        .split(',')
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let (key, value) = (key.trim(), value.trim_start_matches('=').trim());
            let valid = names::qualified(key).is_empty() && names::value(value).is_empty();
            valid.then(|| format!("{key}: {value}"))
        })
        .collect();
    Some(format!("{{{}}}", pairs?.join(", ")))
}

/// `matchLabels: [app]`, or `app=web`.
fn meant_label_map(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Scalar(text, Scalar::Text) => {
            meant_labels(text).map(|labels| format!("write {labels}"))
        }
        Value::List(_) => Some(
            "write each label as `KEY: VALUE`, without a dash; that a label is there at all is \
             for `matchExpressions`, with the operator Exists"
                .to_owned(),
        ),
        _ => None,
    }
}

/// `matchExpressions: {key: …}`
fn meant_expressions(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Mapping(_) => Some("begin each expression with `- `".to_owned()),
        _ => None,
    }
}

/// One of `matchExpressions` (`ValidateLabelSelectorRequirement`).
fn requirement(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<Requirement> {
    let fields = decoder.mapping(at, node)?;
    // What stands under a wrong name is not missing too.
    let slip = !decoder.only(at, fields, EXPRESSION);
    let values = values(decoder, at, fields);
    let operator = match get(fields, "operator") {
        None if slip => None,
        None => {
            let finding = Finding::invalid("\"\"", "not a valid selector operator");
            let help = "add `operator`: In, NotIn, Exists or DoesNotExist";
            decoder.error(&at.missing("operator"), finding.help(help));
            None
        }
        Some(entry) => {
            let at = at.field(entry);
            let text = decoder.string(&at, &entry.value);
            text.and_then(|text| operator(decoder, &at, text, values.as_ref()))
        }
    };
    if let (Some(operator), Some(values)) = (&operator, &values)
        && !(slip && values.is_empty())
    {
        let at = match get(fields, "values") {
            Some(entry) => at.field(entry),
            None => at.missing("values"),
        };
        count(decoder, &at, operator, values);
    }
    let key = match get(fields, "key") {
        None if slip => None,
        None => {
            let help = || "add the label's `key`".to_owned();
            decoder.breaches(&at.missing("key"), "", names::qualified(""), help);
            None
        }
        Some(entry) => {
            let at = at.field(entry);
            let key = decoder.string(&at, &entry.value)?;
            label_key(decoder, &at, key);
            Some(key.to_owned())
        }
    };
    Some(Requirement {
        key: key?,
        operator: operator?,
    })
}

/// `values`; `None`: one can't be read.
fn values(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
) -> Option<BTreeSet<String>> {
    let Some(entry) = get(fields, "values") else {
        return Some(BTreeSet::new());
    };
    let at = at.field(entry);
    let mut values = Some(BTreeSet::new());
    for (index, item) in decoder.list(&at, &entry.value)?.iter().enumerate() {
        let at = at.index(index, item);
        let Some(value) = decoder.string(&at, item) else {
            values = None;
            continue;
        };
        label_value(decoder, &at, value);
        if let Some(values) = &mut values {
            values.insert(value.to_owned());
        }
    }
    values
}

fn operator(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    text: &str,
    values: Option<&BTreeSet<String>>,
) -> Option<Operator> {
    let values = || values.cloned().unwrap_or_default();
    match text {
        "In" => Some(Operator::In(values())),
        "NotIn" => Some(Operator::NotIn(values())),
        "Exists" => Some(Operator::Exists),
        "DoesNotExist" => Some(Operator::DoesNotExist),
        _ => {
            let finding = Finding::invalid(json(text), "not a valid selector operator");
            let meant = match text.to_ascii_lowercase().as_str() {
                "=" | "==" | "equals" | "equal" | "is" => Some("In"),
                "!=" | "notequals" | "isnot" => Some("NotIn"),
                "!" | "notexists" => Some("DoesNotExist"),
                _ => nearest(text, OPERATORS),
            };
            let help = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "it is one of In, NotIn, Exists and DoesNotExist".to_owned(),
            };
            decoder.error(at, finding.help(help));
            None
        }
    }
}

fn count(decoder: &mut Decoder<'_>, at: &At<'_>, operator: &Operator, values: &BTreeSet<String>) {
    match operator {
        Operator::In(_) | Operator::NotIn(_) if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            let help = "list at least one value, or use Exists or DoesNotExist";
            decoder.error(at, Finding::required(detail).help(help));
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            let help = "remove the values, or use In or NotIn";
            decoder.error(at, Finding::forbidden(detail).help(help));
        }
        _ => {}
    }
}
