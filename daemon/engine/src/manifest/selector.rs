//! LabelSelector: `matchLabels` and `matchExpressions`, all of which must hold
//! (`ValidateLabelSelector`). Used by podSelector and namespaceSelector.

use std::collections::BTreeSet;

use super::decode::{At, Decoder, Finding, get, nearest, present, quoted};
use super::metadata::{label_key, label_map, label_value};
use super::tree::Node;
use crate::labels::{Operator, Requirement, Selector};

const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist"];

/// A selector. What is wrong in it is reported, and the object not used.
pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Selector {
    let Some(fields) = decoder.mapping(at, node) else {
        return Selector::everything();
    };
    let known = &["matchLabels", "matchExpressions"];
    if let Some(entry) = fields.iter().find(|entry| !known.contains(&&*entry.key))
        && nearest(&entry.key, known).is_none()
    {
        let message = format!("unknown field \"{}\"", at.named(&entry.key, entry.span));
        let finding = Finding::new(crate::diagnostic::rule::UNKNOWN_FIELD, message);
        let help = "labels that must match stand below `matchLabels`";
        decoder.error(&at.named(&entry.key, entry.span), finding.help(help));
    } else {
        decoder.only(at, fields, known);
    }
    let mut requirements = Vec::new();
    if let Some(entry) = present(fields, "matchLabels") {
        let labels = label_map(decoder, &at.field(entry), &entry.value);
        let equal = |(key, value)| Requirement::equals(key, value);
        requirements.extend(labels.into_iter().map(equal));
    }
    if let Some(entry) = present(fields, "matchExpressions") {
        let at = at.field(entry);
        for (index, item) in decoder.items(&at, entry) {
            requirements.extend(requirement(decoder, &at.index(index, item), item));
        }
    }
    Selector::new(requirements)
}

/// One of `matchExpressions` (`ValidateLabelSelectorRequirement`).
fn requirement(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<Requirement> {
    let fields = decoder.mapping(at, node)?;
    decoder.only(at, fields, &["key", "operator", "values"]);
    let values = values(decoder, at, fields);
    let operator = match get(fields, "operator") {
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
    if let (Some(operator), Some(values)) = (&operator, &values) {
        let at = match get(fields, "values") {
            Some(entry) => at.field(entry),
            None => at.missing("values"),
        };
        count(decoder, &at, operator, values);
    }
    let key = match get(fields, "key") {
        None => {
            let finding = Finding::invalid("\"\"", "name part must be non-empty");
            decoder.error(&at.missing("key"), finding.help("add the label's `key`"));
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
    fields: &[super::tree::Entry<'_>],
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
            let finding = Finding::invalid(quoted(text), "not a valid selector operator");
            let help = match nearest(text, OPERATORS) {
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
