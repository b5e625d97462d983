//! What the kernel must offer, what is done where it does not, since which version each is
//! there, and how it is probed.
//!
//! Asked once, before anything is loaded, so that the error names the feature and
//! not a verifier's complaint about it. Versions are for people to look up: what counts is the
//! probe's answer, as distributions port features back.

use std::fmt;

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

/// A feature that the kernel lacks and netpold does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is not there.
    pub what: Requirement,
    /// What that means.
    pub instead: &'static str,
}

impl fmt::Display for Lack {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { feature, since } = self.what;
        write!(to, "no {feature} (Linux {since}): {}", self.instead)
    }
}

const RING: Requirement = Requirement {
    feature: "BPF ring buffers (BPF_MAP_TYPE_RINGBUF)",
    since: "5.8",
};

/// Commit e420bed02507.
const TCX: Lack = Lack {
    what: Requirement {
        feature: "TCX",
        since: "6.6",
    },
    instead: "clsact filters, which any process with CAP_NET_ADMIN can remove; they are put back",
};

/// Commit d05512618056.
const COARSE_CLOCK: Lack = Lack {
    what: Requirement {
        feature: "coarse clock for programs",
        since: "5.11",
    },
    instead: "the exact one, some 25 ns a packet more",
};

/// The first thing that this kernel lacks and that nothing replaces, if any.
///
/// A probe that could not be made counts as passed: loading will tell.
#[must_use]
pub fn missing() -> Option<Requirement> {
    matches!(is_map_supported(MapType::RingBuf), Ok(false)).then_some(RING)
}

/// Is it a PREEMPT_RT kernel? There a program may be preempted by another packet's on the same processor
/// (`local_bh_disable` keeps no other task out, kernel/softirq.c), and each would judge by what the
/// other has read.
#[must_use]
pub fn is_realtime() -> bool {
    is_one(std::fs::read_to_string("/sys/kernel/realtime"))
}

fn is_one(flag: std::io::Result<String>) -> bool {
    flag.is_ok_and(|flag| flag.trim() == "1")
}

/// What this kernel lacks and netpold does without.
#[must_use]
pub fn lacks() -> Vec<Lack> {
    [(TCX, has_tcx()), (COARSE_CLOCK, has_coarse_clock())]
        .into_iter()
        .filter_map(|(lack, is_there)| (!is_there).then_some(lack))
        .collect()
}

/// Does the kernel have TCX? Older ones refuse the query.
#[must_use]
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx(c"lo", TcAttachType::Ingress).is_ok()
}

/// Does the kernel have the coarse clock?
#[must_use]
pub fn has_coarse_clock() -> bool {
    is_helper_supported(
        ProgramType::SchedClassifier,
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
    )
    .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realtime_kernel_says_so() {
        assert!(is_one(Ok("1\n".to_owned())));
        assert!(!is_one(Ok("0\n".to_owned())));
        assert!(!is_one(Err(std::io::ErrorKind::NotFound.into())));
    }

    #[test]
    fn what_is_lacking_is_said_with_its_version_and_what_it_means() {
        assert_eq!(
            COARSE_CLOCK.to_string(),
            "no coarse clock for programs (Linux 5.11): the exact one, some 25 ns a packet more"
        );
    }
}
