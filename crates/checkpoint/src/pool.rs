//! Whether checkpoints can be merged: one architecture, one tokenizer, the same tensors.

use crate::{Checkpoint, Digest};
use std::path::PathBuf;

/// Why checkpoints do not form a pool.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum PoolError {
    #[error("`{}` is a `{found}` model but `{}` is `{expected}`", dir.display(), base.display())]
    Architecture { dir: PathBuf, base: PathBuf, found: String, expected: String },
    #[error("tensors differ between `{}` and `{}`:\n{}", dir.display(), base.display(), differences.join("\n"))]
    Tensors { dir: PathBuf, base: PathBuf, differences: Vec<String> },
    #[error("tokenizers of `{}` and `{}` differ; token ids would not mean the same", dir.display(), base.display())]
    Tokenizer { dir: PathBuf, base: PathBuf },
    #[error("`{}` is used twice in the pool", .0.display())]
    Twice(PathBuf),
}

/// Differences shown before the list is cut.
const SHOWN: usize = 8;

/// Checks every expert against the base.
///
/// # Errors
/// The first difference in kind, with the tensors that differ.
pub fn check_pool(base: &Checkpoint, experts: &[&Checkpoint]) -> Result<(), PoolError> {
    for (i, expert) in experts.iter().enumerate() {
        let (dir, base_dir) = (expert.dir().to_owned(), base.dir().to_owned());
        if experts[..i].iter().any(|other| other.dir() == dir) {
            return Err(PoolError::Twice(dir));
        }
        let (found, expected) = (expert.config().model_type(), base.config().model_type());
        if found != expected {
            return Err(PoolError::Architecture {
                dir,
                base: base_dir,
                found: found.to_owned(),
                expected: expected.to_owned(),
            });
        }
        let mut differences = Vec::new();
        for (name, tensor) in base.tensors() {
            match expert.tensor(name) {
                None => differences.push(format!("  `{name}` is missing")),
                Some(other) if other.shape != tensor.shape => {
                    differences.push(format!("  `{name}` has shape {:?}, not {:?}", other.shape, tensor.shape));
                }
                Some(_) => {}
            }
        }
        differences.extend(
            expert.tensors().filter(|(n, _)| base.tensor(n).is_none()).map(|(n, _)| format!("  `{n}` is extra")),
        );
        if !differences.is_empty() {
            let more = differences.len().saturating_sub(SHOWN);
            differences.truncate(SHOWN);
            if more > 0 {
                differences.push(format!("  and {more} more"));
            }
            return Err(PoolError::Tensors { dir, base: base_dir, differences });
        }
        let tokenizer = |c: &Checkpoint| Digest::of_file(&c.dir().join("tokenizer.json")).ok();
        if tokenizer(expert) != tokenizer(base) {
            return Err(PoolError::Tokenizer { dir, base: base_dir });
        }
    }
    Ok(())
}
