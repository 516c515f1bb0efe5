//! The files that stages hand to each other: the program's public interface (docs/artefacts.md).
//!
//! Each says what it is, in which format, and from what it was made, so that a stage refuses what does not fit with the
//! file and the field. What is read was written by somebody else: lengths, shapes and numbers are checked before use.

use rolegraft_checkpoint::{Digest, Digesting, Dtype, Header, WriteError, write_atomic};
use rolegraft_saliency::{Saliency, TENTHS, Tenth};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Version of every format here; raised when a reader of the old one would misread the new.
pub(crate) const FORMAT: u32 = 1;

/// Why a file cannot be used as an artefact.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ArtefactError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("`{}` is not a {expected}: {reason}", path.display())]
    Form { path: PathBuf, expected: &'static str, reason: String },
    #[error("`{}` is a {found}, where a {expected} is wanted", path.display())]
    Kind { path: PathBuf, expected: &'static str, found: String },
    #[error("`{}` has format {found}, which a newer version wrote; this one reads up to {FORMAT}", path.display())]
    Newer { path: PathBuf, found: u64 },
    #[error("`{}` line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("`{}`: `{field}` is {found}, but {expected} in {other}; {mend}", path.display())]
    Mismatch { path: PathBuf, field: &'static str, found: String, expected: String, other: String, mend: &'static str },
}

/// A document of one kind.
pub trait Document: Serialize + DeserializeOwned {
    /// What it is called in the file and in errors.
    const KIND: &'static str;
}

#[derive(Serialize)]
struct Wrapped<'d, D> {
    rolegraft: &'static str,
    format: u32,
    content: &'d D,
}

/// The bytes of a document's file.
pub fn encode<D: Document>(document: &D) -> Vec<u8> {
    let wrapped = Wrapped { rolegraft: D::KIND, format: FORMAT, content: document };
    let mut bytes = serde_json::to_vec_pretty(&wrapped).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Writes a document, whole or not at all.
///
/// # Errors
/// If the disk refuses.
pub fn write<D: Document>(path: &Path, document: &D) -> Result<(), ArtefactError> {
    Ok(write_atomic(path, &encode(document))?)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ArtefactError> {
    std::fs::read(path).map_err(|source| ArtefactError::Read { path: path.to_owned(), source })
}

/// Checks what a file says of itself.
fn check_head(path: &Path, expected: &'static str, head: &serde_json::Value) -> Result<(), ArtefactError> {
    let Some(found) = head["rolegraft"].as_str() else {
        let reason = "it has no `rolegraft` that says what it is".into();
        return Err(ArtefactError::Form { path: path.to_owned(), expected, reason });
    };
    if found != expected {
        return Err(ArtefactError::Kind { path: path.to_owned(), expected, found: found.to_owned() });
    }
    match head["format"].as_u64() {
        Some(format) if format <= u64::from(FORMAT) => Ok(()),
        Some(found) => Err(ArtefactError::Newer { path: path.to_owned(), found }),
        None => {
            let reason = "it has no `format`".into();
            Err(ArtefactError::Form { path: path.to_owned(), expected, reason })
        }
    }
}

/// Checks what the header of a file of tensors says of itself.
pub(crate) fn check_header(
    path: &Path,
    expected: &'static str,
    say: impl Fn(&str) -> Option<String>,
) -> Result<(), ArtefactError> {
    let format = say("format").and_then(|format| format.parse::<u64>().ok());
    check_head(path, expected, &serde_json::json!({"rolegraft": say("rolegraft"), "format": format}))
}

/// Reads a document.
///
/// # Errors
/// If it is missing, of another kind or a newer format, or not what its kind holds.
pub fn read<D: Document>(path: &Path) -> Result<D, ArtefactError> {
    let wrong = |reason: String| ArtefactError::Form { path: path.to_owned(), expected: D::KIND, reason };
    let mut value: serde_json::Value =
        serde_json::from_slice(&read_bytes(path)?).map_err(|e| wrong(format!("it is not JSON: {e}")))?;
    check_head(path, D::KIND, &value)?;
    serde_json::from_value(value["content"].take()).map_err(|e| wrong(e.to_string()))
}

/// What a calibration set of tokens was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationHead {
    /// Digest of the tokenizer's `tokenizer.json`.
    pub tokenizer: String,
    /// Digest of how conversations were rendered: template, special tokens, arguments, day.
    pub rendering: String,
    /// Digest of the trajectories.
    pub episodes: String,
    /// The benchmark that its roles decide.
    pub benchmark: String,
}

/// A run of tokens that the model saw as one context. Runs of one `id` are one trajectory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRun {
    /// The trajectory.
    pub id: String,
    /// The benchmark.
    pub benchmark: String,
    /// Token ids from the start of the context.
    pub ids: Vec<u32>,
    /// Positions of tokens of role spans, ascending.
    pub role: Vec<u32>,
    /// Positions of tokens of the model's replies, ascending.
    pub reply: Vec<u32>,
}

/// A calibration set of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// What it was made from.
    pub head: CalibrationHead,
    /// Its runs, trajectories in order.
    pub runs: Vec<CalibrationRun>,
}

const CALIBRATION: &str = "calibration set";

impl Calibration {
    /// The bytes of its file: a header, and a run a line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Memory does not refuse.
        let _ = self.write(&mut bytes, |run| Some(Cow::Borrowed(run)));
        bytes
    }

    /// The same bytes of some runs, or of what is made of them, piece by piece.
    fn write<'c>(
        &'c self,
        out: &mut impl Write,
        of: impl Fn(&'c CalibrationRun) -> Option<Cow<'c, CalibrationRun>>,
    ) -> io::Result<()> {
        let head = Wrapped { rolegraft: CALIBRATION, format: FORMAT, content: &self.head };
        out.write_all(&serde_json::to_vec(&head)?)?;
        for run in self.runs.iter().filter_map(of) {
            out.write_all(b"\n")?;
            out.write_all(&serde_json::to_vec(&run)?)?;
        }
        out.write_all(b"\n")
    }

    /// A digest of what it says with some runs, or with what is made of them.
    pub(crate) fn digest_of<'c>(
        &'c self,
        of: impl Fn(&'c CalibrationRun) -> Option<Cow<'c, CalibrationRun>>,
    ) -> Digest {
        let mut digest = Digesting::default();
        let _ = self.write(&mut digest, of);
        digest.finish()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let one = |run: &CalibrationRun| {
            let tokens = run.ids.capacity() + run.role.capacity() + run.reply.capacity();
            size_of::<CalibrationRun>() + run.id.capacity() + run.benchmark.capacity() + size_of::<u32>() * tokens
        };
        self.runs.iter().map(one).sum()
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is missing, is something else, or a line is not a run whose positions lie in it, ascending.
    pub fn read(path: &Path) -> Result<Self, ArtefactError> {
        let wrong = |reason: String| ArtefactError::Form { path: path.to_owned(), expected: CALIBRATION, reason };
        let failed = |source| ArtefactError::Read { path: path.to_owned(), source };
        let mut lines = BufReader::new(File::open(path).map_err(failed)?).split(b'\n').enumerate();
        let first = lines.next().map(|(_, line)| line).transpose().map_err(failed)?.unwrap_or_default();
        let mut head: serde_json::Value =
            serde_json::from_slice(&first).map_err(|e| wrong(format!("its first line is not JSON: {e}")))?;
        check_head(path, CALIBRATION, &head)?;
        let head: CalibrationHead = serde_json::from_value(head["content"].take()).map_err(|e| wrong(e.to_string()))?;
        let run = |at: usize, line: &[u8]| {
            let bad = |reason: String| ArtefactError::Line { path: path.to_owned(), line: at + 1, reason };
            let run: CalibrationRun = serde_json::from_slice(line).map_err(|e| bad(format!("not a run: {e}")))?;
            if run.benchmark != head.benchmark {
                return Err(bad(format!("`benchmark` is `{}`, but `{}` in the header", run.benchmark, head.benchmark)));
            }
            if run.ids.is_empty() {
                return Err(bad("`ids` is empty".into()));
            }
            for (name, positions) in [("role", &run.role), ("reply", &run.reply)] {
                let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
                if !ascending || positions.last().is_some_and(|last| *last as usize >= run.ids.len()) {
                    return Err(bad(format!("`{name}` is not ascending positions of its {} ids", run.ids.len())));
                }
            }
            Ok(run)
        };
        let mut runs = Vec::new();
        for (at, line) in lines {
            let line = line.map_err(failed)?;
            if !line.trim_ascii().is_empty() {
                let mut run = run(at, &line)?;
                [&mut run.ids, &mut run.role, &mut run.reply].into_iter().for_each(Vec::shrink_to_fit);
                runs.push(run);
            }
        }
        Ok(Self { head, runs })
    }

    /// A digest of what it says.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest_of(|run| Some(Cow::Borrowed(run)))
    }
}

/// A saliency with what it was traced from.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// Digest of the checkpoint.
    pub model: String,
    /// The benchmark that was traced.
    pub benchmark: String,
    /// Digest of the tokenizer.
    pub tokenizer: String,
    /// Digest of the calibration sets.
    pub calibration: String,
    /// Which tokens: `role`, `reply`, `all`.
    pub tokens: String,
    /// Which position stands for a token: `read`, `predict`.
    pub shift: String,
    /// Digest of the checkpoint whose activations are compared with: changes count then, not activations.
    pub against: Option<String>,
    /// Whose arithmetic it is: `cpu`, or a GPU's with a precision, `f32`, `tf32` or `bf16`.
    pub arithmetic: String,
    /// What was found.
    pub saliency: Saliency,
}

const SALIENCY: &str = "saliency";

impl Traced {
    /// The bytes of its file: safetensors with `sums` (F64, `[layers, d_ff]`) and `tenths` (F32, `[10, layers, d_ff]`).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let s = &self.saliency;
        let shape = vec![s.sums.len(), s.sums.first().map_or(0, Vec::len)];
        let mut layout = vec![("sums".to_owned(), Dtype::F64, shape.clone())];
        let tenths = s.tenths.len() == TENTHS;
        if tenths {
            layout.push(("tenths".to_owned(), Dtype::F32, [vec![TENTHS], shape].concat()));
        }
        let counts: Vec<String> = s.tenths.iter().map(|t| t.traced.to_string()).collect();
        let said = [
            ("rolegraft", SALIENCY.to_owned()),
            ("format", FORMAT.to_string()),
            ("model", self.model.clone()),
            ("benchmark", self.benchmark.clone()),
            ("tokenizer", self.tokenizer.clone()),
            ("calibration", self.calibration.clone()),
            ("tokens", self.tokens.clone()),
            ("shift", self.shift.clone()),
            ("arithmetic", self.arithmetic.clone()),
            ("traced", s.traced.to_string()),
            ("without_role", s.without_role.to_string()),
            ("role_tokens", s.tokens.to_string()),
            ("tenths_traced", counts.join(" ")),
        ];
        let against = self.against.iter().map(|digest| ("against", digest.clone()));
        let metadata = said.into_iter().chain(against).map(|(key, value)| (key.to_owned(), value)).collect();
        let mut bytes = Header::encode_with(&layout, &metadata);
        bytes.extend(s.sums.iter().flatten().flat_map(|x| x.to_le_bytes()));
        if tenths {
            bytes.extend(s.tenths.iter().flat_map(|t| t.sums.iter().flatten()).flat_map(|x| x.to_le_bytes()));
        }
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is missing, of another kind or a newer format, or its tensors and counts are not what they should be.
    pub fn read(path: &Path) -> Result<Self, ArtefactError> {
        let wrong = |reason: String| ArtefactError::Form { path: path.to_owned(), expected: SALIENCY, reason };
        let bytes = read_bytes(path)?;
        if bytes.starts_with(b"{") {
            return Self::read_first_format(&bytes)
                .map_err(|e| wrong(format!("it is JSON, but not as runs wrote saliencies before: {e}")));
        }
        let header = Header::parse(&bytes, bytes.len() as u64).map_err(|e| wrong(e.to_string()))?;
        let say = |key: &str| header.metadata.get(key).cloned();
        check_header(path, SALIENCY, say)?;
        let text = |key: &str| say(key).ok_or_else(|| wrong(format!("its metadata has no `{key}`")));
        let count = |key: &str| {
            text(key)?.parse::<usize>().map_err(|_| wrong(format!("`{key}` in its metadata is not a count")))
        };
        let tensor = |name: &str, dtype: Dtype, rank: usize| {
            let found = header.tensors.iter().find(|t| t.name == name)?;
            let data = bytes.get(found.start as usize..found.end as usize)?;
            (found.dtype == dtype && found.shape.len() == rank).then_some((found.shape.clone(), data))
        };
        let (shape, data) =
            tensor("sums", Dtype::F64, 2).ok_or_else(|| wrong("it has no `sums` of F64 [layers, d_ff]".into()))?;
        let width = shape[1];
        let numbers: Vec<f64> = data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        if width == 0 || numbers.iter().any(|x| !x.is_finite() || *x < 0.0) {
            return Err(wrong("`sums` holds what is no sum of magnitudes".into()));
        }
        let counts: Vec<usize> =
            say("tenths_traced").unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
        let tenths = match tensor("tenths", Dtype::F32, 3) {
            Some((parts, data)) if parts[0] == TENTHS && parts[1..] == shape && counts.len() == TENTHS => {
                let numbers: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                let parts = numbers.chunks(shape[0] * width).zip(counts);
                parts
                    .map(|(part, traced)| Tenth { sums: part.chunks(width).map(<[f32]>::to_vec).collect(), traced })
                    .collect()
            }
            Some(_) => return Err(wrong("`tenths` does not go with `sums`".into())),
            None => Vec::new(),
        };
        let saliency = Saliency {
            sums: numbers.chunks(width).map(<[f64]>::to_vec).collect(),
            traced: count("traced")?,
            without_role: count("without_role")?,
            tokens: count("role_tokens")?,
            tenths,
        };
        Ok(Self {
            model: text("model")?,
            benchmark: text("benchmark")?,
            tokenizer: text("tokenizer")?,
            calibration: text("calibration")?,
            tokens: text("tokens")?,
            shift: text("shift")?,
            against: say("against"),
            // Files of before there were others are the CPU's.
            arithmetic: say("arithmetic").unwrap_or_else(|| "cpu".into()),
            saliency,
        })
    }

    /// JSON, as runs wrote it before there was this format: it does not say what it was traced from.
    fn read_first_format(bytes: &[u8]) -> serde_json::Result<Self> {
        let saliency = serde_json::from_slice(bytes)?;
        let unsaid = String::new;
        Ok(Self {
            model: unsaid(),
            benchmark: unsaid(),
            tokenizer: unsaid(),
            calibration: unsaid(),
            tokens: unsaid(),
            shift: unsaid(),
            against: None,
            arithmetic: unsaid(),
            saliency,
        })
    }

    /// Refuses a trace of changes where activations are asked for.
    ///
    /// # Errors
    /// [`ArtefactError::Form`].
    pub fn is_of_activations(&self, path: &Path) -> Result<(), ArtefactError> {
        if self.against.is_none() {
            return Ok(());
        }
        let reason = "it says how far a model is from another; only what experts give is chosen by that: trace without --against";
        Err(ArtefactError::Form { path: path.to_owned(), expected: "trace of activations", reason: reason.into() })
    }

    /// Refuses a trace that does not go with another: other shapes, tokens or positions. What a file does not say fits.
    ///
    /// # Errors
    /// [`ArtefactError::Mismatch`], with the field.
    pub fn goes_with(&self, path: &Path, other: &Self, other_path: &Path) -> Result<(), ArtefactError> {
        let shape = |t: &Self| format!("[{}, {}]", t.saliency.sums.len(), t.saliency.sums.first().map_or(0, Vec::len));
        let fields = [
            ("sums", shape(self), shape(other), "saliencies of one architecture go together"),
            ("tokenizer", self.tokenizer.clone(), other.tokenizer.clone(), "the models of a pool share a tokenizer"),
            ("tokens", self.tokens.clone(), other.tokens.clone(), "trace both with the same --tokens"),
            ("shift", self.shift.clone(), other.shift.clone(), "trace both with the same --shift"),
            (
                "arithmetic",
                self.arithmetic.clone(),
                other.arithmetic.clone(),
                "trace both on the same kind of --device",
            ),
        ];
        for (field, found, expected, mend) in fields {
            if found != expected && !found.is_empty() && !expected.is_empty() {
                let other = format!("`{}`", other_path.display());
                return Err(ArtefactError::Mismatch { path: path.to_owned(), field, found, expected, other, mend });
            }
        }
        Ok(())
    }
}
