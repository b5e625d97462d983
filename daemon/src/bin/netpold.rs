//! The daemon: reads its configuration and runs [`netpold::reconcile`].

use std::process::ExitCode;

use clap::Parser;
use netpold::cli::NetpoldArguments;
use netpold::{config, reconcile, telemetry};

fn main() -> ExitCode {
    let arguments = NetpoldArguments::parse();
    if let Err(error) = telemetry::log::start() {
        return failed(&error.to_string(), 2);
    }
    let config = match config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return failed(&error.to_string(), 2),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string(), 1),
    };
    match runtime.block_on(reconcile::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string(), 1),
    }
}

fn failed(message: &str, code: u8) -> ExitCode {
    anstream::eprintln!("netpold: {message}");
    ExitCode::from(code)
}
