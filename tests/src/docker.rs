//! A Docker engine of a lab's own: its network namespace, data and socket.
//!
//! The one image has busybox alone, taken from this machine, so nothing is downloaded. Host
//! firewalls stay off: the engine makes no rules.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::server::Server;
use crate::time_scale::scaled;

/// The image that containers are made of.
pub const IMAGE: &str = "busybox";

/// The programs of the image.
const PROGRAMS: [&str; 9] = [
    "sh", "sleep", "nc", "ping", "httpd", "ip", "wget", "cat", "true",
];

/// Podman writes where it has leases of addresses (up to Podman 4 below /var/lib/cni, from 5 on below /run/containers): to
/// the lab's (`$1`), not to the machine's. One mount namespace for its
/// service and podman(1): it mounts the network namespaces of its containers. It lasts until its input ends.
const IN_ITS_PLACE: &str = r#"
mount -t overlay overlay -o "lowerdir=$1/over:/var/lib" /var/lib
mount --bind "$1/cni" /var/lib/cni
mkdir -p /run/containers
mount --bind "$1/run" /run/containers
echo ready
exec cat
"#;

/// Who speaks the engine's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Docker,
    Podman,
    /// With a network namespace of its own.
    PodmanOutOfSight,
}

/// Who builds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The engine, asked by its API as docker(1) did before there was BuildKit.
    Engine,
    /// BuildKit, which Docker has within.
    BuildKit,
    /// The same, by `docker compose build`.
    Compose,
    /// podman(1).
    Podman,
}

/// A running engine; it ends, with its containers, on drop.
#[derive(Debug)]
pub struct Engine {
    program: Program,
    server: Server,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    /// What it has in the place of the machine's /etc.
    etc: Option<PathBuf>,
    /// A process in Podman's mount namespace.
    mounts: Option<Child>,
}

/// A copy of the machine's /etc for [`resolving`], in this directory.
///
/// # Errors
/// It can't be made.
pub fn copy_of_etc(directory: &Path) -> Result<PathBuf> {
    let etc = directory.join("etc");
    let copied = Command::new("cp")
        .arg("-a")
        .arg("/etc")
        .arg(&etc)
        .status()?;
    ensure!(copied.success(), "/etc can't be copied");
    Ok(etc)
}

/// A program that has this directory in the place of /etc, whose files can be replaced meanwhile: the machine keeps
/// its own.
#[must_use]
pub fn resolving(etc: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(r#"mount --bind "$0" /etc; exec "$@""#)
        .args([etc, program]);
    command
}

/// A container of it.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Running {
    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// What becomes of a TCP connection from here to a port of another one, by the first address of each.
    ///
    /// # Errors
    /// One of them has no address, or it can't be tried.
    pub fn dial(&self, to: &Self, port: u16) -> Result<Outcome> {
        let first = |one: &Self| one.addresses.first().copied().context("no address");
        let probe = Probe {
            from: self.netns(),
            source: first(self)?,
            to: Some(to.netns()),
            destination: SocketAddr::new(first(to)?, port),
            protocol: Protocol::Tcp,
            timeout: scaled(Duration::from_millis(800)),
        };
        Ok(probe.run()?)
    }
}

impl Engine {
    /// Starts one in the lab's host namespace, with these further arguments.
    ///
    /// # Errors
    /// When there is no dockerd, or it does not start.
    pub fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("npd-docker-").tempdir()?;
        Self::new(Program::Docker, lab, directory, arguments, None)
    }

    /// As [`Engine::start`], for an engine whose host has this /etc.
    ///
    /// # Errors
    /// See [`Engine::start`].
    pub fn start_resolving(lab: &Lab, etc: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("npd-docker-").tempdir()?;
        let etc = Some(etc.to_owned());
        Self::new(Program::Docker, lab, directory, arguments, etc)
    }

    /// Starts Podman's Docker-compatible service in the lab's host namespace.
    ///
    /// # Errors
    /// When there is no podman, or it does not start.
    pub fn start_podman(lab: &Lab) -> Result<Self> {
        Self::podman_of(lab, Program::Podman)
    }

    /// As [`Engine::start_podman`], with its networks where a rootless engine has its own: in a network namespace that
    /// is not the lab's.
    ///
    /// # Errors
    /// See [`Engine::start`].
    pub fn start_podman_out_of_sight(lab: &Lab) -> Result<Self> {
        Self::podman_of(lab, Program::PodmanOutOfSight)
    }

    fn podman_of(lab: &Lab, program: Program) -> Result<Self> {
        // An overlay can't lie on another one, which /tmp may be.
        let directory = tempfile::Builder::new()
            .prefix("npd-podman-")
            .tempdir_in("/dev/shm")?;
        let root = directory.path();
        for folder in ["over/cni", "cni", "networks", "run"] {
            fs::create_dir_all(root.join(folder))?;
        }
        // The limits are what root may have everywhere.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                        [engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n";
        fs::write(root.join("containers.conf"), settings)?;
        Self::new(program, lab, directory, &[], None)
    }

    fn new(
        program: Program,
        lab: &Lab,
        directory: tempfile::TempDir,
        arguments: &[&str],
        etc: Option<PathBuf>,
    ) -> Result<Self> {
        let mut engine = Self {
            program,
            server: Server::new(lab, directory.path().join("log")),
            directory,
            arguments: arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect(),
            etc,
            mounts: None,
        };
        if program != Program::Docker {
            engine.mounts = Some(mounts_of_podman(engine.directory.path(), program)?);
        }
        engine.launch()?;
        engine.import()?;
        Ok(engine)
    }

    /// Starts the engine, also after a stop.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn launch(&mut self) -> Result<()> {
        let command = match self.program {
            Program::Docker => self.dockerd(),
            Program::Podman | Program::PodmanOutOfSight => {
                let mut command = self.podman_command()?;
                command.args(["system", "service", "--time", "0"]);
                command.arg(format!("unix://{}", self.socket().display()));
                command
            }
        };
        self.server.start(command)?;
        self.server.until(|| self.docker(&["version"]).is_ok())
    }

    fn dockerd(&self) -> Command {
        let root = self.directory.path();
        let mut command = match &self.etc {
            Some(etc) => resolving(etc, Path::new("dockerd")),
            None => Command::new("dockerd"),
        };
        command
            .arg("--data-root")
            .arg(root.join("data"))
            .arg("--exec-root")
            .arg(root.join("exec"))
            .arg("--pidfile")
            .arg(root.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--storage-driver", "vfs"])
            .args(["--iptables=false", "--ip6tables=false"])
            .args(&self.arguments);
        if !self.arguments.iter().any(|argument| argument == "--bridge") {
            command.args(["--bip", "172.30.0.1/16"]);
        }
        command
    }

    /// podman(1), with its data and in the lab's host namespace; what it prints.
    ///
    /// # Errors
    /// It is another engine's, or what podman(1) says.
    pub fn podman(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.podman_command()?;
        command.args(arguments);
        let output = netns::inside(self.server.host(), move || command.output())?
            .context("can't run podman(1)")?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        ensure!(
            output.status.success(),
            "podman {}: {printed}",
            arguments.join(" ")
        );
        Ok(printed)
    }

    fn podman_command(&self) -> Result<Command> {
        let root = self.directory.path();
        let mounts = self.mounts.as_ref().context("the engine is Docker")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", mounts.id()));
        if self.program == Program::PodmanOutOfSight {
            command.arg(format!("--net=/proc/{}/ns/net", mounts.id()));
        }
        command
            .args(["podman", "--root"])
            .arg(root.join("data"))
            .arg("--runroot")
            .arg(root.join("exec"))
            .arg("--tmpdir")
            .arg(root.join("tmp"))
            .arg("--network-config-dir")
            .arg(root.join("networks"))
            .args(["--storage-driver", "vfs"])
            .env("CONTAINERS_CONF", root.join("containers.conf"));
        Ok(command)
    }

    fn import(&self) -> Result<()> {
        let archive = root_file_system(self.directory.path())?;
        self.import_archive(&archive, IMAGE)
    }

    /// An image of this name that has this program, as `/program`, and the libraries that it needs.
    ///
    /// # Errors
    /// It can't be made.
    pub fn import_program(&self, program: &Path, name: &str) -> Result<()> {
        let root = self.directory.path().join(name);
        program_root(program, &root)?;
        let archive = root.with_extension("tar");
        pack(&root, &archive)?;
        self.import_archive(&archive, name)
    }

    fn import_archive(&self, archive: &Path, name: &str) -> Result<()> {
        let archive = archive.display().to_string();
        self.docker(&["import", &archive, name])?;
        Ok(())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// docker(1) with its socket; what it prints, trimmed.
    ///
    /// # Errors
    /// What docker(1) says.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("docker")
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments)
            .output()
            .context("can't run docker(1)")?;
        ensure!(
            output.status.success(),
            "docker {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Builds an image by this Dockerfile; what the build printed.
    ///
    /// # Errors
    /// What it printed, where a step fails, or the builder is not there.
    pub fn build(&self, builder: Builder, file: &str) -> Result<String> {
        let context = tempfile::tempdir_in(self.directory.path())?;
        fs::write(context.path().join("Dockerfile"), file)?;
        let (client, buildkit) = match builder {
            Builder::Engine => (PathBuf::from("docker"), "0"),
            Builder::BuildKit => {
                let client = client_with_buildkit();
                (client.context("no docker(1) has BuildKit")?, "1")
            }
            Builder::Compose => (PathBuf::from("docker"), "1"),
            Builder::Podman => {
                let context = context.path().display().to_string();
                return self.podman(&["build", "--no-cache", &context]);
            }
        };
        let folder = context.path().display().to_string();
        let file = format!("{folder}/compose.yaml");
        let arguments = match builder {
            Builder::Compose => {
                // What Compose reads is YAML, and so JSON, too.
                fs::write(&file, r#"{"services": {"step": {"build": "."}}}"#)?;
                vec!["compose", "--file", &file, "build", "--no-cache"]
            }
            _ => vec!["build", "--no-cache", &folder],
        };
        let output = Command::new(client)
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments)
            .env("DOCKER_BUILDKIT", buildkit)
            .env("BUILDKIT_PROGRESS", "plain")
            .env("BUILDX_CONFIG", context.path().join("buildx"))
            .output()
            .context("can't run docker(1)")?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        ensure!(output.status.success(), "docker build: {printed}");
        Ok(printed)
    }

    /// Runs a container in the background: `options` before the image, `command` after it.
    ///
    /// # Errors
    /// What docker(1) says.
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Result<Running> {
        let mut arguments = vec!["run", "--detach", "--name", name];
        arguments.extend(options);
        arguments.push(IMAGE);
        arguments.extend(command);
        self.docker(&arguments)?;
        self.inspect(name)
    }

    /// A container as it is now.
    ///
    /// # Errors
    /// What docker(1) says.
    pub fn inspect(&self, name: &str) -> Result<Running> {
        let format = "{{.Id}} {{.State.Pid}}{{range .NetworkSettings.Networks}} {{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
        let text = self.docker(&["inspect", "--format", format, name])?;
        let mut words = text.split_whitespace();
        let id = words.next().context("no ID")?.to_owned();
        let pid = words.next().context("no process")?.parse()?;
        Ok(Running {
            name: name.to_owned(),
            id,
            pid,
            addresses: words.filter_map(|word| word.parse().ok()).collect(),
        })
    }

    /// Ends it as a crash does.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.server.end(Signal::SIGKILL)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.server.end(Signal::SIGTERM)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.server.runs()
            && let Ok(all) = self.docker(&["ps", "--all", "--quiet"])
        {
            // Podman removes no container whose namespace others share before they are gone: once more.
            for id in all.lines().chain(all.lines()) {
                // Podman since 5 asks before it kills, for ten seconds.
                let _ = self.docker(&["kill", id]);
                let _ = self.docker(&["rm", "--force", id]);
            }
        }
        if self.mounts.is_some() && !self.server.runs() {
            // Its containers do not need it.
            let _ = self.podman(&["rm", "--all", "--force"]);
        }
        // What is left is seen by the residue check.
        let _ = self.stop();
        if let Some(mut mounts) = self.mounts.take() {
            let _ = mounts.kill();
            let _ = mounts.wait();
        }
        let data = self.directory.path().join("data");
        let _ = nix::mount::umount2(&data, nix::mount::MntFlags::MNT_DETACH);
        let root = self.directory.path();
        let namespaces = fs::read_dir(root.join("exec/netns")).into_iter();
        let namespaces = namespaces.flatten().flatten().map(|entry| entry.path());
        for path in namespaces.chain([root.join("data")]) {
            let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// See [`IN_ITS_PLACE`].
fn mounts_of_podman(directory: &Path, program: Program) -> Result<Child> {
    let mut command = Command::new("unshare");
    if program == Program::PodmanOutOfSight {
        command.arg("--net");
    }
    let mut process = command
        .args(["--mount", "--propagation", "private"])
        .args(["sh", "-ec", IN_ITS_PLACE, "sh"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let output = process.stdout.as_mut().context("no output")?;
    BufReader::new(output).read_line(&mut said)?;
    ensure!(said == "ready\n", "Podman's mounts can't be made");
    Ok(process)
}

/// The first docker(1) that can build by BuildKit: up to 20.10 each can by itself, from 23 on it takes the plugin buildx.
#[must_use]
pub fn client_with_buildkit() -> Option<PathBuf> {
    let said = |client: &Path, arguments: &[&str]| -> Option<String> {
        let output = Command::new(client).args(arguments).output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then_some(said)
    };
    let can_itself = |client: &Path| -> Option<bool> {
        let version = said(client, &["--version"])?;
        let version = version.strip_prefix("Docker version ")?.split('.').next()?;
        Some(version.parse::<u32>().ok()? < 23)
    };
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("docker"))
        .filter(|client| client.is_file())
        .find(|client| {
            can_itself(client).unwrap_or(false) || said(client, &["buildx", "version"]).is_some()
        })
}

/// Has docker(1) Compose v2?
#[must_use]
pub fn has_compose() -> bool {
    let version = Command::new("docker").args(["compose", "version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// A container's root in this directory, of a program, as `/program`, and the libraries that it needs.
pub(crate) fn program_root(program: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    fs::copy(program, root.join("program"))?;
    let listed = Command::new("ldd").arg(program).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let there = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(there.parent().context("no folder")?)?;
        fs::copy(library, there)?;
    }
    Ok(())
}

/// Packs the image's one layer into this directory.
pub(crate) fn root_file_system(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("image");
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .iter()
        .find(|path| Path::new(path).is_file())
        .context("busybox is needed for the image")?;
    fs::copy(busybox, bin.join("busybox"))?;
    for program in PROGRAMS {
        std::os::unix::fs::symlink("busybox", bin.join(program))?;
    }
    let archive = directory.join("layer.tar");
    pack(&root, &archive)?;
    Ok(archive)
}

/// tar(1) of a directory.
pub(crate) fn pack(root: &Path, archive: &Path) -> Result<()> {
    let packed = Command::new("tar")
        .arg("-C")
        .arg(root)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .status()?;
    ensure!(packed.success(), "tar failed");
    Ok(())
}
