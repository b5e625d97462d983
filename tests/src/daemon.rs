//! netpold inside a lab, with a world of its own.
//!
//! The daemon is started from a thread that entered the lab's host namespace: the
//! mounts stay the machine's, so the BPF file system is there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpold::api::Client;
use netpold::api::wire::Waited;
use netpold::netns;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, Pod};
use crate::server::Server;
use crate::time_scale::scaled;

/// Where its directories are: it writes through to the disk what it accepts, and that is no
/// suite's policy set.
const MEMORY: &str = "/dev/shm";
/// What to set for [`Daemon::metrics`].
pub const WITH_METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9469\"\n";
const METRICS: (&str, u16) = ("127.0.0.1", 9469);
/// How long the daemon may take to end by itself.
const ENDING: Duration = Duration::from_secs(10);
/// How long what is on disk may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(20);

/// A daemon and its directories; stopped, uninstalled and removed on drop.
#[derive(Debug)]
pub struct Daemon {
    server: Server,
    directory: tempfile::TempDir,
    pins: PathBuf,
}

impl Daemon {
    /// One that knows the lab's Pods, each labelled `app: NAME`, and has these manifests in force.
    ///
    /// # Errors
    /// When it does not get there, with what it said.
    pub fn enforcing(lab: &Lab, manifests: &[(&str, &str)], settings: &str) -> Result<Self> {
        let mut daemon = Self::prepare(lab, settings)?;
        for pod in lab.pods() {
            daemon.declare(pod)?;
        }
        for (name, text) in manifests {
            daemon.put(name, text)?;
        }
        daemon.launch()?;
        daemon.wait()?;
        Ok(daemon)
    }

    /// Makes its directories and starts it. `settings` is TOML that goes below its own;
    /// it may not open `[manifests]`, `[docker]`, `[containerd]`, `[datapath]`,
    /// `[state]` and `[api]` again.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(lab: &Lab, settings: &str) -> Result<Self> {
        let mut daemon = Self::prepare(lab, settings)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// As [`Daemon::start`], without starting it: manifests can be written before.
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn prepare(lab: &Lab, settings: &str) -> Result<Self> {
        Self::prepare_beside(lab, None, settings)
    }

    /// As [`Daemon::prepare`], for a daemon that follows the container engine on this socket.
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn prepare_beside(lab: &Lab, engine: Option<&Path>, settings: &str) -> Result<Self> {
        Self::prepare_following(lab, engine, None, settings)
    }

    /// As [`Daemon::prepare`], for a daemon that follows the container engine and the containerd
    /// on these sockets.
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn prepare_following(
        lab: &Lab,
        docker: Option<&Path>,
        containerd: Option<&Path>,
        settings: &str,
    ) -> Result<Self> {
        let followed = |socket: Option<&Path>| match socket {
            Some(socket) => format!("enabled = \"auto\"\nsocket = {socket:?}"),
            None => "enabled = false".to_owned(),
        };
        Self::prepare_with(lab, &followed(docker), &followed(containerd), settings)
    }

    /// As [`Daemon::prepare`], for a daemon that follows all the engines on these sockets that speak Docker's API.
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn prepare_beside_all(lab: &Lab, sockets: &[PathBuf], settings: &str) -> Result<Self> {
        let docker = format!("sockets = {sockets:?}");
        Self::prepare_with(lab, &docker, "enabled = false", settings)
    }

    fn prepare_with(lab: &Lab, docker: &str, containerd: &str, settings: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("npd-").tempdir_in(MEMORY)?;
        let root = directory.path();
        let pins = Path::new("/sys/fs/bpf").join(&lab.name);
        fs::create_dir(root.join("manifests"))?;
        let config = format!(
            "[manifests]\ndirectory = {:?}\n\
             [docker]\n{docker}\n\
             [containerd]\n{containerd}\n\
             [datapath]\npin-directory = {pins:?}\n\
             [state]\ndirectory = {:?}\n\
             [api]\nsocket = {:?}\n{settings}\n",
            root.join("manifests"),
            root.join("state"),
            root.join("netpold.sock"),
        );
        fs::write(root.join("netpold.toml"), config)?;
        Ok(Self {
            server: Server::new(lab, directory.path().join("netpold.log")),
            directory,
            pins,
        })
    }

    /// Starts the daemon, also after a stop.
    ///
    /// # Errors
    /// When it runs already, or can't be started.
    pub fn launch(&mut self) -> Result<()> {
        self.launch_by(Command::new(binary("netpold")?))
    }

    /// As [`Daemon::launch`], by a command that is or becomes netpold: its arguments go behind.
    ///
    /// # Errors
    /// When it runs already, or can't be started.
    pub fn launch_by(&mut self, mut command: Command) -> Result<()> {
        ensure!(!self.server.runs(), "the daemon runs already");
        command.arg("--config").arg(self.config());
        self.server.start(command)
    }

    /// Has it pin below another directory from its next start on.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn pin_below(&mut self, directory: &Path) -> Result<()> {
        let pins = directory.join("netpold");
        let config = fs::read_to_string(self.config())?;
        let (old, new) = (format!("{:?}", self.pins), format!("{pins:?}"));
        fs::write(self.config(), config.replace(&old, &new))?;
        self.pins = pins;
        Ok(())
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Gives its state directory a disk of its own, of 256 KiB, before the first start.
    ///
    /// # Errors
    /// It can't be mounted.
    pub fn state_on_a_small_disk(&self) -> Result<()> {
        let state = self.state();
        fs::create_dir(&state)?;
        let size = Some("size=256k");
        mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), size)?;
        Ok(())
    }

    /// Fills that disk with a file, and gives its path: removing it makes room again.
    ///
    /// # Errors
    /// There is room left.
    pub fn fill_state(&self) -> Result<PathBuf> {
        let filler = self.state().join("filler");
        let full = io::copy(&mut io::repeat(0), &mut fs::File::create(&filler)?);
        ensure!(full.is_err(), "the disk is not full");
        Ok(filler)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("netpold.toml")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("netpold.sock")
    }

    /// Its manifests directory.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// Its pin directory.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the daemon does not run")?;
        Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Moves a whole manifest into place, as an editor would.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".")
            .tempfile_in(self.manifests())?;
        file.write_all(text.as_bytes())?;
        file.persist(self.manifests().join(name))?;
        Ok(())
    }

    /// Declares a Pod of the lab, labelled `app: NAME`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn declare(&self, pod: &Pod) -> Result<()> {
        let name = pod.reference.replace('/', "-");
        let app = pod.reference.split('/').next_back().unwrap_or_default();
        self.put(&format!("pod-{name}.json"), &pod.manifest(&[("app", app)])?)
    }

    /// Removes a manifest.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.manifests().join(name)).with_context(|| name.to_owned())
    }

    /// `netpol` with its socket.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn netpol(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(binary("netpol")?)
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .output()
            .context("can't run netpol")
    }

    /// Waits until all that is on disk is in force.
    ///
    /// # Errors
    /// When it does not get there, with what the daemon said.
    pub fn wait(&self) -> Result<()> {
        let timeout = format!("{}s", scaled(IN_FORCE).as_secs());
        let output = self.netpol(&["wait", "--timeout", &timeout])?;
        ensure!(
            output.status.success(),
            "netpol wait: {}\nthe daemon's log:\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        Ok(())
    }

    /// As [`Daemon::wait`], a thousand times a minute: without a process each time. The
    /// generation that is in force then.
    ///
    /// # Errors
    /// When it does not get there, with what the daemon said.
    pub fn settle(&self) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let waited = runtime.block_on(Client::new(self.socket()).wait(scaled(IN_FORCE)))?;
        match waited {
            Waited::Synced(synced) if synced.rejected.is_empty() && synced.failures.is_empty() => {
                Ok(synced.generation)
            }
            waited => bail!(
                "not all is in force: {waited:?}\nthe daemon's log:\n{}",
                self.log()
            ),
        }
    }

    /// The value of each line of its metrics. It must have `[metrics] listen = "127.0.0.1:9469"`.
    ///
    /// # Errors
    /// When there are none.
    pub fn metrics(&self) -> Result<BTreeMap<String, u64>> {
        let mut stream = netns::inside(self.server.host(), || TcpStream::connect(METRICS))??;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(lines.collect())
    }

    /// Ends it as systemd does; enforcement stays.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends it as a crash does; enforcement stays.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.server
            .end_within(scaled(ENDING), signal)
            .context("the daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The residue check tells of a failure.
        let _ = self.end(Signal::SIGTERM);
        let config = self.config();
        let _ = binary("netpol").map(|netpol| {
            let mut command = Command::new(netpol);
            command.arg("uninstall").arg("--config").arg(config);
            command.stdout(Stdio::null());
            netns::inside(self.server.host(), move || command.status())
        });
        // A directory with something mounted in it can't be removed. Most have no disk of their own there.
        let _ = umount2(&self.state(), MntFlags::MNT_DETACH);
    }
}

/// The interfaces by which an endpoint of `netpol status` reaches networks. Its loopback interface is listed beside them
/// where its engine sends the container's queries for names from the host, as Docker 28 does and Docker 26 does not.
///
/// # Errors
/// The endpoint has no list of interfaces.
pub fn network_interfaces(endpoint: &serde_json::Value) -> Result<Vec<&serde_json::Value>> {
    let all = endpoint["interfaces"].as_array().context("no interfaces")?;
    let all = all.iter();
    Ok(all.filter(|one| one["inside"] != "loopback").collect())
}

/// A program of this workspace, beside the suite that runs.
///
/// # Errors
/// When it is not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let suite = std::env::current_exe()?;
    let path = suite
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    path.with_context(|| format!("`{name}` is not built: run `cargo build` first"))
}
