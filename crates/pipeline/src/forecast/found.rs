//! What is found out.

/// What is found out about an experiment before it is run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// Its stages, in their order.
    pub stages: Vec<StageForecast>,
    /// What keeps it from running, a sentence each.
    pub missing: Vec<String>,
    /// Whether the machine lacks some of it.
    pub(super) of_the_machine: bool,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Forecast {
    /// Takes note of something that is missing, once.
    pub(super) fn lacks(&mut self, what: String) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }
}

/// What a stage takes. What could not be found out is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageForecast {
    /// Its name.
    pub name: &'static str,
    /// What it does, in numbers.
    pub work: String,
    /// Bytes read.
    pub read: Option<u64>,
    /// Bytes written.
    pub written: Option<u64>,
    /// Main memory at its peak, in bytes, besides the program.
    pub memory: Option<u64>,
    /// Tokens that go through models.
    pub tokens: Option<u64>,
    /// Seconds.
    pub seconds: Option<f64>,
}
