//! The interpreter of plans: one map write a step, nothing decided here.
//!
//! [`KernelTables`] is the only writer of what policy decides, so it mirrors what it wrote as
//! [`MapImage`]: a plan is made against the mirror, an undone step is taken from it, and
//! the fill of the tables is its size. After a restart the mirror is read back from the pinned maps.
//!
//! Calls block: a [`Step::WaitGracePeriod`] takes 5 to 30 ms. Use a thread of its own.

use std::net::IpAddr;
use std::sync::Arc;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, MapData, MapError};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netpol_abi::limits::INTERFACE_SLOTS;
use netpol_abi::tables::{
    Address, Control, Endpoint, Interface, Leave, LeaveKey4, LeaveKey6, PortBlock, Prefix,
    Published, PublishedKey, SenderAddress, Verdict, VerdictKey,
};
use netpol_engine::model::MapImage;
use netpol_engine::plan::both_banks::{published_at, published_key, sender};
use netpol_engine::plan::{Demand, Step};
use thiserror::Error;

use super::by_reference::ByReference;
use super::grace_period;
use super::maps::{Hash, MapsError, Opener, Trie};
use super::options::Options;
use super::pins::Lock;
use super::wire::Wire;
use super::within::is_inside;
use super::write::{delete, put};

pub use super::write::StepError;

/// A plan that was not carried out to its end.
#[derive(Debug, Error)]
#[error("{cause}")]
pub struct ApplyError {
    /// Did the plan's commit take place? If so the new state is in force, and only the
    /// removal of what is no longer used was cut short: a later plan repeats it. If not,
    /// what was in force before still is.
    pub committed: bool,
    /// Before the commit every step is undone. `false`: not all could be; nothing that is
    /// read is affected, and [`KernelTables::resync`] tells what is there.
    pub clean: bool,
    /// Why the plan stopped.
    #[source]
    pub cause: StepError,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The map's name.
    pub table: &'static str,
    /// Entries now.
    pub entries: u32,
    /// Entries that it can hold.
    pub limit: u32,
}

/// The maps that policy decides.
pub struct KernelTables {
    control: Array<MapData, Wire<Control>>,
    interfaces: Array<MapData, Wire<Interface>>,
    interface_overflow: ByReference<u32, Interface>,
    endpoints: Array<MapData, Wire<Endpoint>>,
    addresses4: Hash<[u8; 4], Address>,
    addresses6: Hash<[u8; 16], Address>,
    senders: ByReference<u32, SenderAddress>,
    leaves4: Trie<LeaveKey4, Leave>,
    leaves6: Trie<LeaveKey6, Leave>,
    published: Hash<PublishedKey, Published>,
    prefixes4: Trie<[u8; 4], Prefix>,
    prefixes6: Trie<[u8; 16], Prefix>,
    verdicts: Hash<VerdictKey, Verdict>,
    port_blocks: Hash<u64, PortBlock>,
    rooms: Rooms,
    /// The fields of `CONTROL` that no plan writes.
    own: Control,
    installed: MapImage,
    _lock: Arc<Lock>,
}

/// How many entries each table can hold.
#[derive(Clone, Copy, Debug)]
struct Rooms {
    endpoints: u32,
    addresses4: u32,
    addresses6: u32,
    leaves4: u32,
    leaves6: u32,
    published: u32,
    prefixes4: u32,
    prefixes6: u32,
    verdicts: u32,
    port_blocks: u32,
}

impl KernelTables {
    /// Opens pinned maps and reads them back.
    pub(super) fn open(
        opener: &Opener<'_>,
        options: &Options,
        lock: Arc<Lock>,
    ) -> Result<Self, MapsError> {
        let mut tables = Self {
            control: opener.control()?,
            interfaces: opener.array("INTERFACES")?,
            interface_overflow: ByReference::open(opener, "INTERFACE_OVERFLOW")?,
            endpoints: opener.array("ENDPOINTS")?,
            addresses4: opener.hash("ADDRESSES4")?,
            addresses6: opener.hash("ADDRESSES6")?,
            senders: ByReference::open(opener, "SENDERS")?,
            leaves4: opener.trie("LEAVES4")?,
            leaves6: opener.trie("LEAVES6")?,
            published: opener.hash("PUBLISHED")?,
            prefixes4: opener.trie("PREFIXES4")?,
            prefixes6: opener.trie("PREFIXES6")?,
            verdicts: opener.hash("VERDICTS")?,
            port_blocks: opener.hash("PORT_BLOCKS")?,
            rooms: Rooms {
                endpoints: opener.room("ENDPOINTS")?,
                addresses4: opener.room("ADDRESSES4")?,
                addresses6: opener.room("ADDRESSES6")?,
                leaves4: opener.room("LEAVES4")?,
                leaves6: opener.room("LEAVES6")?,
                published: opener.room("PUBLISHED")?,
                prefixes4: opener.room("PREFIXES4")?,
                prefixes6: opener.room("PREFIXES6")?,
                verdicts: opener.room("VERDICTS")?,
                port_blocks: opener.room("PORT_BLOCKS")?,
            },
            own: Control::default(),
            installed: MapImage::default(),
            _lock: lock,
        };
        tables.resync()?;
        let own = Control {
            flow_share: options.flow_share,
            flow_rooms: [opener.room("FLOWS4")?, opener.room("FLOWS6")?],
            timeouts: options.timeouts,
            ..tables.own
        };
        if tables.own != own {
            tables.own = own;
            let control = tables.installed.control;
            tables
                .write_control(control.generation, control.flags)
                .map_err(|source| access("CONTROL", source))?;
        }
        Ok(tables)
    }

    /// What is in the maps, both banks: what a plan starts from.
    #[must_use]
    pub const fn installed(&self) -> &MapImage {
        &self.installed
    }

    /// Is there room for all that a plan needs on its way? To be asked before it is carried
    /// out: what does not fit is then refused without a single write.
    ///
    /// # Errors
    /// The first table that is too small.
    pub fn check(&self, demand: &Demand) -> Result<(), StepError> {
        let rooms = &self.rooms;
        let slots = usize::try_from(demand.endpoints).unwrap_or(usize::MAX);
        for (map, needed, limit) in [
            ("ENDPOINTS", slots, rooms.endpoints),
            ("ADDRESSES4", demand.addresses4, rooms.addresses4),
            ("ADDRESSES6", demand.addresses6, rooms.addresses6),
            ("LEAVES4", demand.leaves4, rooms.leaves4),
            ("LEAVES6", demand.leaves6, rooms.leaves6),
            ("PUBLISHED", demand.published, rooms.published),
            ("PREFIXES4", demand.prefixes4, rooms.prefixes4),
            ("PREFIXES6", demand.prefixes6, rooms.prefixes6),
            ("VERDICTS", demand.verdicts, rooms.verdicts),
            ("PORT_BLOCKS", demand.port_blocks, rooms.port_blocks),
        ] {
            if u32::try_from(needed).is_ok_and(|needed| needed <= limit) {
                continue;
            }
            return Err(StepError::TableFull { map, limit });
        }
        Ok(())
    }

    /// Carries out a plan's steps in their order.
    ///
    /// # Errors
    /// The first step that failed. Before a commit, everything is undone.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let mut committed = false;
        let mut undo = Vec::new();
        for step in steps {
            if !committed {
                undo.extend(self.installed.inverse(step));
            }
            if let Err(cause) = self.execute(step) {
                let clean = committed || self.undo(undo);
                return Err(ApplyError {
                    committed,
                    clean,
                    cause,
                });
            }
            self.installed.apply(step);
            committed |= matches!(step, Step::Commit { .. });
        }
        Ok(())
    }

    /// Reads the maps again, where an undo failed or at the start.
    ///
    /// # Errors
    /// A map that can't be read.
    pub fn resync(&mut self) -> Result<(), MapsError> {
        let control = self
            .control
            .get(&0, 0)
            .map_err(|source| access("CONTROL", source))?
            .0;
        self.own = Control {
            generation: 0,
            flags: [0, 0],
            ..control
        };
        self.installed = MapImage {
            control: Control {
                generation: control.generation,
                flags: control.flags,
                ..Control::default()
            },
            ..MapImage::default()
        };
        self.read_interfaces()
            .map_err(|source| access("INTERFACES", source))?;
        for (slot, endpoint) in (0..).zip(self.endpoints.iter()) {
            let endpoint = endpoint.map_err(|source| access("ENDPOINTS", source))?.0;
            if endpoint.id != 0 {
                self.installed.endpoints.insert(slot, endpoint);
            }
        }
        self.read_addresses()
            .map_err(|source| access("ADDRESSES", source))?;
        for entry in self.senders.iter() {
            let (key, address) = entry.map_err(|source| access("SENDERS", source))?;
            self.installed.senders.insert(key, address);
        }
        self.read_leaves()
            .map_err(|source| access("LEAVES", source))?;
        for entry in self.published.iter() {
            let (key, value) = entry.map_err(|source| access("PUBLISHED", source))?;
            let at = published_at(&key.0);
            self.installed.published.insert(at, value.0);
        }
        self.read_prefixes()
            .map_err(|source| access("PREFIXES", source))?;
        for entry in self.verdicts.iter() {
            let (key, value) = entry.map_err(|source| access("VERDICTS", source))?;
            self.installed.verdicts.insert(key.0, value.0);
        }
        for entry in self.port_blocks.iter() {
            let (key, value) = entry.map_err(|source| access("PORT_BLOCKS", source))?;
            self.installed.port_blocks.insert(key.0, value.0);
        }
        Ok(())
    }

    /// How full the tables are.
    #[must_use]
    pub fn fill(&self) -> Vec<Fill> {
        let addresses = &self.installed.addresses;
        let prefixes = &self.installed.prefixes;
        let addresses4 = addresses.keys().filter(|address| address.is_ipv4()).count();
        let prefixes4 = prefixes
            .keys()
            .filter(|net| matches!(net, IpNet::V4(_)))
            .count();
        let leaves = &self.installed.leaves;
        let leaves4 = leaves
            .keys()
            .filter(|(_, net)| matches!(net, IpNet::V4(_)))
            .count();
        let fill = |table, entries: usize, limit| Fill {
            table,
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            limit,
        };
        let rooms = &self.rooms;
        vec![
            fill("ENDPOINTS", self.installed.endpoints.len(), rooms.endpoints),
            fill("ADDRESSES4", addresses4, rooms.addresses4),
            fill("ADDRESSES6", addresses.len() - addresses4, rooms.addresses6),
            fill("LEAVES4", leaves4, rooms.leaves4),
            fill("LEAVES6", leaves.len() - leaves4, rooms.leaves6),
            fill("PUBLISHED", self.installed.published.len(), rooms.published),
            fill("PREFIXES4", prefixes4, rooms.prefixes4),
            fill("PREFIXES6", prefixes.len() - prefixes4, rooms.prefixes6),
            fill("VERDICTS", self.installed.verdicts.len(), rooms.verdicts),
            fill(
                "PORT_BLOCKS",
                self.installed.port_blocks.len(),
                rooms.port_blocks,
            ),
        ]
    }

    /// Takes steps back, the last first; `false` where one could not be.
    fn undo(&mut self, steps: Vec<Step>) -> bool {
        let mut clean = true;
        for step in steps.into_iter().rev() {
            match self.execute(&step) {
                Ok(()) => self.installed.apply(&step),
                Err(_) => clean = false,
            }
        }
        clean
    }

    fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        let rooms = self.rooms;
        match step {
            Step::PutPortBlock { key, value } => put(
                "PORT_BLOCKS",
                rooms.port_blocks,
                self.port_blocks.insert(&Wire(*key), &Wire(**value), 0),
            ),
            Step::PutVerdict { key, value } => put(
                "VERDICTS",
                rooms.verdicts,
                self.verdicts.insert(&Wire(*key), &Wire(*value), 0),
            ),
            Step::PutEndpoint { slot, value } => put(
                "ENDPOINTS",
                rooms.endpoints,
                self.endpoints.set(*slot, &Wire(*value), 0),
            ),
            Step::PutAddress { address, value } => self.put_address(*address, *value),
            Step::PutSender { key, address } => self.senders.put(*key, sender(*address)),
            Step::DeleteSender { key } => self.senders.remove(*key),
            Step::PutLeave { slot, net, value } => match *net {
                IpNet::V4(net) => put(
                    "LEAVES4",
                    rooms.leaves4,
                    self.leaves4
                        .insert(&leave_key4(*slot, net), &Wire(*value), 0),
                ),
                IpNet::V6(net) => put(
                    "LEAVES6",
                    rooms.leaves6,
                    self.leaves6
                        .insert(&leave_key6(*slot, net), &Wire(*value), 0),
                ),
            },
            Step::DeleteLeave { slot, net } => match *net {
                IpNet::V4(net) => delete("LEAVES4", self.leaves4.remove(&leave_key4(*slot, net))),
                IpNet::V6(net) => delete("LEAVES6", self.leaves6.remove(&leave_key6(*slot, net))),
            },
            Step::PutPublished { at, value } => put(
                "PUBLISHED",
                rooms.published,
                self.published
                    .insert(&Wire(published_key(at)), &Wire(*value), 0),
            ),
            Step::DeletePublished { at } => {
                delete("PUBLISHED", self.published.remove(&Wire(published_key(at))))
            }
            Step::PutPrefix { net, value } => match *net {
                IpNet::V4(net) => put(
                    "PREFIXES4",
                    rooms.prefixes4,
                    self.prefixes4.insert(&key4(net), &Wire(*value), 0),
                ),
                IpNet::V6(net) => put(
                    "PREFIXES6",
                    rooms.prefixes6,
                    self.prefixes6.insert(&key6(net), &Wire(*value), 0),
                ),
            },
            Step::PutInterface { ifindex, value } => self.put_interface(*ifindex, *value),
            Step::PutFlags { flags } => {
                let generation = self.installed.control.generation;
                put("CONTROL", 1, self.write_control(generation, *flags))
            }
            Step::Commit { generation, flags } => {
                put("CONTROL", 1, self.write_control(*generation, *flags))
            }
            Step::WaitGracePeriod => {
                grace_period::wait()?;
                self.interface_overflow.waited();
                self.senders.waited();
                Ok(())
            }
            Step::DeleteInterface { ifindex } => self.delete_interface(*ifindex),
            Step::DeleteVerdict { key } => delete("VERDICTS", self.verdicts.remove(&Wire(*key))),
            Step::DeletePortBlock { key } => {
                delete("PORT_BLOCKS", self.port_blocks.remove(&Wire(*key)))
            }
            Step::DeleteAddress { address } => match address {
                IpAddr::V4(address) => delete(
                    "ADDRESSES4",
                    self.addresses4.remove(&Wire(address.octets())),
                ),
                IpAddr::V6(address) => delete(
                    "ADDRESSES6",
                    self.addresses6.remove(&Wire(address.octets())),
                ),
            },
            Step::DeletePrefix { net } => match *net {
                IpNet::V4(net) => delete("PREFIXES4", self.prefixes4.remove(&key4(net))),
                IpNet::V6(net) => delete("PREFIXES6", self.prefixes6.remove(&key6(net))),
            },
        }
    }

    /// An array's element is copied word by word, and the generation is one word.
    fn write_control(&mut self, generation: u64, flags: [u32; 2]) -> Result<(), MapError> {
        let control = Control {
            generation,
            flags,
            ..self.own
        };
        self.control.set(0, &Wire(control), 0)
    }

    fn put_address(&mut self, address: IpAddr, value: Address) -> Result<(), StepError> {
        match address {
            IpAddr::V4(address) => put(
                "ADDRESSES4",
                self.rooms.addresses4,
                self.addresses4
                    .insert(&Wire(address.octets()), &Wire(value), 0),
            ),
            IpAddr::V6(address) => put(
                "ADDRESSES6",
                self.rooms.addresses6,
                self.addresses6
                    .insert(&Wire(address.octets()), &Wire(value), 0),
            ),
        }
    }

    /// In its slot, or, where another interface has that, in the hash. The programs ask
    /// the slot first, so the hash entry goes last. An interface inside another namespace takes no slot
    /// from those that are here.
    fn put_interface(&mut self, ifindex: u32, value: Interface) -> Result<(), StepError> {
        let slot = ifindex % INTERFACE_SLOTS;
        let holder = self.slot_holder(slot)?;
        if !is_inside(ifindex) && (holder == 0 || holder == ifindex) {
            put(
                "INTERFACES",
                INTERFACE_SLOTS,
                self.interfaces.set(slot, &Wire(value), 0),
            )?;
            return self.interface_overflow.remove(ifindex);
        }
        self.interface_overflow.put(ifindex, value)
    }

    fn delete_interface(&mut self, ifindex: u32) -> Result<(), StepError> {
        self.interface_overflow.remove(ifindex)?;
        let slot = ifindex % INTERFACE_SLOTS;
        if self.slot_holder(slot)? == ifindex {
            put(
                "INTERFACES",
                INTERFACE_SLOTS,
                self.interfaces.set(slot, &Wire(Interface::default()), 0),
            )?;
        }
        Ok(())
    }

    fn slot_holder(&self, slot: u32) -> Result<u32, StepError> {
        match self.interfaces.get(&slot, 0) {
            Ok(interface) => Ok(interface.0.ifindex),
            Err(source) => Err(StepError::Write {
                map: "INTERFACES",
                source,
            }),
        }
    }

    fn read_interfaces(&mut self) -> Result<(), MapError> {
        let interfaces = &mut self.installed.interfaces;
        for entry in self.interface_overflow.iter() {
            let (ifindex, interface) = entry?;
            interfaces.insert(ifindex, interface);
        }
        // Last, as a slot beats the hash.
        for interface in self.interfaces.iter() {
            let interface = interface?.0;
            if interface.ifindex != 0 {
                interfaces.insert(interface.ifindex, interface);
            }
        }
        Ok(())
    }

    fn read_addresses(&mut self) -> Result<(), MapError> {
        let addresses = &mut self.installed.addresses;
        for entry in self.addresses4.iter() {
            let (address, value) = entry?;
            addresses.insert(IpAddr::from(address.0), value.0);
        }
        for entry in self.addresses6.iter() {
            let (address, value) = entry?;
            addresses.insert(IpAddr::from(address.0), value.0);
        }
        Ok(())
    }

    fn read_leaves(&mut self) -> Result<(), MapError> {
        let leaves = &mut self.installed.leaves;
        for entry in self.leaves4.iter() {
            let (key, value) = entry?;
            let [a, b, c, d, address @ ..] = key.data();
            if let Some(net) = leave_net(IpAddr::from(address), key.prefix_len()) {
                leaves.insert((u32::from_be_bytes([a, b, c, d]), net), value.0);
            }
        }
        for entry in self.leaves6.iter() {
            let (key, value) = entry?;
            let data = key.data();
            if let (Some(slot), Some(address)) = (data.first_chunk(), data.last_chunk::<16>())
                && let Some(net) = leave_net(IpAddr::from(*address), key.prefix_len())
            {
                leaves.insert((u32::from_be_bytes(*slot), net), value.0);
            }
        }
        Ok(())
    }

    fn read_prefixes(&mut self) -> Result<(), MapError> {
        let prefixes = &mut self.installed.prefixes;
        for entry in self.prefixes4.iter() {
            let (key, value) = entry?;
            if let Some(net) = net(IpAddr::from(key.data()), key.prefix_len()) {
                prefixes.insert(net, value.0);
            }
        }
        for entry in self.prefixes6.iter() {
            let (key, value) = entry?;
            if let Some(net) = net(IpAddr::from(key.data()), key.prefix_len()) {
                prefixes.insert(net, value.0);
            }
        }
        Ok(())
    }
}

fn key4(net: Ipv4Net) -> Key<[u8; 4]> {
    Key::new(u32::from(net.prefix_len()), net.network().octets())
}

fn key6(net: Ipv6Net) -> Key<[u8; 16]> {
    Key::new(u32::from(net.prefix_len()), net.network().octets())
}

/// The slot stands before the address, all of it.
const SLOT_BITS: u32 = u32::BITS;

fn leave_key4(slot: u32, net: Ipv4Net) -> Key<LeaveKey4> {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&slot.to_be_bytes());
    data[4..].copy_from_slice(&net.network().octets());
    Key::new(SLOT_BITS + u32::from(net.prefix_len()), data)
}

fn leave_key6(slot: u32, net: Ipv6Net) -> Key<LeaveKey6> {
    let mut data = [0; 20];
    data[..4].copy_from_slice(&slot.to_be_bytes());
    data[4..].copy_from_slice(&net.network().octets());
    Key::new(SLOT_BITS + u32::from(net.prefix_len()), data)
}

fn leave_net(address: IpAddr, bits: u32) -> Option<IpNet> {
    net(address, bits.checked_sub(SLOT_BITS)?)
}

fn net(address: IpAddr, bits: u32) -> Option<IpNet> {
    IpNet::new(address, u8::try_from(bits).ok()?).ok()
}

fn access(name: &'static str, source: MapError) -> MapsError {
    MapsError::Access { name, source }
}
