//! Products of rows with a matrix that stays: packed once, read once a product, whatever the number of rows.
//!
//! A number is the sum of its products in the order of the inputs, one fused multiplication after the other. So it is the same
//! whichever rows are worked on together, on every processor and for any number of threads.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Outputs that lie side by side.
const PANEL: usize = 32;
/// Rows that are worked on at once.
const TILE: usize = 8;
/// Multiplications from which on all threads work on a product.
pub(super) const LARGE: usize = 1 << 23;

/// A matrix of so many inputs and outputs: panels of outputs, (inputs, PANEL) each.
pub(super) struct Packed {
    inputs: usize,
    outputs: usize,
    panels: Vec<f32>,
}

impl Packed {
    /// Nothing but zeros.
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, panels: vec![0.0; outputs.div_ceil(PANEL) * PANEL * inputs] }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Sets all of it from (inputs, outputs).
    pub(super) fn fill(&mut self, weight: &[f32]) {
        for (at, panel) in self.panels.chunks_exact_mut(PANEL * self.inputs).enumerate() {
            for (to, row) in panel.chunks_exact_mut(PANEL).zip(weight.chunks_exact(self.outputs)) {
                let from = &row[at * PANEL..self.outputs.min((at + 1) * PANEL)];
                to[..from.len()].copy_from_slice(from);
            }
        }
    }

    /// Sets what an output is made of.
    pub(super) fn set(&mut self, output: usize, row: &[f32]) {
        let start = output / PANEL * PANEL * self.inputs + output % PANEL;
        self.panels[start..].iter_mut().step_by(PANEL).zip(row).for_each(|(to, from)| *to = *from);
    }

    /// What an output is made of.
    pub(super) fn row(&self, output: usize, out: &mut [f32]) {
        let start = output / PANEL * PANEL * self.inputs + output % PANEL;
        out.iter_mut().zip(self.panels[start..].iter().step_by(PANEL)).for_each(|(to, from)| *to = *from);
    }

    /// Products of rows (rows, inputs), handed to `take` as (row, first output, values).
    pub(super) fn multiply(&self, x: &[f32], scratch: &mut Products, mut take: impl FnMut(usize, usize, &[f32])) {
        let rows = x.len() / self.inputs;
        scratch.tiles(x, self.inputs);
        let size = rows * PANEL;
        scratch.out.resize(self.outputs.div_ceil(PANEL) * size, 0.0);
        let (tiles, out) = (&scratch.tiles, &mut scratch.out);
        let panels = self.panels.par_chunks_exact(PANEL * self.inputs).zip(out.par_chunks_exact_mut(size));
        let one = |(panel, out): (&[f32], &mut [f32])| pulp::Arch::new().dispatch(Panel { tiles, panel, out });
        if rows * self.panels.len() >= LARGE {
            panels.for_each(one);
        } else {
            self.panels.chunks_exact(PANEL * self.inputs).zip(out.chunks_exact_mut(size)).for_each(one);
        }
        for (at, panel) in scratch.out.chunks_exact(size).enumerate() {
            let width = PANEL.min(self.outputs - at * PANEL);
            for (row, values) in panel.chunks_exact(PANEL).enumerate() {
                take(row, at * PANEL, &values[..width]);
            }
        }
    }
}

/// Memory of products, reused.
#[derive(Default)]
pub(super) struct Products {
    /// (inputs, TILE) of every tile of rows; those that are not there are 0.
    tiles: Vec<f32>,
    /// (panels, rows, PANEL)
    out: Vec<f32>,
}

impl Products {
    fn tiles(&mut self, x: &[f32], inputs: usize) {
        self.tiles.clear();
        self.tiles.resize((x.len() / inputs).div_ceil(TILE) * TILE * inputs, 0.0);
        for (tile, rows) in self.tiles.chunks_exact_mut(TILE * inputs).zip(x.chunks(TILE * inputs)) {
            for (at, row) in rows.chunks_exact(inputs).enumerate() {
                tile[at..].iter_mut().step_by(TILE).zip(row).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// The product of all tiles with a panel.
struct Panel<'p> {
    tiles: &'p [f32],
    panel: &'p [f32],
    out: &'p mut [f32],
}

impl WithSimd for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let inputs = self.panel.len() / PANEL;
        for (tile, out) in self.tiles.chunks_exact(TILE * inputs).zip(self.out.chunks_mut(TILE * PANEL)) {
            // Not more work than there are rows.
            match out.len() / PANEL {
                1 => product::<S, 1>(simd, tile, self.panel, out),
                2 => product::<S, 2>(simd, tile, self.panel, out),
                3 | 4 => product::<S, 4>(simd, tile, self.panel, out),
                _ => product::<S, TILE>(simd, tile, self.panel, out),
            }
        }
    }
}

/// `ROWS` rows of a tile with a panel, two vectors of outputs at a time.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "so the sums stay in registers")]
fn product<S: Simd, const ROWS: usize>(simd: S, tile: &[f32], panel: &[f32], out: &mut [f32]) {
    let (tile, panel) = (tile.as_chunks::<TILE>().0, panel.as_chunks::<PANEL>().0);
    let lanes = S::F32_LANES;
    let mut from = 0;
    while from < PANEL {
        let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
        for (x, weights) in tile.iter().zip(panel) {
            let (vectors, _) = S::as_simd_f32s(&weights[from..]);
            let (a, b) = (vectors[0], vectors.get(1).copied().unwrap_or(vectors[0]));
            for row in 0..ROWS {
                let x = simd.splat_f32s(x[row]);
                sums[row] = [simd.mul_add_f32s(a, x, sums[row][0]), simd.mul_add_f32s(b, x, sums[row][1])];
            }
        }
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(PANEL)) {
            let (vectors, _) = S::as_mut_simd_f32s(&mut out[from..]);
            for (vector, sum) in vectors.iter_mut().zip(sums) {
                *vector = *sum;
            }
        }
        from += 2 * lanes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_whatever_is_worked_on_with_them() {
        let (inputs, outputs, rows) = (37, 75, 21);
        let number = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 311.0;
        let mut packed = Packed::new(inputs, outputs);
        for output in 0..outputs {
            packed.set(output, &(0..inputs).map(|i| number(output * inputs + i)).collect::<Vec<_>>());
        }
        let x: Vec<f32> = (0..rows * inputs).map(|i| number(i + 13)).collect();
        let mut scratch = Products::default();
        let mut of = |x: &[f32]| {
            let mut out = vec![0.0; x.len() / inputs * outputs];
            packed.multiply(x, &mut scratch, |row, first, values| {
                out[row * outputs + first..][..values.len()].copy_from_slice(values);
            });
            out
        };
        let together = of(&x);
        for count in 1..=9 {
            let parts: Vec<f32> = x.chunks(count * inputs).flat_map(&mut of).collect();
            assert_eq!(parts, together, "{count} rows at a time");
        }
        for row in 0..rows {
            for output in 0..outputs {
                let expected =
                    (0..inputs).fold(0.0f32, |sum, i| number(output * inputs + i).mul_add(x[row * inputs + i], sum));
                assert_eq!(together[row * outputs + output], expected);
            }
        }
        let mut row = vec![0.0; inputs];
        packed.row(70, &mut row);
        assert_eq!(row, (0..inputs).map(|i| number(70 * inputs + i)).collect::<Vec<_>>());
    }
}
