//! Task generators: each makes a task in its suite's own file format, the replies of an agent that solves it, and the
//! observations those replies will meet.
//!
//! The observations are predicted so that training needs no environment; a test plays the replies in the real
//! environments and checks that every prediction holds and every task is solved.

mod alfworld;
mod db;
mod draft;
mod office;
mod os;
mod suite;
mod tau;
mod webshop;

use crate::words::{Entities, Split};
pub use draft::Solved;
use rolegraft_trajectory::{Key, Rng, Seed};
pub use suite::Suite;

/// Task number `index` of a suite's split. Pure: the same arguments give the same task.
#[must_use]
pub fn generate(suite: Suite, split: Split, seed: Seed, index: u64) -> Solved {
    let mut rng = Key::new(seed).child(suite.id()).child(split.as_str()).index(index).rng();
    let id = format!("nano-{}-{}-{index:04}", suite.id(), split.as_str());
    generate_with(suite, split, &id, &mut rng)
}

/// A task drawn from `rng`, for training.
pub(crate) fn generate_with(suite: Suite, split: Split, id: &str, rng: &mut Rng) -> Solved {
    let mut entities = Entities { split, rng };
    let draft = match suite {
        Suite::TauRetail => tau::retail(&mut entities),
        Suite::TauAirline => tau::airline(&mut entities),
        Suite::Office => office::task(&mut entities),
        Suite::Os => os::task(&mut entities),
        Suite::WebShop => webshop::task(&mut entities),
        Suite::Db => db::task(&mut entities),
        Suite::AlfWorld => alfworld::task(&mut entities),
    };
    draft.finish(suite, id)
}
