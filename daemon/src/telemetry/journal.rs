//! Events as entries of the systemd journal, in its native protocol (systemd.io,
//! JOURNAL_NATIVE_PROTOCOL).
//!
//! An entry's message is what stderr would say, so that `journalctl -u netpold` leaves nothing
//! out; each field is there once more, for `journalctl NETPOLD_PATH=…` and `-o json`. Values come
//! out of manifests and containers: they are length-prefixed, so that none ends a field early,
//! and cut where they are long.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes of a value: an entry fits a datagram, whatever `net.core.wmem_default` is.
const LONGEST: usize = 16 << 10;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The one that runs on this host.
    ///
    /// # Errors
    /// When none does.
    pub fn open() -> io::Result<Self> {
        Self::at(SOCKET)
    }

    fn at(path: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let entry = entry(event, &said);
        if self.socket.send(&entry).is_err() {
            // The journal starts again: its socket is another one, while stderr, which leads
            // there too, is kept for us by systemd.
            let again = Self::open().and_then(|journal| journal.socket.send(&entry));
            if again.is_err() {
                // No place is left to report it.
                let _ = io::Write::write_all(&mut io::stderr(), (said.line() + "\n").as_bytes());
            }
        }
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Said {
    /// The message with its fields behind it, as stderr has them.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.fields {
            let space = if line.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(line, "{space}{name}={value}");
        }
        line
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

fn entry(event: &Event<'_>, said: &Said) -> Vec<u8> {
    let metadata = event.metadata();
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "MESSAGE", &said.line());
    put(&mut entry, "PRIORITY", priority(*metadata.level()));
    put(&mut entry, "SYSLOG_IDENTIFIER", "netpold");
    put(&mut entry, "NETPOLD_TARGET", metadata.target());
    if let Some(file) = metadata.file() {
        put(&mut entry, "CODE_FILE", file);
    }
    if let Some(line) = metadata.line() {
        put(&mut entry, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &said.fields {
        put(&mut entry, &field(name), value);
    }
    entry
}

/// syslog(3)'s number.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// A field's name in the journal, which takes capitals, digits and `_`, and has a few names of
/// its own: the prefix keeps those apart.
fn field(name: &str) -> String {
    let plain = |one: char| {
        if one.is_ascii_alphanumeric() {
            one.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    format!("NETPOLD_{}", name.chars().map(plain).collect::<String>())
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(LONGEST)];
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What the journal is told of what is logged meanwhile: names and values.
    fn told(log: impl FnOnce()) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(path.to_str().unwrap()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut buffer = vec![0; 1 << 20];
        let length = listener.recv(&mut buffer).unwrap();
        let mut rest = &buffer[..length];
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let (size, value) = rest[end + 1..].split_at(8);
            let size = u64::from_le_bytes(size.try_into().unwrap()) as usize;
            assert_eq!(value[size], b'\n');
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(&rest[..end]), text(&value[..size])));
            rest = &value[size + 1..];
        }
        fields
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        let named = fields.iter().filter(|field| field.0 == name);
        named.map(|field| field.1.as_str()).collect()
    }

    #[test]
    fn an_entry_has_the_whole_line_and_each_field() {
        let error = io::Error::other("the disk is full");
        let fields = told(|| tracing::warn!(%error, path = "a b", in_force = true, "not saved"));
        for (name, wanted) in [
            (
                "MESSAGE",
                "not saved error=the disk is full path=a b in_force=true",
            ),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "netpold"),
            ("NETPOLD_TARGET", "netpold::telemetry::journal::tests"),
            ("NETPOLD_ERROR", "the disk is full"),
            ("NETPOLD_PATH", "a b"),
            ("NETPOLD_IN_FORCE", "true"),
        ] {
            assert_eq!(value(&fields, name), [wanted], "{name}");
        }
    }

    #[test]
    fn a_value_can_not_end_its_field() {
        let hostile = "x\nPRIORITY=0\nMESSAGE=all is well";
        let fields = told(|| tracing::info!(endpoint = hostile, "seen"));
        assert_eq!(value(&fields, "NETPOLD_ENDPOINT"), [hostile]);
        assert_eq!(value(&fields, "PRIORITY"), ["6"]);
        assert_eq!(value(&fields, "MESSAGE").len(), 1);
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let fields = told(|| tracing::info!(file = "ü".repeat(LONGEST), "read"));
        let file = value(&fields, "NETPOLD_FILE")[0];
        assert_eq!(file.len(), LONGEST);
        assert!(file.chars().all(|one| one == 'ü'));
    }
}
