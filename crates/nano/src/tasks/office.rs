//! OfficeBench tasks: calendar, mail, and a spreadsheet looked up for a mail. Short, because every copied token is a
//! chance to err; and with what is copied in quotes, because a word after a blank and a word after a quote are
//! different tokens.

use super::draft::{Draft, dumps};
use crate::words::Entities;
use serde_json::{Value, json};

fn reply(thought: &str, action: &Value) -> String {
    format!("<think> {thought} </think> <answer> {} </answer>", dumps(action))
}

fn switch(app: &str) -> (String, Option<String>) {
    (
        reply(&format!("I open {app}."), &json!({"app": "system", "action": "switch_app", "target_app": app})),
        Some(format!("Successfully switched to app: {app}")),
    )
}

fn finish() -> (String, Option<String>) {
    (reply("Done.", &json!({"app": "system", "action": "finish_task", "answer": "None"})), None)
}

fn send(sender: &str, recipient: &str, subject: &str, content: &str) -> (String, Option<String>) {
    let action = json!({"app": "email", "action": "send_email", "sender": sender, "recipient": recipient,
                        "subject": subject, "content": content});
    (reply("I send it.", &action), Some(format!("Successfully sent email to {recipient}.")))
}

fn fields(user: &str, request: &str, files: Value, evaluation: Value) -> Value {
    json!({"username": user, "date": "2024-05-01", "weekday": "Wednesday", "time": "10:00 AM", "task": request,
           "files": files, "evaluation": evaluation})
}

fn mail_check(recipient: &str, keywords: &[&str]) -> Value {
    json!([{"function": "evaluate_contain",
            "args": {"doc_type": "email", "username": recipient, "keywords": keywords}}])
}

pub(super) fn task(e: &mut Entities<'_>) -> Draft {
    match e.rng.below(3) {
        0 => event(e),
        1 => mail(e),
        _ => score_by_mail(e),
    }
}

fn event(e: &mut Entities<'_>) -> Draft {
    let (user, summary) = (e.name(), e.word());
    let (day, hour) = (10 + e.rng.below(20), 10 + e.rng.below(9));
    let (start, end) = (format!("2024-05-{day} {hour}:00:00"), format!("2024-05-{day} {}:00:00", hour + 1));
    let request = match e.rng.below(2) {
        0 => format!("Add \"{summary}\" for \"{user}\" from {start} to {end}."),
        _ => format!("\"{user}\" has \"{summary}\" from {start} to {end}. Put it in the calendar."),
    };
    let stamp = |h: usize| format!("202405{day}T{h}0000");
    let evaluation = json!([{"function": "evaluate_contain", "args": {
        "doc_type": "ics", "file": format!("calendar/{user}.ics"),
        "keywords": [format!("SUMMARY:{summary}"), format!("DTSTART:{}", stamp(hour)), format!("DTEND:{}", stamp(hour + 1))]}}]);
    let action = json!({"app": "calendar", "action": "create_event", "user": user, "summary": summary,
                        "time_start": start, "time_end": end});
    let done = format!("Successfully create a new event to {user}'s calendar.");
    Draft {
        fields: fields(&user, &request, json!({}), evaluation),
        request,
        turns: vec![switch("calendar"), (reply("I add the event.", &action), Some(done)), finish()],
    }
}

fn mail(e: &mut Entities<'_>) -> Draft {
    let (sender, recipient, subject, content) = (e.name(), e.name(), e.word(), e.word());
    let request = match e.rng.below(2) {
        0 => format!("Mail from \"{sender}\" to \"{recipient}\", subject \"{subject}\": \"{content}\""),
        _ => format!("\"{sender}\" writes \"{recipient}\" a mail about \"{subject}\": \"{content}\""),
    };
    let subject_line = format!("Subject: {subject}");
    Draft {
        fields: fields(&sender, &request, json!({}), mail_check(&recipient, &[&subject_line, &content])),
        request,
        turns: vec![switch("email"), send(&sender, &recipient, &subject, &content), finish()],
    }
}

fn score_by_mail(e: &mut Entities<'_>) -> Draft {
    let (sender, recipient, file) = (e.name(), e.name(), format!("data/{}.xlsx", e.word()));
    let rows: Vec<(String, u32)> = (0..2).map(|_| (e.word(), e.number(2).parse().unwrap_or_default())).collect();
    let (who, score) = rows[e.rng.below(rows.len())].clone();
    // A bare number would reach the mail app as a number, which it refuses (see the suite's argument rules).
    let content = format!("{score} points");
    let request = match e.rng.below(2) {
        0 => format!("From \"{sender}\": mail \"{recipient}\" the score of {who} in {file}, subject \"score\"."),
        _ => format!("\"{sender}\" mails \"{recipient}\" what {who} scored, see {file}, subject \"score\"."),
    };
    let mut table = vec![json!(["name", "score"])];
    let mut text = "(1, 1): name\t(1, 2): score\t\n".to_string();
    for (i, (name, value)) in rows.iter().enumerate() {
        table.push(json!([name, value]));
        text += &format!("({r}, 1): {name}\t({r}, 2): {value}\t\n", r = i + 2);
    }
    let read = json!({"app": "excel", "action": "read_file", "file_path": file});
    Draft {
        fields: fields(
            &sender,
            &request,
            json!({&file: {"xlsx": table}}),
            mail_check(&recipient, &["Subject: score", &content]),
        ),
        request,
        turns: vec![
            switch("excel"),
            (
                reply("I read the file.", &read),
                Some(format!("The following is the table from the excel file:\n{}", text.trim_end())),
            ),
            switch("email"),
            send(&sender, &recipient, "score", &content),
            finish(),
        ],
    }
}
