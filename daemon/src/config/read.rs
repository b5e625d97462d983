//! From TOML text to [`Config`], with the place of everything that is wrong.
//!
//! Owns the list of keys. Walks the parsed tables by hand instead of deriving
//! `Deserialize`: so all problems are found in one run, each with its key, place and
//! remedy. Pure. Called by `config::parse` only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use netpol_abi::connection::Timeout;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Config, Enabled, Established, HostTraffic, LabelSettings, Mode, Problem, Timeouts, Unidentified,
};
use crate::syntax;

/// `sockaddr_un.sun_path` holds 108 bytes with its closing zero.
const SOCKET_PATH_BYTES: usize = 107;

/// Every section, and its keys.
const KEYS: [(&str, &[&str]); 14] = [
    ("manifests", &["directory", "follow"]),
    ("docker", &["enabled", "sockets", "socket"]),
    ("containerd", &["enabled", "socket", "namespaces"]),
    ("labels", &["rename"]),
    ("namespaces", &["from", "default"]),
    ("enforcement", &["mode", "unidentified", "established"]),
    ("host", &["ingress", "egress"]),
    ("dns", &["kube-dns"]),
    ("timeouts", &TIMEOUT_KEYS),
    ("datapath", &["pin-directory"]),
    ("gate", &["enabled", "table"]),
    ("state", &["directory"]),
    ("api", &["socket", "group"]),
    ("metrics", &["listen"]),
];

const TIMEOUT_KEYS: [&str; Timeout::ALL.len()] = {
    let mut keys = [""; Timeout::ALL.len()];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = Timeout::ALL[index].key();
        index += 1;
    }
    keys
};

type Value<'i> = Spanned<DeValue<'i>>;

/// All problems, or the configuration.
pub(super) fn read(bytes: &[u8]) -> Result<Config, Vec<Problem>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let (line, column) = place(&good, good.len());
            return Err(vec![Problem {
                line,
                column,
                key: String::new(),
                message: "not UTF-8".to_owned(),
                help: "TOML files are UTF-8 text".to_owned(),
            }]);
        }
    };
    // A file that an editor on another system marked with a byte-order mark is still TOML.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        problems: Vec::new(),
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            reader.problem(
                "",
                &error.span().unwrap_or(0..0),
                error.message().trim(),
                "the file is TOML: `[section]` lines, and `key = value` lines below them",
            );
            return Err(reader.problems);
        }
    };
    let config = reader.config(table.get_ref());
    if reader.problems.is_empty() {
        Ok(config)
    } else {
        reader
            .problems
            .sort_by_key(|problem| (problem.line, problem.column));
        Err(reader.problems)
    }
}

struct Reader<'i> {
    text: &'i str,
    problems: Vec<Problem>,
}

/// Line and column, from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// How a value is written in messages.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Integer(value) => value.as_str().to_owned(),
        other => format!("a TOML {}", other.type_str()),
    }
}

impl Reader<'_> {
    fn problem(
        &mut self,
        key: &str,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (line, column) = place(self.text, span.start);
        self.problems.push(Problem {
            line,
            column,
            key: key.to_owned(),
            message: message.into(),
            help: help.into(),
        });
    }

    fn config(&mut self, root: &DeTable<'_>) -> Config {
        let mut config = Config::default();
        for (name, value) in root {
            let section = name.get_ref().as_ref();
            let Some((_, keys)) = KEYS.iter().find(|(known, _)| *known == section) else {
                let sections: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
                self.unknown(section, "", section, &name.span(), &sections, "section");
                continue;
            };
            let Some(table) = value.get_ref().as_table() else {
                self.problem(
                    section,
                    &value.span(),
                    format!("{} is not a section", shown(value.get_ref())),
                    format!("write `[{section}]`, and its keys below: {}", listed(keys)),
                );
                continue;
            };
            if let (Some(one), Some(_)) = (table.get("socket"), table.get("sockets")) {
                self.problem(
                    &format!("{section}.socket"),
                    &one.span(),
                    "there are `sockets`, too",
                    "put it into that list, and remove `socket`",
                );
            }
            for (name, value) in table {
                let key = name.get_ref().as_ref();
                let path = format!("{section}.{key}");
                if keys.contains(&key) {
                    self.key(&mut config, &path, value);
                } else {
                    self.unknown(&path, section, key, &name.span(), keys, "key");
                }
            }
        }
        config
    }

    fn key(&mut self, config: &mut Config, path: &str, value: &Value<'_>) {
        const HOST: [(&str, HostTraffic); 2] = [
            ("allow", HostTraffic::Allow),
            ("policy", HostTraffic::Policy),
        ];
        match path {
            "manifests.directory" => self.path(&mut config.manifests.directory, path, value),
            "manifests.follow" => self.paths(&mut config.manifests.follow, path, value),
            "docker.enabled" => self.enabled(&mut config.docker.enabled, path, value),
            "docker.sockets" => self.sockets(&mut config.docker.sockets, path, value),
            "docker.socket" => {
                let mut one = PathBuf::new();
                self.socket(&mut one, path, value);
                config.docker.sockets = vec![one];
            }
            "containerd.enabled" => {
                self.enabled(&mut config.containerd.enabled, path, value);
            }
            "containerd.socket" => self.socket(&mut config.containerd.socket, path, value),
            "containerd.namespaces" => {
                self.list(&mut config.containerd.namespaces, path, value, |text| {
                    (!text.is_empty()).then_some(()).ok_or_else(|| {
                        "a containerd namespace has a name, such as `default`".to_owned()
                    })
                });
            }
            "labels.rename" => self.rename(&mut config.labels, path, value),
            "namespaces.from" => {
                self.list(&mut config.namespaces.from, path, value, |text| {
                    (!text.is_empty()).then_some(()).ok_or_else(|| {
                        "a container label, such as `netpold.io/namespace`".to_owned()
                    })
                });
            }
            "namespaces.default" => self.namespace(&mut config.namespaces.default, path, value),
            "enforcement.mode" => self.choice(
                &mut config.enforcement.mode,
                path,
                value,
                &[("enforce", Mode::Enforce), ("audit", Mode::Audit)],
            ),
            "enforcement.unidentified" => self.choice(
                &mut config.enforcement.unidentified,
                path,
                value,
                &[("deny", Unidentified::Deny), ("allow", Unidentified::Allow)],
            ),
            "enforcement.established" => self.choice(
                &mut config.enforcement.established,
                path,
                value,
                &[
                    ("revalidate", Established::Revalidate),
                    ("keep", Established::Keep),
                ],
            ),
            "host.ingress" => self.choice(&mut config.host.ingress, path, value, &HOST),
            "host.egress" => self.choice(&mut config.host.egress, path, value, &HOST),
            "dns.kube-dns" => match value.get_ref().as_bool() {
                Some(answer) => config.dns.kube_dns = answer,
                None => self.wrong(path, value, "`true` or `false`, without quotes"),
            },
            "datapath.pin-directory" => {
                self.path(&mut config.datapath.pin_directory, path, value);
            }
            "gate.enabled" => self.enabled(&mut config.gate.enabled, path, value),
            "gate.table" => self.table(&mut config.gate.table, path, value),
            "state.directory" => self.path(&mut config.state.directory, path, value),
            "api.socket" => self.socket(&mut config.api.socket, path, value),
            "api.group" => match value.get_ref().as_str() {
                Some("") => config.api.group = None,
                Some(name) if is_group(name) => config.api.group = Some(name.to_owned()),
                _ => self.wrong(path, value, "the name of a group, as in /etc/group"),
            },
            "metrics.listen" => self.listen(&mut config.metrics.listen, path, value),
            _ => {
                let timeout = path
                    .strip_prefix("timeouts.")
                    .and_then(|key| Timeout::ALL.iter().find(|timeout| timeout.key() == key));
                if let Some(timeout) = timeout {
                    self.timeout(config, *timeout, path, value);
                }
            }
        }
    }

    fn timeout(&mut self, config: &mut Config, timeout: Timeout, path: &str, value: &Value<'_>) {
        let seconds = value
            .get_ref()
            .as_integer()
            .and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok());
        match seconds {
            Some(seconds) if (1..=Timeouts::LONGEST).contains(&seconds) => {
                config.timeouts.set(timeout, seconds);
            }
            _ => self.wrong(
                path,
                value,
                &format!("whole seconds, 1 to {}", Timeouts::LONGEST),
            ),
        }
    }

    fn unknown(
        &mut self,
        path: &str,
        section: &str,
        key: &str,
        span: &Range<usize>,
        known: &[&str],
        what: &str,
    ) {
        let nearest = known
            .iter()
            .map(|candidate| (distance(key, candidate), *candidate))
            .min()
            .filter(|(distance, candidate)| *distance * 3 <= candidate.len().max(key.len()));
        let elsewhere = KEYS
            .iter()
            .filter(|(_, keys)| keys.contains(&key))
            .map(|(owner, _)| format!("`[{owner}]`"))
            .collect::<Vec<_>>();
        let help = if let Some((_, nearest)) = nearest {
            format!("did you mean `{nearest}`?")
        } else if !elsewhere.is_empty() {
            format!("`{key}` belongs to {}", elsewhere.join(" or "))
        } else if section.is_empty() {
            format!("the sections are {}", listed(known))
        } else {
            format!("`[{section}]` has {}", listed(known))
        };
        self.problem(path, span, format!("unknown {what}"), help);
    }

    fn wrong(&mut self, path: &str, value: &Value<'_>, right: &str) {
        self.problem(
            path,
            &value.span(),
            format!("{} is not possible here", shown(value.get_ref())),
            format!("it is {right}"),
        );
    }

    fn choice<T: Copy>(
        &mut self,
        target: &mut T,
        path: &str,
        value: &Value<'_>,
        choices: &[(&str, T)],
    ) {
        let found = value
            .get_ref()
            .as_str()
            .and_then(|text| choices.iter().find(|(name, _)| *name == text));
        match found {
            Some((_, choice)) => *target = *choice,
            None => {
                let names = choices
                    .iter()
                    .map(|(name, _)| format!("\"{name}\""))
                    .collect::<Vec<_>>();
                self.wrong(path, value, &names.join(" or "));
            }
        }
    }

    fn enabled(&mut self, target: &mut Enabled, path: &str, value: &Value<'_>) {
        match (value.get_ref().as_bool(), value.get_ref().as_str()) {
            (Some(true), _) => *target = Enabled::Yes,
            (Some(false), _) => *target = Enabled::No,
            (None, Some("auto")) => *target = Enabled::Auto,
            _ => self.wrong(path, value, "\"auto\", true or false"),
        }
    }

    fn path(&mut self, target: &mut PathBuf, path: &str, value: &Value<'_>) {
        let text = value.get_ref().as_str().unwrap_or_default();
        let given = Path::new(text);
        let plain = given
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        if given.is_absolute() && plain && !text.contains('\0') {
            // Through its components: without doubled and closing slashes.
            *target = given.components().collect();
        } else {
            self.wrong(path, value, "an absolute path without `..`, in quotes");
        }
    }

    fn paths(&mut self, target: &mut Vec<PathBuf>, path: &str, value: &Value<'_>) {
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(path, value, "a list of directories: [\"/srv/policies\"]");
            return;
        };
        let mut list = Vec::new();
        for item in items {
            let before = self.problems.len();
            let mut one = PathBuf::new();
            self.path(&mut one, path, item);
            if before == self.problems.len() && one.parent().is_none() {
                self.wrong(
                    path,
                    item,
                    "a directory below `/`: all of the disk is no policy",
                );
            } else {
                list.push(one);
            }
        }
        *target = list;
    }

    fn socket(&mut self, target: &mut PathBuf, path: &str, value: &Value<'_>) {
        let text = value.get_ref().as_str().unwrap_or_default();
        if let Some(bare) = text.strip_prefix("unix://") {
            self.wrong(path, value, &format!("a path without `unix://`: {bare:?}"));
            return;
        }
        let before = self.problems.len();
        self.path(target, path, value);
        if before == self.problems.len() && target.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES
        {
            self.problem(
                path,
                &value.span(),
                "too long for a Unix socket",
                format!("the kernel takes {SOCKET_PATH_BYTES} bytes"),
            );
        }
    }

    fn sockets(&mut self, target: &mut Vec<PathBuf>, path: &str, value: &Value<'_>) {
        let Some(items) = value.get_ref().as_array().filter(|items| !items.is_empty()) else {
            let right = "a list of sockets: [\"/run/docker.sock\"]; `enabled = false` follows none";
            self.wrong(path, value, right);
            return;
        };
        let mut list = Vec::new();
        for item in items {
            let before = self.problems.len();
            let mut one = PathBuf::new();
            self.socket(&mut one, path, item);
            if before < self.problems.len() {
                continue;
            }
            if list.contains(&one) {
                self.wrong(path, item, "each socket once");
            } else {
                list.push(one);
            }
        }
        *target = list;
    }

    fn list(
        &mut self,
        target: &mut Vec<String>,
        path: &str,
        value: &Value<'_>,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(path, value, "a list of strings: [\"…\", \"…\"]");
            return;
        };
        let mut list = Vec::new();
        for item in items {
            match item.get_ref().as_str().map(|text| (text, check(text))) {
                Some((text, Ok(()))) => list.push(text.to_owned()),
                Some((_, Err(right))) => self.wrong(path, item, &right),
                None => self.wrong(path, item, "a string, in quotes"),
            }
        }
        *target = list;
    }

    fn rename(&mut self, target: &mut LabelSettings, path: &str, value: &Value<'_>) {
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(
                path,
                value,
                "a table: { \"container label\" = \"Pod label\" }",
            );
            return;
        };
        let mut rename = BTreeMap::new();
        for (from, to) in table {
            let key = format!("{path}.{}", from.get_ref());
            match to.get_ref().as_str() {
                Some(label) => match syntax::label_key(label) {
                    Ok(()) => {
                        rename.insert(from.get_ref().to_string(), label.to_owned());
                    }
                    Err(error) => self.wrong(&key, to, &format!("a Pod label's key: {error}")),
                },
                None => self.wrong(&key, to, "a Pod label's key, in quotes"),
            }
        }
        target.rename = rename;
    }

    fn namespace(&mut self, target: &mut String, path: &str, value: &Value<'_>) {
        match value.get_ref().as_str() {
            Some(text) => match syntax::dns_label(text) {
                Ok(()) => text.clone_into(target),
                Err(error) => self.wrong(path, value, &format!("a Namespace's name: {error}")),
            },
            None => self.wrong(path, value, "a Namespace's name, in quotes"),
        }
    }

    fn table(&mut self, target: &mut String, path: &str, value: &Value<'_>) {
        let right = "a name for nft: a letter, then letters, digits and `_`, 31 at most";
        match value.get_ref().as_str() {
            Some(text)
                if text.len() <= 31
                    && text.starts_with(|first: char| first.is_ascii_alphabetic())
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
            {
                text.clone_into(target);
            }
            _ => self.wrong(path, value, right),
        }
    }

    fn listen(&mut self, target: &mut Option<SocketAddr>, path: &str, value: &Value<'_>) {
        match value.get_ref().as_str() {
            Some("") => *target = None,
            Some(text) => match text.parse() {
                Ok(address) => *target = Some(address),
                Err(_) => self.wrong(
                    path,
                    value,
                    "an address with a port, such as \"127.0.0.1:9469\" or \"[::1]:9469\", or \"\" for none",
                ),
            },
            None => self.wrong(path, value, "an address with a port, in quotes"),
        }
    }
}

fn listed(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Edit distance, capped by the lengths that keys have: hostile length costs nothing.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX / 4;
    }
    let a = a.replace('_', "-").to_lowercase();
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// Can a group be called so (useradd(8))?
fn is_group(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        })
}
