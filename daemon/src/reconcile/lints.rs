//! What the lints find in the manifests in force, when they come in force.
//!
//! A policy that is valid and may not mean what it says is told of at once, as kubectl prints
//! `Warning:`: in the log, and to the next `netpol wait`. The lints run on a thread of their own,
//! once for each change of the manifests. Not every Pod that a policy is for may be there at that
//! moment: of selectors only slips of the pen are found. Changes nothing that is enforced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use netpol_engine::diagnostic::Diagnostic;
use netpol_engine::lint::{self, Census, Scope, Silenced};
use netpol_engine::manifest::assemble;
use tokio::sync::mpsc;

use super::assemble::Desired;
use crate::api::wire::Problem;
use crate::store::StoreView;

/// What to look at.
struct Order {
    revision: u64,
    desired: Arc<Desired>,
    store: Arc<StoreView>,
}

/// What was found.
#[derive(Debug)]
pub struct Answer {
    revision: u64,
    findings: Vec<Diagnostic>,
}

/// The thread, and what it has found.
pub struct Lints {
    orders: Sender<Order>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// The manifests that were given to it last.
    asked: Option<u64>,
    /// Those that it has answered about last; the same as `asked` where it has ended.
    answered: Option<u64>,
    findings: Vec<Diagnostic>,
    /// What waiting clients were told.
    told: BTreeSet<String>,
}

impl Lints {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn() -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let (outbox, answers) = mpsc::unbounded_channel();
        thread::Builder::new()
            .name("lints".to_owned())
            .spawn(move || work(&inbox, &outbox))?;
        Ok(Self {
            orders,
            answers,
            asked: None,
            answered: None,
            findings: Vec::new(),
            told: BTreeSet::new(),
        })
    }

    /// Has the manifests looked at, where they are others than the last.
    pub fn look(&mut self, desired: &Arc<Desired>, store: &Arc<StoreView>) {
        if self.asked == Some(store.revision) {
            return;
        }
        self.asked = Some(store.revision);
        let order = Order {
            revision: store.revision,
            desired: Arc::clone(desired),
            store: Arc::clone(store),
        };
        if self.orders.send(order).is_err() {
            self.answered = self.asked;
        }
    }

    /// The next answer. Dropping the future loses nothing.
    pub async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => {
                // Advice is missing, and nothing else.
                if self.answered != self.asked {
                    tracing::error!("the lints have ended unexpectedly: `netpol check` has them");
                    self.answered = self.asked;
                }
                std::future::pending().await
            }
        }
    }

    /// Takes in what was found, and logs what is new with this change.
    pub fn found(&mut self, answer: Answer) {
        let is_first = self.answered.is_none();
        self.answered = Some(answer.revision);
        let known: BTreeSet<String> = self.findings.iter().map(ToString::to_string).collect();
        let new = answer
            .findings
            .iter()
            .map(ToString::to_string)
            .filter(|found| !known.contains(found));
        if is_first {
            // No news, after a restart.
            let all = new.count();
            if all > 0 {
                tracing::info!("the lints find {all} things in the manifests: see `netpol audit`");
            }
        } else {
            for found in new {
                tracing::warn!("{found}");
            }
        }
        self.findings = answer.findings;
    }

    /// Is all of it known?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.asked == self.answered
    }

    /// The findings that no waiting client was told yet: those, and what the parser warns of.
    pub fn news(&mut self, store: &StoreView) -> Vec<Problem> {
        let of_files = store.accepted.iter().flat_map(|one| &one.file.diagnostics);
        let all: Vec<&Diagnostic> = self.findings.iter().chain(of_files).collect();
        let told: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        let news = all
            .into_iter()
            .filter(|found| !self.told.contains(&found.to_string()))
            .map(Problem::from)
            .collect();
        self.told = told;
        news
    }
}

fn work(inbox: &Receiver<Order>, outbox: &mpsc::UnboundedSender<Answer>) {
    while let Ok(mut order) = inbox.recv() {
        // Only the newest matters.
        while let Ok(newer) = inbox.try_recv() {
            order = newer;
        }
        let findings = find(&order);
        let revision = order.revision;
        if outbox.send(Answer { revision, findings }).is_err() {
            return;
        }
    }
}

fn find(order: &Order) -> Vec<Diagnostic> {
    let silenced = Silenced::by(
        order
            .store
            .objects()
            .map(|(object, ..)| (object.id(), &object.annotations)),
    );
    let mut findings = lint::lint(
        &order.desired.world,
        Census::Partial,
        &[Scope::Policies, Scope::World],
    );
    findings.retain(|found| !silenced.holds(&found.object, found.code));
    let files: Vec<_> = order.store.files().collect();
    let text = |path: &str| {
        let mut accepted = order.store.accepted.iter();
        accepted
            .find(|version| version.file.path == path)
            .map(|version| version.text.as_str())
    };
    lint::diagnostics(findings, &assemble(files), text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use netpol_engine::manifest;
    use netpol_engine::world::World;

    use super::*;
    use crate::store::Accepted;

    /// Egress without DNS.
    const CLOSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
        metadata: {name: closed, namespace: shop}\nspec:\n  podSelector: {}\n  \
        policyTypes: [Egress]\n  egress: [{to: [{podSelector: {}}]}]\n";

    fn store(revision: u64, text: &str) -> (Arc<Desired>, Arc<StoreView>) {
        let file = manifest::parse("/m/a.yaml", text);
        let world = World::from_objects(&file.documents);
        let accepted = Accepted {
            key: "a.yaml".to_owned(),
            path: "/m/a.yaml".to_owned(),
            order: 1,
            since: vec![SystemTime::UNIX_EPOCH; file.documents.len()],
            text: text.to_owned(),
            file,
        };
        let desired = Desired {
            world,
            ..Desired::default()
        };
        let view = StoreView {
            accepted: vec![Arc::new(accepted)],
            revision,
            ..StoreView::default()
        };
        (Arc::new(desired), Arc::new(view))
    }

    #[tokio::test]
    async fn findings_are_told_once_with_their_place() {
        let mut lints = Lints::spawn().unwrap();
        let mut told = Vec::new();
        for (revision, text) in [(1, ""), (2, CLOSED), (3, CLOSED), (4, "")] {
            let (desired, view) = store(revision, text);
            lints.look(&desired, &view);
            assert!(!lints.is_done());
            let answer = lints.answer().await;
            lints.found(answer);
            assert!(lints.is_done());
            told.push(lints.news(&view));
        }
        let rules = |problems: &[Problem]| -> Vec<(String, usize)> {
            let places = problems.iter().map(|one| (one.rule.clone(), one.line));
            places.collect()
        };
        assert_eq!(rules(&told[0]), []);
        assert_eq!(rules(&told[1]), [("dns-missing".to_owned(), 7)]);
        assert_eq!(rules(&told[2]), []);
        assert_eq!(rules(&told[3]), []);
    }
}
