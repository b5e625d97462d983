//! Which endpoint has which number and slot, and what it was when it was last seen.
//!
//! Numbers are given in rising order and not again (connections in the kernel carry
//! them); slots in a round, so that a slot is free for long before it is another endpoint
//! else's. Kept in the state directory, so that a restart knows its endpoints before a
//! runtime answers. It counts for the boot that it was written in, and never for
//! more than the pinned tables say themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use netpol_abi::limits::ENDPOINTS;
use netpol_engine::labels::Labels;
use netpol_engine::policy::ObjectName;
use netpol_engine::tables::Tables;
use netpol_engine::world::{NamedPort, PublishedPort};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::observed::{Namespace, Observed};
use crate::gate::{Seen, VethNaming};
use crate::runtime::container::{self, Container, Runtime};
use crate::runtime::resolvers;

/// The largest number.
const LAST: u32 = 0x00ff_ffff;
/// Its file in the state directory.
const FILE: &str = "endpoints.json";
/// Another one is not read.
const VERSION: u32 = 1;
/// Far more than 4,095 endpoints take.
const LARGEST: u64 = 64 << 20;

/// The identity of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// A Pod manifest declares it.
    Declared(ObjectName),
    /// The container of this ID owns it, of the engine whose socket stands before it. An earlier netpold kept
    /// the ID alone: [`Register::of_engines`] gives it its socket.
    Container(String),
    /// containerd's container of this ID owns it.
    Containerd(String),
}

impl Key {
    /// The key of a container.
    #[must_use]
    pub fn from_container(container: &Container) -> Self {
        let id = container.id.clone();
        match container.runtime {
            Runtime::Docker => Self::Container(id),
            Runtime::Containerd => Self::Containerd(id),
        }
    }

    /// The runtime and ID of its container, where it is one's.
    #[must_use]
    pub fn container(&self) -> Option<(Runtime, &str)> {
        match self {
            Self::Declared(_) => None,
            Self::Container(id) => Some((Runtime::Docker, id)),
            Self::Containerd(id) => Some((Runtime::Containerd, id)),
        }
    }
}

/// An endpoint as it was when it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its network namespace.
    pub netns: (u64, u64),
    /// Its number.
    pub id: u32,
    /// Its slot.
    pub slot: u32,
    /// Its name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// What it may use by leave.
    #[serde(default)]
    pub leaves: BTreeSet<IpNet>,
    /// Its ports that its engine publishes.
    #[serde(default)]
    pub published: BTreeSet<PublishedPort>,
    /// Its interfaces: by index, or by number where they are inside another namespace.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Those of them inside that are veths with the other end in a hidden namespace: stamps get through there.
    #[serde(default)]
    pub hidden: BTreeSet<u32>,
    /// Its addresses are those of an engine with a network namespace of its own.
    #[serde(default)]
    pub apart: bool,
    /// The addresses that its interfaces had when it began to run, where no runtime tells them:
    /// what it gives itself later is not its own.
    #[serde(default)]
    pub given: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// The resolvers that its engine asks for it, from the host's network namespace.
    #[serde(default)]
    pub asks: Option<BTreeSet<IpAddr>>,
}

/// What a container has started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its first process: another one is another start.
    pub pid: u32,
    /// The host's resolvers then, or when it was first seen.
    pub resolvers: resolvers::Found,
}

/// An interface as it was when it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The container end's MAC address.
    pub mac: [u8; 6],
    /// The container end's index: of another interface, or of this one where it is inside.
    pub peer: Option<u32>,
    /// The id of the namespace that it is in.
    pub nsid: Option<i32>,
}

/// All endpoints with a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// The number given last.
    last: u32,
    /// The slot given last.
    cursor: u32,
    /// The number given last to an interface inside another namespace.
    pub last_inside: u32,
    /// The endpoints, by their identity.
    pub records: BTreeMap<Key, Record>,
    /// Where containers were seen.
    pub seen: Seen,
    /// What running containers have started with.
    pub started: BTreeMap<Key, Started>,
    /// Interfaces that were an endpoint's and may be there for a moment longer than it: whose each was. Not kept over
    /// a restart.
    pub owned: BTreeMap<u32, Key>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    boot: String,
    last: u32,
    #[serde(default)]
    last_inside: u32,
    endpoints: Vec<(Key, Record)>,
    #[serde(default)]
    bridges: BTreeSet<String>,
    #[serde(default)]
    namings: BTreeSet<VethNaming>,
    #[serde(default)]
    started: Vec<(Key, Started)>,
}

/// Why the register could not be kept.
#[derive(Debug, Error)]
#[error("`{}`: {source}", path.display())]
pub struct RegisterError {
    /// Its file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Register {
    /// The endpoint with this number.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<(&Key, &Record)> {
        self.records.iter().find(|(_, record)| record.id == id)
    }

    /// The network namespace of the endpoint with this number, if the endpoint is in the same one still.
    #[must_use]
    pub fn namespace<'a>(&self, id: u32, observed: &'a Observed) -> Option<&'a Namespace> {
        let (key, record) = self.find(id)?;
        let namespace = match key.container() {
            Some((_, id)) => observed.containers.get(id)?,
            None => {
                let mut declared = observed.declared.iter();
                let declared = declared.find(|declared| declared.name == record.name)?;
                declared.namespace.as_ref().ok()?
            }
        };
        (namespace.identity == record.netns).then_some(namespace)
    }

    /// Is all that is kept over a restart the same in both?
    #[must_use]
    pub fn is_same_on_disk(&self, other: &Self) -> bool {
        self.last == other.last
            && self.cursor == other.cursor
            && self.last_inside == other.last_inside
            && self.records == other.records
            && self.seen == other.seen
            && self.started == other.started
    }

    /// What an earlier daemon left that the tables bear out. `fresh`: the tables are new, so
    /// no endpoint is enforced.
    #[must_use]
    pub fn adopt(mut self, tables: &Tables, empty_tables: EmptyTables) -> Self {
        match empty_tables {
            EmptyTables::NothingEnforced => self.records.clear(),
            EmptyTables::OthersStillEnforce => {}
            EmptyTables::No => self.records.retain(|_, record| {
                tables
                    .endpoints
                    .get(&record.slot)
                    .is_some_and(|entry| entry.id == record.id)
            }),
        }
        let used = tables.endpoints.values().map(|entry| entry.id).max();
        self.last = self.last.max(used.unwrap_or(0));
        self.cursor = tables.endpoints.keys().max().copied().unwrap_or(0);
        self
    }

    /// The number and slot of an endpoint in a namespace: those that it has, or new ones.
    /// `None`: there is no slot left.
    pub fn number(&mut self, key: &Key, netns: (u64, u64)) -> Option<(u32, u32)> {
        if let Some(record) = self.records.get(key)
            && record.netns == netns
        {
            return Some((record.id, record.slot));
        }
        let slots: BTreeSet<u32> = self.records.values().map(|record| record.slot).collect();
        let ids: BTreeSet<u32> = self.records.values().map(|record| record.id).collect();
        let slot = (1..ENDPOINTS)
            .map(|step| (self.cursor + step - 1) % (ENDPOINTS - 1) + 1)
            .find(|slot| !slots.contains(slot))?;
        let id = (1..=LAST)
            .map(|step| (self.last + step - 1) % LAST + 1)
            .find(|id| !ids.contains(id))?;
        self.cursor = slot;
        self.last = id;
        Some((id, slot))
    }

    /// The interfaces of all endpoints, by index.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> {
        let records = self.records.values();
        records.flat_map(|record| record.interfaces.keys().copied())
    }

    /// What was known of an endpoint, if it is in that namespace still.
    #[must_use]
    pub fn record_in(&self, key: &Key, namespace: &Namespace) -> Option<&Record> {
        let record = self.records.get(key);
        record.filter(|record| record.netns == namespace.identity)
    }

    /// The endpoint that has each address.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<IpAddr, &Key> {
        self.records
            .iter()
            .flat_map(|(key, record)| record.addresses.iter().map(move |address| (*address, key)))
            .collect()
    }

    /// Reads what was kept; nothing, where there is nothing of this boot.
    pub fn read(state: &Path, boot: &str) -> Self {
        let path = state.join(FILE);
        match read(&path) {
            Ok(saved) if saved.version == VERSION && saved.boot == boot && !boot.is_empty() => {
                Self {
                    last: saved.last,
                    cursor: 0,
                    last_inside: saved.last_inside,
                    records: saved.endpoints.into_iter().collect(),
                    seen: Seen {
                        bridges: saved.bridges,
                        namings: saved.namings,
                    },
                    started: saved.started.into_iter().collect(),
                    owned: BTreeMap::new(),
                }
            }
            // The endpoints were of another boot; bridges and veths are made again by the same names.
            Ok(saved) if saved.version == VERSION => Self {
                seen: Seen {
                    bridges: saved.bridges,
                    namings: saved.namings,
                },
                owned: BTreeMap::new(),
                ..Self::default()
            },
            Ok(_) => Self::default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the endpoints of before can't be read: containers are on hold until their engine lists them");
                Self::default()
            }
        }
    }

    /// The same, where each container is one of an engine: an earlier netpold knew one, the first of now.
    #[must_use]
    pub fn of_engines(mut self, first: &Path) -> Self {
        let records = std::mem::take(&mut self.records).into_iter();
        self.records = records
            .map(|(key, record)| match key {
                Key::Container(id) if container::split(&id).0.is_none() => {
                    (Key::Container(container::qualified(first, &id)), record)
                }
                key => (key, record),
            })
            .collect();
        self
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, state: &Path, boot: &str) -> Result<(), RegisterError> {
        let path = state.join(FILE);
        let saved = Saved {
            version: VERSION,
            boot: boot.to_owned(),
            last: self.last,
            last_inside: self.last_inside,
            endpoints: self
                .records
                .iter()
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect(),
            bridges: self.seen.bridges.clone(),
            namings: self.seen.namings.clone(),
            started: self
                .started
                .iter()
                .map(|(key, started)| (key.clone(), started.clone()))
                .collect(),
        };
        let write = || -> io::Result<()> {
            fs::create_dir_all(state)?;
            let new = state.join(".endpoints.json");
            let mut file = fs::File::create(&new)?;
            serde_json::to_writer(&mut file, &saved)?;
            file.write_all(b"\n")?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| RegisterError {
            path: path.clone(),
            source,
        })
    }
}

/// What empty tables mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyTables {
    /// They are not empty: they were adopted.
    No,
    /// Nothing was pinned.
    NothingEnforced,
    /// An earlier daemon's tables still enforce, and are about to be replaced.
    OthersStillEnforce,
}

fn read(path: &Path) -> io::Result<Saved> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() > LARGEST {
        return Err(io::Error::other("it is too large"));
    }
    serde_json::from_reader(io::BufReader::new(file)).map_err(io::Error::from)
}

/// Tells this boot from others.
#[must_use]
pub fn boot() -> String {
    // Without it nothing of before counts, which is safe.
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use netpol_engine::tables::EndpointEntry;

    use super::*;

    fn record(id: u32, slot: u32) -> Record {
        Record {
            netns: (4, u64::from(id)),
            id,
            slot,
            name: ObjectName::new("default", format!("c{id}")),
            labels: Labels::new(),
            ports: Vec::new(),
            addresses: ["10.0.0.1".parse().unwrap()].into(),
            leaves: ["10.99.0.0/24".parse().unwrap()].into(),
            published: BTreeSet::new(),
            interfaces: [(
                7,
                Interface {
                    mac: [2; 6],
                    peer: Some(2),
                    nsid: Some(1),
                },
            )]
            .into(),
            hidden: [7].into(),
            apart: true,
            given: BTreeMap::new(),
            asks: Some(["10.0.0.53".parse().unwrap()].into()),
        }
    }

    fn key(id: u32) -> Key {
        Key::Container(id.to_string())
    }

    #[test]
    fn it_is_kept_for_this_boot() {
        let root = tempfile::tempdir().unwrap();
        let mut register = Register::default();
        let (id, slot) = register.number(&key(1), (4, 1)).unwrap();
        register.records.insert(key(1), record(id, slot));
        let declared = Key::Declared(ObjectName::new("a", "b"));
        register.records.insert(declared, record(2, 2));
        register.save(root.path(), "boot").unwrap();
        let read = Register::read(root.path(), "boot");
        assert_eq!(read.records, register.records);
        assert_eq!(read.last, 1);
        assert_eq!(Register::read(root.path(), "another"), Register::default());
        fs::write(root.path().join(FILE), "{").unwrap();
        assert_eq!(Register::read(root.path(), "boot"), Register::default());
    }

    #[test]
    fn containers_that_an_earlier_netpold_kept_are_the_first_engines() {
        let root = tempfile::tempdir().unwrap();
        let mut register = Register::default();
        let podmans = Key::Container("/run/podman/podman.sock/2".to_owned());
        let containerds = Key::Containerd("default/3".to_owned());
        for (number, key) in [(1, &key(1)), (2, &podmans), (3, &containerds)] {
            register.records.insert(key.clone(), record(number, number));
        }
        register.save(root.path(), "boot").unwrap();
        let text = fs::read_to_string(root.path().join(FILE)).unwrap();
        assert!(text.contains(r#"[{"container":"1"},"#), "{text}");
        let read = Register::read(root.path(), "boot").of_engines(Path::new("/run/docker.sock"));
        let dockers = Key::Container("/run/docker.sock/1".to_owned());
        assert_eq!(
            read.records.keys().collect::<Vec<_>>(),
            [&dockers, &podmans, &containerds]
        );
    }

    #[test]
    fn only_what_the_tables_bear_out_is_adopted() {
        let mut register = Register::default();
        register.records.insert(key(5), record(5, 1));
        register.records.insert(key(6), record(6, 2));
        let mut tables = Tables::default();
        for (slot, id) in [(1, 5), (2, 9)] {
            let entry = EndpointEntry {
                id,
                ..EndpointEntry::default()
            };
            tables.endpoints.insert(slot, entry);
        }
        let mut adopted = register.clone().adopt(&tables, EmptyTables::No);
        assert_eq!(adopted.records.keys().collect::<Vec<_>>(), [&key(5)]);
        // Never the number of an endpoint that may have connections.
        assert_eq!(adopted.number(&key(7), (4, 7)), Some((10, 3)));
        assert_eq!(adopted.number(&key(5), (4, 5)), Some((5, 1)));
        assert_ne!(adopted.number(&key(5), (4, 8)).unwrap().0, 5);
        let fresh = register.adopt(&Tables::default(), EmptyTables::NothingEnforced);
        assert!(fresh.records.is_empty());
    }

    #[test]
    fn slots_go_round_and_end() {
        let mut register = Register::default();
        for _ in 1..ENDPOINTS {
            let next = register.last + 1;
            let (id, slot) = register.number(&key(next), (4, 1)).unwrap();
            register.records.insert(key(next), record(id, slot));
        }
        assert_eq!(register.number(&key(9999), (4, 1)), None);
        register.records.remove(&key(3));
        let (id, slot) = register.number(&key(9999), (4, 1)).unwrap();
        assert_eq!((id, slot), (ENDPOINTS, 3));
        register.last = LAST;
        let (id, _) = register.number(&key(9999), (4, 1)).unwrap();
        assert_eq!(id, 3, "numbers start over, past those in use");
    }
}
