//! The daemon: reads its configuration and runs [`netpold::reconcile`], and restarts in place where that has changed.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use netpold::args::NetpoldArguments;
use netpold::reconcile::{self, End};
use netpold::{config, telemetry};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::execv;

fn main() -> ExitCode {
    // Before a newer netpold can take its place.
    let program = env::current_exe();
    let arguments = NetpoldArguments::parse();
    let read = || config::load(arguments.config.as_deref());
    let config = match read() {
        Ok(config) => config,
        Err(error) => return failed(&error.to_string(), 2),
    };
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = telemetry::log::start() {
        return failed(&error.to_string(), 2);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string(), 1),
    };
    match runtime.block_on(reconcile::run(config, read)) {
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Ok(End::Reexec) => match program.and_then(|program| reexec(&program)) {
            Ok(never) => match never {},
            // A service manager starts it again.
            Err(error) => failed(&format!("it can't restart in place: {error}"), 1),
        },
        Err(error) => failed(&error.to_string(), 1),
    }
}

/// The same process and arguments, with nothing else kept: what is in force is the kernel's, and
/// taken over as after any stop. A SIGHUP that comes meanwhile waits for the loop, which takes it.
fn reexec(program: &Path) -> std::io::Result<Infallible> {
    let text = |text: Vec<u8>| CString::new(text).map_err(std::io::Error::other);
    let arguments = env::args_os()
        .map(|argument| text(argument.into_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    SigSet::from(Signal::SIGHUP).thread_block()?;
    Ok(execv(
        &text(PathBuf::from(program).into_os_string().into_vec())?,
        &arguments,
    )?)
}

fn failed(message: &str, code: u8) -> ExitCode {
    anstream::eprintln!("netpold: {message}");
    ExitCode::from(code)
}
