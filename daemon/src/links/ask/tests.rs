//! Answers that are interrupted, cut, refused or without an end, from a socket that plays the kernel.

#![allow(clippy::unwrap_used)]
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::BufMut;
use netlink_packet_core::{NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::libc::{IFLA_IFNAME, RTM_NEWLINK};

use super::*;
use crate::netlink::{attribute, request};

/// A kernel that answers each question with the next of its answers: datagrams, or failures of the socket.
struct Kernel {
    socket: Socket,
    state: Arc<Mutex<State>>,
}

type Answer = Vec<io::Result<Vec<u8>>>;

struct State {
    answers: VecDeque<Answer>,
    sent: VecDeque<io::Result<Vec<u8>>>,
    questions: usize,
    waiting: Option<Waker>,
}

impl AsyncSocket for Kernel {
    fn socket_ref(&self) -> &Socket {
        &self.socket
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn new(_: isize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn poll_send(&self, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock().unwrap();
        state.questions += 1;
        let answer = state.answers.pop_front().unwrap_or_default();
        state.sent.extend(answer);
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        _: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf)
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf).map_ok(|_| ())
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        let received = self.poll_recv_from_full(cx);
        received.map_ok(|(datagram, sender)| {
            buf.put_slice(&datagram);
            sender
        })
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        let mut state = self.state.lock().unwrap();
        match state.sent.pop_front() {
            Some(Ok(datagram)) => Poll::Ready(Ok((datagram, SocketAddr::new(0, 0)))),
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The names of the interfaces that a listing gives, and how often the kernel was asked.
fn listed(answers: Vec<Answer>) -> (Result<Vec<String>, LinksError>, usize) {
    let state = Arc::new(Mutex::new(State {
        answers: answers.into(),
        sent: VecDeque::new(),
        questions: 0,
        waiting: None,
    }));
    let kernel = Kernel {
        socket: Socket::new(NETLINK_ROUTE).unwrap(),
        state: state.clone(),
    };
    let links = runtime().unwrap().block_on(async {
        let mut route = Route::over(kernel);
        route.links("listing interfaces").await
    });
    let names = links.map(|links| links.into_iter().map(|link| link.name).collect());
    let questions = state.lock().unwrap().questions;
    (names, questions)
}

/// One interface, in answer to the question of this number.
fn link(number: u32, flags: u16, name: &str) -> Vec<u8> {
    let mut body = vec![0; 16];
    attribute(&mut body, IFLA_IFNAME, name.as_bytes());
    request(RTM_NEWLINK, NLM_F_MULTIPART | flags, number, &body)
}

fn done(number: u32, flags: u16, code: i32) -> Vec<u8> {
    let flags = NLM_F_MULTIPART | flags;
    request(NLMSG_DONE, flags, number, &code.to_ne_bytes())
}

#[test]
fn a_listing_is_all_its_datagrams() {
    let answer = vec![
        Ok([link(1, 0, "a"), link(1, 0, "b")].concat()),
        Ok(link(1, 0, "c")),
        Ok(done(1, 0, 0)),
    ];
    let (names, questions) = listed(vec![answer]);
    assert_eq!(names.unwrap(), ["a", "b", "c"]);
    assert_eq!(questions, 1);
}

#[test]
fn a_listing_that_was_interrupted_is_taken_again() {
    let (names, questions) = listed(vec![
        vec![
            Ok(link(1, NLM_F_DUMP_INTR, "old")),
            Ok(link(1, 0, "old")),
            Ok(done(1, 0, 0)),
        ],
        // Told at the very end.
        vec![Ok(link(2, 0, "old")), Ok(done(2, NLM_F_DUMP_INTR, 0))],
        vec![Ok(link(3, 0, "new")), Ok(done(3, 0, 0))],
    ]);
    assert_eq!(names.unwrap(), ["new"]);
    assert_eq!(questions, 3);
}

#[test]
fn a_listing_that_is_interrupted_each_time_is_given_up() {
    let answers = (1..=100).map(|number| vec![Ok(done(number, NLM_F_DUMP_INTR, 0))]);
    let (names, questions) = listed(answers.collect());
    assert!(matches!(names, Err(LinksError::Answer { .. })), "{names:?}");
    assert_eq!(questions, 16);
}

#[test]
fn a_listing_that_ends_with_an_error_is_none() {
    let code = -(Errno::EPERM as i32);
    let mut error = code.to_ne_bytes().to_vec();
    error.extend([0; 16]);
    for end in [done(1, 0, code), request(NLMSG_ERROR, 0, 1, &error)] {
        let (names, _) = listed(vec![vec![Ok(link(1, 0, "a")), Ok(end)]]);
        let Err(LinksError::Refused { source, .. }) = names else {
            panic!("{names:?}");
        };
        assert_eq!(source.raw_os_error(), Some(Errno::EPERM as i32));
    }
}

#[test]
fn a_listing_without_an_end_is_none() {
    let failure = io::Error::from_raw_os_error(Errno::EIO as i32);
    let (names, _) = listed(vec![vec![Ok(link(1, 0, "a")), Err(failure)]]);
    assert!(matches!(names, Err(LinksError::Answer { .. })), "{names:?}");
}

/// The second time, the real kernel is asked, on a new socket.
#[test]
fn a_listing_that_did_not_fit_is_taken_again() {
    let overrun = io::Error::from_raw_os_error(Errno::ENOBUFS as i32);
    let (names, questions) = listed(vec![vec![Ok(link(1, 0, "old")), Err(overrun)]]);
    let names = names.unwrap();
    assert!(names.contains(&"lo".to_owned()), "{names:?}");
    assert!(!names.contains(&"old".to_owned()), "{names:?}");
    assert_eq!(questions, 1);
}

#[test]
fn questions_are_asked_from_any_thread() {
    let asker = Asker::start().unwrap();
    let ask = || asker.ask("listing", async |route| route.links("listing").await);
    let expected = ask().unwrap();
    assert!(expected.iter().any(|link| link.name == "lo"));
    // As from the daemon's loop, in which a runtime is running.
    let inside = runtime().unwrap().block_on(async { ask().unwrap() });
    assert_eq!(inside.len(), expected.len());
}
