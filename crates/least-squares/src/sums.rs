//! An expert's Gram matrices as a file: what a fit needs of its calibration sets, without a token of them in order.
//!
//! A safetensors file of F64: for each layer and site the whole symmetric matrix Σ w x xᵀ / Σ w (width, width), under the name of
//! what reads it; `norm.output`, E[h hᵀ] of the last normed states that predict tokens of replies, where there are any;
//! `token_shares` (vocabulary,), the share of each token.

use crate::error::{LeastSquaresError, Result};
use crate::gram::Gram;
use rolegraft_checkpoint::{Architecture, Dtype, Tensors};
use rolegraft_decoder::Site;
use std::collections::BTreeMap;
use std::path::Path;

const HEAD: &str = "norm.output";
const SHARES: &str = "token_shares";

/// An opened file of sums.
pub struct Sums {
    tensors: Tensors,
}

/// Names, dtypes and shapes of a file, in order.
pub(crate) type Layout = Vec<(String, Dtype, Vec<usize>)>;

fn name(layer: usize, site: Site) -> String {
    let of = match site {
        Site::Attention => "self_attn.input",
        Site::Output => "self_attn.o_proj.input",
        Site::Mlp => "mlp.input",
        Site::Down => "mlp.down_proj.input",
        Site::Head => return HEAD.into(),
    };
    format!("layers.{layer}.{of}")
}

/// What a file of an expert's sums holds, layer by layer, with what predicts replies or without; and bytes of a layer.
pub(crate) fn layout(architecture: &Architecture, replies: bool) -> (Layout, usize) {
    let square = |name: String, width: usize| (name, Dtype::F64, vec![width, width]);
    let width = |site: Site| architecture.widths(site.maps()[0]).0;
    let of = |layer| Site::ALL.into_iter().map(move |site| square(name(layer, site), width(site)));
    let mut layout: Layout = (0..architecture.num_hidden_layers).flat_map(of).collect();
    if replies {
        layout.push(square(HEAD.into(), architecture.hidden_size));
    }
    layout.push((SHARES.into(), Dtype::F64, vec![architecture.vocab_size]));
    (layout, Site::ALL.into_iter().map(|site| size_of::<f64>() * width(site).pow(2)).sum())
}

/// The bytes of shares of tokens.
pub(crate) fn shares(architecture: &Architecture, shares: &BTreeMap<u32, f64>) -> Vec<u8> {
    let of = |id| shares.get(&id).copied().unwrap_or_default();
    (0..architecture.vocab_size as u32).flat_map(|id| of(id).to_le_bytes()).collect()
}

impl Sums {
    /// Opens one.
    ///
    /// # Errors
    /// If it is no safetensors file, or has no shares of tokens.
    pub fn open(path: &Path) -> Result<Self> {
        let sums = Self { tensors: Tensors::open(path)? };
        sums.vector(SHARES)?;
        Ok(sums)
    }

    /// What its header says of a key beside the tensors.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.tensors.metadata(key)
    }

    /// Whether it knows what predicts tokens of replies.
    pub(crate) fn replies(&self) -> bool {
        self.tensors.tensor(HEAD).is_some()
    }

    pub(crate) fn token_shares(&self) -> Result<BTreeMap<u32, f64>> {
        let all = self.vector(SHARES)?;
        Ok((0_u32..).zip(all).filter(|(_, share)| *share != 0.0).collect())
    }

    pub(crate) fn read(&self, layer: usize, site: Site, into: &mut Gram) -> Result<()> {
        self.square(&name(layer, site), into)
    }

    pub(crate) fn read_head(&self, into: &mut Gram) -> Result<()> {
        self.square(HEAD, into)
    }

    fn square(&self, tensor: &str, into: &mut Gram) -> Result<()> {
        let expected = [into.width, into.width];
        let found = self.tensors.tensor(tensor);
        if found.as_ref().map(|t| (t.dtype, &t.shape[..])) != Some((Dtype::F64, &expected)) {
            return Err(self.lacks(tensor, &expected));
        }
        into.read_symmetric(self.tensors.bytes(tensor)?);
        if into.sums.iter().all(|sum| sum.is_finite()) { Ok(()) } else { Err(self.no_numbers(tensor)) }
    }

    fn vector(&self, tensor: &str) -> Result<Vec<f64>> {
        let of = self.tensors.tensor(tensor).filter(|t| t.dtype == Dtype::F64 && t.shape.len() == 1);
        let bytes = of.map(|_| self.tensors.bytes(tensor)).transpose()?;
        let bytes = bytes.ok_or_else(|| self.lacks(tensor, &[]))?;
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let good = values.iter().all(|share| share.is_finite() && *share >= 0.0);
        if good { Ok(values) } else { Err(self.no_numbers(tensor)) }
    }

    fn lacks(&self, tensor: &str, shape: &[usize]) -> LeastSquaresError {
        LeastSquaresError::NoSums { path: self.path(), tensor: tensor.to_owned(), shape: shape.to_vec() }
    }

    fn no_numbers(&self, tensor: &str) -> LeastSquaresError {
        LeastSquaresError::SumsNumbers { path: self.path(), tensor: tensor.to_owned() }
    }

    fn path(&self) -> String {
        self.tensors.path().display().to_string()
    }
}
