//! Writes an expert's sums: layer by layer, at the end of a file that is whole when it gets its name.

use crate::error::Result;
use crate::gram::Gram;
use crate::merge::Means;
use crate::sample::Expert;
use crate::sums::{layout, shares};
use crate::walk::{Fitting, Walk};
use rolegraft_checkpoint::{Architecture, Header, WriteError, open_own};
use rolegraft_decoder::{DecoderError, Site};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Writes the Gram matrices of what goes into an expert's maps, F64, with these words in the header. `OUT.partial` keeps what is
/// done, layer by layer: the same call goes on from it.
///
/// # Errors
/// If the checkpoint cannot be run, the memory does not do, the disk refuses, another process writes the same file, or it is
/// stopped.
pub fn record(
    expert: &Expert<'_>,
    metadata: &BTreeMap<String, String>,
    out: &Path,
    stop: &AtomicBool,
    means: &Means<'_>,
) -> Result<()> {
    let architecture = Architecture::of(expert.checkpoint).map_err(DecoderError::from)?;
    let (layout, of_layer) = layout(&architecture, expert.replies());
    let header = Header::encode_with(&layout, metadata);
    let (partial, scratch) = (out.with_added_extension("partial"), out.with_added_extension("scratch"));
    let at = || WriteError::at(&partial);
    std::fs::create_dir_all(&scratch).map_err(WriteError::at(&scratch))?;
    let fitting = Fitting { memory: means.memory, scratch: &scratch, stop, progress: means.progress };
    let experts = std::slice::from_ref(expert);
    let write = || -> Result<()> {
        let mut walk = Walk::new(experts, &architecture, None, &fitting)?;
        let (mut file, done) = begin(&partial, &header, (of_layer, architecture.num_hidden_layers)).map_err(at())?;
        let new = |site: Site| (site, Gram::new(architecture.widths(site.maps()[0]).0));
        let mut sums: Vec<(Site, Gram)> = Site::ALL.into_iter().map(new).collect();
        for layer in 0..architecture.num_hidden_layers {
            let sites: &'static [Site] = if layer < done { &[] } else { &Site::ALL };
            walk.gather(layer, 0, sites, &mut sums, expert.replies())?;
            for (_, sum) in sums.iter_mut().filter(|_| layer >= done) {
                sum.write_symmetric(&mut file).map_err(at())?;
                sum.clear();
            }
            file.sync_data().map_err(at())?;
        }
        if expert.replies() {
            walk.head(0, expert.checkpoint)?.write_symmetric(&mut file).map_err(at())?;
        }
        file.write_all(&shares(&architecture, &expert.shares)).and_then(|()| file.sync_all()).map_err(at())?;
        Ok(())
    };
    let written = write();
    let _ = std::fs::remove_dir(&scratch);
    written?;
    std::fs::rename(&partial, out).map_err(WriteError::at(out))?;
    Ok(())
}

/// A file that begins with these bytes, locked and open after the layers that it has, at most so many: how many those are.
fn begin(path: &Path, header: &[u8], (of_layer, most): (usize, usize)) -> io::Result<(File, usize)> {
    let mut file = open_own(path)?;
    file.try_lock().map_err(|_| {
        io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing these matrices; wait for it")
    })?;
    let mut there = vec![0; header.len()];
    let same = file.read_exact(&mut there).is_ok() && there == header;
    let layers = if same { ((file.metadata()?.len() as usize - header.len()) / of_layer).min(most) } else { 0 };
    if !same {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(header)?;
    }
    let end = (header.len() + layers * of_layer) as u64;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok((file, layers))
}
