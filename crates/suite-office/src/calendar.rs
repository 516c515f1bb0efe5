//! The calendar app: `calendar/USER.ics`, read and written as icalendar 6.1.0 does.

mod line;

use crate::files::Testbed;
use chrono::{NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use line::{Parts, Property, escaped, fold, lines, parts, typed};
use rolegraft_python::{Object, strip};
use std::path::{Path, PathBuf};

/// Components that may nest.
const MAX_DEPTH: usize = 20;

fn path(user: &str) -> Option<PathBuf> {
    let inside = Path::new(user).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    (inside && !user.contains('\0')).then(|| Path::new("calendar").join(format!("{user}.ics")))
}

/// A component: `VCALENDAR`, `VEVENT`, …
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Component {
    name: String,
    /// In the file's order.
    properties: Vec<Property>,
    components: Vec<Component>,
}

impl Component {
    /// Parses a file, which must hold one component. An event does without the lines that are wrong.
    fn parse(text: &str) -> Option<Self> {
        let (mut open, mut done): (Vec<Self>, Vec<Self>) = (Vec::new(), Vec::new());
        for line in lines(text) {
            let lenient = open.last().is_some_and(|component| component.name == "VEVENT");
            let Some(parts) = parts(&line) else {
                if lenient {
                    continue;
                }
                return None;
            };
            let Parts { name, value, .. } = &parts;
            match (name.to_uppercase().as_str(), open.last_mut()) {
                ("BEGIN", _) => {
                    if open.len() == MAX_DEPTH {
                        return None;
                    }
                    open.push(Self { name: value.to_uppercase(), ..Self::default() });
                }
                ("END", _) => {
                    let component = open.pop()?;
                    open.last_mut().map_or(&mut done, |parent| &mut parent.components).push(component);
                }
                ("X-COMMENT", None) => break,
                (_, None) => return None,
                (_, Some(component)) => match typed(&parts) {
                    Some(property) => component.properties.push(property),
                    None if lenient => {}
                    None => return None,
                },
            }
        }
        if done.len() == 1 { done.pop() } else { None }
    }

    fn all(&self, name: &str) -> Vec<&Property> {
        self.properties.iter().filter(|property| property.name == name).collect()
    }

    /// A text as Python shows it: several are a list of icalendar's texts.
    fn text(&self, name: &str) -> String {
        match self.all(name).as_slice() {
            [] => "None".into(),
            [one] => one.shown.clone().unwrap_or_else(|| one.value.clone()),
            several => {
                let repr = |one: &&Property| format!("vText({})", Object::Bytes(one.value.clone().into_bytes()).repr());
                format!("[{}]", several.iter().map(repr).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// A time as upstream shows it; `None` where it fails, over several or what is no point in time.
    fn time(&self, name: &str) -> Option<String> {
        match self.all(name).as_slice() {
            [] => Some("None".into()),
            [one] => one.shown.clone(),
            _ => None,
        }
    }

    /// Writes it, properties in icalendar's order.
    fn write(&self, out: &mut String) {
        let first: &[&str] = match self.name.as_str() {
            "VCALENDAR" => &["VERSION", "PRODID", "CALSCALE", "METHOD"],
            "VEVENT" => &[
                "SUMMARY",
                "DTSTART",
                "DTEND",
                "DURATION",
                "DTSTAMP",
                "UID",
                "RECURRENCE-ID",
                "SEQUENCE",
                "RRULE",
                "RDATE",
                "EXDATE",
            ],
            "VTIMEZONE" => &["TZID"],
            _ => &[],
        };
        fold(&format!("BEGIN:{}", escaped(&self.name)), out);
        let rank = |name: &str| first.iter().position(|f| *f == name).unwrap_or(first.len());
        let mut properties: Vec<_> = self.properties.iter().collect();
        properties.sort_by(|a, b| (rank(&a.name), &a.name).cmp(&(rank(&b.name), &b.name)));
        for Property { name, parameters, value, .. } in properties {
            fold(&format!("{name}{parameters}:{value}"), out);
        }
        self.components.iter().for_each(|c| c.write(out));
        fold(&format!("END:{}", escaped(&self.name)), out);
    }

    /// Events in it, in the file's order.
    fn events(&self) -> Vec<&Self> {
        let mut found = Vec::new();
        if self.name == "VEVENT" {
            found.push(self);
        }
        found.extend(self.components.iter().flat_map(Self::events));
        found
    }
}

fn empty() -> Component {
    Component {
        name: "VCALENDAR".into(),
        properties: vec![
            Property::text("PRODID", "-//My Calendar Product//mxm.dk//"),
            Property::text("VERSION", "2.0"),
        ],
        components: Vec::new(),
    }
}

fn save(bed: &Testbed, file: &Path, calendar: &Component) -> Option<()> {
    let mut out = String::new();
    calendar.write(&mut out);
    bed.write(file, out.as_bytes()).ok()
}

/// `2024-05-17 14:00:00`, as Python's `strptime` reads it, as `20240517T140000`.
fn stamp(time: &str) -> Option<String> {
    let (date, clock) = time.split_once(|c: char| c.is_whitespace())?;
    let numbers = |text: &str, by: char, most: &[usize]| -> Option<Vec<u32>> {
        let parts: Vec<&str> = text.split(by).collect();
        let fits = parts.len() == most.len()
            && parts
                .iter()
                .zip(most)
                .all(|(p, m)| (1..=*m).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()));
        fits.then(|| parts.iter().filter_map(|p| p.parse().ok()).collect())
    };
    if date.split('-').next()?.len() != 4 {
        return None;
    }
    let (date, clock) = (numbers(date, '-', &[4, 2, 2])?, numbers(clock.trim_start(), ':', &[2, 2, 2])?);
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), clock.as_slice()) else { return None };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    let fine = (1..=9999).contains(year) && (1..=days).contains(day) && *hour < 24 && *minute < 60 && *second < 60;
    fine.then(|| format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}"))
}

/// Appends an event; `now` is the task's clock, so that the same episode writes the same bytes.
pub(crate) fn create_event(bed: &Testbed, user: &str, summary: &Object, start: &str, end: &str, now: &str) -> String {
    let write = || -> Option<()> {
        let file = path(user)?;
        bed.make_parent(&file).ok()?;
        let mut calendar = if bed.exists(&file) {
            Component::parse(&String::from_utf8_lossy(&bed.read(&file).ok()?))?
        } else {
            empty()
        };
        let mut properties = Property::of("SUMMARY", summary);
        properties.extend([
            Property::text("DTSTART", &stamp(start)?),
            Property::text("DTEND", &stamp(end)?),
            Property::text("DTSTAMP", now),
            Property::text("DESCRIPTION", "This is a test event"),
            Property::text("LOCATION", "Online"),
        ]);
        calendar.components.push(Component { name: "VEVENT".into(), properties, components: Vec::new() });
        save(bed, &file, &calendar)
    };
    match write() {
        Some(()) => format!("Successfully create a new event to {user}'s calendar."),
        None => format!("Failed to create a new event to {user}'s calendar."),
    }
}

/// Deletes the events of a name, which upstream means to do and never does.
pub(crate) fn delete_event(bed: &Testbed, user: &str, summary: &str) -> String {
    let delete = || -> Option<()> {
        let file = path(user)?;
        let mut calendar = Component::parse(&String::from_utf8_lossy(&bed.read(&file).ok()?))?;
        let before = calendar.components.len();
        let named = |c: &Component| c.name == "VEVENT" && c.text("SUMMARY") == summary;
        calendar.components.retain(|component| !named(component));
        if calendar.components.len() == before {
            return None;
        }
        save(bed, &file, &calendar)
    };
    match delete() {
        Some(()) => format!("Successfully delete an event named {summary} from {user}'s calendar."),
        None => format!("Failed to delete an event named {summary} from {user}'s calendar."),
    }
}

/// Lists events in file order; an absent calendar is created, as upstream does. `None`: upstream crashes.
pub(crate) fn list_events(bed: &Testbed, user: &str) -> Option<String> {
    let file = path(user)?;
    if !bed.exists(&file) {
        save(bed, &file, &empty())?;
        return Some(format!("No events found for {user}."));
    }
    let text = bed.read(&file).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let calendar = text.and_then(|text| Component::parse(&text));
    let Some(listed) = calendar.and_then(|calendar| calendar.events().into_iter().map(shown).collect()) else {
        return Some(format!("Error: [calendar] Failed to list events for {user}."));
    };
    let listed: String = listed;
    Some(match strip(&listed) {
        "" => format!("No events found for {user}."),
        listed => format!("Successfully list events for {user}:\n{listed}"),
    })
}

/// What a listing says of an event.
fn shown(event: &Component) -> Option<String> {
    Some(format!(
        "Summary: {}\nStart Time: {}\nEnd Time: {}\nDescription: {}\nLocation: {}\n{}\n",
        event.text("SUMMARY"),
        event.time("DTSTART")?,
        event.time("DTEND")?,
        event.text("DESCRIPTION"),
        event.text("LOCATION"),
        "-".repeat(50),
    ))
}

/// Whether events, sorted by start, end before the next begins. Times count as UTC, whatever their zone.
///
/// # Errors
/// Where upstream's check raises: a component without times, or with a date only.
pub(crate) fn no_overlap(text: &str) -> Result<bool, String> {
    let calendar = Component::parse(text).ok_or("not a calendar")?;
    let mut events = Vec::new();
    for component in &calendar.components {
        let time = |name: &str| -> Result<i64, String> {
            let [Property { parameters, value, .. }] = component.all(name)[..] else {
                return Err(format!("a component without one {name}"));
            };
            instant(parameters, value).ok_or_else(|| format!("a component whose {name} is no point in time"))
        };
        let start = time("DTSTART")?;
        if component.name == "VEVENT" {
            events.push((start, time("DTEND")));
        }
    }
    events.sort_by_key(|event| event.0);
    for pair in events.windows(2) {
        if pair[0].1.clone()? > pair[1].0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A date and time in seconds since 1970; floating times and those of unknown zones as UTC.
fn instant(parameters: &str, value: &str) -> Option<i64> {
    let local = NaiveDateTime::parse_from_str(value.trim_end_matches('Z'), "%Y%m%dT%H%M%S").ok()?;
    let zone = parameters.split(';').find_map(|p| p.strip_prefix("TZID=")).filter(|_| !value.ends_with('Z'));
    let zone = zone.and_then(|name| name.trim_matches('"').parse::<Tz>().ok()).unwrap_or(Tz::UTC);
    // A time that a clock change skips is read as if it had not happened yet.
    let skipped =
        || zone.from_local_datetime(&(local - TimeDelta::hours(1))).earliest().map(|t| t + TimeDelta::hours(1));
    zone.from_local_datetime(&local).earliest().or_else(skipped).map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_and_listed() {
        let bed = Testbed::new("").unwrap();
        assert_eq!(list_events(&bed, "Bob").unwrap(), "No events found for Bob.");
        let done = create_event(
            &bed,
            "Bob",
            &Object::Str("a, b".into()),
            "2024-05-17 14:00:00",
            "2024-5-17  15:00:00",
            "20240501T000000Z",
        );
        assert_eq!(done, "Successfully create a new event to Bob's calendar.");
        let listed = list_events(&bed, "Bob").unwrap();
        assert!(
            listed.contains("Summary: a, b\nStart Time: 2024-05-17 14:00:00\nEnd Time: 2024-05-17 15:00:00"),
            "{listed}"
        );
        let x = Object::Str("x".into());
        for bad in ["2024-02-30 10:00:00", "tomorrow", "2024-05-17", "2024-05-17 25:00:00", "24-05-17 10:00:00"] {
            assert!(create_event(&bed, "Bob", &x, bad, bad, "").starts_with("Failed"), "{bad}");
        }
        assert!(
            create_event(&bed, "../Bob", &x, "2024-05-17 14:00:00", "2024-05-17 14:00:00", "").starts_with("Failed")
        );
    }

    #[test]
    fn events_overlap_by_the_clock_of_their_zone() {
        let event = |start: &str, end: &str| format!("BEGIN:VEVENT\nDTSTART{start}\nDTEND{end}\nEND:VEVENT\n");
        let calendar = |a: &str, b: &str| format!("BEGIN:VCALENDAR\n{a}{b}END:VCALENDAR\n");
        let utc = event(":20240501T103000", ":20240501T120000Z");
        let york = event(";TZID=America/New_York:20240501T100000", ";TZID=America/New_York:20240501T110000");
        assert_eq!(no_overlap(&calendar(&york, &utc)), Ok(true));
        assert_eq!(no_overlap(&calendar(&york.replace("America/New_York", "Nowhere"), &utc)), Ok(false));
        assert!(no_overlap(&calendar(&event(";VALUE=DATE:20240501", ":20240502T000000"), "")).is_err());
    }

    #[test]
    fn files_are_written_in_icalendars_order_and_folds() {
        let text = "BEGIN:VCALENDAR\r\nPRODID:x\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART;X=2;TZID=a:20240101T\r\n \
                    100000\r\nSUMMARY:y\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
        let mut out = String::new();
        Component::parse(text).unwrap().write(&mut out);
        let event = "BEGIN:VEVENT\r\nSUMMARY:y\r\nDTSTART;TZID=a;X=2:20240101T100000\r\nUID:1\r\nEND:VEVENT\r\n";
        assert_eq!(out, format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{event}END:VCALENDAR\r\n"));
        let mut folded = String::new();
        fold(&"a".repeat(150), &mut folded);
        assert_eq!(folded.split("\r\n ").map(|l| l.trim_end().len()).collect::<Vec<_>>(), [74, 74, 2]);
    }

    #[test]
    fn summaries_are_what_icalendar_makes_of_python_values() {
        // Written and listed by icalendar 6.1.0, the words read by python-fire 0.5.0.
        let cases = [
            ("[1, 2]", "SUMMARY:1\r\nSUMMARY:2\r\n", "[vText(b'1'), vText(b'2')]"),
            ("[1]", "SUMMARY:1\r\n", "1"),
            ("[]", "", "None"),
            ("(1, 2)", "SUMMARY:(1\\, 2)\r\n", "(1, 2)"),
            ("()", "SUMMARY:()\r\n", "()"),
            ("{a: 1}", "SUMMARY:{'a': 1}\r\n", "{'a': 1}"),
            ("{}", "SUMMARY:{}\r\n", "{}"),
            ("42", "SUMMARY:42\r\n", "42"),
            ("3.50", "SUMMARY:3.5\r\n", "3.5"),
            ("None", "SUMMARY:None\r\n", "None"),
            ("True", "SUMMARY:True\r\n", "True"),
            ("[[1, 2], 3]", "SUMMARY:[1\\, 2]\r\nSUMMARY:3\r\n", "[vText(b'[1\\\\, 2]'), vText(b'3')]"),
            ("[a, b]", "SUMMARY:a\r\nSUMMARY:b\r\n", "[vText(b'a'), vText(b'b')]"),
            ("['a;b', 'c,d']", "SUMMARY:a\\;b\r\nSUMMARY:c\\,d\r\n", "[vText(b'a\\\\;b'), vText(b'c\\\\,d')]"),
            (
                "[None, True, 1.5]",
                "SUMMARY:None\r\nSUMMARY:True\r\nSUMMARY:1.5\r\n",
                "[vText(b'None'), vText(b'True'), vText(b'1.5')]",
            ),
            ("{1,}", "SUMMARY:{1}\r\n", "{1}"),
            ("...", "SUMMARY:Ellipsis\r\n", "Ellipsis"),
            ("b'x'", "SUMMARY:x\r\n", "x"),
            ("[b'\\xff', 'é']", "SUMMARY:�\r\nSUMMARY:é\r\n", "[vText(b'\\xef\\xbf\\xbd'), vText(b'\\xc3\\xa9')]"),
            ("Meeting", "SUMMARY:Meeting\r\n", "Meeting"),
            ("a, b", "SUMMARY:('a'\\, 'b')\r\n", "('a', 'b')"),
            ("x; y", "SUMMARY:x\\; y\r\n", "x; y"),
            ("back\\\\slash", "SUMMARY:back\\\\\\\\slash\r\n", "back\\slash"),
            ("a\\nb", "SUMMARY:a\\\\nb\r\n", "a\nb"),
            ("a\\Nb", "SUMMARY:a\\nb\r\n", "a\nb"),
            ("line\nbreak", "SUMMARY:line\\nbreak\r\n", "line\nbreak"),
            (
                "[('a', 1), {b: c}]",
                "SUMMARY:('a'\\, 1)\r\nSUMMARY:{'b': 'c'}\r\n",
                "[vText(b\"('a'\\\\, 1)\"), vText(b\"{'b': 'c'}\")]",
            ),
            ("100% sure", "SUMMARY:100% sure\r\n", "100% sure"),
            ("a%2Cb", "SUMMARY:a%2Cb\r\n", "a,b"),
            ("it's", "SUMMARY:it's\r\n", "it's"),
            ("'quoted'", "SUMMARY:quoted\r\n", "quoted"),
            ("a\rb", "SUMMARY:a\rb\r\n", "a\rb"),
            ("a\r", "SUMMARY:a\r\n", "a"),
            ("  x", "SUMMARY:  x\r\n", "  x"),
            ("x  ", "SUMMARY:x\r\n", "x"),
            ("[\"\"]", "SUMMARY:\r\n", ""),
            ("[\"q\\\"q\", 'it']", "SUMMARY:q\"q\r\nSUMMARY:it\r\n", "[vText(b'q\"q'), vText(b'it')]"),
            ("1e3", "SUMMARY:1000.0\r\n", "1000.0"),
            ("0x10", "SUMMARY:16\r\n", "16"),
            ("[a,[b,[c]]]", "SUMMARY:a\r\nSUMMARY:['b'\\, ['c']]\r\n", "[vText(b'a'), vText(b\"['b'\\\\, ['c']]\")]"),
            ("-", "SUMMARY:-\r\n", "-"),
            ("1,234", "SUMMARY:(1\\, 234)\r\n", "(1, 234)"),
            ("[1,2]+[3]", "SUMMARY:[1\\,2]+[3]\r\n", "[1,2]+[3]"),
            ("2024-05-01", "SUMMARY:2024-05-01\r\n", "2024-05-01"),
            ("a\\\\nb", "SUMMARY:a\\\\\\\\nb\r\n", "a\\\nb"),
        ];
        for (word, written, listed) in cases {
            let bed = Testbed::new("").unwrap();
            let summary = rolegraft_python::read(word).unwrap();
            create_event(&bed, "U", &summary, "2024-05-01 10:00:00", "2024-05-01 11:00:00", "20240101T000000Z");
            let file = String::from_utf8(bed.read(Path::new("calendar/U.ics")).unwrap()).unwrap();
            assert!(file.contains(&format!("BEGIN:VEVENT\r\n{written}DTSTART:20240501T100000\r\n")), "{word}: {file}");
            let shown = list_events(&bed, "U").unwrap();
            assert!(shown.contains(&format!("Summary: {listed}\nStart Time: 2024")), "{word}: {shown}");
        }
    }

    #[test]
    fn values_are_rewritten_by_their_types() {
        let (read, expected) = (
            "BEGIN:VCALENDAR\r\nPRODID:x\r\nBEGIN:VEVENT\r\nSUMMARY:a\\\\nb\r\nSUMMARY:%2C\r\nDTEND:bad\r\nDTSTART:20240501T100000Z\r\nCATEGORIES:a,b\\,c\r\nSEQUENCE:01\r\nDURATION:PT90M\r\nRRULE:COUNT=3;FREQ=weekly\r\nX-FOO;B=2;A=\"x y\":z,w\r\nbadline\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
            "BEGIN:VCALENDAR\r\nPRODID:x\r\nBEGIN:VEVENT\r\nSUMMARY:a\\nb\r\nSUMMARY:\\,\r\nDTSTART:20240501T100000Z\r\nDURATION:PT1H30M\r\nSEQUENCE:1\r\nRRULE:FREQ=WEEKLY;COUNT=3\r\nCATEGORIES:a,b,c\r\nX-FOO;A=\"x y\";B=2:z\\,w\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        );
        let mut out = String::new();
        Component::parse(read).unwrap().write(&mut out);
        assert_eq!(out, expected);
        // Several starts have no time to show.
        let twice = read.replace("DTEND:bad", "DTSTART:20240501");
        assert_eq!(shown(Component::parse(&twice).unwrap().events()[0]), None);
        assert!(Component::parse(&read.replace("PRODID:x", "x")).is_none());
    }
}
