//! The configuration file: what can be set, what it is when it is not set.
//!
//! Owns the types and their defaults; `read` turns text into them. Never looks at
//! anything but the one file: whether a socket or a directory is there is for
//! those who use it. Read once, at the start of `netpold`, and handed on by value.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use netpol_abi::connection::{TIMEOUTS, Timeout, default_timeouts, ticks};

/// Where the file is when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/netpold/netpold.toml";

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[manifests]`
    pub manifests: Manifests,
    /// `[docker]`
    pub docker: Docker,
    /// `[containerd]`
    pub containerd: Containerd,
    /// `[labels]`
    pub labels: LabelSettings,
    /// `[namespaces]`
    pub namespaces: Namespaces,
    /// `[enforcement]`
    pub enforcement: Enforcement,
    /// `[host]`
    pub host: Host,
    /// `[dns]`
    pub dns: Dns,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[datapath]`
    pub datapath: Datapath,
    /// `[gate]`
    pub gate: Gate,
    /// `[state]`
    pub state: State,
    /// `[api]`
    pub api: Api,
    /// `[metrics]`
    pub metrics: Metrics,
}

/// Where policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifests {
    /// Watched, with its sub-folders.
    pub directory: PathBuf,
    /// Directories outside of it to which symbolic links in it may lead.
    pub follow: Vec<PathBuf>,
}

impl Default for Manifests {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/etc/netpold/manifests"),
            follow: Vec::new(),
        }
    }
}

/// Is a container runtime followed, a part used?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    /// Whenever what it needs (a runtime's socket) is there; its absence is not an error.
    #[default]
    Auto,
    /// Always; its absence is reported.
    Yes,
    /// Never.
    No,
}

/// Engines that speak Docker's API: the Docker engine, and Podman's Docker-compatible service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// Are they followed?
    pub enabled: Enabled,
    /// Their APIs' Unix sockets, each once.
    pub sockets: Vec<PathBuf>,
}

impl Docker {
    /// How the engine at each socket is followed. The absence of an engine is reported where the configuration
    /// names its socket; of the default ones, Docker's own has to be there, and Podman's may.
    pub fn engines(&self) -> impl Iterator<Item = (Enabled, &Path)> {
        let is_default = self.sockets == Self::default().sockets;
        self.sockets.iter().enumerate().map(move |(place, socket)| {
            let enabled = match self.enabled {
                Enabled::Yes if is_default && place > 0 => Enabled::Auto,
                enabled => enabled,
            };
            (enabled, socket.as_path())
        })
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            enabled: Enabled::Auto,
            sockets: ["/run/docker.sock", "/run/podman/podman.sock"]
                .map(PathBuf::from)
                .to_vec(),
        }
    }
}

/// containerd, where it runs containers of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerd {
    /// Is it followed?
    pub enabled: Enabled,
    /// Its API's Unix socket.
    pub socket: PathBuf,
    /// containerd namespaces to follow; empty: all, less Docker's own `moby`.
    pub namespaces: Vec<String>,
}

impl Default for Containerd {
    fn default() -> Self {
        Self {
            enabled: Enabled::Auto,
            socket: PathBuf::from("/run/containerd/containerd.sock"),
            namespaces: Vec::new(),
        }
    }
}

/// How a container's labels become a Pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSettings {
    /// Extra Pod labels: container label → Pod label key. A label that the container
    /// has under the new key itself is left as it is.
    pub rename: BTreeMap<String, String>,
}

impl Default for LabelSettings {
    fn default() -> Self {
        Self {
            rename: BTreeMap::from([("com.docker.compose.service".to_owned(), "app".to_owned())]),
        }
    }
}

/// How a container gets its Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// Container labels: the first that is set names the Namespace.
    pub from: Vec<String>,
    /// The Namespace where none is set.
    pub default: String,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self {
            from: vec![
                "netpold.io/namespace".to_owned(),
                "com.docker.compose.project".to_owned(),
            ],
            default: "default".to_owned(),
        }
    }
}

/// How strictly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enforcement {
    /// Are packets dropped at all?
    pub mode: Mode,
    /// A container's interface whose labels are not known yet.
    pub unidentified: Unidentified,
    /// Connections that a changed policy no longer allows.
    pub established: Established,
}

/// Are packets dropped at all?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What policy denies is dropped.
    #[default]
    Enforce,
    /// Nothing is dropped, every would-be drop is reported.
    Audit,
}

/// What passes at an interface whose labels are not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unidentified {
    /// Nothing.
    #[default]
    Deny,
    /// Everything.
    Allow,
}

/// What happens to connections that a changed policy no longer allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Established {
    /// They are judged again, and cut.
    #[default]
    Revalidate,
    /// They live on until they end.
    Keep,
}

/// Traffic between containers and their own host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The host to its own containers.
    pub ingress: HostTraffic,
    /// A container to its own host.
    pub egress: HostTraffic,
}

/// What decides about traffic with the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostTraffic {
    /// It is always allowed, as in Kubernetes.
    #[default]
    Allow,
    /// Policy decides, as about any address.
    Policy,
}

/// Name resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Do the resolvers that containers may have been given appear as the peer `kube-system/kube-dns`?
    pub kube_dns: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self { kube_dns: true }
    }
}

/// How long connections are remembered without a packet, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; Timeout::ALL.len()]);

impl Timeouts {
    /// A year: what lasts longer has no end worth waiting for.
    pub const LONGEST: u32 = 365 * 24 * 60 * 60;

    /// The seconds of one.
    #[must_use]
    pub const fn get(&self, timeout: Timeout) -> u32 {
        self.0[timeout as usize]
    }

    /// Sets one.
    pub const fn set(&mut self, timeout: Timeout, seconds: u32) {
        self.0[timeout as usize] = seconds;
    }

    /// All of them in ticks, as the kernel's tables have them.
    #[must_use]
    pub fn ticks(&self) -> [u32; TIMEOUTS] {
        let mut all = default_timeouts();
        for &timeout in Timeout::ALL {
            all[timeout as usize] = ticks(self.get(timeout));
        }
        all
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let mut timeouts = Self([0; _]);
        for &timeout in Timeout::ALL {
            timeouts.set(timeout, timeout.seconds());
        }
        timeouts
    }
}

/// The kernel's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapath {
    /// Where maps, programs and links are pinned: a directory on a bpf file system.
    pub pin_directory: PathBuf,
}

impl Default for Datapath {
    fn default() -> Self {
        Self {
            pin_directory: PathBuf::from("/sys/fs/bpf/netpold"),
        }
    }
}

/// The rule set that shuts containers' interfaces until netpold's programs are on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Is there one? Auto: where nft(8) and the kernel can.
    pub enabled: Enabled,
    /// Its table, of the family `bridge`.
    pub table: String,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            enabled: Enabled::Auto,
            table: "netpold".to_owned(),
        }
    }
}

/// What outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The last accepted manifests.
    pub directory: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/netpold"),
        }
    }
}

/// What `netpol` talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The Unix socket that is served.
    pub socket: PathBuf,
    /// The group whose members may use it; `None`: root's.
    pub group: Option<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/netpold/netpold.sock"),
            group: None,
        }
    }
}

/// Prometheus metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read, or the one that `--config` names is not there.
    #[error("configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It says something that cannot be.
    #[error("{}", render(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, dotted (`docker.socket`); empty where the file is not TOML.
    pub key: String,
    /// The problem, in words.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

fn render(path: &Path, problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{}:{problem}", path.display()))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Reads the configuration: the file that `--config` names, which must be there, or
/// the default one, which need not.
///
/// # Errors
/// The file cannot be read, or says something that cannot be.
pub fn load(named: Option<&Path>) -> Result<Config, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes),
        Err(source) if named.is_none() && source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Config::default())
        }
        Err(source) => Err(ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The configuration that a file of this content gives.
///
/// # Errors
/// It says something that cannot be.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Config, ConfigError> {
    read::read(bytes).map_err(|problems| ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}
