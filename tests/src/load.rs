//! Traffic that a policy for `db/store` allows from `web/front` on [`PORT`] and denies from
//! `db/other`, on both families, while something else happens: numbered datagrams and their
//! answers, a conversation over TCP, and transfers that are compared byte by byte. None of it
//! may be lost, and no other sender may be heard.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::{Family, Lab};
use crate::sockets::{self, Connection};

/// Where the victim answers.
pub const PORT: u16 = 5432;
/// What arrives late was dropped and sent again: TCP's shortest wait for that is 200 ms.
const LATE: Duration = Duration::from_millis(190);
/// Bytes of one transfer, each way.
const PART: usize = 1 << 17;

/// How much to say. The daemon under test needs the processors, too.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Between one word and the next.
    pub pace: Duration,
    /// Between one transfer and the next.
    pub rest: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            pace: Duration::from_micros(500),
            rest: Duration::from_millis(10),
        }
    }
}

/// What went over the wire meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Datagrams and words that were answered.
    pub words: u64,
    /// Bytes that were transferred, both ways together.
    pub bytes: u64,
    /// Words that took so long that they were perhaps lost and sent again.
    pub late: u64,
    /// Datagrams of the sender that must not be heard, and was not.
    pub knocks: u64,
}

/// Asks and awaits each answer, until it is over; how many there were. After each, a sender
/// a client knocks that must not be heard.
fn asks(socket: &UdpSocket, knocker: &UdpSocket, pace: Duration, over: &AtomicBool) -> Result<u64> {
    socket.set_read_timeout(Some(sockets::scaled()))?;
    let mut number = 0_u64;
    let mut answer = [0; 8];
    while !over.load(Ordering::Relaxed) {
        socket.send(&number.to_be_bytes())?;
        sockets::receive(socket, &mut answer)
            .with_context(|| format!("datagram {number} or its answer is lost"))?;
        ensure!(u64::from_be_bytes(answer) == number, "answers are mixed up");
        knocker.send(b"let me in")?;
        thread::sleep(pace);
        number += 1;
    }
    Ok(number)
}

/// The same over TCP, where a loss shows as a delay; how many words there were, and how many late.
fn converses(stream: &mut TcpStream, pace: Duration, over: &AtomicBool) -> Result<(u64, u64)> {
    let mut number = 0_u64;
    let mut answer = [0; 8];
    let mut late = 0;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        stream.write_all(&number.to_be_bytes())?;
        stream
            .read_exact(&mut answer)
            .with_context(|| format!("word {number} or its answer is lost"))?;
        late += u64::from(begun.elapsed() > LATE);
        thread::sleep(pace);
        number += 1;
    }
    Ok((number, late))
}

/// Answers until it is over; fails when a sender other than the friend speaks.
fn answers(socket: &UdpSocket, friend: IpAddr, over: &AtomicBool) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut bytes = [0; 64];
    while !over.load(Ordering::Relaxed) {
        match sockets::receive(socket, &mut bytes) {
            Ok((length, from)) => {
                ensure!(from.ip() == friend, "a datagram of {from} arrived");
                socket.send_to(&bytes[..length], from)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Transfers until it is over; how many bytes.
fn transfers(connection: &Connection, rest: Duration, over: &AtomicBool) -> Result<u64> {
    let mut bytes = 0;
    while !over.load(Ordering::Relaxed) {
        sockets::transfer(connection, PART).with_context(|| format!("after {bytes} bytes"))?;
        bytes += 2 * PART as u64;
        thread::sleep(rest);
    }
    Ok(bytes)
}

/// Traffic of all kinds while `disturb` does its work.
///
/// # Errors
/// Something is lost or changed, a sender is heard that must not be, or `disturb` fails.
pub fn under_load(
    lab: &Lab,
    Load { pace, rest }: Load,
    disturb: impl FnOnce() -> Result<()>,
) -> Result<Said> {
    let (front, store, other) = (
        lab.pod("web/front")?,
        lab.pod("db/store")?,
        lab.pod("db/other")?,
    );
    let open = |family| {
        let address = SocketAddr::new(store.address(family)?, PORT);
        sockets::connect(&front.namespace.path(), &store.namespace.path(), address)
    };
    let over = AtomicBool::new(false);
    let (mut client, mut server) = open(Family::V4)?;
    let hanging_up = client.try_clone()?;
    let bulk = [open(Family::V4)?, open(Family::V6)?];
    let mut pairs = Vec::new();
    for family in Family::BOTH {
        let server = sockets::udp(&store.namespace.path(), store.address(family)?, PORT)?;
        let target = server.local_addr()?;
        let asker = sockets::udp(&front.namespace.path(), front.address(family)?, 0)?;
        asker.connect(target)?;
        let knocker = sockets::udp(&other.namespace.path(), other.address(family)?, 0)?;
        knocker.connect(target)?;
        pairs.push((server, asker, knocker, front.address(family)?));
    }
    thread::scope(|scope| -> Result<Said> {
        let over = &over;
        let mut checks = Vec::new();
        let mut asking = Vec::new();
        for (server, asker, knocker, friend) in &pairs {
            checks.push(scope.spawn(move || answers(server, *friend, over)));
            asking.push(scope.spawn(move || asks(asker, knocker, pace, over)));
        }
        let conversing = scope.spawn(|| converses(&mut client, pace, over));
        let transferring = bulk
            .each_ref()
            .map(|connection| scope.spawn(move || transfers(connection, rest, over)));
        scope.spawn(move || {
            let mut word = [0; 8];
            while server.read_exact(&mut word).is_ok() && server.write_all(&word).is_ok() {}
        });
        let disturbed = disturb();
        over.store(true, Ordering::Relaxed);
        let asked: Vec<Result<u64>> = asking.into_iter().map(joined).collect();
        let conversed = joined(conversing);
        let transferred = transferring.map(joined);
        // Its thread ends with the connection.
        hanging_up.shutdown(Shutdown::Both).ok();
        for check in checks {
            joined(check)?;
        }
        disturbed?;
        let mut said = Said::default();
        for asked in asked {
            let asked = enough(asked?)?;
            said.words += asked;
            said.knocks += asked;
        }
        let (words, late) = conversed?;
        said.words += enough(words)?;
        said.late = late;
        for bytes in transferred {
            said.bytes += enough(bytes?)?;
        }
        Ok(said)
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().expect("a thread of the test panicked")
}

fn enough(said: u64) -> Result<u64> {
    ensure!(said > 100, "hardly anything was said");
    Ok(said)
}
