//! What a run tells while it works. Only the command line prints.

/// Receives progress.
pub trait Progress: Send + Sync {
    /// A stage begins.
    fn stage(&self, name: &str);
    /// Work within the stage: finished, in all, and what.
    fn update(&self, finished: usize, of: usize, what: &str);
    /// Something a person should know.
    fn note(&self, text: &str);
}
