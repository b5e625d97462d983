//! The resolv.conf(5) that an engine writes for each container.
//!
//! A container can write to that file, so only what the engine's own hash beside it bears out counts for others; what it
//! says against its own container counts anyhow. Called by `engine`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use crate::runtime::resolvers::{askable, nameservers};

/// Far more than an engine writes.
const LARGEST: u64 = 64 << 10;
/// What a container's resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Written {
    /// The resolvers that are asked from the container's namespace: by the container, or by the engine's resolver.
    pub(super) inside: BTreeSet<IpAddr>,
    /// Some are asked from the host's namespace.
    pub(super) host: bool,
    /// The engine's hash bears it out.
    pub(super) proved: bool,
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

pub(super) fn written(text: &str, hash: &str) -> Written {
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
