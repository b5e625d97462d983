//! The maps by name: what the programs define, what may be pinned, and how a pinned
//! one is opened.
//!
//! Layouts are `netpol_abi::tables`; a pinned map is used only when its key and value
//! have the sizes that this build has.

use std::mem::size_of;
use std::path::Path;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, MapInfo, PerCpuArray};
use netpol_abi::limits;
use netpol_abi::link::{LINK_RATES, LinkRate, NEIGHBOURS, Neighbour};
use netpol_abi::tables::{
    Address, COUNTERS, Collected, Control, Counter, Endpoint, Entered, Flow, FlowKey4, FlowKey6,
    FragmentCursor, FragmentSet, Interface, Leave, PortBlock, Prefix, Published, PublishedKey,
    SenderAddress, Usage, Verdict, VerdictKey,
};
use thiserror::Error;

use super::pins::{Layout, Stage};
use super::wire::Wire;

/// A hash whose keys and values are shared layouts.
pub type Hash<K, V> = HashMap<MapData, Wire<K>, Wire<V>>;
/// A longest-prefix table, IPv4 or IPv6 by `K`.
pub type Trie<K, V> = LpmTrie<MapData, K, Wire<V>>;

/// What is known of a map before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name in the programs and its pin's.
    pub name: &'static str,
    /// Bytes of a key; 0 for the ring.
    pub key: u32,
    /// Bytes of a value; 0 for the ring.
    pub value: u32,
    /// Entries (the ring: bytes) unless the daemon asks for others.
    pub entries: u32,
}

const fn spec<K, V>(name: &'static str, entries: u32) -> Spec {
    Spec {
        name,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries,
    }
}

/// Bytes of an LPM key: the prefix length stands before the address.
type Lpm<const N: usize> = ([u8; 4], [u8; N]);

/// Every map that is pinned. The programs may have others (scratch space): those come
/// and go with the programs.
pub const MAPS: [Spec; 25] = [
    spec::<u32, Control>("CONTROL", 1),
    spec::<u32, Interface>("INTERFACES", limits::INTERFACE_SLOTS),
    spec::<u32, Interface>("INTERFACE_OVERFLOW", limits::INTERFACE_OVERFLOW),
    spec::<u32, Endpoint>("ENDPOINTS", limits::ENDPOINTS),
    spec::<[u8; 4], Address>("ADDRESSES4", limits::ADDRESSES),
    spec::<[u8; 16], Address>("ADDRESSES6", limits::ADDRESSES),
    spec::<u32, SenderAddress>("SENDERS", limits::SENDERS),
    spec::<Lpm<8>, Leave>("LEAVES4", limits::LEAVES),
    spec::<Lpm<20>, Leave>("LEAVES6", limits::LEAVES),
    spec::<PublishedKey, Published>("PUBLISHED", limits::PUBLISHED),
    spec::<Lpm<4>, Prefix>("PREFIXES4", limits::PREFIXES),
    spec::<Lpm<16>, Prefix>("PREFIXES6", limits::PREFIXES),
    spec::<VerdictKey, Verdict>("VERDICTS", limits::VERDICTS),
    spec::<u64, PortBlock>("PORT_BLOCKS", limits::PORT_BLOCKS),
    spec::<FlowKey4, Flow>("FLOWS4", limits::FLOWS4),
    spec::<FlowKey6, Flow>("FLOWS6", limits::FLOWS6),
    spec::<u32, FragmentSet>("FRAGMENTS", limits::FRAGMENT_SETS),
    spec::<u32, FragmentCursor>("FRAGMENT_CURSORS", limits::FRAGMENT_SETS),
    spec::<u32, LinkRate>("LINK_RATES", LINK_RATES),
    spec::<u32, Neighbour>("NEIGHBOURS", NEIGHBOURS),
    spec::<u32, Usage>("USAGE", limits::ENDPOINTS),
    spec::<u32, Entered>("ENTERED", limits::ACCOUNTS),
    spec::<u32, Collected>("COLLECTED", limits::ACCOUNTS),
    spec::<u32, Counter>("COUNTERS", COUNTERS),
    spec::<(), ()>("EVENTS", limits::EVENT_RING_BYTES),
];

/// Why a pinned map can't be used.
#[derive(Debug, Error)]
pub enum MapsError {
    /// It could not be opened.
    #[error("map `{name}` at its pin: {source}")]
    Open {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// It could not be read or written.
    #[error("map `{name}`: {source}")]
    Access {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
}

/// The number of entries of each pinned map that fits this build; `None` where one does not.
///
/// Maps that are not there are left out: the loader makes them.
pub(super) fn adoptable(layout: &Layout, stage: Stage) -> Option<Vec<(&'static str, u32)>> {
    let mut sizes = Vec::with_capacity(MAPS.len());
    for spec in &MAPS {
        let path = layout.map(stage, spec.name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).ok()?;
        if (info.key_size(), info.value_size()) != (spec.key, spec.value) {
            return None;
        }
        sizes.push((spec.name, info.max_entries()));
    }
    let control = Opener { layout, stage }.control().ok()?;
    let control = control.get(&0, 0).ok()?.0;
    (control.layout == limits::LAYOUT_VERSION).then_some(sizes)
}

/// Opens pinned maps as typed tables, each call with a descriptor of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opener<'a> {
    /// Where they are.
    pub layout: &'a Layout,
    /// Which set.
    pub stage: Stage,
}

impl Opener<'_> {
    fn open<T>(&self, name: &'static str) -> Result<T, MapsError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        open(&self.layout.map(self.stage, name))
            .and_then(T::try_from)
            .map_err(|source| MapsError::Open { name, source })
    }

    pub(super) fn control(&self) -> Result<Array<MapData, Wire<Control>>, MapsError> {
        self.open("CONTROL")
    }

    pub(super) fn array<T: aya::Pod>(
        &self,
        name: &'static str,
    ) -> Result<Array<MapData, T>, MapsError> {
        self.open(name)
    }

    pub(super) fn hash<K, V>(&self, name: &'static str) -> Result<Hash<K, V>, MapsError>
    where
        Wire<K>: aya::Pod,
        Wire<V>: aya::Pod,
    {
        self.open(name)
    }

    pub(super) fn trie<K: aya::Pod, V>(&self, name: &'static str) -> Result<Trie<K, V>, MapsError>
    where
        Wire<V>: aya::Pod,
    {
        self.open(name)
    }

    pub(super) fn counters(&self) -> Result<PerCpuArray<MapData, Wire<Counter>>, MapsError> {
        self.open("COUNTERS")
    }

    pub(super) fn ring(&self) -> Result<aya::maps::RingBuf<MapData>, MapsError> {
        self.open("EVENTS")
    }

    /// How many entries a map has room for.
    pub(super) fn room(&self, name: &'static str) -> Result<u32, MapsError> {
        MapInfo::from_pin(self.layout.map(self.stage, name))
            .map(|info| info.max_entries())
            .map_err(|source| MapsError::Open { name, source })
    }
}

fn open(path: &Path) -> Result<Map, MapError> {
    Map::from_map_data(MapData::from_pin(path)?)
}

/// The number that the kernel gave for a failure, if it was the kernel.
pub(super) fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(call) => call.io_error.raw_os_error(),
        MapError::CreateError { io_error, .. } => io_error.raw_os_error(),
        MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
