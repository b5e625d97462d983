//! When it is said that a file is not accepted, and that it is again.
//!
//! Tools write files in several steps, and a deployment puts one file after the other: what is
//! wrong for a moment is no error. So an error is logged once it has stood for [`STOOD`], and every
//! one that was logged has its all-clear. `netpol status` and `netpol wait` tell of it at once.
//! Called by `store` only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use netpol_engine::diagnostic::Diagnostic;

use super::Rejected;

/// How long something must be wrong to be an error.
pub(super) const STOOD: Duration = Duration::from_secs(2);

/// Files that are not accepted, by path.
#[derive(Debug, Default)]
pub(super) struct Alarms(BTreeMap<String, Alarm>);

#[derive(Debug)]
struct Alarm {
    /// Since when it is not accepted, for whatever reason.
    since: Instant,
    /// What was logged last.
    logged: Option<Vec<Diagnostic>>,
}

impl Alarms {
    /// Takes in what is not accepted now, and logs what is due. Gives how soon more may be.
    pub(super) fn look(&mut self, rejected: &[Rejected], now: Instant) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        let mut before = std::mem::take(&mut self.0);
        for one in rejected {
            let mut alarm = before.remove(&one.path).unwrap_or(Alarm {
                since: now,
                logged: None,
            });
            let stood = now.duration_since(alarm.since);
            if stood < STOOD {
                let wait = STOOD - stood;
                next = Some(next.map_or(wait, |known| known.min(wait)));
            } else if alarm.logged.as_ref() != Some(&one.diagnostics) {
                for finding in one.diagnostics.iter().filter(|finding| finding.is_error()) {
                    tracing::error!(in_force = one.in_force, "not accepted: {finding}");
                }
                alarm.logged = Some(one.diagnostics.clone());
            }
            self.0.insert(one.path.clone(), alarm);
        }
        for (path, alarm) in before {
            if alarm.logged.is_some() {
                let there = std::path::Path::new(&path).symlink_metadata().is_ok();
                let now = if there {
                    "is accepted again"
                } else {
                    "is gone"
                };
                tracing::info!("`{}` {now}: the error is over", path.escape_debug());
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::{finding, rule};
    use super::*;

    fn rejected(message: &str) -> Rejected {
        Rejected {
            path: "/m/a.yaml".to_owned(),
            since: SystemTime::UNIX_EPOCH,
            in_force: true,
            text: None,
            diagnostics: vec![finding("/m/a.yaml", rule::CUT, message, "")],
        }
    }

    impl Alarms {
        fn logged(&self) -> Vec<bool> {
            self.0
                .values()
                .map(|alarm| alarm.logged.is_some())
                .collect()
        }
    }

    #[test]
    fn what_is_wrong_for_a_moment_is_no_error() {
        let mut alarms = Alarms::default();
        let begin = Instant::now();
        assert_eq!(alarms.look(&[rejected("x")], begin), Some(STOOD));
        assert_eq!(alarms.logged(), [false]);
        // Another error of the same file is no new beginning.
        let later = begin + STOOD / 2;
        assert_eq!(alarms.look(&[rejected("y")], later), Some(STOOD / 2));
        assert_eq!(alarms.look(&[], later), None);
        assert_eq!(alarms.logged(), [false; 0]);
        alarms.look(&[rejected("x")], begin);
        assert_eq!(alarms.look(&[rejected("y")], begin + STOOD), None);
        assert_eq!(alarms.logged(), [true]);
        assert_eq!(alarms.look(&[], begin + STOOD), None);
    }
}
