//! The loop's stages, one a file: functions from artefacts and settings to artefacts. `run` composes them, and each is a
//! command.

pub mod calibrate;
pub mod diagnose;
pub mod evaluate;
pub(crate) mod fit;
pub mod merge;
pub mod select;
pub mod trace;
pub mod transplant;
