//! The pool, the tasks and the experiment, as they come with the program: unpacked where a folder of them is asked for.

use include_dir::{Dir, include_dir};
use rolegraft_checkpoint::{Digest, WriteError, write_atomic};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

static BENCHMARKS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../benchmarks");

/// The experiments that need nothing besides, by name.
pub const EXPERIMENTS: &[&str] = &["nano"];

/// There is no folder to unpack to.
#[derive(Debug, thiserror::Error)]
#[error(
    "the built-in suites cannot be unpacked: {source}; let XDG_CACHE_HOME name a folder that can be written, or work where a \
     folder `benchmarks` is"
)]
pub struct BuiltInError {
    source: WriteError,
}

/// The folder of the suites' folders, with the pool beside them: written into the user's cache when it is first asked for, and
/// where something of it is missing or cut.
///
/// # Errors
/// If it cannot be written.
pub fn benchmarks() -> Result<PathBuf, BuiltInError> {
    let mut files = Vec::new();
    gather(&BENCHMARKS, &mut files);
    let digest = Digest::of_parts(files.iter().map(|(path, bytes)| (path.to_str().unwrap_or_default(), *bytes)));
    let cache = dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("rolegraft");
    let folder = cache.join(format!("built-in-{:.16}", digest.as_str())).join("benchmarks");
    for (path, bytes) in files {
        let place = folder.join(path);
        if !holds(&place, bytes).unwrap_or(false) {
            write_atomic(&place, bytes).map_err(|source| BuiltInError { source })?;
        }
    }
    Ok(folder)
}

fn gather(dir: &'static Dir<'_>, files: &mut Vec<(&'static Path, &'static [u8])>) {
    files.extend(dir.files().map(|file| (file.path(), file.contents())));
    dir.dirs().for_each(|dir| gather(dir, files));
}

fn holds(place: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut there = Vec::with_capacity(bytes.len());
    File::open(place)?.take(bytes.len() as u64 + 1).read_to_end(&mut there)?;
    Ok(there == bytes)
}
