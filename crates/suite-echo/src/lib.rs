//! The smallest benchmark: say the word that you are given. What it takes to add one; the program itself does not list it.

use rolegraft_spans::Format;
use rolegraft_suite::*;
use rolegraft_trajectory::{Message, Status};
use std::sync::Arc;

/// The entry of the registry.
pub struct Echo;
struct EchoSuite(String, Arc<Format>, Limits);
struct Turn(String, Arc<Format>, Outcome);

impl Benchmark for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }
    fn kinds(&self) -> &'static [&'static str] {
        &["echo"]
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let said: BuiltIn<Option<String>> = file.read()?;
        let suite = EchoSuite(file.name.clone(), Arc::new(opening.format(&said.format)?), said.limits);
        Ok(Library::built_in(suite, file, said.tasks))
    }
}

impl Suite for EchoSuite {
    fn id(&self) -> &str {
        &self.0
    }
    fn format(&self) -> &Format {
        &self.1
    }
    fn limits(&self) -> Limits {
        self.2
    }
    fn roles(&self) -> Roles {
        Roles::with_user(false)
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let word = task.fields["word"].as_str().unwrap_or_default().to_owned();
        Ok(Box::new(Turn(word, self.1.clone(), Outcome::default())))
    }
}

impl Environment for Turn {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        Ok(vec![Message::user(format!("Say {}.", self.0))])
    }
    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let (reading, succeeded) = (self.1.read(reply, None), reply.contains(&self.0));
        self.2.reward = f64::from(succeeded);
        Ok(Step { reading, succeeded, observations: Vec::new(), ended: Some(Status::Completed) })
    }
    fn outcome(&mut self) -> Outcome {
        self.2.clone()
    }
}
