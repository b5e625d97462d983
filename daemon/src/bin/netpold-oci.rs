//! The OCI runtime that lets a container start once it is in force; see [`netpold::oci`].

use std::process::ExitCode;

fn main() -> ExitCode {
    netpold::oci::main()
}
