//! What playing cost: calls, tokens and money, the agent's apart from those of simulated users.

use crate::Table;
use rolegraft_trajectory::Spent;

/// Money a million tokens, read and written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// For tokens read.
    pub prompt: f64,
    /// For tokens written.
    pub completion: f64,
}

impl Price {
    /// What was spent, in the price's money.
    #[must_use]
    pub fn of(&self, spent: &Spent) -> f64 {
        (self.prompt * spent.prompt_tokens as f64 + self.completion * spent.completion_tokens as f64) / 1e6
    }
}

/// Spending as a table; rows are (who, spent, price where it is known).
#[must_use]
pub fn spending_table(rows: &[(String, Spent, Option<Price>)]) -> Table {
    let head = ["", "calls", "failed tries", "prompt tokens", "completion tokens", "cost"];
    let mut table = Table::new("Spending", &head);
    for (who, spent, price) in rows {
        table.rows.push(vec![
            who.clone(),
            spent.calls.to_string(),
            spent.failures.to_string(),
            spent.prompt_tokens.to_string(),
            spent.completion_tokens.to_string(),
            price.map_or("–".into(), |p| format!("{:.2}", p.of(spent))),
        ]);
    }
    table
}
