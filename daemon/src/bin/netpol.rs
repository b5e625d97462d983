//! The command people type; see [`netpold::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    netpold::cli::main()
}
