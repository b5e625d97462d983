//! Publishes what is in force: to the API, to systemd and to the log.

use std::sync::Arc;

use tokio::sync::watch;

use super::report::{self, StatusInput};
use crate::api::Published;
use crate::api::wire::Status;
use crate::health::seconds_since_1970;
use crate::telemetry::systemd;

/// Where states are published.
pub struct Publication {
    published: watch::Sender<Arc<Published>>,
    /// systemd was told that netpold is ready.
    ready: bool,
}

impl Publication {
    /// Publishes there from now on.
    pub const fn new(published: watch::Sender<Arc<Published>>) -> Self {
        Self {
            published,
            ready: false,
        }
    }

    /// Publishes a state. `is_done`: the newest desired state is in force, as far as it can be.
    pub fn publish(&mut self, input: &StatusInput<'_>, is_done: bool) {
        let mut status = report::status(input);
        let before = Arc::clone(&self.published.borrow());
        keep_ages(&before.status, &mut status, seconds_since_1970());
        if before.status != status {
            report::log(&before.status, &status);
            if self.ready {
                systemd::status(&report::line(&status));
            }
        }
        if !self.ready && is_done {
            self.ready = true;
            tracing::info!("{}", report::line(&status));
            systemd::ready(&report::line(&status));
        }
        let mut origins = input.desired.origins.clone();
        for (name, asked) in &input.desired.asked_from_host {
            if let Some(origin) = origins.pods.get_mut(name) {
                origin.asked_from_host = report::unseen(asked, input.programs).is_some();
            }
        }
        self.published.send_replace(Arc::new(Published {
            world: Arc::clone(&input.applied.world),
            origins,
            status,
        }));
    }
}

/// An interface that was unidentified before has been so since then.
fn keep_ages(before: &Status, status: &mut Status, now: u64) {
    for one in &mut status.unidentified {
        let mut known = before.unidentified.iter();
        let known =
            known.find(|known| (known.ifindex, &known.interface) == (one.ifindex, &one.interface));
        one.since = known.and_then(|known| known.since).or(Some(now));
    }
}
