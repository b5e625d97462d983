//! The log: to the journal where stderr is the journal, else as text to stderr.
//!
//! Never stdout, which is data. `NETPOLD_LOG` says how much, as `RUST_LOG` does
//! elsewhere (`debug`, `netpold::store=trace`). Called once, by the `netpold` binary.

use std::io::IsTerminal as _;
use std::os::fd::AsFd;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::Journal;

/// The variable that says how much is logged.
pub const VARIABLE: &str = "NETPOLD_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The variable can't be read as a filter.
    #[error("{VARIABLE}={value:?}: {source} (try `debug`, or `netpold::store=trace,info`)")]
    Filter {
        /// Its value.
        value: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// There is one already.
    #[error("the log: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log.
///
/// # Errors
/// The variable can't be read, or there is a log already.
pub fn start() -> Result<(), LogError> {
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    let filter = filter(&value.to_string_lossy())?;
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let journal = is_journal(&stream, std::io::stderr())
        .then(Journal::open)
        .and_then(Result::ok);
    let layer = match journal {
        Some(journal) => journal.boxed(),
        None => {
            let colour = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(colour)
                .boxed()
        }
    };
    tracing_subscriber::registry()
        .with(layer)
        .with(filter)
        .try_init()?;
    Ok(())
}

fn filter(value: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(value)
        .map_err(|source| LogError::Filter {
            value: value.to_owned(),
            source,
        })
}

/// Is this stream the one that systemd connected to the journal? systemd.exec(5):
/// `JOURNAL_STREAM` is its `device:inode`, and is inherited by those whose stderr is another.
fn is_journal(variable: &str, stream: impl AsFd) -> bool {
    nix::sys::stat::fstat(stream)
        .is_ok_and(|stat| variable == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_journal_is_known_by_its_inode() {
        let file = tempfile::tempfile().unwrap();
        let meta = file.metadata().unwrap();
        let right = format!("{}:{}", meta.dev(), meta.ino());
        assert!(is_journal(&right, &file));
        for wrong in ["", "1:1", &format!("{right}0")] {
            assert!(!is_journal(wrong, &file), "{wrong:?}");
        }
    }

    #[test]
    fn the_filter_is_info_unless_said_otherwise() {
        assert_eq!(
            filter("").unwrap().max_level_hint(),
            Some(LevelFilter::INFO)
        );
        assert_eq!(
            filter("debug").unwrap().max_level_hint(),
            Some(LevelFilter::DEBUG)
        );
        assert!(filter("netpold=loud").is_err());
    }
}
