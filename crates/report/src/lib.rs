//! What a run says: scores with intervals, paired tests, failure analysis, tables in four formats, and the page.
//!
//! Everything here is a function of episodes and plain numbers; nothing is computed from weights, and nothing is
//! printed. Model text is hostile: it is escaped for the format it lands in.

mod failures;
mod page;
mod paired;
mod scores;
mod stats;
mod table;

pub use failures::{FailureRates, failure_rates, status_table, unparsable_table, violation_table};
pub use page::{Page, Section, bar_chart, scatter_chart};
pub use paired::{PairedEpisode, pair, paired_view};
pub use scores::{Benchmark, ModelScores, Scoreboard, Summary, rhm, worst};
pub use stats::{correlation, interval, mcnemar, ranks};
pub use table::{Format, Table, plain};
