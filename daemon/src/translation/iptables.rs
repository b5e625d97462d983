//! The nat table as iptables-save(8) writes it: a rule on a line, its conditions as options.

use std::collections::BTreeMap;

use super::{Condition, Rule};

/// Marks by which CNI's portmap plugin and netavark let what containers and the host send to published ports be
/// masqueraded.
const ENGINES_MARK: &str = "0x2000/0x2000";

/// How deep chains may lead into one another. iptables refuses loops, a text need not.
const DEPTH: usize = 16;

/// The rules that replace source addresses. `program` stands in their text.
#[must_use]
pub fn parse(program: &str, saved: &str) -> Vec<Rule> {
    let mut chains: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
    let mut is_nat = false;
    for line in saved.lines() {
        if let Some(table) = line.strip_prefix('*') {
            is_nat = table == "nat";
        } else if is_nat && let Some(rule) = line.strip_prefix("-A ") {
            let (chain, options) = rule.split_once(' ').unwrap_or((rule, ""));
            chains
                .entry(chain)
                .or_default()
                .push(Line::read(line, options));
        }
    }
    let mut found = Vec::new();
    walk(program, &chains, "POSTROUTING", &[], 0, &mut found);
    found
}

struct Line<'a> {
    text: &'a str,
    conditions: Vec<Condition>,
    target: Option<String>,
}

fn walk(
    program: &str,
    chains: &BTreeMap<&str, Vec<Line<'_>>>,
    chain: &str,
    before: &[Condition],
    depth: usize,
    found: &mut Vec<Rule>,
) {
    for line in chains.get(chain).into_iter().flatten() {
        let Some(target) = line.target.as_deref() else {
            continue;
        };
        let conditions = [before, &line.conditions].concat();
        if matches!(target, "MASQUERADE" | "SNAT" | "NETMAP") {
            found.push(Rule {
                text: format!("{program} -t nat {}", line.text),
                conditions,
            });
        } else if depth < DEPTH && chains.contains_key(target) {
            walk(program, chains, target, &conditions, depth + 1, found);
        }
    }
}

impl<'a> Line<'a> {
    fn read(text: &'a str, options: &str) -> Self {
        let words = words(options);
        let mut line = Self {
            text,
            conditions: Vec::new(),
            target: None,
        };
        let mut negated = false;
        let mut at = words.iter();
        while let Some(word) = at.next() {
            let mut names = || vec![at.next().cloned().unwrap_or_default()];
            match word.as_str() {
                "!" => {
                    negated = true;
                    continue;
                }
                "-o" | "--out-interface" => {
                    let names = names();
                    line.conditions.push(Condition::Out { names, negated });
                }
                "-i" | "--in-interface" => {
                    let names = names();
                    line.conditions.push(Condition::In { names, negated });
                }
                "-s" | "--source" => {
                    // What can't be read may be anything.
                    if let Some(net) = names().first().and_then(|one| network(one)) {
                        let nets = vec![net];
                        line.conditions.push(Condition::Source { nets, negated });
                    }
                }
                "-d" | "--destination" => {
                    if let Some(net) = names().first().and_then(|one| network(one)) {
                        let nets = vec![net];
                        line.conditions
                            .push(Condition::Destination { nets, negated });
                    }
                }
                "--src-type" if !negated && names().first().is_some_and(|one| one == "LOCAL") => {
                    line.conditions.push(Condition::FromThisHost);
                }
                "--mark" if !negated && names().first().is_some_and(|one| one == ENGINES_MARK) => {
                    line.conditions.push(Condition::FromThisHost);
                }
                "-j" | "--jump" | "-g" | "--goto" => line.target = at.next().cloned(),
                _ => {}
            }
            negated = false;
        }
        line
    }
}

fn network(text: &str) -> Option<ipnet::IpNet> {
    let address = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    text.parse().or_else(|_| address()).ok()
}

/// Words, quoted ones whole: a comment may say anything.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut any) = (String::new(), false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            '\\' if quoted => word.extend(letters.next()),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => {
                word.push(letter);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn conditions_of_the_chains_on_the_way_count() {
        let saved = "# Generated by iptables-save\n*filter\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n*nat\n\
                     :POSTROUTING ACCEPT [0:0]\n:MINE - [0:0]\n-A POSTROUTING -s 10.0.0.0/8 -j MINE\n\
                     -A MINE ! -o eth0 -m comment --comment \"not -j ACCEPT\" -j MASQUERADE\nCOMMIT\n";
        assert_eq!(
            parse("iptables", saved),
            [Rule {
                text: "iptables -t nat -A MINE ! -o eth0 -m comment --comment \"not -j ACCEPT\" -j MASQUERADE"
                    .to_owned(),
                conditions: vec![
                    Condition::Source {
                        nets: vec!["10.0.0.0/8".parse().unwrap()],
                        negated: false
                    },
                    Condition::Out {
                        names: vec!["eth0".to_owned()],
                        negated: true
                    },
                ],
            }]
        );
    }

    #[test]
    fn chains_that_lead_into_themselves_end() {
        let saved = "*nat\n-A POSTROUTING -j A\n-A A -j B\n-A B -j A\n-A B -j MASQUERADE\nCOMMIT\n";
        assert!(!parse("iptables", saved).is_empty());
    }
}
