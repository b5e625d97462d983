//! Rules of nftables as `nft -j list ruleset` writes them (libnftables-json(5)). Those that iptables made are passed over
//! here: iptables-save(8) tells more of them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{Condition, Rule};

/// See [`super::iptables`].
const DEPTH: usize = 16;

/// A chain by family, table and name.
type Name<'a> = [&'a str; 3];

/// The rules that replace source addresses.
///
/// # Errors
/// It is no JSON.
pub fn parse(listed: &str) -> Result<Vec<Rule>, serde_json::Error> {
    let listed: Value = serde_json::from_str(listed)?;
    let all = listed["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    for chain in all.iter().filter_map(|one| one.get("chain")) {
        if chain["type"] == "nat" && chain["hook"] == "postrouting" {
            walk(all, name(chain, "name"), &[], 0, &mut found);
        }
    }
    Ok(found)
}

fn name<'a>(object: &'a Value, last: &str) -> Name<'a> {
    ["family", "table", last].map(|key| object[key].as_str().unwrap_or_default())
}

fn walk(all: &[Value], chain: Name<'_>, before: &[Condition], depth: usize, found: &mut Vec<Rule>) {
    let rules = all.iter().filter_map(|one| one.get("rule"));
    for rule in rules.filter(|rule| name(rule, "chain") == chain) {
        let mut conditions = before.to_vec();
        for statement in rule["expr"].as_array().into_iter().flatten() {
            if let Some(matched) = statement.get("match") {
                conditions.extend(condition(matched));
            }
            let target = ["jump", "goto"]
                .iter()
                .find_map(|verb| statement.get(*verb));
            if let Some(target) = target.and_then(|target| target["target"].as_str()) {
                if depth < DEPTH {
                    walk(
                        all,
                        [chain[0], chain[1], target],
                        &conditions,
                        depth + 1,
                        found,
                    );
                }
            } else if statement.get("masquerade").is_some() || statement.get("snat").is_some() {
                let [family, table, chain] = chain;
                let handle = &rule["handle"];
                found.push(Rule {
                    text: format!("nft rule {family} {table} {chain} handle {handle}"),
                    conditions: conditions.clone(),
                });
            }
        }
    }
}

/// What a match asks, where it is understood.
fn condition(matched: &Value) -> Option<Condition> {
    let negated = match matched["op"].as_str()? {
        "==" | "in" => false,
        "!=" => true,
        _ => return None,
    };
    let (left, right) = (&matched["left"], &matched["right"]);
    let elements = match right.get("set").and_then(Value::as_array) {
        Some(elements) => elements.as_slice(),
        None => std::slice::from_ref(right),
    };
    if let Some(key) = left["meta"]["key"].as_str() {
        let names: Option<Vec<String>> = elements
            .iter()
            .map(|name| name.as_str().map(ToOwned::to_owned))
            .collect();
        // The name of a set (`@x`) tells nothing.
        let names = names.filter(|names| names.iter().all(|name| !name.starts_with('@')))?;
        return match key {
            "oifname" | "oif" => Some(Condition::Out { names, negated }),
            "iifname" | "iif" => Some(Condition::In { names, negated }),
            _ => None,
        };
    }
    if left["fib"]["result"] == "type" && !negated && elements.iter().all(|one| one == "local") {
        let flags = left["fib"]["flags"].as_array();
        let is_source = flags.is_some_and(|flags| flags.iter().any(|flag| flag == "saddr"))
            || left["fib"]["flags"] == "saddr";
        return is_source.then_some(Condition::FromThisHost);
    }
    let nets: Vec<IpNet> = elements.iter().map(network).collect::<Option<_>>()?;
    match left["payload"]["field"].as_str()? {
        "saddr" => Some(Condition::Source { nets, negated }),
        "daddr" => Some(Condition::Destination { nets, negated }),
        _ => None,
    }
}

fn network(value: &Value) -> Option<IpNet> {
    if let Some(prefix) = value.get("prefix") {
        let address: IpAddr = prefix["addr"].as_str()?.parse().ok()?;
        let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
        return IpNet::new(address, length).ok();
    }
    value.as_str()?.parse::<IpAddr>().ok().map(IpNet::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Containers;
    use super::*;

    fn listing(expressions: &str) -> String {
        format!(
            r#"{{"nftables": [
                {{"chain": {{"family": "inet", "table": "t", "name": "out", "handle": 1, "type": "nat", "hook": "postrouting"}}}},
                {{"chain": {{"family": "inet", "table": "t", "name": "more", "handle": 2}}}},
                {{"rule": {{"family": "inet", "table": "t", "chain": "out", "handle": 7, "expr": [{expressions}]}}}},
                {{"rule": {{"family": "inet", "table": "t", "chain": "more", "handle": 8, "expr": [{{"masquerade": null}}]}}}},
                {{"rule": {{"family": "ip", "table": "t", "chain": "more", "handle": 9, "expr": [{{"masquerade": null}}]}}}}
            ]}}"#
        )
    }

    #[test]
    fn rules_are_read_with_their_conditions() {
        let containers = Containers {
            interfaces: ["docker0".to_owned()].into(),
            bridges: ["docker0".to_owned()].into(),
            addresses: ["172.17.0.2".parse().unwrap()].into(),
        };
        let out =
            r#"{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}}"#;
        let elsewhere = r#"{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": {"set": ["eth0", "eth1"]}}}"#;
        let from = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "172.17.0.0", "len": 16}}}}"#;
        let own = r#"{"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["saddr"]}}, "right": "local"}}"#;
        let named =
            r#"{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "@wan"}}"#;
        let masquerade = r#"{"masquerade": null}"#;
        let snat = r#"{"snat": {"addr": "192.0.2.1"}}"#;
        let jump = r#"{"jump": {"target": "more"}}"#;
        for (expressions, hides) in [
            (masquerade.to_owned(), true),
            (format!("{out}, {snat}"), true),
            (format!("{out}, {jump}"), true),
            (format!("{named}, {masquerade}"), true),
            (format!("{elsewhere}, {masquerade}"), false),
            (format!("{elsewhere}, {jump}"), false),
            (format!("{from}, {masquerade}"), false),
            (format!("{out}, {own}, {masquerade}"), false),
            (
                r#"{"xt": {"type": "target", "name": "MASQUERADE"}}"#.to_owned(),
                false,
            ),
            (r#"{"accept": null}"#.to_owned(), false),
        ] {
            let rules = parse(&listing(&expressions)).unwrap();
            let found = rules.iter().any(|rule| rule.hides(&containers));
            assert_eq!(found, hides, "{expressions}: {rules:?}");
        }
        assert_eq!(
            parse(&listing(masquerade)).unwrap()[0].text,
            "nft rule inet t out handle 7"
        );
        assert!(parse("no").is_err());
        assert_eq!(parse("{}").unwrap(), []);
    }
}
