//! `tests/specification/*.md`: what a NetworkPolicy means, in prose, manifests and verdicts. Each
//! verdict is asked of the reference, of the rules and of the compiled tables. The form is
//! described in that folder's README; a page that can't be read is a failure with its line.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netpol_engine::compile::compile;
use netpol_engine::evaluate::{EndpointSpec, evaluate};
use netpol_engine::manifest::parse;
use netpol_engine::model::MapImage;
use netpol_engine::policy::{Direction, Protocol};
use netpol_engine::world::World;

use support::manifests::Manifests;
use support::readings;
use support::reference::reading::{self, Document};
use support::reference::{Answer, Cluster, Connection, Direction as Theirs, Host, namespace};
use support::written;

/// A place in a page.
#[derive(Clone)]
struct At {
    page: String,
    line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tests/specification/{}:{}", self.page, self.line)
    }
}

/// A fenced block, or a heading of a section.
enum Part {
    Section,
    Block { info: String, lines: Vec<String> },
}

/// The parts of a page, each with the line it begins in.
fn parts(page: &str, text: &str) -> Vec<(At, Part)> {
    let at = |line| At {
        page: page.to_owned(),
        line,
    };
    let mut parts = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, content)) = lines.next() {
        if content.starts_with("## ") {
            parts.push((at(line), Part::Section));
        } else if let Some(info) = content.strip_prefix("```") {
            let mut inside = Vec::new();
            loop {
                let (_, content) = lines
                    .next()
                    .unwrap_or_else(|| panic!("{}: the block has no end", at(line)));
                if content == "```" {
                    break;
                }
                inside.push(content.to_owned());
            }
            let info = info.to_owned();
            parts.push((
                at(line),
                Part::Block {
                    info,
                    lines: inside,
                },
            ));
        }
    }
    parts
}

/// What has been applied so far: each document with what it defines.
#[derive(Clone, Default)]
struct State {
    documents: Vec<(Vec<String>, String)>,
    host: Host,
}

impl State {
    /// `kubectl apply`.
    fn apply(&mut self, at: &At, text: &str) {
        for document in text.split("\n---\n") {
            let objects = reading::documents(document).unwrap_or_else(|e| panic!("{at}: {e}"));
            let names: Vec<String> = objects.iter().map(name).collect();
            assert!(!names.is_empty(), "{at}: a document defines nothing");
            self.documents
                .retain(|(known, _)| known.iter().all(|known| !names.contains(known)));
            self.documents.push((names, document.to_owned()));
        }
    }

    /// `kubectl delete`.
    fn delete(&mut self, at: &At, object: &str) {
        let before = self.documents.len();
        self.documents
            .retain(|(known, _)| !known.iter().any(|known| known == object));
        assert!(self.documents.len() < before, "{at}: there is no {object}");
    }

    /// `[host]` of the configuration.
    fn configure(&mut self, at: &At, line: &str) {
        let is_allow = |value: &str| match value {
            "\"allow\"" => true,
            "\"policy\"" => false,
            other => panic!("{at}: {other}"),
        };
        match line.split_once(" = ") {
            Some(("ingress", value)) => self.host.reaches_pods = is_allow(value),
            Some(("egress", value)) => self.host.reached_by_pods = is_allow(value),
            _ => assert_eq!(line, "[host]", "{at}"),
        }
    }

    fn manifests(&self) -> Manifests {
        let texts: Vec<&str> = self
            .documents
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        Manifests {
            files: vec![texts.join("\n---\n")],
            host: self.host.clone(),
        }
    }
}

/// `networkpolicy payments/api`, `namespace web`.
fn name(document: &Document) -> String {
    let (kind, metadata) = match document {
        Document::NetworkPolicy(policy) => ("networkpolicy", &policy.metadata),
        Document::Pod(pod) => ("pod", &pod.metadata),
        Document::Namespace(namespace) => ("namespace", &namespace.metadata),
    };
    let name = metadata.name.as_deref().unwrap_or_default();
    match kind {
        "namespace" => format!("{kind} {name}"),
        _ => format!("{kind} {}/{name}", namespace(metadata)),
    }
}

/// Who answers.
struct Judges {
    cluster: Cluster,
    world: World,
    banks: MapImage,
}

impl Judges {
    fn from_state(state: &State) -> Self {
        let manifests = state.manifests();
        let world = readings::world(&manifests, 0);
        Self {
            cluster: readings::cluster(&manifests),
            banks: MapImage::steady(&compile(&world).unwrap().tables, 1),
            world,
        }
    }

    /// `web/frontend -> payments/api 8080/TCP: allowed`: which implementation answers otherwise?
    fn wrong(&self, at: &At, line: &str) -> Vec<String> {
        let read = || {
            let (from, rest) = line.split_once(" -> ")?;
            let (connection, verdict) = rest.split_once(": ")?;
            let (to, port) = connection.split_once(' ')?;
            let (port, protocol) = port.split_once('/')?;
            let expected = match verdict.trim() {
                "allowed" => Answer::Passes,
                "audited" => Answer::Reported,
                "denied" => Answer::Dropped,
                _ => return None,
            };
            let (from, to): (EndpointSpec, EndpointSpec) = (from.parse().ok()?, to.parse().ok()?);
            let protocol: Protocol = protocol.parse().ok()?;
            Some((from, to, port.parse().ok()?, protocol, expected))
        };
        let (from, to, port, protocol, expected) =
            read().unwrap_or_else(|| panic!("{at}: `{line}` is no verdict"));
        let verdict = evaluate(&self.world, &from, &to, protocol, port);
        let verdict = verdict.unwrap_or_else(|error| panic!("{at}: {error}"));
        let (from, to) = (self.address(&from), self.address(&to));
        let connection = Connection {
            from,
            to,
            protocol: written::protocol(protocol),
            port,
        };
        let answers = [
            (
                "the reference",
                [
                    self.cluster.side(Theirs::Egress, connection),
                    self.cluster.side(Theirs::Ingress, connection),
                ],
            ),
            (
                "the rules",
                [&verdict.egress, &verdict.ingress].map(readings::rules_answer),
            ),
            (
                "the tables",
                [Direction::Egress, Direction::Ingress].map(|direction| {
                    let (world, banks) = (&self.world, &self.banks);
                    readings::tables_answer(world, banks, direction, connection, protocol)
                }),
            ),
        ];
        let word = |answer| match answer {
            Answer::Passes => "allowed",
            Answer::Reported => "audited",
            Answer::Dropped => "denied",
        };
        answers
            .into_iter()
            .map(|(who, sides)| (who, together(sides)))
            .filter(|(_, answer)| *answer != expected)
            .map(|(who, answer)| format!("{at}: `{line}`: {} by {who}", word(answer)))
            .collect()
    }

    fn address(&self, spec: &EndpointSpec) -> IpAddr {
        match spec {
            EndpointSpec::Address(address) => *address,
            EndpointSpec::Pod(name) => *self.world.pods[name].addresses.first().unwrap(),
        }
    }
}

/// What becomes of a connection whose ends answer so.
fn together(sides: [Answer; 2]) -> Answer {
    let telling = [Answer::Dropped, Answer::Reported];
    let found = telling.into_iter().find(|answer| sides.contains(answer));
    found.unwrap_or(Answer::Passes)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/specification")
}

fn read(page: &str) -> String {
    let path = folder().join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> = names.filter(|name| name != "README.md").collect();
    pages.sort();
    pages
}

/// The cast, which stands in the README.
fn cast() -> State {
    let mut cast = State::default();
    for (at, part) in parts("README.md", &read("README.md")) {
        if let Part::Block { info, lines } = part
            && info == "yaml"
        {
            cast.apply(&at, &lines.join("\n"));
        }
    }
    assert!(!cast.documents.is_empty());
    cast
}

#[test]
fn every_verdict_holds() {
    let cast = cast();
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for page in pages() {
        let mut preamble = None;
        let mut state = cast.clone();
        // A section ought to end in something that can fail.
        let mut unasked: Option<At> = None;
        for (at, part) in parts(&page, &read(&page)) {
            match part {
                Part::Section => {
                    assert!(unasked.is_none(), "{}: nothing is asked", unasked.unwrap());
                    state = preamble.get_or_insert(state).clone();
                    unasked = Some(at);
                }
                Part::Block { info, lines } => match info.as_str() {
                    "yaml" => state.apply(&at, &lines.join("\n")),
                    "yaml refused" => {
                        let file = parse("refused.yaml", &lines.join("\n"));
                        if file.is_accepted() {
                            wrong.push(format!("{at}: accepted"));
                        }
                        unasked = None;
                    }
                    "delete" => lines.iter().for_each(|line| state.delete(&at, line)),
                    "toml" => lines.iter().for_each(|line| state.configure(&at, line)),
                    "verdicts" => {
                        let judges = Judges::from_state(&state);
                        for (number, line) in (at.line + 1..).zip(&lines) {
                            let at = At {
                                line: number,
                                ..at.clone()
                            };
                            let line = line.split('#').next().unwrap().trim();
                            wrong.extend(judges.wrong(&at, line));
                            asked += 1;
                        }
                        unasked = None;
                    }
                    other => panic!("{at}: `{other}` is no kind of block"),
                },
            }
        }
        assert!(unasked.is_none(), "{}: nothing is asked", unasked.unwrap());
        assert!(preamble.is_some(), "{page} has no section");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(asked > 150, "only {asked} verdicts");
}

#[test]
fn the_readme_lists_every_page() {
    let readme = read("README.md");
    for page in pages() {
        let title = read(&page)
            .lines()
            .next()
            .unwrap()
            .trim_start_matches("# ")
            .to_owned();
        assert!(
            readme.contains(&format!("[{title}]({page})")),
            "{page}: {title}"
        );
    }
}
