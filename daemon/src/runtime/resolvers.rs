//! The host's resolvers.
//!
//! Owns the reading of resolv.conf(5), and knows when to read it again. Docker gives
//! containers the same resolvers, from the same files. Addresses of the host itself
//! (127.0.0.53) are left out: a container that asks those asks itself. Called by
//! `reconcile`, which makes them the peer that [`netpol_engine::resolver`] describes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
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
    /// When this host has booted, by its clock.
    booted: SystemTime,
    /// The file named the stub alone when it was read, now or before.
    has_named_stub: bool,
    /// The file named something else when it was read, now or before.
    has_named_others: bool,
    watcher: Watcher,
}

/// What the running dockerd may read. It decides once, when it starts, between the host's file and the one behind
/// systemd's stub, and keeps to that whatever becomes of the files (`resolvconf.Path` of its libnetwork).
#[derive(Clone, Copy, Debug)]
struct Read {
    own: bool,
    behind_stub: bool,
}

impl Resolvers {
    /// Those of this host. To be made inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub fn of_host() -> Result<Self, WatchError> {
        Self::follow(Path::new(CONF), Path::new(BEHIND_STUB), booted())
    }

    fn follow(conf: &Path, behind_stub: &Path, booted: SystemTime) -> Result<Self, WatchError> {
        Ok(Self {
            conf: conf.to_owned(),
            behind_stub: behind_stub.to_owned(),
            booted,
            has_named_stub: false,
            has_named_others: false,
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
            let own = nameservers(&text(&self.conf));
            let behind = nameservers(&text(&self.behind_stub));
            if again {
                continue;
            }
            let names_stub = own == [STUB];
            self.has_named_stub |= names_stub;
            self.has_named_others |= !names_stub;
            let read = Read {
                own: self.has_named_others || self.changed_since_boot(),
                behind_stub: self.has_named_stub,
            };
            return found(&own, &behind, read);
        }
    }

    /// Did the host's file become what it is after this boot? The running dockerd may have started before that.
    fn changed_since_boot(&self) -> bool {
        let metadata = fs::symlink_metadata(&self.conf);
        metadata.is_ok_and(|metadata| {
            let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
            UNIX_EPOCH + Duration::from_secs(changed) >= self.booted
        })
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
pub(crate) fn nameservers(text: &str) -> Vec<IpAddr> {
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

/// What these files, the host's and the one behind systemd's stub, come to for containers.
fn found(own: &[IpAddr], behind_stub: &[IpAddr], read: Read) -> Found {
    let askable = |all: &[IpAddr]| -> BTreeSet<IpAddr> {
        all.iter().filter_map(|address| askable(*address)).collect()
    };
    // Docker's own resolver asks over IPv4 in any version.
    let has_loopback = |all: &[IpAddr]| {
        all.iter()
            .any(|address| address.is_ipv4() && address.is_loopback())
    };
    let mut addresses = askable(own);
    // Containers are given what is behind a stub of any kind, as the stub itself leads nowhere there.
    if read.behind_stub || (addresses.is_empty() && own.iter().any(|address| is_host(*address))) {
        addresses.extend(askable(behind_stub));
    }
    // Where it is not certain which file dockerd reads, a question is judged at the container's loopback interface and, if
    // the engine asks from there, at its other interface as well.
    let own_leads_to_host = has_loopback(own) && (read.own || behind_stub.is_empty());
    Found {
        addresses,
        loopback: own_leads_to_host || (read.behind_stub && has_loopback(behind_stub)),
    }
}

/// When this host has booted, by its clock.
fn booted() -> SystemTime {
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    // Without that clock every change counts as one of this boot.
    up.ok()
        .and_then(|up| SystemTime::now().checked_sub(up))
        .unwrap_or(UNIX_EPOCH)
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
        let addresses = |text: &str| found(&nameservers(text), &[], ONLY_OWN).addresses;
        assert_eq!(
            addresses(text),
            set(&["10.0.0.1", "2001:db8::1", "10.0.0.2"])
        );
        for stub in [
            "127.0.0.53",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(addresses(&format!("nameserver {stub}")), set(&[]), "{stub}");
        }
    }

    const ONLY_OWN: Read = Read {
        own: true,
        behind_stub: false,
    };

    #[test]
    fn which_resolver_docker_asks_from_the_hosts_namespace() {
        let only_behind = Read {
            own: false,
            behind_stub: true,
        };
        let either = Read {
            own: true,
            behind_stub: true,
        };
        let stub = "nameserver 127.0.0.53\n";
        for (own, behind, read, asks) in [
            ("nameserver 10.0.0.1\n", "", ONLY_OWN, false),
            ("nameserver 127.0.0.1\n", "", ONLY_OWN, true),
            (
                "nameserver 10.0.0.1\nnameserver 127.0.0.1\n",
                "",
                ONLY_OWN,
                true,
            ),
            (
                "nameserver 127.0.0.1\n",
                "nameserver 10.0.0.1\n",
                ONLY_OWN,
                true,
            ),
            // systemd-resolved's, and what is behind it.
            (stub, "", only_behind, true),
            (stub, "nameserver 10.0.0.1\n", only_behind, false),
            (stub, "nameserver 127.0.0.1\n", only_behind, true),
            // dockerd may have started before the stub was named, or before it no longer was.
            (stub, "nameserver 10.0.0.1\n", either, true),
            (
                "nameserver 10.0.0.1\n",
                "nameserver 127.0.0.1\n",
                either,
                true,
            ),
            (
                "nameserver 10.0.0.1\n",
                "nameserver 10.0.0.2\n",
                either,
                false,
            ),
            ("nameserver ::1\n", "", ONLY_OWN, false),
            ("", "", ONLY_OWN, false),
        ] {
            let found = found(&nameservers(own), &nameservers(behind), read);
            assert_eq!(found.loopback, asks, "{own:?} {behind:?} {read:?}");
        }
    }

    /// Each line of a history is what the host's file names, from a boot on.
    #[tokio::test]
    async fn a_change_of_the_hosts_file_leaves_it_open_which_one_dockerd_reads() {
        let root = tempfile::tempdir().unwrap();
        let (conf, behind) = (root.path().join("etc"), root.path().join("behind"));
        let (stub, other) = ("nameserver 127.0.0.53\n", "nameserver 10.0.0.1\n");
        fs::write(&behind, "nameserver 10.9.9.9\n").unwrap();
        fs::write(&conf, stub).unwrap();
        let hour = Duration::from_secs(3600);
        let (before, after) = (SystemTime::now() - hour, SystemTime::now() + hour);
        let follow = |booted| Resolvers::follow(&conf, &behind, booted).unwrap();
        let (behind_it, both) = (set(&["10.9.9.9"]), set(&["10.0.0.1", "10.9.9.9"]));
        // It has been so since before the boot.
        let mut resolvers = follow(after);
        let found = resolvers.read();
        assert_eq!((&found.addresses, found.loopback), (&behind_it, false));
        // The stub goes, and comes back.
        fs::write(&conf, other).unwrap();
        let found = resolvers.read();
        assert_eq!((&found.addresses, found.loopback), (&both, false));
        fs::write(&conf, stub).unwrap();
        let found = resolvers.read();
        assert_eq!((&found.addresses, found.loopback), (&behind_it, true));
        // A daemon that has not seen it change goes by the time of the change.
        let found = follow(before).read();
        assert_eq!((&found.addresses, found.loopback), (&behind_it, true));
    }

    #[tokio::test]
    async fn behind_a_stub_are_those_that_it_asks_and_changes_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let (conf, behind) = (
            root.path().join("etc"),
            root.path().join("run/resolve/conf"),
        );
        let mut resolvers = Resolvers::follow(&conf, &behind, SystemTime::now()).unwrap();
        assert_eq!(resolvers.read().addresses, set(&[]));
        let hint = Duration::from_secs(10);
        fs::create_dir_all(behind.parent().unwrap()).unwrap();
        fs::write(&behind, "nameserver 10.9.9.9\n").unwrap();
        tokio::time::timeout(hint, resolvers.changed())
            .await
            .unwrap();
        assert_eq!(resolvers.read().addresses, set(&[]), "no stub is named yet");
        std::os::unix::fs::symlink("other", root.path().join("new")).unwrap();
        fs::write(root.path().join("other"), "nameserver 127.0.0.53\n").unwrap();
        fs::rename(root.path().join("new"), &conf).unwrap();
        tokio::time::timeout(hint, resolvers.changed())
            .await
            .unwrap();
        assert_eq!(resolvers.read().addresses, set(&["10.9.9.9"]));
        fs::write(
            root.path().join("other"),
            "nameserver 10.1.1.1\nnameserver 127.0.0.1\n",
        )
        .unwrap();
        tokio::time::timeout(hint, resolvers.changed())
            .await
            .unwrap();
        let found = resolvers.read();
        // dockerd may have started with the stub, and may have started now.
        assert_eq!(found.addresses, set(&["10.1.1.1", "10.9.9.9"]));
        assert!(found.loopback);
    }
}
