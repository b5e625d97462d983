//! The answer as a page: the verdict, what came closest, each side, what would help.
//!
//! What matters comes first; of long lists what came closest is shown and the rest counted.
//! 80 columns; colour adds nothing that is not said. The manifests at the end stand at the
//! left margin, so that they can be copied as they are.

use std::collections::BTreeSet;
use std::io::{self, Write};

use clap::builder::styling::Style;
use netpol_abi::Reason;
use netpol_engine::evaluate::EndpointSpec;
use netpol_engine::explain::{
    AlmostSelects, Change, Explanation, Fix, Hint, NotSelected, PolicyAnswer, Reading, RuleAnswer,
    Side, Standing, Suggestion,
};
use netpol_engine::policy::{Direction, ObjectName};

use super::words::{self, Ends, Who, list};
use crate::cli::page::{COLUMNS, Page};
use crate::cli::verdict::{self, over_ipv6, word};
use crate::printable::printable;

/// Policies that are shown of a side.
const MOST_POLICIES: usize = 5;
/// Rules of a policy, and entries of a rule, that are shown where none matches.
const MOST_RULES: usize = 5;
const MOST_ENTRIES: usize = 3;

/// Writes it.
pub(super) fn write(out: &mut dyn Write, explanation: &Explanation) -> io::Result<()> {
    let sides = [
        SideReport::new(explanation, Direction::Egress),
        SideReport::new(explanation, Direction::Ingress),
    ];
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}{} -> {}, {}/{}{bold:#}: {}",
        printable(&explanation.from.to_string()),
        printable(&explanation.to.to_string()),
        explanation.port,
        explanation.protocol,
        word(explanation.allowed)
    )?;
    let mut page = Page {
        out,
        columns: COLUMNS,
    };
    let is_denied_twice = sides.iter().all(|side| !side.side.verdict.allowed);
    if let Some(other) = over_ipv6(explanation) {
        page.line(0, &other)?;
        page.line(
            0,
            "What follows is about IPv4; `ip:ADDRESS` for an end asks about IPv6.",
        )?;
    }
    if !explanation.allowed {
        page.blank()?;
        if is_denied_twice {
            page.line(
                0,
                "Both sides deny it: egress and ingress have to be mended.",
            )?;
        }
        for side in sides.iter().filter(|side| !side.side.verdict.allowed) {
            page.line(0, &side.closest())?;
        }
    }
    for side in &sides {
        page.blank()?;
        side.write(&mut page)?;
    }
    if !explanation.hints.is_empty() {
        page.blank()?;
        for hint in &explanation.hints {
            page.line(0, &format!("Note: {}", note(*hint, explanation)))?;
        }
    }
    let fixes: Vec<(&SideReport, &Fix)> = sides
        .iter()
        .filter_map(|side| Some((side, side.side.nearest.as_ref()?.fix.as_ref()?)))
        .collect();
    for (side, fix) in &fixes {
        page.blank()?;
        mended(&mut page, side, fix)?;
    }
    if let ([(side, _)], true) = (fixes.as_slice(), is_denied_twice) {
        let (word, other) = match side.direction {
            Direction::Ingress => ("ingress", "egress"),
            Direction::Egress => ("egress", "ingress"),
        };
        let half = format!("That opens {word} alone: {other} has to be mended, too.");
        page.line(1, &half)?;
    }
    suggested(&mut page, &sides, !fixes.is_empty())
}

/// The ends.
fn ends(explanation: &Explanation) -> (Who, Who) {
    (
        Who::new(&explanation.from, &explanation.egress),
        Who::new(&explanation.to, &explanation.ingress),
    )
}

/// One side with its direction.
struct SideReport<'a> {
    direction: Direction,
    side: &'a Side,
    own: &'a EndpointSpec,
    ends: Ends,
    is_peer_host: bool,
}

impl<'a> SideReport<'a> {
    fn new(explanation: &'a Explanation, direction: Direction) -> Self {
        let (from, to) = ends(explanation);
        let Explanation {
            egress, ingress, ..
        } = explanation;
        let (side, other, party, own, peer) = match direction {
            Direction::Egress => (egress, ingress, &explanation.from, &from, &to),
            Direction::Ingress => (ingress, egress, &explanation.to, &to, &from),
        };
        Self {
            direction,
            side,
            own: party,
            ends: Ends {
                own: own.clone(),
                peer: peer.clone(),
                destination: to.clone(),
            },
            is_peer_host: other.end == Standing::Host,
        }
    }

    /// `ingress`.
    fn word(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// What came closest, in a sentence.
    fn closest(&self) -> String {
        let word = self.word();
        let own = &self.ends.own.name;
        match &self.side.nearest {
            Some(nearest) => {
                let sentence = self.ends.nearest(self.direction, nearest);
                format!("Closest for {word}: {sentence}.")
            }
            None if self.side.verdict.by.iter().any(|by| by.rule.is_some()) => {
                format!("Closed for {word}: a rule denies it.")
            }
            None => format!(
                "Closed for {word}: {} isolates {own}, and no policy that selects it has a rule.",
                few(&self.side.verdict.isolated_by)
            ),
        }
    }

    fn write(&self, page: &mut Page) -> io::Result<()> {
        let Side {
            verdict, policies, ..
        } = self.side;
        let title = match self.direction {
            Direction::Egress => "Egress of",
            Direction::Ingress => "Ingress of",
        };
        let own = &self.ends.own;
        let title = match self.own {
            EndpointSpec::Address(address) if own.is_named => {
                format!("{title} {} ({address})", own.name)
            }
            _ => format!("{title} {}", own.name),
        };
        page.title(&title, verdict.allowed)?;
        if !verdict.audited.is_empty() {
            let by = verdict::rules(&verdict.audited, self.direction);
            page.line(1, &format!("Audited: would be denied by {by}."))?;
        }
        match verdict.reason {
            Reason::Itself => page.line(1, "An endpoint always reaches itself.")?,
            Reason::NotIsolated if policies.is_empty() => page.line(1, self.not_isolated())?,
            Reason::Host => {
                page.line(
                    1,
                    &format!(
                        "Isolated by {}, but {} is the host, which always passes.",
                        few(&verdict.isolated_by),
                        self.ends.peer.name
                    ),
                )?;
            }
            _ => {
                if verdict.isolated_by.is_empty() {
                    page.line(1, self.only_audited())?;
                }
                // Where the host passes, what is only audited is not asked.
                let is_asked = !verdict.isolated_by.is_empty()
                    || !verdict.audited.is_empty()
                    || policies.iter().any(|policy| !policy.rules.is_empty());
                let mut nearest_first: Vec<&PolicyAnswer> =
                    policies.iter().filter(|_| is_asked).collect();
                nearest_first.sort_by_key(|policy| {
                    let costs = policy.rules.iter().map(RuleAnswer::cost);
                    costs.min().unwrap_or(u32::MAX)
                });
                for policy in nearest_first.iter().take(MOST_POLICIES) {
                    self.policy(page, policy)?;
                }
                page.more(nearest_first.len().saturating_sub(MOST_POLICIES))?;
            }
        }
        let mut almost: Vec<&AlmostSelects> = self.side.almost.iter().collect();
        almost.sort_by_key(|almost| almost.rule.is_none());
        for almost in almost.iter().take(MOST_POLICIES) {
            page.line(1, &self.almost(almost))?;
        }
        page.more(almost.len().saturating_sub(MOST_POLICIES))
    }

    /// Why no policy has a say.
    fn not_isolated(&self) -> &'static str {
        match (self.side.end, self.own) {
            (Standing::Pod, _) => match self.direction {
                Direction::Egress => "No policy selects it for egress, so it may reach anybody.",
                Direction::Ingress => "No policy selects it for ingress, so anybody may reach it.",
            },
            (Standing::ExternalPod, _) => "It is elsewhere: no policy is enforced for it here.",
            (Standing::Host, EndpointSpec::Pod(_)) => {
                "It is on the host's network: its traffic is the host's, and no policy is \
                 enforced for it."
            }
            (Standing::Host, EndpointSpec::Address(_)) => {
                "It is the host: no policy is enforced for it."
            }
            (Standing::Stranger, _) => {
                "No Pod here has this address: no policy is enforced for it."
            }
        }
    }

    /// Why the policies that select it have no say.
    fn only_audited(&self) -> &'static str {
        match self.direction {
            Direction::Egress => {
                "For egress it is selected by what is only audited, so it may reach anybody."
            }
            Direction::Ingress => {
                "For ingress it is selected by what is only audited, so anybody may reach it."
            }
        }
    }

    fn almost(&self, almost: &AlmostSelects) -> String {
        let would = match almost.rule {
            Some(rule) if !self.side.verdict.allowed => {
                format!(" Its rule {rule} would allow this.")
            }
            _ => String::new(),
        };
        let policy = &almost.policy;
        match &almost.missed {
            NotSelected::Label(label) => format!(
                "{policy} does not select it: {}.{would}",
                words::label(label, None)
            ),
            NotSelected::Namespace {
                wants_namespace, ..
            } => format!(
                "{policy} would select it, {}.{would}",
                words::elsewhere(wants_namespace)
            ),
        }
    }

    fn policy(&self, page: &mut Page, policy: &PolicyAnswer) -> io::Result<()> {
        let selects = match &policy.selects {
            None => format!("{{}}: every Pod of `{}`", policy.policy.namespace),
            Some(selector) => selector.clone(),
        };
        let isolates = if policy.audited {
            "is only audited, and would isolate it"
        } else {
            "isolates it"
        };
        let name = &policy.policy;
        page.line(1, &format!("{name} {isolates} (podSelector {selects})."))?;
        let (matched, mut missed): (Vec<&RuleAnswer>, Vec<_>) =
            policy.rules.iter().partition(|rule| rule.matched);
        if policy.rules.is_empty() {
            let none = format!("It has no rule for {}: it allows nothing.", self.word());
            return page.line(2, &none);
        }
        for rule in &matched {
            page.line(
                2,
                &format!("Rule {} matches: {}.", rule.rule, self.held(rule)),
            )?;
            self.reading(page, rule)?;
        }
        if self.side.verdict.allowed && self.side.verdict.audited.is_empty() {
            return match (matched.len(), missed.len()) {
                (_, 0) => Ok(()),
                (0, 1) => page.line(2, "Its rule does not match."),
                (0, all) => page.line(2, &format!("None of its {all} rules matches.")),
                (_, 1) => page.line(2, "1 other rule does not match."),
                (_, others) => page.line(2, &format!("{others} other rules do not match.")),
            };
        }
        missed.sort_by_key(|rule| rule.cost());
        for rule in missed.iter().take(MOST_RULES) {
            self.rule(page, rule)?;
        }
        match missed.len().saturating_sub(MOST_RULES) {
            0 => Ok(()),
            1 => page.line(2, "1 more rule misses by more."),
            more => page.line(2, &format!("{more} more rules miss by more.")),
        }
    }

    /// What of a rule holds: `from[0] Pods with app=web in `shop`, ports[0] 5432/TCP`.
    fn held(&self, rule: &RuleAnswer) -> String {
        let list = list(self.direction);
        let peer = match rule.peers.iter().find(|peer| peer.matched) {
            Some(peer) => format!("{list}[{}] {}", peer.peer, peer.wants),
            None => format!("{list} anybody"),
        };
        let port = match rule.ports.iter().find(|port| port.matched) {
            Some(port) => format!("ports[{}] {}", port.port, port.wants),
            None => "any port".to_owned(),
        };
        format!("{peer}; {port}")
    }

    /// A rule that misses.
    fn rule(&self, page: &mut Page, rule: &RuleAnswer) -> io::Result<()> {
        let list = list(self.direction);
        page.line(2, &format!("Rule {} misses:", rule.rule))?;
        let peers: Vec<Entry> = rule
            .peers
            .iter()
            .map(|peer| Entry::new(peer.peer, &peer.wants, &peer.missed))
            .collect();
        let ports: Vec<Entry> = rule
            .ports
            .iter()
            .map(|port| Entry::new(port.port, &port.wants, &port.missed))
            .collect();
        self.entries(page, list, "anybody", peers)?;
        self.entries(page, "ports", "any", ports)?;
        self.reading(page, rule)
    }

    /// Entries of a list: the one that holds, or those that came closest.
    fn entries(
        &self,
        page: &mut Page,
        list: &str,
        any: &str,
        mut entries: Vec<Entry>,
    ) -> io::Result<()> {
        if entries.is_empty() {
            return page.line(3, &format!("{list}: {any}"));
        }
        entries.sort_by_key(|entry| entry.cost);
        if let Some(held) = entries.first().filter(|entry| entry.cost == 0) {
            return page.line(
                3,
                &format!("{list}[{}] {}: matches", held.index, held.wants),
            );
        }
        for entry in entries.iter().take(MOST_ENTRIES) {
            page.line(3, &format!("{list}[{}] {}:", entry.index, entry.wants))?;
            for missed in entry.missed {
                page.item(4, &self.ends.missed(missed))?;
            }
        }
        match entries.len().saturating_sub(MOST_ENTRIES) {
            0 => Ok(()),
            1 => page.line(3, &format!("1 more entry of `{list}` misses by more")),
            more => page.line(3, &format!("{more} more entries of `{list}` miss by more")),
        }
    }

    /// Or and and, where the other one would say something else.
    fn reading(&self, page: &mut Page, rule: &RuleAnswer) -> io::Result<()> {
        let list = list(self.direction);
        let Some(reading) = rule.reading else {
            return Ok(());
        };
        page.line(
            3,
            &match reading {
                Reading::Either { pods, namespaces } => format!(
                    "{list}[{pods}] and {list}[{namespaces}] are two entries: either is enough. \
                     To ask for both, write the podSelector and the namespaceSelector into one."
                ),
                Reading::Both { peer } => format!(
                    "{list}[{peer}] has both selectors in one entry: both must hold. To let \
                     either be enough, make them two."
                ),
            },
        )
    }
}

/// An entry of `from`, `to` or `ports`.
struct Entry<'a> {
    index: usize,
    wants: &'a str,
    missed: &'a [netpol_engine::explain::Missed],
    cost: u32,
}

impl<'a> Entry<'a> {
    fn new(index: usize, wants: &'a str, missed: &'a [netpol_engine::explain::Missed]) -> Self {
        Self {
            index,
            wants,
            missed,
            cost: missed.iter().map(|missed| missed.cost()).sum(),
        }
    }
}

fn note(hint: Hint, explanation: &Explanation) -> String {
    let (from, to) = ends(explanation);
    match hint {
        Hint::NoCommonFamily => format!(
            "{} and {} have no address family in common, so there is no connection whatever \
             policy says.",
            from.name, to.name
        ),
        Hint::ResolversNeedBoth => {
            "names are looked up over 53/UDP, and over 53/TCP where an answer is long: allow \
             both."
                .to_owned()
        }
        Hint::NoDns => format!(
            "no rule for the egress of {} is for 53/UDP, so it can't look up names.",
            from.name
        ),
        Hint::HostIngressSetting => host_setting("ingress"),
        Hint::HostEgressSetting => host_setting("egress"),
    }
}

fn host_setting(key: &str) -> String {
    format!(
        "rules decide about the host because netpold.toml has `{key} = \"policy\"` in `[host]`; \
         no selector selects it, only an ipBlock can."
    )
}

/// A change of a word that would do.
fn mended(page: &mut Page, side: &SideReport, fix: &Fix) -> io::Result<()> {
    page.line(0, &format!("To mend {}, in {}:", side.word(), fix.object))?;
    let change = match (fix.change, &fix.instead_of) {
        (Change::Replace, Some(old)) => format!("write `{}` instead of `{old}`", fix.write),
        _ => format!("add `{}`", fix.write),
    };
    page.line(1, &format!("at {} {change}", fix.field))?;
    for also in also(side.direction, &fix.also_peers, &fix.also_selects) {
        page.line(1, &also)?;
    }
    Ok(())
}

/// The manifests that would allow it.
fn suggested(page: &mut Page, sides: &[SideReport], is_mended: bool) -> io::Result<()> {
    let suggestions: Vec<(&SideReport, &Suggestion)> = sides
        .iter()
        .filter_map(|side| Some((side, side.side.suggestion.as_ref()?)))
        .collect();
    if suggestions.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line(
        0,
        match (suggestions.len(), is_mended) {
            (1, false) => "To allow it and leave all else as it is, add:",
            (1, true) => "Or leave all else as it is, and add:",
            (_, false) => "To allow it and leave all else as it is, add both:",
            (_, true) => "Or leave all else as it is, and add both:",
        },
    )?;
    page.blank()?;
    for (index, (side, suggestion)) in suggestions.into_iter().enumerate() {
        if index > 0 {
            page.verbatim("---")?;
        }
        for remark in remarks(side, suggestion) {
            page.comment(&remark)?;
        }
        for line in suggestion.yaml.lines() {
            page.verbatim(line)?;
        }
    }
    Ok(())
}

/// What a suggestion does besides.
fn remarks(side: &SideReport, suggestion: &Suggestion) -> Vec<String> {
    let mut remarks = Vec::new();
    let Ends { own, peer, .. } = &side.ends;
    for (end, is_unlabelled) in [
        (own, suggestion.unlabelled),
        (peer, suggestion.unlabelled_peer),
    ] {
        if is_unlabelled {
            remarks.push(format!(
                "{} has no label to select it by; give it one to open less.",
                end.name
            ));
        }
    }
    if side.is_peer_host {
        remarks.push("One address of the host: what it uses depends on its routes.".to_owned());
    }
    let also = also(
        side.direction,
        &suggestion.also_peers,
        &suggestion.also_selects,
    );
    remarks.extend(also);
    remarks
}

/// The other ends that a change is for.
fn also(
    direction: Direction,
    peers: &BTreeSet<ObjectName>,
    selects: &BTreeSet<ObjectName>,
) -> Vec<String> {
    let lets = match direction {
        Direction::Ingress => "lets in",
        Direction::Egress => "lets it reach",
    };
    [(lets, peers), ("opens the same for", selects)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(verb, names)| format!("Also {verb}: {}", few(names)))
        .collect()
}

/// `a, b, c and 12 more`.
fn few<'n>(names: impl IntoIterator<Item = &'n ObjectName>) -> String {
    let all: Vec<String> = names.into_iter().map(ToString::to_string).collect();
    verdict::few(&all, ", ")
}
