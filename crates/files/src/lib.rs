//! Files that are either whole or absent, and folders that are gone when their maker is.
//!
//! Both are written under a name beside their place that follows from it, `.NAME.partial`, and locked while they are written. What a
//! killed process leaves there is taken over by the next one that writes the same file, so that nothing piles up and nothing has to be
//! swept. Folders among the machine's temporary ones carry their owner's number, and are swept.

mod error;
mod partial;
mod scratch;
mod temporary;

pub use error::{WriteError, disk_refuses, hint};
pub use partial::{Partial, folder, open_own, sync_dir, write_atomic};
pub use scratch::Scratch;
pub use temporary::{is_orphan, no_room, owner, temporary_folder};
