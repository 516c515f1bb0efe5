//! ALFWorld tasks: find a thing, clean it if asked, put it where it belongs. No expert is trained for them.

use super::draft::Draft;
use crate::words::Entities;
use serde_json::json;

const PLACES: [&str; 6] = ["bed", "cabinet", "desk", "shelf", "sofa", "table"];
const SINK: &str = "sinkbasin";

/// An id as ALFWorld's games have them.
fn id(name: &str) -> String {
    if name == SINK { "sink_bar_1_basin".into() } else { format!("{name}_bar_1") }
}

fn listed(names: &[&String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("a {name} 1")).collect();
    match names.split_last() {
        None => "nothing".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{}, and {last}", rest.join(", ")),
    }
}

pub(super) fn task(e: &mut Entities<'_>) -> Draft {
    let first = e.rng.below(PLACES.len());
    let places: Vec<String> = (0..3).map(|i| PLACES[(first + i * 2 + i / 2) % PLACES.len()].to_owned()).collect();
    let (wanted, other) = (e.word(), e.word());
    let clean = e.rng.chance(0.5);
    // The wanted thing is in one of the first two places; it belongs in the third.
    let hidden = e.rng.below(2);
    let target = &places[2];
    let mut all: Vec<String> = places.clone();
    all.push(SINK.to_owned());
    all.sort();
    let mut facts = vec!["(atLocation agent1 loc_bar_0)".to_owned()];
    let mut objects = vec!["agent1 - agent".to_owned(), "loc_bar_0 - location".to_owned()];
    for (i, place) in all.iter().enumerate() {
        objects.push(format!("{} - receptacle loc_bar_{} - location", id(place), i + 1));
        facts.push(format!("(receptacleAtLocation {} loc_bar_{})", id(place), i + 1));
    }
    facts.push(format!("(cleans {})", id(SINK)));
    objects.push(format!("{} {} - object", id(&wanted), id(&other)));
    facts.push(format!("(inReceptacle {} {})", id(&wanted), id(&places[hidden])));
    facts.push(format!("(inReceptacle {} {})", id(&other), id(&places[0])));
    let cleaned = if clean { format!("(isClean {}) ", id(&wanted)) } else { String::new() };
    let problem = format!(
        "(define (problem nano) (:domain household) (:objects {}) (:init {}) (:goal (and {cleaned}(inReceptacle {} {}))))",
        objects.join(" "),
        facts.join(" "),
        id(&wanted),
        id(target)
    );
    let sentence = match clean {
        true => format!("clean the {wanted} and put it on the {target}."),
        false => format!("put the {wanted} on the {target}."),
    };
    let act = |thought: String, action: String| format!("THOUGHT: {thought}\nACTION: {action}");
    let there = |at: usize| {
        let mut things = Vec::new();
        if at == 0 {
            things.push(&other);
        }
        if at == hidden {
            things.push(&wanted);
        }
        things.sort();
        format!("On the {} 1, you see {}.", places[at], listed(&things))
    };
    let go = |place: &str| act(format!("I look at the {place}."), format!("go to {place} 1"));
    let mut turns: Vec<(String, Option<String>)> = (0..=hidden).map(|at| (go(&places[at]), Some(there(at)))).collect();
    let from = &places[hidden];
    turns.push((
        act("I see it.".into(), format!("take {wanted} 1 from {from} 1")),
        Some(format!("You pick up the {wanted} 1 from the {from} 1.")),
    ));
    if clean {
        turns.push((go(SINK), Some(format!("On the {SINK} 1, you see nothing."))));
        turns.push((
            act("I clean it.".into(), format!("clean {wanted} 1 with {SINK} 1")),
            Some(format!("You clean the {wanted} 1 using the {SINK} 1.")),
        ));
    }
    turns.push((go(target), Some(format!("On the {target} 1, you see nothing."))));
    turns.push((act("I put it down.".into(), format!("put {wanted} 1 in/on {target} 1")), None));
    let room = listed(&all.iter().collect::<Vec<_>>());
    Draft {
        request: format!(
            "Here is your task. You are in the middle of a room. Looking quickly around you, you see {room}.\nYour task is to: {sentence}"
        ),
        fields: json!({"game": {"pddl_problem": problem}, "sentence": sentence}),
        turns,
    }
}
