//! Where a verb gets the world from: a directory of manifests, or the daemon.
//!
//! Both give the same [`Listing`], so that what is explained offline is what is
//! enforced. Files are found by the daemon's own rules.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, ensure};
use netpol_engine::diagnostic::{self, Diagnostic};
use netpol_engine::manifest;
use netpol_engine::object::Kind;
use netpol_engine::resolver;

use super::Cli;
use super::exit::Exit;
use crate::api::Client;
use crate::api::wire::Listing;
use crate::origin::Origin;
use crate::printable::printable;
use crate::{config, store};

/// Where the world comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// `--manifests DIR`.
    Directory(PathBuf),
    /// The daemon.
    Daemon(Client),
}

/// Why there is no world; what there is to say is said.
#[derive(Debug)]
pub enum NoWorld {
    /// The manifests are not valid: the diagnostics are on stderr.
    Invalid,
    /// It could not be read.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for NoWorld {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl NoWorld {
    /// As the verb's own result. Exit code 1 would be an answer, and there is none.
    ///
    /// # Errors
    /// The failure, where it is one.
    pub fn exit(self) -> anyhow::Result<Exit> {
        match self {
            Self::Invalid => Ok(Exit::Failed),
            Self::Failed(error) => Err(error),
        }
    }
}

impl Source {
    /// As the global options say.
    #[must_use]
    pub fn chosen(cli: &Cli) -> Self {
        match &cli.manifests {
            Some(directory) => Self::Directory(directory.clone()),
            None => Self::Daemon(Client::new(&cli.socket)),
        }
    }

    /// As [`Source::listing`], with the peer that a host's resolvers are, which offline no daemon
    /// knows the addresses of.
    ///
    /// # Errors
    /// When there is no valid world to be had.
    pub fn listing_with_resolver(&self) -> Result<Listing, NoWorld> {
        Ok(self.listing_and_texts()?.0)
    }

    /// As [`Source::listing_with_resolver`], with the texts that were read: a pipe gives its text once.
    ///
    /// # Errors
    /// When there is no valid world to be had.
    pub fn listing_and_texts(&self) -> Result<(Listing, Vec<Text>), NoWorld> {
        match self {
            Self::Directory(directory) => {
                let manifests = Manifests::read(directory)?;
                let mut listing = manifests.listing();
                resolver::add_to(&mut listing.world);
                Ok((listing, manifests.texts))
            }
            Self::Daemon(_) => Ok((self.listing()?, Vec::new())),
        }
    }

    /// All that decides a verdict, and where it comes from.
    ///
    /// # Errors
    /// When there is no valid world to be had.
    pub fn listing(&self) -> Result<Listing, NoWorld> {
        match self {
            Self::Directory(directory) => Ok(Manifests::read(directory)?.listing()),
            Self::Daemon(client) => Ok(super::wait_for(client.world())?),
        }
    }
}

/// Bytes read of one file: one more than the parser accepts, so that it is the
/// parser that says so.
const READ_LIMIT: u64 = (64 << 20) + 1;

/// The content of one manifest.
#[derive(Clone, Debug)]
pub struct Text {
    /// As diagnostics name it.
    pub name: String,
    octets: Vec<u8>,
    modified: Option<jiff::Timestamp>,
}

impl Text {
    /// What it holds, and what is wrong with it.
    #[must_use]
    pub fn parse(&self) -> manifest::File {
        manifest::parse_bytes(&self.name, &self.octets)
    }

    /// The text itself, where it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.octets).ok()
    }

    /// The finding with the line that it is about.
    #[must_use]
    pub fn render(&self, diagnostic: &Diagnostic, color: bool) -> String {
        diagnostic::render(diagnostic, &String::from_utf8_lossy(&self.octets), color)
    }
}

/// Reads a file, whatever its name; `-` is stdin.
///
/// # Errors
/// When it can't be read.
pub fn read(path: &Path) -> anyhow::Result<Text> {
    let mut octets = Vec::new();
    if path == Path::new("-") {
        io::stdin()
            .take(READ_LIMIT)
            .read_to_end(&mut octets)
            .context("can't read stdin")?;
        return Ok(Text {
            name: "<stdin>".to_owned(),
            octets,
            modified: None,
        });
    }
    let shown = path.display();
    let file = fs::File::open(path).with_context(|| format!("can't open `{shown}`"))?;
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    file.take(READ_LIMIT)
        .read_to_end(&mut octets)
        .with_context(|| format!("can't read `{shown}`"))?;
    Ok(Text {
        name: shown.to_string(),
        octets,
        modified: modified.ok().and_then(|time| time.try_into().ok()),
    })
}

/// The manifests of a directory and its sub-folders, sorted, by the rules and within the bounds of netpold's own look.
/// Hidden files and those that editors leave are not manifests; a folder that is reached twice is read once.
/// A file is itself, whatever its name; so are a pipe, and stdin (`-`).
///
/// # Errors
/// When something can't be read, leads elsewhere, or is more than netpold takes; when there are none: most often it is
/// the wrong folder, and an answer would hide that.
pub fn manifests(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if directory == Path::new("-") || (directory.exists() && !directory.is_dir()) {
        return Ok(vec![directory.to_owned()]);
    }
    // Where it is netpold's own directory, links lead where its configuration says. One that can't be read says nothing.
    let config = config::load(None).unwrap_or_default();
    let is_own = match (
        directory.canonicalize(),
        config.manifests.directory.canonicalize(),
    ) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    let follow = match is_own {
        true => config.manifests.follow,
        false => Vec::new(),
    };
    let found = store::manifests(directory, &follow)
        .with_context(|| format!("the manifests in `{}` can't be listed", directory.display()))?;
    ensure!(
        !found.is_empty(),
        "no manifests in `{}`: they are named *.yaml, *.yml or *.json",
        directory.display()
    );
    Ok(found)
}

/// The valid manifests of a directory, or of one file.
#[derive(Debug)]
pub struct Manifests {
    texts: Vec<Text>,
    files: Vec<manifest::File>,
}

impl Manifests {
    /// Reads and parses them; what is wrong with one is said on stderr.
    ///
    /// # Errors
    /// When they can't be read, or are not valid.
    pub fn read(directory: &Path) -> Result<Self, NoWorld> {
        let texts = manifests(directory)?
            .iter()
            .map(|path| read(path))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let files: Vec<_> = texts.iter().map(Text::parse).collect();
        let assembled = manifest::assemble(&files);
        let errors: Vec<_> = files
            .iter()
            .flat_map(|file| &file.diagnostics)
            .chain(&assembled.diagnostics)
            .filter(|diagnostic| diagnostic.is_error())
            .collect();
        if !errors.is_empty() {
            for error in errors {
                if let Some(text) = texts.iter().find(|text| text.name == error.path) {
                    anstream::eprintln!("{}\n", text.render(error, super::stderr_has_color()));
                }
            }
            anstream::eprintln!(
                "error: the manifests in `{}` are not valid",
                printable(&directory.display().to_string())
            );
            return Err(NoWorld::Invalid);
        }
        Ok(Self { texts, files })
    }

    /// Their objects.
    pub fn objects(&self) -> impl Iterator<Item = &manifest::Object> {
        self.files.iter().flat_map(|file| &file.documents)
    }

    /// The world that a cluster would make of them: with the Pods of workloads.
    #[must_use]
    pub fn listing(&self) -> Listing {
        let assembled = manifest::assemble(&self.files);
        let modified: HashMap<&str, Option<jiff::Timestamp>> = self
            .texts
            .iter()
            .map(|text| (text.name.as_str(), text.modified))
            .collect();
        let mut listing = Listing {
            world: assembled.offline_world(),
            ..Listing::default()
        };
        for (path, workload) in &assembled.workloads {
            let origin = Origin {
                file: Some(PathBuf::from(path)),
                since: modified.get(path).copied().flatten(),
                labels: workload.labels.clone(),
                ..Origin::default()
            };
            let pods = &mut listing.origins.pods;
            pods.entry(workload.name.clone()).or_insert(origin);
        }
        for (path, object) in &assembled.objects {
            let origin = Origin {
                file: Some(PathBuf::from(path)),
                since: modified.get(path).copied().flatten(),
                labels: object.labels.clone(),
                annotations: object.annotations.clone(),
                container: None,
                asked_from_host: false,
            };
            let id = object.id();
            let origins = &mut listing.origins;
            match id.kind {
                Kind::NetworkPolicy => origins.policies.insert(id.name, origin),
                Kind::Pod => origins.pods.insert(id.name, origin),
                Kind::Namespace => origins.namespaces.insert(id.name.name, origin),
            };
        }
        listing
    }
}
