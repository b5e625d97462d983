//! Why a packet got its verdict: one numbered list for the ring buffer, the
//! metrics label, `netpol observe` and the table in docs/reference.md.
//!
//! The numbers are append-only: they are in records that older programs wrote.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal, $text:literal;)*) => {
        /// The reason of a verdict. Numbers below 64 pass, all others drop.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The label in metrics and JSON.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// No policy selects the endpoint for this direction.
    NotIsolated = 1, "not-isolated", "no policy selects the endpoint in this direction";
    /// A rule allows it; the event carries which.
    RuleAllowed = 2, "rule-allowed", "a rule allows it";
    /// Part of a connection that was allowed before.
    Established = 3, "established", "part of an allowed connection";
    /// An ICMP error about an allowed connection.
    Related = 4, "related", "an ICMP error about an allowed connection";
    /// To or from the container's own host.
    Host = 5, "host", "between the container and its own host";
    /// The endpoint speaks to itself.
    Itself = 6, "itself", "the endpoint speaks to itself";
    /// DHCP between a client and a host that is no container.
    LinkControl = 7, "link-control", "a DHCP client's question to all hosts, or an answer to one";
    /// The configuration lets unidentified interfaces through.
    UnidentifiedAllowed = 8, "unidentified-allowed", "the interface is not identified, and the configuration lets it through";
    /// A later fragment that came before its first.
    FragmentEarly = 9, "fragment-early", "a fragment that came before its datagram's first; policy allows its sender some port of its protocol";

    /// ARP that tells the truth.
    Arp = 10, "arp", "truthful ARP";
    /// Neighbour and router discovery that tells the truth.
    NeighbourDiscovery = 11, "neighbour-discovery", "truthful IPv6 neighbour or router discovery";
    /// IGMP and MLD that tell the truth.
    GroupMembership = 12, "group-membership", "truthful group membership (IGMP, MLD)";

    /// Isolated, and no rule allows it.
    PolicyDenied = 64, "policy-denied", "no rule of the isolating policies allows it";
    /// The connection was allowed once; the policy now in force denies it.
    PolicyRevoked = 65, "policy-revoked", "the policy now in force no longer allows this connection";
    /// The interface's container is not known yet.
    Unidentified = 66, "unidentified", "the labels behind this interface are not known yet";
    /// The source address is not one of the endpoint's.
    SpoofedAddress = 67, "spoofed-address", "the source address does not belong to the endpoint";
    /// The source MAC is not the interface's.
    SpoofedMac = 68, "spoofed-mac", "the source MAC address does not belong to the endpoint";
    /// ARP that claims another owner's addresses.
    ForgedArp = 69, "forged-arp", "the ARP message claims addresses that do not belong to the endpoint, or carries more than it needs";
    /// Neighbour discovery that claims another owner's addresses, or a router's part.
    ForgedNd = 70, "forged-nd", "the neighbour or listener discovery message claims what does not belong to the endpoint, or carries more than it needs";
    /// The destination is not one of the endpoint's addresses.
    NotForEndpoint = 71, "not-for-endpoint", "the destination address does not belong to the endpoint";
    /// An ethertype other than IPv4, IPv6 and ARP.
    EtherType = 72, "ethertype", "neither IPv4, IPv6 nor ARP";
    /// A VLAN tag.
    Vlan = 73, "vlan", "the frame carries a VLAN tag";
    /// A header that ends before it should.
    Truncated = 74, "truncated", "a header is cut short";
    /// A header that contradicts itself.
    Malformed = 75, "malformed", "a header contradicts itself";
    /// IPv6 extension headers unknown or too many.
    ExtensionHeaders = 76, "extension-headers", "IPv6 extension headers that are unknown, forbidden or too many";
    /// A later fragment whose first was not seen (or was denied).
    FragmentWithoutFirst = 77, "fragment-without-first", "a later fragment whose first was not allowed";
    /// A first fragment too short for the ports, or a later one that begins inside them.
    FragmentTiny = 78, "fragment-tiny", "a fragment that cuts the transport header in two";
    /// TCP that neither opens nor belongs to a connection.
    TcpNotOpening = 79, "tcp-not-opening", "a TCP segment that neither opens a connection nor belongs to one";
    /// An ICMP error about nothing that was allowed.
    UnrelatedError = 80, "unrelated-error", "an ICMP error about a connection that is not allowed";
    /// The connection table has no room.
    FlowTableFull = 81, "flow-table-full", "the connection table is full";
    /// The endpoint's share of the connection table is used up.
    FlowShareFull = 82, "flow-share-full", "the opener's share of the connection table is used up";
    /// TCP that no stack sends in the state that the connection is in.
    TcpState = 83, "tcp-state", "a TCP segment that does not fit the state of its connection";
    /// DHCP or DHCPv6 answers from an endpoint.
    ForgedDhcp = 84, "forged-dhcp", "a DHCP server's answer from a container";
    /// IPv4 options that name routers to pass.
    SourceRoute = 85, "source-route", "IPv4 options that choose a route of their own";
    /// A later fragment that would overwrite what was judged.
    FragmentOverlap = 86, "fragment-overlap", "a fragment that overlaps the headers that were judged";
    /// IGMP that claims another's address or a router's part.
    ForgedIgmp = 87, "forged-igmp", "the group membership message claims what does not belong to the endpoint, or carries more than it needs";
    /// The source is an endpoint's address, and that endpoint did not send the packet.
    ForgedSource = 88, "forged-source", "the source address is that of an endpoint of this host which did not send the packet";
    /// Link messages beyond the endpoint's budget for their class.
    LinkRate = 90, "link-rate", "more ARP, neighbour discovery, IGMP, MLD or DHCP than a container needs";
}

impl Reason {
    /// Does a packet with this reason go on?
    #[must_use]
    pub const fn allows(self) -> bool {
        (self as u8) < 64
    }
}
