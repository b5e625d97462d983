//! Each header as bytes: what is given is what it says, the rest is right for what follows.

use anyhow::{Result, ensure};
use netpol_abi::packet::Direction;

use super::{Around, Header, Inner, Place, ends, ethernet};
use crate::packets::names::{self, ICMP, ICMP6};

impl Header<'_> {
    pub(super) fn ethernet(
        &self,
        inner: &Inner<'_>,
        direction: Direction,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        self.takes(2, &["type"])?;
        let (source, destination) = match self.words.first() {
            Some(word) if !word.contains('=') => (
                names::mac(word)?,
                names::mac(self.word(1, "the destination")?)?,
            ),
            _ => ends(direction),
        };
        let kind = match self.given("type") {
            Some(text) => names::number(text, self.repetition)?,
            None => inner.ethertype()?,
        };
        Ok(ethernet(source, destination, kind, payload))
    }

    pub(super) fn vlan(&self, inner: &Inner<'_>, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(1, &["type"])?;
        let id: u16 = names::number(self.word(0, "the VLAN's number")?, self.repetition)?;
        let kind = match self.given("type") {
            Some(text) => names::number(text, self.repetition)?,
            None => inner.ethertype()?,
        };
        Ok([&id.to_be_bytes()[..], &kind.to_be_bytes(), payload].concat())
    }

    pub(super) fn arp(&self, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(4, &["op", "hardware", "protocol", "sizes", "target-mac"])?;
        let operation = match self.word(0, "`ask` or `answer`")? {
            "ask" => 1,
            "answer" => 2,
            other => names::number(other, self.repetition)?,
        };
        let mut message = Vec::new();
        message.extend(self.field::<u16>("hardware", 1)?.to_be_bytes());
        message.extend(self.field::<u16>("protocol", 0x0800)?.to_be_bytes());
        message.extend(self.field::<u16>("sizes", 0x0604)?.to_be_bytes());
        message.extend(self.field::<u16>("op", operation)?.to_be_bytes());
        message.extend(names::mac(self.word(1, "the sender's MAC address")?)?);
        let address = |index, what| names::address4(self.word(index, what)?, self.repetition);
        message.extend(address(2, "the sender's address")?.octets());
        message.extend(self.given("target-mac").map_or(Ok([0; 6]), names::mac)?);
        message.extend(address(3, "the target's address")?.octets());
        message.extend(payload);
        Ok(message)
    }

    pub(super) fn ip(
        &self,
        around: &Around<'_>,
        inner: &Inner<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        self.takes(
            2,
            &[
                "version", "ihl", "tos", "len", "id", "frag", "ttl", "proto", "options",
            ],
        )?;
        let mut options = self.hex("options", &[])?;
        options.resize(options.len().next_multiple_of(4), 0);
        let length = 20 + options.len();
        ensure!(
            length <= 60,
            "the options have {} bytes, 40 are the most",
            options.len()
        );
        let version: u8 = self.field("version", 4)?;
        let words: u8 = self.field("ihl", (length / 4) as u8)?;
        let total = u16::try_from(length + payload.len()).unwrap_or(0);
        let fragment = match self.given("frag") {
            Some(text) if text.starts_with("0x") => names::number(text, self.repetition)?,
            Some(text) => field_of(place(text, self.repetition)?),
            None => field_of(self.place(around)?),
        };
        let address = |index, what| names::address4(self.word(index, what)?, self.repetition);
        let mut packet = vec![version << 4 | words & 0xf, self.field("tos", 0)?];
        packet.extend(self.field::<u16>("len", total)?.to_be_bytes());
        packet.extend(self.field::<u16>("id", 0)?.to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        packet.extend([self.field("ttl", 64)?, self.protocol("proto", inner)?, 0, 0]);
        packet.extend(address(0, "the source address")?.octets());
        packet.extend(address(1, "the destination address")?.octets());
        packet.extend(options);
        packet.extend(payload);
        Ok(packet)
    }

    pub(super) fn ip6(&self, inner: &Inner<'_>, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(2, &["version", "class", "label", "len", "next", "hops"])?;
        let version: u32 = self.field("version", 6)?;
        let class: u8 = self.field("class", 0)?;
        let label: u32 = self.field("label", 0)?;
        let length = u16::try_from(payload.len()).unwrap_or(0);
        let address = |index, what| names::address6(self.word(index, what)?, self.repetition);
        let mut packet = (version << 28 | u32::from(class) << 20 | label & 0xf_ffff)
            .to_be_bytes()
            .to_vec();
        packet.extend(self.field::<u16>("len", length)?.to_be_bytes());
        packet.extend([self.protocol("next", inner)?, self.field("hops", 64)?]);
        packet.extend(address(0, "the source address")?.octets());
        packet.extend(address(1, "the destination address")?.octets());
        packet.extend(payload);
        Ok(packet)
    }

    /// An extension header with options: by itself a PadN of six bytes.
    pub(super) fn extension(&self, inner: &Inner<'_>, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(0, &["next", "size", "body"])?;
        let mut body = self.hex("body", &[1, 4, 0, 0, 0, 0])?;
        body.resize((body.len() + 2).next_multiple_of(8) - 2, 0);
        let size = ((body.len() + 2) / 8 - 1) as u8;
        let head = [self.protocol("next", inner)?, self.field("size", size)?];
        Ok([&head[..], &body, payload].concat())
    }

    pub(super) fn routing(&self, inner: &Inner<'_>, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(0, &["next", "size", "type", "left", "body"])?;
        let mut body = self.hex("body", &[0; 4])?;
        body.resize((body.len() + 4).next_multiple_of(8) - 4, 0);
        let size = ((body.len() + 4) / 8 - 1) as u8;
        let head = [
            self.protocol("next", inner)?,
            self.field("size", size)?,
            self.field("type", 0)?,
            self.field("left", 0)?,
        ];
        Ok([&head[..], &body, payload].concat())
    }

    pub(super) fn auth(&self, inner: &Inner<'_>, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(0, &["next", "size", "body"])?;
        let body = self.hex("body", &[0; 10])?;
        let size = ((body.len() + 2) / 4).saturating_sub(2) as u8;
        let head = [self.protocol("next", inner)?, self.field("size", size)?];
        Ok([&head[..], &body, payload].concat())
    }

    pub(super) fn fragment(
        &self,
        around: &Around<'_>,
        inner: &Inner<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        self.takes(1, &["next", "id", "reserved", "field"])?;
        let at = match self.words.first() {
            Some(text) if !text.contains('=') => place(text, self.repetition)?,
            _ => self.place(around)?,
        };
        let field: u16 = self.field("field", at.offset & 0xfff8 | u16::from(at.more))?;
        let mut header = vec![self.protocol("next", inner)?, self.field("reserved", 0)?];
        header.extend(field.to_be_bytes());
        header.extend(self.field::<u32>("id", 0)?.to_be_bytes());
        header.extend(payload);
        Ok(header)
    }

    fn ports(&self) -> Result<Vec<u8>> {
        let port = |index, what| names::number::<u16>(self.word(index, what)?, self.repetition);
        let (source, destination) = (
            port(0, "the source port")?,
            port(1, "the destination port")?,
        );
        Ok([source.to_be_bytes(), destination.to_be_bytes()].concat())
    }

    pub(super) fn tcp(&self, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(3, &["seq", "ack", "offset", "window", "options"])?;
        let mut options = self.hex("options", &[])?;
        options.resize(options.len().next_multiple_of(4), 0);
        let words: u8 = self.field("offset", (5 + options.len() / 4) as u8)?;
        let mut segment = self.ports()?;
        segment.extend(self.field::<u32>("seq", 1)?.to_be_bytes());
        segment.extend(self.field::<u32>("ack", 1)?.to_be_bytes());
        segment.extend([words << 4, names::flags(self.word(2, "the flags")?)?]);
        segment.extend(self.field::<u16>("window", 0xffff)?.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
        segment.extend(payload);
        Ok(segment)
    }

    pub(super) fn udp(&self, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(2, &["len"])?;
        let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
        let mut datagram = self.ports()?;
        datagram.extend(self.field::<u16>("len", length)?.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        Ok(datagram)
    }

    pub(super) fn sctp(&self, payload: &[u8]) -> Result<Vec<u8>> {
        self.takes(3, &["tag", "len"])?;
        let chunk = match self.word(2, "") {
            Ok(name) => names::numbered(&names::CHUNKS, name, self.repetition)?,
            Err(_) => 1,
        };
        // INIT and its answer have sixteen bytes of parameters.
        let parameters = if matches!(chunk, 1 | 2) { 16 } else { 0 };
        let length = u16::try_from(4 + parameters + payload.len()).unwrap_or(u16::MAX);
        let mut packet = self.ports()?;
        packet.extend(self.field::<u32>("tag", 0)?.to_be_bytes());
        packet.extend([0, 0, 0, 0, chunk, 0]);
        packet.extend(self.field::<u16>("len", length)?.to_be_bytes());
        packet.extend(vec![0; parameters]);
        packet.extend(payload);
        Ok(packet)
    }

    /// Type and code, with the word of four bytes behind the checksum.
    fn message(&self, types: &[(&str, u8)], fields: &[&str]) -> Result<Vec<u8>> {
        let all = [&["id", "seq", "mtu", "word", "gateway"], fields].concat();
        self.takes(1, &all)?;
        let (kind, code) = match self.word(0, "the type")?.split_once('/') {
            Some((kind, code)) => (kind, names::number(code, self.repetition)?),
            None => (self.word(0, "the type")?, 0),
        };
        let kind = names::numbered(types, kind, self.repetition)?;
        let (id, sequence): (u16, u16) = (self.field("id", 0)?, self.field("seq", 0)?);
        let mut word = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
        if self.given("mtu").is_some() {
            word = self.field::<u32>("mtu", 0)?.to_be_bytes().to_vec();
        }
        if let Some(text) = self.given("gateway") {
            word = names::address4(text, self.repetition)?.octets().to_vec();
        }
        word = self.hex("word", &word)?;
        ensure!(word.len() == 4, "`word` is four bytes");
        Ok([&[kind, code, 0, 0][..], &word].concat())
    }

    pub(super) fn icmp(&self, payload: &[u8]) -> Result<Vec<u8>> {
        Ok([self.message(&ICMP, &[])?, payload.to_vec()].concat())
    }

    /// Neighbour discovery has a target and link-layer options behind the word.
    pub(super) fn icmp6(&self, payload: &[u8]) -> Result<Vec<u8>> {
        let mut message = self.message(&ICMP6, &["target", "source-link", "target-link"])?;
        if let Some(target) = self.given("target") {
            message.extend(names::address6(target, self.repetition)?.octets());
        }
        for (field, number) in [("source-link", 1), ("target-link", 2)] {
            if let Some(mac) = self.given(field) {
                message.extend([number, 1]);
                message.extend(names::mac(mac)?);
            }
        }
        message.extend(payload);
        Ok(message)
    }
}

/// `OFFSET` in bytes, `OFFSET+` where more fragments come.
fn place(text: &str, repetition: u64) -> Result<Place> {
    let (offset, more) = match text.strip_suffix('+') {
        Some(offset) => (offset, true),
        None => (text, false),
    };
    let offset: u16 = names::number(offset, repetition)?;
    ensure!(
        offset.is_multiple_of(8),
        "fragments begin at multiples of 8, not at {offset}"
    );
    Ok(Place { offset, more })
}

const fn field_of(place: Place) -> u16 {
    place.offset >> 3 | if place.more { 0x2000 } else { 0 }
}
