//! mistral.rs in process, behind [`ChatModel`].
//!
//! The engine is given token ids and gives none back: one logits processor picks every token with our seeded
//! [`Chooser`], records it and ends the turn; the reply is our own decoding of the recorded ids. On the CPU the engine
//! runs in F32, one request at a time an engine (batched decoding is wrong there in 0.8.1), and the prefix cache is on
//! only where a second end-of-turn id can stand in for the one the cache would store wrongly. [`InProcess::open`]
//! proves both on the machine at hand.

mod engine;
mod form;

pub use engine::{InProcess, ServeError, Serving};
pub use form::lacks;
