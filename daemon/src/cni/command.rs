//! What a runtime asks of `netpold-cni`, and how it is answered: the CNI specification's
//! environment, configuration, results and errors. Pure.
//!
//! The configuration is an administrator's, and read strictly; what the specification and other
//! plugins put beside it is theirs.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::client::DEFAULT_SOCKET;

/// What is said to a user who calls it by hand.
pub const HELP: &str = "\
netpold-cni: a CNI plugin that lets a container start once netpold's policies are in force for it

It is called by container runtimes (nerdctl, ctr, Kubernetes' part of containerd), as the last of a
network's plugins, in /etc/cni/net.d/NAME.conflist:
  { \"cniVersion\": \"1.0.0\", \"name\": \"lab\", \"plugins\": [
    { \"type\": \"bridge\", … },
    { \"type\": \"netpold-cni\", \"timeout\": 5, \"onTimeout\": \"refuse\" } ] }

  socket      where netpold answers (/run/netpold/netpold.sock)
  timeout     seconds that a start may wait (5)
  onTimeout   `refuse` (what is not in force by then does not start) or `allow` (it starts: what is
              not in force is shut, and its first packets are lost)";

/// The versions of the specification with lists of plugins.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The longest that a container may be kept waiting.
const LONGEST: f64 = 600.0;
/// Its own keys; a slip in one of them would be silent.
const OWN: [&str; 3] = ["socket", "timeout", "onTimeout"];
/// Keys that every plugin may get.
const COMMON: [&str; 13] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "ipMasq",
    "ipam",
    "dns",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "disableCheck",
    "disableGC",
];

/// What is not in force in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// Does not start.
    Refuse,
    /// Starts.
    Allow,
}

/// A container's place in the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The container's network namespace.
    pub netns: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// How long a start may wait.
    pub timeout: Duration,
    /// And then.
    pub on_timeout: OnTimeout,
    /// Is it the sandbox of a Pod of Kubernetes?
    pub of_pod: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// Wait, and hand on the result of the plugins before.
    Add {
        /// Whose.
        network: Network,
        /// As it came.
        result: Value,
    },
    /// Say whether all is in force.
    Check(Network),
    /// Say whether `ADD` would do.
    Status(Network),
    /// Say what is spoken, in this version.
    Version(String),
    /// `DEL` and `GC`.
    Nothing,
}

/// An error as the specification has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    version: String,
    code: u32,
    what: &'static str,
    why: String,
}

impl Failure {
    fn new(code: u32, what: &'static str, why: impl Into<String>) -> Self {
        Self {
            version: "1.0.0".to_owned(),
            code,
            what,
            why: why.into(),
        }
    }

    /// Something can't be read or written.
    pub fn io(why: impl Into<String>) -> Self {
        Self::new(5, "netpold can't be asked", why)
    }

    /// It may do later.
    pub fn again(why: impl Into<String>) -> Self {
        Self::new(11, "netpold's policies are not in force", why)
    }

    /// `STATUS`: no `ADD` would succeed.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::new(50, "netpold does not answer", why)
    }

    /// `STATUS`: containers would start without.
    pub fn limited(why: impl Into<String>) -> Self {
        Self::new(51, "netpold does not answer", why)
    }

    /// As it is printed.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "cniVersion": self.version,
            "code": self.code,
            "msg": format!("netpold-cni: {}", self.what),
            "details": self.why,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What is spoken, said in a version.
#[must_use]
pub fn versions(version: &str) -> Value {
    json!({"cniVersion": version, "supportedVersions": VERSIONS})
}

/// Reads it.
///
/// # Errors
/// It is not as the specification has it, or the configuration is wrong.
pub fn read(environment: impl Fn(&str) -> Option<String>, text: &[u8]) -> Result<Asked, Failure> {
    let command = environment("CNI_COMMAND").unwrap_or_default();
    let config: Value = serde_json::from_slice(text)
        .map_err(|error| Failure::new(6, "the configuration is no JSON", error.to_string()))?;
    let version = config["cniVersion"].as_str().unwrap_or("0.2.0").to_owned();
    if command == "VERSION" {
        return Ok(Asked::Version(version));
    }
    if !VERSIONS.contains(&version.as_str()) {
        return Err(Failure::new(
            1,
            "this version of the specification is not spoken",
            format!(
                "`cniVersion` is `{version}`; it may be {}",
                VERSIONS.join(", ")
            ),
        ));
    }
    asked(&command, environment, &config).map_err(|failure| Failure { version, ..failure })
}

fn asked(
    command: &str,
    environment: impl Fn(&str) -> Option<String>,
    config: &Value,
) -> Result<Asked, Failure> {
    match command {
        // Whatever the configuration has become: a container must be able to end.
        "DEL" | "GC" => Ok(Asked::Nothing),
        "ADD" => Ok(Asked::Add {
            network: network(netns(&environment)?, &environment, config)?,
            result: result(config)?.clone(),
        }),
        "CHECK" => {
            result(config)?;
            let network = network(netns(&environment)?, &environment, config)?;
            Ok(Asked::Check(network))
        }
        "STATUS" => network(PathBuf::new(), &environment, config).map(Asked::Status),
        other => Err(Failure::new(
            4,
            "CNI_COMMAND is wrong",
            format!("`{other}` is none of ADD, DEL, CHECK, GC, STATUS and VERSION"),
        )),
    }
}

fn netns(environment: &impl Fn(&str) -> Option<String>) -> Result<PathBuf, Failure> {
    environment("CNI_NETNS")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .ok_or_else(|| {
            Failure::new(
                4,
                "CNI_NETNS is wrong",
                "it is the path of a network namespace",
            )
        })
}

/// What the plugins before have made.
fn result(config: &Value) -> Result<&Value, Failure> {
    config
        .get("prevResult")
        .filter(|result| result.is_object())
        .ok_or_else(|| {
            invalid("there is no `prevResult`: this plugin makes no interface, and stands last in a network's list")
        })
}

fn invalid(why: impl Into<String>) -> Failure {
    Failure::new(7, "the configuration is wrong", why)
}

fn network(
    netns: PathBuf,
    environment: &impl Fn(&str) -> Option<String>,
    config: &Value,
) -> Result<Network, Failure> {
    let keys = config
        .as_object()
        .into_iter()
        .flat_map(|object| object.keys());
    for key in keys {
        let known = OWN.contains(&key.as_str()) || COMMON.contains(&key.as_str());
        if !known && !key.contains('/') {
            return Err(invalid(format!(
                "there is no key `{key}`; its own are {}",
                OWN.join(", ")
            )));
        }
    }
    let socket = match config.get("socket") {
        None => PathBuf::from(DEFAULT_SOCKET),
        Some(Value::String(path)) if path.starts_with('/') => PathBuf::from(path),
        Some(other) => return Err(invalid(format!("`socket` is a path, not `{other}`"))),
    };
    let timeout = match config.get("timeout") {
        None => Duration::from_secs(5),
        Some(value) => value
            .as_f64()
            .filter(|seconds| (0.0..=LONGEST).contains(seconds))
            .map(Duration::from_secs_f64)
            .ok_or_else(|| {
                invalid(format!(
                    "`timeout` is a number of seconds up to {LONGEST}, not `{value}`"
                ))
            })?,
    };
    let on_timeout = match config.get("onTimeout").map(|value| (value, value.as_str())) {
        None | Some((_, Some("refuse"))) => OnTimeout::Refuse,
        Some((_, Some("allow"))) => OnTimeout::Allow,
        Some((value, _)) => {
            return Err(invalid(format!(
                "`onTimeout` is `refuse` or `allow`, not `{value}`"
            )));
        }
    };
    let arguments = environment("CNI_ARGS").unwrap_or_default();
    Ok(Network {
        netns,
        socket,
        timeout,
        on_timeout,
        of_pod: arguments
            .split(';')
            .any(|argument| argument.starts_with("K8S_POD_INFRA_CONTAINER_ID=")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(command: &str, arguments: &str, config: &Value) -> Result<Asked, Failure> {
        let environment = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => command,
                "CNI_NETNS" => "/proc/7/ns/net",
                "CNI_ARGS" => arguments,
                _ => return None,
            };
            Some(value.to_owned())
        };
        read(environment, config.to_string().as_bytes())
    }

    fn config(own: &Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "lab", "type": "netpold-cni",
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "later": 1},
        });
        for (key, value) in own.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    fn network(found: Asked) -> Network {
        match found {
            Asked::Add { network, .. } | Asked::Check(network) | Asked::Status(network) => network,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_add_hands_on_what_it_was_given() {
        let config = config(&json!({}));
        let Asked::Add { network, result } = ask("ADD", "", &config).unwrap() else {
            panic!("no ADD");
        };
        assert_eq!(result, config["prevResult"]);
        let expected = Network {
            netns: "/proc/7/ns/net".into(),
            socket: DEFAULT_SOCKET.into(),
            timeout: Duration::from_secs(5),
            on_timeout: OnTimeout::Refuse,
            of_pod: false,
        };
        assert_eq!(network, expected);
    }

    #[test]
    fn its_settings_are_read_strictly() {
        let own = json!({"timeout": 1.5, "onTimeout": "allow", "socket": "/s", "x.io/y": 1});
        let found = network(ask("ADD", "", &config(&own)).unwrap());
        assert_eq!(found.timeout, Duration::from_millis(1500));
        assert_eq!(found.on_timeout, OnTimeout::Allow);
        assert_eq!(found.socket, PathBuf::from("/s"));
        for (own, problem) in [
            (json!({"timeout": "5s"}), "`timeout` is a number"),
            (json!({"timeout": -1}), "`timeout` is a number"),
            (json!({"timeout": 1e9}), "`timeout` is a number"),
            (json!({"onTimeout": "ignore"}), "`refuse` or `allow`"),
            (json!({"onTimeout": true}), "`refuse` or `allow`"),
            (json!({"ontimeout": "allow"}), "no key `ontimeout`"),
            (json!({"socket": 1}), "`socket` is a path"),
            (json!({"prevResult": null}), "no `prevResult`"),
        ] {
            let failure = ask("ADD", "", &config(&own)).unwrap_err();
            assert_eq!(failure.code, 7, "{own}");
            assert!(failure.why.contains(problem), "{own}: {failure}");
        }
    }

    #[test]
    fn a_container_can_always_end() {
        let broken = json!({"cniVersion": "1.0.0", "timeout": "soon"});
        for command in ["DEL", "GC"] {
            assert_eq!(ask(command, "", &broken).unwrap(), Asked::Nothing);
        }
    }

    #[test]
    fn versions_are_said_in_the_version_asked_in() {
        let found = ask("VERSION", "", &json!({"cniVersion": "9.9.9"})).unwrap();
        assert_eq!(found, Asked::Version("9.9.9".to_owned()));
        assert_eq!(versions("9.9.9")["cniVersion"], "9.9.9");
        let failure = ask("ADD", "", &json!({"cniVersion": "9.9.9"})).unwrap_err();
        assert_eq!(failure.json()["code"], 1);
        // Before lists of plugins.
        assert_eq!(ask("ADD", "", &json!({})).unwrap_err().code, 1);
    }

    #[test]
    fn errors_are_the_specifications() {
        for (command, own, code) in [
            ("START", json!({}), 4),
            ("ADD", json!({"cniVersion": "0.4.0", "timeout": 1e9}), 7),
        ] {
            let failure = ask(command, "", &config(&own)).unwrap_err();
            assert_eq!(failure.json()["code"], code);
            let version = own.get("cniVersion").cloned().unwrap_or(json!("1.0.0"));
            assert_eq!(failure.json()["cniVersion"], version);
        }
        let none = |_: &str| None;
        assert_eq!(read(none, b"{").unwrap_err().code, 6);
        let without = |name: &str| (name == "CNI_COMMAND").then(|| "ADD".to_owned());
        let text = config(&json!({})).to_string();
        assert_eq!(read(without, text.as_bytes()).unwrap_err().code, 4);
    }

    #[test]
    fn kubernetes_sandboxes_are_told_from_containers() {
        for (arguments, expected) in [
            ("", false),
            ("IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=x", false),
            (
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_INFRA_CONTAINER_ID=f00",
                true,
            ),
        ] {
            let found = network(ask("ADD", arguments, &config(&json!({}))).unwrap());
            assert_eq!(found.of_pod, expected, "{arguments}");
        }
        assert!(matches!(
            ask("CHECK", "", &config(&json!({}))),
            Ok(Asked::Check(_))
        ));
        assert!(matches!(
            ask("STATUS", "", &config(&json!({}))),
            Ok(Asked::Status(_))
        ));
    }
}
