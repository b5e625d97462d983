//! `netpol verdict`: would this connection be allowed?

use std::io::Write;

use netpol_engine::evaluate::{By, EndpointSpec, Side};
use netpol_engine::explain::{Explanation, explain};
use netpol_engine::policy::Protocol;

use super::Exit;
use super::output::{Form, paint};
use super::source::Source;
use crate::api::wire::Listing;
use crate::printable::printable;

/// Would this connection be allowed?
///
/// Both ends have a say: the policies that select the sender for egress, and those
/// that select the receiver for ingress. An end is `namespace/name` of a Pod, or
/// `ip:ADDRESS`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 where it is allowed, 1 where it is denied. Two Pods that have IPv4 and IPv6 are
asked about IPv4; where IPv6 gets another answer, that is said too.

Examples:
  netpol verdict --from web/frontend --to payments/api-server --port 8080
  netpol verdict --from payments/api-server --to ip:192.0.2.53 --port 53 --protocol UDP
  netpol verdict --manifests ./manifests --from a/b --to c/d --port 80 -o json")]
pub struct Verdict {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    form: Form,
}

/// The connection that is asked about.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// Who opens the connection
    #[arg(long, value_name = "REF")]
    pub from: EndpointSpec,
    /// Who is asked
    #[arg(long, value_name = "REF")]
    pub to: EndpointSpec,
    #[command(flatten)]
    pub port: Port,
}

/// Protocol and port.
#[derive(Debug, clap::Args)]
pub struct Port {
    /// Destination port
    #[arg(long, value_name = "N")]
    pub port: u16,
    /// TCP, UDP or SCTP
    #[arg(long, value_name = "PROTOCOL", default_value = "TCP")]
    pub protocol: Protocol,
}

impl Verdict {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let listing = match source.listing_with_resolver() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let Connection { from, to, port } = &self.connection;
        let explanation = explain(&listing.world, from, to, port.protocol, port.port)?;
        if !self.form.output.value(out, &explanation)? {
            writeln!(
                out,
                "{}: {} -> {} {} {}",
                word(explanation.allowed),
                printable(&from.to_string()),
                printable(&to.to_string()),
                port.protocol,
                port.port
            )?;
            writeln!(
                out,
                "  egress:  {}",
                side(&explanation.egress.verdict, from)
            )?;
            writeln!(out, "  ingress: {}", side(&explanation.ingress.verdict, to))?;
            if let Some(other) = over_ipv6(&explanation) {
                writeln!(out, "  {other}")?;
            }
            if let Some(note) = unseen_questions(&listing, &self.connection, &explanation) {
                writeln!(out, "  {note}")?;
            }
        }
        Ok(Exit::answer(explanation.allowed))
    }
}

/// What is to be said of names that are asked for past a verdict.
pub(super) fn unseen_questions(
    listing: &Listing,
    connection: &Connection,
    explanation: &Explanation,
) -> Option<String> {
    let Connection {
        from: EndpointSpec::Pod(from),
        port,
        ..
    } = connection
    else {
        return None;
    };
    let unseen = listing.origins.pods.get(from)?.asked_from_host;
    (unseen && port.port == 53 && !explanation.egress.verdict.allowed).then(|| {
        format!(
            "{} can resolve names all the same: its engine asks from the host's network, and policy is not sure to see the \
             questions (`netpol status` says why)",
            printable(&from.to_string())
        )
    })
}

/// `allowed` or `denied`, in colour where there is one.
pub(super) fn word(allowed: bool) -> String {
    paint(if allowed { "allowed" } else { "denied" }, allowed)
}

/// What holds over IPv6 and whose policies say so, where over IPv4 it does not hold.
pub(super) fn over_ipv6(explanation: &Explanation) -> Option<String> {
    let families = explanation.families.as_ref()?;
    let Explanation {
        from,
        to,
        egress,
        ingress,
        ..
    } = explanation;
    let turned: Vec<String> = [
        ("egress", &egress.verdict, &families.v6.egress, from),
        ("ingress", &ingress.verdict, &families.v6.ingress, to),
    ]
    .into_iter()
    .filter(|(_, v4, v6, _)| v4.allowed != v6.allowed)
    .map(|(direction, _, v6, party)| format!("{direction} {}", side(v6, party)))
    .collect();
    (families.v4 != families.v6.allowed).then(|| {
        let word = if families.v4 { "denied" } else { "allowed" };
        format!("over IPv6: {word} ({})", turned.join("; "))
    })
}

/// What one end says, in a sentence.
fn side(side: &Side, party: &EndpointSpec) -> String {
    let party = printable(&party.to_string()).into_owned();
    let by = || rules(&side.by);
    let said = match (side.allowed, side.by.is_empty()) {
        (true, true) => format!("allowed: {}", side.reason.text()),
        (true, false) => format!("allowed by {}", by()),
        (false, true) => format!("denied: {}", side.reason.text()),
        (false, false) => format!("denied: {} isolates {party}, and no rule allows it", by()),
    };
    if side.audited.is_empty() {
        return said;
    }
    format!(
        "{said}; audited: would be denied by {}",
        rules(&side.audited)
    )
}

/// `payments/api rule 0 peer 1; payments/all`.
pub(super) fn rules(by: &[By]) -> String {
    let all = by.iter().map(|by| printable(&rule(by)).into_owned());
    few(&all.collect::<Vec<_>>(), "; ")
}

/// Names that are listed one by one.
const MOST_NAMES: usize = 4;

/// `a, b, c and 12 more`.
pub(super) fn few(all: &[String], separator: &str) -> String {
    if all.len() <= MOST_NAMES {
        return all.join(separator);
    }
    let (shown, rest) = all.split_at(MOST_NAMES - 1);
    format!("{} and {} more", shown.join(separator), rest.len())
}

/// `payments/api, rule 0, peer 1`.
fn rule(by: &By) -> String {
    let mut text = by.policy.to_string();
    if let Some(rule) = by.rule {
        text.push_str(&format!(" rule {rule}"));
    }
    if let Some(peer) = by.peer {
        text.push_str(&format!(" peer {peer}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_are_named() {
        let names = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>();
        assert_eq!(few(&names(4), "; "), "p0; p1; p2; p3");
        assert_eq!(few(&names(40), "; "), "p0; p1; p2 and 37 more");
    }
}
