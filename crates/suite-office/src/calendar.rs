//! The calendar app: `calendar/USER.ics`, read and written as icalendar 6.1.0 does.

use crate::files::Testbed;
use chrono::{NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use std::path::{Path, PathBuf};

/// Longest chunk of a folded line, in bytes.
const FOLD: usize = 74;
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
    /// Name, parameters and value of each property, in the file's order.
    properties: Vec<(String, String, String)>,
    components: Vec<Component>,
}

impl Component {
    /// Parses a file: its first component.
    fn parse(text: &str) -> Option<Self> {
        let unfolded = text.replace("\r\n", "\n").replace('\r', "\n").replace("\n ", "").replace("\n\t", "");
        let mut open: Vec<Self> = Vec::new();
        for line in unfolded.split('\n').filter(|l| !l.is_empty()) {
            let (name, parameters, value) = property(line)?;
            match name.as_str() {
                "BEGIN" if open.len() < MAX_DEPTH => {
                    open.push(Self { name: value.to_uppercase(), ..Self::default() });
                }
                "END" => {
                    let done = open.pop()?;
                    match open.last_mut() {
                        Some(parent) => parent.components.push(done),
                        None => return Some(done),
                    }
                }
                _ => open.last_mut()?.properties.push((name, parameters, value)),
            }
        }
        None
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(n, ..)| n == name).map(|(.., v)| v.as_str())
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
        fold(&format!("BEGIN:{}", self.name), out);
        let rank = |name: &str| first.iter().position(|f| *f == name).unwrap_or(first.len());
        let mut properties: Vec<_> = self.properties.iter().collect();
        properties.sort_by(|a, b| (rank(&a.0), &a.0).cmp(&(rank(&b.0), &b.0)));
        for (name, parameters, value) in properties {
            fold(&format!("{name}{parameters}:{value}"), out);
        }
        self.components.iter().for_each(|c| c.write(out));
        fold(&format!("END:{}", self.name), out);
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

/// A content line's name, parameters (sorted, semicolons included) and value.
fn property(line: &str) -> Option<(String, String, String)> {
    let (mut quoted, mut split) = (false, None);
    for (i, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ':' if !quoted => {
                split = Some(i);
                break;
            }
            _ => {}
        }
    }
    let (head, value) = (&line[..split?], &line[split? + 1..]);
    let mut parts = head.split(';');
    let name = parts.next()?.to_uppercase();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return None;
    }
    let mut parameters: Vec<String> = parts.map(str::to_owned).collect();
    parameters.sort();
    Some((name, parameters.iter().map(|p| format!(";{p}")).collect(), value.to_owned()))
}

/// Adds a line, folded as icalendar folds.
fn fold(line: &str, out: &mut String) {
    let mut width = 0;
    for c in line.chars() {
        if width + c.len_utf8() > FOLD {
            out.push_str("\r\n ");
            width = 0;
        }
        width += c.len_utf8();
        out.push(c);
    }
    out.push_str("\r\n");
}

fn escaped(text: &str) -> String {
    text.replace("\\N", "\n")
        .replace('\\', "\\\\")
        .replace(';', "\\;")
        .replace(',', "\\,")
        .replace("\r\n", "\\n")
        .replace('\n', "\\n")
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n' | 'N')) => {
                chars.next();
                out.push('\n');
            }
            ('\\', Some(next @ (',' | ';' | '\\'))) => {
                chars.next();
                out.push(next);
            }
            _ => out.push(c),
        }
    }
    out
}

fn empty() -> Component {
    let property = |name: &str, value: &str| (name.to_owned(), String::new(), value.to_owned());
    Component {
        name: "VCALENDAR".into(),
        properties: vec![property("PRODID", "-//My Calendar Product//mxm.dk//"), property("VERSION", "2.0")],
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
pub(crate) fn create_event(bed: &Testbed, user: &str, summary: &str, start: &str, end: &str, now: &str) -> String {
    let write = || -> Option<()> {
        let file = path(user)?;
        bed.make_parent(&file).ok()?;
        let mut calendar = if bed.exists(&file) {
            Component::parse(&String::from_utf8(bed.read(&file).ok()?).ok()?)?
        } else {
            empty()
        };
        let property = |name: &str, value: String| (name.to_owned(), String::new(), value);
        calendar.components.push(Component {
            name: "VEVENT".into(),
            properties: vec![
                property("SUMMARY", escaped(summary)),
                property("DTSTART", stamp(start)?),
                property("DTEND", stamp(end)?),
                property("DTSTAMP", now.to_owned()),
                property("DESCRIPTION", "This is a test event".into()),
                property("LOCATION", "Online".into()),
            ],
            components: Vec::new(),
        });
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
        let mut calendar = Component::parse(&String::from_utf8(bed.read(&file).ok()?).ok()?)?;
        let before = calendar.components.len();
        let named = |c: &Component| c.name == "VEVENT" && c.value("SUMMARY").map(unescaped).as_deref() == Some(summary);
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
    let text = bed.read(&file).ok().and_then(|b| String::from_utf8(b).ok());
    let Some(calendar) = text.and_then(|t| Component::parse(&t)) else {
        return Some(format!("Error: [calendar] Failed to list events for {user}."));
    };
    let mut out = String::new();
    for event in calendar.events() {
        let text = |name: &str| event.value(name).map_or("None".into(), unescaped);
        let time = |name: &str| event.value(name).map_or("None".into(), shown_time);
        out += &format!(
            "Summary: {}\nStart Time: {}\nEnd Time: {}\nDescription: {}\nLocation: {}\n{}\n",
            text("SUMMARY"),
            time("DTSTART"),
            time("DTEND"),
            text("DESCRIPTION"),
            text("LOCATION"),
            "-".repeat(50),
        );
    }
    Some(match out.trim() {
        "" => format!("No events found for {user}."),
        listed => format!("Successfully list events for {user}:\n{listed}"),
    })
}

/// `20240517T140000Z` as `2024-05-17 14:00:00`, its zone dropped; a date at midnight.
fn shown_time(value: &str) -> String {
    let digits: Vec<char> = value.chars().filter(char::is_ascii_digit).collect();
    let part = |from: usize, to: usize| digits[from..to].iter().collect::<String>();
    match digits.len() {
        14 => {
            let (date, time) = ([part(0, 4), part(4, 6), part(6, 8)], [part(8, 10), part(10, 12), part(12, 14)]);
            format!("{} {}", date.join("-"), time.join(":"))
        }
        8 => format!("{}-{}-{} 00:00:00", part(0, 4), part(4, 6), part(6, 8)),
        _ => value.to_owned(),
    }
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
            let (_, parameters, value) = component
                .properties
                .iter()
                .find(|(n, ..)| n == name)
                .ok_or_else(|| format!("a component without {name}"))?;
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
        let done = create_event(&bed, "Bob", "a, b", "2024-05-17 14:00:00", "2024-5-17  15:00:00", "20240501T000000Z");
        assert_eq!(done, "Successfully create a new event to Bob's calendar.");
        let listed = list_events(&bed, "Bob").unwrap();
        assert!(
            listed.contains("Summary: a, b\nStart Time: 2024-05-17 14:00:00\nEnd Time: 2024-05-17 15:00:00"),
            "{listed}"
        );
        for bad in ["2024-02-30 10:00:00", "tomorrow", "2024-05-17", "2024-05-17 25:00:00", "24-05-17 10:00:00"] {
            assert!(create_event(&bed, "Bob", "x", bad, bad, "").starts_with("Failed"), "{bad}");
        }
        assert!(
            create_event(&bed, "../Bob", "x", "2024-05-17 14:00:00", "2024-05-17 14:00:00", "").starts_with("Failed")
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
}
