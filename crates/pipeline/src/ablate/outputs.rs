//! The files of an ablation: figures as SVG and CSV, checks as CSV, one page, and all values as JSON.

use crate::ablate::figures;
use crate::ablate::values::Ablation;
use crate::artefact;
use crate::error::RunError;
use rolegraft_checkpoint::write_atomic;
use rolegraft_report::{Format, ablation_page};
use std::path::Path;

/// Writes everything, each file whole or not at all, and gives what figures and checks show.
pub(crate) fn write(dir: &Path, ablation: &Ablation) -> Result<Vec<String>, RunError> {
    let put = |name: String, bytes: &[u8]| write_atomic(&dir.join(name), bytes).map_err(|e| RunError::Store(e.into()));
    let parts = figures::parts(ablation);
    for part in &parts {
        if let Some(chart) = &part.chart {
            put(format!("{}.svg", part.id), chart.as_bytes())?;
        }
        for (at, table) in part.tables.iter().enumerate() {
            let more = if at == 0 { String::new() } else { format!("-{}", at + 1) };
            put(format!("{}{more}.csv", part.id), table.render(Format::Csv).as_bytes())?;
        }
    }
    let page = ablation_page(&format!("Ablations of {}", ablation.experiment), &figures::summary(ablation), &parts);
    put("ablation.html".into(), page.as_bytes())?;
    put("ablation.json".into(), &artefact::encode(ablation))?;
    Ok(parts.into_iter().map(|part| format!("{}: {}", part.title, part.says)).collect())
}
