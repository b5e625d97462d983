//! `netpol verdict`: would this connection be allowed?

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use netpol_engine::evaluate::{By, EndpointSpec, Side, evaluate};
use netpol_engine::explain::{Explanation, explain};
use netpol_engine::policy::{Direction, ObjectName, Protocol};
use netpol_engine::world::World;

use super::Exit;
use super::output::{Form, paint};
use super::reference::{PortArguments, PortReference, Reference, pairs};
use super::source::Source;
use super::test::expectations::{self, Expectation};
use serde::Serialize;

use crate::api::wire::Listing;
use crate::printable::printable;

/// Would this connection be allowed?
///
/// Both ends have a say: the policies that select the sender for egress, and those
/// that select the receiver for ingress. An end is `namespace/name` of a Pod or of a
/// Compose service (all its containers), `host`, `world` (any address outside that no
/// ipBlock names), or an address.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 where it is allowed, 1 where it is denied. Two Pods that have IPv4 and IPv6 are
asked about IPv4; where IPv6 gets another answer, that is said too.

Examples:
  netpol verdict --from web/frontend --to payments/api-server --port 8080
  netpol verdict --from payments/api-server --to 192.0.2.53 --port 53/UDP
  netpol verdict --from world --to web/frontend --port http
  netpol verdict --manifests ./manifests --expect expected.yaml
  netpol verdict --manifests ./manifests --from a/b --to c/d --port 80 -o json")]
pub struct Verdict {
    /// The end that opens the connection
    #[arg(long, value_name = "REF", required_unless_present = "expect")]
    from: Option<Reference>,
    /// The end that is asked
    #[arg(long, value_name = "REF", required_unless_present = "expect")]
    to: Option<Reference>,
    /// Destination port: `5432`, `53/UDP`, or the name of one
    #[arg(
        long,
        value_name = "PORT[/PROTOCOL]",
        required_unless_present = "expect"
    )]
    port: Option<PortReference>,
    /// TCP, UDP or SCTP, where --port does not say
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,
    /// Ask about each connection of this file instead, in the form of `netpol test`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "port", "protocol"])]
    expect: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// The connection that is asked about.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// The end that opens the connection
    #[arg(long, value_name = "REF")]
    pub from: Reference,
    /// The end that is asked
    #[arg(long, value_name = "REF")]
    pub to: Reference,
    #[command(flatten)]
    pub port: PortArguments,
}

impl Connection {
    /// Every connection that is meant, answered: more than one where an end is a service of more than one container.
    ///
    /// # Errors
    /// An end or the port is not known.
    pub(super) fn explain(&self, world: &mut World) -> anyhow::Result<Vec<Explanation>> {
        let (senders, receivers) = (self.from.resolve(world)?, self.to.resolve(world)?);
        let is_meant = |name: &ObjectName| {
            let mut pods = receivers.iter();
            pods.any(|end| matches!(end, EndpointSpec::Pod(pod) if pod == name))
        };
        let (protocol, port) = self.port.resolve(world, is_meant)?;
        pairs(&senders, &receivers)
            .map(|(from, to)| Ok(explain(world, from, to, protocol, port)?))
            .collect()
    }

    /// What an end that is no address of its own stands for.
    pub(super) fn notes(&self, first: &Explanation) -> Vec<String> {
        let ends = [(&self.from, &first.from), (&self.to, &first.to)];
        let notes = ends
            .into_iter()
            .filter_map(|(written, end)| match (written, end) {
                (Reference::World, EndpointSpec::Address(address)) => Some(format!(
                    "`world` stands for an address that no ipBlock names: {address}"
                )),
                _ => None,
            });
        notes.collect()
    }
}

/// One answer as it is, and several below one verdict: it is 'no' where one of them is.
pub(super) fn value(form: &Form, out: &mut dyn Write, all: &[Explanation]) -> anyhow::Result<bool> {
    match all {
        [one] => form.output.value(out, one),
        _ => {
            let allowed = all.iter().all(|one| one.allowed);
            let value = serde_json::json!({"allowed": allowed, "verdicts": all});
            form.output.value(out, &value)
        }
    }
}

impl Verdict {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let mut listing = match source.listing_with_resolver() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        if let Some(file) = &self.expect {
            return self.hold(file, &mut listing.world, out);
        }
        let (Some(from), Some(to), Some(port)) = (&self.from, &self.to, &self.port) else {
            bail!("say which connection: --from, --to and --port; or --expect FILE");
        };
        let connection = Connection {
            from: from.clone(),
            to: to.clone(),
            port: PortArguments {
                port: port.clone(),
                protocol: self.protocol,
            },
        };
        let all = connection.explain(&mut listing.world)?;
        if !value(&self.form, out, &all)? {
            for explanation in &all {
                connection.write(&listing, explanation, out)?;
            }
        }
        Ok(Exit::answer(all.iter().all(|one| one.allowed)))
    }

    /// Holds what a file expects against the verdicts: for CI, without a packet.
    fn hold(&self, file: &Path, world: &mut World, out: &mut dyn Write) -> anyhow::Result<Exit> {
        #[derive(Serialize)]
        struct Held {
            hit: bool,
            from: String,
            to: String,
            protocol: Protocol,
            port: u16,
            expected: &'static str,
            verdict: &'static str,
        }
        let mut all = Vec::new();
        for expectation in expectations::read(file)? {
            let Expectation {
                place,
                from,
                to,
                protocol,
                port,
                allow,
            } = expectation;
            let (senders, receivers) = (from.resolve(world)?, to.resolve(world)?);
            let mut verdicts = Vec::new();
            for (sender, receiver) in pairs(&senders, &receivers) {
                let found = evaluate(world, sender, receiver, protocol, port);
                verdicts.push(found.with_context(|| place.clone())?.allowed);
            }
            // Of a service each container has to do what is expected of it.
            all.push(Held {
                hit: verdicts.iter().all(|allowed| *allowed == allow),
                from: from.to_string(),
                to: to.to_string(),
                protocol,
                port,
                expected: said(allow),
                verdict: said(verdicts.iter().all(|allowed| *allowed)),
            });
        }
        ensure!(!all.is_empty(), "`{}` expects nothing", file.display());
        let missed = all.iter().filter(|held| !held.hit).count();
        if !self.form.output.value(out, &all)? {
            for held in &all {
                let line = format!(
                    "{} {} -> {} {}/{}: expected {}, {}",
                    if held.hit { "PASS" } else { "FAIL" },
                    held.from,
                    held.to,
                    held.port,
                    held.protocol,
                    held.expected,
                    held.verdict
                );
                writeln!(out, "{}", printable(&line))?;
            }
        }
        anstream::eprintln!("{} expectations, {missed} missed", all.len());
        Ok(Exit::answer(missed == 0))
    }
}

impl Connection {
    fn write(
        &self,
        listing: &Listing,
        explanation: &Explanation,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let Explanation { from, to, .. } = explanation;
        // As it was written, but for a service, whose containers answer each for itself.
        let shown = |written: &Reference, end: &EndpointSpec| match written {
            Reference::Name(_) => end.to_string(),
            written => written.to_string(),
        };
        let (from_shown, to_shown) = (shown(&self.from, from), shown(&self.to, to));
        writeln!(
            out,
            "{}: {} -> {} {}/{}",
            word(explanation.allowed),
            printable(&from_shown),
            printable(&to_shown),
            explanation.port,
            explanation.protocol
        )?;
        let egress = side(&explanation.egress.verdict, Direction::Egress, &from_shown);
        writeln!(out, "  egress:  {egress}")?;
        let ingress = side(&explanation.ingress.verdict, Direction::Ingress, &to_shown);
        writeln!(out, "  ingress: {ingress}")?;
        if let Some(other) = over_ipv6(explanation) {
            writeln!(out, "  {other}")?;
        }
        if let Some(note) = unseen_questions(listing, explanation) {
            writeln!(out, "  {note}")?;
        }
        for note in self.notes(explanation) {
            writeln!(out, "  {note}")?;
        }
        Ok(())
    }
}

/// What is to be said of names that are asked for past a verdict.
pub(super) fn unseen_questions(listing: &Listing, explanation: &Explanation) -> Option<String> {
    let EndpointSpec::Pod(from) = &explanation.from else {
        return None;
    };
    let unseen = listing.origins.pods.get(from)?.asked_from_host;
    (unseen && explanation.port == 53 && !explanation.egress.verdict.allowed).then(|| {
        format!(
            "{} can resolve names all the same: its engine asks from the host's network, and policy is not sure to see the \
             questions (`netpol status` says why)",
            printable(&from.to_string())
        )
    })
}

/// `allowed` or `denied`.
pub(super) const fn said(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

/// The same, in colour where there is one.
pub(super) fn word(allowed: bool) -> String {
    paint(said(allowed), allowed)
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
        (
            Direction::Egress,
            &egress.verdict,
            &families.v6.egress,
            from,
        ),
        (
            Direction::Ingress,
            &ingress.verdict,
            &families.v6.ingress,
            to,
        ),
    ]
    .into_iter()
    .filter(|(_, v4, v6, _)| v4.allowed != v6.allowed)
    .map(|(direction, _, v6, party)| {
        format!("{direction} {}", side(v6, direction, &party.to_string()))
    })
    .collect();
    (families.v4 != families.v6.allowed).then(|| {
        let word = if families.v4 { "denied" } else { "allowed" };
        format!("over IPv6: {word} ({})", turned.join("; "))
    })
}

/// What one end says, in a sentence.
fn side(side: &Side, direction: Direction, party: &str) -> String {
    let party = printable(party).into_owned();
    let by = || rules(&side.by, direction);
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
        rules(&side.audited, direction)
    )
}

/// `NetworkPolicy payments/api spec.ingress[0].from[1]; NetworkPolicy payments/all`.
pub(super) fn rules(by: &[By], direction: Direction) -> String {
    let all = by
        .iter()
        .map(|by| printable(&rule(by, direction)).into_owned());
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

/// `NetworkPolicy payments/api spec.ingress[0].from[1]`.
fn rule(by: &By, direction: Direction) -> String {
    let mut text = format!("NetworkPolicy {}", by.policy);
    let peers = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    if let Some(rule) = by.rule {
        text.push_str(&format!(" spec.{direction}[{rule}]"));
        if let Some(peer) = by.peer {
            text.push_str(&format!(".{peers}[{peer}]"));
        }
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
