//! Servers of models: started, awaited, fed with one checkpoint after another, and stopped.
//!
//! [`ServerRules`] say which; a [`Fleet`] is what runs of them. A server that we started ends with us, or, where we were
//! killed, at the next start: a record says whose it was. One that dies is started again. One that does not take a
//! checkpoint, or lies about it, plays no more. How the model is spoken to is left to others.

mod error;
mod fleet;
mod process;
mod record;
mod rules;
mod swap;

pub use error::ServerError;
pub use fleet::{Fed, Feed, Fleet, Tell};
pub use rules::{ServerKind, ServerRules, Swap, Urls};
pub use swap::Expected;
