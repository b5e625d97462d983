//! The command line of `netpold`, the daemon. In the library, so that `netpol man` has its page
//! too.

use std::path::PathBuf;

use clap::Parser;

/// Kubernetes NetworkPolicy for this host's containers
///
/// netpold puts the NetworkPolicies in a directory in force for the containers of this
/// host, and keeps them so: with Docker, and for network namespaces that Pod manifests
/// declare. A file that is put into the directory is in force at once; `netpol wait`
/// returns when it is.
///
/// The kernel enforces. Stopping netpold leaves enforcement on; `netpol uninstall` takes it
/// off.
#[derive(Debug, Parser)]
#[command(name = "netpold", version, after_help = HELP)]
pub struct NetpoldArguments {
    /// The configuration; without it, the default one, which need not be there
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read the configuration, say what is wrong with it, and end
    #[arg(long)]
    pub check: bool,
}

const HELP: &str = "\
Files:
  /etc/netpold/netpold.toml   configuration: every key has a default
  /etc/netpold/manifests/     NetworkPolicies, Namespaces and Pods, watched
  /run/netpold/netpold.sock   what `netpol` talks to

Environment:
  NETPOLD_LOG   how much is logged: `debug`, `netpold::store=trace,info`

Signals:
  SIGTERM, SIGINT   stop; what is in force stays in force
  SIGHUP            read the configuration again; where it has changed, restart in place with it,
                    else look at everything again

Exit codes:
  0  stopped as asked
  1  it could not start, or go on, or what was in force ends with it
  2  usage, or a configuration that can't be";
