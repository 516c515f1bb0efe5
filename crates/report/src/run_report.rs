//! The report of a run: from plain values and the logs of its test episodes to tables and the page.

use crate::card::{CardScores, card_scores};
use crate::charts::{Point, scatter};
use crate::episode_files::Put;
use crate::logs_report::{Wanted, compared, read, road_table, spent};
use crate::run_tables::{
    DiagnosisRow, GraftRow, OverlapRow, Overlaps, aos_table, before_and_after, diagnosis_table, energy_table,
    provenance_table, time_table, transplant_table,
};
use crate::verdict::verdict;
use crate::ways::ways_table;
use crate::{
    Benchmark, FailureRates, Format, HeatMap, Page, Part, Scoreboard, Section, Table, Tally, correlation, ranks,
    spending_table, status_table, unparsable_table, violation_table,
};
use rolegraft_trajectory::LogError;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What a run found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunReport {
    /// The experiment's name.
    pub name: String,
    /// The seed of its draws.
    pub seed: u64,
    /// Ids of the test tasks by suite; what logs hold of other tasks is left out.
    pub tasks: BTreeMap<String, BTreeSet<String>>,
    /// The benchmarks, in the order of columns.
    pub benchmarks: Vec<Benchmark>,
    /// Names of the experts among the models.
    pub experts: Vec<String>,
    /// Models in the order of rows, with the logs of their test episodes.
    pub models: Vec<(String, Vec<PathBuf>)>,
    /// The model that the run made.
    pub result: String,
    /// The model that it was made from.
    pub backbone: String,
    /// Activation overlap of the candidates.
    pub overlaps: Overlaps,
    /// Scores and violations on the dev split, by benchmark.
    pub diagnosis: Vec<DiagnosisRow>,
    /// What was transplanted.
    pub grafts: Vec<GraftRow>,
    /// Neurons that more than one graft claimed.
    pub contested: usize,
    /// Per expert, the shares of its task vector's squared norm in attention, MLP, embedding and head, norms.
    pub energy: Vec<(String, [f64; 4])>,
    /// Seconds by stage.
    pub timings: Vec<(String, f64)>,
    /// What the run was made from: what, and which.
    pub provenance: Vec<(String, String)>,
}

/// Tables by the name of their files.
pub type NamedTables = Vec<(&'static str, Table)>;

impl RunReport {
    /// Writes `tables/`, the episodes and, last, `report.html`; gives the tables, and what the result's card says of them. One episode is in
    /// memory at a time.
    ///
    /// # Errors
    /// If a log cannot be read, or `put` refuses.
    pub fn write<E: From<LogError>>(&self, put: &mut Put<'_, E>) -> Result<(NamedTables, CardScores), E> {
        let tallies = read(&self.models, &Wanted { tasks: Some(self.tasks.clone()), last: false }, Some(put))?;
        let board = Scoreboard {
            benchmarks: self.benchmarks.clone(),
            models: tallies.iter().map(|(name, tally)| tally.scores(name)).collect(),
            experts: self.experts.clone(),
            seed: self.seed,
        };
        let tables = self.tables(&board, &tallies);
        let mut digests = Vec::new();
        for (name, table) in &tables {
            for (format, end) in [(Format::Csv, "csv"), (Format::Markdown, "md"), (Format::Latex, "tex")] {
                let (path, text) = (format!("tables/{name}.{end}"), table.render(format));
                put(&path, text.as_bytes())?;
                if end == "csv" && ["table1", "table3", "paired"].contains(name) {
                    let digest = Sha256::digest(text.as_bytes());
                    digests.push((path, digest.iter().map(|byte| format!("{byte:02x}")).collect()));
                }
            }
        }
        put("report.html", self.page(&board, &tallies, &tables).render().as_bytes())?;
        let scores = card_scores(&board, &self.result, &digests);
        Ok((tables, scores))
    }

    fn tables(&self, board: &Scoreboard, tallies: &[(String, Tally)]) -> NamedTables {
        let rates = self.rates(tallies);
        let mut tables = vec![
            ("table1", board.table1()),
            ("table3", board.table3()),
            ("paired", board.paired(&self.result)),
            ("aos", aos_table(&self.overlaps, &self.backbone)),
            ("diagnosis", diagnosis_table(&self.diagnosis)),
            ("transplant", transplant_table(&self.grafts, self.contested)),
            ("table6", unparsable_table(&rates)),
            ("table7", violation_table(&rates)),
            ("table8", status_table(&rates)),
            ("energy", energy_table(&self.energy)),
            ("time", time_table(&self.timings)),
        ];
        let ways: Vec<_> = board
            .benchmarks
            .iter()
            .flat_map(|b| &b.suites)
            .flat_map(|suite| {
                tallies.iter().filter_map(move |(name, tally)| {
                    Some((suite.clone(), name.clone(), &tally.by_suite().get(suite)?.ways))
                })
            })
            .collect();
        tables.push(("ways", ways_table(&ways)));
        let of = |name: &str| tallies.iter().find(|(model, _)| model == name).map(|(_, tally)| tally);
        if let (Some(before), Some(after)) = (of(&self.backbone), of(&self.result)) {
            tables.push(("cured", compared(&self.backbone, before, &self.result, after)));
        }
        tables.extend(road_table(tallies).map(|table| ("servers", table)));
        tables
    }

    fn rates(&self, tallies: &[(String, Tally)]) -> Vec<(String, String, FailureRates)> {
        let suites = self.benchmarks.iter().flat_map(|b| &b.suites);
        let of = |suite: &String| {
            let row = |(name, tally): &(String, Tally)| (suite.clone(), name.clone(), tally.failures(suite));
            tallies.iter().map(row).collect::<Vec<_>>()
        };
        suites.flat_map(of).collect()
    }

    fn page(&self, board: &Scoreboard, tallies: &[(String, Tally)], tables: &NamedTables) -> Page {
        let tabled = |names: &[&str]| -> Vec<Part> {
            let named = |name: &&str| tables.iter().find(|(n, _)| n == name).map(|(_, t)| Part::Table(t.clone()));
            names.iter().filter_map(named).collect()
        };
        let mut repair = tabled(&["diagnosis", "transplant"]);
        repair.push(Part::Table(before_and_after(board, &self.backbone, &self.result, &self.diagnosis)));
        repair.extend(tabled(&["energy"]));
        let mut cost = tabled(&["time"]);
        cost.push(Part::Table(spending_table(&spent(tallies, (None, None)))));
        Page {
            title: format!("rolegraft: {}", self.name),
            lead: verdict(board, &self.result, &self.backbone),
            summary: format!(
                "{} models, {} suites, {} test tasks, seed {}. Every model plays the same tasks with the same draws.",
                board.models.len(),
                self.benchmarks.iter().map(|b| b.suites.len()).sum::<usize>(),
                self.tasks.values().map(BTreeSet::len).sum::<usize>(),
                self.seed
            ),
            sections: vec![
                Section::new("Scores", vec![Part::Heat(HeatMap::new(board))]),
                Section::new("Selection", [self.selection(board), tabled(&["aos"])].concat()),
                Section::new("Repair", repair),
                Section::new("Failures", tabled(&["table6", "table7", "table8", "cured", "ways"])),
                Section::new("Cost", cost),
                Section::new("Scores in full", tabled(&["table1", "table3", "paired"])),
                Section::new("Paired view", vec![Part::Episodes(self.backbone.clone(), self.result.clone())]),
                Section::new("Provenance", vec![Part::Table(provenance_table(&self.provenance))]),
            ],
        }
    }

    /// AOS against AVG over the candidates.
    fn selection(&self, board: &Scoreboard) -> Vec<Part> {
        let point = |row: &OverlapRow| {
            let model = board.model(&row.name)?;
            let avg = board.summary(model)?.avg;
            let x_range = row.interval.unwrap_or((row.mean, row.mean));
            Some(Point { name: row.name.clone(), at: (row.mean, avg), x_range, y_range: board.average_interval(model) })
        };
        let points: Vec<Point> = self.overlaps.rows.iter().filter_map(point).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = points.iter().map(|p| p.at).unzip();
        let shown = |c: Option<f64>| c.map_or("undefined".into(), |c| format!("{c:.2}"));
        let relation = format!(
            "AOS against AVG over {} candidates: Pearson {}, Spearman {}. Bars are 95 % intervals.",
            points.len(),
            shown(correlation(&x, &y)),
            shown(correlation(&ranks(&x), &ranks(&y)))
        );
        let caption = "Activation overlap (AOS) against the average score (AVG)".to_owned();
        vec![Part::Chart(caption, scatter(None, "AOS", "AVG", &points)), Part::Text(relation)]
    }
}
