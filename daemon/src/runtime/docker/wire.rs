//! The parts of the engine's answers that are used, as Docker's API gives them. Any may be missing or null.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer};

use super::resolv_conf::Written;

/// Null, as missing, is the default.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Version {
    #[serde(deserialize_with = "lenient")]
    pub version: String,
    #[serde(deserialize_with = "lenient")]
    pub api_version: String,
}

#[derive(Debug, Default, Deserialize)]
pub struct Failure {
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Summary {
    #[serde(deserialize_with = "lenient")]
    pub id: String,
    #[serde(deserialize_with = "lenient")]
    pub names: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "lenient")]
    pub state: String,
    #[serde(deserialize_with = "lenient")]
    pub created: serde_json::Value,
    #[serde(deserialize_with = "lenient")]
    pub ports: Vec<Port>,
    #[serde(deserialize_with = "lenient")]
    pub host_config: HostConfig,
    #[serde(deserialize_with = "lenient")]
    pub network_settings: NetworkSettings,
}

/// A port as a listing has it: without a public one it is not published.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    #[serde(rename = "IP", deserialize_with = "lenient")]
    pub ip: String,
    #[serde(deserialize_with = "lenient")]
    pub private_port: u16,
    #[serde(deserialize_with = "lenient")]
    pub public_port: u16,
    #[serde(rename = "Type", deserialize_with = "lenient")]
    pub protocol: String,
}

/// By the container's port (`80/tcp`) where it is published.
pub type Bindings = BTreeMap<String, Option<Vec<Binding>>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Binding {
    #[serde(deserialize_with = "lenient")]
    pub host_ip: String,
    #[serde(deserialize_with = "lenient")]
    pub host_port: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    #[serde(deserialize_with = "lenient")]
    pub network_mode: String,
    #[serde(deserialize_with = "lenient")]
    pub cgroup_parent: String,
    #[serde(deserialize_with = "lenient")]
    pub dns: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub port_bindings: Bindings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSettings {
    #[serde(deserialize_with = "lenient")]
    pub networks: BTreeMap<String, Endpoint>,
    #[serde(deserialize_with = "lenient")]
    pub ports: Bindings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Endpoint {
    #[serde(rename = "NetworkID", deserialize_with = "lenient")]
    pub network_id: String,
    #[serde(deserialize_with = "lenient")]
    pub mac_address: String,
    #[serde(rename = "IPAddress", deserialize_with = "lenient")]
    pub ip_address: String,
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "lenient")]
    pub global_ipv6_address: String,
    /// Empty, while the container is not on the network yet.
    #[serde(rename = "EndpointID", deserialize_with = "lenient")]
    pub endpoint_id: String,
    #[serde(rename = "IPAMConfig", deserialize_with = "lenient")]
    pub asked: AskedAddresses,
}

/// What was asked of the network's addresses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AskedAddresses {
    #[serde(rename = "LinkLocalIPs", deserialize_with = "lenient")]
    pub link_local_ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspection {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "lenient")]
    pub state: InspectedState,
    #[serde(deserialize_with = "lenient")]
    pub host_config: HostConfig,
    #[serde(deserialize_with = "lenient")]
    pub network_settings: Option<NetworkSettings>,
    #[serde(deserialize_with = "lenient")]
    pub resolv_conf_path: String,
    /// What is at that path.
    #[serde(skip)]
    pub written: Option<Written>,
    /// The version of the engine's API.
    #[serde(skip)]
    pub api: Option<(u32, u32)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InspectedState {
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    #[serde(deserialize_with = "lenient")]
    pub pid: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    #[serde(deserialize_with = "lenient")]
    pub id: String,
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "lenient")]
    pub driver: String,
    #[serde(deserialize_with = "lenient")]
    pub internal: bool,
    #[serde(deserialize_with = "lenient")]
    pub options: HashMap<String, String>,
}

/// One network, with the containers on it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Members {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "lenient")]
    pub containers: HashMap<String, Member>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Member {
    #[serde(deserialize_with = "lenient")]
    pub mac_address: String,
    #[serde(rename = "IPv4Address", deserialize_with = "lenient")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address", deserialize_with = "lenient")]
    pub ipv6_address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    #[serde(rename = "Type", deserialize_with = "lenient")]
    pub kind: String,
    #[serde(rename = "Action", deserialize_with = "lenient")]
    pub action: String,
    #[serde(rename = "Actor", deserialize_with = "lenient")]
    pub actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Actor {
    #[serde(rename = "ID", deserialize_with = "lenient")]
    pub id: String,
    #[serde(rename = "Attributes", deserialize_with = "lenient")]
    pub attributes: HashMap<String, String>,
}
