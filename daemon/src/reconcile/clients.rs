//! Answers the clients of the API that wait for a full sync, or for a container to be in force.

use std::fs::File;

use super::control::{Control, Waiters};
use super::events::Inputs;
use super::observed::Engine;
use super::readiness::{self, Asked, ReadinessInput};
use super::report;
use super::sources::Sources;
use crate::api::wire::Synced;
use crate::api::{ReadyRequest, SyncRequest};

/// The clients that wait.
#[derive(Default)]
pub struct Clients {
    waiters: Waiters,
}

impl Clients {
    /// A client waits for a full sync of what is listed from now on.
    pub fn add_sync(&mut self, request: SyncRequest, control: &Control) {
        self.waiters.add_sync(control.rollout().newest(), request);
    }

    /// A client asks whether a network namespace is in force. Its interfaces may be newer than those that were told of, so it
    /// is time to [`Sources::gather`].
    pub fn add_start(&mut self, request: ReadyRequest, sources: &mut Sources) {
        sources.mark_links_stale();
        let asked = inspect(sources, &request.netns);
        self.waiters
            .add_start(request, asked, sources.link_changes());
        sources.expect(self.waiters.awaited());
    }

    /// Answers the clients that have waited for what is in force now.
    pub fn answer(&mut self, control: &Control, inputs: &mut Inputs) {
        self.answer_syncs(control, inputs);
        self.answer_starts(control, &mut inputs.sources);
    }

    fn answer_syncs(&mut self, control: &Control, inputs: &mut Inputs) {
        let settled = control.rollout().settled();
        let observed = inputs.sources.observed();
        let is_listing = |engine: &Engine| engine.snapshot.connected && engine.snapshot.incomplete;
        if !self.waiters.has_sync(settled)
            || !control.is_done()
            || !inputs.lints.is_done()
            || !observed.store.settled
            || observed.engines().any(is_listing)
        {
            return;
        }
        let synced = Synced {
            generation: control.rollout().applied().generation,
            rejected: report::rejected(observed),
            failures: control.failures(observed),
            findings: inputs.lints.news(&observed.store),
        };
        self.waiters.answer_syncs(settled, &synced);
    }

    fn answer_starts(&mut self, control: &Control, sources: &mut Sources) {
        let changes = sources.link_changes();
        self.waiters
            .inspect(changes, |netns| inspect(sources, netns));
        let input = ReadinessInput {
            observed: sources.observed(),
            desired: control.desired(),
            world: &control.rollout().applied().world,
            programs: control.attachments().programs(),
        };
        self.waiters
            .answer_starts(|asked| readiness::decide(asked, &input));
        // This only takes namespaces out: a new one is expected since its client asked.
        sources.expect(self.waiters.awaited());
    }
}

fn inspect(sources: &mut Sources, netns: &File) -> Result<Asked, String> {
    sources.inspect(netns).map_err(|error| error.to_string())
}
