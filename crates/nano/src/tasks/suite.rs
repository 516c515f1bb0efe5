//! The suites that have generated tasks.

/// A suite with built-in tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// τ-bench retail.
    TauRetail,
    /// τ-bench airline.
    TauAirline,
    /// OfficeBench.
    Office,
    /// AgentBench OS.
    Os,
    /// AgentBench WebShop.
    WebShop,
    /// AgentBench DB-bench.
    Db,
    /// AgentBench ALFWorld.
    AlfWorld,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 7] =
        [Self::TauRetail, Self::TauAirline, Self::Office, Self::Os, Self::WebShop, Self::Db, Self::AlfWorld];
    /// Those that an expert knows, twice each, and those that the base alone has seen.
    pub const SEEN: [Self; 12] = [
        Self::TauRetail,
        Self::TauAirline,
        Self::Office,
        Self::Os,
        Self::WebShop,
        Self::TauRetail,
        Self::TauAirline,
        Self::Office,
        Self::Os,
        Self::WebShop,
        Self::Db,
        Self::AlfWorld,
    ];

    /// The suite's id, which is also its folder under `benchmarks/`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::TauRetail => "tau-retail",
            Self::TauAirline => "tau-airline",
            Self::Office => "officebench",
            Self::Os => "os",
            Self::WebShop => "webshop",
            Self::Db => "dbbench",
            Self::AlfWorld => "alfworld",
        }
    }

    /// The shortest prompt that names the reply format: the system message, or DB-bench's first.
    #[must_use]
    pub fn system_prompt(self) -> &'static str {
        match self {
            Self::TauRetail => "You are a retail agent. Use one tool per turn.",
            Self::TauAirline => "You are an airline agent. Use one tool per turn.",
            Self::Office => "You are an office assistant. Reply <think>...</think> <answer>...</answer>.",
            Self::Os => "You are an assistant on Linux. Reply Think: and Act: bash, finish or answer(...).",
            Self::WebShop => "You are web shopping. Reply Thought: and Action: search[...] or click[...].",
            Self::AlfWorld => "Interact with a household to solve a task. Reply THOUGHT: and ACTION:.",
            Self::Db => {
                "You operate a MySQL database. Reply Action: Operation with SQL, or Action: Answer and Final Answer: [...]."
            }
        }
    }
}
