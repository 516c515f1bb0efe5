//! Episode logs: append-only JSONL whose last line may be torn.
//!
//! The first line is a header with the format's version and the digest of everything the episodes depend on; each
//! further line is one [`Episode`]. Episodes that are appended together are written with one call and synced once; a kill
//! costs at most those in flight.

mod append;
mod error;
mod origin;
mod read;
mod whole;

pub use append::EpisodeLog;
pub use error::LogError;
pub use origin::{Origin, Road, Served};
pub use read::{Episodes, begins_log, log_name};
pub use whole::LogWriter;
