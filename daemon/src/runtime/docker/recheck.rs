//! When the engine is asked again about what its answers do not explain: at once, after 10 ms, 20 ms and so on up to a
//! second, and every ten seconds once that has been of no use.
//!
//! Pure: time is handed in. A container may change its addresses as often as it likes, and so may not make the engine
//! answer as often: each subject has a budget. Called by `follow`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first wait.
const FIRST: Duration = Duration::from_millis(10);
/// The longest of those that double.
const LONGEST: Duration = Duration::from_secs(1);
/// So many of the longest, then [`SLOW`].
const LONG_ONES: u32 = 5;
/// While it stays unexplained.
const SLOW: Duration = Duration::from_secs(10);
/// A question costs its subject so much,
const COST: Duration = Duration::from_millis(500);
/// and it can be so far ahead: some thirty questions in a burst, then two a second.
const BURST: Duration = Duration::from_secs(15);

/// Subjects by their key, each with what is not explained about it.
#[derive(Debug)]
pub(super) struct Rechecks<K, Q> {
    subjects: BTreeMap<K, Subject<Q>>,
}

#[derive(Debug)]
struct Subject<Q> {
    /// `None`: nothing is; it is kept for its budget.
    question: Option<Q>,
    due: Instant,
    wait: Duration,
    long_ones: u32,
    /// The questions so far are paid for at this time.
    paid: Instant,
}

impl<Q> Subject<Q> {
    /// To be asked about as soon as its budget allows.
    fn restart(&mut self, now: Instant) {
        self.wait = FIRST;
        self.long_ones = 0;
        self.due = self.affordable(now);
    }

    /// This time, or the first after it at which its budget allows a question.
    fn affordable(&self, time: Instant) -> Instant {
        time.max(self.paid.checked_sub(BURST).unwrap_or(time))
    }
}

impl<K, Q> Default for Rechecks<K, Q> {
    fn default() -> Self {
        Self {
            subjects: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, Q: PartialEq> Rechecks<K, Q> {
    /// What is unexplained now, and nothing else is. What is new or another question is due at once.
    pub(super) fn open(&mut self, mut questions: BTreeMap<K, Q>, now: Instant) {
        self.subjects.retain(|key, subject| {
            match questions.remove(key) {
                Some(question) if subject.question.as_ref() == Some(&question) => {}
                Some(question) => {
                    subject.question = Some(question);
                    subject.restart(now);
                }
                None => subject.question = None,
            }
            subject.question.is_some() || subject.paid > now
        });
        for (key, question) in questions {
            let subject = Subject {
                question: Some(question),
                due: now,
                wait: FIRST,
                long_ones: 0,
                paid: now,
            };
            self.subjects.insert(key, subject);
        }
    }

    /// Something happened to it: what is unexplained about it is due soon again.
    pub(super) fn hurry(&mut self, key: &K, now: Instant) {
        if let Some(subject) = self.subjects.get_mut(key) {
            subject.restart(now);
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let open = self
            .subjects
            .values()
            .filter(|subject| subject.question.is_some());
        open.map(|subject| subject.due).min()
    }

    /// Those that are due, each with the next time set.
    pub(super) fn due(&mut self, now: Instant) -> Vec<K> {
        let mut due = Vec::new();
        for (key, subject) in &mut self.subjects {
            if subject.question.is_none() || subject.due > now {
                continue;
            }
            due.push(key.clone());
            subject.paid = subject.paid.max(now) + COST;
            subject.due = subject.affordable(now + subject.wait);
            subject.wait = match subject.wait {
                wait if wait < LONGEST => (wait * 2).min(LONGEST),
                _ => {
                    subject.long_ones += 1;
                    if subject.long_ones < LONG_ONES {
                        LONGEST
                    } else {
                        SLOW
                    }
                }
            };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn questions(all: &[(&'static str, u32)]) -> BTreeMap<&'static str, u32> {
        all.iter().copied().collect()
    }

    /// How long after the beginning it was asked, until so long after it.
    fn asked(rechecks: &mut Rechecks<&'static str, u32>, from: Instant, end: Duration) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(next) = rechecks.next().filter(|next| *next <= from + end) {
            assert_eq!(rechecks.due(next), ["a"]);
            times.push((next - from).as_millis() as u64);
        }
        times
    }

    #[test]
    fn it_is_asked_at_once_then_less_and_less_and_never_not_at_all() {
        let start = Instant::now();
        let mut rechecks = Rechecks::default();
        assert_eq!(rechecks.next(), None);
        rechecks.open(questions(&[("a", 1)]), start);
        let times = asked(&mut rechecks, start, Duration::from_secs(30));
        let expected = [
            0, 10, 30, 70, 150, 310, 630, 1_270, 2_270, 3_270, 4_270, 5_270, 6_270, 16_270, 26_270,
        ];
        assert_eq!(times, expected);
        // The same question is no news, another one is.
        let later = start + Duration::from_secs(30);
        rechecks.open(questions(&[("a", 1)]), later);
        assert!(rechecks.due(later).is_empty());
        rechecks.open(questions(&[("a", 2)]), later);
        assert_eq!(rechecks.due(later), ["a"]);
        assert!(rechecks.due(later).is_empty());
        rechecks.hurry(&"a", later);
        assert_eq!(rechecks.due(later), ["a"]);
        rechecks.open(BTreeMap::new(), later);
        assert_eq!(rechecks.next(), None);
    }

    /// An address that comes and goes as fast as it can.
    #[test]
    fn endless_questions_are_asked_twice_a_second() {
        let start = Instant::now();
        let mut rechecks = Rechecks::default();
        let mut asked = 0;
        for milliseconds in 0..60_000 {
            let now = start + Duration::from_millis(milliseconds);
            let open = if milliseconds % 2 == 0 {
                questions(&[("a", milliseconds as u32)])
            } else {
                BTreeMap::new()
            };
            rechecks.open(open, now);
            asked += rechecks.due(now).len();
        }
        assert!((100..=160).contains(&asked), "{asked}");
        // Nothing is kept of what is settled and paid for.
        let end = start + Duration::from_secs(120);
        rechecks.open(BTreeMap::new(), end);
        assert!(rechecks.subjects.is_empty());
    }
}
