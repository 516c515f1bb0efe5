//! What a run says: scores with intervals, paired tests, failure analysis, tables in four formats, and the page.
//!
//! Everything here is a function of episodes and plain numbers; nothing is computed from weights, and nothing is
//! printed. Logs are read an episode at a time, and files are handed to the caller, who writes them. Model text is
//! hostile: it is escaped for the format it lands in, and reaches the page's document as text nodes alone.

mod card;
mod cascades;
pub mod charts;
mod conversation;
mod episode_files;
mod failures;
mod heat;
mod intervals;
mod kinds;
mod logs_report;
mod markup;
mod page;
mod planning;
mod power;
mod run_report;
mod run_tables;
mod scores;
mod significance;
mod spending;
mod table;
mod tally;
mod trials;
mod verdict;
mod ways;

pub use card::{CardScores, card_scores, with_scores};
pub use cascades::{Cascades, cascade_table};
pub use episode_files::{DATA, Put};
pub use failures::{FailureRates, failure_rates, status_table, unparsable_table, violation_table};
pub use heat::{HeatCell, HeatMap, HeatRow};
pub use intervals::{Stratum, newcombe, of_differences, of_means, wilson};
pub use kinds::{KindScores, kind_scores, kind_table};
pub use logs_report::{LogsReport, Wanted, overview};
pub use page::{Page, Part, Section};
pub use planning::power_table;
pub use power::POWER;
pub use run_report::{NamedTables, RunReport};
pub use run_tables::{DiagnosisRow, GraftRow, OverlapRow, Overlaps};
pub use scores::{Benchmark, Difference, ModelScores, Scoreboard, Summary, rhm, worst};
pub use significance::{correlation, holm, mcnemar, permutation, ranks};
pub use spending::{Price, spending_table};
pub use table::{Format, Table, plain};
pub use tally::Tally;
pub use trials::{SuiteScore, pass_hat, score_table, suite_scores};
pub use verdict::{leader, verdict};
