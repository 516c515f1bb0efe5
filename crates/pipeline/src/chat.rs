//! Chat templates before a run begins, and what of recorded trajectories cannot be used.

use crate::error::RunError;
use rolegraft_checkpoint::Digest;
use rolegraft_suites::Suite;
use rolegraft_trajectory::{
    CHAT_RULES, ChatArguments, ChatError, ChatTemplate, Contexts, Episode, Message, Role, TemplateError,
};
use serde::Serialize;
use std::path::Path;

/// How a checkpoint's conversations are rendered: part of every digest of what it said or read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rendering {
    rules: u32,
    /// Digest of the template's text and its special tokens.
    template: String,
    arguments: ChatArguments,
    /// The day that the template writes, if it writes one.
    date: Option<String>,
}

impl Rendering {
    /// Of the checkpoint in `dir`.
    pub(crate) fn of_checkpoint(dir: &Path, arguments: &ChatArguments) -> Result<Self, RunError> {
        Self::of(&read_template(dir)?, arguments)
    }

    /// By a template.
    pub(crate) fn of(template: &ChatTemplate, arguments: &ChatArguments) -> Result<Self, RunError> {
        let date = template.writes_date().then(|| arguments.day().map(|day| day.to_string())).transpose();
        let date = date.map_err(|e| ChatError::from(TemplateError::from(e)))?;
        let special = template.special_tokens().iter().flat_map(|(name, token)| [name.as_str(), token]);
        let parts = template.sources().chain(special).map(|part| ("", part.as_bytes()));
        let template = Digest::of_parts(parts).to_string();
        Ok(Self { rules: CHAT_RULES, template, arguments: arguments.clone(), date })
    }

    /// What to say of a day that the experiment does not set.
    pub(crate) fn note(&self, name: &str) -> Option<String> {
        let set = self.arguments.iter().any(|(key, _)| key == "date");
        let date = self.date.as_ref().filter(|_| !set)?;
        Some(format!(
            "the chat template of `{name}` writes the day: {date} is part of every prompt, and a run that goes on tomorrow \
             would begin anew; say `date = \"{date}\"` under [chat], or `--chat date={date}`, to keep it"
        ))
    }
}

/// A checkpoint's chat template.
pub(crate) fn read_template(dir: &Path) -> Result<ChatTemplate, RunError> {
    Ok(ChatTemplate::read(dir).map_err(ChatError::from)?)
}

/// Who speaks, for people.
#[must_use]
pub fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// Who speaks in a suite's episodes, up to each answer of the environment.
pub(crate) fn conversations(suite: &dyn Suite) -> Vec<Vec<Role>> {
    let roles = suite.roles();
    let mut said = roles.opening.clone();
    let mut asked = vec![said.clone()];
    // Twice round: some templates look at what came before an answer.
    for answer in roles.answers.iter().chain(&roles.answers) {
        said.extend([Role::Assistant, *answer]);
        asked.push(said.clone());
    }
    asked
}

/// Asks a chat template whether it takes what is said in a suite's episodes.
///
/// # Errors
/// If it refuses: with its own sentence.
pub(crate) fn takes(template: &ChatTemplate, arguments: &ChatArguments, suite: &dyn Suite) -> Result<(), RunError> {
    if suite.tools().is_some() {
        // Played through an endpoint alone, whose server has a template of its own.
        return Ok(());
    }
    for roles in conversations(suite) {
        let messages: Vec<Message> = roles.iter().map(|role| Message::new(*role, "…")).collect();
        let rendered = match template.render(&messages, true, arguments) {
            Ok(text) if text.is_empty() => {
                Err(TemplateError::Failed { path: template.path().to_owned(), reason: "it writes nothing".into() })
            }
            rendered => rendered,
        };
        if let Err(error) = rendered {
            let (suite, roles) = (suite.id().to_owned(), names(&roles));
            return Err(RunError::Refuses { suite, roles, source: error.into() });
        }
    }
    Ok(())
}

/// What tracing found in recorded episodes that it could not use.
#[derive(Debug, Default)]
pub(crate) struct Unusable {
    other_ids: Vec<String>,
    unknown: Vec<String>,
}

impl Unusable {
    /// Takes note of what an episode's contexts could not use.
    pub(crate) fn note(&mut self, episode: &Episode, contexts: &Contexts) {
        let name = |turn: &usize| format!("{} {}, turn {turn}", episode.key.suite, episode.key.task);
        self.other_ids.extend(contexts.other_ids.iter().map(name));
        self.unknown.extend(contexts.unknown.iter().map(name));
    }

    /// One sentence for each kind.
    pub(crate) fn notes(&self) -> Vec<String> {
        let first = |turns: &[String]| turns.first().cloned().unwrap_or_default();
        let mut notes = Vec::new();
        if !self.other_ids.is_empty() {
            notes.push(format!(
                "the recorded token ids of {} replies do not decode to what was said (the first: {}); their text is encoded instead",
                self.other_ids.len(),
                first(&self.other_ids)
            ));
        }
        if !self.unknown.is_empty() {
            notes.push(format!(
                "of {} replies is not known what the model was shown (the first: {}); all that was said before is taken for it",
                self.unknown.len(),
                first(&self.unknown)
            ));
        }
        notes
    }
}
