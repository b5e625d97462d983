//! `-o`, and how values are written: columns as kubectl aligns them, JSON, YAML.
//!
//! stdout is data. Text that others chose passes through [`printable`] on its way
//! into a column.

use std::io::{self, Write};

use anyhow::Context as _;
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::printable::printable;

/// The form of what is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For people with a wide terminal: more columns.
    Wide,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// `-o`, for the verbs that list something.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Form {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

impl Output {
    /// Is the form for programs?
    #[must_use]
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }

    /// Writes the value where the form is for programs; says whether it did.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn value(self, out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<bool> {
        match self {
            Self::Table | Self::Wide => return Ok(false),
            Self::Json => {
                let text =
                    serde_json::to_string_pretty(value).context("not expressible in JSON")?;
                writeln!(out, "{text}")?;
            }
            Self::Yaml => {
                let text = serde_saphyr::to_string(value).context("not expressible in YAML")?;
                write!(out, "{text}")?;
                if !text.ends_with('\n') {
                    writeln!(out)?;
                }
            }
        }
        Ok(true)
    }
}

/// Columns, three spaces apart, no lines, no trailing space.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// With this first line; an empty one is left out.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        let mut columns = Self::default();
        if !header.is_empty() {
            columns
                .rows
                .push(header.iter().map(|text| (*text).to_owned()).collect());
        }
        columns
    }

    /// One more line.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| printable(&cell).into_owned())
                .collect(),
        );
    }

    /// One more row, of cells of several lines; says how many lines it takes.
    pub fn folded(&mut self, cells: impl IntoIterator<Item = Vec<String>>) -> usize {
        let mut height = 1;
        let row = cells.into_iter().map(|lines| {
            height = height.max(lines.len());
            let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
            lines.join("\n")
        });
        self.rows.push(row.collect());
        height
    }

    /// Writes them, each line after `indent`.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write(self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        for line in self.lines() {
            writeln!(out, "{indent}{line}")?;
        }
        Ok(())
    }

    /// The lines.
    #[must_use]
    pub fn lines(self) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.add_rows(self.rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

/// The text in green where something is allowed or added, in red where it is not. It goes to
/// a terminal in colour, and elsewhere as it is.
#[must_use]
pub fn paint(text: &str, good: bool) -> String {
    let color = if good {
        AnsiColor::Green
    } else {
        AnsiColor::Red
    };
    let style = Style::new().fg_color(Some(color.into()));
    format!("{style}{text}{style:#}")
}

/// Words in lines of about this width, a comma after each but the last.
#[must_use]
pub fn fold(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() + 3 <= width => {
                line.push_str(", ");
                line.push_str(word);
            }
            Some(line) => {
                line.push(',');
                lines.push(word.clone());
            }
            None => lines.push(word.clone()),
        }
    }
    lines
}

/// Columns of the terminal; 80 where there is none.
#[must_use]
pub fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(80, |(width, _)| width.0.into())
}

/// `5m`, `3h12m`, `40d`: as kubectl writes how long something is there
/// (`k8s.io/apimachinery/pkg/util/duration` `HumanDuration`).
#[must_use]
pub fn age(since: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    let Some(since) = since else {
        return "<unknown>".to_owned();
    };
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, 'y', days % 365, 'd'),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn columns_are_aligned_and_tame() {
        let mut columns = Columns::new(&["NAME", "AGE"]);
        columns.row(["default-deny".to_owned(), "5m".to_owned()]);
        columns.row(["a\x1b[31m\nb".to_owned(), String::new()]);
        let mut text = Vec::new();
        columns.write(&mut text, "").unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "NAME                AGE\n\
             default-deny        5m\n\
             a\\u{1b}[31m\\u{a}b\n"
        );
    }

    #[test]
    fn words_are_folded_and_never_cut() {
        let words: Vec<String> = ["one", "two", "three", "a-very-long-word"]
            .map(str::to_owned)
            .into();
        assert_eq!(
            fold(&words, 10),
            ["one, two,", "three,", "a-very-long-word"]
        );
        assert_eq!(fold(&words, 80), ["one, two, three, a-very-long-word"]);
        assert!(fold(&[], 80).is_empty());

        let mut columns = Columns::new(&["FROM", "TO"]);
        let height = columns.folded([
            vec!["a,".to_owned(), "b\x1b".to_owned()],
            vec!["c".to_owned()],
        ]);
        assert_eq!(height, 2);
        assert_eq!(columns.lines(), ["FROM      TO", "a,        c", "b\\u{1b}"]);
    }

    #[test]
    fn ages_are_kubectls() {
        let now: jiff::Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (145, "2m25s"),
            (700, "11m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 720, "3h12m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (40 * 86400, "40d"),
            (800 * 86400, "2y70d"),
        ] {
            let since = jiff::Timestamp::from_second(now.as_second() - seconds).unwrap();
            assert_eq!(age(Some(since), now), expected);
        }
    }
}
