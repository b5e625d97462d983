//! A containerd of a lab's own: its data, state and socket, and CNI networks that ctr(1) finds.
//!
//! ctr looks for networks where the machine has its own (`/etc/cni`, `/opt/cni`, `/var/lib/cni`):
//! each call sees the lab's there, in a mount namespace that ends with it. The plugins run in
//! the lab's host namespace, and so do their bridges and veths.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use netpold::links;
use netpold::netns::{self, Netns};
use nix::sys::signal::Signal;

use crate::daemon::binary;
use crate::docker::{Running, pack, program_root, root_file_system};
use crate::lab::Lab;
use crate::server::Server;

/// The image that containers are made of.
const IMAGE: &str = "docker.io/library/busybox:latest";
/// Where Debian has the CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// Shows the lab's directories (`$1`) where the machine's would be.
const IN_ITS_PLACE: &str = r#"
lab=$1; shift
for place in etc opt var/lib; do
  mount -t overlay overlay -o "lowerdir=$lab/over/$place:/$place" "/$place"
done
mount --bind "$lab/cni" /var/lib/cni
exec ctr "$@"
"#;

/// A running containerd; it ends, with its containers, on drop.
#[derive(Debug)]
pub struct Containerd {
    server: Server,
    lab: String,
    directory: tempfile::TempDir,
}

impl Containerd {
    /// Starts one in the lab's host namespace.
    ///
    /// # Errors
    /// When there is no containerd, or it does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        ensure!(
            Path::new(PLUGINS).join("bridge").is_file(),
            "{PLUGINS} has no CNI plugins: run tests/deps.sh test"
        );
        // An overlay can't lie on another one, which /tmp may be.
        let directory = tempfile::Builder::new()
            .prefix("npd-containerd-")
            .tempdir_in("/dev/shm")?;
        let root = directory.path();
        for place in [
            "over/etc/cni/net.d",
            "over/opt/cni/bin",
            "over/var/lib/cni",
            "cni",
        ] {
            fs::create_dir_all(root.join(place))?;
        }
        let plugins = root.join("over/opt/cni/bin");
        for plugin in ["bridge", "ptp", "macvlan", "host-local"] {
            std::os::unix::fs::symlink(Path::new(PLUGINS).join(plugin), plugins.join(plugin))?;
        }
        std::os::unix::fs::symlink(binary("netpold-cni")?, plugins.join("netpold-cni"))?;
        let socket = root.join("containerd.sock");
        fs::write(
            root.join("config.toml"),
            format!(
                "version = 2\nroot = {:?}\nstate = {:?}\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
                 [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n\
                 [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n\
                 platform = \"linux/{}\"\nsnapshotter = \"native\"\n",
                root.join("root"),
                root.join("state"),
                root.join("ttrpc.sock"),
                architecture(),
            ),
        )?;
        let mut containerd = Self {
            server: Server::new(lab, directory.path().join("log")),
            lab: lab.name.clone(),
            directory,
        };
        containerd.launch()?;
        containerd.make_image()?;
        Ok(containerd)
    }

    /// Starts containerd, also after a stop.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(self.directory.path().join("config.toml"));
        self.server.start(command)?;
        self.server
            .until(|| self.ctr("default", &["version"]).is_ok())
    }

    /// As `docker save` would have it.
    fn make_image(&self) -> Result<()> {
        let root = self.directory.path();
        let layer = root_file_system(root)?;
        let archive = root.join("archive");
        fs::create_dir(&archive)?;
        let sum = Command::new("sha256sum").arg(&layer).output()?;
        let sum = String::from_utf8(sum.stdout)?;
        let sum = sum.split_whitespace().next().context("no checksum")?;
        fs::rename(layer, archive.join("layer.tar"))?;
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        fs::write(archive.join("config.json"), config.to_string())?;
        let manifest = serde_json::json!([{
            "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"],
        }]);
        fs::write(archive.join("manifest.json"), manifest.to_string())?;
        pack(&archive, &root.join("image.tar"))
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The network that containers get from now on: the list of its plugins.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn network(&self, name: &str, plugins: &serde_json::Value) -> Result<()> {
        let network = serde_json::json!({
            "cniVersion": "1.0.0", "name": name, "plugins": plugins,
        });
        let folder = self.directory.path().join("over/etc/cni/net.d");
        fs::write(folder.join("10-lab.conflist"), network.to_string())?;
        Ok(())
    }

    /// ctr(1) with its socket, in one of its namespaces; what it prints, trimmed.
    ///
    /// # Errors
    /// What ctr(1) says.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                IN_ITS_PLACE,
                "sh",
            ])
            .arg(self.directory.path())
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .args(arguments);
        let output = netns::inside(self.server.host(), move || command.output())?
            .context("can't run ctr(1)")?;
        ensure!(
            output.status.success(),
            "ctr {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a container in the background: `options` before the image, `command` after it.
    /// On the network where `--cni` is among the options.
    ///
    /// # Errors
    /// What ctr(1) says.
    pub fn run(
        &self,
        namespace: &str,
        id: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<Running> {
        self.start_container(namespace, id, &[&["--detach"], options].concat(), command)?;
        self.look(namespace, id)
    }

    /// Runs a container until it ends, and removes it; what it prints, trimmed.
    ///
    /// # Errors
    /// What ctr(1) says.
    pub fn say(
        &self,
        namespace: &str,
        id: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<String> {
        self.start_container(namespace, id, &[&["--rm"], options].concat(), command)
    }

    fn start_container(
        &self,
        namespace: &str,
        id: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<String> {
        if !self.ctr(namespace, &["image", "ls", "-q"])?.contains(IMAGE) {
            let archive = self.directory.path().join("image.tar");
            let archive = archive.display().to_string();
            self.ctr(
                namespace,
                &["image", "import", "--snapshotter", "native", &archive],
            )?;
        }
        let options = [&["--snapshotter", "native"], options].concat();
        self.ctr_run(namespace, id, &options, &[&[IMAGE, id], command].concat())
    }

    /// Runs a container of a program alone in the background, on the network. Its root is shared with the others of that program.
    ///
    /// # Errors
    /// What ctr(1) says.
    pub fn run_program(
        &self,
        id: &str,
        labels: &[&str],
        program: &Path,
        arguments: &[&str],
    ) -> Result<Running> {
        let name = program.file_name().context("the program has no name")?;
        let root = self.directory.path().join(name);
        if !root.join("program").exists() {
            program_root(program, &root)?;
        }
        let root = root.display().to_string();
        let mut options = vec!["--detach", "--cni", "--rootfs"];
        options.extend(labels.iter().flat_map(|label| ["--label", label]));
        let command = [&[&root, id, "/program"], arguments].concat();
        self.ctr_run("default", id, &options, &command)?;
        self.look("default", id)
    }

    /// `options`, then what the container's root is, its ID and its command.
    fn ctr_run(
        &self,
        namespace: &str,
        id: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<String> {
        // Two of these would share runc's state and control groups, and containers of one name.
        let runc = self.directory.path().join("runc").display().to_string();
        let group = format!("/{}-{namespace}-{id}", self.lab);
        // A machine whose older control groups have the controller of processors has none for the newer ones.
        let mut arguments = vec!["run", "--cpu-shares", "0"];
        arguments.extend(["--runc-root", &runc, "--cgroup", &group]);
        arguments.extend(options);
        arguments.extend(command);
        self.ctr(namespace, &arguments)
    }

    /// A container as it is now.
    ///
    /// # Errors
    /// It has no task.
    pub fn look(&self, namespace: &str, id: &str) -> Result<Running> {
        let tasks = self.ctr(namespace, &["task", "ls"])?;
        let pid = tasks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&id))
            .and_then(|words| words.get(1)?.parse().ok())
            .with_context(|| format!("`{id}` has no task:\n{tasks}"))?;
        let addresses = links::inside(&Netns::Pid(pid))?
            .into_iter()
            .flat_map(|inside| inside.addresses)
            .filter(|address| !address.is_loopback())
            .filter(|address| match address {
                IpAddr::V4(_) => true,
                IpAddr::V6(address) => !address.is_unicast_link_local(),
            })
            .collect();
        Ok(Running {
            name: id.to_owned(),
            id: format!("{namespace}/{id}"),
            pid,
            addresses,
        })
    }

    /// Ends a container, and removes it.
    ///
    /// # Errors
    /// What ctr(1) says.
    pub fn remove(&self, namespace: &str, id: &str) -> Result<()> {
        self.ctr(namespace, &["task", "rm", "--force", id])?;
        self.ctr(namespace, &["container", "rm", id])?;
        Ok(())
    }

    /// Ends containerd as a crash does; containers live on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.server.end(Signal::SIGKILL)
    }
}

/// This machine's, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if !self.server.runs() {
            let _ = self.launch();
        }
        let namespaces = self.ctr("default", &["namespace", "ls", "-q"]);
        for namespace in namespaces.unwrap_or_default().lines() {
            let all = self.ctr(namespace, &["container", "ls", "-q"]);
            for id in all.unwrap_or_default().lines() {
                let _ = self.ctr(namespace, &["task", "rm", "--force", id]);
                let _ = self.ctr(namespace, &["container", "rm", id]);
            }
        }
        // What is left is seen by the residue check.
        let _ = self.server.end(Signal::SIGTERM);
    }
}
