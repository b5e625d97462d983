//! The listing of the manifests directory.
//!
//! Owns which names are manifests, how folders and symbolic links are followed, how much of it
//! all is looked at, and what must be watched so that a later listing is not missed. Reads no
//! file's content. Called by `store` only, on its own thread: a look may take as long as
//! [`Bounds::time`], and longer where the file system does not answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::trust::{self, Reach};
use super::{lease::Stamp, rule};
use crate::watch::Wanted;

/// Folders in folders, below the directory itself.
const DEEPEST: usize = 32;
/// How old a name must be before it is said that it is passed over. Editors, and tools that
/// replace files, have names of their own for moments.
pub(super) const SETTLED: Duration = Duration::from_secs(2);

/// How much is looked at. What is in force of what lies beyond stays in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Manifests. A host of 10,000 policies, one a file, is twice the largest that is measured
    /// (`daemon/engine/benches/growth`).
    pub files: usize,
    /// Folders; each takes one of the user's inotify watches, of which a small host has 8,192.
    pub folders: usize,
    /// Names of any kind.
    pub names: usize,
    /// Bytes of all manifests.
    pub bytes: u64,
    /// Time for one look.
    pub time: Duration,
}

impl Bounds {
    pub(super) const DEFAULT: Self = Self {
        files: 20_000,
        folders: 4_000,
        names: 100_000,
        bytes: 64 << 20,
        time: Duration::from_secs(10),
    };
}

/// Where manifests are, and where symbolic links may lead.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The manifests directory.
    pub directory: PathBuf,
    /// Directories outside of it that the operator names (`[manifests] follow`).
    pub follow: Vec<PathBuf>,
    pub bounds: Bounds,
}

/// Why something is not taken: a rule's code, a message, a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub rule: &'static str,
    pub why: String,
    pub help: &'static str,
}

impl Refusal {
    pub(super) fn unreadable(error: &io::Error) -> Self {
        Self {
            rule: rule::UNREADABLE,
            why: format!("can't be read: {error}"),
            help: "let it be read, or remove it to withdraw its objects",
        }
    }
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Manifests by their path below the directory: what stat(2) says of each.
    pub files: BTreeMap<String, Result<Metadata, Refusal>>,
    /// Folders below it that can't be listed, and what was not looked at: whatever was known
    /// below them is not gone. The empty path is the directory itself.
    pub unlisted: BTreeMap<PathBuf, Refusal>,
    /// Names that can't be taken, and why. They were never in force.
    pub refused: BTreeMap<PathBuf, String>,
    /// Names that are passed over, and why, where they are no moment's.
    pub passed: BTreeMap<PathBuf, &'static str>,
    /// Some such name is too new to be said.
    pub has_new: bool,
    /// Files and folders that others than root can write.
    pub writable: Vec<PathBuf>,
    /// The device that the directory itself is on.
    pub device: Option<u64>,
    /// What to watch.
    pub wanted: Wanted,
}

/// Is it the name of a manifest? Hidden files are not, and neither are the backup, lock
/// and swap files of editors: those end differently (`x.yaml~`, `.x.yaml.swp`,
/// `x.yaml.bak`), or begin with `#` (Emacs). As for kubectl, `F.YAML` is none.
#[must_use]
pub fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name)
        .extension()
        .and_then(|ending| ending.to_str());
    !name.starts_with(['.', '#', '~']) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Is it a name that editors, `sed -i` and package managers give to files that are not meant to be
/// read? Such names are passed over without a word.
fn is_by_the_way(name: &str) -> bool {
    const ENDINGS: [&str; 13] = [
        "bak", "swp", "swo", "swx", "tmp", "temp", "orig", "rej", "part", "old", "new", "save",
        "lock",
    ];
    let ending = Path::new(name).extension().and_then(|it| it.to_str());
    name.starts_with(['.', '#', '~'])
        || name.ends_with('~')
        || name.contains("___jb_")
        || ending.is_some_and(|ending| {
            ENDINGS.contains(&ending)
                || ["dpkg-", "rpm", "ucf-"].iter().any(|made| ending.starts_with(made))
        })
        // Vim's probe, and sed's copies.
        || name.bytes().all(|octet| octet.is_ascii_digit())
        || (name.len() == 9 && name.starts_with("sed") && ending.is_none())
}

/// Lists the directory, until then at the latest.
pub(super) fn list(place: &Place, deadline: Instant) -> Listing {
    let directory = &place.directory;
    let mut walk = Walk {
        roots: trust::roots(directory, &place.follow),
        bounds: &place.bounds,
        deadline,
        listing: Listing::default(),
        visited: BTreeSet::new(),
        linked: VecDeque::new(),
        names: 0,
        stopped: None,
    };
    walk.listing.wanted.path(directory);
    match std::fs::metadata(directory) {
        Ok(meta) => {
            walk.listing.device = Some(meta.dev());
            walk.listing.writable.extend(trust::open_above(directory));
            walk.visited.insert((meta.dev(), meta.ino()));
            walk.folder(directory, Path::new(""), &meta, 0);
            // Real folders before linked ones, so that a folder goes by its own name where it
            // has one here.
            while let Some((path, below, meta, depth)) = walk.linked.pop_front() {
                walk.enter(&path, &below, &meta, depth);
            }
        }
        Err(error) => {
            let why = error.to_string();
            walk.listing
                .unlisted
                .insert(PathBuf::new(), no_directory(why));
        }
    }
    if let Some(stopped) = walk.stopped {
        walk.listing.unlisted.insert(PathBuf::new(), stopped);
    }
    walk.listing
}

/// The directory is not there, or is another one.
pub(super) const fn no_directory(why: String) -> Refusal {
    Refusal {
        rule: rule::NO_DIRECTORY,
        why,
        help: "make the directory; what was in force stays until it can be read",
    }
}

/// A folder behind a symbolic link: its path, its path below the directory, what stat(2)
/// says, and how deep it is.
type Linked = (PathBuf, PathBuf, Metadata, usize);

struct Walk<'p> {
    /// The manifests directory and those that are named beside it, without links.
    roots: Vec<PathBuf>,
    bounds: &'p Bounds,
    deadline: Instant,
    listing: Listing,
    visited: BTreeSet<(u64, u64)>,
    linked: VecDeque<Linked>,
    names: usize,
    /// A bound was reached: what, and where.
    stopped: Option<Refusal>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, below: &Path, meta: &Metadata, depth: usize) {
        self.listing.wanted.directory(folder);
        self.is_open(below, meta);
        // No more than fit: a folder may have millions.
        let most = self.bounds.names.saturating_sub(self.names) + 1;
        let names = std::fs::read_dir(folder).and_then(|entries| {
            entries
                .take(most)
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<BTreeSet<_>>>()
        });
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                let refusal = Refusal {
                    rule: rule::UNREADABLE,
                    why: error.to_string(),
                    help: "let it be read; what was in force of it stays until then",
                };
                self.listing.unlisted.insert(below.to_owned(), refusal);
                return;
            }
        };
        for name in names {
            let below = below.join(&name);
            if self.is_full(&below) {
                return;
            }
            self.names += 1;
            let path = folder.join(&name);
            let Ok(own) = path.symlink_metadata() else {
                continue;
            };
            match name.to_str() {
                Some(name) if name.starts_with('.') => {}
                Some(name) => self.name(folder, &path, below, name, &own, depth),
                None if is_manifest(&name.to_string_lossy()) => {
                    self.listing
                        .refused
                        .insert(below, "its name is not UTF-8".to_owned());
                }
                None => self.pass(below, "its name is not UTF-8", &own),
            }
        }
    }

    fn name(
        &mut self,
        folder: &Path,
        path: &Path,
        below: PathBuf,
        name: &str,
        own: &Metadata,
        depth: usize,
    ) {
        let meta = if own.is_symlink() {
            match self.follow(folder, path) {
                Ok(meta) => Ok(meta),
                // What was in force below a link stays, whatever it leads to now.
                Err((refusal, true)) => {
                    self.listing.unlisted.insert(below, refusal);
                    return;
                }
                Err((refusal, false)) => Err(refusal),
            }
        } else {
            Ok(own.clone())
        };
        match meta {
            Ok(meta) if meta.is_dir() => {
                if own.is_symlink() {
                    self.linked.push_back((path.to_owned(), below, meta, depth));
                } else {
                    self.enter(path, &below, &meta, depth);
                }
            }
            meta if is_manifest(name) => match below.to_str() {
                Some(key) => {
                    if let Ok(meta) = &meta {
                        self.is_open(&below, meta);
                    }
                    self.listing.files.insert(key.to_owned(), meta);
                }
                None => {
                    self.listing
                        .refused
                        .insert(below, "the name of its folder is not UTF-8".to_owned());
                }
            },
            _ if is_by_the_way(name) => {}
            Ok(meta) if meta.is_file() => {
                self.pass(below, "its name does not end in .yaml, .yml or .json", own);
            }
            Ok(_) => self.pass(below, "it is no ordinary file", own),
            Err(_) => self.pass(below, "it is a link to nothing that is followed", own),
        }
    }

    /// What a link leads to. Else why it is not followed, and whether it leads to a folder.
    fn follow(&mut self, folder: &Path, link: &Path) -> Result<Metadata, (Refusal, bool)> {
        match trust::reach(&self.roots, folder, link) {
            Reach::Inside | Reach::Roots => {
                self.listing.wanted.path(link);
                link.metadata()
                    .map_err(|error| (Refusal::unreadable(&error), false))
            }
            // It may come: awaited where it would appear.
            Reach::Nothing(error) => {
                self.listing.wanted.path(link);
                Err((Refusal::unreadable(&error), false))
            }
            Reach::Outside {
                target,
                is_folder,
                why,
            } => Err((
                Refusal {
                    rule: rule::OUTSIDE,
                    why: format!(
                        "leads to `{}`, which is not followed: {why}",
                        target.display()
                    ),
                    help: "name the directory under `[manifests] follow`, or put the files into the manifests directory",
                },
                is_folder,
            )),
        }
    }

    fn enter(&mut self, path: &Path, below: &Path, meta: &Metadata, depth: usize) {
        // Each folder once: a link back to one that is being listed would never end, and a
        // second way to one would give every object twice.
        if self.is_full(below) || !self.visited.insert((meta.dev(), meta.ino())) {
            return;
        }
        if depth == DEEPEST {
            let refusal = Refusal {
                rule: rule::TOO_MANY,
                why: format!("more than {DEEPEST} folders deep"),
                help: "move it up; what was in force of it stays until then",
            };
            self.listing.unlisted.insert(below.to_owned(), refusal);
            return;
        }
        self.folder(path, below, meta, depth + 1);
    }

    /// Is a bound reached? What comes from here on is not looked at.
    fn is_full(&mut self, below: &Path) -> bool {
        if self.stopped.is_some() {
            return true;
        }
        let Bounds {
            files,
            folders,
            names,
            time,
            ..
        } = *self.bounds;
        let bound = if self.listing.files.len() >= files {
            format!("more than {files} manifests")
        } else if self.visited.len() > folders {
            format!("more than {folders} folders")
        } else if self.names >= names {
            format!("more than {names} names")
        } else if Instant::now() > self.deadline {
            format!("not listed within {time:?}")
        } else {
            return false;
        };
        self.stopped = Some(Refusal {
            rule: rule::TOO_MANY,
            why: format!(
                "{bound}: `{}` and what comes after it is not looked at",
                below.display()
            ),
            help: "take out what does not belong here; what was in force stays until then",
        });
        true
    }

    fn pass(&mut self, below: PathBuf, why: &'static str, own: &Metadata) {
        let now = SystemTime::now();
        let arrived = Stamp::from_metadata(own).arrived();
        // A clock that was set back makes no name new for ever.
        if arrived <= now && now.duration_since(arrived).is_ok_and(|age| age < SETTLED) {
            self.listing.has_new = true;
        } else {
            self.listing.passed.insert(below, why);
        }
    }

    fn is_open(&mut self, below: &Path, meta: &Metadata) {
        if trust::is_open(meta) {
            self.listing.writable.push(below.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(directory: &Path) -> Place {
        Place {
            directory: directory.to_owned(),
            follow: Vec::new(),
            bounds: Bounds::DEFAULT,
        }
    }

    fn bounded(place: &Place) -> Listing {
        list(place, Instant::now() + place.bounds.time)
    }

    fn list_all(directory: &Path) -> Listing {
        bounded(&place(directory))
    }

    #[test]
    fn names_of_manifests() {
        for good in ["a.yaml", "a.yml", "a.json", "a.b.yaml", "ü.yaml"] {
            assert!(is_manifest(good), "{good}");
        }
        for bad in [
            "a",
            "yaml",
            ".yaml",
            ".a.yaml",
            ".a.yaml.swp",
            "a.yaml~",
            "a.yaml.~1~",
            "#a.yaml#",
            "#a.yaml",
            ".#a.yaml",
            "4913",
            "a.yaml.bak",
            "a.yaml.swp",
            ".goutputstream-X1.yaml",
            "a.yaml.tmp",
            "a.YAML",
            "sedAbCdEf",
            "a.yaml___jb_tmp___",
            "~a.yaml",
            "a.yaml.dpkg-new",
        ] {
            assert!(!is_manifest(bad), "{bad}");
        }
    }

    /// What editors and packages leave is no news; a name that was meant is.
    #[test]
    fn names_that_are_passed_over_without_a_word() {
        for quiet in [
            ".a.yaml.swp",
            "a.yaml~",
            "a.yaml.~1~",
            "#a.yaml#",
            "4913",
            "a.yaml.bak",
            "a.yaml.tmp",
            "sedAbCdEf",
            "a.yaml___jb_tmp___",
            "a.yaml.dpkg-new",
            "a.yaml.rpmsave",
        ] {
            assert!(is_by_the_way(quiet), "{quiet}");
        }
        for loud in ["F.YAML", "x.ymal", "policy.txt", "policy", "sed.txt", "x1"] {
            assert!(!is_by_the_way(loud) && !is_manifest(loud), "{loud}");
        }
    }

    /// A link to all of the disk costs nothing: not a folder of it is listed or watched.
    #[test]
    fn a_link_out_of_the_directory_is_named_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("m");
        let beside = root.path().join("beside");
        std::fs::create_dir_all(beside.join("deep")).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(beside.join("deep/a.yaml"), "x").unwrap();
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, directory.join(name)).unwrap();
        };
        link(Path::new("/"), "disk");
        link(&beside, "beside");
        link(Path::new("../beside/deep"), "deep");
        let mut place = place(&directory);
        let listing = bounded(&place);
        assert!(listing.files.is_empty(), "{:?}", listing.files);
        let outside: Vec<_> = listing.unlisted.iter().collect();
        assert_eq!(outside.len(), 3);
        assert!(
            outside
                .iter()
                .all(|(_, refusal)| refusal.rule == rule::OUTSIDE)
        );
        let without = {
            std::fs::remove_file(directory.join("disk")).unwrap();
            std::fs::remove_file(directory.join("beside")).unwrap();
            std::fs::remove_file(directory.join("deep")).unwrap();
            bounded(&place).wanted
        };
        assert_eq!(listing.wanted, without);
        // Where the operator names it, it is.
        link(Path::new("/"), "disk");
        link(Path::new("../beside/deep"), "deep");
        place.follow = vec![beside];
        let listing = bounded(&place);
        let files: Vec<&str> = listing.files.keys().map(String::as_str).collect();
        assert_eq!(files, ["deep/a.yaml"]);
        assert_eq!(listing.unlisted.len(), 1);
    }

    /// Every bound ends the listing where it is reached, and says so.
    #[test]
    fn each_bound_is_named() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["a", "b", "c"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
            for file in ["1.yaml", "2.yaml"] {
                std::fs::write(root.path().join(folder).join(file), "x").unwrap();
            }
        }
        let all = Bounds::DEFAULT;
        let (files, folders, names) = (all.files, all.folders, all.names);
        for (bounds, said) in [
            (
                Bounds { files: 3, ..all },
                "more than 3 manifests: `b/2.yaml`",
            ),
            (
                Bounds { folders: 2, ..all },
                "more than 2 folders: `b/1.yaml`",
            ),
            (Bounds { names: 4, ..all }, "more than 4 names: `b`"),
            (
                Bounds {
                    time: Duration::ZERO,
                    ..all
                },
                "not listed within 0ns: `a`",
            ),
        ] {
            let mut place = place(root.path());
            place.bounds = bounds;
            let listing = bounded(&place);
            let refusal = &listing.unlisted[Path::new("")];
            assert_eq!(refusal.rule, rule::TOO_MANY);
            assert!(refusal.why.starts_with(said), "{}", refusal.why);
            assert_eq!(listing.unlisted.len(), 1);
        }
        let most = Bounds {
            files,
            folders,
            names,
            ..all
        };
        let mut place = place(root.path());
        place.bounds = most;
        let listing = bounded(&place);
        assert_eq!((listing.files.len(), listing.unlisted.len()), (6, 0));
    }

    #[test]
    fn folders_links_and_circles() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["sub/deep", ".git", "..v1", "elsewhere"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [
            "a.yaml",
            "sub/deep/b.yml",
            ".git/c.yaml",
            "..v1/d.yaml",
            "notes.txt",
        ] {
            std::fs::write(at(file), "x").unwrap();
        }
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, at(name)).unwrap();
        link("..v1", "..data");
        link("..data/d.yaml", "d.yaml");
        link(".", "circle");
        link("sub", "also-sub");
        link("nowhere", "dangling.yaml");
        let listing = list_all(root.path());
        let files: Vec<&str> = listing.files.keys().map(String::as_str).collect();
        assert_eq!(
            files,
            ["a.yaml", "d.yaml", "dangling.yaml", "sub/deep/b.yml"]
        );
        assert!(listing.files["dangling.yaml"].is_err());
        assert!(listing.unlisted.is_empty() && listing.refused.is_empty());
    }

    #[test]
    fn a_missing_directory_is_not_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let listing = list_all(&root.path().join("none"));
        assert!(listing.unlisted.contains_key(Path::new("")));
    }

    #[test]
    fn depth_has_an_end() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        for _ in 0..=DEEPEST {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(list_all(root.path()).unlisted.len(), 1);
    }
}
