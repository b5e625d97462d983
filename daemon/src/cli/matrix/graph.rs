//! A matrix as a graph: a node for each group of Pods that act alike, an arrow where one reaches
//! the other. Names are quoted as each language wants it.

use std::io::Write;

use netpol_engine::matrix::Matrix;

use crate::cli::endpoints::PodSetFormatter;
use crate::printable::printable;

/// Words for the members of a node.
const WORDS: usize = 12;

/// Graphviz's language.
pub(super) fn dot(matrix: &Matrix, out: &mut dyn Write) -> anyhow::Result<()> {
    let quoted = |words: &[String]| {
        let lines: Vec<String> = words
            .iter()
            .map(|word| printable(word).replace('\\', "\\\\").replace('"', "\\\""))
            .collect();
        format!("\"{}\"", lines.join("\\n"))
    };
    writeln!(out, "digraph reachability {{")?;
    writeln!(out, "  label=\"{}/{}\";", matrix.port, matrix.protocol)?;
    writeln!(out, "  rankdir=LR;")?;
    writeln!(out, "  node [shape=box];")?;
    for (number, words) in nodes(matrix) {
        writeln!(out, "  n{number} [label={}];", quoted(&words))?;
    }
    for (from, to) in arrows(matrix) {
        writeln!(out, "  n{from} -> n{to};")?;
    }
    writeln!(out, "}}")?;
    Ok(())
}

/// A flowchart, as Markdown renderers draw it.
pub(super) fn mermaid(matrix: &Matrix, out: &mut dyn Write) -> anyhow::Result<()> {
    let quoted = |words: &[String]| {
        let lines: Vec<String> = words
            .iter()
            .map(|word| printable(word).chars().map(entity).collect())
            .collect();
        format!("\"{}\"", lines.join("<br/>"))
    };
    writeln!(out, "%% {}/{}", matrix.port, matrix.protocol)?;
    writeln!(out, "flowchart LR")?;
    for (number, words) in nodes(matrix) {
        writeln!(out, "  n{number}[{}]", quoted(&words))?;
    }
    for (from, to) in arrows(matrix) {
        writeln!(out, "  n{from} --> n{to}")?;
    }
    Ok(())
}

/// A character of a label: what could end it, or begin markup, as an entity.
fn entity(character: char) -> String {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '-' | '_' | '.' | '/' | ',' | '(' | ')' => {
            character.to_string()
        }
        _ => format!("#{};", u32::from(character)),
    }
}

/// The groups that are part of a pair.
fn nodes(matrix: &Matrix) -> Vec<(usize, Vec<String>)> {
    let groups = matrix.groups();
    let formatter = PodSetFormatter::new(groups.iter().flatten().copied());
    (0..groups.len())
        .map(|group| (group, formatter.pods(&groups[group], None, WORDS)))
        .collect()
}

fn arrows(matrix: &Matrix) -> impl Iterator<Item = (usize, usize)> {
    let count = matrix.groups().len();
    (0..count)
        .flat_map(move |from| (0..count).map(move |to| (from, to)))
        .filter(|(from, to)| matrix.is_meant(*from) || matrix.is_meant(*to))
        .filter(|(from, to)| matrix.allows(*from, *to) == Some(true))
}
