//! A page for a terminal: sentences folded to its width, each at its depth. Whatever is written passes
//! through [`printable`] here. Knows nothing of what it shows.

use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};

use super::verdict::word;
use crate::api::wire::Severity;
use crate::printable::printable;

/// Columns of a terminal as it is opened.
pub(super) const COLUMNS: usize = 80;

/// Lines that fit.
pub(super) struct Page<'o> {
    pub(super) out: &'o mut dyn Write,
    /// How long a line may be.
    pub(super) columns: usize,
}

impl Page<'_> {
    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    pub(super) fn title(&mut self, title: &str, allowed: bool) -> io::Result<()> {
        let bold = Style::new().bold();
        writeln!(
            self.out,
            "{bold}{}{bold:#}: {}",
            printable(title),
            word(allowed)
        )
    }

    /// A problem: in the colour of its severity how it begins, and then its text.
    pub(super) fn problem(
        &mut self,
        severity: Severity,
        start: &str,
        text: &str,
    ) -> io::Result<()> {
        let color = match severity {
            Severity::Error => AnsiColor::Red,
            Severity::Warning => AnsiColor::Yellow,
            Severity::Note => AnsiColor::Cyan,
            Severity::Ok => AnsiColor::Green,
        };
        let style = Style::new().fg_color(Some(color.into()));
        let start = printable(start);
        write!(self.out, "{style}{start}{style:#} ")?;
        // The lines are folded as if the start were not there, which is written already.
        let room = start.chars().count() + 1;
        let blank = " ".repeat(room);
        let mut folded = Vec::new();
        Page {
            out: &mut folded,
            columns: self.columns,
        }
        .wrapped(&blank, "  ", text)?;
        self.out.write_all(folded.get(room..).unwrap_or_default())
    }

    /// Policies that are not shown.
    pub(super) fn more(&mut self, policies: usize) -> io::Result<()> {
        match policies {
            0 => Ok(()),
            1 => self.line(1, "And 1 more policy, not nearer: `-o json` has all."),
            more => {
                let more = format!("And {more} more policies, none nearer: `-o json` has all.");
                self.line(1, &more)
            }
        }
    }

    /// A sentence at a depth, its further lines two deeper.
    pub(super) fn line(&mut self, depth: usize, text: &str) -> io::Result<()> {
        let indent = "  ".repeat(depth);
        self.wrapped(&indent, &format!("{indent}  "), text)
    }

    pub(super) fn item(&mut self, depth: usize, text: &str) -> io::Result<()> {
        let indent = "  ".repeat(depth);
        self.wrapped(&format!("{indent}- "), &format!("{indent}  "), text)
    }

    /// A comment in a manifest.
    pub(super) fn comment(&mut self, text: &str) -> io::Result<()> {
        self.wrapped("# ", "#   ", text)
    }

    pub(super) fn verbatim(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", printable(text))
    }

    fn wrapped(&mut self, first: &str, next: &str, text: &str) -> io::Result<()> {
        let text = printable(text);
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in unbroken(&text) {
            let width = line.chars().count() + 1 + word.chars().count();
            if !is_empty && width > self.columns {
                writeln!(self.out, "{}", line.trim_end())?;
                line = next.to_owned();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

/// The words of a text; what stands in backticks is copied by people, and is one.
fn unbroken(text: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |letter| {
        is_quoted ^= letter == '`';
        letter == ' ' && !is_quoted
    })
}
