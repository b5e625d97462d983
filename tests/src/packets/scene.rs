//! The scene of every packet file: three endpoints of one host, of which the first, `lab/box`,
//! is behind the interface under test, and the policies of a world.
//!
//! Worlds are manifests (`tests/packets/worlds`), read as the daemon reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use netpol_abi::limits::FIRST_LOOPBACK;
use netpol_abi::tables::{Control, control_flags, stamp, stamp_key};
use netpol_engine::compile::compile;
use netpol_engine::leave;
use netpol_engine::manifest::{assemble, parse_bytes};
use netpol_engine::plan::both_banks::sender;
use netpol_engine::policy::ObjectName;
use netpol_engine::tables::Tables;
use netpol_engine::world::{Attached, Place, PublishedPort, World};

use super::names::{ADDRESSES, MACS, PLACES, address, find, number};

/// The number of `lab/box`.
pub const BOX: u32 = 7;
/// Its slot.
pub const SLOT: u32 = 3;
/// The id of its network namespace.
const NETNS: u32 = 987_654_321;
/// By what senders' stamps are multiplied.
pub const STAMP_KEY: u16 = 0x9d2f;
/// The interface that test runs are on: the loopback's number.
pub const INTERFACE: u32 = 1;
/// The number of the box's own loopback interface, where its engine asks for it.
pub const LOOPBACK: u32 = FIRST_LOOPBACK + 5;

/// The control flags that a world may be given with.
const FLAGS: [(&str, u32); 3] = [
    ("audit", control_flags::AUDIT),
    ("keep", control_flags::KEEP_ESTABLISHED),
    ("unidentified-pass", control_flags::UNIDENTIFIED_PASS),
];

/// Where the packet files are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packets")
}

/// The tables of a world, as the daemon would make them. `text` is its name and then flags, or
/// what else the world has of its own: `host-policy` (the host is a peer like others), `unknown`
/// (the interface's owner is not known yet), `audited` (the Namespace of all three is), `leave=`, `published=`, `broadcast=`.
///
/// # Errors
/// There is no such world, flag, or its manifests are not valid.
pub fn tables(text: &str) -> Result<Tables> {
    let mut words = text.split_whitespace();
    let name = words.next().context("which world?")?;
    let mut world = world(name)?;
    let mut flags = 0;
    for word in words {
        match word {
            "host-policy" => {
                world.settings.host_ingress = false;
                world.settings.host_egress = false;
            }
            "unknown" => {
                world.pods.remove(&ObjectName::new("lab", "box"));
            }
            _ if word.starts_with("asks=") => {
                let pod = world.pods.get_mut(&ObjectName::new("lab", "box"));
                let Place::Attached(attached) = &mut pod.context("there is no box")?.place else {
                    bail!("the box is not attached");
                };
                let names = word.trim_start_matches("asks=").split(',');
                let addresses = names.map(|name| address(name, 0));
                attached.asks = Some(addresses.collect::<Result<_>>()?);
                attached.interfaces.insert(LOOPBACK, [0; 6]);
            }
            _ if word.starts_with("published=") => {
                let (who, port) = published(word.trim_start_matches("published="))?;
                let pod = world.pods.get_mut(&ObjectName::new("lab", who));
                let pod = pod.with_context(|| format!("`{who}`: box, friend, foe"))?;
                pod.published.insert(port);
            }
            _ if word.starts_with("broadcast=") => {
                let found = address(word.trim_start_matches("broadcast="), 0)?;
                world.broadcasts.insert(found);
            }
            "audited" => {
                world.audited.insert("lab".to_owned());
            }
            _ if word.starts_with("leave=") => {
                let text = word.trim_start_matches("leave=");
                let pod = world.pods.get_mut(&ObjectName::new("lab", "box"));
                pod.context("there is no box")?.leaves = leave::parse(text)?;
            }
            _ => {
                flags |= find(&FLAGS, word).with_context(|| {
                    format!(
                        "`{word}` is nothing that a world can have: audit, keep, \
                         unidentified-pass, host-policy, unknown, audited, leave=PREFIXES, \
                         published=WHO,PROTOCOL,ADDRESS,PORT,TARGET, broadcast=ADDRESS, asks=ADDRESSES"
                    )
                })?;
            }
        }
    }
    let mut tables = compile(&world)?.tables;
    tables.flags |= flags;
    Ok(tables)
}

/// A published port, `WHO,PROTOCOL,ADDRESS,PORT,TARGET`: whose, and at which address and port of the host's it leads to
/// which of its own.
fn published(text: &str) -> Result<(&str, PublishedPort)> {
    let words: Vec<&str> = text.split(',').collect();
    let [who, protocol, at, port, target] = words[..] else {
        bail!("`{text}` is not WHO,PROTOCOL,ADDRESS,PORT,TARGET");
    };
    let port = PublishedPort {
        protocol: protocol.to_ascii_uppercase().parse()?,
        address: address(at, 0)?,
        port: number(port, 0)?,
        target: number(target, 0)?,
    };
    Ok((who, port))
}

/// The stamp, as it stands in `tc_index`, of what the endpoint with this address sends from it.
///
/// # Errors
/// No endpoint of the scene has the address.
pub fn stamp_of(name: &str) -> Result<u16> {
    let address = address(name, 0)?;
    let endpoints = ["box", "friend", "foe"];
    let slot = (SLOT..).zip(endpoints).find_map(|(slot, endpoint)| {
        let is_its = name == endpoint || name.strip_suffix('6') == Some(endpoint);
        is_its.then_some(slot)
    });
    let slot = slot.with_context(|| format!("`{name}` is no endpoint's: box, friend, foe"))?;
    let control = Control {
        stamp_key: stamp_key(STAMP_KEY),
        ..Control::default()
    };
    Ok(u16::try_from(
        control.stamp_on_wire(stamp(slot, &sender(address))),
    )?)
}

fn world(name: &str) -> Result<World> {
    ensure!(
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
        "`{name}` is not a world's name"
    );
    let mut files = Vec::new();
    for name in ["pods", name] {
        let path = directory().join("worlds").join(name).with_extension("yaml");
        let bytes = std::fs::read(&path).with_context(|| format!("there is no world `{name}`"))?;
        let file = parse_bytes(&path.to_string_lossy(), &bytes);
        if let Some(found) = file.diagnostics.first() {
            bail!("{}:{}: {}", path.display(), found.line, found.message);
        }
        files.push(file);
    }
    let mut world = assemble(&files).world();
    for (index, name) in (0..).zip(["box", "friend", "foe"]) {
        let pod = world.pods.get_mut(&ObjectName::new("lab", name));
        let pod = pod.with_context(|| format!("there is no `lab/{name}`"))?;
        let own = name == "box";
        pod.place = Place::Attached(Attached {
            slot: SLOT + index,
            id: BOX + index,
            interfaces: if own {
                BTreeMap::from([(INTERFACE, MACS[0].1)])
            } else {
                // Each has a port of the same bridge.
                let port = find(&PLACES, name).context("a port")?;
                BTreeMap::from([(port, [2, 0, 0, 0, 0, port as u8])])
            },
            bridges: find(&PLACES, "bridge").into_iter().collect(),
            on_wire: false,
            // The kernel has none of this number, and finds no socket in it; the model finds those
            // that a packet's line says.
            netns: own.then_some(NETNS),
            asks: None,
        });
    }
    let host = ["host", "host6"].into_iter();
    world.host = host
        .filter_map(|name| find(&ADDRESSES, name))
        .collect::<BTreeSet<IpAddr>>();
    Ok(world)
}
