//! `netpol explain`: the verdict as a person would explain it.
//!
//! What is said is [`netpol_engine::explain`]'s; here it becomes text ([`text`]) and
//! sentences ([`words`]), for 80 columns and without need of colour.

mod text;
mod words;

#[cfg(test)]
mod tests;

use std::io::Write;

use super::Exit;
use super::output::Form;
use super::source::Source;
use super::verdict::{Connection, unseen_questions, value};

/// Explain why a connection is allowed or denied
///
/// Which policies select each end and why, what each of their rules asks for that this
/// connection does not have, which rule came closest, and where it is denied, the smallest
/// policies that would allow it, ready to be applied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 where it is allowed, 1 where it is denied. Two Pods that have IPv4 and IPv6 are
asked about IPv4; where IPv6 gets another answer, that is said too: `ip:ADDRESS` for an
end asks about it.

Examples:
  netpol explain --from payments/api-server --to payments/postgres-primary --port 5432
  netpol explain --manifests ./manifests --from a/b --to 192.0.2.1 --port 443
  netpol explain --from a/b --to c/d --port 80 -o json | jq -r '.ingress.suggestion.yaml'")]
pub struct Explain {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    form: Form,
}

impl Explain {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let mut listing = match source.listing_with_resolver() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let all = self.connection.explain(&mut listing.world)?;
        if !value(&self.form, out, &all)? {
            for (number, explanation) in all.iter().enumerate() {
                if number > 0 {
                    writeln!(out)?;
                }
                text::write(out, explanation)?;
                if let Some(note) = unseen_questions(&listing, explanation) {
                    writeln!(out, "\n{note}")?;
                }
                for note in self.connection.notes(explanation) {
                    writeln!(out, "\n{note}")?;
                }
            }
        }
        Ok(Exit::answer(all.iter().all(|one| one.allowed)))
    }
}
