//! nfnetlink messages as bytes: changes of our table's sets, and what there is. Pure.
//!
//! Names and texts are C strings; counters are in network byte order, interface indices in the
//! host's, as nft(8) has them (`iface_index`).

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};

use crate::netlink::{Message, attribute, attributes, nested, request, text};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NEWOBJ: u16 = 18;
const GETOBJ: u16 = 19;

const FAMILY_BRIDGE: u8 = 7;
const NFGENMSG: usize = 4;

/// Table's name, in every message of the family.
const TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const OBJECT_COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;

/// Keys in one message: an attribute has at most 64 KiB, and each takes up to 40 bytes here.
const KEYS_A_MESSAGE: usize = 1000;

/// One change of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name of the set.
    pub set: &'static str,
    /// Added, or else removed.
    pub add: bool,
    /// The elements' keys.
    pub keys: Vec<Vec<u8>>,
}

/// The key of an interface.
pub fn index_key(ifindex: u32) -> Vec<u8> {
    ifindex.to_ne_bytes().to_vec()
}

/// The key of a name: `IFNAMSIZ` bytes.
pub fn name_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// The index that a key is.
pub fn key_index(key: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(key.try_into().ok()?))
}

/// The name that a key is.
pub fn key_name(key: &[u8]) -> String {
    text(key)
}

/// Changes that are made together or not at all. Gives the number of messages that are
/// answered.
pub fn changes(table: &str, sequence: u32, all: &[Change]) -> (Vec<u8>, usize) {
    let mut requests = Vec::new();
    for change in all {
        for keys in change.keys.chunks(KEYS_A_MESSAGE) {
            let mut elements = Vec::new();
            for key in keys {
                let (mut value, mut element) = (Vec::new(), Vec::new());
                attribute(&mut value, DATA_VALUE, key);
                nested(&mut element, ELEM_KEY, &value);
                nested(&mut elements, LIST_ELEM, &element);
            }
            let mut body = about(table);
            string(&mut body, LIST_SET, change.set);
            nested(&mut body, LIST_ELEMENTS, &elements);
            requests.push(if change.add {
                (NEWSETELEM, NLM_F_CREATE, body)
            } else {
                (DELSETELEM, 0, body)
            });
        }
    }
    batch(sequence, &requests)
}

/// Removes the table, with all that is in it.
pub fn delete_table(table: &str, sequence: u32) -> (Vec<u8>, usize) {
    batch(sequence, &[(DELTABLE, 0, about(table))])
}

fn batch(sequence: u32, requests: &[(u16, u16, Vec<u8>)]) -> (Vec<u8>, usize) {
    // The resource of a batch is the subsystem, in network byte order; its family is none.
    let edge = [&[0, 0][..], &SUBSYSTEM.to_be_bytes()].concat();
    let mut bytes = request(BATCH_BEGIN, NLM_F_REQUEST, sequence, &edge);
    for (kind, flags, body) in requests {
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        bytes.extend(request(typed(*kind), flags, sequence, body));
    }
    bytes.extend(request(BATCH_END, NLM_F_REQUEST, sequence, &edge));
    (bytes, requests.len())
}

/// Asks whether the table has this set.
pub fn ask_set(table: &str, set: &str, sequence: u32) -> Vec<u8> {
    let mut body = about(table);
    string(&mut body, SET_NAME, set);
    request(typed(GETSET), NLM_F_REQUEST | NLM_F_ACK, sequence, &body)
}

/// Asks for what is in a set.
pub fn list_set(table: &str, set: &str, sequence: u32) -> Vec<u8> {
    let mut body = about(table);
    string(&mut body, LIST_SET, set);
    request(
        typed(GETSETELEM),
        NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        &body,
    )
}

/// Asks for the table's counters.
pub fn list_counters(table: &str, sequence: u32) -> Vec<u8> {
    let mut body = about(table);
    attribute(&mut body, OBJECT_TYPE, &OBJECT_COUNTER.to_be_bytes());
    request(typed(GETOBJ), NLM_F_REQUEST | NLM_F_DUMP, sequence, &body)
}

/// Asks for the table's rules.
pub fn list_rules(table: &str, sequence: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    request(typed(GETRULE), flags, sequence, &about(table))
}

/// Is it a rule of the table, in an answer to [`list_rules`]?
pub fn is_rule(message: &Message<'_>, table: &str) -> bool {
    message.message_type() == typed(NEWRULE) && is_about(message, table)
}

/// The keys in an answer to [`list_set`].
pub fn keys(message: &Message<'_>) -> Vec<Vec<u8>> {
    if message.message_type() != typed(NEWSETELEM) {
        return Vec::new();
    }
    let inside = |bytes, wanted| find(attributes(bytes), wanted);
    fields(message)
        .filter(|(kind, _)| *kind == LIST_ELEMENTS)
        .flat_map(|(_, elements)| attributes(elements))
        .filter_map(|(_, element)| inside(inside(element, ELEM_KEY)?, DATA_VALUE))
        .map(<[u8]>::to_vec)
        .collect()
}

/// A counter's name and packets, in an answer to [`list_counters`]: of this table, whatever else the
/// kernel lists.
pub fn counter(message: &Message<'_>, table: &str) -> Option<(String, u64)> {
    if message.message_type() != typed(NEWOBJ) || !is_about(message, table) {
        return None;
    }
    let name = find(fields(message), OBJECT_NAME)?;
    let data = find(fields(message), OBJECT_DATA)?;
    let packets = find(attributes(data), COUNTER_PACKETS)?;
    Some((text(name), u64::from_be_bytes(packets.try_into().ok()?)))
}

/// Does this notification say that something of the table is no longer there, or that the table is new?
pub fn is_turn(message: &Message<'_>, table: &str) -> bool {
    // NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM, DELOBJ.
    const TURNS: [u16; 7] = [NEWTABLE, DELTABLE, 5, 8, 11, DELSETELEM, 20];
    TURNS
        .iter()
        .any(|turn| message.message_type() == typed(*turn))
        && is_about(message, table)
}

fn is_about(message: &Message<'_>, table: &str) -> bool {
    message.payload().first() == Some(&FAMILY_BRIDGE)
        && find(fields(message), TABLE).is_some_and(|name| text(name) == table)
}

fn fields<'a>(message: &Message<'a>) -> impl Iterator<Item = (u16, &'a [u8])> {
    attributes(message.payload().get(NFGENMSG..).unwrap_or_default())
}

fn find<'a>(mut all: impl Iterator<Item = (u16, &'a [u8])>, wanted: u16) -> Option<&'a [u8]> {
    all.find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn about(table: &str) -> Vec<u8> {
    let mut body = vec![FAMILY_BRIDGE, 0, 0, 0];
    string(&mut body, TABLE, table);
    body
}

fn string(body: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(body, kind, &[value.as_bytes(), &[0]].concat());
}

const fn typed(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::netlink::messages;

    #[test]
    fn what_is_asked_to_be_changed_is_read_back() {
        let keys: Vec<Vec<u8>> = (1..=2500).map(index_key).collect();
        let change = Change {
            set: "ready",
            add: true,
            keys: keys.clone(),
        };
        let (batch, answers) = changes("netpold", 7, &[change]);
        // Each in an attribute of its own, and two edges.
        assert_eq!((answers, messages(&batch).count()), (3, 5));
        assert!(messages(&batch).all(|message| message.sequence_number() == 7));
        let read: Vec<Vec<u8>> = messages(&batch).flat_map(|one| self::keys(&one)).collect();
        assert_eq!(read, keys);
        assert_eq!(key_index(&read[4]), Some(5));
        assert_eq!(key_name(&name_key("docker0")), "docker0");
    }

    #[test]
    fn only_turns_of_our_table_count() {
        let turn = |kind, family: u8, table: &str| {
            let mut body = about(table);
            body[0] = family;
            let bytes = request(typed(kind), 0, 0, &body);
            let message = messages(&bytes).next().unwrap();
            is_turn(&message, "netpold")
        };
        assert!(turn(DELTABLE, FAMILY_BRIDGE, "netpold"));
        assert!(turn(NEWTABLE, FAMILY_BRIDGE, "netpold"));
        assert!(turn(8, FAMILY_BRIDGE, "netpold"));
        assert!(!turn(DELTABLE, FAMILY_BRIDGE, "netpold2"));
        assert!(!turn(DELTABLE, 2, "netpold"));
        assert!(!turn(NEWSETELEM, FAMILY_BRIDGE, "netpold"));
    }

    #[test]
    fn a_message_cut_anywhere_never_panics() {
        let (batch, _) = changes(
            "t",
            1,
            &[Change {
                set: "s",
                add: true,
                keys: vec![index_key(1)],
            }],
        );
        for at in 0..batch.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut broken = batch.clone();
                broken[at] = value;
                for message in messages(&broken) {
                    let _ = (
                        keys(&message),
                        counter(&message, "t"),
                        is_turn(&message, "t"),
                    );
                }
            }
        }
    }
}
