//! Packet counters by reason and direction, summed over the CPUs. Read for metrics and
//! `netpol status`, never per packet.

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray};
use netpol_abi::Reason;
use netpol_abi::tables::Counter;

use super::hook::Hook;
use super::maps::MapsError;
use super::pins::Lock;
use super::wire::Wire;

/// The counters' map.
pub struct CounterTable {
    map: PerCpuArray<MapData, Wire<Counter>>,
    _lock: Arc<Lock>,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Why the packets passed or not.
    pub reason: Reason,
    /// In the endpoint's view.
    pub direction: Hook,
    /// Packets since the maps were made.
    pub packets: u64,
    /// Bytes, link-layer header included.
    pub bytes: u64,
}

impl CounterTable {
    pub(super) const fn new(map: PerCpuArray<MapData, Wire<Counter>>, lock: Arc<Lock>) -> Self {
        Self { map, _lock: lock }
    }

    /// All counters, those at zero included.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn read(&self) -> Result<Vec<Count>, MapsError> {
        let mut counts = Vec::with_capacity(Reason::ALL.len() * 2);
        for &reason in Reason::ALL {
            for direction in [Hook::Ingress, Hook::Egress] {
                let index = index(reason, direction);
                let cpus = self
                    .map
                    .get(&index, 0)
                    .map_err(|source| MapsError::Access {
                        name: "COUNTERS",
                        source,
                    })?;
                let mut count = Count {
                    reason,
                    direction,
                    packets: 0,
                    bytes: 0,
                };
                for cpu in cpus.iter() {
                    count.packets = count.packets.wrapping_add(cpu.0.packets);
                    count.bytes = count.bytes.wrapping_add(cpu.0.bytes);
                }
                counts.push(count);
            }
        }
        Ok(counts)
    }
}

fn index(reason: Reason, direction: Hook) -> u32 {
    reason as u32 * 2 + direction.number()
}
