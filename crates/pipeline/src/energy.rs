//! Where task vectors lie.

use crate::error::RunError;
use rolegraft_checkpoint::Checkpoint;

/// Shares of a task vector's squared norm: attention, MLP, embedding and head, norms.
pub(crate) fn task_vector_energy(base: &Checkpoint, expert: &Checkpoint) -> Result<[f64; 4], RunError> {
    let mut parts = [0.0; 4];
    let names: Vec<String> = base.tensors().filter(|(_, t)| t.dtype.is_float()).map(|(n, _)| n.to_owned()).collect();
    for name in names {
        let (a, b) = (base.f32(&name)?, expert.f32(&name)?);
        let energy: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(y - x).powi(2)).sum();
        let part = match name.as_str() {
            n if n.contains("norm") => 3,
            n if n.contains(".self_attn.") => 0,
            n if n.contains(".mlp.") => 1,
            _ => 2,
        };
        parts[part] += energy;
    }
    let total = parts.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    Ok(parts.map(|p| p / total))
}
