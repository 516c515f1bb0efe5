//! The calendar app: `calendar/USER.ics`.

use crate::files::Testbed;
use icalendar::{Calendar, CalendarComponent, Component};
use std::path::PathBuf;

const HEAD: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//My Calendar Product//mxm.dk//\r\n";
const TAIL: &str = "END:VCALENDAR\r\n";

fn path(user: &str) -> PathBuf {
    PathBuf::from("calendar").join(format!("{}.ics", user.replace(['/', '\0'], "_")))
}

/// `2024-05-17 14:00:00` (one-digit fields allowed) as `20240517T140000`.
fn stamp(time: &str) -> Option<String> {
    let (date, clock) = time.split_once(' ')?;
    let numbers =
        |text: &str, by: char| -> Option<Vec<u32>> { text.trim_start().split(by).map(|n| n.parse().ok()).collect() };
    let (date, clock) = (numbers(date, '-')?, numbers(clock, ':')?);
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), clock.as_slice()) else { return None };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    let fine = (1..=9999).contains(year) && (1..=days).contains(day) && *hour < 24 && *minute < 60 && *second < 62;
    fine.then(|| format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}"))
}

/// RFC 5545: text escaped, lines folded at 75 octets.
fn line(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace(';', "\\;").replace(',', "\\,").replace('\n', "\\n");
    let mut out = String::new();
    let mut width = 0;
    for c in format!("{name}:{value}").chars() {
        if width + c.len_utf8() > 75 {
            out.push_str("\r\n ");
            width = 1;
        }
        width += c.len_utf8();
        out.push(c);
    }
    out + "\r\n"
}

/// Appends an event; `now` is the task's clock, so that the same episode writes the same bytes.
pub(crate) fn create_event(bed: &Testbed, user: &str, summary: &str, start: &str, end: &str, now: &str) -> String {
    let write = || -> Option<()> {
        bed.make_parent(&path(user)).ok()?;
        let (start, end) = (stamp(start)?, stamp(end)?);
        let file = path(user);
        let old = match bed.exists(&file) {
            true => String::from_utf8(bed.read(&file).ok()?).ok()?,
            false => format!("{HEAD}{TAIL}"),
        };
        let at = old.rfind("END:VCALENDAR")?;
        let event = [
            "BEGIN:VEVENT\r\n".to_owned(),
            line("SUMMARY", summary),
            format!("DTSTART:{start}\r\nDTEND:{end}\r\nDTSTAMP:{now}\r\n"),
            "DESCRIPTION:This is a test event\r\nLOCATION:Online\r\nEND:VEVENT\r\n".to_owned(),
        ]
        .concat();
        bed.write(&file, format!("{}{event}{}", &old[..at], &old[at..]).as_bytes()).ok()
    };
    match write() {
        Some(()) => format!("Successfully create a new event to {user}'s calendar."),
        None => format!("Failed to create a new event to {user}'s calendar."),
    }
}

/// Lists events in file order; an absent calendar is created, as upstream does.
pub(crate) fn list_events(bed: &Testbed, user: &str) -> Option<String> {
    let file = path(user);
    if !bed.exists(&file) {
        // Without its folder upstream crashes.
        bed.write(&file, format!("{HEAD}{TAIL}").as_bytes()).ok()?;
        return Some(format!("No events found for {user}."));
    }
    let text = bed.read(&file).ok().and_then(|b| String::from_utf8(b).ok());
    let Some(calendar) = text.and_then(|t| t.parse::<Calendar>().ok()) else {
        return Some(format!("Error: [calendar] Failed to list events for {user}."));
    };
    let mut out = String::new();
    for component in &calendar.components {
        let CalendarComponent::Event(event) = component else { continue };
        let text = |name: &str| {
            event.property_value(name).unwrap_or("None").replace("\\n", "\n").replace("\\,", ",").replace("\\;", ";")
        };
        let time = |name: &str| {
            let raw: String = event.property_value(name).unwrap_or("None").trim_end_matches('Z').to_owned();
            let digits: Vec<char> = raw.chars().filter(char::is_ascii_digit).collect();
            let part = |a: usize, b: usize| digits[a..b].iter().collect::<String>();
            match digits.len() {
                14 => format!(
                    "{}-{}-{} {}:{}:{}",
                    part(0, 4),
                    part(4, 6),
                    part(6, 8),
                    part(8, 10),
                    part(10, 12),
                    part(12, 14)
                ),
                8 => format!("{}-{}-{} 00:00:00", part(0, 4), part(4, 6), part(6, 8)),
                _ => raw,
            }
        };
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
    if out.is_empty() {
        return Some(format!("No events found for {user}."));
    }
    Some(format!("Successfully list events for {user}:\n{}", out.trim()))
}

/// Whether events, sorted by start, end before the next begins. Floating times count as UTC.
///
/// # Errors
/// Where upstream's check raises: a component without times, or with a date only.
pub(crate) fn no_overlap(text: &str) -> Result<bool, String> {
    let calendar = text.parse::<Calendar>()?;
    let mut events = Vec::new();
    for component in &calendar.components {
        let CalendarComponent::Event(event) = component else {
            return Err("a component that is no event has no start".into());
        };
        let time = |name: &str| -> Result<String, String> {
            let raw = event.property_value(name).ok_or_else(|| format!("an event without {name}"))?;
            let time = raw.trim_end_matches('Z');
            if time.contains('T') { Ok(time.to_owned()) } else { Err(format!("an event whose {name} is a date")) }
        };
        events.push((time("DTSTART")?, time("DTEND")));
    }
    events.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in events.windows(2) {
        if pair[0].1.clone()? > pair[1].0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_and_listed() {
        let bed = Testbed::new("").unwrap();
        assert_eq!(list_events(&bed, "Bob").unwrap(), "No events found for Bob.");
        let done = create_event(&bed, "Bob", "a, b", "2024-05-17 14:00:00", "2024-5-17 15:00:00", "20240501T000000Z");
        assert_eq!(done, "Successfully create a new event to Bob's calendar.");
        let listed = list_events(&bed, "Bob").unwrap();
        assert!(
            listed.contains("Summary: a, b\nStart Time: 2024-05-17 14:00:00\nEnd Time: 2024-05-17 15:00:00"),
            "{listed}"
        );
        for bad in ["2024-02-30 10:00:00", "tomorrow", "2024-05-17", "2024-05-17 25:00:00"] {
            assert!(create_event(&bed, "Bob", "x", bad, bad, "").starts_with("Failed"), "{bad}");
        }
    }
}
