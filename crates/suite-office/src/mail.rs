//! The mail app: `emails/NAME/SUBJECT.eml`.

use crate::files::Testbed;
use crate::literal::Object;
use mail_builder::MessageBuilder;
use mail_parser::{Message, MessageParser, MimeHeaders};
use std::path::{Path, PathBuf};

/// A user's folder. A name that would lead elsewhere has none.
fn folder(user: &str) -> Option<PathBuf> {
    let path = Path::new(user);
    let inside = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    (inside && !user.contains('\0')).then(|| Path::new("emails").join(path))
}

/// `send_email(sender, recipient, subject, content)`: writes the message into both folders, under its subject. `None` if
/// upstream's tool crashes.
pub(crate) fn send(bed: &Testbed, arguments: &[Object]) -> Option<String> {
    let [sender, recipient, subject, content, ..] = arguments else { return None };
    let shown = recipient.text();
    if shown == "Multiple recipients" {
        return Some(format!("[email] Failed to send email to {shown}. Only support one recipient."));
    }
    // `'@' in name` fails on what cannot hold anything.
    for name in [sender, recipient] {
        if !matches!(name, Object::Str(_) | Object::Tuple(_) | Object::List(_) | Object::Set(_) | Object::Dict(_)) {
            return None;
        }
    }
    let write = || -> Option<()> {
        let (Object::Str(sender), Object::Str(recipient), Object::Str(content)) = (sender, recipient, content) else {
            return None;
        };
        let subject = match subject {
            Object::Str(subject) => Some(subject.as_str()),
            Object::None => None,
            _ => return None,
        };
        let file = format!("{}.eml", subject.unwrap_or("None"));
        let name = |user: &'_ str| user.split('@').next().unwrap_or_default().to_owned();
        let (sender, recipient) = (name(sender), name(recipient));
        let folders = [folder(&sender)?, folder(&recipient)?];
        for folder in &folders {
            bed.make_parent(&folder.join("x")).ok()?;
        }
        if file.contains(['/', '\n', '\r', '\0']) {
            return None;
        }
        let mut message = MessageBuilder::new()
            .from(format!("{sender}@example.com"))
            .to(format!("{recipient}@example.com"))
            .date(0i64)
            .message_id("0@example.com")
            .text_body(format!("{}\n", content.strip_suffix('\n').unwrap_or(content)));
        if let Some(subject) = subject {
            message = message.subject(subject);
        }
        let message = message.write_to_vec().ok()?;
        for folder in folders {
            bed.write(&folder.join(&file), &message).ok()?;
        }
        Some(())
    };
    Some(match write() {
        Some(()) => format!("Successfully sent email to {shown}."),
        None => format!("[email] Failed to send email to {shown}."),
    })
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
    if name == "Subject" {
        return message.subject().unwrap_or_default().to_owned();
    }
    raw.replace("\r\n", "").replace('\n', "").trim().to_owned()
}

/// Decoded text of a part, which must name its charset.
fn text_of(part: &mail_parser::MessagePart<'_>) -> Option<String> {
    part.content_type()?.attribute("charset")?;
    Some(part.text_contents()?.replace("\r\n", "\n"))
}

fn parse(bytes: &[u8]) -> Option<Mail> {
    let message = MessageParser::default().parse(bytes)?;
    let root = message.parts.first()?;
    let body = match root.sub_parts() {
        None => text_of(root)?,
        Some(ids) => {
            let mut texts = Vec::new();
            for part in ids.iter().filter_map(|id| message.parts.get(*id as usize)) {
                let kind = part.content_type().map(|t| (t.ctype().to_lowercase(), t.subtype().map(str::to_lowercase)));
                if matches!(&kind, Some((main, Some(sub))) if main == "text" && (sub == "plain" || sub == "html")) {
                    texts.push(text_of(part)?);
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

pub(crate) fn list(bed: &Testbed, user: &str) -> String {
    let Some(folder) = folder(user) else { return format!("Failed to list emails for {user}.") };
    let _ = bed.make_parent(&folder.join("x"));
    match listing(bed, &folder, Some(20)) {
        Some(text) if text.is_empty() => format!("No emails found for {user}."),
        Some(text) => format!("Successfully list emails for {user}:\n{text}"),
        None => format!("Failed to list emails for {user}."),
    }
}

pub(crate) fn read(bed: &Testbed, user: &str, id: &str) -> String {
    let name = if id.ends_with(".eml") { id.to_owned() } else { format!("{id}.eml") };
    let folder = folder(user);
    if let Some(folder) = &folder {
        let _ = bed.make_parent(&folder.join("x"));
    }
    match folder.and_then(|f| bed.read(&f.join(name)).ok()).and_then(|b| parse(&b)) {
        Some(m) => format!(
            "Successfully read email {id} for {user}:\nFrom: {}\nTo: {}\nSubject: {}\nContent: {}...",
            m.from, m.to, m.subject, m.body
        ),
        None => format!("Failed to read email {id} for {user}."),
    }
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
