//! Everything that logs alone can say, for several models side by side.

use crate::{
    Price, Table, cascade_table, cascades, failure_rates, kind_scores, kind_table, score_table, spending,
    spending_table, status_table, suite_scores, unparsable_table, violation_table,
};
use rolegraft_trajectory::Episode;
use std::collections::BTreeSet;

/// Tables of recorded episodes by model: scores with pass^k, failures, DB-bench's types, τ-bench's
/// cascades, spending. Intervals are drawn
/// from `seed`; prices are the agent's and the users'.
#[must_use]
pub fn overview(models: &[(String, Vec<Episode>)], seed: u64, prices: (Option<Price>, Option<Price>)) -> Vec<Table> {
    let scores: Vec<_> = models.iter().map(|(name, episodes)| (name.clone(), suite_scores(episodes, seed))).collect();
    let suites: BTreeSet<&str> = models.iter().flat_map(|(_, e)| e).map(|e| e.key.suite.as_str()).collect();
    let (mut failures, mut patterns, mut kinds, mut spent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for suite in suites {
        for (name, episodes) in models {
            let of_suite = || episodes.iter().filter(|e| e.key.suite == suite);
            if of_suite().next().is_none() {
                continue;
            }
            failures.push((suite.to_owned(), name.clone(), failure_rates(of_suite())));
            kinds.extend(kind_scores(of_suite()).map(|k| (name.clone(), k)));
            patterns.extend(cascades(of_suite()).map(|c| (suite.to_owned(), name.clone(), c)));
        }
    }
    for (name, episodes) in models {
        let (agent, others) = spending(episodes);
        if !agent.is_nothing() {
            spent.push((name.clone(), agent, prices.0));
        }
        if !others.is_nothing() {
            spent.push((format!("{name}: users"), others, prices.1));
        }
    }
    let mut tables =
        vec![score_table(&scores), unparsable_table(&failures), violation_table(&failures), status_table(&failures)];
    if !kinds.is_empty() {
        tables.push(kind_table(&kinds));
    }
    if !patterns.is_empty() {
        tables.push(cascade_table(&patterns));
    }
    if !spent.is_empty() {
        tables.push(spending_table(&spent));
    }
    tables
}
