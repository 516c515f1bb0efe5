//! The mail app: `emails/NAME/SUBJECT.eml`.

use crate::files::Testbed;
use mail_builder::MessageBuilder;
use mail_parser::MessageParser;
use std::path::{Path, PathBuf};

fn folder(user: &str) -> PathBuf {
    let name = user.split('@').next().unwrap_or_default();
    PathBuf::from("emails").join(if name.is_empty() { "_".into() } else { name.replace(['/', '\0'], "_") })
}

fn address(user: &str) -> String {
    format!("{}@example.com", user.split('@').next().unwrap_or_default())
}

/// Writes the message into both folders, under its subject.
pub(crate) fn send(bed: &Testbed, sender: &str, recipient: &str, subject: &str, content: &str) -> String {
    let write = || -> std::io::Result<()> {
        if subject.contains(['/', '\n', '\0']) {
            return Err(std::io::Error::other("a subject is a file name"));
        }
        let (from, to) = (address(sender), address(recipient));
        let message = MessageBuilder::new()
            .from(from.as_str())
            .to(to.as_str())
            .subject(subject)
            .date(0i64)
            .message_id("0@example.com")
            .text_body(format!("{content}\n"))
            .write_to_vec()?;
        for user in [sender, recipient] {
            let path = folder(user).join(format!("{subject}.eml"));
            bed.make_parent(&path)?;
            bed.write(&path, &message)?;
        }
        Ok(())
    };
    match write() {
        Ok(()) => format!("Successfully sent email to {recipient}."),
        Err(_) => format!("[email] Failed to send email to {recipient}."),
    }
}

struct Mail {
    from: String,
    to: String,
    subject: String,
    body: String,
}

fn parse(bytes: &[u8]) -> Option<Mail> {
    let message = MessageParser::default().parse(bytes)?;
    let first = |a: Option<&mail_parser::Address<'_>>| {
        a.and_then(|a| a.first()).and_then(|a| a.address()).map_or("None".into(), str::to_owned)
    };
    Some(Mail {
        from: first(message.from()),
        to: first(message.to()),
        subject: message.subject().unwrap_or("None").to_owned(),
        body: message.body_text(0).unwrap_or_default().replace("\r\n", "\n"),
    })
}

/// Every mail of a folder, bodies cut to `body` characters where given.
fn listing(bed: &Testbed, folder: &Path, body: Option<usize>) -> Option<String> {
    let mut out = String::new();
    for name in bed.list(folder) {
        let mail = parse(&bed.read(&folder.join(&name)).ok()?)?;
        let text: String = mail.body.chars().take(body.unwrap_or(usize::MAX)).collect();
        out += &format!(
            "Email ID: {name}\nFrom: {}\nTo: {}\nSubject: {}\nContent: {text}...\n{}\n",
            mail.from,
            mail.to,
            mail.subject,
            "-".repeat(50)
        );
    }
    Some(out)
}

pub(crate) fn list(bed: &Testbed, user: &str) -> String {
    let folder = folder(user);
    let _ = bed.make_parent(&folder.join("x"));
    match listing(bed, &folder, Some(20)) {
        Some(text) if text.is_empty() => format!("No emails found for {user}."),
        Some(text) => format!("Successfully list emails for {user}:\n{}", text.trim()),
        None => format!("Failed to list emails for {user}."),
    }
}

pub(crate) fn read(bed: &Testbed, user: &str, id: &str) -> String {
    let name = if id.ends_with(".eml") { id.to_owned() } else { format!("{id}.eml") };
    match bed.read(&folder(user).join(name)).ok().and_then(|b| parse(&b)) {
        Some(m) => format!(
            "Successfully read email {id} for {user}:\nFrom: {}\nTo: {}\nSubject: {}\nContent: {}...",
            m.from, m.to, m.subject, m.body
        ),
        None => format!("Failed to read email {id} for {user}."),
    }
}

/// What a check looks at: the full listing of the account that `user` names.
pub(crate) fn account(bed: &Testbed, user: &str) -> String {
    let exact = folder(user);
    let accounts = bed.list(Path::new("emails"));
    let lower = user.to_lowercase();
    let found = if bed.exists(&exact) {
        Some(exact)
    } else {
        accounts.iter().find(|a| a.to_lowercase().contains(&lower)).map(|a| PathBuf::from("emails").join(a))
    };
    match found.map(|f| listing(bed, &f, None)) {
        None => String::new(),
        Some(None) => "Error: [email] Failed to list emails.".into(),
        Some(Some(text)) if text.is_empty() => "No emails found.".into(),
        Some(Some(text)) => text,
    }
}
