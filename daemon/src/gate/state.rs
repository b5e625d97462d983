//! What the gate leaves in the state directory: that it is installed, in which boot; that netpold has let
//! an interface through in this one; and which bridges and names of veths are engines', so that it has them at the next
//! boot before netpold runs.
//!
//! Plain files: the first is `netpol gate`'s, the others are netpold's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::rules::may_be_added;
use super::veths::VethNaming;

/// The boot in which it was installed.
const INSTALLED: &str = "gate-installed";
/// The boot in which netpold let an interface through.
const FOLLOWED: &str = "gate-followed";
/// Bridges, one a line; behind it the socket of its engine, but of the first one, or of none.
const BRIDGES: &str = "gate-bridges";
/// Namings of veths that containers were seen behind, one a line.
const NAMINGS: &str = "gate-namings";

/// A bridge, and the socket of its engine; `None`: the first engine's, or no engine that speaks Docker's API has
/// named it.
pub type RememberedBridge = (String, Option<PathBuf>);

/// The gate's files in the state directory.
#[derive(Clone, Debug)]
pub struct GateState {
    directory: PathBuf,
}

impl GateState {
    /// Those of a state directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Was the gate installed since this host has booted, and not released?
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.is_of_this_boot(INSTALLED)
    }

    /// Did netpold let an interface through since this host has booted? Before that, those interfaces pass that were
    /// there when it was installed.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.is_of_this_boot(FOLLOWED)
    }

    /// Keeps that it did.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn followed(&self) -> io::Result<()> {
        self.write(FOLLOWED, &format!("{}\n", boot().unwrap_or_default()))
    }

    fn is_of_this_boot(&self, name: &str) -> bool {
        let read = fs::read_to_string(self.directory.join(name));
        boot().is_some_and(|boot| read.is_ok_and(|text| text.trim() == boot))
    }

    /// Was it in use in this boot or an earlier one? Not only whether it is installed: a shutdown releases it.
    #[must_use]
    pub fn was_in_use(&self) -> bool {
        [INSTALLED, FOLLOWED]
            .iter()
            .any(|name| self.directory.join(name).exists())
    }

    /// There is to be none.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn unwanted(&self) -> io::Result<()> {
        remove(&self.directory.join(FOLLOWED)).map(|_| ())
    }

    /// Keeps that it is.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn installed(&self) -> io::Result<()> {
        // Without a boot's name nothing is restored later, and the gate is there all the same.
        self.write(INSTALLED, &format!("{}\n", boot().unwrap_or_default()))
    }

    /// The bridges; what can't be one is passed over.
    #[must_use]
    pub fn bridges(&self) -> BTreeSet<String> {
        let all = self.bridges_by_engine().into_iter();
        all.map(|(name, _)| name).collect()
    }

    /// The bridges, each with the socket of its engine where that is kept.
    #[must_use]
    pub fn bridges_by_engine(&self) -> BTreeSet<RememberedBridge> {
        let text = fs::read_to_string(self.directory.join(BRIDGES)).unwrap_or_default();
        let lines = text.lines().map(|line| match line.split_once(' ') {
            Some((name, socket)) if socket.starts_with('/') => (name, Some(PathBuf::from(socket))),
            _ => (line, None),
        });
        let names = lines.filter(|(name, _)| may_be_added(name));
        names.map(|(name, of)| (name.to_owned(), of)).collect()
    }

    /// Keeps the bridges.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_bridges(&self, bridges: &BTreeSet<RememberedBridge>) -> io::Result<()> {
        if bridges.is_empty() {
            return remove(&self.directory.join(BRIDGES)).map(|_| ());
        }
        let line = |(name, of): &RememberedBridge| match of {
            // A line has one bridge, whatever a path has.
            Some(of) if !of.to_string_lossy().contains('\n') => {
                format!("{name} {}\n", of.display())
            }
            _ => format!("{name}\n"),
        };
        let text: String = bridges.iter().map(line).collect();
        self.write(BRIDGES, &text)
    }

    /// The namings; words that are none are passed over.
    #[must_use]
    pub fn namings(&self) -> BTreeSet<VethNaming> {
        let text = fs::read_to_string(self.directory.join(NAMINGS)).unwrap_or_default();
        text.lines().filter_map(VethNaming::from_word).collect()
    }

    /// Keeps the namings.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_namings(&self, namings: &BTreeSet<VethNaming>) -> io::Result<()> {
        if namings.is_empty() {
            return remove(&self.directory.join(NAMINGS)).map(|_| ());
        }
        let lines = namings.iter().map(|naming| format!("{}\n", naming.word()));
        self.write(NAMINGS, &lines.collect::<String>())
    }

    /// It is no longer installed.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn released(&self) -> io::Result<bool> {
        remove(&self.directory.join(INSTALLED))
    }

    /// Removes all of it, and gives what was there.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn forget(&self) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for name in [INSTALLED, FOLLOWED, BRIDGES, NAMINGS] {
            let path = self.directory.join(name);
            if remove(&path)? {
                removed.push(path);
            }
        }
        Ok(removed)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let new = self.directory.join(format!(".{name}"));
        fs::write(&new, text)?;
        fs::rename(&new, self.directory.join(name))
    }
}

fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells this boot from others.
fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_installation_counts_for_its_boot_and_bridges_for_longer() {
        let root = tempfile::tempdir().unwrap();
        let kept = GateState::at(&root.path().join("state"));
        assert!(!kept.is_installed() && kept.bridges().is_empty());
        kept.installed().unwrap();
        let podman = Some(PathBuf::from("/run/podman/podman.sock"));
        let bridges: BTreeSet<RememberedBridge> =
            [("shop".to_owned(), None), ("web".to_owned(), podman)].into();
        kept.keep_bridges(&bridges).unwrap();
        kept.keep_namings(&[VethNaming::Cni].into()).unwrap();
        assert!(kept.is_installed());
        assert_eq!(kept.bridges_by_engine(), bridges);
        assert_eq!(kept.bridges(), ["shop".to_owned(), "web".to_owned()].into());
        fs::write(root.path().join("state/gate-installed"), "another\n").unwrap();
        fs::write(
            root.path().join("state/gate-bridges"),
            "a b\nvirbr0\nshop\n",
        )
        .unwrap();
        assert!(!kept.is_installed() && kept.was_in_use());
        assert_eq!(kept.bridges(), ["shop".to_owned()].into());
        assert_eq!(kept.namings(), [VethNaming::Cni].into());
        assert!(!kept.is_followed());
        kept.followed().unwrap();
        assert!(kept.is_followed());
        // As at a shutdown.
        kept.released().unwrap();
        assert!(!kept.is_installed() && kept.was_in_use());
        kept.unwanted().unwrap();
        assert!(!kept.was_in_use());
        kept.installed().unwrap();
        kept.followed().unwrap();
        assert_eq!(kept.forget().unwrap().len(), 4);
        assert!(kept.forget().unwrap().is_empty());
    }
}
