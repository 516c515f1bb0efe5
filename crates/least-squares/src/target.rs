//! The merged model while it comes about.

use crate::error::{LeastSquaresError, Result};
use rolegraft_checkpoint::{Architecture, Checkpoint, Digest, Map, WriteError, write_atomic};
use rolegraft_merge::MergeError;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What merges a tensor of the anchor, as F32.
pub(crate) type Anchor<'a> = dyn Fn(&str) -> std::result::Result<Vec<f32>, MergeError> + 'a;

/// A folder beside the output in which it comes about, while it is locked.
pub(crate) struct Bench {
    pub(crate) dir: PathBuf,
    _lock: File,
}

/// How far it is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    identity: String,
    /// Layers that are fitted.
    pub(crate) layers: usize,
    /// Maps among them whose equations are singular.
    pub(crate) singular: Vec<String>,
    /// Maps of the next layer are being written over of which the fit needs what was there: it cannot go on from here.
    #[serde(default)]
    open: bool,
}

impl Bench {
    pub(crate) fn open(out: &Path) -> Result<Self> {
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let dir = out.with_file_name(format!(".{name}.fit"));
        let open = || -> io::Result<File> {
            std::fs::create_dir_all(&dir)?;
            let lock = File::create(dir.join("lock"))?;
            lock.try_lock().map_err(|_| {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process is making this merge; wait for it")
            })?;
            Ok(lock)
        };
        let lock = open().map_err(WriteError::at(&dir))?;
        Ok(Self { dir, _lock: lock })
    }

    fn file(&self) -> PathBuf {
        self.dir.join("fitted.json")
    }

    /// What is fitted already; what belongs to another merge is removed.
    pub(crate) fn resume(&self, identity: &Digest) -> Result<Note> {
        let note = std::fs::read(self.file()).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        if let Some(note) = note.filter(|note| note.identity == identity.as_str() && !note.open) {
            return Ok(note);
        }
        let merged = self.dir.join("merged");
        let remove = || if merged.exists() { std::fs::remove_dir_all(&merged) } else { Ok(()) };
        remove().map_err(WriteError::at(&merged))?;
        Ok(Note { identity: identity.to_string(), layers: 0, singular: Vec::new(), open: false })
    }

    pub(crate) fn write(&self, note: &Note) -> Result<()> {
        Ok(write_atomic(&self.file(), &serde_json::to_vec(note).unwrap_or_default())?)
    }

    /// What is there is of no use.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// Unless something is there to go on from, or of others, the folder goes.
    pub(crate) fn leave(self) {
        let _ = std::fs::remove_file(self.dir.join("lock"));
        let _ = std::fs::remove_dir(&self.dir);
    }

    pub(crate) fn publish(self, merged: &Path, out: &Path) -> Result<()> {
        let publish = || {
            if out.exists() {
                std::fs::remove_dir(out)?;
            }
            std::fs::rename(merged, out)
        };
        publish().map_err(WriteError::at(out))?;
        self.remove();
        Ok(())
    }
}

/// The merged model so far, and what its maps are pulled to. All but the maps of layers that are not fitted yet is final.
pub(crate) struct Target<'t> {
    pub(crate) merged: Checkpoint,
    pub(crate) anchor: &'t Anchor<'t>,
    pub(crate) bench: &'t Bench,
    pub(crate) note: Note,
}

impl Target<'_> {
    /// A tensor of the anchor.
    pub(crate) fn anchor(&self, tensor: &str) -> Result<Vec<f32>> {
        Ok((self.anchor)(tensor)?)
    }

    /// Puts a fitted tensor into the merged model.
    pub(crate) fn store(&self, tensor: &str, values: &[f32]) -> Result<()> {
        if !values.iter().all(|value| value.is_finite()) {
            return Err(LeastSquaresError::Unsolvable(tensor.to_owned()));
        }
        let dtype = self.merged.tensor(tensor).map(|t| t.dtype);
        let Some(bytes) = dtype.and_then(|dtype| dtype.from_f32(values)) else {
            return Err(LeastSquaresError::NoTensor(tensor.to_owned()));
        };
        Ok(self.merged.overwrite(tensor, &bytes)?)
    }

    /// What a layer's maps were is lost from here until they are [done](Self::done).
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.note.open = true;
        self.bench.write(&self.note)
    }

    /// All of a layer is stored: it need not be fitted again.
    pub(crate) fn done(&mut self, layer: usize, singular: Vec<String>) -> Result<()> {
        (self.note.layers, self.note.open) = (layer + 1, false);
        self.note.singular.extend(singular);
        self.bench.write(&self.note)
    }
}

/// Some rows of a model's matrix, which must be of a shape (rows, width).
pub(crate) fn read_rows(
    (checkpoint, model): (&Checkpoint, &str),
    tensor: &str,
    (height, width): (usize, usize),
    rows: Range<usize>,
) -> Result<Vec<f32>> {
    let found = checkpoint.tensor(tensor);
    let shape = found.as_ref().map(|t| t.shape.clone()).unwrap_or_default();
    let Some(found) = found.filter(|t| t.shape == [height, width]) else {
        let (tensor, model) = (tensor.to_owned(), model.to_owned());
        return Err(LeastSquaresError::Shape { tensor, model, found: shape, expected: vec![height, width] });
    };
    let row = width * found.dtype.size();
    let mut bytes = vec![0; rows.len() * row];
    checkpoint.read(tensor, (rows.start * row) as u64, &mut bytes)?;
    let values = found.dtype.to_f32(&bytes).unwrap_or_default();
    checkpoint.check_finite(tensor, rows.start * width, &values)?;
    Ok(values)
}

/// A map's weight: its rows are the columns of (inputs, outputs).
pub(crate) fn weight(
    checkpoint: &Checkpoint,
    model: &str,
    architecture: &Architecture,
    layer: usize,
    map: Map,
) -> Result<Vec<f64>> {
    let (inputs, outputs) = architecture.widths(map);
    let rows = read_rows((checkpoint, model), &weight_of(layer, map), (outputs, inputs), 0..outputs)?;
    Ok(rows.into_iter().map(f64::from).collect())
}

pub(crate) fn weight_of(layer: usize, map: Map) -> String {
    Architecture::in_layer(layer, &format!("{}.weight", map.module()))
}
