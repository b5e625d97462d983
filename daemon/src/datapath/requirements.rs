//! What the kernel must offer, since which version, and how it is probed.
//!
//! Asked once, before anything is loaded, so that the error names the feature and
//! not a verifier's complaint about it.

use aya::maps::MapType;
use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

/// A feature that is needed, with its first kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What people can look up.
    pub feature: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
}

/// The first thing that this kernel lacks, if any.
///
/// A probe that could not be made counts as passed: loading will tell.
#[must_use]
pub fn missing() -> Option<Requirement> {
    if let Ok(false) = is_map_supported(MapType::RingBuf) {
        return Some(Requirement {
            feature: "BPF ring buffers (BPF_MAP_TYPE_RINGBUF)",
            since: "5.8",
        });
    }
    None
}

/// Does the kernel have TCX (6.6, commit e420bed02507)? Older ones refuse the query.
#[must_use]
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Does the kernel have the coarse clock (5.11, commit d05512618056)?
#[must_use]
pub fn has_coarse_clock() -> bool {
    is_helper_supported(
        ProgramType::SchedClassifier,
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
    )
    .unwrap_or(true)
}
