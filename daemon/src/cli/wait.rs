//! `netpol wait`: returns when all that is on disk and in the runtimes now is in force.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Exit;
use crate::api::Client;
use crate::api::client::ClientError;
use crate::api::wire::{Problem, Waited};
use crate::printable::printable;

/// How long a daemon that is just being started may take to make its socket.
const STARTING: Duration = Duration::from_secs(3);
/// Between two attempts to reach it.
const ATTEMPTS: Duration = Duration::from_millis(50);

/// Wait until all that is on disk and in the runtimes now is in force
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 when all is in force, 1 where a file was rejected, 2 where it took too long.
`Warning:` lines name what came in force and may not mean what it says, each of them once;
`netpol check --explain RULE` has more on a rule.

Examples:
  cp policy.yaml /etc/netpold/manifests/ && netpol wait
  netpol wait --timeout 1m")]
pub struct Wait {
    /// How long at most: `500ms`, `10s`, `2m`
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

impl Wait {
    pub(super) fn run(&self, client: &Client, _out: &mut dyn Write) -> anyhow::Result<Exit> {
        let synced = match super::wait_for(self.waited(client))? {
            Waited::Synced(synced) => synced,
            Waited::TimedOut => anyhow::bail!(
                "not in force within {}\nhelp: `netpol status` and netpold's log say what is missing",
                humane(self.timeout)
            ),
        };
        for found in &synced.findings {
            anstream::eprintln!("{}", printable(&warning(found)));
        }
        if !synced.failures.is_empty() {
            anyhow::bail!(
                "what is on disk could not be put in force: {}",
                synced.failures.join("; ")
            );
        }
        for rejected in &synced.rejected {
            for problem in &rejected.diagnostics {
                anstream::eprintln!(
                    "{}",
                    printable(&format!(
                        "{}:{}:{}: {}: {}",
                        problem.file,
                        problem.line,
                        problem.column,
                        problem.severity,
                        problem.message
                    ))
                );
            }
            anstream::eprintln!(
                "rejected: {}",
                printable(&rejected.file.display().to_string())
            );
        }
        Ok(Exit::answer(synced.rejected.is_empty()))
    }

    async fn waited(&self, client: &Client) -> Result<Waited, ClientError> {
        let start = Instant::now();
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            match client.wait(left).await {
                Err(ClientError::NoDaemon { .. })
                    if start.elapsed() < self.timeout.min(STARTING) =>
                {
                    tokio::time::sleep(ATTEMPTS).await;
                }
                answer => return answer,
            }
        }
    }
}

/// `500ms`, `10s`, `2m`, `1h`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write `500ms`, `10s` or `2m`");
    let split = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

/// As kubectl prints it.
fn warning(found: &Problem) -> String {
    let field = found.field.as_ref();
    let field = field.map_or_else(String::new, |field| format!("{field}: "));
    format!(
        "Warning: {}:{}: {field}{} [{}]",
        found.file, found.line, found.message, found.rule
    )
}

fn humane(duration: Duration) -> String {
    format!("{duration:?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("3", 3000),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds));
        }
        for text in ["", "s", "-1s", "1 s", "1d", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
