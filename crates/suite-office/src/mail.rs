//! The mail app: `emails/NAME/SUBJECT.eml`.

use crate::arithmetic::truth;
use crate::files::Testbed;
use crate::message::message;
use mail_parser::{Message, MessageParser, MimeHeaders};
use rolegraft_python::Object;
use std::path::{Path, PathBuf};

/// A user's folder. A name that would lead elsewhere has none.
fn folder(user: &str) -> Option<PathBuf> {
    let path = Path::new(user);
    let inside = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    (inside && !user.contains('\0')).then(|| Path::new("emails").join(path))
}

/// `send_email(sender, recipient, subject, content)`: writes the message into both folders, under its subject. `None` if
/// upstream's tool crashes, the error as Python words it if it fails.
pub(crate) fn send(bed: &Testbed, arguments: &[Object]) -> Option<Result<(), String>> {
    let [sender, recipient, subject, content, ..] = arguments else { return None };
    // `'@' in name` fails on what cannot hold anything, and what holds a lone `@` cannot be split.
    for name in [sender, recipient] {
        let held: Vec<&Object> = match name {
            Object::Str(_) => vec![],
            Object::Tuple(items) | Object::List(items) | Object::Set(items) => items.iter().collect(),
            Object::Dict(pairs) => pairs.iter().map(|(key, _)| key).collect(),
            _ => return None,
        };
        if held.iter().any(|item| matches!(item, Object::Str(text) if text == "@")) {
            return None;
        }
    }
    Some(write(bed, sender, recipient, subject, content))
}

fn write(bed: &Testbed, sender: &Object, recipient: &Object, subject: &Object, content: &Object) -> Result<(), String> {
    let users = [sender, recipient].map(|user| match user {
        Object::Str(user) => user.split('@').next().unwrap_or_default().to_owned(),
        other => other.text(),
    });
    let outside = || "the folder lies outside the task's".to_owned();
    let folders = [folder(&users[0]).ok_or_else(outside)?, folder(&users[1]).ok_or_else(outside)?];
    for folder in &folders {
        bed.make_parent(&folder.join("x")).map_err(|e| e.to_string())?;
    }
    if !matches!((sender, recipient), (Object::Str(_), Object::Str(_))) {
        return Err("can only concatenate str to str".into());
    }
    let shown = match subject {
        Object::Str(subject) => subject.as_str(),
        empty if !truth(empty) => "",
        Object::Tuple(_) | Object::List(_) => {
            return Err(format!("'{}' object has no attribute 'startswith'", subject.kind()));
        }
        Object::Dict(_) => return Err("0".into()),
        other => return Err(format!("'{}' object is not subscriptable", other.kind())),
    };
    if users.iter().any(|user| has_lines(user)) || has_lines(shown) {
        return Err("Header values may not contain linefeed or carriage return characters".into());
    }
    let Object::Str(content) = content else { return Err(format!("'builtins.{}'", content.kind())) };
    let [from, to] = users.each_ref().map(|user| format!("{user}@example.com"));
    let message = message(&from, &to, shown, content);
    let file = format!("{}.eml", subject.text());
    for folder in &folders {
        // A subject with a slash leads on from the folder.
        let path = format!("{}/{file}", folder.display());
        let absent = |_| format!("[Errno 2] No such file or directory: '{file}'");
        bed.write(Path::new(&path), message.as_bytes()).map_err(absent)?;
    }
    Ok(())
}

/// Whether Python's `splitlines` finds an end of line.
fn has_lines(text: &str) -> bool {
    text.contains(['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}', '\0'])
}

struct Mail {
    from: String,
    to: String,
    subject: String,
    body: String,
}

/// A header as Python's default policy shows it: unfolded and decoded; `None` where it is absent.
fn header(message: &Message<'_>, name: &str) -> String {
    let Some(raw) = message.header_raw(name) else { return "None".into() };
    let raw = raw.replace("\r\n", "").replace('\n', "");
    let raw = raw.trim_start_matches([' ', '\t']);
    let text = match raw.contains("=?") {
        true => {
            let line = format!("Subject: {raw}\r\n\r\n");
            let decoded = MessageParser::default().parse(line.as_bytes()).and_then(|m| m.subject().map(str::to_owned));
            decoded.unwrap_or_else(|| raw.to_owned())
        }
        false => raw.to_owned(),
    };
    match (name, text.split_once('@')) {
        // A bare address is shown with quotes where it needs them.
        ("From" | "To", Some((user, host)))
            if user.contains(' ')
                && !text.contains(['<', '>', '"', ',', ';', ':', '(', ')'])
                && !host.contains('@') =>
        {
            format!("\"{}\"@{host}", user.trim())
        }
        _ => text,
    }
}

/// Decoded text of a part, which must name its charset.
fn text_of(message: &Message<'_>, part: &mail_parser::MessagePart<'_>) -> Option<String> {
    let charset = part.content_type()?.attribute("charset")?.to_lowercase();
    let raw = message.raw_message().get(part.raw_body_offset() as usize..part.raw_end_offset() as usize);
    // Python takes ASCII at its word: each byte beyond it is one that cannot be read.
    if let (true, mail_parser::Encoding::None, Some(raw)) = (charset.contains("ascii"), part.encoding, raw) {
        let text: String = raw.iter().map(|b| if b.is_ascii() { char::from(*b) } else { '\u{fffd}' }).collect();
        return Some(text.replace("\r\n", "\n"));
    }
    Some(part.text_contents()?.replace("\r\n", "\n"))
}

fn parse(bytes: &[u8]) -> Option<Mail> {
    let message = MessageParser::default().parse(bytes)?;
    let root = message.parts.first()?;
    let body = match root.sub_parts() {
        None => text_of(&message, root)?,
        Some(ids) => {
            let mut texts = Vec::new();
            for part in ids.iter().filter_map(|id| message.parts.get(*id as usize)) {
                let kind = part.content_type().map(|t| (t.ctype().to_lowercase(), t.subtype().map(str::to_lowercase)));
                if matches!(&kind, Some((main, Some(sub))) if main == "text" && (sub == "plain" || sub == "html")) {
                    texts.push(text_of(&message, part)?);
                }
            }
            texts.join("\n")
        }
    };
    Some(Mail {
        from: header(&message, "From"),
        to: header(&message, "To"),
        subject: header(&message, "Subject"),
        body,
    })
}

/// What counts of a message, as a text.
pub(crate) fn shown(bytes: &[u8]) -> Option<String> {
    let mail = parse(bytes)?;
    Some(format!("From: {}\nTo: {}\nSubject: {}\n\n{}", mail.from, mail.to, mail.subject, mail.body))
}

/// Every mail of a folder, bodies cut to `body` characters where given.
fn listing(bed: &Testbed, folder: &Path, body: Option<usize>) -> Option<String> {
    let mut out = String::new();
    for name in bed.list(folder).into_iter().filter(|n| n.ends_with(".eml") && !n.starts_with('.')) {
        let mail = parse(&bed.read(&folder.join(&name)).ok()?)?;
        let text = match body {
            Some(length) => mail.body.chars().take(length).chain("...".chars()).collect(),
            None => mail.body,
        };
        out += &format!(
            "Email ID: {name}\nFrom: {}\nTo: {}\nSubject: {}\nContent: {text}\n{}\n",
            mail.from,
            mail.to,
            mail.subject,
            "-".repeat(50)
        );
    }
    Some(out)
}

/// The user's folder, made if it is not there. The first `None`: it cannot be made, over which upstream's tool crashes.
fn made(bed: &Testbed, user: &str) -> Option<Option<PathBuf>> {
    let Some(folder) = folder(user) else { return Some(None) };
    bed.make_parent(&folder.join("x")).ok()?;
    Some(Some(folder))
}

/// `list_emails(username)`; `None` if upstream's tool crashes.
pub(crate) fn list(bed: &Testbed, user: &str) -> Option<String> {
    let Some(folder) = made(bed, user)? else { return Some(format!("Failed to list emails for {user}.")) };
    Some(match listing(bed, &folder, Some(20)) {
        Some(text) if text.is_empty() => format!("No emails found for {user}."),
        Some(text) => format!("Successfully list emails for {user}:\n{text}"),
        None => format!("Failed to list emails for {user}."),
    })
}

/// `read_email(username, email_id)`, `None` where there is nothing to read; the outer one if upstream's tool crashes.
pub(crate) fn read(bed: &Testbed, user: &str, id: &str) -> Option<Option<String>> {
    let name = file_name(id);
    let bytes = made(bed, user)?.and_then(|folder| bed.read(&folder.join(name)).ok());
    Some(bytes.and_then(|bytes| parse(&bytes)).map(|m| {
        format!(
            "Successfully read email {id} for {user}:\nFrom: {}\nTo: {}\nSubject: {}\nContent: {}...",
            m.from, m.to, m.subject, m.body
        )
    }))
}

/// A message's file.
pub(crate) fn file_name(id: &str) -> String {
    if id.ends_with(".eml") { id.to_owned() } else { format!("{id}.eml") }
}

/// What a check looks at: the full listing of the account that `user` names.
pub(crate) fn account(bed: &Testbed, user: &str) -> String {
    let lower = user.to_lowercase();
    let named = [user, lower.as_str()].into_iter().filter_map(folder).find(|f| bed.exists(f));
    let found = named.or_else(|| {
        let accounts = bed.list(Path::new("emails"));
        accounts.iter().find(|a| a.to_lowercase().contains(&lower)).map(|a| PathBuf::from("emails").join(a))
    });
    match found.map(|f| listing(bed, &f, None)) {
        None => String::new(),
        Some(None) => "Error: [email] Failed to list emails.".into(),
        Some(Some(text)) if text.is_empty() => "No emails found.".into(),
        Some(Some(text)) => text,
    }
}
