//! Who plays the user: a model, a person, or a script.
//!
//! The strategies `llm`, `react`, `verify` and `reflection` are upstream's (sierra-research/tau-bench@59a200c:
//! tau_bench/envs/user.py): its prompts, its parsing and its attempts. Where upstream would raise over what its model
//! said, the episode ends without a reward, as it does there.

use crate::scripted::ScriptedUser;
use crate::user::{STOP, Said, Silence, User};
use crate::{Goal, prompts};
use rolegraft_suite::Speaker;
use rolegraft_trajectory::{Message, Role, Spent};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What upstream's users are asked first.
const GREETING: &str = "Hi! How can I help you today?";
const VERIFY_ATTEMPTS: usize = 3;
const REFLECTION_ATTEMPTS: usize = 2;

/// How a user is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// By rule, from the facts in the task's instruction; no endpoint.
    #[default]
    Scripted,
    /// By a person.
    Human,
    /// A model given the instruction.
    Llm,
    /// A model that thinks before it speaks.
    React,
    /// A model whose messages it also checks, three tries each.
    Verify,
    /// A model that checks its message and mends it once.
    Reflection,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 6] = [Self::Scripted, Self::Human, Self::Llm, Self::React, Self::Verify, Self::Reflection];

    /// The name in files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scripted => "scripted",
            Self::Human => "human",
            Self::Llm => "llm",
            Self::React => "react",
            Self::Verify => "verify",
            Self::Reflection => "reflection",
        }
    }
    /// Whether a model plays it.
    #[must_use]
    pub fn needs_model(self) -> bool {
        !matches!(self, Self::Scripted | Self::Human)
    }
}

/// Sets up users for tasks.
#[derive(Clone, Default)]
pub struct Users {
    strategy: Strategy,
    model: Option<String>,
    speaker: Option<Arc<dyn Speaker>>,
}

impl Users {
    /// Users by rule.
    #[must_use]
    pub fn scripted() -> Self {
        Self::default()
    }
    /// Users that `speaker` plays: a model, or a person (who is shown the instruction and then the agent's messages).
    #[must_use]
    pub fn played(strategy: Strategy, model: Option<String>, speaker: Arc<dyn Speaker>) -> Self {
        Self { strategy, model, speaker: Some(speaker) }
    }
    /// Whether somebody else plays them, for whom an episode waits.
    pub(crate) fn are_played(&self) -> bool {
        self.speaker.is_some()
    }
    /// What plays them, as far as it is known by name: part of a suite's settings.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }
    /// How they are played.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    pub(crate) fn of(&self, goal: &Goal) -> Box<dyn User> {
        match (&self.speaker, self.strategy) {
            (Some(speaker), Strategy::Human) => {
                Box::new(Person { instruction: goal.instruction.clone(), speaker: speaker.clone() })
            }
            (Some(speaker), strategy) if strategy.needs_model() => {
                Box::new(Simulated::new(strategy, &goal.instruction, speaker.clone()))
            }
            _ => Box::new(ScriptedUser::new(goal)),
        }
    }
}

/// Upstream's `human`: the instruction, then each message of the agent, and a line typed for each.
struct Person {
    instruction: String,
    speaker: Arc<dyn Speaker>,
}

impl Person {
    fn ask(&self, shown: &str) -> Said {
        self.speaker.say(&[Message::user(shown)]).map(|(text, _)| text).map_err(Silence::Speaker)
    }
}

impl User for Person {
    fn open(&mut self) -> Said {
        self.ask(&self.instruction)
    }
    fn reply(&mut self, to: &str) -> Said {
        self.ask(to)
    }
}

struct Simulated {
    strategy: Strategy,
    speaker: Arc<dyn Speaker>,
    messages: Vec<Message>,
    spent: Spent,
}

impl Simulated {
    fn new(strategy: Strategy, instruction: &str, speaker: Arc<dyn Speaker>) -> Self {
        let system = prompts::user(strategy == Strategy::React, instruction);
        Self {
            strategy,
            speaker,
            messages: vec![Message::system(system), Message::user(GREETING)],
            spent: Spent::default(),
        }
    }

    fn complete(&mut self, messages: &[Message]) -> Said {
        let (text, spent) = self.speaker.say(messages).map_err(Silence::Speaker)?;
        self.spent += spent;
        Ok(text)
    }

    /// A message after `messages`, remembered.
    fn remembered(&mut self, messages: &[Message]) -> Said {
        let text = self.complete(messages)?;
        self.messages.push(Message::assistant(&text));
        Ok(text)
    }

    fn satisfactory(&mut self, response: &str, messages: &[Message]) -> Result<bool, Silence> {
        let verdict = self.complete(&[Message::user(prompts::verify(&transcript(messages), response))])?;
        Ok(verdict.to_lowercase().contains("true"))
    }

    fn next(&mut self) -> Said {
        let mut messages = self.messages.clone();
        match self.strategy {
            Strategy::React => parse_response(&self.remembered(&messages)?),
            Strategy::Verify => {
                let mut last = String::new();
                for _ in 0..VERIFY_ATTEMPTS {
                    last = self.complete(&messages)?;
                    if self.satisfactory(&last, &messages)? {
                        self.messages.push(Message::assistant(&last));
                        break;
                    }
                }
                // upstream: a message that never satisfied is sent, but not remembered.
                Ok(last)
            }
            Strategy::Reflection => {
                let first = self.remembered(&messages)?;
                if self.satisfactory(&first, &messages)? {
                    return Ok(first);
                }
                for _ in 1..REFLECTION_ATTEMPTS {
                    let reflection =
                        self.complete(&[Message::user(prompts::reflect(&transcript(&messages), &first))])?;
                    messages.push(Message::user(one_part_after(&reflection, "Response:")?));
                    let mended = self.remembered(&messages)?;
                    if self.satisfactory(&mended, &messages)? {
                        return Ok(mended);
                    }
                }
                Ok(first)
            }
            _ => self.remembered(&messages),
        }
    }
}

impl User for Simulated {
    fn open(&mut self) -> Said {
        self.next()
    }
    fn reply(&mut self, to: &str) -> Said {
        self.messages.push(Message::user(to));
        self.next()
    }
    fn spent(&self) -> Spent {
        self.spent
    }
}

/// upstream: the roles as the user's model sees them, so the agent's messages stand under `Customer`.
fn transcript(messages: &[Message]) -> String {
    let label = |role| match role {
        Role::User => "Customer",
        Role::Assistant => "Agent",
        Role::System => "System",
        Role::Tool => "Tool",
    };
    let lines: Vec<String> = messages.iter().map(|m| format!("{}: {}", label(m.role), m.content)).collect();
    lines.join("\n")
}

/// Python's `_, part = text.split(mark)`, stripped.
fn one_part_after(text: &str, mark: &str) -> Said {
    let parts: Vec<&str> = text.split(mark).collect();
    match parts.as_slice() {
        [_, part] => Ok(part.trim().to_owned()),
        [_] => Err(Silence::Unreadable(format!("the user's model left out `{mark}`"))),
        _ => Err(Silence::Unreadable(format!("the user's model wrote `{mark}` more than once"))),
    }
}

/// upstream: `Thought:` is looked for first, so the thought and the words `User Response:` reach the agent too.
fn parse_response(response: &str) -> Said {
    if response.contains(STOP) {
        Ok(STOP.to_owned())
    } else if response.contains("Thought:") {
        one_part_after(response, "Thought:")
    } else {
        one_part_after(response, "User Response:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_suite::SpeakerError;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Says what is on a list, and remembers what it was told.
    struct Script(Mutex<(VecDeque<&'static str>, Vec<Vec<Message>>)>);

    impl Speaker for Script {
        fn say(&self, messages: &[Message]) -> Result<(String, Spent), SpeakerError> {
            let mut inner = self.0.lock().unwrap();
            inner.1.push(messages.to_vec());
            let text = inner.0.pop_front().ok_or(SpeakerError::Overflow)?;
            Ok((text.to_owned(), Spent { calls: 1, failures: 0, prompt_tokens: 10, completion_tokens: 2 }))
        }
    }

    fn user(strategy: Strategy, says: &[&'static str]) -> (Simulated, Arc<Script>) {
        let script = Arc::new(Script(Mutex::new((says.iter().copied().collect(), Vec::new()))));
        (Simulated::new(strategy, "You are Ann.", script.clone()), script)
    }

    #[test]
    fn an_llm_user_sees_the_agent_as_its_user() {
        let (mut user, script) = user(Strategy::Llm, &["I lost my mug.", "###STOP###"]);
        assert_eq!(user.open().unwrap(), "I lost my mug.");
        assert_eq!(user.reply("It is found.").unwrap(), STOP);
        assert!(matches!(user.reply("?"), Err(Silence::Speaker(SpeakerError::Overflow))));
        assert_eq!(user.spent(), Spent { calls: 2, failures: 0, prompt_tokens: 20, completion_tokens: 4 });
        let told = &script.0.lock().unwrap().1[1];
        let seen: Vec<(Role, &str)> = told[1..].iter().map(|m| (m.role, m.content.as_str())).collect();
        let expected = [(Role::User, GREETING), (Role::Assistant, "I lost my mug."), (Role::User, "It is found.")];
        assert_eq!(seen, expected);
        assert!(
            told[0]
                .content
                .starts_with("You are a user interacting with an agent.\n\nInstruction: You are Ann.\n\nRules:")
        );
    }

    #[test]
    fn a_react_user_is_parsed_as_upstream_parses_it() {
        let says = ["Thought:\nHm.\n\nUser Response:\nHi.", "User Response: Yes.", "Thought: a Thought: b", "Hello."];
        let (mut user, _) = user(Strategy::React, &says);
        assert_eq!(user.open().unwrap(), "Hm.\n\nUser Response:\nHi.");
        assert_eq!(user.reply("Sure?").unwrap(), "Yes.");
        assert!(matches!(user.reply("?"), Err(Silence::Unreadable(_))));
        assert!(matches!(user.reply("?"), Err(Silence::Unreadable(_))));
        assert_eq!(parse_response("Thought: done ###STOP###").unwrap(), STOP);
    }

    #[test]
    fn a_verifying_user_tries_three_times_and_forgets_what_failed() {
        let (mut user, script) = user(Strategy::Verify, &["a", "false", "b", "True.", "c", "no", "d", "no", "e", "no"]);
        assert_eq!(user.open().unwrap(), "b");
        assert_eq!(user.reply("x").unwrap(), "e");
        let remembered: Vec<&str> = user.messages.iter().map(|m| m.content.as_str()).skip(1).collect();
        assert_eq!(remembered, [GREETING, "b", "x"]);
        let asked = &script.0.lock().unwrap().1[1][0].content;
        assert!(asked.contains(&format!("Customer: {GREETING}")) && asked.contains("# Response:\na\n"), "{asked}");
    }

    #[test]
    fn a_reflecting_user_mends_once() {
        let says =
            ["a", "false", "Reflection: no.\nResponse: better", "b", "true", "c", "false", "Response: x", "d", "false"];
        let (mut user, script) = user(Strategy::Reflection, &says);
        assert_eq!(user.open().unwrap(), "b");
        assert_eq!(script.0.lock().unwrap().1[3].last().unwrap().content, "better");
        assert_eq!(user.reply("x").unwrap(), "c");
        let (mut broken, _) = self::user(Strategy::Reflection, &["a", "false", "I cannot."]);
        assert!(matches!(broken.open(), Err(Silence::Unreadable(_))));
    }
}
