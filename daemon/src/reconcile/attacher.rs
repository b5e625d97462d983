//! Puts programs on interfaces, on a thread of its own: each hook waits 8-16 ms for RCU.
//!
//! Orders are worked off one at a time, the urgent first. What is ordered twice is done
//! once; a later order about an interface replaces an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::UnboundedSender;

use super::worker::Worker;
use crate::datapath::{Attached, Attachments, Within, is_inside};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Put both programs on it. Urgent: before those that are not.
    Attach {
        /// The interface's number in the tables.
        ifindex: u32,
        /// Where it is, if it is inside another namespace and that is known.
        within: Option<Within>,
        /// Some policy isolates the endpoint behind it, or the endpoint is not known.
        urgent: bool,
    },
    /// Take both off.
    Detach(u32),
    /// Say where they are. The number is the caller's: the answer has it.
    Look(u64),
}

/// What was done.
#[derive(Debug)]
pub enum Answer {
    /// Both programs are on it.
    On(u32),
    /// It is no more.
    Gone(u32),
    /// Not both are.
    Failed(u32, String),
    /// Where both are.
    Found {
        /// The number of the order, or of the last of several orders that were one look.
        look: u64,
        /// By interface; `None`: that can't be seen.
        on: Option<BTreeSet<u32>>,
        /// What is in force and not pinned, and why.
        unpinned: Option<String>,
    },
}

/// What is waiting to be done.
#[derive(Debug, Default)]
struct Queue {
    /// By interface: whether it is urgent, and where it is.
    attach: BTreeMap<u32, (bool, Option<Within>)>,
    detach: BTreeSet<u32>,
    look: Option<u64>,
}

impl Queue {
    fn add(&mut self, order: Order) {
        match order {
            Order::Attach {
                ifindex,
                within,
                urgent,
            } => {
                self.detach.remove(&ifindex);
                let (was_urgent, place) = self.attach.entry(ifindex).or_default();
                *was_urgent |= urgent;
                *place = within.or(place.take());
            }
            Order::Detach(ifindex) => {
                self.attach.remove(&ifindex);
                self.detach.insert(ifindex);
            }
            Order::Look(number) => self.look = Some(number),
        }
    }

    fn next(&mut self) -> Option<Order> {
        let urgent = self.attach.iter().find(|(_, (urgent, _))| *urgent);
        let next = urgent.or_else(|| self.attach.iter().next());
        if let Some((ifindex, (urgent, within))) = next
            .map(|(ifindex, _)| *ifindex)
            .and_then(|ifindex| self.attach.remove_entry(&ifindex))
        {
            return Some(Order::Attach {
                ifindex,
                within,
                urgent,
            });
        }
        if let Some(ifindex) = self.detach.pop_first() {
            return Some(Order::Detach(ifindex));
        }
        self.look.take().map(Order::Look)
    }
}

/// Starts the thread, in the calling thread's network namespace.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(attachments: Attachments) -> io::Result<Worker<Order, Answer>> {
    Worker::spawn("attacher", |inbox, outbox| work(attachments, inbox, outbox))
}

fn work(mut attachments: Attachments, inbox: &Receiver<Order>, outbox: &UnboundedSender<Answer>) {
    let mut queue = Queue::default();
    loop {
        while let Ok(order) = inbox.try_recv() {
            queue.add(order);
        }
        let answer = match queue.next() {
            Some(Order::Attach {
                ifindex, within, ..
            }) => {
                let done = if is_inside(ifindex) {
                    attachments.attach_within(ifindex, within.as_ref())
                } else {
                    attachments.attach(ifindex)
                };
                match done {
                    Ok(Attached::Yes) => Answer::On(ifindex),
                    Ok(Attached::Gone) => Answer::Gone(ifindex),
                    Err(error) => Answer::Failed(ifindex, error.to_string()),
                }
            }
            Some(Order::Detach(ifindex)) => {
                if let Err(error) = attachments.detach(ifindex) {
                    tracing::error!(ifindex, %error, "the programs could not be taken off");
                }
                continue;
            }
            Some(Order::Look(number)) => look(&mut attachments, number),
            None => match inbox.recv() {
                Ok(order) => {
                    queue.add(order);
                    continue;
                }
                Err(_) => return,
            },
        };
        if outbox.send(answer).is_err() {
            return;
        }
    }
}

fn look(attachments: &mut Attachments, look: u64) -> Answer {
    let unpinned = match attachments.restore() {
        Ok(false) => None,
        Ok(true) => {
            tracing::warn!("pins were removed by somebody else, and are put back");
            None
        }
        Err(error) => Some(error.to_string()),
    };
    let on = match attachments.attached() {
        Ok(hooks) => {
            let complete = hooks.into_iter().filter(|(_, hooks)| hooks.complete());
            Some(complete.map(|(ifindex, _)| ifindex).collect())
        }
        Err(error) => {
            tracing::error!(%error, "it can't be seen where programs are attached");
            None
        }
    };
    Answer::Found { look, on, unpinned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_go_first_and_the_last_word_counts() {
        let mut queue = Queue::default();
        let attach = |ifindex, urgent| Order::Attach {
            ifindex,
            within: None,
            urgent,
        };
        for order in [
            Order::Look(1),
            attach(3, false),
            attach(4, false),
            attach(5, true),
            attach(4, true),
            Order::Detach(3),
            Order::Detach(6),
            attach(6, false),
            Order::Look(2),
            attach(4, false),
        ] {
            queue.add(order);
        }
        let done: Vec<Order> = std::iter::from_fn(|| queue.next()).collect();
        let expected = [
            attach(4, true),
            attach(5, true),
            attach(6, false),
            Order::Detach(3),
            Order::Look(2),
        ];
        assert_eq!(done, expected);
    }
}
