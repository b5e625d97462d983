//! What a network namespace's kernel counts by itself: `/proc/net/snmp`, a line of names and a line of numbers
//! for each group.

use anyhow::{Context as _, Result};

/// A number (`NoPorts`) of a group (`Udp`), in that file's text.
///
/// # Errors
/// The text has no such number.
pub fn number(text: &str, group: &str, name: &str) -> Result<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = lines.next().zip(lines.next()).context("no such group")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(found, _)| *found == name)
        .context("no such name")?;
    Ok(value.parse()?)
}

/// The same, of the namespace that a process is in.
///
/// # Errors
/// As there, or there is no such process.
pub fn read(pid: u32, group: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/snmp"))?;
    number(&text, group, name)
}
