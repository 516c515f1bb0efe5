//! All merge methods, by name.

use crate::method::{Method, Spec};
use crate::operators as op;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Every method.
static METHODS: [&dyn Method; 30] = [
    &op::linear::Linear,
    &op::task_arithmetic::TASK_ARITHMETIC,
    &op::task_arithmetic::TIES,
    &op::task_arithmetic::DARE_LINEAR,
    &op::task_arithmetic::DARE_TIES,
    &op::task_arithmetic::DELLA,
    &op::task_arithmetic::DELLA_LINEAR,
    &op::task_arithmetic::BREADCRUMBS,
    &op::task_arithmetic::BREADCRUMBS_TIES,
    &op::model_stock::ModelStock,
    &op::slerp::Slerp,
    &op::nuslerp::NuSlerp,
    &op::multislerp::MultiSlerp,
    &op::karcher::Karcher,
    &op::sce::Sce,
    &op::arcee_fusion::ArceeFusion,
    &op::nearswap::NearSwap,
    &op::passthrough::Passthrough,
    &op::ram::RAM,
    &op::ram::RAM_PLUS,
    &op::ram::RAM_R,
    &op::ram::RAM_UNIQUE,
    &op::ram::RAM_TIES,
    &op::ramplus_tl::RamPlusTl,
    &op::widen::Widen,
    &op::neuron_merge::NeuronMerge,
    &op::resmerge::ResMerge,
    &op::subspace::TSV_M,
    &op::subspace::ISO_C,
    &op::swudi::Swudi,
];

/// A merge method by name.
#[derive(Clone, Copy)]
pub struct Operator(pub(crate) &'static dyn Method);

impl Operator {
    /// Finds a method; `average` is ARM's name for `linear`.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let name = if name == "average" { "linear" } else { name };
        METHODS.iter().find(|m| m.spec().name == name).map(|m| Self(*m))
    }
    /// All methods.
    pub fn all() -> impl Iterator<Item = Self> {
        METHODS.iter().map(|m| Self(*m))
    }
    /// What it needs and takes.
    #[must_use]
    pub fn spec(self) -> &'static Spec {
        self.0.spec()
    }
}

impl PartialEq for Operator {
    fn eq(&self, other: &Self) -> bool {
        self.spec().name == other.spec().name
    }
}
impl Eq for Operator {}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

impl Serialize for Operator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.spec().name)
    }
}

impl<'de> Deserialize<'de> for Operator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::find(&name).ok_or_else(|| {
            let known: Vec<String> = Self::all().map(|o| format!("`{}`", o.spec().name)).collect();
            serde::de::Error::custom(format!("unknown variant `{name}`, expected one of {}", known.join(", ")))
        })
    }
}
