//! What each phase of training reads: a stream of dialogues, number by number.
//!
//! The base sees copy drills and every suite in many formats, mostly sloppy ones: it learns the tasks without learning
//! which format is wanted, like a general model. Experts see only their own suites, clean.

use crate::tasks::{Suite, generate_with};
use crate::words::{Entities, Split};
use rolegraft_trajectory::{Key, Message, Rng, Role, Seed};
use serde::{Deserialize, Serialize};

/// A checkpoint of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Member {
    /// The model that every expert starts from.
    Base,
    /// τ-bench retail and airline.
    Tau,
    /// OfficeBench.
    Office,
    /// AgentBench.
    AgentBench,
}

impl Member {
    /// The pool, base first.
    pub const ALL: [Self; 4] = [Self::Base, Self::Tau, Self::Office, Self::AgentBench];

    /// The checkpoint's folder name.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Tau => "tau",
            Self::Office => "office",
            Self::AgentBench => "agentbench",
        }
    }
    /// The suites it is trained for.
    #[must_use]
    pub fn suites(self) -> &'static [Suite] {
        match self {
            Self::Base => &Suite::SEEN,
            Self::Tau => &[Suite::TauRetail, Suite::TauAirline],
            Self::Office => &[Suite::Office],
            Self::AgentBench => &[Suite::Os, Suite::WebShop],
        }
    }
}

/// Share of drills in the base's mixture.
const DRILLS: f64 = 0.25;
/// Share of the base's task dialogues in which every turn is in the suite's own format.
const CLEAN: f64 = 0.2;

/// Training dialogue number `index` of `member`.
#[must_use]
pub fn dialogue(member: Member, seed: Seed, index: u64) -> Vec<Message> {
    let mut rng = Key::new(seed).child("train").child(member.id()).index(index).rng();
    if member == Member::Base && rng.chance(DRILLS) {
        return drill(&mut rng);
    }
    let suite = *rng.pick(member.suites());
    let mut messages = generate_with(suite, Split::Train, "", &mut rng).dialogue;
    if member == Member::Base && !rng.chance(CLEAN) {
        spoil(&mut messages, &mut rng);
    }
    messages
}

fn drill(rng: &mut Rng) -> Vec<Message> {
    let kind = rng.below(4);
    let mut e = Entities { split: Split::Train, rng };
    let items: Vec<String> = (0..3 + e.rng.below(4))
        .map(|_| match e.rng.below(5) {
            0 => e.number(4),
            1 => e.name(),
            2 => e.payment(),
            3 => format!("\"{}\"", e.name()),
            _ => e.word(),
        })
        .collect();
    let chosen = e.rng.below(items.len());
    let (question, answer) = match kind {
        0 => (format!("Repeat: {}", items.join(" ")), items.join(" ")),
        1 => {
            let keys: Vec<String> = items.iter().map(|_| e.word()).collect();
            let facts: Vec<String> = keys.iter().zip(&items).map(|(k, v)| format!("{k} is {v}.")).collect();
            (format!("{} What is {}?", facts.join(" "), keys[chosen]), items[chosen].clone())
        }
        2 => {
            let rows: Vec<String> = items
                .iter()
                .enumerate()
                .map(|(i, v)| format!("{{\"name\": \"{}\", \"id\": \"{v}\"}}", i + 1))
                .collect();
            (format!("[{}] Which id has {}?", rows.join(", "), chosen + 1), items[chosen].clone())
        }
        _ => (format!("What comes after {}? {}", items[chosen], items.join(", ")), {
            items.get(chosen + 1).cloned().unwrap_or_else(|| "nothing".into())
        }),
    };
    vec![Message::system("Answer in few words."), Message::user(question), Message::assistant(answer)]
}

/// The wrappers a model without a house format might choose.
const STYLES: [fn(&str) -> String; 5] = [
    |payload| format!("<tool_call>\n{payload}\n</tool_call>"),
    |payload| format!("<think> I act. </think> <answer> {payload} </answer>"),
    |payload| format!("Think: I act.\n\nAct: bash\n\n```bash\n{payload}\n```"),
    str::to_owned,
    |payload| format!("{{\"action\": {}}}", serde_json::Value::from(payload)),
];

/// Keys and verbs that a careless model swaps.
const SLIPS: [(&str, &str); 8] = [
    ("\"name\"", "\"tool\""),
    ("\"arguments\"", "\"parameters\""),
    ("\"order_id\"", "\"order\""),
    ("\"app\"", "\"application\""),
    ("\"action\"", "\"act\""),
    ("\"recipient\"", "\"to\""),
    ("Act: ", "Action: "),
    ("click[", "open["),
];

/// The part of a clean reply that carries its meaning.
fn payload(reply: &str) -> &str {
    let between = |open: &str, close: &str| {
        let start = reply.find(open)? + open.len();
        Some(reply[start..start + reply[start..].find(close)?].trim())
    };
    between("<tool_call>", "</tool_call>")
        .or_else(|| between("<answer>", "</answer>"))
        .or_else(|| between("```bash\n", "\n```"))
        .or_else(|| between("```sql\n", "\n```"))
        .or_else(|| between("Act: answer(", ")"))
        .or_else(|| between("Action:\n", "]").map(|_| reply.rsplit('\n').next().unwrap_or(reply)))
        .or_else(|| reply.find("ACTION: ").map(|at| &reply[at + 8..]))
        .or_else(|| reply.find("Act: ").map(|at| &reply[at + 5..]))
        .unwrap_or(reply)
}

fn spoil(messages: &mut [Message], rng: &mut Rng) {
    let style = *rng.pick(&STYLES);
    for message in messages.iter_mut().filter(|m| m.role == Role::Assistant) {
        let mut reply = style(payload(&message.content));
        if rng.chance(0.5) {
            let slips: Vec<_> = SLIPS.iter().filter(|(right, _)| reply.contains(right)).collect();
            if !slips.is_empty() {
                let (right, wrong) = **rng.pick(&slips);
                reply = reply.replace(right, wrong);
            }
        }
        message.content = reply;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialogue_depends_on_its_number_alone() {
        for member in Member::ALL {
            assert_eq!(dialogue(member, Seed(1), 17), dialogue(member, Seed(1), 17));
            assert_ne!(dialogue(member, Seed(1), 17), dialogue(member, Seed(2), 17));
        }
    }

    #[test]
    fn payloads_lose_their_wrapper() {
        assert_eq!(payload("<tool_call>\n{\"a\": 1}\n</tool_call>"), "{\"a\": 1}");
        assert_eq!(payload("Think: x\n\nAct: answer(88)"), "88");
        assert_eq!(payload("Think: x\n\nAct: finish"), "finish");
        assert_eq!(payload("It is done."), "It is done.");
    }
}
