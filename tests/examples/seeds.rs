//! Writes the packet corpus as the fuzz targets' beginnings: `DIRECTORY/packet`, a frame a file, and
//! `DIRECTORY/datapath`, a sequence a file. Called by `tests/fuzz/run.sh`.

#[path = "../fuzz/src/datapath.rs"]
#[allow(dead_code, reason = "the target uses the rest")]
mod datapath;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use netpold_tests::packets::script::{Action, Script, files};

fn main() -> Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .context("usage: seeds DIRECTORY")?;
    let directory = PathBuf::from(directory);
    let mut frames = BTreeSet::new();
    for name in ["packet", "datapath"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    for path in files()? {
        let script = Script::read(&path)?;
        let name = path.file_stem().context("a file without a name")?;
        std::fs::write(
            directory.join("datapath").join(name),
            datapath::encode(&script),
        )?;
        for step in &script.steps {
            if let Action::Frames { frames: shown, .. } = &step.action {
                frames.extend(shown.iter().take(4).map(|frame| frame.bytes.clone()));
            }
        }
    }
    for (number, frame) in frames.iter().enumerate() {
        std::fs::write(directory.join("packet").join(number.to_string()), frame)?;
    }
    Ok(())
}
