//! Installs the gate by nft(8), in one transaction: what was there is replaced, or nothing changes.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::GateError;
use super::rules::{Contents, Scope, render};
use crate::printable::printable;

/// Installs it, by bridges where the kernel can tell them, else by names of interfaces.
///
/// # Errors
/// There is no nft(8), or the kernel takes neither.
pub fn install(table: &str, contents: &Contents) -> Result<Scope, GateError> {
    match load(&render(table, Scope::Bridges, contents)) {
        Ok(()) => Ok(Scope::Bridges),
        // `meta ibrname` is what kernels lack; whether that was it, the second attempt tells.
        Err(GateError::Refused(_)) => {
            load(&render(table, Scope::Names, contents)).map(|()| Scope::Names)
        }
        Err(error) => Err(error),
    }
}

fn load(rules: &str) -> Result<(), GateError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => GateError::NoNft,
            _ => GateError::Run(source),
        })?;
    if let Some(mut input) = child.stdin.take() {
        // Where it reads no further, what it says tells why.
        let _ = input.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(GateError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("nft failed and said nothing");
    Err(GateError::Refused(printable(first).into_owned()))
}
