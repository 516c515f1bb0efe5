//! Results as mysql-connector-python 8.0.33 and Python's `str` show them.

use mysql::consts::{ColumnFlags, ColumnType};
use mysql::{Column, Value};
use rolegraft_python::{Object, str_repr};
use rolegraft_spans::python_json::float_repr;

/// The character set of bytes that are no text.
const BINARY: u16 = 63;

/// A value of the text protocol as Python's `repr` of what the connector makes of it.
pub(crate) fn cell(value: &Value, column: &Column) -> String {
    use ColumnType as T;
    let bytes = match value {
        Value::NULL => return "None".into(),
        Value::Bytes(bytes) => bytes,
        other => return other.as_sql(true),
    };
    let text = String::from_utf8_lossy(bytes);
    match column.column_type() {
        T::MYSQL_TYPE_TINY
        | T::MYSQL_TYPE_SHORT
        | T::MYSQL_TYPE_LONG
        | T::MYSQL_TYPE_LONGLONG
        | T::MYSQL_TYPE_INT24
        | T::MYSQL_TYPE_YEAR => text.trim_start_matches('0').parse::<u64>().map_or_else(
            |_| if text.bytes().all(|b| b == b'0') { "0".into() } else { text.clone().into_owned() },
            |i| i.to_string(),
        ),
        T::MYSQL_TYPE_FLOAT | T::MYSQL_TYPE_DOUBLE => float_repr(text.parse().unwrap_or(f64::NAN)),
        T::MYSQL_TYPE_DECIMAL | T::MYSQL_TYPE_NEWDECIMAL => format!("Decimal('{text}')"),
        T::MYSQL_TYPE_DATE | T::MYSQL_TYPE_NEWDATE => date(&text).unwrap_or_else(|| "None".into()),
        T::MYSQL_TYPE_DATETIME | T::MYSQL_TYPE_TIMESTAMP | T::MYSQL_TYPE_DATETIME2 | T::MYSQL_TYPE_TIMESTAMP2 => {
            moment(&text).unwrap_or_else(|| "None".into())
        }
        T::MYSQL_TYPE_TIME | T::MYSQL_TYPE_TIME2 => span(&text).unwrap_or_else(|| "None".into()),
        T::MYSQL_TYPE_BIT => bytes.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b)).to_string(),
        T::MYSQL_TYPE_SET => {
            let items = text.split(',').filter(|t| !t.is_empty()).map(|t| Object::Str(t.to_owned())).collect();
            Object::Set(items).repr()
        }
        T::MYSQL_TYPE_JSON => str_repr(&text),
        kind => {
            let binary = column.character_set() == BINARY;
            let blob = matches!(
                kind,
                T::MYSQL_TYPE_BLOB | T::MYSQL_TYPE_TINY_BLOB | T::MYSQL_TYPE_MEDIUM_BLOB | T::MYSQL_TYPE_LONG_BLOB
            );
            match (binary, blob) {
                (false, _) => str_repr(&text),
                (true, true) => Object::Bytes(bytes.clone()).repr(),
                (true, false) if column.flags().contains(ColumnFlags::BINARY_FLAG) => {
                    format!("bytearray({})", Object::Bytes(bytes.clone()).repr())
                }
                (true, false) => str_repr(&text),
            }
        }
    }
}

/// A row as a tuple.
pub(crate) fn row(cells: &[String]) -> String {
    match cells {
        [one] => format!("({one},)"),
        cells => format!("({})", cells.join(", ")),
    }
}

fn date(text: &str) -> Option<String> {
    let [year, month, day] = parts(text, '-')?;
    (month > 0 && day > 0).then(|| format!("datetime.date({year}, {month}, {day})"))
}

fn moment(text: &str) -> Option<String> {
    let (day, time) = text.split_once(' ')?;
    let [year, month, day] = parts(day, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = parts(time, ':')?;
    if month == 0 || day == 0 {
        return None;
    }
    let micros = micros(fraction);
    let tail = match (second, micros) {
        (0, 0) => String::new(),
        (second, 0) => format!(", {second}"),
        (second, micros) => format!(", {second}, {micros}"),
    };
    Some(format!("datetime.datetime({year}, {month}, {day}, {hour}, {minute}{tail})"))
}

/// A time as the timedelta that Python keeps: days below zero, the rest above.
fn span(text: &str) -> Option<String> {
    let (bare, sign) = text.strip_prefix('-').map_or((text, 1), |bare| (bare, -1));
    let (time, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    let [hours, minutes, seconds] = parts(time, ':')?;
    let total = sign * ((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros(fraction));
    let (days, rest) = (total.div_euclid(86_400_000_000), total.rem_euclid(86_400_000_000));
    let shown: Vec<String> = [("days", days), ("seconds", rest / 1_000_000), ("microseconds", rest % 1_000_000)]
        .iter()
        .filter(|(_, n)| *n != 0)
        .map(|(name, n)| format!("{name}={n}"))
        .collect();
    Some(format!("datetime.timedelta({})", if shown.is_empty() { "0".into() } else { shown.join(", ") }))
}

fn parts(text: &str, by: char) -> Option<[i64; 3]> {
    let numbers: Option<Vec<i64>> = text.split(by).map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn micros(fraction: &str) -> i64 {
    format!("{fraction:0<6}").get(..6).and_then(|six| six.parse().ok()).unwrap_or(0)
}
