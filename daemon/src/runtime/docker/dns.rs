//! Which resolvers the engine gave a container, and from which network namespace it asks them: from an inspection
//! (`HostConfig.Dns`) and the resolv.conf(5) of the container. Called by `model`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::wire;
use crate::runtime::container::{AskedFrom, Container, Dns};
use crate::runtime::resolvers::askable;

/// Engines up to this version of the API ask all resolvers that are no loopback address from the container's
/// namespace (26.1 does, 28 does not).
const LAST_TO_ASK_INSIDE: (u32, u32) = (1, 45);
/// Networks without a resolver of the engine's own: their containers ask by themselves.
const WITHOUT_RESOLVER: [&str; 3] = ["bridge", "host", "none"];

/// What is known of the resolvers of a container that was not inspected.
pub(super) const fn before_inspection() -> Dns {
    Dns {
        servers: BTreeSet::new(),
        asked_from: AskedFrom::Unknown,
    }
}

/// From where the resolvers of a container that is to start will be asked, if it is given none of its own. No engine answers
/// an inspection of it while it starts. It is taken for what most are on such an engine: a program too many is taken off
/// again, and what was asked before there is one can't be taken back.
pub(super) fn before_start(container: &Container, api: Option<(u32, u32)>) -> AskedFrom {
    let mut networks = container.networks.iter();
    if networks.any(|network| !WITHOUT_RESOLVER.contains(&network.name.as_str())) {
        by_engine(api)
    } else {
        AskedFrom::Container
    }
}

/// From where an engine that speaks this version of the API asks the host's resolvers.
fn by_engine(api: Option<(u32, u32)>) -> AskedFrom {
    if api.is_some_and(|api| api > LAST_TO_ASK_INSIDE) {
        AskedFrom::Host
    } else {
        AskedFrom::HostIfLoopback
    }
}

/// What an inspection says of a container's resolvers.
pub(super) fn from_inspection(inspection: &wire::Inspection) -> Dns {
    let given = &inspection.host_config.dns;
    let mut servers: BTreeSet<IpAddr> = given
        .iter()
        .filter_map(|text| text.parse().ok())
        .filter_map(askable)
        .collect();
    let networks = inspection.network_settings.iter();
    let mut networks = networks.flat_map(|settings| settings.networks.keys());
    let has_resolver = networks.any(|name| !WITHOUT_RESOLVER.contains(&name.as_str()));
    let Some(written) = &inspection.written else {
        let has_not_started = inspection.resolv_conf_path.is_empty();
        return Dns {
            servers,
            asked_from: if has_not_started && has_resolver && given.is_empty() {
                by_engine(inspection.api)
            } else {
                AskedFrom::Container
            },
        };
    };
    if written.proved {
        servers.extend(&written.inside);
    }
    let asked_from = if !has_resolver || !given.is_empty() {
        AskedFrom::Container
    } else if written.host {
        AskedFrom::Host
    } else if written.proved && !written.inside.is_empty() {
        AskedFrom::Container
    } else {
        by_engine(inspection.api)
    };
    Dns {
        servers,
        asked_from,
    }
}

#[cfg(test)]
mod tests;
