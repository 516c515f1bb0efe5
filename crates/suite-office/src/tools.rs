//! The tools behind the actions, called with Python values.

use crate::convert::{self, Program, Unconverted};
use crate::files::Testbed;
use crate::mode::Mode;
use crate::{calculator, calendar, excel, mail, word};
use rolegraft_python::Object;

/// What a tool works on.
pub(crate) struct Place<'d> {
    /// The files.
    pub(crate) bed: &'d Testbed,
    /// The task's folder as the model sees it.
    pub(crate) folder: &'d str,
    /// The clock of new events.
    pub(crate) now: &'d str,
    /// Whether upstream's oddities are kept.
    pub(crate) mode: Mode,
}

/// What a tool puts on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Printed {
    /// What it prints while it works: seen only if what it returns is not.
    pub(crate) before: String,
    /// What it returns; `None` if it crashes.
    pub(crate) returned: Option<String>,
    /// Why a document cannot be read, where the tool crashes over it.
    pub(crate) unreadable: Option<String>,
    /// A program that it cannot do without and that is not installed.
    pub(crate) missing: Option<Program>,
}

fn returned(text: impl Into<Option<String>>) -> Printed {
    Printed { returned: text.into(), ..Printed::default() }
}

/// What a tool that reads a document prints.
fn shown(read: Result<String, String>) -> Printed {
    match read {
        Ok(text) => returned(text),
        Err(reason) => Printed { unreadable: Some(reason), ..Printed::default() },
    }
}

/// What a conversion prints; `failed` is what upstream makes of one that came to nothing.
fn converted(done: Result<String, Unconverted>, failed: Option<String>) -> Printed {
    match done {
        Ok(text) => returned(text),
        Err(Unconverted::Failed) => returned(failed),
        Err(Unconverted::Missing(program)) => Printed { missing: Some(program), ..returned(failed) },
    }
}

/// A value as part of a path: Python puts anything into an f-string.
fn text(arguments: &[Object], at: usize) -> String {
    arguments.get(at).map(Object::text).unwrap_or_default()
}

/// Whether `os.path` takes a value.
fn is_path(object: Option<&Object>) -> bool {
    matches!(object, Some(Object::Str(_) | Object::Bytes(_) | Object::Int(_) | Object::Bool(_)))
}

/// Whether `os.path.exists` takes a number for a standard stream.
fn is_stream(object: Option<&Object>) -> bool {
    match object {
        Some(Object::Bool(_)) => true,
        Some(Object::Int(i)) => [0, 1, 2].iter().any(|n| *i == (*n).into()),
        _ => false,
    }
}

/// Calls a tool with its parameters' values, in their order.
pub(crate) fn run(place: &Place<'_>, app: &str, action: &str, arguments: &[Object]) -> Printed {
    let bed = place.bed;
    let at = |i: usize| text(arguments, i);
    match (app, action) {
        ("calendar", "create_event") => {
            let folder = format!("{}/testbed/calendar", place.folder);
            let before = format!("{}\n{folder}", place.folder);
            if at(0) == "Multiple users" {
                let said = "Failed to create a new event to Multiple users. Only support one user.";
                return returned(said.to_owned());
            }
            let time = |i: usize| match arguments.get(i) {
                Some(Object::Str(time)) => time.clone(),
                _ => String::new(),
            };
            let said = calendar::create_event(
                bed,
                &at(0),
                arguments.get(1).unwrap_or(&Object::None),
                &time(2),
                &time(3),
                place.now,
            );
            Printed { before, ..returned(said) }
        }
        ("calendar", "delete_event") if place.mode == Mode::Sane => {
            returned(calendar::delete_event(bed, &at(0), &at(1)))
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
        ("email", "send_email") => match (at(1), mail::send(bed, arguments)) {
            (to, _) if to == "Multiple recipients" => {
                returned(format!("[email] Failed to send email to {to}. Only support one recipient."))
            }
            (_, None) => returned(None),
            (to, Some(Ok(()))) => returned(format!("Successfully sent email to {to}.")),
            (to, Some(Err(error))) => {
                let before = format!("!!! {error}");
                Printed { before, ..returned(format!("[email] Failed to send email to {to}.")) }
            }
        },
        ("email", "list_emails") => returned(mail::list(bed, &at(0))),
        ("email", _) => {
            let failed = |before: String| Printed {
                before,
                ..returned(format!("Failed to read email {} for {}.", at(1), at(0)))
            };
            match &arguments[1] {
                Object::Str(id) => match mail::read(bed, &at(0), id) {
                    None => returned(None),
                    Some(Some(text)) => returned(text),
                    Some(None) => {
                        let file = format!("{}/testbed/emails/{}/{}", place.folder, at(0), mail::file_name(id));
                        failed(format!("!!! [Errno 2] No such file or directory: '{file}'"))
                    }
                },
                other => failed(format!("!!! '{}' object has no attribute 'endswith'", other.kind())),
            }
        }
        ("excel" | "word" | "pdf", _) if !is_path(arguments.first()) => returned(None),
        // upstream: a number is an open file's; these cannot be one's.
        ("excel" | "word" | "pdf", _) if matches!(arguments.first(), Some(Object::Int(i)) if i.bits() > 31) => {
            returned(None)
        }
        ("pdf", "convert_to_image") if matches!(arguments.first(), Some(Object::Bool(true))) => {
            returned("Failed: bad filename: type(filename)=<class 'bool'> filename=True.".to_owned())
        }
        // A number is an open file's, and the standard streams are no documents.
        ("excel" | "word" | "pdf", _) if is_stream(arguments.first()) => returned(match action {
            "set_cell" => Some(format!("Failed to write text to {}", at(0))),
            "delete_cell" => Some(format!("Failed to delete a cell in {}", at(0))),
            "write_to_file" => Some(format!("Failed to write contents to {}", at(0))),
            "create_new_file" if app == "excel" => Some(format!("File {} already exists", at(0))),
            "create_new_file" => Some(format!("Failed to create new file {}", at(0))),
            _ => None,
        }),
        ("excel", "read_file") => shown(excel::read(bed, &at(0))),
        ("excel", "set_cell") => {
            let said = excel::set_cell(bed, &at(0), &arguments[2], &arguments[3], &arguments[1]);
            let before = format!("!!! args: {} {} {} {} {}", at(0), at(1), at(2), at(3), at(4));
            let before = if said.contains("does not exist") { String::new() } else { before };
            Printed { before, ..returned(said) }
        }
        ("excel", "delete_cell") => returned(excel::delete_cell(bed, &at(0), &arguments[1], &arguments[2])),
        ("excel", "create_new_file") => returned(excel::create(bed, &at(0))),
        ("word", "create_new_file") => returned(word::create(bed, &at(0))),
        ("word", "read_file") => shown(word::read(bed, &at(0))),
        ("word", "write_to_file") => returned(word::write(bed, &at(0), &arguments[1])),
        ("excel" | "word", "convert_to_pdf") => {
            let (from, to) = (at(0), at(1));
            if !bed.holds(&from) {
                return returned(match app {
                    "excel" => format!("{from} does not exist. Failed to convert {from} to {to}"),
                    _ => format!("The word file {from} does not exist. Failed to convert the file to pdf."),
                });
            }
            // upstream: success, whatever LibreOffice did.
            let said = format!("Successfully convert {from} to {to}");
            converted(convert::to_pdf(bed, &from, &to).map(|()| said.clone()), Some(said))
        }
        ("pdf", action) => {
            let (from, to) = (at(0), at(1));
            if !bed.holds(&from) {
                return returned(match action {
                    "read_file" => format!("The pdf file {from} does not exist. Failed to read the file."),
                    "convert_to_image" => format!("The file {from} does not exist. Failed to convert pdf to image."),
                    _ => format!("The pdf file {from} does not exist. Failed to convert the file to word."),
                });
            }
            match action {
                "read_file" => {
                    let path = bed.resolve(&from).unwrap_or_default();
                    converted(convert::pdf_text(bed, &path), None)
                }
                "convert_to_image" => converted(convert::to_image(bed, &from, &to), None),
                _ => converted(convert::to_word(bed, &from, &to), None),
            }
        }
        ("calculator", _) => returned(calculator::calculate(arguments.first().unwrap_or(&Object::None))),
        ("llm", _) => returned("Error: [llm] [Errno 2] No such file or directory: 'apps/exp_config.yaml'".to_owned()),
        (app, action) => returned(format!("Error: [{app}] {action} is not available here")),
    }
}
