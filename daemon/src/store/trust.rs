//! Whose word a path is: what symbolic links may lead to, and who can write what is read.
//!
//! A user who can write a manifest decides policy. So a link is followed within the manifests
//! directory and those that the operator names beside it; outside of them only to a file that
//! root alone can write, or put something else in the place of. Reads no file. Called by `scan`
//! only.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS`).
const LINKS: usize = 40;
/// Writable by the group or by every user. Where there is an ACL, the group's bits are its mask
/// (acl(5)), and show every right that it gives.
const OTHERS_WRITE: u32 = 0o022;
/// Of a directory that every user may write: only its owner and root remove or rename an
/// entry of another's.
const STICKY: u32 = 0o1000;

/// Where a link leads.
#[derive(Debug)]
pub(super) enum Reach {
    /// To something in the manifests directory, or in one that the operator names.
    Inside,
    /// To a file outside, which is root's alone.
    Roots,
    /// To nothing, now.
    Nothing(io::Error),
    /// To something outside that is not followed.
    Outside {
        target: PathBuf,
        is_folder: bool,
        why: String,
    },
}

/// The directories in which links are followed, without links themselves.
pub(super) fn roots(directory: &Path, follow: &[PathBuf]) -> Vec<PathBuf> {
    std::iter::once(directory)
        .chain(follow.iter().map(PathBuf::as_path))
        .filter_map(|root| root.canonicalize().ok())
        .collect()
}

/// Where a link in this folder leads.
pub(super) fn reach(roots: &[PathBuf], folder: &Path, link: &Path) -> Reach {
    let (target, meta) = match link.canonicalize().and_then(|target| {
        let meta = target.metadata()?;
        Ok((target, meta))
    }) {
        Ok(found) => found,
        Err(error) => return Reach::Nothing(error),
    };
    if roots.iter().any(|root| target.starts_with(root)) {
        return Reach::Inside;
    }
    let why = if meta.is_dir() {
        Err("it is outside of the manifests directory".to_owned())
    } else {
        roots_alone(folder, link)
    };
    match why {
        Ok(()) => Reach::Roots,
        Err(why) => Reach::Outside {
            target,
            is_folder: meta.is_dir(),
            why,
        },
    }
}

/// Can root alone write what the link leads to, and put something else there? Every folder and
/// every further link on the way counts. Else what stands in the way.
fn roots_alone(folder: &Path, link: &Path) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let first = link.read_link().map_err(failed)?;
    let from = folder.canonicalize().map_err(failed)?;
    let mut rest = reversed(&from.join(first));
    let mut place = PathBuf::from("/");
    let mut links = 1;
    while let Some(name) = rest.pop() {
        if name == ".." {
            place.pop();
            continue;
        }
        let shared = {
            let meta = place.symlink_metadata().map_err(failed)?;
            let shown = place.display();
            if !is_ours(&meta) {
                return Err(format!("the folder `{shown}` is not root's"));
            }
            let mode = meta.permissions().mode();
            if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
                return Err(format!("others than root can write the folder `{shown}`"));
            }
            mode & OTHERS_WRITE != 0
        };
        let next = place.join(&name);
        let meta = next.symlink_metadata().map_err(failed)?;
        let shown = next.display();
        if !is_ours(&meta) {
            return Err(format!("`{shown}` is not root's"));
        }
        // In a folder such as /tmp others can give a file of root's a second name.
        if shared && !meta.is_dir() && meta.nlink() > 1 {
            return Err(format!(
                "`{shown}` has other names, in a folder that others can write"
            ));
        }
        if meta.is_symlink() {
            links += 1;
            if links > LINKS {
                return Err("too many links".to_owned());
            }
            let target = next.read_link().map_err(failed)?;
            if target.is_absolute() {
                place = PathBuf::from("/");
            }
            rest.extend(reversed(&target));
            continue;
        }
        if rest.is_empty() {
            if !meta.is_file() {
                return Err("it is no ordinary file".to_owned());
            }
            if is_open(&meta) {
                return Err(format!("others than root can write `{shown}`"));
            }
        }
        place = next;
    }
    Ok(())
}

fn reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// Can others than root write it?
pub(super) fn is_open(meta: &Metadata) -> bool {
    !is_ours(meta) || meta.permissions().mode() & OTHERS_WRITE != 0
}

/// Root's, or that of the user netpold runs as.
fn is_ours(meta: &Metadata) -> bool {
    meta.uid() == 0 || meta.uid() == nix::unistd::geteuid().as_raw()
}

/// Folders above this one in which others than root can put another one in its place.
pub(super) fn open_above(directory: &Path) -> Vec<PathBuf> {
    let Ok(directory) = directory.canonicalize() else {
        return Vec::new();
    };
    let mut above: Vec<PathBuf> = directory
        .ancestors()
        .skip(1)
        .filter(|folder| {
            folder.metadata().is_ok_and(|meta| {
                !is_ours(&meta)
                    || (meta.permissions().mode() & OTHERS_WRITE != 0
                        && meta.permissions().mode() & STICKY == 0)
            })
        })
        .map(Path::to_owned)
        .collect();
    above.reverse();
    above
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Every way in which another could put something in a trusted file's place.
    #[test]
    fn a_file_outside_is_followed_where_it_is_roots_alone() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["m", "out", "open", "sticky"] {
            fs::create_dir(at(folder)).unwrap();
            mode(&at(folder), 0o755);
        }
        mode(root.path(), 0o755);
        for file in [
            "out/a",
            "out/writable",
            "open/a",
            "sticky/a",
            "sticky/two",
            "m/own",
        ] {
            fs::write(at(file), "x").unwrap();
            mode(&at(file), 0o644);
        }
        mode(&at("out/writable"), 0o664);
        mode(&at("open"), 0o775);
        mode(&at("sticky"), 0o1777);
        fs::hard_link(at("sticky/two"), at("sticky/second")).unwrap();
        symlink(at("out/a"), at("open/link")).unwrap();
        symlink(at("out/a"), at("out/link")).unwrap();
        symlink("../m/own", at("out/back")).unwrap();
        let roots = roots(&at("m"), &[]);
        let reach_of = |target: &str| {
            let link = at("m/link");
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
            reach(&roots, &at("m"), &link)
        };
        let whole = |name: &str| at(name).to_str().unwrap().to_owned();
        for inside in ["own", "../out/back"] {
            assert!(matches!(reach_of(inside), Reach::Inside), "{inside}");
        }
        for trusted in ["out/a", "out/link", "sticky/a"] {
            let found = reach_of(&whole(trusted));
            assert!(matches!(found, Reach::Roots), "{trusted}: {found:?}");
        }
        assert!(matches!(reach_of("../out/../out/a"), Reach::Roots));
        for (open, said) in [
            ("out/writable", "can write"),
            ("open/a", "can write the folder"),
            ("open/link", "can write the folder"),
            ("sticky/two", "has other names"),
            ("out", "outside"),
        ] {
            match reach_of(&whole(open)) {
                Reach::Outside { why, .. } => assert!(why.contains(said), "{open}: {why}"),
                other => panic!("{open}: {other:?}"),
            }
        }
        assert!(matches!(reach_of("nowhere"), Reach::Nothing(_)));
        assert!(matches!(reach_of("link"), Reach::Nothing(_)));
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(at("out/a"), Some(1000), None).unwrap();
            assert!(matches!(reach_of(&whole("out/a")), Reach::Outside { .. }));
        }
    }
}
