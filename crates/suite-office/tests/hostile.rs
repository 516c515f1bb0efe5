//! Hostile replies, paths and documents: an episode answers them, and the host stays as it was.
#![allow(missing_docs, clippy::print_stderr)]

use proptest::prelude::*;
use rolegraft_suite_office::Mode;
use rolegraft_suite_office::recorded::Session;
use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zip::write::SimpleFileOptions;

const FOLDER: &str = "./local_workdir/tasks/2-1";
const SECRET: &str = "the host's secret";

fn session(mode: Mode) -> Session {
    Session::new(Path::new("/nonexistent"), FOLDER, "", true, mode).unwrap()
}

fn say(session: &mut Session, action: &Value) -> String {
    session.step(&format!("<think> a </think>\n<answer> {action} </answer>")).0.unwrap_or_default()
}

fn open(session: &mut Session, app: &str) {
    say(session, &json!({"app": "system", "action": "switch_app", "target_app": app}));
}

/// A path in the testbed, as a model writes it.
fn inside(name: &str) -> String {
    format!("{FOLDER}/testbed/{name}")
}

fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A workbook whose sheet is the given XML.
fn workbook(sheet: &[u8]) -> Vec<u8> {
    zipped(&[
        (
            "xl/workbook.xml",
            br#"<workbook xmlns:r="r"><sheets><sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>"#,
        ),
        (
            "xl/_rels/workbook.xml.rels",
            br#"<Relationships><Relationship Id="rId1" Type="http://x/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#,
        ),
        ("xl/worksheets/sheet1.xml", sheet),
    ])
}

fn document(xml: &[u8]) -> Vec<u8> {
    zipped(&[("word/document.xml", xml)])
}

#[test]
fn replies_of_any_kind_are_answered_in_time() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let cell = |text: &str| {
        format!(
            r#"{{"app": "excel", "action": "set_cell", "file_path": "a", "row_idx": 1, "column_idx": 1, "text": {text}}}"#
        )
    };
    let payloads = [
        cell(&deep(900)),
        cell(&deep(100_000)),
        cell("NaN"),
        cell("\"\\ud800\""),
        cell("\"\\u202e\\u001b]0;x\\u0007</script>=cmd()\""),
        cell(&format!("\"{}\"", "(".repeat(1 << 20))),
        cell(&format!("\"{}\"", "a".repeat(10 << 20))),
        cell(&format!("\"{}\"", "`$(".repeat(50_000))),
        cell(&format!("\"{}\"", "1+".repeat(50_000))),
        format!(r#"{{"app": "excel", "app": "word", "action": {}}}"#, deep(100)),
        r#"{"app": {"app": 1}, "action": ["a", "b"]}"#.to_owned(),
        "null".to_owned(),
        "{".repeat(100_000),
        "<think>".repeat(100_000),
        "\u{feff}{}".to_owned(),
        "\u{1b}[2J\u{202e}".to_owned(),
    ];
    for mode in Mode::ALL {
        let mut session = session(mode);
        open(&mut session, "excel");
        for payload in &payloads {
            for reply in
                [payload.clone(), format!("<answer>{payload}</answer>"), format!("<think></think><answer>{payload}")]
            {
                let begun = Instant::now();
                session.step(&reply);
                assert!(begun.elapsed() < Duration::from_secs(20), "{}…", reply.chars().take(60).collect::<String>());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn actions_of_any_kind_are_answered(
        app in prop::sample::select(vec!["excel", "word", "calendar", "email", "calculator", "system", "scratchpad", "x"]),
        action in prop::sample::select(vec![
            "read_file", "set_cell", "delete_cell", "create_new_file", "write_to_file", "create_event", "delete_event",
            "list_events", "send_email", "list_emails", "read_email", "calculate", "switch_app", "finish_task", "got_stuck", "x.y",
        ]),
        values in prop::collection::vec(prop_oneof![
            any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from),
            Just(Value::Null), Just(json!([])), Just(json!({"a": [1]})), Just(json!("2020-05-01 10:00:00")),
            prop::collection::vec(prop::sample::select(vec!["'", "\"", "$", "`", "\\", " ", "a", "(", ")", "--", ";", "\n", "é", "1", ",", "*", "/", ".."]), 0..12)
                .prop_map(|parts| parts.concat().into()),
        ], 6),
    ) {
        let names = ["file_path", "user", "username", "summary", "time_start", "time_end", "sender", "recipient", "subject",
            "content", "contents", "email_id", "text", "row_idx", "column_idx", "expression", "target_app", "answer"];
        let mut payload = json!({"app": app, "action": action});
        for (i, name) in names.iter().enumerate() {
            payload[*name] = values[i % values.len()].clone();
        }
        for mode in Mode::ALL {
            let mut session = session(mode);
            open(&mut session, app);
            say(&mut session, &payload);
        }
    }
    #[test]
    fn documents_of_any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..600) {
        let mut session = session(Mode::Sane);
        let sheet = workbook(br#"<worksheet><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c></row></sheetData></worksheet>"#);
        let mut broken = sheet.clone();
        broken.truncate(cut.min(sheet.len()));
        for (i, byte) in bytes.iter().enumerate() {
            let at = i * 7919 % sheet.len();
            if let Some(b) = broken.get_mut(at).filter(|_| i < 5) {
                *b ^= byte;
            }
        }
        let bed = session.folder().unwrap().to_owned();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        fs::create_dir_all(bed.join("emails/Bob")).unwrap();
        for (name, content) in [
            ("data/a.xlsx", &broken), ("data/b.xlsx", &bytes), ("data/a.docx", &bytes), ("emails/Bob/a.eml", &bytes),
            ("calendar/Bob.ics", &format!("BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY;{text}\r\nDTSTART:{text}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n").into_bytes()),
        ] {
            fs::write(bed.join(name), content).unwrap();
        }
        for (app, action) in [
            ("excel", json!({"action": "read_file", "file_path": inside("data/a.xlsx")})),
            ("excel", json!({"action": "read_file", "file_path": inside("data/b.xlsx")})),
            ("excel", json!({"action": "set_cell", "file_path": inside("data/a.xlsx"), "row_idx": 1, "column_idx": 2, "text": "x"})),
            ("word", json!({"action": "read_file", "file_path": inside("data/a.docx")})),
            ("word", json!({"action": "write_to_file", "file_path": inside("data/a.docx"), "contents": "x"})),
            ("email", json!({"action": "list_emails", "username": "Bob"})),
            ("email", json!({"action": "read_email", "username": "Bob", "email_id": "a"})),
            ("calendar", json!({"action": "list_events", "username": "Bob"})),
        ] {
            let mut action = action;
            action["app"] = app.into();
            open(&mut session, app);
            prop_assert!(!say(&mut session, &action).is_empty());
        }
    }
}

/// What the paths of this file must never reach, beside the testbed.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("secret.docx"),
            document(
                format!("<w:document><w:body><w:p><w:r><w:t>{SECRET}</w:t></w:r></w:p></w:body></w:document>")
                    .as_bytes(),
            ),
        )
        .unwrap();
        fs::write(
            folder.path().join("secret.ics"),
            format!("BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:{SECRET}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"),
        )
        .unwrap();
        Self { folder }
    }
    fn state(&self) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|e| {
                let path = e.unwrap().path();
                (path.display().to_string(), fs::read(&path).unwrap_or_default())
            })
            .collect();
        all.sort();
        all
    }
}

#[test]
fn no_path_leads_out_of_the_testbed() {
    let host = Host::new();
    let before = host.state();
    let outside = host.folder.path().display().to_string();
    for mode in Mode::ALL {
        let mut session = session(mode);
        let bed = session.folder().unwrap().to_owned();
        // As an earlier shell command could have left them.
        std::os::unix::fs::symlink(host.folder.path(), bed.join("data/out")).unwrap();
        std::os::unix::fs::symlink(host.folder.path().join("secret.docx"), bed.join("data/link.docx")).unwrap();
        std::os::unix::fs::symlink(host.folder.path().join("new.xlsx"), bed.join("data/dangling.xlsx")).unwrap();
        std::os::unix::fs::symlink(&outside, bed.join("emails/Eve")).unwrap();
        fs::remove_dir(bed.join("calendar")).unwrap();
        std::os::unix::fs::symlink(&outside, bed.join("calendar")).unwrap();
        let up = "../".repeat(12);
        let relative = outside.trim_start_matches('/');
        let paths = [
            format!("{outside}/secret.docx"),
            inside(&format!("{up}{relative}/secret.docx")),
            inside("data/out/secret.docx"),
            inside("data/out/../out/secret.docx"),
            inside("data/link.docx"),
            inside("data/dangling.xlsx"),
            inside("data/\0/secret.docx"),
            inside(&format!("data/{}", "a".repeat(4096))),
            inside(&format!("{}a", "a/".repeat(2048))),
            inside("data/\u{ff0e}\u{ff0e}/\u{ff0e}\u{ff0e}/secret.docx"),
            inside("data/\u{2024}\u{2024}/x"),
            inside("DATA/../../../secret.docx"),
            "/proc/self/environ".to_owned(),
            "/dev/stdin".to_owned(),
            "~/secret.docx".to_owned(),
        ];
        for path in &paths {
            for (app, action) in [
                ("word", json!({"action": "read_file", "file_path": path})),
                ("word", json!({"action": "create_new_file", "file_path": path})),
                ("word", json!({"action": "write_to_file", "file_path": path, "contents": "x"})),
                ("excel", json!({"action": "read_file", "file_path": path})),
                ("excel", json!({"action": "create_new_file", "file_path": path})),
                ("excel", json!({"action": "set_cell", "file_path": path, "row_idx": 1, "column_idx": 1, "text": "x"})),
            ] {
                let mut action = action;
                action["app"] = app.into();
                open(&mut session, app);
                let said = say(&mut session, &action);
                assert!(!said.contains(SECRET), "{action}: {said}");
            }
        }
        for user in ["Eve", "../../Eve", "/etc", "secret", "..", ".", "a/../../b", "Eve/../../x", "\0"] {
            for (app, action) in [
                ("calendar", json!({"action": "list_events", "username": user})),
                (
                    "calendar",
                    json!({"action": "create_event", "user": user, "summary": "s", "time_start": "2020-05-01 10:00:00", "time_end": "2020-05-01 11:00:00"}),
                ),
                ("calendar", json!({"action": "delete_event", "user": user, "summary": SECRET})),
                ("email", json!({"action": "list_emails", "username": user})),
                ("email", json!({"action": "read_email", "username": user, "email_id": "../secret"})),
                (
                    "email",
                    json!({"action": "send_email", "sender": user, "recipient": "Eve", "subject": "../x", "content": "c"}),
                ),
                (
                    "email",
                    json!({"action": "send_email", "sender": "Eve", "recipient": user, "subject": "s", "content": "c"}),
                ),
            ] {
                let mut action = action;
                action["app"] = app.into();
                open(&mut session, app);
                let said = say(&mut session, &action);
                assert!(!said.contains(&format!("Summary: {SECRET}")), "{action}: {said}");
            }
        }
        assert_eq!(host.state(), before);
    }
}

#[test]
fn a_folder_swapped_for_a_link_meanwhile_leads_nowhere() {
    let host = Host::new();
    let before = host.state();
    let mut session = session(Mode::Official);
    let bed = session.folder().unwrap().to_owned();
    fs::create_dir(bed.join("data/d")).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = fs::rename(bed.join("data/d"), bed.join("data/kept"));
                let _ = std::os::unix::fs::symlink(host.folder.path(), bed.join("data/d"));
                let _ = fs::remove_file(bed.join("data/d"));
                let _ = fs::rename(bed.join("data/kept"), bed.join("data/d"));
            }
        });
        open(&mut session, "word");
        for i in 0..400 {
            let path = inside(if i % 2 == 0 { "data/d/secret.docx" } else { "data/d/new.docx" });
            for action in ["create_new_file", "write_to_file", "read_file"] {
                let said = say(
                    &mut session,
                    &json!({"app": "word", "action": action, "file_path": path, "contents": format!("x{i}")}),
                );
                assert!(!said.contains(SECRET), "{said}");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(host.state(), before);
}

#[test]
fn bombs_are_refused_in_words_and_cost_little() {
    let zeros = vec![b' '; 65 << 20];
    let entities = br#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><worksheet><sheetData><row r="1"><c r="A1"><v>&b;</v></c></row></sheetData></worksheet>"#;
    let far = br#"<worksheet><sheetData><row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>"#;
    let deep = format!(
        "<worksheet><sheetData>{}{}</sheetData></worksheet>",
        "<row>".repeat(100_000),
        "</row>".repeat(100_000)
    );
    let wide = format!("<worksheet><sheetData>{}</sheetData></worksheet>", "<row/>".repeat(2_000_000));
    let many: Vec<(String, Vec<u8>)> = (0..3_000).map(|i| (format!("{i}.xml"), Vec::new())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    let inner = workbook(&zeros);
    let mut encrypted = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    encrypted.extend(vec![0; 4096]);
    for (what, bytes, refused) in [
        ("bomb", workbook(&zeros), "unpacks to more than 64 MiB"),
        ("entities", workbook(entities), "declares a document type"),
        ("far", workbook(far), "1048576 rows and 16384 columns"),
        ("deep", workbook(deep.as_bytes()), "nested too deeply"),
        ("wide", workbook(wide.as_bytes()), "too many parts"),
        ("many", zipped(&many), "3000 members"),
        ("outside", zipped(&[("../x.xml", b"")]), "leaves it"),
        ("nested", zipped(&[("xl/workbook.xml", &inner)]), ""),
        ("encrypted", encrypted, ""),
        ("empty", Vec::new(), ""),
        ("twice", duplicated(), ""),
    ] {
        for mode in Mode::ALL {
            let mut session = session(mode);
            let bed = session.folder().unwrap().to_owned();
            fs::write(bed.join("data/a.xlsx"), &bytes).unwrap();
            fs::write(bed.join("data/a.docx"), &bytes).unwrap();
            open(&mut session, "excel");
            let path = inside("data/a.xlsx");
            let begun = Instant::now();
            let said = say(&mut session, &json!({"app": "excel", "action": "read_file", "file_path": path}));
            if refused.is_empty() {
                // A damaged file is read by nobody: officially the tool crashes without a word.
                assert_eq!(said.is_empty(), mode == Mode::Official, "{what}: {said}");
            } else {
                assert!(
                    said.starts_with("Error: [excel] read_file failed: refused: ") && said.contains(refused),
                    "{what}: {said}"
                );
            }
            let set = json!({"app": "excel", "action": "set_cell", "file_path": path, "row_idx": 1, "column_idx": 1, "text": "x"});
            let said = say(&mut session, &set);
            assert!(said.starts_with(if what == "far" { "Successfully" } else { "Failed" }), "{what}: {said}");
            open(&mut session, "word");
            say(&mut session, &json!({"app": "word", "action": "read_file", "file_path": inside("data/a.docx")}));
            say(
                &mut session,
                &json!({"app": "word", "action": "write_to_file", "file_path": inside("data/a.docx"), "contents": "x"}),
            );
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        }
    }
}

/// A workbook that holds its sheet twice.
fn duplicated() -> Vec<u8> {
    let mut bytes = zipped(&[("xl/workbook.xml", b"<a/>"), ("xl/workbook.xmm", b"<b/>")]);
    let at: Vec<usize> = (0..bytes.len() - 15).filter(|i| &bytes[*i..*i + 15] == b"xl/workbook.xmm").collect();
    for i in at {
        bytes[i + 14] = b'l';
    }
    bytes
}
