//! Real probes: one packet or one handshake from inside one network namespace to
//! an address in another, and whether it arrived.
//!
//! What is judged is the path, not the service: where no server listens on the port,
//! the probe listens itself while it lasts, and a refusal by the other end counts
//! as arrived. Nothing is changed in a namespace beyond sockets that are closed
//! again. Needs CAP_SYS_ADMIN (setns) and CAP_NET_RAW. Called by `netpol test` and
//! by the live suites.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netpol_engine::policy::Protocol;
use socket2::{Domain, Socket, Type};

mod sctp;

use crate::netns::{self, NamespaceError};

/// How long one look at a socket takes, where there are two to look at.
const GLANCE: Duration = Duration::from_millis(5);
/// Datagrams may be lost for other reasons than policy (a neighbour is being
/// resolved): they are sent again after this long.
const RESEND: Duration = Duration::from_millis(200);

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The network namespace that it starts in.
    pub from: PathBuf,
    /// The sender's address there.
    pub source: IpAddr,
    /// The network namespace that the destination is in; `None`: it is not on this
    /// host, and just what answers by itself can be seen.
    pub to: Option<PathBuf>,
    /// Where it goes.
    pub destination: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// When to give up.
    pub timeout: Duration,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived, and what was answered came back.
    Reached,
    /// The other end refused it: it arrived.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// The network said that it can't be delivered: this says nothing about policy.
    Unreachable(String),
}

impl Outcome {
    /// Did it arrive? `None` where that is not known.
    #[must_use]
    pub const fn arrived(&self) -> Option<bool> {
        match self {
            Self::Reached | Self::Refused => Some(true),
            Self::TimedOut => Some(false),
            Self::Unreachable(_) => None,
        }
    }
}

/// Why there was no attempt.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A namespace can't be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused a socket.
    #[error("can't {doing} in `{namespace}`: {source}")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// Where.
        namespace: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No listener could see it arrive.
    #[error("an SCTP probe needs the destination's network namespace")]
    Unseen,
}

impl Probe {
    /// Tries it, on this thread and for at most the timeout.
    ///
    /// # Errors
    /// When it could not be tried.
    pub fn run(&self) -> Result<Outcome, ProbeError> {
        match self.protocol {
            Protocol::Tcp => self.tcp(),
            Protocol::Udp => self.udp(),
            Protocol::Sctp => self.sctp(),
        }
    }

    fn tcp(&self) -> Result<Outcome, ProbeError> {
        // A port that is taken has a listener, which will do as well.
        let _listener =
            self.at_destination("listen", || match TcpListener::bind(self.destination) {
                Ok(listener) => Ok(Some(listener)),
                Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
                Err(error) => Err(error),
            })?;
        let socket = self.at_source("open a TCP socket", || self.bound(Type::STREAM))?;
        let tried = socket.connect_timeout(&self.destination.into(), self.timeout);
        Ok(match tried {
            Ok(()) => Outcome::Reached,
            Err(error) => failed(&error),
        })
    }

    fn udp(&self) -> Result<Outcome, ProbeError> {
        let answering = self.at_destination("open a UDP socket", || {
            match UdpSocket::bind(self.destination) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(GLANCE))?;
                    Ok(Some(Answering::Echo(socket)))
                }
                // A service has it: see the datagram arrive beside it.
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    Ok(Some(Answering::Watch(self.watching()?)))
                }
                Err(error) => Err(error),
            }
        })?;
        let socket = self.at_source("open a UDP socket", || {
            let socket = self.bound(Type::DGRAM)?;
            socket.connect(&self.destination.into())?;
            socket.set_read_timeout(Some(GLANCE))?;
            Ok(UdpSocket::from(socket))
        });
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return unreachable(error),
        };
        let nonce = nonce().to_be_bytes();
        let mut buffer = [0_u8; 2048];
        let deadline = Instant::now() + self.timeout;
        let mut next = Instant::now();
        while Instant::now() < deadline {
            if Instant::now() >= next {
                next += RESEND;
                if let Err(error) = socket.send(&nonce) {
                    return Ok(failed(&error));
                }
            }
            match &answering {
                Some(Answering::Echo(echo)) => {
                    if let Ok((length, sender)) = echo.recv_from(&mut buffer)
                        && buffer[..length] == nonce
                    {
                        // The answer's loss shows as a timeout.
                        let _ = echo.send_to(&nonce, sender);
                    }
                }
                Some(Answering::Watch(watch)) => {
                    if let Ok(length) = (&*watch).read(&mut buffer)
                        && buffer[..length].ends_with(&nonce)
                    {
                        return Ok(Outcome::Reached);
                    }
                }
                None => {}
            }
            match socket.recv(&mut buffer) {
                // Whatever a service answers, it got the question.
                Ok(_) => return Ok(Outcome::Reached),
                Err(error) if is_patience(&error) => {}
                Err(error) => return Ok(failed(&error)),
            }
        }
        Ok(Outcome::TimedOut)
    }

    /// The kernel need not know SCTP: an INIT chunk is sent by hand, and seen to arrive.
    fn sctp(&self) -> Result<Outcome, ProbeError> {
        let watch = self
            .at_destination("watch SCTP", || self.watching().map(Some))?
            .ok_or(ProbeError::Unseen)?;
        let socket = self.at_source("open an SCTP socket", || {
            let protocol = i32::from(Protocol::Sctp.number()).into();
            let socket = Socket::new(self.domain(), Type::RAW, Some(protocol))?;
            socket.bind(&SocketAddr::new(self.source, 0).into())?;
            socket.connect(&SocketAddr::new(self.destination.ip(), 0).into())?;
            Ok(socket)
        });
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return unreachable(error),
        };
        let nonce = nonce();
        let source_port = 49152 | (nonce as u16 & 0x3fff);
        #[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
        let tag = nonce as u32 | 1;
        let packet = sctp::init(source_port, self.destination.port(), tag);
        let mut buffer = [0_u8; 2048];
        let deadline = Instant::now() + self.timeout;
        let mut next = Instant::now();
        while Instant::now() < deadline {
            if Instant::now() >= next {
                next += RESEND;
                if let Err(error) = socket.send(&packet) {
                    return Ok(failed(&error));
                }
            }
            if let Ok(length) = (&watch).read(&mut buffer)
                && buffer[..length].ends_with(&packet)
            {
                return Ok(Outcome::Reached);
            }
        }
        Ok(Outcome::TimedOut)
    }

    /// A raw socket that sees every packet of the protocol that arrives in its namespace.
    fn watching(&self) -> io::Result<Socket> {
        let protocol = i32::from(self.protocol.number()).into();
        let socket = Socket::new(self.domain(), Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(GLANCE))?;
        Ok(socket)
    }

    fn bound(&self, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(self.domain(), kind, None)?;
        socket.bind(&SocketAddr::new(self.source, 0).into())?;
        Ok(socket)
    }

    fn domain(&self) -> Domain {
        Domain::for_address(self.destination)
    }

    fn at_source<T: Send>(
        &self,
        doing: &'static str,
        open: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, ProbeError> {
        at(&self.from, doing, open)
    }

    fn at_destination<T: Send>(
        &self,
        doing: &'static str,
        open: impl FnOnce() -> io::Result<Option<T>> + Send,
    ) -> Result<Option<T>, ProbeError> {
        match &self.to {
            Some(namespace) => at(namespace, doing, open),
            None => Ok(None),
        }
    }
}

/// What sees a datagram arrive.
enum Answering {
    /// We have the port.
    Echo(UdpSocket),
    /// A service has it.
    Watch(Socket),
}

fn at<T: Send>(
    namespace: &Path,
    doing: &'static str,
    open: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, ProbeError> {
    netns::inside(namespace, open)?.map_err(|source| ProbeError::Socket {
        doing,
        namespace: namespace.to_owned(),
        source,
    })
}

/// No route is an outcome, not a failure of the probe.
fn unreachable(error: ProbeError) -> Result<Outcome, ProbeError> {
    match error {
        ProbeError::Socket { source, .. }
            if matches!(
                source.kind(),
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
            ) =>
        {
            Ok(Outcome::Unreachable(source.to_string()))
        }
        error => Err(error),
    }
}

fn failed(error: &io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::TimedOut,
        _ => Outcome::Unreachable(error.to_string()),
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Unlike that of any other probe, so that none takes another's packet for its own.
fn nonce() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(Instant::now())
}

#[cfg(test)]
mod tests;
