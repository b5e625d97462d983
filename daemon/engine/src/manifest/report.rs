//! The findings of one file, kept few enough to read and to hold.
//!
//! More than [`MAX`] help no reader, and a hostile file must not grow in memory. An
//! error is never pushed out by warnings: a file that has one is never accepted.

use crate::diagnostic::Diagnostic;

/// Findings kept of one file.
pub(super) const MAX: usize = 1000;

/// The findings so far.
#[derive(Default)]
pub(super) struct Report {
    kept: Vec<Diagnostic>,
    dropped: usize,
}

impl Report {
    /// Adds some.
    pub(super) fn extend(&mut self, found: impl IntoIterator<Item = Diagnostic>) {
        self.kept.extend(found);
        // Twice as many, so that the sort is paid for by as many additions.
        if self.kept.len() > 2 * MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > MAX {
            self.kept.sort_by_key(|found| found.severity);
            self.dropped += self.kept.len() - MAX;
            self.kept.truncate(MAX);
        }
    }

    /// All that are kept, by place; the last tells how many are not.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.cut();
        self.kept.sort_by_key(|found| (found.line, found.column));
        if self.dropped > 0
            && let Some(last) = self.kept.last_mut()
        {
            last.message = format!("{} (and {} more findings)", last.message, self.dropped);
        }
        self.kept
    }
}
