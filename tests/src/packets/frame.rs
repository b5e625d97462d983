//! A packet's line as bytes: headers from the outermost to the innermost, ` / ` between them.
//!
//! ```text
//! ip friend box ttl=1 / tcp 40000 8080 SYN seq=7 / data 100
//! ```
//!
//! What a header leaves out is right for what follows it: lengths, next headers, types. Every
//! field can be given, and is then what it says, right or not. Checksums are zero: the programs do
//! not look at them, the receiving stack does. `tests/packets/README.md` lists headers and fields.

mod headers;

use anyhow::{Context as _, Result, bail, ensure};

use super::names::{self, PROTOCOLS};
use super::scene;
use crate::frames::Mac;
use netpol_abi::packet::{Arrival, Direction, Frame, ethertype};
use netpol_engine::model::packets::Sockets;
use zerocopy::FromBytes;

/// A frame, and what an skb says of it beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// A VLAN tag that the interface took off stands in the skb's metadata.
    pub tagged: bool,
    /// What sockets there are in the endpoint's network namespace.
    pub sockets: Sockets,
    /// How it came here.
    pub arrival: Arrival,
    /// It is at the endpoint's own loopback interface, on its way to the engine's resolver.
    pub loopback: bool,
}

impl Frame for Bytes {
    fn len(&self) -> usize {
        self.bytes.len()
    }
    fn read<H: FromBytes>(&self, offset: usize) -> Option<H> {
        self.bytes.as_slice().read(offset)
    }
    fn has_vlan_tag(&self) -> bool {
        self.tagged
    }
    fn arrival(&self) -> Arrival {
        self.arrival
    }
}

/// Reads a line; `repetition` counts from 0 where the line is repeated.
///
/// # Errors
/// What is wrong, and in which header.
pub fn build(line: &str, direction: Direction, repetition: u64) -> Result<Bytes> {
    let mut headers = Vec::new();
    for text in line.split(" / ") {
        let mut words = text.split_whitespace();
        let name = words.next().context("a header without a name")?;
        headers.push(Header {
            name,
            words: words.collect(),
            repetition,
        });
    }
    let mut beside = Bytes::default();
    while let Some(first) = headers.first().filter(|first| is_beside(first.name)) {
        match (first.name, first.words.as_slice()) {
            ("tagged", []) => beside.tagged = true,
            ("lo", []) => beside.loopback = true,
            ("socket", []) => beside.sockets.connected = true,
            ("socket", ["listening"]) => {
                beside.sockets.connected = true;
                beside.sockets.listening = true;
            }
            ("arrived", [from, words @ ..]) => {
                beside.arrival = arrival(from, words).context("`arrived`")?;
            }
            (name, words) => bail!("`{name}`: `{}` is too much", words.join(" ")),
        }
        headers.remove(0);
    }
    let names: Vec<&str> = headers.iter().map(|header| header.name).collect();
    let mut bytes = Vec::new();
    for at in (0..headers.len()).rev() {
        let header = &headers[at];
        let around = Around {
            outer: names[..at].iter().rev().copied().collect(),
            inner: &names[at + 1..],
            rest: &headers[at + 1..],
        };
        bytes = header
            .build(&around, direction, bytes)
            .with_context(|| format!("`{}`", header.name))?;
    }
    let outermost = names.iter().find(|name| !is_cutter(name));
    if outermost != Some(&"eth") {
        let (source, destination) = ends(direction);
        let kind = first(&names).ethertype()?;
        let destination = group_mac(kind, &bytes).unwrap_or(destination);
        bytes = ethernet(source, destination, kind, &bytes);
    }
    Ok(Bytes { bytes, ..beside })
}

fn ends(direction: Direction) -> (Mac, Mac) {
    let (own, other) = (names::MACS[0].1, names::MACS[1].1);
    match direction {
        Direction::Ingress => (other, own),
        Direction::Egress => (own, other),
    }
}

/// The MAC address of the group that the packet goes to, if it goes to one.
fn group_mac(kind: u16, packet: &[u8]) -> Option<Mac> {
    match (kind, packet.get(16..20), packet.get(24..40)) {
        (ethertype::IPV4, Some(&[255, 255, 255, 255]), _) => Some([0xff; 6]),
        (ethertype::IPV4, Some(&[224..=239, b, c, d]), _) => Some([1, 0, 0x5e, b & 0x7f, c, d]),
        (ethertype::IPV6, _, Some(&[0xff, .., a, b, c, d])) => Some([0x33, 0x33, a, b, c, d]),
        _ => None,
    }
}

fn ethernet(source: Mac, destination: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    crate::frames::ethernet(source, destination, ethertype, payload)
}

/// What the kernel knows beside the frame's bytes.
fn is_beside(name: &str) -> bool {
    matches!(name, "tagged" | "lo" | "socket" | "arrived")
}

/// Where a frame came from, and whose stamp it has.
fn arrival(from: &str, words: &[&str]) -> Result<Arrival> {
    let places = names::PLACES;
    let ifindex = names::find(&places, from).with_context(|| {
        let known: Vec<&str> = places.iter().map(|(name, _)| *name).collect();
        format!("`{from}` is none of {}", known.join(", "))
    })?;
    let mut arrival = Arrival {
        ifindex,
        tc_index: 0,
        has_socket: (ifindex == 0).into(),
    };
    for word in words {
        match word.split_once('=') {
            Some(("stamp", name)) => arrival.tc_index = scene::stamp_of(name)?,
            None if *word == "socketless" => arrival.has_socket = 0,
            _ => bail!("`{word}` is neither `stamp=ADDRESS` nor `socketless`"),
        }
    }
    Ok(arrival)
}

/// What cuts or adds to what follows, without a header of its own.
fn is_cutter(name: &str) -> bool {
    matches!(name, "cut" | "pad" | "piece")
}

/// The first header that is one.
fn first<'a>(names: &[&'a str]) -> Inner<'a> {
    Inner(names.iter().find(|name| !is_cutter(name)).copied())
}

/// What follows a header.
struct Inner<'a>(Option<&'a str>);

impl Inner<'_> {
    fn ethertype(&self) -> Result<u16> {
        Ok(match self.0 {
            Some("ip") => ethertype::IPV4,
            Some("ip6") => ethertype::IPV6,
            Some("arp") => ethertype::ARP,
            Some("vlan") => ethertype::VLAN,
            Some(other) => bail!("which ethertype has `{other}`? Say `eth … type=0x…`"),
            None => bail!("there is nothing in it"),
        })
    }

    /// The IP protocol; 59 is "no next header".
    fn protocol(&self) -> Result<u8> {
        let Some(name) = self.0 else { return Ok(59) };
        names::find(&PROTOCOLS, name)
            .with_context(|| format!("which protocol has `{name}`? Give the field before it"))
    }
}

/// What stands around a header.
struct Around<'a> {
    /// Nearest first.
    outer: Vec<&'a str>,
    inner: &'a [&'a str],
    rest: &'a [Header<'a>],
}

struct Header<'a> {
    name: &'a str,
    words: Vec<&'a str>,
    repetition: u64,
}

/// A fragment's place: bytes before it, and whether more come.
#[derive(Clone, Copy, Default)]
struct Place {
    offset: u16,
    more: bool,
}

impl Header<'_> {
    /// The word at this place.
    fn word(&self, index: usize, what: &str) -> Result<&str> {
        let plain = self.words.iter().filter(|word| !word.contains('='));
        let word = plain.copied().nth(index);
        word.with_context(|| format!("it needs {what}"))
    }

    /// A field that was given.
    fn given(&self, name: &str) -> Option<&str> {
        let mut words = self.words.iter();
        words
            .find_map(|word| word.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    fn field<T: TryFrom<u64>>(&self, name: &str, otherwise: T) -> Result<T> {
        match self.given(name) {
            Some(text) => names::number(text, self.repetition).with_context(|| format!("`{name}`")),
            None => Ok(otherwise),
        }
    }

    fn hex(&self, name: &str, otherwise: &[u8]) -> Result<Vec<u8>> {
        self.given(name)
            .map_or_else(|| Ok(otherwise.to_vec()), names::bytes)
    }

    fn protocol(&self, name: &str, inner: &Inner<'_>) -> Result<u8> {
        match self.given(name) {
            Some(text) => names::numbered(&PROTOCOLS, text, self.repetition),
            None => inner.protocol(),
        }
    }

    /// Nothing is there that the header does not know.
    fn takes(&self, words: usize, fields: &[&str]) -> Result<()> {
        let mut plain = 0;
        for word in &self.words {
            match word.split_once('=') {
                Some((name, _)) if fields.contains(&name) => {}
                Some((name, _)) if fields.is_empty() => bail!("there is no field `{name}`"),
                Some((name, _)) => bail!("there is no field `{name}`: {}", fields.join(", ")),
                None => plain += 1,
            }
        }
        ensure!(plain <= words, "`{}` is too much", self.words.join(" "));
        Ok(())
    }

    /// The fragment that the `piece` behind this header makes of it.
    fn place(&self, around: &Around<'_>) -> Result<Place> {
        let Some(piece) = around.rest.first().filter(|next| next.name == "piece") else {
            return Ok(Place::default());
        };
        let (from, _, more) = piece.piece()?;
        Ok(Place { offset: from, more })
    }

    /// `A..B`: from byte A up to byte B of what follows; without B to its end.
    fn piece(&self) -> Result<(u16, Option<usize>, bool)> {
        let (from, to) = self
            .word(0, "`FROM..TO`")?
            .split_once("..")
            .context("a piece is `FROM..TO` or `FROM..`")?;
        let to = match to {
            "" => None,
            to => Some(names::number(to, self.repetition)?),
        };
        Ok((names::number(from, self.repetition)?, to, to.is_some()))
    }

    fn build(
        &self,
        around: &Around<'_>,
        direction: Direction,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let inner = first(around.inner);
        match self.name {
            "eth" => self.ethernet(&inner, direction, &payload),
            "vlan" => self.vlan(&inner, &payload),
            "arp" => self.arp(&payload),
            "ip" => self.ip(around, &inner, &payload),
            "ip6" => self.ip6(&inner, &payload),
            "hop-by-hop" | "destination" | "mobility" | "hip" | "shim6" => {
                self.extension(&inner, &payload)
            }
            "routing" => self.routing(&inner, &payload),
            "auth" => self.auth(&inner, &payload),
            "fragment" => self.fragment(around, &inner, &payload),
            "tcp" => self.tcp(&payload),
            "udp" => self.udp(&payload),
            "sctp" => self.sctp(&payload),
            "icmp" => self.icmp(&payload),
            "icmp6" => self.icmp6(&payload),
            "data" => {
                self.takes(1, &[])?;
                let length: usize =
                    names::number(self.word(0, "a number of bytes")?, self.repetition)?;
                Ok([vec![7; length], payload].concat())
            }
            "text" => Ok([self.words.join(" ").as_bytes(), &payload].concat()),
            "hex" => {
                let mut bytes = Vec::new();
                for word in &self.words {
                    bytes.extend(names::bytes(word)?);
                }
                Ok([bytes, payload].concat())
            }
            "cut" => {
                self.takes(1, &[])?;
                let length: usize =
                    names::number(self.word(0, "a number of bytes")?, self.repetition)?;
                ensure!(
                    length <= payload.len(),
                    "what follows has {} bytes, not {length}",
                    payload.len()
                );
                Ok(payload[..length].to_vec())
            }
            "pad" => {
                self.takes(1, &[])?;
                let length: usize =
                    names::number(self.word(0, "a number of bytes")?, self.repetition)?;
                Ok([payload, vec![0; length]].concat())
            }
            "piece" => {
                self.takes(1, &[])?;
                let (from, to, _) = self.piece()?;
                let outer = around.outer.first();
                ensure!(
                    matches!(outer, Some(&"ip" | &"fragment")),
                    "a piece stands behind `ip` or `fragment`"
                );
                let part = payload.get(usize::from(from)..to.unwrap_or(payload.len()));
                let part = part.with_context(|| format!("there are {} bytes", payload.len()))?;
                Ok(part.to_vec())
            }
            name if is_beside(name) => bail!("it stands before everything else"),
            other => bail!("there is no header `{other}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames;

    const IN: Direction = Direction::Ingress;

    fn bytes(line: &str) -> Vec<u8> {
        build(line, IN, 0).expect("a frame").bytes
    }

    #[test]
    fn lengths_and_types_follow_from_what_is_inside() {
        let segment = frames::tcp(40000, 8080, 0x12);
        let packet = frames::ipv4([10, 0, 0, 3], [10, 0, 0, 2], 6, &segment);
        let (own, other) = (names::MACS[0].1, names::MACS[1].1);
        assert_eq!(
            bytes("ip friend box / tcp 40000 8080 SYN,ACK"),
            frames::ethernet(other, own, 0x0800, &packet)
        );
    }

    #[test]
    fn a_field_that_is_given_is_what_it_says() {
        let frame = bytes("ip friend box len=9 ihl=4 ttl=1 proto=17 / tcp 1 2 SYN");
        assert_eq!(frame[14..24], [0x44, 0, 0, 9, 0, 0, 0, 0, 1, 17]);
        let frame = bytes("ip6 friend6 box6 next=43 len=7 / destination size=3 next=udp / data 1");
        assert_eq!(frame[18..22], [0, 7, 43, 64]);
        assert_eq!(frame[54..], [17, 3, 1, 4, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn what_goes_to_a_group_goes_to_its_mac_address() {
        for (line, expected) in [
            ("ip box 239.200.2.3 / udp 1 2", [1, 0, 0x5e, 72, 2, 3]),
            ("ip box everybody / udp 1 2", [0xff; 6]),
            ("ip box 240.0.0.1 / udp 1 2", names::MACS[0].1),
            (
                "ip6 box6 ff02::1:ff00:9 / udp 1 2",
                [0x33, 0x33, 0xff, 0, 0, 9],
            ),
            (
                "eth other box / ip box 239.1.2.3 / udp 1 2",
                names::MACS[0].1,
            ),
        ] {
            assert_eq!(bytes(line)[..6], expected, "{line}");
        }
    }

    #[test]
    fn a_piece_is_cut_out_of_the_datagram_and_placed() {
        let whole = bytes("ip friend box id=9 / udp 1 2 / data 100");
        let first = bytes("ip friend box id=9 / piece 0..56 / udp 1 2 / data 100");
        let last = bytes("ip friend box id=9 / piece 56.. / udp 1 2 / data 100");
        assert_eq!(first[20..22], [0x20, 0]);
        assert_eq!(last[20..22], [0, 7]);
        assert_eq!(whole[34..], [&first[34..], &last[34..]].concat());
        let six = bytes("ip6 friend6 box6 / fragment id=7 / piece 8.. / udp 1 2 / data 100");
        assert_eq!(six[54..62], [17, 0, 0, 8, 0, 0, 0, 7]);
    }

    #[test]
    fn repetitions_count_on() {
        let line = "ip friend+2 box / udp 40000+1 53";
        let third = build(line, IN, 3).expect("a frame").bytes;
        assert_eq!(third[26..30], [10, 0, 0, 9]);
        assert_eq!(third[34..36], 40003_u16.to_be_bytes());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_header() {
        for (line, expected) in [
            ("ip friend box / tcp 1 2", "`tcp`: it needs the flags"),
            ("ip friend box / tcp 1 2 SIN", "`tcp`: `SIN` is no TCP flag"),
            (
                "ip friend box6 / udp 1 2",
                "`ip`: `box6` is an IPv6 address",
            ),
            (
                "ip friend box / udp 1 70000",
                "`udp`: `70000` does not fit its field",
            ),
            ("ip friend box / udp 1 2 3", "`udp`: `1 2 3` is too much"),
            (
                "ip friend box colour=3 / udp 1 2",
                "`ip`: there is no field `colour`: version,",
            ),
            ("ip friend box / hex 000", "`hex`: `000` is not bytes"),
            ("ip friend box / text x", "`ip`: which protocol has `text`?"),
            ("ip friend box / ipx", "`ipx`: there is no header `ipx`"),
            (
                "ip friend nobody / udp 1 2",
                "`ip`: `nobody` is neither an address nor one of box,",
            ),
            (
                "ip friend box / cut 9 / udp 1 2",
                "`cut`: what follows has 8 bytes, not 9",
            ),
            (
                "ip friend box frag=3 / udp 1 2",
                "`ip`: fragments begin at multiples of 8",
            ),
            ("udp 1 2", "which ethertype has `udp`?"),
        ] {
            let error = build(line, IN, 0).expect_err(line);
            let message = format!("{error:#}");
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}
