//! Whether a thread that the loop gives work gets on with it: what the watchdog is fed by, beside
//! the loop itself. Pure: the caller has the clock.

use std::time::Duration;

use tokio::time::Instant;

/// How long one piece of work may take. The largest takes seconds, and an emulated machine twenty
/// times that; a daemon that is ended for being slow would never get there.
const LONGEST: Duration = Duration::from_secs(300);

/// What a thread was seen to owe.
#[derive(Debug, Default)]
pub struct Progress {
    owed: Option<(u64, Instant)>,
}

impl Progress {
    /// Looks again: has the thread owed the same piece of work (`None`: it owes nothing) for too
    /// long?
    pub fn is_stuck(&mut self, owes: Option<u64>, now: Instant) -> bool {
        self.owed = owes.map(|piece| match self.owed {
            Some((before, since)) if before == piece => (piece, since),
            _ => (piece, now),
        });
        self.owed
            .is_some_and(|(_, since)| now.duration_since(since) > LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_owes_the_same_for_too_long_is_stuck() {
        let start = Instant::now();
        let mut progress = Progress::default();
        let mut look =
            |owes, seconds| progress.is_stuck(owes, start + Duration::from_secs(seconds));
        assert!(!look(None, 0));
        assert!(!look(None, 1_000), "it owes nothing");
        assert!(!look(Some(1), 2_000));
        assert!(!look(Some(1), 2_300));
        assert!(look(Some(1), 2_301));
        assert!(!look(Some(2), 2_302), "it got on");
        assert!(!look(None, 2_500));
        assert!(!look(Some(2), 2_900), "what it owed before was done");
        assert!(look(Some(2), 3_201));
    }
}
