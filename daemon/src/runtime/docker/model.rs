//! From the engine's answers to [`Container`]s.
//!
//! Owns the reading of what the engine says. Pure. Called by `follow`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use netpol_engine::policy::Protocol;
use netpol_engine::world::PublishedPort;

use super::{dns, wire};
use crate::runtime::container::{Attachment, Container, State};

/// What a health check, `docker exec` or `docker cp` does changes nothing here.
pub(super) fn is_noise(event: &wire::Event) -> bool {
    const NOISE: [&str; 11] = [
        "exec_",
        "health_status",
        "top",
        "attach",
        "detach",
        "resize",
        "archive-path",
        "extract-to-dir",
        "export",
        "copy",
        "commit",
    ];
    NOISE.iter().any(|noise| event.action.starts_with(noise))
}

/// The container that an event is about.
pub(super) fn subject(event: &wire::Event) -> Option<&str> {
    match event.kind.as_str() {
        "container" => Some(&event.actor.id),
        "network" => event.actor.attributes.get("container").map(String::as_str),
        _ => None,
    }
}

/// Does it say that the container's first process is not the one of before?
pub(super) fn ends_process(event: &wire::Event) -> bool {
    event.kind == "container"
        && matches!(
            event.action.as_str(),
            "start" | "restart" | "die" | "died" | "destroy"
        )
}

fn state(text: &str) -> State {
    match text {
        "created" | "configured" | "initialized" => State::Created,
        // `stopping` still runs.
        "running" | "stopping" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        "exited" | "dead" | "removing" | "stopped" => State::Ended,
        // Unknown to us: it may run, and is asked for its PID, which tells.
        _ => State::Running,
    }
}

/// The containers of a listing, by ID. PIDs are not in it.
pub(super) fn containers(
    listed: Vec<wire::Summary>,
    networks: &[wire::Network],
) -> BTreeMap<String, Container> {
    let networks: HashMap<&str, &wire::Network> = networks
        .iter()
        .map(|network| (network.id.as_str(), network))
        .collect();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for one in &listed {
        for name in &one.names {
            ids.insert(name.trim_start_matches('/').to_owned(), one.id.clone());
        }
    }
    listed
        .into_iter()
        .map(|one| {
            let network_mode = one.host_config.network_mode;
            let joined = network_mode.strip_prefix("container:").map(|owner| {
                // Docker keeps the ID here; Podman what was typed.
                ids.get(owner).cloned().unwrap_or_else(|| owner.to_owned())
            });
            let container = Container {
                name: own_name(&one.names).unwrap_or(&one.id).to_owned(),
                labels: one.labels,
                pid: 0,
                joined,
                host_network: network_mode == "host",
                network_mode,
                networks: attachments(one.network_settings, &networks),
                published: listed_ports(&one.ports),
                state: state(&one.state),
                created: one.created.as_i64().unwrap_or(0),
                id: one.id,
                ..Container::default()
            };
            (container.id.clone(), container)
        })
        .collect()
}

/// A container is also listed under the names by which others link to it: `/other/alias`.
fn own_name(names: &[String]) -> Option<&str> {
    names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.is_empty() && !name.contains('/'))
}

fn attachments(
    settings: wire::NetworkSettings,
    networks: &HashMap<&str, &wire::Network>,
) -> Vec<Attachment> {
    settings
        .networks
        .into_iter()
        .map(|(name, endpoint)| {
            let network = networks
                .get(endpoint.network_id.as_str())
                .copied()
                .or_else(|| {
                    networks
                        .values()
                        .copied()
                        .find(|network| network.name == name)
                });
            let is_on_it = !endpoint.endpoint_id.is_empty();
            let link_local = endpoint.asked.link_local_ips.iter();
            let link_local = link_local.filter_map(|text| text.parse().ok());
            Attachment {
                driver: network
                    .map(|network| network.driver.clone())
                    .unwrap_or_default(),
                bridge: network.and_then(bridge),
                mac: mac(&endpoint.mac_address),
                ipv4: endpoint.ip_address.parse().ok(),
                ipv6: endpoint.global_ipv6_address.parse().ok(),
                // The engine takes no others, and gives each that was asked for.
                link_local: link_local
                    .filter(|address| is_on_it && is_link_local(address))
                    .collect(),
                name,
            }
        })
        .collect()
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The ports that a listing says are published.
fn listed_ports(ports: &[wire::Port]) -> BTreeSet<PublishedPort> {
    ports
        .iter()
        .flat_map(|port| {
            published(
                &port.ip,
                port.public_port,
                port.private_port,
                &port.protocol,
            )
        })
        .collect()
}

/// The ports that an inspection says are published, or are to be: ranges, and ports that the engine is to choose, are not
/// known before it has.
fn bound_ports(bindings: &wire::Bindings) -> BTreeSet<PublishedPort> {
    let mut ports = BTreeSet::new();
    for (own, at) in bindings {
        let Some((target, protocol)) = own.split_once('/') else {
            continue;
        };
        for binding in at.iter().flatten() {
            if let (Ok(port), Ok(target)) = (binding.host_port.parse(), target.parse()) {
                ports.extend(published(&binding.host_ip, port, target, protocol));
            }
        }
    }
    ports
}

/// One published port. Without an address it is so at each of both families.
fn published(address: &str, port: u16, target: u16, protocol: &str) -> Vec<PublishedPort> {
    let Ok(protocol) = protocol.to_ascii_uppercase().parse::<Protocol>() else {
        return Vec::new();
    };
    let addresses = match address.parse::<IpAddr>() {
        // Podman has it as it was asked for: `::ffff:192.0.2.1` is an IPv4 address.
        Ok(address) => vec![address.to_canonical()],
        Err(_) if address.is_empty() => {
            vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        }
        Err(_) => Vec::new(),
    };
    addresses
        .into_iter()
        .filter(|_| port != 0)
        .map(|address| PublishedPort {
            protocol,
            address,
            port,
            target,
        })
        .collect()
}

/// The bridge of a network: as it was asked for, else as Docker names it.
pub(super) fn bridge(network: &wire::Network) -> Option<String> {
    if network.driver != "bridge" {
        return None;
    }
    let asked = network.options.get("com.docker.network.bridge.name");
    asked
        .filter(|name| !name.is_empty())
        .cloned()
        .or_else(|| Some(format!("br-{}", network.id.get(..12)?)))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// The network that a container has just joined.
pub(super) fn joined(event: &wire::Event) -> Option<&str> {
    (event.kind == "network" && event.action == "connect").then_some(&event.actor.id)
}

/// Is a member of a network with this ID a step of a build? BuildKit's IDs are 25 digits of base 36; containers' are 64
/// hexadecimal ones, so that one that no listing has yet is never taken for a build.
pub(super) fn is_build(id: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    id.len() == 25 && id.bytes().all(is_digit)
}

/// The network by which a container reaches beyond its overlay networks. The engine makes it and adds containers to it by
/// itself: only its own listing names them, and no event does (libnetwork, `default_gateway.go`).
pub(super) const GATEWAY: &str = "docker_gwbridge";

/// Is this the ID under which the network [`GATEWAY`] names the interface by which a swarm's published ports come in?
/// It leads into a namespace of the engine's own (libnetwork, `controller.go`: `"ingress-sbox"`). A container's ID is never
/// this word, whatever its name is.
pub(super) fn is_ingress(id: &str) -> bool {
    id == "ingress-sbox"
}

/// May the engine have added this container to the network [`GATEWAY`]?
pub(super) fn may_have_gateway(container: &Container) -> bool {
    let mut networks = container.networks.iter();
    networks.any(|network| !matches!(network.driver.as_str(), "bridge" | "null" | "host"))
}

/// A step of a build: without labels, and without a process that the engine would name.
pub(super) fn build(id: &str, networks: Vec<Attachment>, seen: Instant) -> Container {
    Container {
        id: id.to_owned(),
        name: format!("build-{}", id.get(..12).unwrap_or(id)),
        networks,
        state: State::Created,
        build: Some(seen),
        ..Container::default()
    }
}

/// What a network says of a container on it, before that has started.
pub(super) fn member(name: &str, member: &wire::Member) -> Attachment {
    // `172.17.0.2/16`
    let address = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    Attachment {
        name: name.to_owned(),
        mac: mac(&member.mac_address),
        ipv4: address(&member.ipv4_address).parse().ok(),
        ipv6: address(&member.ipv6_address).parse().ok(),
        ..Attachment::default()
    }
}

/// Adds what networks say to what the answers about the container do not say yet, networks among it that they do not
/// have.
pub(super) fn fill(container: &mut Container, members: &BTreeMap<String, Attachment>) {
    for member in members.values() {
        let known = container.networks.iter_mut();
        match known.into_iter().find(|known| known.name == member.name) {
            Some(network) => {
                network.mac = network.mac.or(member.mac);
                network.ipv4 = network.ipv4.or(member.ipv4);
                network.ipv6 = network.ipv6.or(member.ipv6);
            }
            None => container.networks.push(member.clone()),
        }
    }
    container
        .networks
        .sort_by(|one, other| one.name.cmp(&other.name));
}

/// Looks up the driver and the bridge of networks that were not known when they were named.
pub(super) fn resolve(container: &mut Container, networks: &[wire::Network]) {
    for attachment in &mut container.networks {
        if attachment.driver.is_empty()
            && let Some(network) = networks
                .iter()
                .find(|network| network.name == attachment.name)
        {
            attachment.driver.clone_from(&network.driver);
            attachment.bridge = bridge(network);
        }
    }
}

/// What an inspection says. It is the last word: the engine answers it from the container
/// itself, where a listing is answered from what was saved of it, which may be older.
pub(super) fn inspected(
    container: &mut Container,
    inspection: &wire::Inspection,
    networks: &[wire::Network],
) {
    let now = state(&inspection.state.status);
    container.state = now;
    container.pid = match now {
        State::Running | State::Paused => inspection.state.pid,
        _ => 0,
    };
    container
        .cgroup_parent
        .clone_from(&inspection.host_config.cgroup_parent);
    container.dns = dns::from_inspection(inspection);
    container.published = match &inspection.network_settings {
        Some(settings) if container.is_running() => bound_ports(&settings.ports),
        _ => bound_ports(&inspection.host_config.port_bindings),
    };
    let name = inspection.name.trim_start_matches('/');
    if !name.is_empty() {
        name.clone_into(&mut container.name);
    }
    if let Some(settings) = &inspection.network_settings {
        let by_id = networks
            .iter()
            .map(|network| (network.id.as_str(), network))
            .collect();
        container.networks = attachments(settings.clone(), &by_id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks() -> Vec<wire::Network> {
        serde_json::from_str(
            r#"[{"Id":"aaaabbbbccccdddd","Name":"shop","Driver":"bridge","Options":null},
                {"Id":"b0","Name":"bridge","Driver":"bridge","Options":{"com.docker.network.bridge.name":"docker0"}},
                {"Id":"c0","Name":"lan","Driver":"macvlan"},
                {"Id":"short","Name":"x","Driver":"bridge"}]"#,
        )
        .unwrap()
    }

    fn listed(json: &str) -> Vec<Container> {
        containers(serde_json::from_str(json).unwrap(), &networks())
            .into_values()
            .collect()
    }

    #[test]
    fn a_listing_becomes_containers() {
        let found = listed(
            r#"[{"Id":"1","Names":["/other/alias","/web"],"Labels":{"a":"b"},"State":"running","Created":7,
                 "HostConfig":{"NetworkMode":"shop"},
                 "NetworkSettings":{"Networks":{"shop":{"NetworkID":"aaaabbbbccccdddd","MacAddress":"02:42:0a:00:00:02",
                   "IPAddress":"10.0.0.2","GlobalIPv6Address":"fd00::2"},"lan":{"NetworkID":"c0","IPAddress":""}}}},
                {"Id":"2","Names":["/side"],"State":"created","HostConfig":{"NetworkMode":"container:web"}},
                {"Id":"3","Names":null,"Labels":null,"State":"hovering","HostConfig":{"NetworkMode":"host"},"NetworkSettings":null},
                {"Id":"4","Names":["/gone"],"State":"exited","HostConfig":{"NetworkMode":"default"},
                 "NetworkSettings":{"Networks":{"bridge":{"NetworkID":""},"x":{"NetworkID":"short","IPAddress":"nonsense","MacAddress":"zz"}}}}]"#,
        );
        let web = &found[0];
        assert_eq!(
            (web.name.as_str(), web.created, web.state),
            ("web", 7, State::Running)
        );
        assert_eq!(
            web.networks,
            [
                Attachment {
                    name: "lan".into(),
                    driver: "macvlan".into(),
                    ..Attachment::default()
                },
                Attachment {
                    name: "shop".into(),
                    driver: "bridge".into(),
                    bridge: Some("br-aaaabbbbcccc".into()),
                    mac: Some([2, 0x42, 0x0a, 0, 0, 2]),
                    ipv4: Some("10.0.0.2".parse().unwrap()),
                    ipv6: Some("fd00::2".parse().unwrap()),
                    link_local: Vec::new(),
                },
            ]
        );
        assert_eq!(found[1].joined.as_deref(), Some("1"));
        assert_eq!(
            (
                found[2].name.as_str(),
                found[2].host_network,
                found[2].state
            ),
            ("3", true, State::Running)
        );
        assert_eq!(found[3].networks[0].bridge.as_deref(), Some("docker0"));
        assert_eq!(
            found[3].networks[1],
            Attachment {
                name: "x".into(),
                driver: "bridge".into(),
                ..Attachment::default()
            }
        );
    }

    #[test]
    fn an_inspection_is_the_last_word_of_a_container_that_runs() {
        let mut web = listed(
            r#"[{"Id":"1","Names":["/web"],"State":"created","NetworkSettings":{"Networks":{"bridge":{"NetworkID":"b0"}}}}]"#,
        )
        .remove(0);
        let inspection = |json: &str| serde_json::from_str::<wire::Inspection>(json).unwrap();
        let networks = networks();
        // What the listing lacks is there, and what it has too much is not.
        inspected(
            &mut web,
            &inspection(
                r#"{"Name":"/renamed","State":{"Status":"running","Pid":42},"HostConfig":{"CgroupParent":"/x"},
                    "NetworkSettings":{"Networks":{"shop":{"NetworkID":"aaaabbbbccccdddd","IPAddress":"10.0.0.2"}}}}"#,
            ),
            &networks,
        );
        assert_eq!((web.pid, web.state), (42, State::Running));
        assert_eq!(
            (web.cgroup_parent.as_str(), web.name.as_str()),
            ("/x", "renamed")
        );
        let [shop] = &web.networks[..] else {
            panic!("{:?}", web.networks);
        };
        assert_eq!(shop.ipv4, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(shop.bridge.as_deref(), Some("br-aaaabbbbcccc"));
        // An engine that says nothing of networks takes none away; one that says that there is none does.
        inspected(
            &mut web,
            &inspection(r#"{"State":{"Status":"running","Pid":42}}"#),
            &networks,
        );
        assert_eq!(web.networks.len(), 1);
        let none = r#"{"State":{"Status":"running","Pid":42},"NetworkSettings":{"Networks":{}}}"#;
        inspected(&mut web, &inspection(none), &networks);
        assert_eq!(web.networks, []);
        inspected(
            &mut web,
            &inspection(r#"{"State":{"Status":"exited","Pid":42}}"#),
            &networks,
        );
        assert_eq!((web.pid, web.state), (0, State::Ended));
    }

    fn ports(container: &Container) -> Vec<String> {
        let show = |port: &PublishedPort| {
            let PublishedPort {
                protocol,
                address,
                port,
                target,
            } = port;
            format!("{protocol} {address} {port} -> {target}")
        };
        container.published.iter().map(show).collect()
    }

    #[test]
    fn published_ports_are_those_of_the_engine_and_before_the_start_those_asked_for() {
        let mut web = listed(
            r#"[{"Id":"1","Names":["/web"],"State":"running","Ports":[
                 {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                 {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                 {"IP":"::ffff:192.0.2.1","PrivatePort":53,"PublicPort":53,"Type":"udp"},
                 {"IP":"","PrivatePort":9,"PublicPort":9,"Type":"sctp"},
                 {"PrivatePort":443,"Type":"tcp"},
                 {"IP":"nonsense","PrivatePort":1,"PublicPort":1,"Type":"tcp"},
                 {"IP":"0.0.0.0","PrivatePort":1,"PublicPort":1,"Type":"icmp"}]}]"#,
        )
        .remove(0);
        assert_eq!(
            ports(&web),
            [
                "TCP 0.0.0.0 8080 -> 80",
                "TCP :: 8080 -> 80",
                "UDP 192.0.2.1 53 -> 53",
                "SCTP 0.0.0.0 9 -> 9",
                "SCTP :: 9 -> 9",
            ]
        );
        let bindings = r#""HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}],
            "81/tcp":[{"HostIp":"","HostPort":""}],"82/tcp":[{"HostIp":"","HostPort":"9000-9010"}],"83/tcp":null}}"#;
        let mut say = |state: &str, settings: &str| {
            let json =
                format!(r#"{{"State":{{"Status":"{state}","Pid":42}},{bindings}{settings}}}"#);
            inspected(&mut web, &serde_json::from_str(&json).unwrap(), &networks());
            ports(&web)
        };
        let asked = ["TCP 0.0.0.0 8080 -> 80", "TCP :: 8080 -> 80"];
        assert_eq!(say("created", r#","NetworkSettings":{"Ports":{}}"#), asked);
        let now = r#","NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],
            "81/tcp":[{"HostIp":"::","HostPort":"49153"}],"83/tcp":null}}"#;
        let chosen = ["TCP 0.0.0.0 8080 -> 80", "TCP :: 49153 -> 81"];
        assert_eq!(say("running", now), chosen);
        // On a network that publishes nothing.
        assert_eq!(
            say("running", r#","NetworkSettings":{"Ports":{}}"#),
            [""; 0]
        );
    }

    #[test]
    fn link_local_addresses_are_those_of_networks_that_the_container_is_on() {
        let mut web = listed(r#"[{"Id":"1","Names":["/web"],"State":"running"}]"#).remove(0);
        let mut given = |json: &str| {
            let json = format!(
                r#"{{"State":{{"Status":"running","Pid":42}},"NetworkSettings":{{"Networks":{{"shop":{json}}}}}}}"#
            );
            inspected(&mut web, &serde_json::from_str(&json).unwrap(), &networks());
            web.networks[0].addresses().collect::<Vec<IpAddr>>()
        };
        let addresses = |all: &[&str]| -> Vec<IpAddr> {
            all.iter().map(|text| text.parse().unwrap()).collect()
        };
        let asked =
            r#""IPAMConfig":{"LinkLocalIPs":["169.254.34.2","fe80::99","10.9.9.9","nonsense"]}"#;
        assert_eq!(
            given(&format!(
                r#"{{"EndpointID":"e1","IPAddress":"10.0.0.2",{asked}}}"#
            )),
            addresses(&["10.0.0.2", "169.254.34.2", "fe80::99"])
        );
        // It could not be connected, and the engine says what was asked all the same.
        let not_on_it = format!(r#"{{"EndpointID":"",{asked}}}"#);
        assert_eq!(given(&not_on_it), addresses(&[]));
        for none in ["null", "{}", r#"{"LinkLocalIPs":null}"#] {
            let json = format!(r#"{{"EndpointID":"e1","IPAMConfig":{none}}}"#);
            assert_eq!(given(&json), addresses(&[]));
        }
    }

    #[test]
    fn a_network_knows_its_members_before_the_answers_about_them_do() {
        let mut web = listed(
            r#"[{"Id":"1","Names":["/web"],"State":"created","NetworkSettings":{"Networks":{"bridge":{"NetworkID":"b0"}}}}]"#,
        )
        .remove(0);
        let members = |json: &str| {
            let members: wire::Members = serde_json::from_str(json).unwrap();
            let one = member(&members.name, &members.containers["1"]);
            (one.name.clone(), one)
        };
        let bridge = members(
            r#"{"Name":"bridge","Containers":{"1":{"MacAddress":"02:42:0a:00:00:02","IPv4Address":"172.17.0.2/16","IPv6Address":""}}}"#,
        );
        // One that it was just connected to.
        let shop = members(r#"{"Name":"a-shop","Containers":{"1":{"IPv4Address":"10.0.0.2/24"}}}"#);
        fill(&mut web, &BTreeMap::from([bridge, shop]));
        let mut networks = networks();
        networks[0].name = "a-shop".to_owned();
        resolve(&mut web, &networks);
        assert_eq!(web.networks[0].ipv4, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(
            (
                web.networks[0].driver.as_str(),
                web.networks[0].bridge.as_deref()
            ),
            ("bridge", Some("br-aaaabbbbcccc"))
        );
        assert_eq!(web.networks[1].ipv4, Some("172.17.0.2".parse().unwrap()));
        assert_eq!(web.networks[1].mac, Some([2, 0x42, 0x0a, 0, 0, 2]));
        assert_eq!(web.networks[1].ipv6, None);
        assert_eq!(web.networks[1].bridge.as_deref(), Some("docker0"));
    }

    #[test]
    fn events_say_whom_they_are_about() {
        let event = |json: &str| serde_json::from_str::<wire::Event>(json).unwrap();
        let start = event(
            r#"{"Type":"container","Action":"start","Actor":{"ID":"1","Attributes":{"name":"web"}}}"#,
        );
        assert_eq!(
            (subject(&start), ends_process(&start), is_noise(&start)),
            (Some("1"), true, false)
        );
        let connect = event(
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"1"}}}"#,
        );
        assert_eq!(
            (
                subject(&connect),
                ends_process(&connect),
                is_noise(&connect)
            ),
            (Some("1"), false, false)
        );
        assert_eq!((joined(&connect), joined(&start)), (Some("n"), None));
        let exec = event(r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"1"}}"#);
        assert!(is_noise(&exec));
        assert!(!is_noise(&event("{}")));
    }

    #[test]
    fn a_build_is_known_by_its_id_and_a_container_never_taken_for_one() {
        assert!(is_build("mq0s1zcvp5z1aoyt6xbbhdbtq"));
        let container = "0123456789abcdef".repeat(4);
        for other in [
            container.as_str(),
            "ingress-sbox",
            "",
            "MQ0S1ZCVP5Z1AOYT6XBBHDBTQ",
        ] {
            assert!(!is_build(other), "{other}");
        }
        let step = build("mq0s1zcvp5z1aoyt6xbbhdbtq", Vec::new(), Instant::now());
        assert_eq!((step.name.as_str(), step.pid), ("build-mq0s1zcvp5z1", 0));
    }
}
