//! Descriptors that tokio waits for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Puts a descriptor into tokio's hands, which owns it from now on. To be called inside a tokio runtime.
///
/// # Errors
/// epoll refuses the descriptor.
#[expect(
    deprecated,
    reason = "its successor is unsafe, because `AsRawFd` may lie; each type that is passed here owns its descriptor and never changes it"
)]
pub(crate) fn ready_when<T: AsRawFd>(inner: T, readiness: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, readiness)
}
