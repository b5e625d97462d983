//! Headers as they lie in a frame: integers in network order, at their natural offsets. Whole
//! fields, not bytes: the programs load each with one instruction.
//!
//! Read by the parser alone, from any offset: nothing here may need alignment.

use zerocopy::FromBytes;

#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Ethernet {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub ethertype_be: u16,
}

/// RFC 791, without options.
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Ipv4 {
    pub version_and_length: u8,
    pub service: u8,
    pub total_be: u16,
    pub id_be: u16,
    pub fragment_be: u16,
    pub hops: u8,
    pub protocol: u8,
    pub checksum_be: u16,
    pub source_be: u32,
    pub destination_be: u32,
}

/// RFC 8200.
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Ipv6 {
    pub version_class_label_be: u32,
    pub payload_be: u16,
    pub next: u8,
    pub hops: u8,
    pub source_be: [u64; 2],
    pub destination_be: [u64; 2],
}

/// RFC 9293, up to the window.
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Tcp {
    pub ports: Ports,
    pub sequence_be: u32,
    pub acknowledged_be: u32,
    pub length: u8,
    pub flags: u8,
    pub window_be: u16,
}

/// RFC 768.
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Udp {
    pub ports: Ports,
    pub length_be: u16,
    pub checksum_be: u16,
}

/// What TCP, UDP and SCTP begin with.
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Ports {
    pub source_be: u16,
    pub destination_be: u16,
}

/// RFC 792 and 4443, with the first two fields of an echo.
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum_be: u16,
    pub echo_id_be: u16,
    pub echo_sequence_be: u16,
}
