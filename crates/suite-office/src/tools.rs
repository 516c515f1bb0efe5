//! The tools behind the actions, called with Python values.

use crate::desk::Desk;
use crate::literal::Object;
use crate::{calendar, excel, mail, word};

/// What a tool puts on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Printed {
    /// What it prints while it works: seen only if what it returns is not.
    pub(crate) before: String,
    /// What it returns; `None` if it crashes.
    pub(crate) returned: Option<String>,
}

fn returned(text: impl Into<Option<String>>) -> Printed {
    Printed { before: String::new(), returned: text.into() }
}

/// A value as part of a path: Python puts anything into an f-string.
fn text(arguments: &[Object], at: usize) -> String {
    arguments.get(at).map(Object::text).unwrap_or_default()
}

/// Whether `os.path` takes a value.
fn is_path(object: Option<&Object>) -> bool {
    matches!(object, Some(Object::Str(_) | Object::Bytes(_) | Object::Int(_) | Object::Bool(_)))
}

/// Calls a tool with its parameters' values, in their order.
pub(crate) fn run(desk: &Desk, app: &str, action: &str, arguments: &[Object]) -> Printed {
    let bed = &desk.bed;
    let at = |i: usize| text(arguments, i);
    match (app, action) {
        ("calendar", "create_event") => {
            let folder = format!("{}/testbed/calendar", desk.folder);
            let before = format!("{}\n{folder}", desk.folder);
            if at(0) == "Multiple users" {
                let said = "Failed to create a new event to Multiple users. Only support one user.";
                return Printed { before: String::new(), returned: Some(said.into()) };
            }
            let time = |i: usize| match arguments.get(i) {
                Some(Object::Str(time)) => time.clone(),
                _ => String::new(),
            };
            let said = calendar::create_event(bed, &at(0), &at(1), &time(2), &time(3), &desk.now);
            Printed { before, returned: Some(said) }
        }
        // upstream: deletion never works.
        ("calendar", "delete_event") => {
            returned(format!("Failed to delete an event named {} from {}'s calendar.", at(1), at(0)))
        }
        ("calendar", _) => returned(match at(0).as_str() {
            "Multiple users" => {
                Some("Error: Failed to list events for Multiple users. Only support one user.".to_owned())
            }
            user => calendar::list_events(bed, user),
        }),
        ("email", "send_email") => returned(mail::send(bed, arguments)),
        ("email", "list_emails") => returned(mail::list(bed, &at(0))),
        ("email", _) => returned(match arguments.get(1) {
            Some(Object::Str(id)) => mail::read(bed, &at(0), id),
            _ => format!("Failed to read email {} for {}.", at(1), at(0)),
        }),
        ("excel" | "word" | "pdf", _) if !is_path(arguments.first()) => returned(None),
        ("excel", "read_file") => returned(excel::read(bed, &at(0)).ok()),
        ("excel", "set_cell") => {
            let said = excel::set_cell(bed, &at(0), &arguments[2], &arguments[3], &arguments[1]);
            let before = format!("!!! args: {} {} {} {} {}", at(0), at(1), at(2), at(3), at(4));
            let before = if said.contains("does not exist") { String::new() } else { before };
            Printed { before, returned: Some(said) }
        }
        ("excel", "delete_cell") => returned(excel::delete_cell(bed, &at(0), &arguments[1], &arguments[2])),
        ("excel", "create_new_file") => returned(excel::create(bed, &at(0))),
        ("word", "create_new_file") => returned(word::create(bed, &at(0))),
        ("word", "read_file") => returned(word::read(bed, &at(0)).ok()),
        ("word", "write_to_file") => returned(word::write(bed, &at(0), &arguments[1])),
        ("llm", _) => returned("Error: [llm] [Errno 2] No such file or directory: 'apps/exp_config.yaml'".to_owned()),
        // Conversions, the calculator and pdf files are not part of this suite yet.
        (app, action) => returned(format!("Error: [{app}] {action} is not available here")),
    }
}
