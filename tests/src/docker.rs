//! A Docker engine of a lab's own: its network namespace, data and socket.
//!
//! The one image has busybox alone, taken from this machine, so nothing is downloaded. Host
//! firewalls are left to nobody: the engine makes no rules.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::server::Server;

/// The image that containers are made of.
pub const IMAGE: &str = "busybox";

/// The programs of the image.
const PROGRAMS: [&str; 9] = [
    "sh", "sleep", "nc", "ping", "httpd", "ip", "wget", "cat", "true",
];

/// Podman writes where it has leases of addresses: to the lab's (`$1`), not to the machine's.
const IN_ITS_PLACE: &str = r#"
lab=$1; shift
mount -t overlay overlay -o "lowerdir=$lab/over:/var/lib" /var/lib
mount --bind "$lab/cni" /var/lib/cni
exec podman "$@"
"#;

/// Who speaks the engine's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Docker,
    Podman,
}

/// A running engine; it ends, with its containers, on drop.
#[derive(Debug)]
pub struct Engine {
    program: Program,
    server: Server,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
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
}

impl Engine {
    /// Starts one in the lab's host namespace, with these further arguments.
    ///
    /// # Errors
    /// When there is no dockerd, or it does not start.
    pub fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("npd-docker-").tempdir()?;
        Self::of(Program::Docker, lab, directory, arguments)
    }

    /// Starts Podman's Docker-compatible service in the lab's host namespace.
    ///
    /// # Errors
    /// When there is no podman, or it does not start.
    pub fn start_podman(lab: &Lab) -> Result<Self> {
        // An overlay can't lie on another one, which /tmp may be.
        let directory = tempfile::Builder::new()
            .prefix("npd-podman-")
            .tempdir_in("/dev/shm")?;
        let root = directory.path();
        for folder in ["over/cni", "cni", "networks"] {
            fs::create_dir_all(root.join(folder))?;
        }
        // The limits are what root may have everywhere.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                        [engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n";
        fs::write(root.join("containers.conf"), settings)?;
        Self::of(Program::Podman, lab, directory, &[])
    }

    fn of(
        program: Program,
        lab: &Lab,
        directory: tempfile::TempDir,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut engine = Self {
            program,
            server: Server::new(lab, directory.path().join("log")),
            directory,
            arguments: arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect(),
        };
        engine.launch()?;
        engine.import()?;
        Ok(engine)
    }

    /// Starts it (again).
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn launch(&mut self) -> Result<()> {
        let command = match self.program {
            Program::Docker => self.dockerd(),
            Program::Podman => self.podman(),
        };
        self.server.start(command)?;
        self.server.until(|| self.docker(&["version"]).is_ok())
    }

    fn dockerd(&self) -> Command {
        let root = self.directory.path();
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(root.join("data"))
            .arg("--exec-root")
            .arg(root.join("exec"))
            .arg("--pidfile")
            .arg(root.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--storage-driver", "vfs", "--bip", "172.30.0.1/16"])
            .args(["--iptables=false", "--ip6tables=false"])
            .args(&self.arguments);
        command
    }

    fn podman(&self) -> Command {
        let root = self.directory.path();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-ec", IN_ITS_PLACE, "sh"])
            .arg(root)
            .arg("--root")
            .arg(root.join("data"))
            .arg("--runroot")
            .arg(root.join("exec"))
            .arg("--tmpdir")
            .arg(root.join("tmp"))
            .arg("--network-config-dir")
            .arg(root.join("networks"))
            .args([
                "--storage-driver",
                "vfs",
                "system",
                "service",
                "--time",
                "0",
            ])
            .arg(format!("unix://{}", self.socket().display()))
            .env("CONTAINERS_CONF", root.join("containers.conf"));
        command
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
        fs::create_dir_all(&root)?;
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
            // Podman removes nobody whose namespace others share before they are gone: once more.
            for id in all.lines().chain(all.lines()) {
                // Podman since 5 asks before it kills, for ten seconds.
                let _ = self.docker(&["kill", id]);
                let _ = self.docker(&["rm", "--force", id]);
            }
        }
        // What is left is seen by the residue check.
        let _ = self.stop();
        let data = self.directory.path().join("data");
        let _ = nix::mount::umount2(&data, nix::mount::MntFlags::MNT_DETACH);
        for path in ["exec/netns/default", "data"] {
            let path = self.directory.path().join(path);
            let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
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
