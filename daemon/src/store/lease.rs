//! Reading a file only when it is whole.
//!
//! Owns one question: does a process have the file open for writing? The kernel answers it
//! exactly: a read lease (fcntl(2), `F_SETLEASE`) is refused with `EAGAIN` while there
//! is a writer, and while it is held, new writers wait for the few microseconds that
//! reading takes. Must never block on what is in the directory (a FIFO, a file under
//! another's lease). An exception to the rule against `unsafe`: nix has no leases.
//! Called by `store` only.
#![allow(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;

/// The largest file that is read. An API server takes objects of 1.5 MiB; a file of a
/// thousand ordinary policies is below 2 MiB.
pub(super) const LARGEST: u64 = 16 << 20;

/// From asm-generic/fcntl.h; the libc crate has it for Android alone.
const F_SETSIG: libc::c_int = 10;

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn from_metadata(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// When this content came to this place, by the file system's clock.
    pub(super) fn arrived(&self) -> SystemTime {
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let nanos = u32::try_from(self.changed.1).unwrap_or(0);
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    /// So old that a later change shows: file systems stamp in ticks of up to two seconds.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        now.duration_since(self.arrived())
            .is_ok_and(|age| age > Duration::from_secs(3))
    }
}

/// What a look at a file gave.
#[derive(Debug)]
pub(super) enum Look {
    /// Its whole content. `sure`: the kernel has confirmed that no process writes it; else the
    /// file system knows no leases, and the caller must see that it is quiet.
    Whole {
        bytes: Vec<u8>,
        stamp: Stamp,
        sure: bool,
    },
    /// A process writes it.
    BeingWritten,
    /// It is too large to be a manifest.
    TooLarge(u64),
    /// It is a FIFO, a socket, a device.
    NotAFile,
}

/// Looks at a file, following symbolic links, as long as it is the one that was listed: its
/// device and inode. Nothing else is ever opened: opening a device may already do something
/// (watchdog(4) starts to count).
pub(super) fn look(path: &Path, listed: (u64, u64)) -> io::Result<Look> {
    // open(2): O_PATH opens the name alone, and neither a device's nor a FIFO's other side.
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)?;
    let meta = place.metadata()?;
    if !meta.is_file() {
        return Ok(Look::NotAFile);
    }
    if (meta.dev(), meta.ino()) != listed {
        // Replaced since: what it is now is looked at when it is listed.
        return Ok(Look::BeingWritten);
    }
    // O_NONBLOCK: opening a file under a write lease must not wait.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let mut file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => {
            return Ok(Look::BeingWritten);
        }
        opened => opened?,
    };
    let lease = match take_lease(&file) {
        Ok(()) => true,
        Err(Errno::EAGAIN) => return Ok(Look::BeingWritten),
        // EINVAL, EOPNOTSUPP: not on this file system. EACCES: another's file, and no CAP_LEASE.
        Err(_) => false,
    };
    let before = file.metadata()?;
    if before.len() > LARGEST {
        return Ok(Look::TooLarge(before.len()));
    }
    let mut bytes = Vec::new();
    (&mut file).take(LARGEST + 1).read_to_end(&mut bytes)?;
    let after = Stamp::from_metadata(&file.metadata()?);
    if after != Stamp::from_metadata(&before) || bytes.len() as u64 != before.len() {
        return Ok(Look::BeingWritten);
    }
    // Closing the file gives the lease back.
    Ok(Look::Whole {
        bytes,
        stamp: after,
        sure: lease,
    })
}

fn take_lease(file: &File) -> Result<(), Errno> {
    let fd = file.as_raw_fd();
    // A process that opens the file for writing meanwhile makes the kernel signal the holder: SIGIO by
    // default, which ends a process. SIGURG is ignored by default, and needs no handler.
    // SAFETY: F_SETSIG and F_SETLEASE take an integer and no pointer; `fd` is open, as
    // `file` is borrowed for the whole call.
    unsafe {
        Errno::result(libc::fcntl(fd, F_SETSIG, libc::SIGURG))?;
        Errno::result(libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use super::*;

    fn look(path: &Path) -> io::Result<Look> {
        let meta = path.metadata()?;
        super::look(path, (meta.dev(), meta.ino()))
    }

    #[test]
    fn a_file_is_whole_when_no_process_writes_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"half").unwrap();
        assert!(matches!(look(&path).unwrap(), Look::BeingWritten));
        drop(writer);
        match look(&path).unwrap() {
            Look::Whole { bytes, sure, .. } => {
                assert_eq!((bytes.as_slice(), sure), (&b"half"[..], true))
            }
            other => panic!("{other:?}"),
        }
        // The lease is given back: writing works at once.
        std::fs::write(&path, "again").unwrap();
    }

    #[test]
    fn what_is_no_manifest_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("a.yaml");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(look(&fifo).unwrap(), Look::NotAFile));
        let large = directory.path().join("b.yaml");
        File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(look(&large).unwrap(), Look::TooLarge(_)));
        assert!(look(&directory.path().join("none")).is_err());
    }

    /// A device is not opened to find out that it is one: the open itself may have effects.
    #[test]
    fn a_device_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("a.yaml");
        // Opening a terminal's master makes a new terminal: opening it is seen.
        std::os::unix::fs::symlink("/dev/ptmx", &link).unwrap();
        let terminals = || std::fs::read_dir("/dev/pts").unwrap().count();
        let before = terminals();
        assert!(matches!(look(&link).unwrap(), Look::NotAFile));
        assert_eq!(terminals(), before);
    }

    #[test]
    fn what_was_put_in_the_place_of_a_listed_file_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["a.yaml", "b.yaml"].map(|name| directory.path().join(name));
        std::fs::write(&one, "one").unwrap();
        std::fs::write(&two, "two").unwrap();
        let meta = one.metadata().unwrap();
        std::fs::rename(&two, &one).unwrap();
        let seen = super::look(&one, (meta.dev(), meta.ino())).unwrap();
        assert!(matches!(seen, Look::BeingWritten), "{seen:?}");
    }
}
