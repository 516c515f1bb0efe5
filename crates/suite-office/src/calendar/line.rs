//! Content lines as icalendar 6.1.0 takes them apart, types their values and writes them again.

use chrono::NaiveDate;
use chrono_tz::Tz;
use rolegraft_python::{Object, float, int};

/// Longest chunk of a folded line, in bytes.
const FOLD: usize = 74;

/// A property of a component.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Property {
    pub(super) name: String,
    /// Its parameters in order, each after a semicolon.
    pub(super) parameters: String,
    /// Its value as a file holds it.
    pub(super) value: String,
    /// Its value as upstream shows it, if it can.
    pub(super) shown: Option<String>,
}

impl Property {
    pub(super) fn text(name: &str, text: &str) -> Self {
        Self { name: name.into(), value: escaped(text), shown: Some(text.into()), ..Self::default() }
    }

    /// The properties that adding a Python value to a component makes: a list makes one of each of its items.
    pub(super) fn of(name: &str, value: &Object) -> Vec<Self> {
        let text = |value: &Object| match value {
            Object::Bytes(bytes) => Self::text(name, &String::from_utf8_lossy(bytes)),
            other => Self::text(name, &other.text()),
        };
        match value {
            Object::List(items) => items.iter().map(text).collect(),
            other => vec![text(other)],
        }
    }
}

/// Takes folds out and splits into lines; a lone carriage return ends none.
pub(super) fn lines(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let end = |text: &str| if text.starts_with("\r\n") { 2 } else { usize::from(text.starts_with('\n')) };
    while let Some(c) = rest.chars().next() {
        if end(rest) == 0 {
            line.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        while end(rest) > 0 {
            rest = &rest[end(rest)..];
        }
        match rest.strip_prefix([' ', '\t']) {
            Some(more) => rest = more,
            None => lines.push(std::mem::take(&mut line)),
        }
    }
    lines.push(line);
    lines.retain(|line| !line.is_empty());
    lines
}

/// A line's name, parameters and value.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) parameters: Vec<(String, Vec<String>)>,
    pub(super) value: String,
}

/// Takes a line apart; `None` where icalendar cannot.
pub(super) fn parts(line: &str) -> Option<Parts> {
    let line = line.replace("\\,", "%2C").replace("\\:", "%3A").replace("\\;", "%3B").replace("\\\\", "%5C");
    let (mut quoted, mut name_end, mut value_start) = (false, 0, 0);
    for (i, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ':' | ';' if !quoted => {
                name_end = if name_end == 0 { i } else { name_end };
                value_start = if c == ':' && value_start == 0 { i } else { value_start };
            }
            _ => {}
        }
    }
    let value_start = if value_start == 0 { line.len() } else { value_start };
    let name = plain(&line[..name_end]);
    if !is_token(&name) || name_end + 1 == value_start {
        return None;
    }
    let head = line.get(name_end + 1..value_start).unwrap_or_default();
    let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
    for parameter in unquoted_split(head, ';') {
        let (key, values) = parameter_of(parameter)?;
        parameters.retain(|(known, _)| *known != key);
        parameters.push((key, values));
    }
    parameters.sort();
    Some(Parts { name, parameters, value: plain(line.get(value_start + 1..).unwrap_or_default()) })
}

fn plain(text: &str) -> String {
    text.replace("%2C", ",").replace("%3A", ":").replace("%3B", ";").replace("%5C", "\\")
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Splits outside quotes; nothing has no pieces.
fn unquoted_split(text: &str, by: char) -> Vec<&str> {
    let (mut pieces, mut start, mut quoted) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        quoted ^= c == '"';
        if c == by && !quoted {
            pieces.push(&text[start..i]);
            start = i + c.len_utf8();
        }
    }
    if !text.is_empty() {
        pieces.push(&text[start..]);
    }
    pieces
}

fn parameter_of(text: &str) -> Option<(String, Vec<String>)> {
    let key = *unquoted_split(text, '=').first()?;
    let value = text.get(key.len() + 1..)?;
    if !is_token(key) {
        return None;
    }
    let mut values = Vec::new();
    for value in unquoted_split(value, ',') {
        let quoted = value.starts_with('"') && value.ends_with('"');
        let value = if quoted { value.trim_matches('"') } else { value };
        let more: &[char] = if quoted { &[] } else { &[',', ':', ';'] };
        if value.contains(|c: char| (c.is_ascii_control() && c != '\t') || c == '"' || more.contains(&c)) {
            return None;
        }
        values.push(plain(value));
    }
    Some((plain(key).to_uppercase(), values))
}

/// Parameters as a file holds them, each after a semicolon.
fn written(parameters: &[(String, Vec<String>)]) -> String {
    let quoted = |value: &String| {
        let value = value.replace('"', "'");
        if value.contains([',', ';', ':', ' ', '’', '\'']) { format!("\"{value}\"") } else { value }
    };
    let one = |(key, values): &(String, Vec<String>)| {
        format!(";{key}={}", values.iter().map(quoted).collect::<Vec<_>>().join(","))
    };
    parameters.iter().map(one).collect()
}

/// A property as its name's type reads and writes its value; `None` if it is not of that type.
pub(super) fn typed(parts: &Parts) -> Option<Property> {
    let name = parts.name.to_uppercase();
    let value = parts.value.as_str();
    let zone = parts.parameters.iter().find(|(key, _)| key == "TZID").and_then(|(_, values)| values.first());
    let (written_value, shown) = match name.as_str() {
        "DTSTART" | "DTEND" | "RECURRENCE-ID" | "DUE" => time(value, zone.map(String::as_str))?,
        "COMPLETED" | "DURATION" | "TRIGGER" | "ACKNOWLEDGED" | "CREATED" | "DTSTAMP" | "LAST-MODIFIED" => {
            time(value, None)?
        }
        "EXDATE" | "RDATE" => {
            let times: Option<Vec<_>> = value.split(',').map(|one| time(one, zone.map(String::as_str))).collect();
            (times?.into_iter().map(|(value, _)| value).collect::<Vec<_>>().join(","), None)
        }
        "PERCENT-COMPLETE" | "PRIORITY" | "REPEAT" | "SEQUENCE" => (int(value)?.to_string(), None),
        "CATEGORIES" => (unescaped(value).split(',').map(escaped).collect::<Vec<_>>().join(","), None),
        "GEO" => {
            let (latitude, longitude) = value.split_once(';')?;
            let number = |text: &str| float(text).map(|f| Object::Float(f).text());
            (format!("{};{}", number(latitude)?, number(longitude)?), None)
        }
        "TZOFFSETFROM" | "TZOFFSETTO" => (offset(value)?, None),
        "RRULE" | "EXRULE" => (rule(value), None),
        "ATTACH" | "TZURL" | "URL" | "ATTENDEE" | "ORGANIZER" | "FREEBUSY" | "ALTREP" | "DIR" | "MEMBER"
        | "DELEGATED-FROM" | "DELEGATED-TO" | "SENT-BY" => (value.to_owned(), None),
        _ => {
            let text = unescaped(value);
            (escaped(&text), Some(text))
        }
    };
    Some(Property { name, parameters: written(&parts.parameters), value: written_value, shown })
}

pub(super) fn escaped(text: &str) -> String {
    text.replace("\\N", "\n")
        .replace('\\', "\\\\")
        .replace(';', "\\;")
        .replace(',', "\\,")
        .replace("\r\n", "\\n")
        .replace('\n', "\\n")
}

fn unescaped(text: &str) -> String {
    text.replace("\\N", "\\n")
        .replace("\r\n", "\n")
        .replace("\\n", "\n")
        .replace("\\,", ",")
        .replace("\\;", ";")
        .replace("\\\\", "\\")
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A time, date, time of day, duration or period: as it is written, and as Python's `strftime` shows it.
fn time(value: &str, zone: Option<&str>) -> Option<(String, Option<String>)> {
    let upper = value.to_uppercase();
    if ["P", "-P", "+P"].iter().any(|sign| upper.starts_with(sign)) {
        return duration(value).map(|value| (value, None));
    }
    if upper.contains('/') {
        let (start, end) = value.split_once('/')?;
        return Some((format!("{}/{}", time(start, zone)?.0, time(end, zone)?.0), None));
    }
    if !value.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| digits(&value[from..to]);
    let date = || {
        let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
        let valid = year > 0 && NaiveDate::from_ymd_opt(year as i32, month, day).is_some();
        valid.then(|| (value[..8].to_owned(), format!("{year}-{month:02}-{day:02}")))
    };
    let clock = |at: usize| {
        let (hour, minute, second) = (part(at, at + 2)?, part(at + 2, at + 4)?, part(at + 4, at + 6)?);
        let valid = hour < 24 && minute < 60 && second < 60;
        valid.then(|| (value[at..at + 6].to_owned(), format!("{hour:02}:{minute:02}:{second:02}")))
    };
    match value.len() {
        15 | 16 => {
            let (date, clock) = (date()?, clock(9)?);
            let known = zone.filter(|zone| zone.parse::<Tz>().is_ok());
            let end = match (known, &value[15..]) {
                (Some("UTC"), _) | (None, "Z") => "Z",
                (Some(_), _) | (None, "") => "",
                _ => return None,
            };
            Some((format!("{}T{}{end}", date.0, clock.0), Some(format!("{} {}", date.1, clock.1))))
        }
        8 => date().map(|(value, shown)| (value, Some(format!("{shown} 00:00:00")))),
        6 | 7 => clock(0).map(|(value, shown)| (value, Some(format!("1900-01-01 {shown}")))),
        _ => None,
    }
}

/// `P1DT2H` in icalendar's own spelling.
fn duration(value: &str) -> Option<String> {
    let negative = value.starts_with('-');
    let mut rest = value.strip_prefix(['-', '+']).unwrap_or(value).strip_prefix('P')?;
    let mut seconds = 0_u64;
    for (unit, length) in [('W', 604_800), ('D', 86_400), ('T', 0), ('H', 3600), ('M', 60), ('S', 1)] {
        if unit == 'T' {
            match rest.strip_prefix('T') {
                Some(clock) => rest = clock,
                None => break,
            }
        } else if let Some((number, after)) = rest.split_once(unit)
            && !number.is_empty()
            && let Some(number) = digits(number)
        {
            seconds += u64::from(number) * length;
            rest = after;
        }
    }
    if !rest.is_empty() {
        return None;
    }
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, left) = (clock / 3600, clock % 3600 / 60, clock % 60);
    let mut out = String::from(if negative && seconds > 0 { "-P" } else { "P" });
    if days > 0 || clock == 0 {
        out += &format!("{days}D");
    }
    if clock > 0 {
        out.push('T');
    }
    if hours > 0 {
        out += &format!("{hours}H");
    }
    if minutes > 0 || (hours > 0 && left > 0) {
        out += &format!("{minutes}M");
    }
    if left > 0 {
        out += &format!("{left}S");
    }
    Some(out)
}

/// `+0130`.
fn offset(value: &str) -> Option<String> {
    let part = |from: usize, to: usize| value.get(from..to.min(value.len())).and_then(digits);
    let (hours, minutes) = (part(1, 3)?, part(3, 5)?);
    let seconds = if value.len() > 5 { part(5, 7)? } else { 0 };
    let whole = hours * 3600 + minutes * 60 + seconds;
    let sign = if value.starts_with('-') && whole > 0 { '-' } else { '+' };
    let last = if seconds > 0 { format!("{:02}", whole % 60) } else { String::new() };
    (whole < 86_400).then(|| format!("{sign}{:02}{:02}{last}", whole / 3600, whole % 3600 / 60))
}

/// A recurrence rule with its parts in icalendar's order.
fn rule(value: &str) -> String {
    const ORDER: [&str; 17] = [
        "RSCALE",
        "FREQ",
        "UNTIL",
        "COUNT",
        "INTERVAL",
        "BYSECOND",
        "BYMINUTE",
        "BYHOUR",
        "BYDAY",
        "BYWEEKDAY",
        "BYMONTHDAY",
        "BYYEARDAY",
        "BYWEEKNO",
        "BYMONTH",
        "BYSETPOS",
        "WKST",
        "SKIP",
    ];
    let mut pairs: Vec<(String, &str)> = Vec::new();
    for (key, value) in value.split(';').filter_map(|pair| pair.split_once('=')).filter(|(_, v)| !v.contains('=')) {
        let key = key.to_uppercase();
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, value));
    }
    let rank = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    pairs.sort_by(|a, b| (rank(&a.0), &a.0).cmp(&(rank(&b.0), &b.0)));
    let one = |(key, value): &(String, &str)| match key.as_str() {
        "FREQ" | "BYDAY" | "BYWEEKDAY" | "WKST" => format!("{key}={}", value.to_uppercase()),
        _ => format!("{key}={value}"),
    };
    pairs.iter().map(one).collect::<Vec<_>>().join(";")
}

/// Adds a line, folded as icalendar folds.
pub(super) fn fold(line: &str, out: &mut String) {
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
