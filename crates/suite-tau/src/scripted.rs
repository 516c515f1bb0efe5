//! A user by rule: states the wish of the task's instruction, answers what it is asked from the facts in it, then ends.
//!
//! No model plays it, so an episode needs no endpoint and is the same every time. It is no measure of how an agent copes
//! with people: it says everything it wants at once, agrees whenever it is asked to confirm, and never insists. Scores
//! under it are not comparable with published ones.

use crate::Goal;
use crate::user::{STOP, Said, User};
use regex::Regex;
use std::sync::OnceLock;

/// Answers after which it gives up.
const PATIENCE: usize = 20;

pub(crate) struct ScriptedUser {
    opening: String,
    facts: Facts,
    /// Sentences in the first person, and whether they were said.
    sentences: Vec<(String, bool)>,
    replies: usize,
}

/// What an instruction says about its user and what they have.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    name: Option<String>,
    zip: Option<String>,
    email: Option<String>,
    user_id: Option<String>,
    orders: Vec<String>,
    reservations: Vec<String>,
}

/// A pattern of this file, compiled once.
macro_rules! pattern {
    ($text:expr) => {{
        static COMPILED: OnceLock<Option<Regex>> = OnceLock::new();
        COMPILED.get_or_init(|| Regex::new($text).ok())
    }};
}

fn all(pattern: &Option<Regex>, text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for captures in pattern.iter().flat_map(|p| p.captures_iter(text)) {
        let group = captures.get(1).or_else(|| captures.get(0)).map(|m| m.as_str().to_owned());
        found.extend(group.filter(|g| !found.contains(g)));
    }
    found
}

impl Facts {
    fn of(text: &str) -> Self {
        let first = |pattern: &Option<Regex>| all(pattern, text).into_iter().next();
        Self {
            name: first(pattern!(r"(?:You are|name is|called|You're|I am) ([A-Z][a-z]+ [A-Z][a-z]+)\b")),
            zip: first(pattern!(r"\b(\d{5})\b")),
            email: first(pattern!(r"\b[\w.]+@[\w.]+\.\w+\b")),
            user_id: first(pattern!(r"\b[a-z]+_[a-z]+_\d{4}\b")),
            orders: all(pattern!(r"#?W\d{4,}\b"), text),
            reservations: all(pattern!(r"\b([A-Z0-9]*(?:[A-Z][A-Z0-9]*\d|\d[A-Z0-9]*[A-Z])[A-Z0-9]*)\b"), text)
                .into_iter()
                .filter(|id| id.len() == 6 && !id.starts_with("HAT"))
                .collect(),
        }
    }
}

/// Splits a text after full stops, question and exclamation marks that end a sentence.
fn sentences(text: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let ends = matches!(c, '.' | '!' | '?' | ';') && chars.peek().is_none_or(|(_, next)| next.is_whitespace());
        if ends {
            found.push(text[start..at + c.len_utf8()].trim());
            start = at + c.len_utf8();
        }
    }
    found.push(text[start..].trim());
    found.retain(|s| !s.is_empty());
    found
}

/// A sentence about `you`, as the one it is about says it.
fn first_person(sentence: &str) -> String {
    let mut text = sentence.to_owned();
    let changes = [
        (pattern!(r"\b(?i:you are)\b"), "I am"),
        (pattern!(r"\b(?i:you're)\b"), "I'm"),
        (pattern!(r"\b(?i:you were)\b"), "I was"),
        (pattern!(r"\bYou name\b"), "My name"),
        (pattern!(r"\byourself\b"), "myself"),
        (pattern!(r"\bYour\b"), "My"),
        (pattern!(r"\byour\b"), "my"),
        (
            pattern!(
                r"\b(ask|asks|tell|tells|give|gives|offer|offers|charge|charges|help|helps|let|lets|for|to|with) you\b"
            ),
            "$1 me",
        ),
        (pattern!(r"\b(?i:you)\b"), "I"),
    ];
    for (pattern, by) in changes {
        if let Some(pattern) = pattern {
            text = pattern.replace_all(&text, by).into_owned();
        }
    }
    text
}

/// Whether a sentence says what the user wants, rather than who they are or what to do if something happens.
fn is_wish(sentence: &str) -> bool {
    let lower = sentence.to_lowercase();
    let wants = [
        "want",
        "wish",
        "would like",
        "need",
        "like to",
        "exchange",
        "return",
        "cancel",
        "change",
        "modify",
        "book",
        "complain",
        "upgrade",
    ];
    !lower.starts_with("if ")
        && !lower.contains("the agent asks")
        && !lower.contains("do not want to reveal")
        && wants.iter().any(|w| lower.contains(w))
}

impl ScriptedUser {
    pub(crate) fn new(goal: &Goal) -> Self {
        let instruction = goal.instruction.trim();
        let about_you =
            instruction.starts_with("You ") || instruction.starts_with("Your ") || instruction.starts_with("You'");
        let mut user =
            Self { opening: instruction.to_owned(), facts: Facts::of(instruction), sentences: Vec::new(), replies: 0 };
        // The built-in tasks are in the user's own words.
        if about_you {
            let wishes = sentences(instruction).into_iter().map(|s| (first_person(s), is_wish(s)));
            user.sentences = wishes.collect();
            if !user.sentences.iter().any(|(_, wish)| *wish) {
                user.sentences.iter_mut().for_each(|(_, said)| *said = true);
            }
            let said: Vec<&str> = user.sentences.iter().filter(|(_, said)| *said).map(|(s, _)| s.as_str()).collect();
            user.opening = said.join(" ");
        }
        user
    }

    /// What is asked for in `text`, lower-cased, answered.
    fn answers(&self, text: &str) -> Vec<String> {
        let asks = |words: &[&str]| words.iter().any(|w| text.contains(w));
        let tell = |what: &str, fact: Option<&String>| match fact {
            Some(fact) => format!("My {what} is {fact}."),
            None => format!("I do not remember my {what}."),
        };
        let list = |what: &str, facts: &[String]| match facts {
            [] => format!("I do not remember the {what}."),
            facts => format!("The {what} is {}.", facts.join(" and ")),
        };
        let mut answers = Vec::new();
        if asks(&["email", "e-mail"]) {
            answers.push(tell("email", self.facts.email.as_ref()));
        }
        if asks(&["first name", "last name", "full name", "your name"]) {
            answers.push(tell("name", self.facts.name.as_ref()));
        }
        if asks(&["zip", "postal"]) {
            answers.push(tell("zip code", self.facts.zip.as_ref()));
        }
        if asks(&["user id", "user_id", "account id", "customer id"]) {
            answers.push(tell("user id", self.facts.user_id.as_ref()));
        }
        if asks(&["order id", "order number", "order_id", "which order"]) {
            answers.push(list("order number", &self.facts.orders));
        }
        if asks(&["reservation id", "reservation number", "confirmation", "reservation code", "which reservation"]) {
            answers.push(list("reservation id", &self.facts.reservations));
        }
        for (asked, known) in [
            (&["payment", "pay with", "refund method"][..], &["card", "paypal", "certificate", "payment"][..]),
            (&["reason", "why"], &["because", "since", "no longer", "mistake", "due to", "too "]),
        ] {
            let fits = |s: &String| known.iter().any(|k| s.to_lowercase().contains(k));
            if asks(asked) {
                answers.extend(self.sentences.iter().map(|(s, _)| s).filter(|s| fits(s)).cloned());
            }
        }
        answers
    }

    /// The sentence not yet said that shares most words with `text`.
    fn next_untold(&mut self, text: &str) -> Option<String> {
        let words = |s: &str| -> Vec<String> {
            let words = s.split(|c: char| !c.is_alphanumeric()).filter(|w| w.chars().count() > 3);
            words.map(str::to_lowercase).collect()
        };
        let asked = words(text);
        let shared = |s: &str| words(s).iter().filter(|w| asked.contains(w)).count();
        let untold = self.sentences.iter_mut().filter(|(_, said)| !said);
        let (score, best) = untold.map(|entry| (shared(&entry.0), entry)).rev().max_by_key(|(score, _)| *score)?;
        (score > 0).then(|| {
            best.1 = true;
            best.0.clone()
        })
    }
}

impl User for ScriptedUser {
    fn open(&mut self) -> Said {
        Ok(self.opening.clone())
    }

    fn reply(&mut self, to: &str) -> Said {
        self.replies += 1;
        let text = to.to_lowercase();
        let asks = |words: &[&str]| words.iter().any(|w| text.contains(w));
        let question = text.contains('?')
            || asks(&[
                "please provide",
                "please confirm",
                "please share",
                "let me know",
                "could you",
                "can you",
                "may i",
            ]);
        if !question || self.replies > PATIENCE {
            return Ok(STOP.into());
        }
        let mut answers = self.answers(&text);
        if asks(&[
            "confirm",
            "proceed",
            "go ahead",
            "correct?",
            "would you like",
            "do you want",
            "shall i",
            "is that",
            "(yes",
        ]) && !asks(&["would you like help", "anything else"])
        {
            answers.push("Yes, please.".into());
        }
        if answers.is_empty() {
            answers.extend(self.next_untold(&text));
        }
        if answers.is_empty() {
            let over = asks(&["anything else", "any other", "else i can", "further assistance", "help you with today"]);
            return Ok(if over { STOP.into() } else { "I do not know that.".into() });
        }
        Ok(answers.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(instruction: &str) -> ScriptedUser {
        ScriptedUser::new(&Goal {
            user_id: String::new(),
            instruction: instruction.into(),
            actions: Vec::new(),
            outputs: Vec::new(),
        })
    }

    #[test]
    fn it_says_what_it_wants_answers_what_it_knows_and_ends() {
        let mut user = user(
            "You are Yusuf Rossi in 19122. You received your order #W2378156 and wish to exchange the mechanical keyboard. If \
             there is no keyboard that is clicky, you'd go for no backlight. You are detail-oriented.",
        );
        assert_eq!(user.open().unwrap(), "I received my order #W2378156 and wish to exchange the mechanical keyboard.");
        let reply = user.reply("Could you give me your email, or your name and zip code?").unwrap();
        assert_eq!(reply, "I do not remember my email. My name is Yusuf Rossi. My zip code is 19122.");
        assert_eq!(user.reply("Which order number?").unwrap(), "The order number is #W2378156.");
        let reply = user.reply("There is no clicky keyboard with backlight. What now?").unwrap();
        assert_eq!(reply, "If there is no keyboard that is clicky, I'd go for no backlight.");
        assert_eq!(user.reply("I will exchange it. Do you want to proceed (yes/no)?").unwrap(), "Yes, please.");
        assert_eq!(user.reply("What is your shoe size?").unwrap(), "I do not know that.");
        assert_eq!(user.reply("Done. Is there anything else I can help you with?").unwrap(), STOP);
        assert_eq!(user.reply("It is done.").unwrap(), STOP);
    }

    #[test]
    fn its_own_words_stay_and_patience_ends() {
        let mut user = user("Please cancel order #W3507, I ordered it by mistake.");
        assert_eq!(user.open().unwrap(), "Please cancel order #W3507, I ordered it by mistake.");
        let replies: Vec<String> = (0..30).map(|_| user.reply("Why?").unwrap()).collect();
        assert_eq!(replies.iter().position(|r| r == STOP), Some(PATIENCE));
    }

    #[test]
    fn facts_are_found_where_tasks_put_them() {
        let facts = Facts::of(
            "You are Sophia Silva (with ID: sophia_silva_7557), flight HAT039, confirmation H8Q05L and GV1N64.",
        );
        assert_eq!(facts.name.as_deref(), Some("Sophia Silva"));
        assert_eq!(facts.user_id.as_deref(), Some("sophia_silva_7557"));
        assert_eq!(facts.reservations, ["H8Q05L", "GV1N64"]);
        let facts =
            Facts::of("You name is Liam Moore and your email is liam.moore6985@example.com. For #W6908222, exchange");
        assert_eq!(facts.email.as_deref(), Some("liam.moore6985@example.com"));
        assert_eq!((facts.orders, facts.name.as_deref()), (vec!["#W6908222".to_owned()], Some("Liam Moore")));
    }
}
