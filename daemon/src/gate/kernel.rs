//! Our table in the kernel, over netlink: what is in it, small changes, and taking it away.
//!
//! Adding an interface is one message, and no program is run for it. A table that is not there is an
//! answer, and no error. The table is that of the network namespace in which the socket was opened.

use std::collections::BTreeSet;
use std::io;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;

use super::GateError;
use super::message::{self, Change};
use super::rules::{BRIDGES, Contents, FROM, NAMINGS, READY, Scope, TO, rules};
use super::veths::START;
use crate::netlink::{self, BUFFER, Message, receive};

/// A listing that changes during every one of so many goes changes too fast to be taken.
const ATTEMPTS: u32 = 16;
/// Keys in one batch, which then has some 110 KB: a socket sends 208 KB at most, unless it is told otherwise.
const KEYS_A_BATCH: usize = 3000;

/// Frames that the gate has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// From interfaces that were not ready.
    pub from: u64,
    /// To them.
    pub to: u64,
}

/// The gate as the kernel has it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSnapshot {
    /// What is in its sets.
    pub contents: Contents,
    /// What it goes by.
    pub scope: Scope,
    /// Has it all its rules?
    pub whole: bool,
    /// What it has dropped.
    pub drops: Drops,
}

/// A socket for requests about one table.
pub struct Kernel {
    socket: Socket,
    sequence: u32,
    table: String,
}

impl Kernel {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no nfnetlink.
    pub fn open(table: &str) -> Result<Self, GateError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|source| GateError::Netlink {
                action: "opening a socket",
                source,
            })?,
            sequence: 0,
            table: table.to_owned(),
        })
    }

    /// The gate; `None`: it is not there.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn look(&mut self) -> Result<Option<GateSnapshot>, GateError> {
        let Some(ready) = self.list(READY)? else {
            return Ok(None);
        };
        let bridges = self.list(BRIDGES)?;
        // Only the one has that set.
        let scope = match bridges {
            Some(_) => Scope::Bridges,
            None => Scope::Names,
        };
        let index = |key: &Vec<u8>| message::key_index(key);
        let names = bridges.iter().flatten();
        let mut namings = BTreeSet::new();
        if scope == Scope::Names {
            for (naming, set) in NAMINGS {
                let keys = self.list(set)?;
                namings.extend(keys.filter(|keys| !keys.is_empty()).map(|_| naming));
            }
        }
        Ok(Some(GateSnapshot {
            scope,
            whole: self.rules()? == rules(scope),
            contents: Contents {
                ready: ready.iter().filter_map(index).collect(),
                bridges: names.map(|key| message::key_name(key)).collect(),
                namings,
            },
            drops: self.drops()?,
        }))
    }

    fn rules(&mut self) -> Result<usize, GateError> {
        let table = self.table.clone();
        // Each once: a dump that was interrupted starts over.
        let mut seen = BTreeSet::new();
        self.dump(
            "listing rules",
            |sequence| message::list_rules(&table, sequence),
            |answer| {
                if message::is_rule(answer, &table) {
                    // Behind the header, which has the number of the ruleset's generation.
                    seen.insert(answer.payload().get(4..).map(<[u8]>::to_vec));
                }
            },
        )?;
        Ok(seen.len())
    }

    /// What it has dropped; nothing where it is not there.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn drops(&mut self) -> Result<Drops, GateError> {
        let mut drops = Drops::default();
        let table = self.table.clone();
        self.dump(
            "listing counters",
            |sequence| message::list_counters(&table, sequence),
            |answer| match message::counter(answer, &table) {
                Some((name, packets)) if name == FROM => drops.from = packets,
                Some((name, packets)) if name == TO => drops.to = packets,
                _ => {}
            },
        )?;
        Ok(drops)
    }

    /// From what the sets have to what they should have. False: the table, or what is to be
    /// removed from it, is not there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn change(&mut self, from: &Contents, to: &Contents) -> Result<bool, GateError> {
        let index = |all: BTreeSet<u32>| all.into_iter().map(message::index_key).collect();
        let name =
            |all: BTreeSet<&String>| all.into_iter().map(|one| message::name_key(one)).collect();
        let change = |set, add, keys| Change { set, add, keys };
        let mut all = vec![
            change(READY, false, index(&from.ready - &to.ready)),
            change(READY, true, index(&to.ready - &from.ready)),
            change(
                BRIDGES,
                false,
                name(from.bridges.difference(&to.bridges).collect()),
            ),
            change(
                BRIDGES,
                true,
                name(to.bridges.difference(&from.bridges).collect()),
            ),
        ];
        all.extend(NAMINGS.into_iter().flat_map(|(naming, set)| {
            let is_on = |contents: &Contents| contents.namings.contains(&naming);
            let keys = |is_changed: bool| match is_changed {
                true => vec![message::name_key(START)],
                false => Vec::new(),
            };
            [
                change(set, false, keys(is_on(from) && !is_on(to))),
                change(set, true, keys(is_on(to) && !is_on(from))),
            ]
        }));
        for Change { set, add, keys } in &mut all {
            // Those that do not fit go first, in batches of their own.
            while keys.len() > KEYS_A_BATCH {
                let part = change(*set, *add, keys.split_off(keys.len() - KEYS_A_BATCH));
                if !self.make(&[part])? {
                    return Ok(false);
                }
            }
        }
        all.retain(|change| !change.keys.is_empty());
        if all.is_empty() {
            return Ok(true);
        }
        self.make(&all)
    }

    fn make(&mut self, all: &[Change]) -> Result<bool, GateError> {
        self.sequence = self.sequence.wrapping_add(1);
        let batch = message::changes(&self.table, self.sequence, all);
        self.carry_out("changing a set", batch)
    }

    /// Takes the gate away. False: it was not there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn release(&mut self) -> Result<bool, GateError> {
        self.sequence = self.sequence.wrapping_add(1);
        let batch = message::delete_table(&self.table, self.sequence);
        self.carry_out("removing the table", batch)
    }

    /// The keys of a set; `None`: there is no such set.
    fn list(&mut self, set: &str) -> Result<Option<Vec<Vec<u8>>>, GateError> {
        let table = self.table.clone();
        let ask = |sequence| message::ask_set(&table, set, sequence);
        if !self.exchange("asking for a set", ask, |_| {})? {
            return Ok(None);
        }
        let mut keys = Vec::new();
        let found = self.dump(
            "listing a set",
            |sequence| message::list_set(&table, set, sequence),
            |answer| keys.extend(message::keys(answer)),
        )?;
        Ok(found.then_some(keys))
    }

    fn dump(
        &mut self,
        action: &'static str,
        make: impl Fn(u32) -> Vec<u8>,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, GateError> {
        for _ in 0..ATTEMPTS {
            let mut interrupted = false;
            let found = self.exchange(action, &make, |answer| {
                interrupted |= answer.flags() & NLM_F_DUMP_INTR != 0;
                each(answer);
            })?;
            // What was handed over twice is the same, or newer.
            if !interrupted {
                return Ok(found);
            }
        }
        Err(GateError::Netlink {
            action,
            source: io::Error::other("it changed each time it was listed"),
        })
    }

    /// Sends one request, and hands over its answers. False: what it is about is not there.
    fn exchange(
        &mut self,
        action: &'static str,
        make: impl Fn(u32) -> Vec<u8>,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, GateError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(action, &make(self.sequence))?;
        let mut end = None;
        while end.is_none() {
            self.receive(action, |answer| match answer.message_type() {
                NLMSG_DONE => end = Some(Ok(true)),
                NLMSG_ERROR => end = Some(said(action, answer)),
                _ => each(answer),
            })?;
        }
        end.unwrap_or(Ok(true))
    }

    /// Sends a batch, and waits for all its acknowledgements, or for what speaks against it. False:
    /// something that it is about is not there.
    fn carry_out(
        &mut self,
        action: &'static str,
        (batch, answers): (Vec<u8>, usize),
    ) -> Result<bool, GateError> {
        self.send(action, &batch)?;
        let (mut left, mut refused) = (answers, None);
        while left > 0 && refused.is_none() {
            self.receive(action, |answer| {
                if answer.message_type() == NLMSG_ERROR {
                    left = left.saturating_sub(1);
                    match said(action, answer) {
                        Ok(true) => {}
                        other => refused = Some(other),
                    }
                }
            })?;
        }
        refused.unwrap_or(Ok(true))
    }

    fn send(&self, action: &'static str, bytes: &[u8]) -> Result<(), GateError> {
        self.socket
            .send(bytes, 0)
            .map(|_| ())
            .map_err(|source| GateError::Netlink { action, source })
    }

    /// One datagram; what belongs to an earlier request is passed over.
    fn receive(
        &self,
        action: &'static str,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), GateError> {
        let failed = |source| GateError::Netlink { action, source };
        let mut buffer = Vec::with_capacity(BUFFER);
        let size = receive(&self.socket, &mut buffer).map_err(failed)?;
        if size > buffer.len() {
            return Err(failed(io::Error::other(
                "an answer larger than the kernel makes them",
            )));
        }
        for answer in netlink::messages(&buffer) {
            if answer.sequence_number() == self.sequence {
                each(&answer);
            }
        }
        Ok(())
    }
}

fn said(action: &'static str, answer: &Message<'_>) -> Result<bool, GateError> {
    match netlink::error_number(answer) {
        Some(0) => Ok(true),
        Some(number) if Errno::from_raw(number) == Errno::ENOENT => Ok(false),
        number => Err(GateError::Netlink {
            action,
            source: match number {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::other("an answer that is cut short"),
            },
        }),
    }
}
