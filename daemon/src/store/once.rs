//! The manifests of a directory for a caller that reads them once, without a store: the verbs that work offline. Found as the
//! store finds them, by the same names, links and bounds, so that what is checked is what would be enforced. A store
//! keeps what was in force where something can't be read; here there is nothing to keep, so it is an error.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use thiserror::Error;

use super::rule;
use super::scan::{self, Bounds, Place};

/// What stands in the way, at most so many: the rest is of one kind with it.
const MOST_SAID: usize = 10;

/// Why a directory's manifests are not known.
#[derive(Debug, Error)]
pub struct NotListed {
    problems: Vec<String>,
}

impl fmt::Display for NotListed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.problems.iter().take(MOST_SAID);
        f.write_str(&said.cloned().collect::<Vec<_>>().join("\n"))?;
        match self.problems.len().saturating_sub(MOST_SAID) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// The manifests below a directory, sorted. `follow`: directories outside of it to which links may lead.
///
/// # Errors
/// Something can't be read, is a link to elsewhere, or there is more than netpold takes.
pub fn manifests(directory: &Path, follow: &[PathBuf]) -> Result<Vec<PathBuf>, NotListed> {
    bounded(&Place {
        directory: directory.to_owned(),
        follow: follow.to_vec(),
        bounds: Bounds::DEFAULT,
    })
}

fn bounded(place: &Place) -> Result<Vec<PathBuf>, NotListed> {
    let listing = scan::list(place, Instant::now() + place.bounds.time);
    let mut problems = Vec::new();
    let mut problem = |below: &Path, why: &str, help: &str| {
        let path = place.directory.join(below);
        // Joined with nothing, it would end in a slash.
        let path = match below.as_os_str().is_empty() {
            true => place.directory.as_path(),
            false => &path,
        };
        problems.push(format!("`{}`: {why}\nhelp: {help}", path.display()));
    };
    for (below, refusal) in &listing.unlisted {
        problem(below, &refusal.why, help(refusal.rule));
    }
    for (below, why) in &listing.refused {
        problem(below, why, "give it a name that is");
    }
    let mut found = BTreeSet::new();
    let mut octets = 0_u64;
    for (key, meta) in &listing.files {
        match meta {
            Err(refusal) => problem(Path::new(key), &refusal.why, help(refusal.rule)),
            // Opening a pipe would wait for its other end.
            Ok(meta) if !meta.is_file() => {
                problem(
                    Path::new(key),
                    "it is no ordinary file",
                    "remove it, or give it another name",
                );
            }
            Ok(meta) => {
                octets = octets.saturating_add(meta.len());
                found.insert(place.directory.join(key));
            }
        }
    }
    if octets > place.bounds.bytes {
        let why = format!("more than {} bytes of manifests in all", place.bounds.bytes);
        problem(Path::new(""), &why, help(rule::TOO_MANY));
    }
    match problems.is_empty() {
        true => Ok(found.into_iter().collect()),
        false => Err(NotListed { problems }),
    }
}

/// What to do about it where no store is.
fn help(rule: &str) -> &'static str {
    match rule {
        rule::OUTSIDE => {
            "put the files into the directory, or ask the netpold whose `[manifests] follow` names the place: without --manifests"
        }
        rule::TOO_MANY => "take out what does not belong here: netpold would not take it either",
        rule::NO_DIRECTORY => "name a directory of manifests, or one file",
        _ => "let it be read, or remove it",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn said(found: Result<Vec<PathBuf>, NotListed>) -> String {
        found.unwrap_err().to_string()
    }

    #[test]
    fn links_are_followed_as_the_store_follows_them() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["m/inner", "other"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [
            "m/a.yaml",
            "m/inner/b.yaml",
            "m/.hidden.yaml",
            "other/c.yaml",
        ] {
            fs::write(at(file), "").unwrap();
        }
        symlink("inner", at("m/again")).unwrap();
        symlink("..", at("m/inner/up")).unwrap();
        let own = [at("m/a.yaml"), at("m/inner/b.yaml")];
        assert_eq!(manifests(&at("m"), &[]).unwrap(), own);
        symlink(at("other"), at("m/out")).unwrap();
        let text = said(manifests(&at("m"), &[]));
        let link = format!(
            "`{}`: leads to `{}`",
            at("m/out").display(),
            at("other").display()
        );
        assert!(
            text.starts_with(&link) && text.contains("\nhelp: put the files"),
            "{text}"
        );
        let followed = manifests(&at("m"), &[at("other")]).unwrap();
        assert_eq!(followed, [&own[..], &[at("m/out/c.yaml")]].concat());
        fs::remove_file(at("m/out")).unwrap();
        symlink("nowhere", at("m/gone.yaml")).unwrap();
        let text = said(manifests(&at("m"), &[]));
        assert!(text.contains("m/gone.yaml`: can't be read"), "{text}");
    }

    #[test]
    fn there_is_an_end_to_it() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.yaml", "b.yaml"] {
            fs::write(root.path().join(name), "12345").unwrap();
        }
        let mut place = Place {
            directory: root.path().to_owned(),
            follow: Vec::new(),
            bounds: Bounds::DEFAULT,
        };
        place.bounds.bytes = 10;
        assert_eq!(bounded(&place).unwrap().len(), 2);
        place.bounds.bytes = 9;
        let text = said(bounded(&place));
        assert!(text.contains("more than 9 bytes"), "{text}");
        place.bounds = Bounds::DEFAULT;
        place.bounds.files = 1;
        let text = said(bounded(&place));
        assert!(text.contains("more than 1 manifests"), "{text}");
        // The whole disk.
        place.bounds = Bounds::DEFAULT;
        symlink("/", root.path().join("all")).unwrap();
        let text = said(bounded(&place));
        assert!(
            text.contains("leads to `/`, which is not followed"),
            "{text}"
        );
        fs::remove_file(root.path().join("all")).unwrap();
        nix::unistd::mkfifo(&root.path().join("p.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = said(bounded(&place));
        assert!(text.contains("it is no ordinary file"), "{text}");
        let none = said(manifests(&root.path().join("none"), &[]));
        assert!(none.contains("name a directory of manifests"), "{none}");
    }
}
