//! Our reasons in Hubble's words (`flow.DropReason`): the nearest that it has.

use netpol_abi::Reason;

/// Number and name of Hubble's drop reason; `None` for a reason that passes.
#[must_use]
pub const fn from_reason(reason: Reason) -> Option<(u32, &'static str)> {
    Some(match reason {
        Reason::NotIsolated
        | Reason::RuleAllowed
        | Reason::Established
        | Reason::Related
        | Reason::Host
        | Reason::Itself
        | Reason::LinkControl
        | Reason::Arp
        | Reason::NeighbourDiscovery
        | Reason::GroupMembership
        | Reason::FragmentEarly
        | Reason::UnidentifiedAllowed => return None,
        Reason::PolicyDenied | Reason::PolicyRevoked => (133, "POLICY_DENIED"),
        Reason::Unidentified => (165, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION"),
        Reason::SpoofedAddress | Reason::ForgedSource => (132, "INVALID_SOURCE_IP"),
        Reason::SpoofedMac => (130, "INVALID_SOURCE_MAC"),
        Reason::ForgedArp
        | Reason::ForgedIgmp
        | Reason::ForgedDhcp
        | Reason::SourceRoute
        | Reason::Malformed => (134, "INVALID_PACKET_DROPPED"),
        Reason::ForgedNd => (176, "FORBIDDEN_ICMPV6_MESSAGE"),
        Reason::NotForEndpoint => (150, "UNKNOWN_L3_TARGET_ADDRESS"),
        Reason::LinkRate => (198, "DROP_RATE_LIMITED"),
        Reason::EtherType => (139, "UNSUPPORTED_L3_PROTOCOL"),
        Reason::Vlan => (182, "VLAN_FILTERED"),
        Reason::Truncated => (135, "CT_TRUNCATED_OR_INVALID_HEADER"),
        Reason::ExtensionHeaders => (156, "INVALID_IPV6_EXTENSION_HEADER"),
        Reason::FragmentWithoutFirst => (175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"),
        Reason::FragmentTiny | Reason::FragmentOverlap => (157, "IP_FRAGMENTATION_NOT_SUPPORTED"),
        Reason::TcpNotOpening | Reason::TcpState => (136, "CT_MISSING_TCP_ACK_FLAG"),
        Reason::UnrelatedError => (138, "CT_CANNOT_CREATE_ENTRY_FROM_PACKET"),
        Reason::FlowTableFull | Reason::FlowShareFull => (155, "CT_MAP_INSERTION_FAILED"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn just_the_reasons_that_drop_have_one() {
        for reason in Reason::ALL {
            assert_eq!(
                from_reason(*reason).is_none(),
                reason.allows(),
                "{reason:?}"
            );
        }
    }
}
