//! `netpol observe`: the flows, live.

use std::io::Write;

use super::Exit;
use super::output::{Form, Output};
use crate::api::Client;
use crate::flows::filter::{End, Filter};
use crate::flows::flow::{Line, Verdict};
use crate::flows::text;

/// Show the flows: new connections, and what was dropped and why
///
/// Without -f, the recent ones. Both ends by name, and the policy that decided.
/// With -o json, one object a line in the JSON form of Hubble's `flow`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netpol observe -f --verdict dropped
  netpol observe --to payments/ --last 20
  netpol observe -f -o json | jq -r 'select(.verdict == \"DROPPED\") | .extensions.value.reason'")]
pub struct Observe {
    /// Go on with those to come
    #[arg(short, long)]
    follow: bool,
    /// Just these: forwarded, dropped, audit
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    verdict: Vec<Verdict>,
    /// From this end: `namespace/name`, `namespace/` or `ip:ADDRESS`
    #[arg(long, value_name = "REF")]
    from: Vec<End>,
    /// To this end: `namespace/name`, `namespace/` or `ip:ADDRESS`
    #[arg(long, value_name = "REF")]
    to: Vec<End>,
    /// At most so many of the recent ones
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    form: Form,
}

/// Recent flows that are shown before those that are followed: none, unless asked for.
const BEFORE_FOLLOWING: usize = 0;
/// Recent flows that are shown where none are followed.
const RECENT: usize = crate::flows::recorder::KEPT;

impl Observe {
    pub(super) fn run(&self, client: &Client, out: &mut dyn Write) -> anyhow::Result<Exit> {
        super::wait_for(self.show(client, out))
    }

    async fn show(&self, client: &Client, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let filter = Filter {
            verdicts: self.verdict.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
        };
        let last = self.last.unwrap_or(if self.follow {
            BEFORE_FOLLOWING
        } else {
            RECENT
        });
        let mut lines = client.observe(&filter, last, self.follow).await?;
        while let Some(line) = lines.next().await? {
            match line {
                Line::Flow(flow) => match self.form.output {
                    Output::Table | Output::Wide => writeln!(out, "{}", text::line(&flow))?,
                    Output::Json => writeln!(out, "{}", serde_json::to_string(&flow)?)?,
                    Output::Yaml => {
                        writeln!(out, "---")?;
                        self.form.output.value(out, &flow)?;
                    }
                },
                Line::LostEvents { num_events_lost } => {
                    anstream::eprintln!("{num_events_lost} flows came too fast, and are not shown");
                }
            }
            out.flush()?;
        }
        if self.follow {
            anyhow::bail!("netpold ended the stream");
        }
        Ok(Exit::Done)
    }
}
