//! Reports of the groups that an endpoint listens to, under its own address or none (it has
//! groups already while its address is still being looked for: RFC 3590, 4; RFC 3376, 4.2.13);
//! queries only towards it. Without them a snooping bridge would not deliver neighbour
//! solicitations.
//!
//! All of it goes to a group, no further than the link. Groups and sources are the endpoint's to
//! choose, so the budget counts addresses, not messages.

use super::{
    ParsedFrame, PolicyContext, Sent, Subprograms, addresses, has_no_address4, has_no_address6,
};
use crate::{
    link::Class,
    packet::{self, Frame, Membership},
    reason::Reason,
};

/// IGMP or listener discovery from the endpoint; `membership`: what was read of it.
#[inline(always)]
pub fn sent<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
    membership: Option<Membership>,
) -> Sent {
    let packet = &parsed.packet;
    let (class, lie) = if packet.version == 6 {
        (Class::ListenerDiscovery, Reason::ForgedNd)
    } else {
        (Class::GroupMembership, Reason::ForgedIgmp)
    };
    let Some(report) = membership else {
        return Sent::Lie(lie);
    };
    let (from_none, has_header) = if packet.version == 6 {
        let has_header = packet::has_listener_header(frame, packet);
        (has_no_address6(packet), has_header)
    } else {
        let has_header = packet::has_membership_header(frame, packet);
        (has_no_address4(packet), has_header)
    };
    let is_query = report.addresses == 0;
    // Under the group's MAC address; that is the group that the report is for.
    let destination = &packet.destination;
    let mac = parsed.ethernet.destination;
    let is_true = !is_query
        && report.to_its_group
        && packet.hops == 1
        && packet::is_group_mac(mac, packet.version, destination)
        && has_header
        && (from_none || addresses::is_own(context, packet.version, &packet.source));
    if is_true {
        Sent::True(class, report.addresses)
    } else {
        Sent::Lie(lie)
    }
}
