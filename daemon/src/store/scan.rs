//! The listing of the manifests directory.
//!
//! Owns which names are manifests, how folders and symbolic links are followed, and
//! what must be watched so that a later listing is not missed. Reads no file's
//! content. Called by `store` only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::watch::Wanted;

/// Folders in folders, below the directory itself.
const DEEPEST: usize = 32;

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Manifests by their path below the directory: what stat(2) says of each.
    pub files: BTreeMap<String, io::Result<Metadata>>,
    /// Folders below it that can't be listed, and what was not looked at: whatever was known
    /// below them is not gone. The empty path is the directory itself.
    pub unlisted: BTreeMap<PathBuf, String>,
    /// Names that can't be taken, and why. They were never in force.
    pub refused: BTreeMap<PathBuf, String>,
    /// The device that the directory itself is on.
    pub device: Option<u64>,
    /// What to watch.
    pub wanted: Wanted,
}

/// Is it the name of a manifest? Hidden files are not, and neither are the backup, lock
/// and swap files of editors: those end differently (`x.yaml~`, `.x.yaml.swp`,
/// `x.yaml.bak`), or begin with `#` (Emacs).
#[must_use]
pub fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name)
        .extension()
        .and_then(|ending| ending.to_str());
    !name.starts_with(['.', '#', '~']) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Lists the directory.
pub(super) fn list(directory: &Path) -> Listing {
    let mut listing = Listing::default();
    listing.wanted.path(directory);
    match std::fs::metadata(directory) {
        Ok(meta) => {
            listing.device = Some(meta.dev());
            let mut visited = BTreeSet::from([(meta.dev(), meta.ino())]);
            let mut linked = VecDeque::new();
            listing.folder(directory, Path::new(""), &mut visited, &mut linked, 0);
            // Real folders before linked ones, so that a folder goes by its own name where it
            // has one here.
            while let Some((path, below, meta, depth)) = linked.pop_front() {
                listing.enter(&path, &below, &meta, &mut visited, &mut linked, depth);
            }
        }
        Err(error) => {
            listing.unlisted.insert(PathBuf::new(), error.to_string());
        }
    }
    listing
}

/// A folder behind a symbolic link: its path, its path below the directory, what stat(2)
/// says, and how deep it is.
type Linked = (PathBuf, PathBuf, Metadata, usize);

impl Listing {
    fn folder(
        &mut self,
        folder: &Path,
        below: &Path,
        visited: &mut BTreeSet<(u64, u64)>,
        linked: &mut VecDeque<Linked>,
        depth: usize,
    ) {
        self.wanted.directory(folder);
        let names = std::fs::read_dir(folder).and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<BTreeSet<_>>>()
        });
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                self.unlisted.insert(below.to_owned(), error.to_string());
                return;
            }
        };
        for name in names {
            let path = folder.join(&name);
            let below = below.join(&name);
            let Ok(own) = path.symlink_metadata() else {
                continue;
            };
            let Some(name) = name.to_str() else {
                if is_manifest(&name.to_string_lossy()) {
                    self.refused
                        .insert(below, "its name is not UTF-8".to_owned());
                }
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            if own.is_symlink() {
                self.wanted.path(&path);
            }
            let meta = if own.is_symlink() {
                path.metadata()
            } else {
                Ok(own.clone())
            };
            match meta {
                Ok(meta) if meta.is_dir() => {
                    if own.is_symlink() {
                        linked.push_back((path, below, meta, depth));
                    } else {
                        self.enter(&path, &below, &meta, visited, linked, depth);
                    }
                }
                meta if is_manifest(name) => match below.to_str() {
                    Some(below) => {
                        self.files.insert(below.to_owned(), meta);
                    }
                    None => {
                        self.refused
                            .insert(below, "the name of its folder is not UTF-8".to_owned());
                    }
                },
                _ => {}
            }
        }
    }

    fn enter(
        &mut self,
        path: &Path,
        below: &Path,
        meta: &Metadata,
        visited: &mut BTreeSet<(u64, u64)>,
        linked: &mut VecDeque<Linked>,
        depth: usize,
    ) {
        // Each folder once: a link back to one that is being listed would never end, and a
        // second way to one would give every object twice.
        if !visited.insert((meta.dev(), meta.ino())) {
            return;
        }
        if depth == DEEPEST {
            self.unlisted.insert(
                below.to_owned(),
                format!("more than {DEEPEST} folders deep"),
            );
            return;
        }
        self.folder(path, below, visited, linked, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        let listing = list(root.path());
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
        let listing = list(&root.path().join("none"));
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
        assert_eq!(list(root.path()).unlisted.len(), 1);
    }
}
