//! Which resolvers the engine gave a container, and from which network namespace it asks them.
//!
//! Owns the reading of what the engine says of that: `HostConfig.Dns`, and the resolv.conf(5) that it writes for each
//! container. A container can write to that file, so only what the engine's own hash beside it bears out
//! counts for others; what it says against its own container counts anyhow. Called by `engine` and `model`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use super::model::wire;
use crate::runtime::container::{AskedFrom, Container, Dns};
use crate::runtime::resolvers::{askable, nameservers};

/// Far more than an engine writes.
const LARGEST: u64 = 64 << 10;
/// Engines up to this version of the API ask all resolvers that are no loopback address from the container's
/// namespace (26.1 does, 28 does not).
const LAST_TO_ASK_INSIDE: (u32, u32) = (1, 45);
/// Networks without a resolver of the engine's own: their containers ask by themselves.
const WITHOUT_RESOLVER: [&str; 3] = ["bridge", "host", "none"];

/// What a container's resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Written {
    /// The resolvers that are asked from the container's namespace: by the container, or by the engine's resolver.
    inside: BTreeSet<IpAddr>,
    /// Some are asked from the host's namespace.
    host: bool,
    /// The engine's hash bears it out.
    proved: bool,
}

/// The resolv.conf that the engine wrote for this container, where it is Docker's and can be read.
pub(super) fn read(id: &str, path: &str) -> Option<Written> {
    if !is_dockers(id, path) {
        return None;
    }
    let read = || -> io::Result<Written> {
        let text = text(Path::new(path))?;
        // Without it nothing is proved.
        let hash = self::text(Path::new(&format!("{path}.hash"))).unwrap_or_default();
        Ok(written(&text, &hash))
    };
    read()
        .inspect_err(
            |error| tracing::debug!(id, path, %error, "a container's resolv.conf can't be read"),
        )
        .ok()
}

/// `…/containers/ID/resolv.conf`. Podman has another place for it, and no resolver inside containers.
fn is_dockers(id: &str, path: &str) -> bool {
    let path = path.strip_suffix("/resolv.conf");
    let path = path.and_then(|path| path.strip_suffix(id));
    !id.is_empty()
        && path.is_some_and(|path| path.starts_with('/') && path.ends_with("/containers/"))
}

fn text(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn written(text: &str, hash: &str) -> Written {
    let matches = |text: &str| {
        let digest = Sha256::digest(text.as_bytes());
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        hash.trim().strip_prefix("sha256:") == Some(&digits.collect::<String>())
    };
    let Some(servers) = text.lines().find_map(external) else {
        return Written {
            inside: nameservers(text).into_iter().filter_map(askable).collect(),
            host: false,
            proved: matches(text),
        };
    };
    let inside: Vec<IpAddr> = servers
        .iter()
        .filter_map(|server| server.parse().ok())
        .collect();
    Written {
        host: servers.iter().any(|server| server.starts_with("host(")),
        proved: matches(&before_internal(text, &inside)),
        inside: inside.into_iter().filter_map(askable).collect(),
    }
}

/// The resolvers that the engine's own asks, as engines since 26.0 note them: `# ExtServers: [10.0.0.1 host(127.0.0.53)]`.
fn external(line: &str) -> Option<Vec<&str>> {
    let list = line.strip_prefix("# ExtServers: [")?.strip_suffix(']')?;
    Some(list.split_ascii_whitespace().collect())
}

/// What the engine wrote and hashed before its own resolver took the place of these.
fn before_internal(text: &str, servers: &[IpAddr]) -> String {
    let is_ours = |line: &str| line == "# Option ndots from: internal";
    let ours = text.lines().any(is_ours);
    let mut before = String::new();
    for line in text
        .lines()
        .filter(|line| !is_ours(line) && external(line).is_none())
    {
        let line = line.replace("(internal resolver)", "(legacy)");
        if line == "nameserver 127.0.0.11" {
            for server in servers {
                before.push_str(&format!("nameserver {server}\n"));
            }
        } else if ours && line == "options ndots:0" {
        } else {
            let line = match line.strip_suffix(" ndots:0") {
                Some(options) if ours && line.starts_with("options ") => options,
                _ => &line,
            };
            before.push_str(line);
            before.push('\n');
        }
    }
    before
}

/// What is known of the resolvers of a container that was not inspected.
pub(super) const fn before_inspection() -> Dns {
    Dns {
        servers: BTreeSet::new(),
        asked_from: AskedFrom::Unknown,
    }
}

/// From where the resolvers of a container that is to start will be asked, if it is given none of its own. No engine answers
/// an inspection of it while it starts. It is taken for what most are on such an engine: a program too many is taken off
/// again, and what was asked before there is one can't be taken back.
pub(super) fn before_start(container: &Container, api: Option<(u32, u32)>) -> AskedFrom {
    let mut networks = container.networks.iter();
    if networks.any(|network| !WITHOUT_RESOLVER.contains(&network.name.as_str())) {
        by_engine(api)
    } else {
        AskedFrom::Container
    }
}

/// From where an engine that speaks this version of the API asks the host's resolvers.
fn by_engine(api: Option<(u32, u32)>) -> AskedFrom {
    if api.is_some_and(|api| api > LAST_TO_ASK_INSIDE) {
        AskedFrom::Host
    } else {
        AskedFrom::HostIfLoopback
    }
}

/// What an inspection says of a container's resolvers.
pub(super) fn from_inspection(inspection: &wire::Inspection) -> Dns {
    let given = &inspection.host_config.dns;
    let mut servers: BTreeSet<IpAddr> = given
        .iter()
        .filter_map(|text| text.parse().ok())
        .filter_map(askable)
        .collect();
    let networks = inspection.network_settings.iter();
    let mut networks = networks.flat_map(|settings| settings.networks.keys());
    let has_resolver = networks.any(|name| !WITHOUT_RESOLVER.contains(&name.as_str()));
    let Some(written) = &inspection.written else {
        let has_not_started = inspection.resolv_conf_path.is_empty();
        return Dns {
            servers,
            asked_from: if has_not_started && has_resolver && given.is_empty() {
                by_engine(inspection.api)
            } else {
                AskedFrom::Container
            },
        };
    };
    if written.proved {
        servers.extend(&written.inside);
    }
    let asked_from = if !has_resolver || !given.is_empty() {
        AskedFrom::Container
    } else if written.host {
        AskedFrom::Host
    } else if written.proved && !written.inside.is_empty() {
        AskedFrom::Container
    } else {
        by_engine(inspection.api)
    };
    Dns {
        servers,
        asked_from,
    }
}

#[cfg(test)]
mod tests;
