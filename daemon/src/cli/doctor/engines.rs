//! The engines that the configuration names: do they answer, and what do their networks drop by themselves?

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ENGINES, NETWORKS};
use crate::api::wire::HealthItem;
use crate::config::{Config, Enabled};
use crate::runtime::docker::{Engine, EngineError, Network};

/// How long containerd may take.
const PATIENT: Duration = Duration::from_secs(5);
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
    let (engine, networks) = match answers(socket).await {
        Ok(answers) => answers,
        Err(error) => return vec![gone(&subject, &error.to_string(), "docker")],
    };
    let api = engine
        .api()
        .map(|(major, minor)| format!(", API {major}.{minor}"));
    let text = format!("version {}{}", engine.version(), api.unwrap_or_default());
    let mut all = vec![ENGINES.ok(&subject, &text)];
    all.extend(isolation(&subject, &networks));
    all
}

async fn answers(socket: &Path) -> Result<(Engine, Vec<Network>), EngineError> {
    let engine = Engine::connect(socket).await?;
    let networks = engine.networks().await?;
    Ok((engine, networks))
}

/// What an engine's networks drop, whatever policy says.
fn isolation(subject: &str, networks: &[Network]) -> Vec<HealthItem> {
    let mut all = Vec::new();
    let bridges = networks.iter().filter(|network| network.driver == "bridge");
    for network in bridges.clone() {
        let subject = format!("network {} of {subject}", network.name);
        let icc = network.options.get("com.docker.network.bridge.enable_icc");
        if icc.is_some_and(|icc| icc == "false") {
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
