//! Whatever is seen of files, in whatever order: bytes as a stream of observations, and what
//! must hold of the acceptance after each of them and in the end.
//!
//! Bytes so that a fuzzer can write them (`tests/fuzz`); its finds are replayed below. Objects are
//! in a toy language: a line `object NAME` is a Namespace, anything else an error.

use std::time::{Duration, UNIX_EPOCH};

use netpol_engine::diagnostic::rule as content;
use netpol_engine::manifest::{Object, Position, Value};
use netpol_engine::policy::Mode;

use super::*;

const PATHS: [&str; 4] = ["a", "b", "c", "d"];

/// Runs a stream, and panics where the acceptance breaks a promise.
pub fn hold(bytes: &[u8]) {
    let mut run = Run {
        acceptance: Acceptance::new(toy, []),
        disk: BTreeMap::new(),
        seen: BTreeMap::new(),
        saved: BTreeMap::new(),
        clock: 0,
    };
    for &[what, which] in bytes.as_chunks().0.iter().take(512) {
        run.step(what, which);
    }
    run.settle();
}

fn toy(path: &str, text: &str) -> File {
    let mut file = File {
        path: path.to_owned(),
        ..File::default()
    };
    for (line, said) in (1..).zip(text.lines()) {
        match said.strip_prefix("object ") {
            Some(name) => file.documents.push(Object {
                position: Position { line, column: 1 },
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                created: None,
                value: Value::Namespace {
                    name: name.to_owned(),
                    mode: Mode::Enforce,
                },
            }),
            None => {
                let finding = finding(path, content::SYNTAX, "bad line", "");
                file.diagnostics.push(finding);
            }
        }
    }
    file
}

/// Three objects, each there or not; the first of them twice; an error.
fn text(bits: u8) -> String {
    let lines = [
        (1, "object x\n"),
        (2, "object y\n"),
        (4, "object z\n"),
        (8, "nonsense\n"),
    ];
    let mut text: String = lines
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, line)| *line)
        .collect();
    if bits & 0x30 == 0x30 {
        text += "object x\n";
    }
    text
}

struct Run {
    acceptance: Acceptance,
    disk: BTreeMap<&'static str, (String, SystemTime)>,
    /// Observed, and not told to the acceptance yet.
    seen: BTreeMap<String, Observation>,
    /// What a restart would find.
    saved: BTreeMap<u64, Accepted>,
    clock: u64,
}

impl Run {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.clock)
    }

    fn step(&mut self, what: u8, bits: u8) {
        self.clock += u64::from(bits & 1);
        let path = PATHS[usize::from(what & 3)];
        match (what >> 2) % 10 {
            0 | 1 => {
                self.disk.insert(path, (text(bits), self.now()));
            }
            2 => {
                self.disk.remove(path);
            }
            3 | 4 => {
                let observation = self.look(path);
                self.seen.insert(path.to_owned(), observation);
            }
            5 => {
                let odd = match bits % 4 {
                    0 => Observation::BeingWritten,
                    1 => Observation::Missing,
                    2 => Observation::Unchanged,
                    _ => Observation::Refused(rule::UNREADABLE, "no right".to_owned(), ""),
                };
                self.seen.insert(path.to_owned(), odd);
            }
            6 => {
                let all: Vec<_> = PATHS.map(|path| (path.to_owned(), self.look(path))).into();
                self.seen.extend(all);
            }
            7 => {
                // Restarted: what was seen and not told is lost.
                self.seen.clear();
                self.acceptance = Acceptance::new(toy, self.saved.values().cloned());
                self.check();
            }
            _ => self.tell(),
        }
    }

    fn look(&self, path: &str) -> Observation {
        match self.disk.get(path) {
            None => Observation::Gone,
            Some((text, _)) if text.is_empty() => Observation::Truncated,
            Some((text, arrived)) => Observation::Text {
                text: text.clone(),
                arrived: *arrived,
            },
        }
    }

    fn in_force(&self, path: &str) -> Option<String> {
        let accepted = self.acceptance.accepted();
        let version = accepted.iter().find(|version| version.key == path)?;
        Some(version.text.clone())
    }

    /// Tells the acceptance what was seen.
    fn tell(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        let before: Vec<_> = PATHS.map(|path| (path, self.in_force(path))).into();
        let changes = self
            .acceptance
            .observe(seen.clone(), ToOwned::to_owned, self.now());
        for change in changes {
            match change {
                Change::Save(version) => {
                    self.saved.insert(version.order, (*version).clone());
                }
                Change::Remove(order) => {
                    assert!(self.saved.remove(&order).is_some(), "never saved");
                }
            }
        }
        for (path, before) in before {
            let now = self.in_force(path);
            match seen.get(path) {
                Some(Observation::Gone) => assert_eq!(now, None, "gone, and in force"),
                Some(Observation::Text { text, .. }) if valid(text) => {
                    assert!(
                        now == before || now.as_ref() == Some(text),
                        "neither old nor new"
                    );
                }
                // Nothing of it, or a candidate of before whose way is free now.
                Some(Observation::Unchanged | Observation::BeingWritten) | None => {
                    assert!(now.is_some() || before.is_none(), "withdrawn unseen");
                }
                Some(_) => assert_eq!(now, before, "what can't be read changes nothing"),
            }
        }
        self.check();
    }

    /// What holds at any time.
    fn check(&self) {
        let accepted = self.acceptance.accepted();
        let mut objects = BTreeSet::new();
        for version in &accepted {
            assert!(
                valid(&version.text) && version.file.documents == toy("", &version.text).documents
            );
            assert_eq!(version.since.len(), version.file.documents.len());
            for object in &version.file.documents {
                assert!(objects.insert(object.id()), "{} twice", object.id());
            }
        }
        let saved: Vec<&Accepted> = self.saved.values().collect();
        let accepted: Vec<&Accepted> = accepted.iter().map(|version| &**version).collect();
        assert_eq!(saved, accepted, "a restart would find something else");
    }

    /// The disk rests, and is seen as a whole: the same is in force as ever could be.
    fn settle(&mut self) {
        for path in PATHS {
            let observation = self.look(path);
            self.seen.insert(path.to_owned(), observation);
        }
        let whole = self.seen.clone();
        self.tell();
        let again = self
            .acceptance
            .observe(whole.clone(), ToOwned::to_owned, self.now());
        assert_eq!(again, [], "the same listing changes something");

        let accepted = self.acceptance.accepted();
        let rejected = self.acceptance.rejected();
        assert!(!self.acceptance.is_waiting());
        for path in PATHS {
            let told = rejected.iter().any(|rejected| rejected.path == path);
            let Some((text, _)) = self.disk.get(path) else {
                assert!(!told && self.in_force(path).is_none(), "{path} is gone");
                continue;
            };
            if self.in_force(path).as_ref() == Some(text) {
                assert!(!told, "{path} is in force, and rejected");
                continue;
            }
            assert!(told, "{path} is not in force, and nothing says so");
            let blocked = toy("", text).documents.iter().any(|object| {
                let mut others = accepted.iter().filter(|version| version.key != path);
                others.any(|version| version.file.documents.iter().any(|o| o.id() == object.id()))
            });
            assert!(!valid(text) || blocked, "{path} could be in force");
        }
        // Where files do not contradict one another, what was before leaves no trace.
        let mut fresh = Acceptance::new(toy, []);
        fresh.observe(whole, ToOwned::to_owned, self.now());
        if fresh.rejected().is_empty() {
            let texts = |acceptance: &Acceptance| -> BTreeMap<String, String> {
                let accepted = acceptance.accepted();
                let texts = accepted
                    .iter()
                    .map(|one| (one.key.clone(), one.text.clone()));
                texts.collect()
            };
            assert_eq!(texts(&fresh), texts(&self.acceptance));
            assert_eq!(rejected, []);
        }
    }
}

/// A file that counts by itself.
fn valid(text: &str) -> bool {
    let file = toy("", text);
    !text.is_empty() && file.is_accepted() && manifest::assemble([&file]).diagnostics.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams;

    #[test]
    fn random_streams_hold() {
        streams::random(1_000, hold);
    }

    #[test]
    fn the_fuzzers_finds_hold() {
        streams::finds("files", hold);
    }
}
