//! What a run says: scores with intervals, paired tests, failure analysis, tables in four formats, and the page.
//!
//! Everything here is a function of episodes and plain numbers; nothing is computed from weights, and nothing is
//! printed. Model text is hostile: it is escaped for the format it lands in.

mod ablation;
mod cascades;
pub mod charts;
mod failures;
mod kinds;
mod overview;
mod page;
mod paired;
mod scores;
mod spending;
mod stats;
mod table;
mod trials;

pub use ablation::{AblationPart, ablation_page};
pub use cascades::{Cascades, cascade_table, cascades};
pub use failures::{FailureRates, failure_rates, status_table, unparsable_table, violation_table};
pub use kinds::{KindScores, kind_scores, kind_table};
pub use overview::overview;
pub use page::{Page, Section, bar_chart, scatter_chart};
pub use paired::{PairedEpisode, pair, paired_view};
pub use scores::{Benchmark, ModelScores, Scoreboard, Summary, rhm, worst};
pub use spending::{Price, spending, spending_table};
pub use stats::{correlation, interval, mcnemar, nested_interval, ranks};
pub use table::{Format, Table, plain};
pub use trials::{SuiteScore, pass_hat, score_table, suite_scores};
