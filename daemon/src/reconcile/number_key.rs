//! The key under which policy sets and classes are numbered: a secret of this host, so that an author
//! of manifests can't choose two contents of one number.
//!
//! Kept in the state directory, as the tables that are pinned have numbers of it: with the
//! same key, the same policies give the same tables after a restart. Another key is safe, and costs
//! one change of all tables: the plan writes what is new beside what is there, and commits.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use netpol_engine::compile::NumberKey;

/// Its file in the state directory.
const FILE: &str = "numbers.key";
/// What only its owner may read and write.
const MODE: u32 = 0o600;

/// The key, and whether it is kept.
pub struct KeyFile {
    path: PathBuf,
    secret: [u8; 16],
    /// Why it could not be written.
    persist_error: Option<io::Error>,
}

impl KeyFile {
    /// The key that is kept below a state directory; where there is none that can be used, a new
    /// one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        match read(&path) {
            Ok(secret) => Ok(Self {
                path,
                secret,
                persist_error: None,
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(
                        "the key of the tables' numbers can't be used: `{}`: {error}: a new one takes its place, \
                         and all tables are written once more",
                        path.display()
                    );
                }
                let mut file = Self {
                    path,
                    secret: [0; 16],
                    persist_error: None,
                };
                file.renew()?;
                Ok(file)
            }
        }
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> NumberKey {
        NumberKey::new(self.secret)
    }

    /// Another key takes its place.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn renew(&mut self) -> io::Result<()> {
        getrandom::fill(&mut self.secret)?;
        self.persist_error = self.write().err();
        if let Some(warning) = self.warning() {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    /// Tries once more to keep it, where that failed.
    pub fn keep(&mut self) {
        if self.persist_error.is_some() {
            self.persist_error = self.write().err();
        }
    }

    /// What is to be said where it is not kept.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let error = self.persist_error.as_ref()?;
        Some(format!(
            "the key of the tables' numbers can't be kept: `{}`: {error}: the next start writes all tables once more",
            self.path.display()
        ))
    }

    /// As a whole: a crash leaves the file of before, or this one.
    fn write(&self) -> io::Result<()> {
        let Some(state) = self.path.parent() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)?;
        let new = self.path.with_extension("new");
        // What a crash left may have other rights.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&new)?;
        let secret = u128::from_be_bytes(self.secret);
        writeln!(file, "{secret:032x}")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(state)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<[u8; 16]> {
    let refuse = |why: &str| Err(io::Error::other(why.to_owned()));
    let file = File::options()
        .read(true)
        // A FIFO without a writer must not be waited for.
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(path)?;
    let meta: Metadata = file.metadata()?;
    if !meta.is_file() {
        return refuse("it is no file");
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return refuse("others than its owner may read or write it, so that it is no secret");
    }
    let mut text = String::new();
    file.take(64).read_to_string(&mut text)?;
    let digits = text.trim_end_matches('\n');
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u128::from_str_radix(digits, 16) {
        Ok(secret) if digits.len() == 32 && is_hex => Ok(secret.to_be_bytes()),
        _ => refuse("it is not 32 hexadecimal digits"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::Permissions;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn it_is_made_once_and_read_again() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let first = KeyFile::open(&state).unwrap();
        assert_eq!(first.warning(), None);
        assert_eq!(mode(&state.join(FILE)), MODE);
        let text = fs::read(state.join(FILE)).unwrap();
        let second = KeyFile::open(&state).unwrap();
        assert_eq!(second.secret, first.secret);
        assert_eq!(fs::read(state.join(FILE)).unwrap(), text);
        assert_eq!(
            fs::read_dir(&state).unwrap().count(),
            1,
            "nothing beside it"
        );
        let other = tempfile::tempdir().unwrap();
        assert_ne!(KeyFile::open(other.path()).unwrap().secret, first.secret);
    }

    #[test]
    fn one_that_can_t_be_used_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FILE);
        let first = KeyFile::open(root.path()).unwrap().secret;
        let text = fs::read_to_string(&path).unwrap();
        for (content, rights) in [
            (String::new(), MODE),
            (text[..31].to_owned(), MODE),
            (format!("{text}{text}"), MODE),
            (format!("+{}", &text[1..]), MODE),
            ("\u{0}".repeat(33), MODE),
            (text.clone(), 0o640),
            (text.clone(), 0o602),
        ] {
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(rights)).unwrap();
            assert!(read(&path).is_err(), "{content:?} {rights:o}");
            let made = KeyFile::open(root.path()).unwrap();
            assert_ne!(made.secret, first, "{content:?} {rights:o}");
            assert_eq!(mode(&path), MODE);
            assert_eq!(KeyFile::open(root.path()).unwrap().secret, made.secret);
        }
    }

    #[test]
    fn one_that_can_t_be_kept_is_said_until_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FILE);
        fs::create_dir(&path).unwrap();
        let mut file = KeyFile::open(root.path()).unwrap();
        let said = file.warning().unwrap();
        assert!(said.contains(&path.display().to_string()), "{said}");
        let other = KeyFile::open(root.path()).unwrap();
        assert_ne!(other.secret, file.secret);
        file.keep();
        assert!(file.warning().is_some());
        fs::remove_dir(&path).unwrap();
        file.keep();
        assert_eq!(file.warning(), None);
        assert_eq!(KeyFile::open(root.path()).unwrap().secret, file.secret);
    }
}
