//! The CNI plugin that lets a container start once it is in force; see [`netpold::cni`].

use std::process::ExitCode;

fn main() -> ExitCode {
    netpold::cni::main()
}
