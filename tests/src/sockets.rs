//! Sockets inside namespaces, as a container's programs open them, and what is sent through
//! them: datagrams that must arrive or not, and transfers that are compared byte by byte.
//!
//! Nothing here waits without an end.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect as connect_socket,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// A port is free again by then.
const FREED: Duration = Duration::from_secs(5);
/// How long what must arrive may take.
#[must_use]
pub fn scaled() -> Duration {
    crate::scaled(Duration::from_secs(5))
}

/// Binds until it can: a child that another test starts has all our sockets until it is another
/// program.
fn retried<T: Send>(namespace: &Path, bind: impl Fn() -> io::Result<T> + Sync) -> Result<T> {
    let begun = Instant::now();
    loop {
        match netns::inside(namespace, &bind)? {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < FREED => {
                thread::yield_now();
            }
            bound => return Ok(bound?),
        }
    }
}

/// A UDP socket, which waits [`scaled`] for each datagram.
///
/// # Errors
/// The address is not there, or is taken.
pub fn udp(namespace: &Path, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = retried(namespace, || UdpSocket::bind((address, port)))?;
    socket.set_read_timeout(Some(scaled()))?;
    Ok(socket)
}

/// A TCP listener.
///
/// # Errors
/// The address is not there, or is taken.
pub fn listen(namespace: &Path, address: IpAddr, port: u16) -> Result<TcpListener> {
    retried(namespace, || TcpListener::bind((address, port)))
}

/// Opens a TCP connection; `None`: no answer within the time.
///
/// # Errors
/// It is refused, or there is no way.
pub fn dial(namespace: &Path, to: SocketAddr, within: Duration) -> Result<Option<TcpStream>> {
    match netns::inside(namespace, || TcpStream::connect_timeout(&to, within))? {
        Ok(stream) => {
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        }
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// As [`dial`], under this address of several.
///
/// # Errors
/// It is refused, or there is no way.
pub fn dial_as(
    namespace: &Path,
    source: IpAddr,
    to: SocketAddr,
    within: Duration,
) -> Result<Option<TcpStream>> {
    let connected = netns::inside(namespace, || {
        let family = match source {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let timeout = TimeVal::milliseconds(within.as_millis().try_into().unwrap_or(i64::MAX));
        // It bounds connect(2) as well.
        setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
        let source = SockaddrStorage::from(SocketAddr::new(source, 0));
        bind(socket.as_raw_fd(), &source)?;
        connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok(TcpStream::from(socket))
    })?;
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(Errno::EINPROGRESS | Errno::ETIMEDOUT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The two ends of a TCP connection: its opener's, and its answerer's.
pub type Connection = (TcpStream, TcpStream);

/// Opens a connection that must come about.
///
/// # Errors
/// It does not.
pub fn connect(from: &Path, to: &Path, address: SocketAddr) -> Result<Connection> {
    let listener = listen(to, address.ip(), address.port())?;
    let client = dial(from, address, scaled())?.context("nobody answers")?;
    let (server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(scaled()))?;
        end.set_write_timeout(Some(scaled()))?;
    }
    Ok((client, server))
}

/// A word from one end to the other; false where it does not arrive.
///
/// # Errors
/// What the system says.
pub fn says(from: &mut TcpStream, to: &mut TcpStream, within: Duration) -> Result<bool> {
    let before = to.read_timeout()?;
    to.set_read_timeout(Some(within))?;
    from.write_all(b"word")?;
    let heard = match to.read_exact(&mut [0; 4]) {
        Ok(()) => true,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => false,
        Err(error) => return Err(error.into()),
    };
    to.set_read_timeout(before)?;
    Ok(heard)
}

/// The next datagram, and its sender.
///
/// # Errors
/// None comes within the socket's time.
pub fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(bytes) {
            // A wait that has an end is not taken up again by the system.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

/// A datagram, where one comes within the time.
///
/// # Errors
/// What the system says.
pub fn heard(socket: &UdpSocket, within: Duration) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    socket.set_read_timeout(Some(within))?;
    let mut bytes = vec![0; 1 << 16];
    let heard = match receive(socket, &mut bytes) {
        Ok((length, from)) => {
            bytes.truncate(length);
            Some((bytes, from))
        }
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => None,
        Err(error) => return Err(error.into()),
    };
    socket.set_read_timeout(Some(scaled()))?;
    Ok(heard)
}

/// Sends this many bytes each way at once, and compares what arrives with what was sent.
///
/// # Errors
/// Something is changed or missing, or nothing moves for [`scaled`].
pub fn transfer((client, server): &Connection, bytes: usize) -> Result<()> {
    thread::scope(|scope| {
        let ends = [(client, server, 1), (server, client, 2)];
        let ways = ends.map(|(from, to, seed)| {
            let sender = scope.spawn(move || sends(from, bytes, seed));
            (sender, scope.spawn(move || receives(to, bytes, seed)))
        });
        for ((sender, receiver), way) in ways.into_iter().zip(["to the server", "to the client"]) {
            // A receiver must not wait for a sender that gave up.
            let received = receiver.join().expect("a thread of the test panicked");
            let sent = sender.join().expect("a thread of the test panicked");
            received.and(sent).context(way)?;
        }
        Ok(())
    })
}

fn sends(mut stream: &TcpStream, bytes: usize, seed: u64) -> Result<()> {
    for (number, start) in (0..).zip((0..bytes).step_by(PART)) {
        let part = part(seed, number, PART.min(bytes - start));
        if let Err(error) = stream.write_all(&part) {
            // The receiver must not wait for what will not come.
            stream.shutdown(Shutdown::Both).ok();
            return Err(error).with_context(|| format!("with {start} of {bytes} bytes sent"));
        }
    }
    Ok(())
}

fn receives(mut stream: &TcpStream, bytes: usize, seed: u64) -> Result<()> {
    let mut got = Vec::new();
    for (number, start) in (0..).zip((0..bytes).step_by(PART)) {
        got.resize(PART.min(bytes - start), 0);
        stream
            .read_exact(&mut got)
            .with_context(|| format!("with {start} of {bytes} bytes there"))?;
        let sent = part(seed, number, got.len());
        ensure!(got == sent, "part {number} is not what was sent");
    }
    Ok(())
}

/// Bytes of a part of a transfer.
const PART: usize = 1 << 15;

/// A part of a transfer: a slice of noise, at a place of its own.
fn part(seed: u64, number: u64, length: usize) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| Rng(1).bytes(1 << 20));
    let mut place = Rng((seed << 32) | (number + 1));
    let start = place.word() as usize % (NOISE.len() - length);
    NOISE[start..start + length].to_vec()
}

/// Bytes that look like nothing, the same for the same seed (xorshift64).
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// This many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.word().to_be_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
