//! A layer as tensors on a device.

use super::rows::{Activations, See, Segment, Site, Want, blocks, finite};
use super::states::States;
use crate::error::Result;
use crate::layer::{Layer, LayerCache};
use crate::place::Place;
use crate::rotary::Rotary;
use candle_core::{DType, Tensor};
use rolegraft_checkpoint::{Architecture, Checkpoint};

/// A layer as tensors on a device.
pub struct DevicePass {
    architecture: Architecture,
    place: Place,
    rotary: Rotary,
    index: usize,
    layer: Option<Layer>,
}

impl DevicePass {
    pub(super) fn new(architecture: &Architecture, longest: usize, place: &Place) -> Result<Self> {
        let rotary = Rotary::on(architecture, longest, place)?;
        Ok(Self { architecture: architecture.clone(), place: place.clone(), rotary, index: 0, layer: None })
    }

    pub(super) fn load(&mut self, checkpoint: &Checkpoint, layer: usize) -> Result<()> {
        // The layer before makes room first.
        self.layer = None;
        self.layer = Some(Layer::load(checkpoint, &self.architecture, layer, &self.place)?);
        self.index = layer;
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        states: &mut States,
        segments: &[Segment],
        want: Want,
        see: &mut See<'_>,
    ) -> Result<()> {
        let Some(layer) = &self.layer else { return Ok(()) };
        let hidden = self.architecture.hidden_size;
        let mut cache: LayerCache = None;
        for (mut first, pieces) in blocks(segments) {
            for piece in pieces {
                // Of what came before, as far as the piece goes on with it.
                cache = match cache.filter(|_| piece.start > 0) {
                    Some((k, v)) => Some((k.narrow(1, 0, piece.start)?, v.narrow(1, 0, piece.start)?)),
                    None => None,
                };
                let rows = &mut states.values[first * hidden..(first + piece.rows) * hidden];
                let x =
                    Tensor::from_slice(rows, (piece.rows, hidden), &self.place.device)?.to_dtype(self.place.dtype())?;
                let out = layer.forward(
                    &self.architecture,
                    &self.rotary,
                    &x,
                    piece.start,
                    &mut cache,
                    &mut |module, input| {
                        // A site is where its first map is.
                        let site = Site::ALL.into_iter().find(|site| site.maps()[0].module() == module);
                        let Some(site) = site.filter(|site| want.sites.contains(site)) else { return Ok(()) };
                        let values: Vec<f32> = input.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                        if site == Site::Down {
                            finite(&values, self.index)?;
                        }
                        let width = values.len() / piece.rows.max(1);
                        see(Activations { site, values: &values, stride: width, width, first, rows: piece.rows })
                    },
                )?;
                rows.copy_from_slice(&out.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
                first += piece.rows;
            }
        }
        Ok(())
    }
}
