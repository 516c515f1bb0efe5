//! The excel app: the active sheet of an xlsx file.

use crate::files::Testbed;
use crate::guard;
use serde_json::Value;
use std::fmt::Write;
use std::io::Cursor;
use std::path::Path;
use umya_spreadsheet::{Spreadsheet, new_file, reader, writer};

/// Cells shown at most: a cell in the last row of a sheet would print a million lines.
const MAX_CELLS: u64 = 200_000;
/// Rows and columns of a sheet.
const MAX_ROW: i64 = 1_048_576;
const MAX_COLUMN: i64 = 16_384;

fn open(bed: &Testbed, path: &Path) -> Result<Spreadsheet, String> {
    let bytes = bed.read(path).map_err(|e| e.to_string())?;
    guard::check(&bytes)?;
    reader::xlsx::read_reader(Cursor::new(bytes), true).map_err(|e| e.to_string())
}

fn bytes(book: &Spreadsheet) -> Result<Vec<u8>, String> {
    let mut out = Cursor::new(Vec::new());
    writer::xlsx::write_writer(book, &mut out).map_err(|e| e.to_string())?;
    Ok(out.into_inner())
}

/// A workbook of one sheet with the given rows.
pub(crate) fn workbook(rows: &[Vec<Value>]) -> Result<Vec<u8>, String> {
    let mut book = new_file();
    let sheet = book.get_sheet_mut(&0).ok_or("a new workbook has no sheet")?;
    for (r, row) in rows.iter().enumerate() {
        for (c, value) in row.iter().enumerate() {
            set(sheet.get_cell_mut((c as u32 + 1, r as u32 + 1)), value);
        }
    }
    bytes(&book)
}

fn set(cell: &mut umya_spreadsheet::Cell, value: &Value) {
    match value {
        Value::Null => {
            cell.set_blank();
        }
        Value::Bool(b) => {
            cell.set_value_bool(*b);
        }
        Value::Number(n) => {
            cell.set_value_number(n.as_f64().unwrap_or_default());
        }
        Value::String(s) if s.starts_with('=') && s.len() > 1 => {
            cell.set_formula(&s[1..]);
        }
        Value::String(s) => {
            cell.set_value_string(s);
        }
        Value::Array(_) | Value::Object(_) => {}
    }
}

/// Upstream's text of the active sheet.
pub(crate) fn table(bed: &Testbed, path: &Path) -> Result<String, String> {
    let book = open(bed, path)?;
    let sheet = book.get_active_sheet();
    let (columns, rows) = sheet.get_highest_column_and_row();
    let mut out = String::new();
    if u64::from(columns) * u64::from(rows) > MAX_CELLS {
        return Err(format!("the sheet spans {rows} rows and {columns} columns, more than can be shown"));
    }
    for row in 1..=rows {
        for column in 1..=columns {
            let text = match sheet.get_cell((column, row)) {
                None => "[Empty Cell]".to_owned(),
                Some(cell) if cell.is_formula() => format!("={}", cell.get_formula()),
                Some(cell) => match (cell.get_raw_value().is_empty(), cell.get_value().as_ref()) {
                    (true, _) | (_, "") => "[Empty Cell]".to_owned(),
                    (_, "TRUE") if cell.get_value_number().is_none() => "True".to_owned(),
                    (_, "FALSE") if cell.get_value_number().is_none() => "False".to_owned(),
                    (_, value) => value.to_owned(),
                },
            };
            let _ = write!(out, "({row}, {column}): {text}\t");
        }
        out.push('\n');
    }
    Ok(out)
}

pub(crate) fn read(bed: &Testbed, shown: &str) -> Result<String, String> {
    match bed.resolve(shown).filter(|p| bed.exists(p)) {
        None => Ok(format!("The file {shown} does not exist. Failed to read the file.")),
        Some(path) => Ok(format!("The following is the table from the excel file:\n{}", table(bed, &path)?)),
    }
}

/// Python's `int()` of an index: floats are cut, digits in text read.
fn index(value: &Value, limit: i64) -> Option<u32> {
    let number = match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n| (1..=limit).contains(n)).and_then(|n| u32::try_from(n).ok())
}

fn edit(bed: &Testbed, shown: &str, row: &Value, column: &Value, value: &Value) -> Option<()> {
    let path = bed.resolve(shown)?;
    let mut book = open(bed, &path).ok()?;
    let (row, column) = (index(row, MAX_ROW)?, index(column, MAX_COLUMN)?);
    if value.is_array() || value.is_object() {
        return None;
    }
    set(book.get_active_sheet_mut().get_cell_mut((column, row)), value);
    bed.write(&path, &bytes(&book).ok()?).ok()
}

pub(crate) fn set_cell(bed: &Testbed, shown: &str, row: &Value, column: &Value, value: &Value) -> String {
    match bed.resolve(shown).filter(|p| bed.exists(p)) {
        None => format!("The file {shown} does not exist. Failed to write to the file."),
        Some(_) if edit(bed, shown, row, column, value).is_some() => format!("Successfully write text to {shown}"),
        Some(_) => format!("Failed to write text to {shown}"),
    }
}

pub(crate) fn delete_cell(bed: &Testbed, shown: &str, row: &Value, column: &Value) -> String {
    match bed.resolve(shown).filter(|p| bed.exists(p)) {
        None => format!("The file {shown} does not exist. Failed to delete the cell in the file."),
        Some(_) if edit(bed, shown, row, column, &"".into()).is_some() => {
            format!("Successfully delete a cell in {shown}")
        }
        Some(_) => format!("Failed to delete a cell in {shown}"),
    }
}

pub(crate) fn create(bed: &Testbed, shown: &str) -> String {
    let made = bed.resolve(shown).map(|path| match bed.exists(&path) {
        true => format!("File {shown} already exists"),
        false => match workbook(&[]).ok().and_then(|b| bed.write(&path, &b).ok()) {
            Some(()) => format!("Successfully create new file {shown}"),
            None => format!("Failed to create new file {shown}"),
        },
    });
    made.unwrap_or_else(|| format!("Failed to create new file {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_survive_a_round_trip() {
        let bed = Testbed::new("").unwrap();
        let rows = vec![vec![json!("name"), json!("score")], vec![json!("bufom"), json!(78)]];
        bed.write(Path::new("data/a.xlsx"), &workbook(&rows).unwrap()).unwrap();
        assert_eq!(
            set_cell(&bed, "data/a.xlsx", &json!(3), &json!("2"), &json!(1.5)),
            "Successfully write text to data/a.xlsx"
        );
        let text = read(&bed, "data/a.xlsx").unwrap();
        let table = "(1, 1): name\t(1, 2): score\t\n(2, 1): bufom\t(2, 2): 78\t\n(3, 1): [Empty Cell]\t(3, 2): 1.5\t\n";
        assert_eq!(text, format!("The following is the table from the excel file:\n{table}"));
        assert_eq!(create(&bed, "data/a.xlsx"), "File data/a.xlsx already exists");
        assert!(set_cell(&bed, "data/a.xlsx", &json!(0), &json!(1), &json!("x")).starts_with("Failed"));
        assert!(set_cell(&bed, "../a.xlsx", &json!(1), &json!(1), &json!("x")).contains("does not exist"));
    }
}
