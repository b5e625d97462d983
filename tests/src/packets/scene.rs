//! The scene of every packet file: three endpoints of one host, of which the first, `lab/box`,
//! is behind the interface under test, and the policies of a world.
//!
//! Worlds are manifests (`tests/packets/worlds`), read as the daemon reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use netpol_abi::tables::control_flags;
use netpol_engine::compile::compile;
use netpol_engine::manifest::{assemble, parse_bytes};
use netpol_engine::policy::ObjectName;
use netpol_engine::tables::Tables;
use netpol_engine::world::{Attached, Place, World};

use super::names::{ADDRESSES, MACS, find};

/// The number of `lab/box`.
pub const BOX: u32 = 7;
/// Its slot.
pub const SLOT: u32 = 3;
/// The id of its network namespace.
const NETNS: u32 = 987_654_321;
/// The interface that test runs are on: the loopback's number.
pub const INTERFACE: u32 = 1;

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
/// (nobody knows yet whose interface it is).
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
            _ => {
                flags |= find(&FLAGS, word).with_context(|| {
                    format!(
                        "`{word}` is nothing that a world can have: audit, keep, \
                         unidentified-pass, host-policy, unknown"
                    )
                })?;
            }
        }
    }
    let mut tables = compile(&world).tables;
    tables.flags |= flags;
    Ok(tables)
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
                BTreeMap::new()
            },
            // The kernel has none of this number, and finds no socket in it; the model finds those
            // that a packet's line says.
            netns: own.then_some(NETNS),
        });
    }
    world.host = find(&ADDRESSES, "host")
        .into_iter()
        .collect::<Vec<IpAddr>>()
        .into_iter()
        .collect();
    Ok(world)
}
