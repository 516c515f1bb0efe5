//! Models × benchmarks, coloured by the change against the best expert.

use crate::verdict::signed;
use crate::{Benchmark, Difference, ModelScores, Scoreboard};

/// The map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatMap {
    /// Names of the columns, after that of the models.
    pub head: Vec<String>,
    /// A row a model.
    pub rows: Vec<HeatRow>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatRow {
    /// Its name.
    pub name: String,
    /// Whether it is an expert.
    pub expert: bool,
    /// A cell a column.
    pub cells: Vec<HeatCell>,
}

/// One score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatCell {
    /// The score; a dash where there is none.
    pub value: String,
    /// Its 95 % interval, and the tasks that it is of.
    pub own: String,
    /// Points against the best expert; empty where there is nothing to compare, or it is the best expert itself.
    pub change: String,
    /// Their interval.
    pub interval: String,
    /// Whether the interval leaves out 0.
    pub significant: bool,
    /// How strongly it is coloured: from −4, a large loss, to 4, a large gain.
    pub shade: i8,
}

/// Points from which a change is coloured more strongly.
const STEPS: [f64; 4] = [0.5, 5.0, 15.0, 30.0];

impl HeatCell {
    fn new(score: Option<f64>, interval: Option<(f64, f64)>, tasks: usize, difference: Option<Difference>) -> Self {
        let value = score.map_or("–".into(), |s| format!("{s:.1}"));
        let own = score.and(interval).map_or(String::new(), |(low, high)| format!("[{low:.0}, {high:.0}] n {tasks}"));
        let Some(difference) = difference else { return Self { value, own, ..Self::default() } };
        let strength = STEPS.iter().filter(|step| difference.points.abs() >= **step).count() as i8;
        Self {
            value,
            own,
            change: signed(difference.points),
            interval: format!("95 % {} to {}", signed(difference.low), signed(difference.high)),
            significant: difference.is_significant(),
            shade: if difference.points < 0.0 { -strength } else { strength },
        }
    }

    /// The class of the stylesheet that colours it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        ["loss4", "loss3", "loss2", "loss1", "even", "gain1", "gain2", "gain3", "gain4"]
            [(self.shade.clamp(-4, 4) + 4) as usize]
    }
}

impl HeatMap {
    /// The map of a scoreboard, with AVG where there is more than one benchmark.
    #[must_use]
    pub fn new(board: &Scoreboard) -> Self {
        let averaged = board.benchmarks.len() > 1;
        let mut head: Vec<String> = board.benchmarks.iter().map(|b| b.title.clone()).collect();
        head.extend(averaged.then(|| "AVG".to_owned()));
        let row = |model: &ModelScores| {
            let on = |b: &Benchmark| {
                let best = board.best_expert_on(b).filter(|best| best.name != model.name);
                let difference = best.and_then(|best| board.difference(model, best, b));
                HeatCell::new(model.score(b), board.interval(model, b), model.tasks(b), difference)
            };
            let mut cells: Vec<HeatCell> = board.benchmarks.iter().map(on).collect();
            if averaged {
                let difference = board.average_difference(model, &|b| board.best_expert_on(b));
                let tasks = board.benchmarks.iter().map(|b| model.tasks(b)).sum();
                let (average, interval) = (board.summary(model).map(|s| s.avg), board.average_interval(model));
                cells.push(HeatCell::new(average, Some(interval), tasks, difference));
            }
            HeatRow { name: model.name.clone(), expert: board.experts.contains(&model.name), cells }
        };
        Self { head, rows: board.models.iter().map(row).collect() }
    }

    /// Whether anything is compared.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.cells).any(|cell| !cell.change.is_empty())
    }
}
