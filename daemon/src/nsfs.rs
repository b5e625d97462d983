//! Opening a network namespace by a path that others may have a say in.
//!
//! Opening a device or a pipe may do something, or wait for ever, and what a path stands for may
//! be another thing a moment later. So the name is opened once, without what is behind it
//! (open(2), `O_PATH`); only what is on the namespaces' own file system is then opened, through that
//! descriptor. Called by `links`, `probe` and `api`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// Opens a namespace, whose kind the kernel checks where it is used.
///
/// # Errors
/// There is none.
pub fn open(path: &Path) -> io::Result<File> {
    let named = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open(path)?;
    if fstatfs(&named)?.filesystem_type() != NSFS_MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no network namespace",
        ));
    }
    File::open(format!("/proc/self/fd/{}", named.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_is_no_namespace_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        // Opened for reading, a FIFO without a writer waits for one.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let link = root.path().join("y");
        symlink("/proc/self/ns/net", &link).unwrap();
        open(&link).unwrap();
        assert!(open(&root.path().join("none")).is_err());
    }

    /// A link that is exchanged while it is looked at gives a namespace or an error, and never a
    /// FIFO, whose opening would not return.
    #[test]
    fn a_link_that_is_swapped_meanwhile_never_waits() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/proc/self/ns/net", at("x")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for target in ["fifo", "/proc/self/ns/net"].iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    symlink(target, at("next")).unwrap();
                    std::fs::rename(at("next"), at("x")).unwrap();
                }
            });
            let mut seen = [0; 2];
            for _ in 0..20_000 {
                seen[usize::from(open(&at("x")).is_ok())] += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
        });
    }
}
