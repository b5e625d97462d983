//! The host's resolvers.
//!
//! Owns the reading of resolv.conf(5), and knows when to read it again. Docker gives
//! containers the same resolvers, from the same files. Addresses of the host itself
//! (127.0.0.53) are left out: a container that asks those asks itself. Called by
//! `reconcile`, which makes them the peer that [`netpol_engine::resolver`] describes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::watch::{Wanted, WatchError, Watcher};

/// What glibc reads.
const CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved itself asks, where the file above names only its stub. Docker reads
/// it for the same reason.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// systemd-resolved's address for the host's programs.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Far more than any resolv.conf has.
const LARGEST: u64 = 64 << 10;

/// The host's resolvers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Those that a container can ask.
    pub addresses: BTreeSet<IpAddr>,
    /// Docker's own resolver asks one that is a loopback address of the host.
    pub loopback: bool,
}

/// The host's resolvers, followed.
#[derive(Debug)]
pub struct Resolvers {
    conf: PathBuf,
    behind_stub: PathBuf,
    watcher: Watcher,
}

impl Resolvers {
    /// Those of this host. To be made inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub fn of_host() -> Result<Self, WatchError> {
        Self::follow(Path::new(CONF), Path::new(BEHIND_STUB))
    }

    fn follow(conf: &Path, behind_stub: &Path) -> Result<Self, WatchError> {
        Ok(Self {
            conf: conf.to_owned(),
            behind_stub: behind_stub.to_owned(),
            watcher: Watcher::new()?,
        })
    }

    /// What they are now. Files that are not there name none.
    pub fn read(&mut self) -> Found {
        loop {
            let mut wanted = Wanted::default();
            wanted.path(&self.conf);
            wanted.path(&self.behind_stub);
            let again = self.watcher.watch(&wanted).unwrap_or_else(|error| {
                tracing::warn!(%error, "changes of the host's resolvers are not noticed");
                false
            });
            let own = text(&self.conf);
            let (found, has_stub) = addresses(&own);
            let behind = if found.is_empty() && has_stub {
                Some(text(&self.behind_stub))
            } else {
                None
            };
            if !again {
                return Found {
                    addresses: match &behind {
                        Some(behind) => addresses(behind).0,
                        None => found,
                    },
                    loopback: asks_loopback(&own, behind.as_deref()),
                };
            }
        }
    }

    /// Returns when it is time to [`Resolvers::read`] again. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if let Err(error) = self.watcher.changed().await {
            tracing::warn!(%error, "changes of the host's resolvers are not noticed");
            std::future::pending::<()>().await;
        }
    }
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    if let Err(error) = read
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "the host's resolvers can't be read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The `nameserver`s of a resolv.conf. `fe80::1%eth0` is none: a link-local address means nothing in another namespace.
pub(super) fn nameservers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?;
        address
            .parse::<IpAddr>()
            .ok()
            .map(|address| address.to_canonical())
    };
    text.lines().filter_map(address).collect()
}

/// This resolver's address, if another network namespace can have the same one at it.
pub(super) fn askable(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!link_local && !address.is_multicast() && !is_host(address)).then_some(address)
}

/// Is it an address that every host has for itself?
const fn is_host(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// The `nameserver`s of a resolv.conf that a container can ask, and whether it names the
/// host itself.
fn addresses(text: &str) -> (BTreeSet<IpAddr>, bool) {
    let all = nameservers(text);
    let has_stub = all.iter().any(|address| is_host(*address));
    (all.into_iter().filter_map(askable).collect(), has_stub)
}

/// Does Docker's own resolver ask a loopback address of the host? It reads the file behind systemd's stub where the
/// host's names that one alone (`resolvconf.Path` of its libnetwork), and asks over IPv4 in any version.
fn asks_loopback(own: &str, behind_stub: Option<&str>) -> bool {
    let own = nameservers(own);
    let behind = behind_stub.map(nameservers).unwrap_or_default();
    let read = if own == [STUB] && !behind.is_empty() {
        behind
    } else {
        own
    };
    read.iter()
        .any(|address| address.is_ipv4() && address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nameservers_that_a_container_can_ask() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.1\nnameserver\t2001:db8::1 # x\n\
                    nameserver fe80::1%eth0\nnameserver fe80::2\nnameserver ::ffff:10.0.0.2\n\
                    nameserver nonsense\nnameserver\nsearch nameserver 1.1.1.1\noptions x\n";
        assert_eq!(
            addresses(text),
            (set(&["10.0.0.1", "2001:db8::1", "10.0.0.2"]), false)
        );
        for stub in [
            "127.0.0.53",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(
                addresses(&format!("nameserver {stub}")),
                (set(&[]), true),
                "{stub}"
            );
        }
    }

    #[test]
    fn which_resolver_docker_asks_from_the_hosts_namespace() {
        let stub = "nameserver 127.0.0.53\n";
        for (own, behind, asks) in [
            ("nameserver 10.0.0.1\n", None, false),
            ("nameserver 127.0.0.1\n", None, true),
            ("nameserver 10.0.0.1\nnameserver 127.0.0.1\n", None, true),
            (
                "nameserver 127.0.0.1\n",
                Some("nameserver 10.0.0.1\n"),
                true,
            ),
            // systemd-resolved's, and what is behind it.
            (stub, None, true),
            (stub, Some(""), true),
            (stub, Some("nameserver 10.0.0.1\n"), false),
            (stub, Some("nameserver 127.0.0.1\n"), true),
            ("nameserver ::1\n", None, false),
            ("", None, false),
        ] {
            assert_eq!(asks_loopback(own, behind), asks, "{own:?} {behind:?}");
        }
    }

    #[tokio::test]
    async fn behind_a_stub_are_those_that_it_asks_and_changes_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let (conf, behind) = (
            root.path().join("etc"),
            root.path().join("run/resolve/conf"),
        );
        let mut resolvers = Resolvers::follow(&conf, &behind).unwrap();
        assert_eq!(resolvers.read().addresses, set(&[]));
        let hint = std::time::Duration::from_secs(10);
        std::fs::create_dir_all(behind.parent().unwrap()).unwrap();
        std::fs::write(&behind, "nameserver 10.9.9.9\n").unwrap();
        tokio::time::timeout(hint, resolvers.changed())
            .await
            .unwrap();
        assert_eq!(resolvers.read().addresses, set(&[]), "no stub is named yet");
        std::os::unix::fs::symlink("other", root.path().join("new")).unwrap();
        std::fs::write(root.path().join("other"), "nameserver 127.0.0.53\n").unwrap();
        std::fs::rename(root.path().join("new"), &conf).unwrap();
        tokio::time::timeout(hint, resolvers.changed())
            .await
            .unwrap();
        assert_eq!(resolvers.read().addresses, set(&["10.9.9.9"]));
        std::fs::write(
            root.path().join("other"),
            "nameserver 10.1.1.1\nnameserver 127.0.0.1\n",
        )
        .unwrap();
        tokio::time::timeout(hint, resolvers.changed())
            .await
            .unwrap();
        let found = resolvers.read();
        assert_eq!(found.addresses, set(&["10.1.1.1"]));
        assert!(found.loopback);
    }
}
