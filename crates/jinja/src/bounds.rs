//! What a template may cost. It is foreign code, and `'x' * 10**9` is one line of it.

use crate::RenderError;
use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind, State};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Instructions a template may execute; an honest one needs a few thousand a message.
pub(crate) const FUEL: u64 = 20_000_000;
/// Longest text a template may make, the rendering itself included, in bytes.
pub const LONGEST: usize = 16 << 20;
/// Bytes a template may write, copy or look through in one rendering; an honest one needs some ten times its text.
const WORK: usize = 512 << 20;
/// What one element of a list costs, in bytes.
const ELEMENT: usize = size_of::<Value>();
/// How deep values may nest; beyond, dropping them would exhaust the stack.
pub(crate) const NESTED: usize = 100;

impl From<RenderError> for Error {
    /// Travels through minijinja as the source of its error.
    fn from(stop: RenderError) -> Self {
        Self::new(ErrorKind::InvalidOperation, stop.to_string()).with_source(stop)
    }
}

/// Counts the work of one rendering.
#[derive(Debug, Default)]
struct Meter(AtomicUsize);

impl Object for Meter {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// Pays for `bytes` of work, before it is done.
pub(crate) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    let spent = state.get_or_set_temp_object("work", Meter::default).0.fetch_add(bytes, Ordering::Relaxed);
    if spent.saturating_add(bytes) > WORK { Err(RenderError::Endless.into()) } else { Ok(()) }
}

/// Pays for a text of `bytes` that is about to be made.
pub(crate) fn pay_text(state: &State, bytes: usize) -> Result<(), Error> {
    if bytes > LONGEST { Err(RenderError::TooLong(bytes).into()) } else { pay(state, bytes) }
}

/// Pays for a list of `count` elements.
pub(crate) fn pay_list(state: &State, count: usize) -> Result<(), Error> {
    pay(state, count.saturating_mul(ELEMENT))
}

/// A string that stops growing.
#[derive(Default)]
pub(crate) struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len() + s.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}

impl Bounded {
    /// The string, paid for; `written` tells whether all of it found room.
    pub(crate) fn finish(self, state: &State, written: fmt::Result) -> Result<String, Error> {
        written.map_err(|_| RenderError::TooLong(LONGEST + 1))?;
        pay(state, self.0.len())?;
        Ok(self.0)
    }
}

/// The text so far; it refuses to grow beyond the limit.
#[derive(Default)]
pub(crate) struct Rendering(pub(crate) Vec<u8>);

impl std::io::Write for Rendering {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.0.len() + bytes.len();
        if length > LONGEST {
            return Err(std::io::Error::other(RenderError::TooLong(length)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
