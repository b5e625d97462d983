//! Where things are pinned, and which users may touch them.
//!
//! ```text
//!  <pin directory>/              flock(2)ed by the daemon that uses it
//!    maps/NAME                   the maps that the attached programs use
//!    maps-next/NAME              maps of another layout, until every link has moved to them
//!    links/IFINDEX-ingress       TCX links (the endpoint's view: TC's egress hook)
//!    links/IFINDEX-egress
//!    clsact/IFINDEX-ingress/     empty directories: a filter of ours is on that hook
//!    inside/NUMBER-INODE-IFINDEX/
//!                                likewise: where the interface with that number is, which stands in the
//!                                place of an index above: in the namespace with that inode
//! ```
//!
//! All paths come from [`Layout`], which refuses to make one outside its directory.
//! bpffs refuses names with a dot, hence the hyphens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::MsFlags;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

use super::hook::Hook;
use super::within::{Location, is_inside};

/// Where the kernel's BPF file system is on every distribution.
const BPFFS: &str = "/sys/fs/bpf";

/// Why the pin directory can't be used.
#[derive(Debug, Error)]
pub enum PinsError {
    /// Relative, with `..`, or the root of everything.
    #[error("the pin directory `{}` must be an absolute path without `..`, below a BPF file system", .0.display())]
    Path(PathBuf),
    /// A file system that can't hold pins.
    #[error("the pin directory `{}` is not on a BPF file system: mount one (`mount -t bpf bpf {BPFFS}`) or set `[datapath] pin-directory` to a place below one", .0.display())]
    NotBpffs(PathBuf),
    /// The default place has no BPF file system, and one could not be mounted.
    #[error("no BPF file system could be mounted at `{BPFFS}`: {0}")]
    Mount(Errno),
    /// The default place has none, and one that this process mounts would be its own alone.
    #[error(
        "no BPF file system is mounted at `{BPFFS}`, and netpold can't do it from where it runs: `mount -t bpf bpf {BPFFS}`"
    )]
    Unmounted,
    /// No right.
    #[error("no right to use the pin directory `{}`: run as root", .0.display())]
    NoRight(PathBuf),
    /// Another daemon uses the directory.
    #[error("another netpold uses the pin directory `{}`: stop it, or give this one a pin directory of its own", .0.display())]
    InUse(PathBuf),
    /// There is no such directory.
    #[error("nothing is pinned at `{}`", .0.display())]
    Absent(PathBuf),
    /// Anything else that the file system says.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// What was being looked at or made.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PinsError {
    /// Wraps what the system said about a path.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NoRight(path.to_owned()),
            _ => Self::Io {
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// Which set of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The set that the attached programs use.
    Current,
    /// The set that is being filled, of another layout than the current one.
    Next,
}

/// The paths below one pin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`, which need not exist.
    ///
    /// # Errors
    /// [`PinsError::Path`] where `root` could mean another directory than it says.
    pub fn new(root: &Path) -> Result<Self, PinsError> {
        let plain = root
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if root.is_absolute() && plain && root != Path::new("/") && root != Path::new(BPFFS) {
            Ok(Self {
                root: root.to_owned(),
            })
        } else {
            Err(PinsError::Path(root.to_owned()))
        }
    }

    /// The pin directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a set of maps.
    #[must_use]
    pub fn maps(&self, stage: Stage) -> PathBuf {
        self.root.join(match stage {
            Stage::Current => "maps",
            Stage::Next => "maps-next",
        })
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, stage: Stage, name: &'static str) -> PathBuf {
        debug_assert!(is_plain(name));
        self.maps(stage).join(name)
    }

    /// The directory of TCX links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The pin of a TCX link.
    #[must_use]
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.links().join(hook_name(ifindex, hook))
    }

    /// The directory of clsact marks.
    #[must_use]
    pub fn marks(&self) -> PathBuf {
        self.root.join("clsact")
    }

    /// The mark that says that a clsact filter of ours is there.
    #[must_use]
    pub fn mark(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.marks().join(hook_name(ifindex, hook))
    }

    /// Is nothing of an earlier daemon here: does nothing that it attached enforce any more?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [Stage::Current, Stage::Next]
            .iter()
            .all(|stage| entries(&self.maps(*stage)).is_ok_and(|maps| maps.is_empty()))
    }

    /// The host's interfaces with both programs, by their pins.
    #[must_use]
    pub fn enforced(&self) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        [self.links(), self.marks()]
            .iter()
            .flat_map(|folder| Self::hooks(folder).unwrap_or_default())
            .map(|(ifindex, _)| ifindex)
            // The second of its hooks.
            .filter(|ifindex| !is_inside(*ifindex) && !seen.insert(*ifindex))
            .collect()
    }

    /// The directory of what is known of interfaces inside other namespaces.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        self.root.join("inside")
    }

    /// What says where one of those is.
    #[must_use]
    pub fn location(&self, number: u32, location: Location) -> PathBuf {
        self.inside().join(location_name(number, location))
    }

    /// Where the interfaces inside other namespaces are, by their numbers.
    ///
    /// # Errors
    /// As below.
    pub fn locations(&self) -> Result<BTreeMap<u32, Location>, PinsError> {
        Ok(entries(&self.inside())?
            .iter()
            .filter_map(|name| parse_location_name(name))
            .collect())
    }

    /// The hooks that have an entry in [`Layout::links`] or [`Layout::marks`].
    ///
    /// # Errors
    /// What the file system says; a directory that is not there is empty.
    pub fn hooks(directory: &Path) -> Result<Vec<(u32, Hook)>, PinsError> {
        Ok(entries(directory)?
            .iter()
            .filter_map(|name| parse_hook_name(name))
            .collect())
    }

    /// Makes the directories, after seeing to it that they are on a BPF file system.
    ///
    /// # Errors
    /// See [`PinsError`].
    pub fn create(&self) -> Result<(), PinsError> {
        if !on_bpffs(&self.root)? {
            if !self.root.starts_with(BPFFS) {
                return Err(PinsError::NotBpffs(self.root.clone()));
            }
            mount_bpffs()?;
        }
        let directories = [
            self.maps(Stage::Current),
            self.links(),
            self.marks(),
            self.inside(),
        ];
        for directory in directories {
            make_directory(&directory)?;
        }
        Ok(())
    }
}

/// Makes a directory and its parents, for root alone.
pub(super) fn make_directory(path: &Path) -> Result<(), PinsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| PinsError::io(path, source))
}

/// The names in a directory; none where there is no such directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<String>, PinsError> {
    let list = match fs::read_dir(directory) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PinsError::io(directory, error)),
    };
    let mut names = list
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|source| PinsError::io(directory, source))?;
    names.sort();
    Ok(names)
}

/// Removes a file or an empty directory; one that is gone already is no error.
pub(super) fn remove(path: &Path) -> Result<bool, PinsError> {
    let is_directory = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(PinsError::io(path, error)),
    };
    let result = if is_directory {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PinsError::io(path, error)),
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn hook_name(ifindex: u32, hook: Hook) -> String {
    format!("{ifindex}-{}", hook.label())
}

fn parse_hook_name(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, label) = name.split_once('-')?;
    let hook = Hook::BOTH.into_iter().find(|hook| hook.label() == label)?;
    let ifindex = ifindex.parse().ok()?;
    // `+1` and `01` parse too, but were not written by us.
    (hook_name(ifindex, hook) == name).then_some((ifindex, hook))
}

fn location_name(number: u32, location: Location) -> String {
    format!("{number}-{}-{}", location.namespace, location.ifindex)
}

fn parse_location_name(name: &str) -> Option<(u32, Location)> {
    let mut parts = name.split('-');
    let number = parts.next()?.parse().ok().filter(|it| is_inside(*it))?;
    let location = Location {
        namespace: parts.next()?.parse().ok()?,
        ifindex: parts.next()?.parse().ok()?,
    };
    (location_name(number, location) == name).then_some((number, location))
}

/// Is the nearest ancestor that exists on a BPF file system?
pub(crate) fn on_bpffs(path: &Path) -> Result<bool, PinsError> {
    for ancestor in path.ancestors() {
        match statfs(ancestor) {
            Ok(found) => return Ok(found.filesystem_type() == BPF_FS_MAGIC),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(PinsError::io(ancestor, error.into())),
        }
    }
    Ok(false)
}

fn mount_bpffs() -> Result<(), PinsError> {
    if is_seen_here_alone(
        BPFFS,
        &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
    ) {
        return Err(PinsError::Unmounted);
    }
    nix::mount::mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .map_err(|error| match error {
        Errno::EPERM | Errno::EACCES => PinsError::Unmounted,
        error => PinsError::Mount(error),
    })
}

/// Would what is mounted at this place be seen in this mount namespace alone, and end with it? Those that a
/// service manager gives follow the host's mounts, and are not followed: `master` in proc_pid_mountinfo(5).
fn is_seen_here_alone(place: &str, mounts: &str) -> bool {
    let around = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let point = fields.next()?;
        let optional = fields.skip(1).take_while(|field| *field != "-");
        let follows = optional
            .into_iter()
            .any(|field| field.starts_with("master:"));
        Path::new(place)
            .starts_with(point)
            .then_some((point.len(), follows))
    });
    // Of two at one place, the later one is seen.
    around
        .max_by_key(|(length, _)| *length)
        .is_some_and(|(_, follows)| follows)
}

/// The right to use a pin directory: no other process has it while this value lives.
///
/// It is an flock(2) on the directory itself, so the kernel drops it however the
/// daemon ends.
#[derive(Debug)]
pub struct Lock {
    _directory: Flock<File>,
}

impl Lock {
    /// Takes the lock, or says why that fails.
    ///
    /// # Errors
    /// [`PinsError::InUse`] where another process has it, [`PinsError::Absent`] where there
    /// is no such directory.
    pub fn take(layout: &Layout) -> Result<Self, PinsError> {
        let root = layout.root();
        let directory = File::open(root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PinsError::Absent(root.to_owned()),
            _ => PinsError::io(root, error),
        })?;
        let opened = directory
            .metadata()
            .map_err(|error| PinsError::io(root, error))?;
        let lock =
            Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
                match error {
                    Errno::EWOULDBLOCK => PinsError::InUse(root.to_owned()),
                    error => PinsError::io(root, error.into()),
                }
            })?;
        // Between open and lock an uninstall may have removed the directory, and
        // another process may have made a new one: that one is not locked by this.
        let now = fs::metadata(root).map_err(|error| PinsError::io(root, error))?;
        if (now.dev(), now.ino()) != (opened.dev(), opened.ino()) {
            return Err(PinsError::InUse(root.to_owned()));
        }
        Ok(Self { _directory: lock })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_root_that_could_mean_another_directory_is_refused() {
        for root in ["bpf/netpold", "/sys/fs/bpf/../x", "/", "/sys/fs/bpf", ""] {
            assert!(Layout::new(Path::new(root)).is_err(), "{root}");
        }
        assert!(Layout::new(Path::new("/sys/fs/bpf/netpold")).is_ok());
    }

    #[test]
    fn hook_names_survive_the_round_trip_and_foreign_names_do_not() {
        for hook in Hook::BOTH {
            assert_eq!(parse_hook_name(&hook_name(17, hook)), Some((17, hook)));
        }
        for name in [
            "17",
            "17-",
            "x-ingress",
            "+1-ingress",
            "01-egress",
            "1-ingress-2",
        ] {
            assert_eq!(parse_hook_name(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_has_a_dot_which_bpffs_refuses() {
        let layout = Layout::new(Path::new("/sys/fs/bpf/netpold")).unwrap();
        for path in [
            layout.map(Stage::Next, "CONTROL"),
            layout.link(3, Hook::Ingress),
            layout.mark(3, Hook::Egress),
        ] {
            assert!(path.starts_with(layout.root()));
            assert!(!path.to_string_lossy().contains('.'), "{}", path.display());
        }
    }

    #[test]
    fn locations_survive_the_round_trip_and_foreign_names_do_not() {
        let location = Location {
            namespace: 4_026_532_567,
            ifindex: 2,
        };
        let number = netpol_abi::limits::FIRST_INSIDE + 1;
        let name = location_name(number, location);
        assert_eq!(parse_location_name(&name), Some((number, location)));
        for foreign in [
            "",
            "1-2-3",
            "2147483649-1",
            "2147483649-01-2",
            "2147483649-1-2-3",
        ] {
            assert_eq!(parse_location_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_not_a_bpf_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("netpold")).unwrap();
        assert!(matches!(layout.create(), Err(PinsError::NotBpffs(_))));
    }

    #[test]
    fn a_units_mounts_are_its_own() {
        let host = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            24 22 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
            25 22 0:22 / /sys/fs/bpfilter rw master:3 - tmpfs tmpfs rw\n";
        assert!(!is_seen_here_alone(BPFFS, host));
        let unit = host.replace("shared:7", "shared:19 master:7");
        assert!(is_seen_here_alone(BPFFS, &unit));
        let over = format!("{unit}31 24 0:21 / /sys rw - sysfs sysfs rw\n");
        assert!(!is_seen_here_alone(BPFFS, &over));
        assert!(!is_seen_here_alone(BPFFS, "") && !is_seen_here_alone(BPFFS, "1 2"));
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path()).unwrap();
        let first = Lock::take(&layout).unwrap();
        assert!(matches!(Lock::take(&layout), Err(PinsError::InUse(_))));
        drop(first);
        assert!(Lock::take(&layout).is_ok());
    }
}
