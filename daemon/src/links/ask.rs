//! Questions to rtnetlink, and all of their answers.
//!
//! rtnetlink is asynchronous, and the callers of `links` are not: so each question is asked on a thread that has a
//! runtime of its own. That thread may wait; one that runs other tasks must not (`Runtime::block_on` panics there).
//! Listings that a change interrupted are taken again.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;

use futures_util::{Stream, StreamExt as _};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::Handle;
use tokio::runtime::{Builder, Runtime};

use super::error::LinksError;
use super::lenient::Lenient;
use super::message::{self, Link, LinkAddress};

/// A table that changes during every one of so many listings changes too fast to be listed.
const ATTEMPTS: u32 = 16;

/// Runs `work` in a runtime on the calling thread, which must have none, with a socket in its network namespace.
///
/// Where that is a container's, the process must have had a runtime before: its first one opens a pair of sockets for
/// signals, which would hold the namespace for as long as the process runs.
pub fn here<T>(
    work: impl AsyncFnOnce(&mut Route) -> Result<T, LinksError>,
) -> Result<T, LinksError> {
    runtime()?.block_on(async { work(&mut Route::open()?).await })
}

fn runtime() -> Result<Runtime, LinksError> {
    let runtime = Builder::new_current_thread().enable_io().build();
    runtime.map_err(|source| LinksError::Socket {
        action: "starting a runtime",
        source,
    })
}

type Job = Box<dyn FnOnce(&Runtime, &mut Route) + Send>;

/// A thread that asks one question after the other. It ends with this.
pub struct Asker {
    jobs: mpsc::Sender<Job>,
}

impl Asker {
    /// Its socket is in the calling thread's network namespace, which the new thread inherits.
    pub fn start() -> Result<Self, LinksError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, opened) = mpsc::sync_channel::<Result<(), LinksError>>(1);
        let run = move || {
            let open = || -> Result<(Runtime, Route), LinksError> {
                let runtime = runtime()?;
                let route = runtime.block_on(async { Route::open() })?;
                Ok((runtime, route))
            };
            let (runtime, mut route) = match open() {
                Ok(both) => both,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            for job in queue {
                job(&runtime, &mut route);
            }
        };
        let thread = thread::Builder::new().name("links".to_owned()).spawn(run);
        thread.map_err(|source| LinksError::Socket {
            action: "starting a thread",
            source,
        })?;
        opened.recv().map_err(|_| ended("opening a socket"))??;
        Ok(Self { jobs })
    }

    /// Runs `work` there, and waits for it.
    pub fn ask<T: Send + 'static>(
        &self,
        request: &'static str,
        work: impl AsyncFnOnce(&mut Route) -> Result<T, LinksError> + Send + 'static,
    ) -> Result<T, LinksError> {
        let (give, answer) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |runtime, route| {
            drop(give.send(runtime.block_on(work(route))));
        });
        self.jobs.send(job).map_err(|_| ended(request))?;
        answer.recv().map_err(|_| ended(request))?
    }
}

/// Messages that answer no question: of them, only that some were lost counts.
type Others = Pin<Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send>>;

/// A socket for questions, and the task that reads it. Lives inside a runtime.
pub struct Route {
    handle: Handle,
    others: Others,
}

impl Route {
    fn open() -> Result<Self, LinksError> {
        let failed = |action| move |source| LinksError::Socket { action, source };
        let mut lenient = Lenient::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
        let socket = lenient.socket_mut();
        socket.bind_auto().map_err(failed("binding a socket"))?;
        // The kernel then refuses what other processes send to it.
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("connecting to the kernel"))?;
        Ok(Self::over(lenient))
    }

    fn over(socket: impl AsyncSocket + Send + 'static) -> Self {
        let (mut connection, handle, others) = rtnetlink::from_socket(socket);
        // Without them an answer that ends with an error, or before its end, looks complete.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        tokio::spawn(connection);
        Self {
            handle,
            others: Box::pin(others),
        }
    }

    pub async fn links(&mut self, request: &'static str) -> Result<Vec<Link>, LinksError> {
        self.list(request, message::all_links(), message::answered_link)
            .await
    }

    pub async fn addresses(
        &mut self,
        request: &'static str,
    ) -> Result<Vec<LinkAddress>, LinksError> {
        let list = |answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => message::address(&address),
            _ => None,
        };
        self.list(request, message::all_addresses(), list).await
    }

    /// All neighbours that are not permanent.
    pub async fn neighbours(
        &mut self,
        request: &'static str,
    ) -> Result<BTreeSet<(u32, IpAddr)>, LinksError> {
        let list = |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(neighbour) => message::neighbour(&neighbour),
            _ => None,
        };
        let all = self.list(request, message::all_neighbours(), list).await?;
        Ok(all.into_iter().collect())
    }

    /// Neighbours that were asked for and have not answered.
    pub async fn unresolved(
        &mut self,
        request: &'static str,
    ) -> Result<Vec<(u32, IpAddr)>, LinksError> {
        let list = |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(neighbour) => message::unresolved(&neighbour),
            _ => None,
        };
        self.list(request, message::all_neighbours(), list).await
    }

    /// One request that is acknowledged: what `read` makes of the answer before that.
    pub async fn ask<T>(
        &mut self,
        request: &'static str,
        wanted: RouteNetlinkMessage,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<T>, LinksError> {
        let answers = self.all(request, wanted, NLM_F_ACK, read).await?;
        Ok(answers.into_iter().next_back())
    }

    async fn list<T>(
        &mut self,
        request: &'static str,
        wanted: RouteNetlinkMessage,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, LinksError> {
        self.all(request, wanted, NLM_F_DUMP, read).await
    }

    async fn all<T>(
        &mut self,
        request: &'static str,
        wanted: RouteNetlinkMessage,
        flags: u16,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, LinksError> {
        for _ in 0..ATTEMPTS {
            let mut wanted = NetlinkMessage::from(wanted.clone());
            wanted.header.flags = NLM_F_REQUEST | flags;
            let mut all = Vec::new();
            let end = self.exchange(request, wanted, |answer| all.extend(read(answer)));
            match end.await? {
                End::Whole => return Ok(all),
                End::Interrupted => {}
                // What is left of this answer must not meet the next question.
                End::Overrun => *self = Self::open()?,
            }
        }
        Err(LinksError::Answer {
            request,
            problem: "a listing that changed each time it was taken",
        })
    }

    /// Sends a request, and hands over every message of the answer up to its end.
    async fn exchange(
        &mut self,
        request: &'static str,
        wanted: NetlinkMessage<RouteNetlinkMessage>,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<End, LinksError> {
        let mut answers = self.handle.request(wanted).map_err(|_| ended(request))?;
        let mut end = End::Whole;
        loop {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer.ok_or_else(|| ended(request))?,
                // netlink-proto knows no request for it (`ENOBUFS`).
                Some((other, _)) = self.others.next() => match other.payload {
                    NetlinkPayload::Overrun(_) => return Ok(End::Overrun),
                    _ => continue,
                },
            };
            if answer.header.flags & NLM_F_DUMP_INTR != 0 {
                end = End::Interrupted;
            }
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => each(answer),
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(end),
                NetlinkPayload::Done(done) => return Err(refused(request, done.code)),
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(end),
                    Some(code) => return Err(refused(request, code.get())),
                },
                NetlinkPayload::Overrun(_) => return Ok(End::Overrun),
                _ => {}
            }
        }
    }
}

/// How an answer ended.
enum End {
    Whole,
    /// The table changed while it was listed.
    Interrupted,
    /// The kernel had to drop some of it.
    Overrun,
}

fn refused(request: &'static str, code: i32) -> LinksError {
    LinksError::Refused {
        request,
        source: io::Error::from_raw_os_error(code.saturating_neg()),
    }
}

fn ended(request: &'static str) -> LinksError {
    LinksError::Answer {
        request,
        problem: "the end of the connection",
    }
}

#[cfg(test)]
mod tests;
