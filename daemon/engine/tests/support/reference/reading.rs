//! Manifests' text as k8s-openapi's types: what an API server makes of it before it validates.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;
use serde_json::{Value, json};

/// One object of a kind that counts.
#[derive(Clone, Debug)]
pub enum Document {
    NetworkPolicy(NetworkPolicy),
    Pod(Box<Pod>),
    Namespace(Namespace),
}

/// The objects of a file, Lists unpacked, in order. Other kinds are left out.
pub fn documents(text: &str) -> Result<Vec<Document>, String> {
    let mut found = Vec::new();
    for value in values(text)? {
        collect(value, None, &mut found)?;
    }
    Ok(found)
}

/// The documents of a file as plain values. sigs.k8s.io/yaml reads YAML 1.1: a number that
/// begins with 0 is octal.
fn values(text: &str) -> Result<Vec<Value>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(vec![value]);
    }
    let options = serde_saphyr::options! { legacy_octal_numbers: true, budget: None };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

/// `implied`: what a typed List says of its items ("NetworkPolicyList is a list of NetworkPolicy
/// objects"), which need not say it again.
fn collect(
    mut value: Value,
    implied: Option<(&str, &str)>,
    found: &mut Vec<Document>,
) -> Result<(), String> {
    let Some(object) = value.as_object_mut() else {
        return if value.is_null() && implied.is_none() {
            Ok(())
        } else {
            Err(format!("{value} is no object"))
        };
    };
    if let Some((version, kind)) = implied {
        for (field, value) in [("apiVersion", version), ("kind", kind)] {
            let stated = object.entry(field).or_insert(Value::Null);
            if stated.is_null() {
                *stated = json!(value);
            }
        }
    }
    let text = |field: &str| {
        object
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
    let items = match (version.as_str(), kind.as_str()) {
        ("v1", "List") => None,
        ("v1", "PodList") => Some(("v1", "Pod")),
        ("v1", "NamespaceList") => Some(("v1", "Namespace")),
        ("networking.k8s.io/v1", "NetworkPolicyList") => {
            Some(("networking.k8s.io/v1", "NetworkPolicy"))
        }
        ("v1", "Pod") => {
            found.push(Document::Pod(Box::new(typed(value)?)));
            return Ok(());
        }
        ("v1", "Namespace") => {
            found.push(Document::Namespace(typed(value)?));
            return Ok(());
        }
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            found.push(Document::NetworkPolicy(typed(value)?));
            return Ok(());
        }
        _ => return Ok(()),
    };
    let inside = object.get_mut("items").map(Value::take);
    match inside.unwrap_or_default() {
        Value::Null => Ok(()),
        Value::Array(inside) => inside
            .into_iter()
            .try_for_each(|item| collect(item, items, found)),
        other => Err(format!("the items of a List are no list: {other}")),
    }
}

fn typed<T: for<'de> Deserialize<'de>>(mut value: Value) -> Result<T, String> {
    nulls("", &mut value);
    T::deserialize(&value).map_err(|error| format!("{error} in {value}"))
}

/// Go reads `null` as the zero value of whatever stands there: nothing for a field, `""` for a
/// string in a list or a map, `{}` for an object in a list. serde wants it said. `field`: the name
/// of the field that holds the value.
fn nulls(field: &str, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if matches!(field, "matchLabels" | "labels" | "annotations") {
                for value in map.values_mut().filter(|value| value.is_null()) {
                    *value = json!("");
                }
            }
            map.retain(|_, value| !value.is_null());
            for (field, value) in map {
                nulls(field, value);
            }
        }
        Value::Array(items) => {
            for item in items {
                if item.is_null() {
                    let text = matches!(field, "values" | "except" | "policyTypes" | "finalizers");
                    *item = if text { json!("") } else { json!({}) };
                }
                nulls(field, item);
            }
        }
        _ => {}
    }
}
