//! The excel app: the active sheet of an xlsx file.

use crate::archive::refused;
use crate::files::Testbed;
use crate::sheet::{MAX_COLUMN, MAX_ROW, Sheet, Value as CellValue};
use crate::workbook;
use num_traits::ToPrimitive;
use rolegraft_python::Object;
use std::fmt::Write;
use std::path::Path;

/// Cells shown at most: a cell in the last row of a sheet would print a million lines.
const MAX_CELLS: u64 = 200_000;
/// What upstream shows of a cell without a value.
const EMPTY: &str = "[Empty Cell]";

/// A cell as Python shows what openpyxl reads.
fn content(value: Option<&CellValue>) -> String {
    match value {
        None => EMPTY.into(),
        Some(CellValue::Plain(object)) => object.text(),
        Some(CellValue::Moment(text) | CellValue::Formula(text)) => text.clone(),
    }
}

/// What openpyxl opens, by the ending of its name.
fn is_workbook(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|e| ["xlsx", "xlsm", "xltx", "xltm"].contains(&e.as_str()))
}

fn sheet(bed: &Testbed, path: &Path) -> Result<Sheet, String> {
    if !is_workbook(path) {
        return Err("not a workbook, by its name".into());
    }
    let sheet = Sheet::read(&bed.read(path).map_err(|e| e.to_string())?)?;
    let (rows, columns) = sheet.extent;
    if u64::from(columns) * u64::from(rows) > MAX_CELLS {
        let reason = format!("the sheet spans {rows} rows and {columns} columns, more than {MAX_CELLS} cells");
        return Err(refused(&reason));
    }
    Ok(sheet)
}

/// Upstream's text of the active sheet.
pub(crate) fn table(bed: &Testbed, path: &Path) -> Result<String, String> {
    let sheet = sheet(bed, path)?;
    let mut out = String::new();
    for row in 1..=sheet.extent.0 {
        for column in 1..=sheet.extent.1 {
            let text = content(sheet.cells.get(&(row, column)).and_then(Option::as_ref));
            let _ = write!(out, "({row}, {column}): {text}\t");
        }
        out.push('\n');
    }
    Ok(out)
}

/// Whether two workbooks' active sheets hold the same values, over the extents of both.
pub(crate) fn same(a: &Testbed, at: &Path, b: &Testbed, other: &Path) -> Result<bool, String> {
    let (a, b) = (sheet(a, at)?, sheet(b, other)?);
    let value = |sheet: &Sheet, at: &(u32, u32)| sheet.cells.get(at).cloned().flatten();
    Ok(a.cells.keys().chain(b.cells.keys()).all(|at| match (value(&a, at), value(&b, at)) {
        (Some(CellValue::Plain(a)), Some(CellValue::Plain(b))) => a.equals(&b),
        (a, b) => a == b,
    }))
}

pub(crate) fn read(bed: &Testbed, shown: &str) -> Result<String, String> {
    if !bed.holds(shown) {
        return Ok(format!("The file {shown} does not exist. Failed to read the file."));
    }
    let path = bed.resolve(shown).ok_or("a folder")?;
    Ok(format!("The following is the table from the excel file:\n{}", table(bed, &path)?))
}

/// Python's `int()` of an index: floats are cut, digits in text read.
fn index(value: &Object, limit: u32) -> Option<u32> {
    let number = match value {
        Object::Int(i) => i.to_i64(),
        Object::Float(f) => Some(*f as i64),
        Object::Bool(b) => Some(i64::from(*b)),
        Object::Str(s) => s.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n| (1..=i64::from(limit)).contains(n)).and_then(|n| u32::try_from(n).ok())
}

fn edit(bed: &Testbed, shown: &str, row: &Object, column: &Object, value: &Object) -> Option<()> {
    let path = bed.resolve(shown).filter(|path| is_workbook(path))?;
    let (row, column) = (index(row, MAX_ROW)?, index(column, MAX_COLUMN)?);
    let book = workbook::with_cell(&bed.read(&path).ok()?, row, column, value).ok()?;
    bed.write(&path, &book).ok()
}

pub(crate) fn set_cell(bed: &Testbed, shown: &str, row: &Object, column: &Object, value: &Object) -> String {
    if !bed.holds(shown) {
        return format!("The file {shown} does not exist. Failed to write to the file.");
    }
    match edit(bed, shown, row, column, value) {
        Some(()) => format!("Successfully write text to {shown}"),
        None => format!("Failed to write text to {shown}"),
    }
}

pub(crate) fn delete_cell(bed: &Testbed, shown: &str, row: &Object, column: &Object) -> String {
    if !bed.holds(shown) {
        return format!("The file {shown} does not exist. Failed to delete the cell in the file.");
    }
    match edit(bed, shown, row, column, &Object::Str(String::new())) {
        Some(()) => format!("Successfully delete a cell in {shown}"),
        None => format!("Failed to delete a cell in {shown}"),
    }
}

pub(crate) fn create(bed: &Testbed, shown: &str) -> String {
    if bed.holds(shown) {
        return format!("File {shown} already exists");
    }
    let book = || bed.write(&bed.resolve(shown)?, &workbook::of_rows(&[]).ok()?).ok();
    match book() {
        Some(()) => format!("Successfully create new file {shown}"),
        None => format!("Failed to create new file {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_survive_a_round_trip() {
        let bed = Testbed::new("").unwrap();
        let text = |s: &str| Object::Str(s.into());
        let rows = vec![vec![text("name"), text("score")], vec![text("bufom"), Object::Int(78.into())]];
        bed.write(Path::new("data/a.xlsx"), &workbook::of_rows(&rows).unwrap()).unwrap();
        assert_eq!(
            set_cell(&bed, "data/a.xlsx", &Object::Int(3.into()), &Object::Str("2".into()), &Object::Float(1.5)),
            "Successfully write text to data/a.xlsx"
        );
        let text = read(&bed, "data/a.xlsx").unwrap();
        let table = "(1, 1): name\t(1, 2): score\t\n(2, 1): bufom\t(2, 2): 78\t\n(3, 1): [Empty Cell]\t(3, 2): 1.5\t\n";
        assert_eq!(text, format!("The following is the table from the excel file:\n{table}"));
        let (one, x) = (Object::Int(1.into()), Object::Str("x".into()));
        assert_eq!(create(&bed, "data/a.xlsx"), "File data/a.xlsx already exists");
        assert!(set_cell(&bed, "data/a.xlsx", &Object::Int(0.into()), &one, &x).starts_with("Failed"));
        assert!(set_cell(&bed, "../a.xlsx", &one, &one, &x).contains("does not exist"));
    }
}
