//! What a lab leaves behind: network namespaces and pins.
//!
//! Links need no look of their own: a lab makes them in its namespaces alone, and
//! they go with those. Suites may run side by side, so each lab is asked about by
//! its name.

use std::fs;

use anyhow::{Result, ensure};

/// Nothing of the lab of this name ([`crate::Lab::name`]) is there any more.
///
/// # Errors
/// Names what is.
pub fn check(lab: &str) -> Result<()> {
    let mut left = Vec::new();
    for folder in ["/run/netns", "/sys/fs/bpf"] {
        // A folder that is not there has nothing in it.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // `npd-1-1` is not `npd-1-10`.
            if name
                .strip_prefix(lab)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            {
                left.push(entry.path().display().to_string());
            }
        }
    }
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}
