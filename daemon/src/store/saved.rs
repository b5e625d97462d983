//! The last accepted manifests on disk, so that they stay in force over a restart.
//!
//! Owns the files below the state directory: one a manifest, named by its order,
//! replaced as a whole (a new file, synced, renamed), so that a crash leaves the old
//! version or the new. Never interprets a manifest. Called by `store` only.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use netpol_engine::manifest::Object;
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

/// The form of a record; another number is not read.
const FORM: u32 = 1;

/// So many files are synced each for itself; more, with all of their file system, which may
/// hold much that is not ours.
const ONE_BY_ONE: usize = 4;

/// One accepted version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    form: u32,
    /// Its path below the manifests directory.
    pub path: String,
    /// When its file was first accepted, relative to others.
    pub order: u64,
    /// Since when each of its objects is in force, in milliseconds since 1970.
    pub since_ms: Vec<u64>,
    /// Its content.
    pub text: String,
    /// Its objects, as the version that accepted it understood them. Of another shape than this
    /// version's, they are as good as not there.
    #[serde(default)]
    objects: serde_json::Value,
}

impl Record {
    pub(super) fn new(
        path: String,
        order: u64,
        since_ms: Vec<u64>,
        text: String,
        objects: &[Object],
    ) -> Self {
        Self {
            form: FORM,
            path,
            order,
            since_ms,
            text,
            objects: serde_json::to_value(objects).unwrap_or_default(),
        }
    }

    /// Its objects as they were accepted, where there are any.
    pub(super) fn objects(&self) -> Option<Vec<Object>> {
        let objects = Vec::<Object>::deserialize(&self.objects).ok()?;
        (!objects.is_empty()).then_some(objects)
    }
}

/// Why nothing could be saved or read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct SavedError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The directory of the records.
#[derive(Debug)]
pub(super) struct Saved {
    directory: PathBuf,
}

impl Saved {
    /// The records below a state directory. Nothing is made before something is saved.
    pub(super) fn below(state: &Path) -> Self {
        Self {
            directory: state.join("accepted"),
        }
    }

    /// All records in their order, and what could not be read.
    pub(super) fn read(&self) -> (Vec<Record>, Vec<SavedError>) {
        let mut records = Vec::new();
        let mut failed = Vec::new();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (records, failed),
            Err(error) => return (records, vec![at(&self.directory)(error)]),
        };
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    failed.push(at(&self.directory)(error));
                    continue;
                }
            };
            // A temporary file is what a crash left of a version that was never accepted.
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let record = fs::read(&path).and_then(|bytes| {
                let record: Record = serde_json::from_slice(&bytes)?;
                if record.form == FORM && path == self.path(record.order) {
                    Ok(record)
                } else {
                    Err(io::Error::other("not a record that this version can read"))
                }
            });
            match record {
                Ok(record) => records.push(record),
                Err(error) => failed.push(at(&path)(error)),
            }
        }
        records.sort_by_key(|record| record.order);
        (records, failed)
    }

    /// Saves versions, each in the place of the one with its order. After an error none of
    /// them counts as saved.
    ///
    /// However many they are, the disk is waited for a few times only: three thousand
    /// manifests, synced one by one, would hold up everything else for twenty seconds.
    pub(super) fn save(&self, records: &[Record]) -> Result<(), SavedError> {
        if records.is_empty() {
            return Ok(());
        }
        let directory = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .and_then(|()| File::open(&self.directory))
            .map_err(at(&self.directory))?;
        for record in records {
            let file = self.write(record).map_err(at(&self.path(record.order)))?;
            if records.len() <= ONE_BY_ONE {
                file.sync_all().map_err(at(&self.path(record.order)))?;
            }
        }
        if records.len() > ONE_BY_ONE {
            syncfs(&directory).map_err(|error| at(&self.directory)(error.into()))?;
        }
        for record in records {
            let path = self.path(record.order);
            fs::rename(path.with_extension("new"), &path).map_err(at(&path))?;
        }
        directory.sync_all().map_err(at(&self.directory))
    }

    /// Writes a version beside its place.
    fn write(&self, record: &Record) -> io::Result<File> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(record.order).with_extension("new"))?;
        file.write_all(&serde_json::to_vec(record)?)?;
        Ok(file)
    }

    /// Forgets the version of this order.
    pub(super) fn remove(&self, order: u64) -> Result<(), SavedError> {
        let path = self.path(order);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, order: u64) -> PathBuf {
        self.directory.join(format!("{order:012}.json"))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SavedError + use<> {
    let path = path.to_owned();
    move |source| SavedError { path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_saved_is_read_again_in_order() {
        let state = tempfile::tempdir().unwrap();
        let saved = Saved::below(&state.path().join("new"));
        assert!(saved.read().0.is_empty());
        let record = |order, text: &str| {
            Record::new(
                format!("{order}.yaml"),
                order,
                vec![7],
                text.to_owned(),
                &[],
            )
        };
        saved.save(&[record(11, "b")]).unwrap();
        saved.save(&[record(2, "old")]).unwrap();
        saved.save(&[record(2, "a")]).unwrap();
        saved.save(&[record(3, "gone")]).unwrap();
        saved.remove(3).unwrap();
        saved.remove(4).unwrap();
        let (records, failed) = saved.read();
        assert_eq!(records, [record(2, "a"), record(11, "b")]);
        assert!(failed.is_empty());
    }

    #[test]
    fn many_are_saved_at_once() {
        let state = tempfile::tempdir().unwrap();
        let saved = Saved::below(state.path());
        let many: Vec<Record> = (0..100)
            .map(|order| Record::new(format!("{order}.yaml"), order, vec![], "a".to_owned(), &[]))
            .collect();
        saved.save(&many).unwrap();
        assert_eq!(saved.read().0, many);
    }

    #[test]
    fn what_is_damaged_is_told_and_the_rest_is_read() {
        let state = tempfile::tempdir().unwrap();
        let saved = Saved::below(state.path());
        let record = Record::new("a.yaml".to_owned(), 1, vec![], "a".to_owned(), &[]);
        saved.save(&[record]).unwrap();
        fs::write(saved.path(2), "{\"form\":1").unwrap();
        fs::write(saved.path(3).with_extension("new"), "half").unwrap();
        fs::copy(saved.path(1), saved.path(4)).unwrap();
        let (records, failed) = saved.read();
        assert_eq!((records.len(), failed.len()), (1, 2));
    }
}
