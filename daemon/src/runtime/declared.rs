//! Endpoints that Pod manifests declare: network namespaces by path.
//!
//! Owns which namespaces are declared, whether each is there, and when to look again.
//! Never enters one: that is for `links`. Called by `reconcile`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use netpol_engine::manifest::{Object, Value};
use netpol_engine::policy::ObjectName;
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::watch::{Wanted, WatchError, Watcher};

/// A declared endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The Pod's name.
    pub name: ObjectName,
    /// The path of its network namespace.
    pub netns: PathBuf,
}

/// What is at a declared path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Missing,
    /// Something else than a namespace. `ip netns add` makes the file first, and mounts the
    /// namespace on it a moment later.
    NotANamespace,
    /// A namespace; the numbers tell it from the one that may be there later.
    There {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
}

/// The endpoints that these objects declare, in order.
pub fn declared<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Vec<Declared> {
    objects
        .into_iter()
        .filter_map(|object| match &object.value {
            Value::Pod(pod) => Some(Declared {
                name: pod.name.clone(),
                netns: pod.netns.clone()?,
            }),
            _ => None,
        })
        .collect()
}

/// What is at a path now.
#[must_use]
pub fn look(path: &Path) -> Presence {
    let Ok(meta) = std::fs::metadata(path) else {
        return Presence::Missing;
    };
    // Opening would wait for a FIFO's other end: only the file system is asked.
    match statfs(path) {
        Ok(system) if system.filesystem_type() == NSFS_MAGIC => Presence::There {
            device: meta.dev(),
            inode: meta.ino(),
        },
        _ => Presence::NotANamespace,
    }
}

/// Knows when a declared namespace may have come or gone.
#[derive(Debug)]
pub struct Follower {
    watcher: Watcher,
}

impl Follower {
    /// Follows nothing yet. To be made inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub fn new() -> Result<Self, WatchError> {
        Ok(Self {
            watcher: Watcher::new()?,
        })
    }

    /// Looks at each, and follows these from now on and no others.
    pub fn look(&mut self, declared: &[Declared]) -> Vec<Presence> {
        if declared.is_empty() {
            self.watcher.ignore_mounts();
        } else if let Err(error) = self.watcher.follow_mounts() {
            tracing::warn!(%error, "declared network namespaces are noticed late");
        }
        loop {
            let mut wanted = Wanted::default();
            for one in declared {
                wanted.path(&one.netns);
            }
            let again = self.watcher.watch(&wanted).unwrap_or_else(|error| {
                tracing::warn!(%error, "declared network namespaces are noticed late");
                false
            });
            let presence = declared.iter().map(|one| look(&one.netns)).collect();
            if !again {
                return presence;
            }
        }
    }

    /// Returns when it is time to [`Follower::look`]. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if let Err(error) = self.watcher.changed().await {
            tracing::warn!(%error, "declared network namespaces are not noticed");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_namespace_is_told_from_the_file_it_is_mounted_on() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ns/x");
        let one = [Declared {
            name: ObjectName::new("default", "x"),
            netns: path.clone(),
        }];
        let mut follower = Follower::new().unwrap();
        assert_eq!(follower.look(&one), [Presence::Missing]);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        let hint = std::time::Duration::from_secs(10);
        tokio::time::timeout(hint, follower.changed())
            .await
            .unwrap();
        assert_eq!(follower.look(&one), [Presence::NotANamespace]);
        assert!(matches!(
            look(Path::new("/proc/self/ns/net")),
            Presence::There { .. }
        ));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", &path).unwrap();
        tokio::time::timeout(hint, follower.changed())
            .await
            .unwrap();
        assert!(matches!(follower.look(&one)[..], [Presence::There { .. }]));
    }

    #[test]
    fn only_pods_with_a_namespace_are_declared() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {netpold.io/netns: /run/netns/a}}\n\
                    ---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n\
                    ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: c}\n";
        let file = netpol_engine::manifest::parse("x.yaml", text);
        assert!(file.is_accepted(), "{:?}", file.diagnostics);
        let found = declared(&file.documents);
        let expected = Declared {
            name: ObjectName::new("default", "a"),
            netns: "/run/netns/a".into(),
        };
        assert_eq!(found, [expected]);
    }
}
