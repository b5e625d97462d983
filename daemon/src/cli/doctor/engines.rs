//! The engines that the configuration names: do they answer, and what do their networks drop by themselves?

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ENGINES, NETWORKS};
use crate::api::wire::HealthItem;
use crate::config::{Config, Enabled};
use crate::unix_http;

/// How long an engine may take: one that is busy takes a second.
const PATIENT: Duration = Duration::from_secs(5);
/// Far more than any list of networks has.
const LARGEST: usize = 16 << 20;

/// `GET /version` of Docker's API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Version {
    version: String,
    api_version: String,
}

/// An entry of `GET /networks`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    name: String,
    driver: String,
    internal: bool,
    options: Option<std::collections::BTreeMap<String, String>>,
}

pub(super) async fn all(config: &Config) -> Vec<HealthItem> {
    let mut all = Vec::new();
    let mut is_any_there = false;
    if config.docker.enabled != Enabled::No {
        for socket in &config.docker.sockets {
            if !socket.exists() {
                continue;
            }
            is_any_there = true;
            all.extend(docker(socket).await);
        }
    }
    let socket = &config.containerd.socket;
    if config.containerd.enabled != Enabled::No && socket.exists() {
        is_any_there = true;
        let subject = format!("containerd at {}", socket.display());
        all.push(match timeout(PATIENT, UnixStream::connect(socket)).await {
            Ok(Ok(_)) => ENGINES.ok(&subject, "it listens"),
            Ok(Err(error)) => gone(&subject, &error.to_string(), "containerd"),
            Err(_) => gone(&subject, "it does not answer in time", "containerd"),
        });
    }
    if !is_any_there {
        all.push(ENGINES.warning(
            "",
            "no socket of an engine is there: only Pods that manifests declare are enforced",
            "start the engine (`systemctl start docker`, `systemctl enable --now podman.socket`), or name its socket in \
             `[docker] sockets` or `[containerd] socket`",
        ));
    }
    all
}

fn gone(subject: &str, text: &str, unit: &str) -> HealthItem {
    ENGINES.error(subject, text, &format!("`systemctl status {unit}`"))
}

async fn docker(socket: &Path) -> Vec<HealthItem> {
    let subject = format!("the engine at {}", socket.display());
    let version: Version = match ask(socket, "/version").await {
        Ok(version) => version,
        Err(why) => return vec![gone(&subject, &why, "docker")],
    };
    let text = format!("version {}, API {}", version.version, version.api_version);
    let mut all = vec![ENGINES.ok(&subject, &text)];
    match ask::<Vec<Network>>(socket, "/networks").await {
        Ok(networks) => all.extend(isolation(&subject, &networks)),
        Err(why) => all.push(gone(&subject, &why, "docker")),
    }
    all
}

/// What an engine's networks drop, whatever policy says.
fn isolation(subject: &str, networks: &[Network]) -> Vec<HealthItem> {
    let mut all = Vec::new();
    let bridges = networks.iter().filter(|network| network.driver == "bridge");
    for network in bridges.clone() {
        let option = |name| network.options.as_ref().and_then(|all| all.get(name));
        let subject = format!("network {} of {subject}", network.name);
        if option("com.docker.network.bridge.enable_icc").is_some_and(|icc| icc == "false") {
            all.push(NETWORKS.note(
                &subject,
                "the engine itself drops what its containers send to each other (enable_icc=false), also what policy allows",
                "make the network with `com.docker.network.bridge.enable_icc=true` where policy is to decide",
            ));
        }
        if network.internal {
            all.push(NETWORKS.note(
                &subject,
                "the engine itself drops what its containers send beyond it (internal), also what policy allows",
                "make the network without `internal` where policy is to decide",
            ));
        }
    }
    if bridges.count() > 1 {
        all.push(NETWORKS.note(
            subject,
            "the engine drops what containers of one network send to those of another, also what policy allows",
            "connect two containers that are to talk to one network",
        ));
    }
    all
}

async fn ask<T: for<'de> Deserialize<'de>>(socket: &Path, path: &str) -> Result<T, String> {
    let asked = async {
        let response =
            unix_http::get(socket, "docker", path)
                .await
                .map_err(|error| match error {
                    unix_http::GetError::Connect(error) => error.to_string(),
                    unix_http::GetError::Http(error) => error.to_string(),
                    unix_http::GetError::Path(error) => error.to_string(),
                })?;
        if !response.status().is_success() {
            return Err(format!("it answers {} to {path}", response.status()));
        }
        let body = unix_http::whole(response.into_body(), LARGEST)
            .await
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| format!("its answer to {path}: {error}"))
    };
    match timeout(PATIENT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err("it does not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_engine_drops_itself_is_said() {
        let networks: Vec<Network> = serde_json::from_str(
            r#"[{"Name":"bridge","Driver":"bridge","Options":null},
                {"Name":"quiet","Driver":"bridge","Options":{"com.docker.network.bridge.enable_icc":"false"}},
                {"Name":"inner","Driver":"bridge","Internal":true},
                {"Name":"host","Driver":"host"}]"#,
        )
        .unwrap();
        let found = isolation("docker", &networks);
        let subjects: Vec<&str> = found.iter().map(|item| &*item.subject).collect();
        assert_eq!(
            subjects,
            [
                "network quiet of docker",
                "network inner of docker",
                "docker"
            ]
        );
        assert!(isolation("docker", &networks[..1]).is_empty());
    }
}
