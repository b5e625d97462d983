//! The command line of `netpold-oci`: its own flags, which come first, and what is the other runtime's. Pure.
//!
//! OCI runtimes share their verbs and the flags that engines use; flags before the verb that
//! take a value are listed here, for runc, crun and youki. One that is in no list may have its value in the
//! next word, or none: whatever may be a `start` then is one, for a start that is not seen as such would not be
//! waited for.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::api::client::DEFAULT_SOCKET;

/// What `--netpold-help` prints.
pub const HELP: &str = "\
netpold-oci: an OCI runtime that lets a container start once netpold's policies are in force for it

usage: netpold-oci [--netpold-runtime=PATH] [--netpold-socket=PATH] [--netpold-timeout=SECONDS]
                   [--netpold-unready=refuse|start] COMMAND…

  --netpold-runtime=PATH     the runtime that does the work (runc)
  --netpold-socket=PATH      where netpold answers (/run/netpold/netpold.sock)
  --netpold-timeout=SECONDS  how long a start may wait (5)
  --netpold-unready=refuse   what is not in force by then does not start (the default)
  --netpold-unready=start    it starts: what is not in force is shut, and its first packets are lost

In /etc/docker/daemon.json:
  { \"runtimes\": { \"netpold\": { \"path\": \"/usr/bin/netpold-oci\", \"runtimeArgs\": [\"--netpold-timeout=10\"] } } }
and `docker run --runtime netpold …`, or \"default-runtime\": \"netpold\" for all.
";

/// What is not in force in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Does not start.
    Refuse,
    /// Starts.
    Start,
}

/// Its own flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The other runtime.
    pub runtime: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// How long a start may wait.
    pub timeout: Duration,
    /// And then.
    pub unready: Unready,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            runtime: PathBuf::from("runc"),
            socket: PathBuf::from(DEFAULT_SOCKET),
            timeout: Duration::from_secs(5),
            unready: Unready::Refuse,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its own flags.
    pub settings: Settings,
    /// All that is the other runtime's.
    pub arguments: Vec<OsString>,
    /// Of those, what comes before the verb.
    pub global: Vec<OsString>,
    /// The container, where the verb is `start`.
    pub starts: Option<OsString>,
    /// The file that the runtime logs to.
    pub log: Option<PathBuf>,
    /// In JSON.
    pub log_is_json: bool,
}

/// Flags before the verb whose value is the next word: `runc --help`, `crun --help`, `youki --help`.
const WITH_VALUE: [&str; 9] = [
    "--root",
    "-r",
    "--log",
    "-l",
    "--log-format",
    "--log-level",
    "--cgroup-manager",
    "--criu",
    "--rootless",
];
/// Those that have none.
const WITHOUT_VALUE: [&str; 8] = [
    "--debug",
    "--systemd-cgroup",
    "-s",
    "--systemd-log",
    "--help",
    "-h",
    "--version",
    "-v",
];
/// The verbs that are told from a flag's value (runtime-spec, and what all three have beside it).
const VERBS: [&str; 18] = [
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "info",
    "kill",
    "list",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "update",
];

/// Reads it.
///
/// # Errors
/// One of its own flags is wrong.
pub fn read(arguments: Vec<OsString>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut rest = arguments.into_iter().peekable();
    while let Some(flag) = rest.next_if(|word| starts_with(word, "--netpold-")) {
        own(&mut asked.settings, &flag)?;
    }
    asked.arguments = rest.collect();
    let mut words = asked.arguments.iter().peekable();
    while let Some(word) = words.next() {
        if !starts_with(word, "-") {
            if word == "start" {
                asked.starts = words.rfind(|word| !starts_with(word, "-")).cloned();
            }
            break;
        }
        asked.global.push(word.clone());
        let text = word.to_string_lossy();
        let has_value = WITH_VALUE.contains(&&*text)
            || (!WITHOUT_VALUE.contains(&&*text) && is_value(words.clone()));
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None if has_value => {
                let value = words.next().cloned();
                asked.global.extend(value.clone());
                (text.into_owned(), value)
            }
            None => (text.into_owned(), None),
        };
        match (name.as_str(), value) {
            ("--log" | "-l", Some(value)) => asked.log = Some(PathBuf::from(value)),
            ("--log-format", Some(value)) => asked.log_is_json = value == "json",
            _ => {}
        }
    }
    Ok(asked)
}

/// Behind a flag that is in no list: is the next word its value, and not the verb?
fn is_value<'a>(mut rest: impl Iterator<Item = &'a OsString>) -> bool {
    let Some(next) = rest.next().filter(|next| !starts_with(next, "-")) else {
        return false;
    };
    let is_verb = |word: &OsString| VERBS.iter().any(|verb| word == verb);
    // Of two that are verbs, the one that starts.
    !is_verb(next) || (next != "start" && rest.next().is_some_and(|verb| verb == "start"))
}

fn starts_with(word: &OsStr, start: &str) -> bool {
    word.as_encoded_bytes().starts_with(start.as_bytes())
}

fn own(settings: &mut Settings, flag: &OsStr) -> Result<(), String> {
    let text = flag.to_str().ok_or("a flag that is not UTF-8")?;
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` has no value: `{text}=…`"))?;
    match (name, value) {
        ("--netpold-runtime", path) => settings.runtime = PathBuf::from(path),
        ("--netpold-socket", path) => settings.socket = PathBuf::from(path),
        ("--netpold-timeout", seconds) => {
            settings.timeout = seconds
                .trim_end_matches('s')
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .filter(|time| *time <= Duration::from_secs(600))
                .ok_or_else(|| format!("`{text}`: seconds, 600 at most"))?;
        }
        ("--netpold-unready", "refuse") => settings.unready = Unready::Refuse,
        ("--netpold-unready", "start") => settings.unready = Unready::Start,
        ("--netpold-unready", _) => return Err(format!("`{text}`: `refuse` or `start`")),
        _ => return Err(format!("there is no flag `{name}`")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        read(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn a_start_is_found_behind_all_that_engines_put_before_it() {
        let line = "--netpold-timeout=1.5 --netpold-runtime=/usr/bin/crun --root /run/start --log /l --log-format json \
                    --systemd-cgroup start abc";
        let found = asked(line).unwrap();
        assert_eq!(found.starts, Some("abc".into()));
        assert_eq!(found.settings.timeout, Duration::from_millis(1500));
        assert_eq!(found.settings.runtime, PathBuf::from("/usr/bin/crun"));
        assert_eq!(found.log, Some("/l".into()));
        assert!(found.log_is_json);
        assert_eq!(found.arguments.len(), 9);
        assert_eq!(found.global.len(), 7);
        let found = asked("--root=/r --log=/l start -- x").unwrap();
        assert_eq!(
            (found.starts, found.log),
            (Some("x".into()), Some("/l".into()))
        );
    }

    #[test]
    fn an_unknown_flag_hides_no_start() {
        for (line, container) in [
            ("--new start abc", Some("abc")),
            ("--new value start abc", Some("abc")),
            ("--new=value start abc", Some("abc")),
            ("--new --newer value --log /l start abc", Some("abc")),
            ("-n 3 start abc", Some("abc")),
            // Of what may be read in two ways, the one that waits.
            ("--new create start abc", Some("abc")),
            ("--new start", None),
            ("--new kill abc", None),
            ("--new value kill abc", None),
            ("--new value delete start", None),
            ("--new create --bundle /b start", None),
        ] {
            let found = asked(line).unwrap();
            assert_eq!(found.starts, container.map(OsString::from), "{line}");
            assert_eq!(found.arguments.len(), line.split_whitespace().count());
        }
        let found = asked("--new value --log /l start abc").unwrap();
        assert_eq!((found.log, found.global.len()), (Some("/l".into()), 4));
    }

    #[test]
    fn everything_else_is_the_other_runtimes() {
        for line in [
            "--root start create --bundle /b abc",
            "--version",
            "",
            "state start",
            "--debug kill start 9",
            "delete --force start",
            "exec --process /p start",
        ] {
            let found = asked(line).unwrap();
            assert_eq!(found.starts, None, "{line}");
            assert_eq!(found.arguments.len(), line.split_whitespace().count());
            assert_eq!(found.settings, Settings::default());
        }
    }

    #[test]
    fn its_own_flags_are_read_strictly() {
        for (line, problem) in [
            ("--netpold-timeout", "has no value"),
            ("--netpold-timeout=soon", "seconds"),
            ("--netpold-timeout=-1", "seconds"),
            ("--netpold-unready=maybe", "`refuse` or `start`"),
            ("--netpold-colour=red", "no flag `--netpold-colour`"),
        ] {
            let found = asked(line).unwrap_err();
            assert!(found.contains(problem), "{line}: {found}");
        }
        let found =
            asked("--netpold-unready=start --netpold-timeout=2s --netpold-socket=/s start a")
                .unwrap();
        assert_eq!(found.settings.unready, Unready::Start);
        assert_eq!(found.settings.timeout, Duration::from_secs(2));
        assert_eq!(found.settings.socket, PathBuf::from("/s"));
    }
}
