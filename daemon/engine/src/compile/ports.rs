//! Ports that rules name, and what the names stand for at one Pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::Protocol;

/// A port's name, as a rule gives it.
pub(super) type PortName = (Protocol, Arc<str>);

/// What names stand for at one Pod; those that it does not have are not in it.
pub(super) type Resolved = BTreeMap<PortName, u16>;
