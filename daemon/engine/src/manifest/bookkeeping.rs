//! The fields of ObjectMeta that an API server keeps its books with: owners, finalizers,
//! field managers, times and counters. Nothing here means anything to netpold; a manifest
//! may come out of `kubectl get -o yaml`, and is refused where the API server would
//! (`ValidateOwnerReferences`, `ValidateFinalizers`, and the decoder's types).

use super::decode::{At, Decoder, Finding, json, present, quoted};
use super::node::{Entry, Node};
use crate::diagnostic::rule;
use crate::names;

/// Reports what is wrong with them.
pub(super) fn check(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>]) {
    for entry in fields {
        let (at, node) = (at.field(entry), &entry.value);
        match &*entry.key {
            "selfLink" | "uid" | "resourceVersion" => {
                decoder.string(&at, node);
            }
            "creationTimestamp" | "deletionTimestamp" => time(decoder, &at, node),
            "generation" if !node.is_null() => {
                if let Some(number) = decoder.integer(&at, node)
                    && number < 0
                {
                    let detail = "must be greater than or equal to 0";
                    let finding = Finding::invalid(number, detail);
                    decoder.error(&at, finding.help("remove it: the API server counts"));
                }
            }
            "deletionGracePeriodSeconds" if !node.is_null() => {
                decoder.integer(&at, node);
            }
            "ownerReferences" => owners(decoder, &at, entry),
            "finalizers" => finalizers(decoder, &at, entry),
            "managedFields" => managed(decoder, &at, entry),
            _ => {}
        }
    }
}

fn owners(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>) {
    let mut controller: Option<String> = None;
    for (index, item) in decoder.items(at, entry) {
        let place = at.index(index, item);
        let Some(fields) = decoder.mapping(&place, item) else {
            continue;
        };
        let known = &[
            "apiVersion",
            "kind",
            "name",
            "uid",
            "controller",
            "blockOwnerDeletion",
        ];
        let slip = !decoder.only(&place, fields, known);
        let mut text = |name: &str| {
            let Some(entry) = present(fields, name) else {
                return Some(String::new());
            };
            let text = decoder.string(&place.field(entry), &entry.value)?;
            Some(text.to_owned())
        };
        let [version, kind, name, uid] = ["apiVersion", "kind", "name", "uid"].map(&mut text);
        for (field, text) in [
            ("apiVersion", &version),
            ("kind", &kind),
            ("name", &name),
            ("uid", &uid),
        ] {
            if !slip && text.as_deref() == Some("") {
                let finding = Finding::required("must not be empty");
                let help = "an owner is named by apiVersion, kind, name and uid";
                decoder.error(&place.missing(field), finding.help(help));
            }
        }
        if let Some(version) = version.filter(|version| !is_version(version)) {
            let detail = "must be <group>/<version> or <version>";
            let finding = Finding::invalid(quoted(&version), detail);
            let entry = present(fields, "apiVersion");
            let at = entry.map_or(place, |entry| place.field(entry));
            decoder.error(&at, finding.help("such as `apps/v1`"));
        }
        for flag in ["controller", "blockOwnerDeletion"] {
            let Some(entry) = present(fields, flag) else {
                continue;
            };
            let set = decoder.boolean(&place.field(entry), &entry.value);
            if flag != "controller" || set != Some(true) {
                continue;
            }
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let this = format!("{}/{}", text(&kind), text(&name));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let message = format!(
                        "Invalid value: Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    let finding = Finding::new(rule::INVALID, message);
                    let help = "keep `controller: true` with one of the owners";
                    decoder.error(&at.marking(entry.span), finding.help(help));
                }
            }
        }
    }
}

/// `v1` or `apps/v1`; an empty one is told as missing.
fn is_version(text: &str) -> bool {
    text.is_empty() || (text.matches('/').count() <= 1 && !text.ends_with('/'))
}

fn finalizers(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>) {
    let mut stated = Vec::new();
    for (index, item) in decoder.items(at, entry) {
        let Some(text) = decoder.string(&at.index(index, item), item) else {
            continue;
        };
        let at = at.marking(item.span);
        let help = || "such as `example.com/cleanup`".to_owned();
        decoder.breaches(&at, text, names::qualified(text), help);
        // Two of all names matter; the list may be as long as the file.
        if ["orphan", "foregroundDeletion"].contains(&text) && !stated.contains(&text) {
            stated.push(text);
        }
    }
    if let [first, second] = stated[..] {
        let list = format!("[{},{}]", json(first), json(second));
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        let finding = Finding::invalid(list, detail);
        decoder.error(at, finding.help("keep one of the two"));
    }
}

fn managed(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>) {
    for (index, item) in decoder.items(at, entry) {
        let at = at.index(index, item);
        let Some(fields) = decoder.mapping(&at, item) else {
            continue;
        };
        let known = &[
            "apiVersion",
            "fieldsType",
            "fieldsV1",
            "manager",
            "operation",
            "subresource",
            "time",
        ];
        decoder.only(&at, fields, known);
        for entry in fields {
            let (at, node) = (at.field(entry), &entry.value);
            match &*entry.key {
                "time" => time(decoder, &at, node),
                "fieldsV1" => {}
                key if known.contains(&key) => {
                    decoder.string(&at, node);
                }
                _ => {}
            }
        }
    }
}

/// A time as the API writes it; null and nothing are none.
fn time(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) {
    if node.is_null() {
        return;
    }
    if let Some(text) = decoder.string(at, node)
        && !is_rfc3339(text)
    {
        let detail = "must be a time as RFC 3339 writes it";
        let finding = Finding::new(
            rule::WRONG_TYPE,
            format!("Invalid value: {}: {detail}", quoted(text)),
        );
        decoder.error(at, finding.help("such as 2006-01-02T15:04:05Z"));
    }
}

/// `2006-01-02T15:04:05Z`, with a fraction or an offset.
fn is_rfc3339(text: &str) -> bool {
    let number = |part: Option<&str>, most: u32| {
        part.is_some_and(|part| {
            part.bytes().all(|byte| byte.is_ascii_digit())
                && part.parse::<u32>().is_ok_and(|number| number <= most)
        })
    };
    let marks = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    if !text.is_ascii()
        || marks
            .iter()
            .any(|(at, mark)| !text[(*at).min(text.len())..].starts_with(*mark))
    {
        return false;
    }
    let fields = [
        (0..4, 9999),
        (5..7, 12),
        (8..10, 31),
        (11..13, 23),
        (14..16, 59),
        (17..19, 59),
    ];
    if !fields
        .into_iter()
        .all(|(range, most)| number(text.get(range), most))
        || text[5..7] == *"00"
        || text[8..10] == *"00"
    {
        return false;
    }
    let rest = &text[19..];
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|letter: char| letter.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
    };
    zone == "Z"
        || (zone.len() == 6
            && zone.starts_with(['+', '-'])
            && zone[3..].starts_with(':')
            && number(zone.get(1..3), 24)
            && number(zone.get(4..6), 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for good in [
            "2006-01-02T15:04:05Z",
            "2006-01-02T15:04:05.999999999Z",
            "2006-01-02T15:04:05+07:00",
            "2006-12-31T23:59:59.1-11:30",
        ] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "now",
            "2006-01-02",
            "2006-01-02 15:04:05Z",
            "2006-01-02T15:04:05",
            "2006-01-02T15:04:05.Z",
            "2006-01-02t15:04:05z",
            "2006-13-02T15:04:05Z",
            "2006-00-02T15:04:05Z",
            "2006-01-00T15:04:05Z",
            "2006-01-02T24:04:05Z",
            "2006-01-02T15:04:05+0700",
            "2006-01-02T15:04:05Z ",
            "２００６-01-02T15:04:05Z",
            "+006-01-02T15:04:05Z",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
