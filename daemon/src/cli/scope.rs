//! `-n`, `-A`, `-l`: which objects a verb is about, as in kubectl.

use netpol_engine::labels::{Labels, Selector};
use netpol_engine::policy::ObjectName;

use super::selector;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Scope {
    /// Of this Namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Of all Namespaces, whatever -n says
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Whose labels match, as in `app=web,tier!=db,env in (a,b),!canary`
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selector::parse)]
    pub selector: Option<Selector>,
}

impl Scope {
    /// The one Namespace that is asked about; `None`: all.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        if self.all_namespaces {
            return None;
        }
        Some(self.namespace.as_deref().unwrap_or("default"))
    }

    /// The one Namespace, where the command line names one; else all are meant.
    #[must_use]
    pub fn named(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|_| !self.all_namespaces)
    }

    /// Is the object one of them?
    #[must_use]
    pub fn holds(&self, name: &ObjectName, labels: &Labels) -> bool {
        self.namespace()
            .is_none_or(|wanted| name.namespace == wanted)
            && self.selects(labels)
    }

    /// Do the labels match `-l`?
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
    }

    /// Does the command line narrow anything?
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.named().is_some() || self.selector.is_some()
    }
}
