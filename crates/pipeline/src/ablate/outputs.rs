//! The files of an ablation: figures as SVG and CSV, checks as CSV, one page, and all values as JSON.

use crate::ablate::figures::{self, Finding};
use crate::ablate::values::Ablation;
use crate::artefact;
use crate::error::RunError;
use rolegraft_checkpoint::write_atomic;
use rolegraft_report::{Format, Page};
use std::path::Path;

/// Writes everything, each file whole or not at all, and gives what figures and checks show.
pub(crate) fn write(dir: &Path, ablation: &Ablation) -> Result<Vec<String>, RunError> {
    let put = |name: String, bytes: &[u8]| write_atomic(&dir.join(name), bytes).map_err(|e| RunError::Store(e.into()));
    let findings = figures::findings(ablation);
    for finding in &findings {
        if let Some(chart) = &finding.chart {
            put(format!("{}.svg", finding.id), chart.as_bytes())?;
        }
        put(format!("{}.csv", finding.id), finding.table.render(Format::Csv).as_bytes())?;
    }
    let page = Page {
        title: format!("Ablations of {}", ablation.experiment),
        lead: String::new(),
        summary: figures::summary(ablation),
        sections: findings.iter().map(Finding::section).collect(),
    };
    put("ablation.html".into(), page.render().as_bytes())?;
    put("ablation.json".into(), &artefact::encode(ablation))?;
    Ok(findings.into_iter().map(|finding| format!("{}: {}", finding.title, finding.says)).collect())
}
