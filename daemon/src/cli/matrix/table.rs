//! A matrix for a terminal: a square by names where it fits, a square by numbers where that
//! does, else a line for all senders that reach the same receivers.

use std::io::Write;

use netpol_engine::matrix::{Matrix, OverIpv6};
use netpol_engine::policy::ObjectName;

use crate::cli::endpoints::PodSetFormatter;
use crate::cli::output::{Columns, fold, paint};
use crate::printable::printable;

/// Words for the name of a group.
const WORDS: usize = 2;
/// Words for all that a line's senders are, or reach.
const LINE: usize = 12;
/// Members that the legend names of a group.
const NAMED: usize = 50;
/// Between two columns.
const GAP: usize = 3;

pub(super) fn write(matrix: &Matrix, width: usize, out: &mut dyn Write) -> anyhow::Result<()> {
    let groups = matrix.groups();
    let formatter = PodSetFormatter::new(groups.iter().flatten().copied());
    let words: Vec<Vec<String>> = groups
        .iter()
        .map(|group| formatter.pods(group, None, WORDS))
        .collect();
    let names: Vec<String> = words
        .iter()
        .map(|words| printable(&words.join(", ")).into_owned())
        .collect();
    let labels: Vec<String> = if let Some(square) = by_names(matrix, &names, width) {
        out.write_all(square.as_bytes())?;
        names
    } else if let Some(square) = [Spacing::Wide, Spacing::Dense]
        .into_iter()
        .find_map(|spacing| by_numbers(matrix, &names, width, spacing))
    {
        out.write_all(square.as_bytes())?;
        (1..=groups.len())
            .map(|number| number.to_string())
            .collect()
    } else {
        return lines(matrix, &formatter, width, out);
    };
    for ((group, words), label) in groups.iter().zip(&words).zip(labels) {
        if words.last().is_some_and(|word| word.starts_with('+')) {
            members(group, &label, width, out)?;
        }
    }
    Ok(())
}

/// Below the table: the pairs for which IPv6 gets another answer than stands there.
pub(super) fn over_ipv6(matrix: &Matrix, width: usize, out: &mut dyn Write) -> anyhow::Result<()> {
    if matrix.over_ipv6().is_empty() {
        return Ok(());
    }
    let formatter = PodSetFormatter::new(matrix.groups().iter().flatten().copied());
    let mut columns = Columns::new(&["OVER IPV6", "FROM", "TO"]);
    for OverIpv6 { from, to, allowed } in matrix.over_ipv6() {
        let share = width.saturating_sub("OVER IPV6".len() + 2 * GAP) / 2;
        columns.folded([
            vec![yes(*allowed).to_owned()],
            fold(&formatter.pods(from, only(to), LINE), share),
            fold(&formatter.pods(to, only(from), LINE), share),
        ]);
    }
    writeln!(out)?;
    columns.write(out, "")?;
    Ok(())
}

pub(super) const fn yes(allowed: bool) -> &'static str {
    if allowed { "yes" } else { "no" }
}

/// What holds between two groups; `None`: it was not asked.
fn cell(matrix: &Matrix, from: usize, to: usize) -> Option<Option<bool>> {
    (matrix.is_meant(from) || matrix.is_meant(to)).then(|| matrix.allows(from, to))
}

/// Rows and columns with names: `yes`, `no`, and `-` for a Pod and itself.
fn by_names(matrix: &Matrix, names: &[String], width: usize) -> Option<String> {
    let corner = format!("{}/{}", matrix.port, matrix.protocol);
    let wide = |text: &String| text.chars().count().max("yes".len());
    let first = names.iter().chain([&corner]).map(wide).max().unwrap_or(0);
    let whole = first + names.iter().map(|name| GAP + wide(name)).sum::<usize>();
    if whole > width {
        return None;
    }
    let mut text = Line::default();
    text.cell(&corner, first, None);
    for name in names {
        text.cell(name, wide(name), None);
    }
    text.end();
    for (from, name) in names.iter().enumerate() {
        text.cell(name, first, None);
        for (to, column) in names.iter().enumerate() {
            let (word, good) = match cell(matrix, from, to) {
                Some(Some(allowed)) => (yes(allowed), Some(allowed)),
                Some(None) => ("-", None),
                None => ("", None),
            };
            text.cell(word, wide(column), good);
        }
        text.end();
    }
    Some(text.done)
}

/// How the columns of a square by numbers stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spacing {
    /// Apart, each below its number.
    Wide,
    /// Side by side, their numbers written downwards.
    Dense,
}

/// Rows with number and name, columns with numbers: `y` and `.`.
fn by_numbers(matrix: &Matrix, names: &[String], width: usize, spacing: Spacing) -> Option<String> {
    let corner = format!("{}/{}", matrix.port, matrix.protocol);
    let digits = names.len().to_string().len();
    let between = match spacing {
        Spacing::Wide => digits,
        Spacing::Dense => 0,
    };
    let labels: Vec<String> = (1..)
        .zip(names)
        .map(|(number, name)| format!("{number:digits$}  {name}"))
        .collect();
    let wide = |text: &String| text.chars().count();
    let first = labels.iter().chain([&corner]).map(wide).max().unwrap_or(0);
    if first + GAP - 1 + names.len() * (between + 1) > width {
        return None;
    }
    let mut text = Line::default();
    let numbers: Vec<String> = (1..=names.len())
        .map(|number| format!("{number:>digits$}"))
        .collect();
    match spacing {
        Spacing::Wide => {
            text.put(&format!("{corner:first$}  "), None);
            for number in &numbers {
                text.put(&format!(" {number}"), None);
            }
            text.end();
        }
        Spacing::Dense => {
            for digit in 0..digits {
                let corner = if digit + 1 == digits { &corner } else { "" };
                let row: String = numbers
                    .iter()
                    .filter_map(|number| number.chars().nth(digit))
                    .collect();
                text.put(&format!("{corner:first$}  {row}"), None);
                text.end();
            }
        }
    }
    for (from, label) in labels.iter().enumerate() {
        text.put(label, None);
        text.put(&" ".repeat(first + 2 - wide(label)), None);
        for to in 0..labels.len() {
            let (sign, good) = match cell(matrix, from, to) {
                Some(Some(true)) => ("y", Some(true)),
                Some(Some(false)) => (".", Some(false)),
                Some(None) => ("-", None),
                None => (" ", None),
            };
            text.put(&" ".repeat(between), None);
            text.put(sign, good);
        }
        text.end();
    }
    text.put("y: the row reaches the column   .: it does not", None);
    text.end();
    Some(text.done)
}

/// Senders that reach the same receivers, and those receivers.
fn lines<'w>(
    matrix: &Matrix<'w>,
    formatter: &PodSetFormatter<'w>,
    width: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let groups = matrix.groups();
    let all: Vec<usize> = (0..groups.len()).collect();
    let (meant, rest): (Vec<usize>, Vec<usize>) =
        all.iter().partition(|group| matrix.is_meant(**group));
    let pods = |chosen: &[usize]| -> Vec<&'w ObjectName> {
        chosen
            .iter()
            .flat_map(|group| groups[*group].iter().copied())
            .collect()
    };
    let reaches = format!("REACHES ON {}/{}", matrix.port, matrix.protocol);
    let mut columns = Columns::new(&["FROM", &reaches]);
    for (senders, receivers) in [(&meant, &all), (&rest, &meant)] {
        for (from, to) in matrix.lines(senders, receivers) {
            let (from, to) = (pods(&from), pods(&to));
            let reached = if to.is_empty() {
                vec!["nobody".to_owned()]
            } else {
                formatter.pods(&to, only(&from), LINE)
            };
            let senders = formatter.pods(&from, only(&to), LINE);
            let share = width.saturating_sub(GAP) / 2;
            columns.folded([fold(&senders, share), fold(&reached, share)]);
        }
    }
    columns.write(out, "")?;
    Ok(())
}

fn only<'w>(pods: &[&'w ObjectName]) -> Option<&'w ObjectName> {
    match pods {
        [one] => Some(one),
        _ => None,
    }
}

/// The members of a group whose name leaves some out.
fn members(
    group: &[&ObjectName],
    label: &str,
    width: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let named = group.len().min(NAMED);
    let mut members: Vec<String> = group[..named]
        .iter()
        .map(|name| printable(&name.to_string()).into_owned())
        .collect();
    if named < group.len() {
        members.push(format!("+{} more", group.len() - named));
    }
    writeln!(out, "\n{label}:")?;
    for line in fold(&members, width.saturating_sub(2)) {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// Lines made of cells, some in colour; nothing trails.
#[derive(Default)]
struct Line {
    done: String,
    /// Blanks that are written once something follows.
    blanks: usize,
    started: bool,
}

impl Line {
    /// A text in a column of this width.
    fn cell(&mut self, text: &str, width: usize, good: Option<bool>) {
        if self.started {
            self.blanks += GAP;
        }
        self.put(text, good);
        self.blanks += width - text.chars().count().min(width);
    }

    fn put(&mut self, text: &str, good: Option<bool>) {
        self.started = true;
        if text.trim_end().is_empty() {
            self.blanks += text.len();
            return;
        }
        self.done.extend(std::iter::repeat_n(' ', self.blanks));
        self.blanks = 0;
        match good {
            Some(good) => self.done.push_str(&paint(text, good)),
            None => self.done.push_str(text),
        }
    }

    fn end(&mut self) {
        self.done.push('\n');
        self.blanks = 0;
        self.started = false;
    }
}
