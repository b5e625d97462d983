//! The register of endpoints, and its copy on disk for a restart.

use std::path::{Path, PathBuf};

use netpol_engine::tables::Tables;

use super::register::{self, EmptyTables, Register};

/// The register, and where it is saved.
pub struct Records {
    /// The register as it is now.
    pub register: Register,
    saved: Register,
    directory: PathBuf,
    boot: String,
    /// Why the register could not be saved when that was tried last.
    save_error: Option<String>,
}

impl Records {
    /// Reads what an earlier netpold saved in this boot. `first`: the socket of the first engine, whose containers an older
    /// netpold saved without it.
    pub fn read(directory: &Path, first: Option<&Path>) -> Self {
        let boot = register::boot();
        let saved = Register::read(directory, &boot);
        let saved = match first {
            Some(first) => saved.of_engines(first),
            None => saved,
        };
        Self {
            register: saved.clone(),
            saved,
            directory: directory.to_owned(),
            boot,
            save_error: None,
        }
    }

    /// Takes over from what was saved what the kernel's tables confirm.
    pub fn adopt(&mut self, tables: &Tables, empty_tables: EmptyTables) {
        self.register = self.saved.clone().adopt(tables, empty_tables);
    }

    /// What is on disk.
    pub const fn saved(&self) -> &Register {
        &self.saved
    }

    /// Why what is there now is not on disk; `None`: it is.
    pub fn save_error(&self) -> Option<&str> {
        self.save_error.as_deref()
    }

    /// Writes the register to the disk, where it has changed.
    pub fn save(&mut self) {
        if self.register.is_same_on_disk(&self.saved) {
            return;
        }
        match self.register.save(&self.directory, &self.boot) {
            Ok(()) => {
                self.saved = self.register.clone();
                if self.save_error.take().is_some() {
                    tracing::info!("the endpoints are kept for a restart again");
                }
            }
            Err(error) => {
                let why = format!("the endpoints can't be kept for a restart: {error}");
                if self.save_error.as_ref() != Some(&why) {
                    tracing::error!("{why}");
                }
                self.save_error = Some(why);
            }
        }
    }
}
