//! The checks of a task: microsoft/Simia-Agent-Training@ea77d9d:`OfficeBench/utils/evaluate.py`.

use crate::files::Testbed;
use crate::mode::Mode;
use crate::{calendar, comparator, convert, excel, mail, word};
use serde_json::Value;
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::path::{Component, Path, PathBuf};

/// What checks look at.
pub(crate) struct Evidence<'b> {
    /// The files as the episode left them.
    bed: &'b Testbed,
    /// The files as it found them.
    cache: Option<&'b Testbed>,
    /// Files that the task's author expects.
    reference: Option<&'b Testbed>,
    /// Whether upstream's oddities are kept.
    mode: Mode,
}

impl<'b> Evidence<'b> {
    /// The final files, with the untouched and the expected ones where there are any.
    pub(crate) fn with(
        bed: &'b Testbed,
        cache: Option<&'b Testbed>,
        reference: Option<&'b Testbed>,
        mode: Mode,
    ) -> Self {
        Self { bed, cache, reference, mode }
    }

    /// Where a check's path leads: a folder of files and a path in it.
    fn find(&self, path: &str) -> Result<(&'b Testbed, PathBuf), String> {
        let absent = |what: &str| format!("`{path}` needs the task's {what}");
        // `cache/<subtask>/…`: upstream drops one digit and the slash.
        if let Some((_, after)) = path.rsplit_once("../../../../cache/") {
            let inside = after.get(2..).unwrap_or_default();
            return Ok((self.cache.ok_or_else(|| absent("untouched files"))?, clean(inside)?));
        }
        if let Some((_, after)) = path.rsplit_once("../../../../reference/") {
            return Ok((self.reference.ok_or_else(|| absent("reference files"))?, clean(after)?));
        }
        Ok((self.bed, clean(path)?))
    }
}

/// A path without `.` and `..`. An absolute one leads to no file of the task: upstream looks for it on its own disk.
fn clean(path: &str) -> Result<PathBuf, String> {
    let mut out = PathBuf::new();
    if path.starts_with('/') {
        return Ok(out);
    }
    for part in Path::new(path.trim_start_matches("testbed/")).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir if out.pop() => {}
            _ => return Err(format!("`{path}` leads out of the task's files")),
        }
    }
    Ok(out)
}

/// Whether every check holds, and why the first that does not fails. A check that raises fails.
pub(crate) fn evaluate(evidence: &Evidence<'_>, checks: &[Value]) -> Result<(), String> {
    for check in checks {
        let name = check["function"].as_str().unwrap_or_default();
        match one(evidence, name, &check["args"]) {
            Ok(true) => {}
            Ok(false) => return Err(format!("{name} does not hold")),
            Err(reason) => return Err(format!("{name}: {reason}")),
        }
    }
    Ok(())
}

fn text<'v>(args: &'v Value, field: &str) -> Result<&'v str, String> {
    args[field].as_str().ok_or_else(|| format!("no `{field}`"))
}

/// One check.
///
/// # Errors
/// Where upstream's would raise.
pub(crate) fn one(evidence: &Evidence<'_>, name: &str, args: &Value) -> Result<bool, String> {
    match name {
        "evaluate_file_exist" | "evaluate_file_not_exist" => {
            let (bed, path) = evidence.find(text(args, "file")?)?;
            Ok(bed.exists(&path) == (name == "evaluate_file_exist"))
        }
        "evaluate_contain" => contain(evidence, args),
        "evaluate_not_contain" if evidence.mode == Mode::Sane && is_missing(evidence, args)? => Ok(false),
        // upstream: what is missing contains nothing.
        "evaluate_not_contain" => Ok(!contain(evidence, args)?),
        "evaluate_excel_cell_value" => {
            let (bed, path) = evidence.find(text(args, "file")?)?;
            if !bed.exists(&path) {
                return Ok(false);
            }
            let table = excel::table(bed, &path)?;
            let matches = args["matches"].as_array().ok_or("no `matches`")?;
            Ok(matches.iter().all(|m| {
                let shown = |field: &str| rolegraft_python::Object::from(&m[field]).text();
                // upstream: a substring, so a value is a prefix of the cell's.
                let end = if evidence.mode == Mode::Sane { "\t" } else { "" };
                table.contains(&format!("({}, {}): {}{end}", shown("row"), shown("col"), shown("value")))
            }))
        }
        "evaluate_excel_cell_comparator" => cell_comparator(evidence, args),
        "evaluate_exact_match" => exact_match(evidence, args),
        "evaluate_diff_contain_text" => diff_contains(evidence, args),
        "evaluate_calendar_no_overlap" => {
            let path = clean(&format!("calendar/{}.ics", text(args, "username")?))?;
            let bytes = evidence.bed.read(&path).map_err(|e| e.to_string())?;
            calendar::no_overlap(&String::from_utf8(bytes).map_err(|e| e.to_string())?)
        }
        other => Err(format!("there is no check `{other}`")),
    }
}

/// Text with universal newlines.
fn plain(bed: &Testbed, path: &Path) -> Result<String, String> {
    let bytes = bed.read(path).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(bytes).map_err(|e| e.to_string())?.replace("\r\n", "\n").replace('\r', "\n"))
}

/// Whether there is nothing for a check to look at.
fn is_missing(evidence: &Evidence<'_>, args: &Value) -> Result<bool, String> {
    if args["doc_type"] == "email" {
        return Ok(mail::account(evidence.bed, text(args, "username")?).is_empty());
    }
    let (bed, path) = evidence.find(text(args, "file")?)?;
    Ok(!bed.is_file(&path))
}

fn contain(evidence: &Evidence<'_>, args: &Value) -> Result<bool, String> {
    let content = match text(args, "doc_type")? {
        "email" => mail::account(evidence.bed, text(args, "username")?),
        kind => {
            let (bed, path) = evidence.find(text(args, "file")?)?;
            if !bed.is_file(&path) {
                return Ok(false);
            }
            match kind {
                "xlsx" => excel::table(bed, &path)?,
                "doc" | "docx" => word::text(bed, &path)?,
                "txt" | "ics" => plain(bed, &path)?,
                "pdf" => convert::pdf_text(bed, &path).map_err(|e| e.to_string())?,
                other => return Err(format!("doc_type `{other}` is not supported")),
            }
        }
    };
    let mut content = content.to_lowercase();
    for keyword in args["keywords"].as_array().ok_or("no `keywords`")? {
        let keyword = keyword.as_str().ok_or("a keyword is not text")?.to_lowercase();
        // upstream: a keyword that reads as a number removes all commas, from then on.
        let commas = rolegraft_python::float(&keyword).map(|_| content.replace(',', ""));
        if !commas.as_ref().unwrap_or(&content).contains(&keyword) {
            return Ok(false);
        }
        if let (Some(without), Mode::Official) = (commas, evidence.mode) {
            content = without;
        }
    }
    Ok(true)
}

fn cell_comparator(evidence: &Evidence<'_>, args: &Value) -> Result<bool, String> {
    let (bed, path) = evidence.find(text(args, "file")?)?;
    let table = excel::table(bed, &path)?;
    for m in args["matches"].as_array().ok_or("no `matches`")? {
        let shown = |field: &str| rolegraft_python::Object::from(&m[field]).text();
        let start = format!("({}, {}): ", shown("row"), shown("col"));
        let Some((_, rest)) = table.split_once(&start) else { return Ok(false) };
        let value = rest.split(['\t', '\n']).next().unwrap_or_default();
        if value.is_empty() || !comparator::holds(text(m, "comparator")?, value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn exact_match(evidence: &Evidence<'_>, args: &Value) -> Result<bool, String> {
    let (result, at) = evidence.find(text(args, "result_file")?)?;
    if !result.exists(&at) {
        return Ok(false);
    }
    let (expected, expected_at) = evidence.find(text(args, "expected_file")?)?;
    match text(args, "doc_type")? {
        "xlsx" => excel::same(result, &at, expected, &expected_at),
        "txt" | "ics" => Ok(plain(result, &at)? == plain(expected, &expected_at)?),
        // upstream: compares lists of objects that are never equal.
        "doc" => {
            word::text(result, &at)?;
            word::text(expected, &expected_at)?;
            Ok(false)
        }
        other => Err(format!("doc_type `{other}` cannot be compared")),
    }
}

fn diff_contains(evidence: &Evidence<'_>, args: &Value) -> Result<bool, String> {
    if text(args, "doc_type")? != "xlsx" {
        return Err("only tables can be compared".into());
    }
    let (before, at) = evidence.find(text(args, "input_file")?)?;
    let before = excel::table(before, &at)?;
    let (after, at) = evidence.find(text(args, "output_file")?)?;
    let after = excel::table(after, &at)?;
    if before == after {
        return Ok(false);
    }
    let diff = unified(&before.split('\n').collect::<Vec<_>>(), &after.split('\n').collect::<Vec<_>>());
    let keywords = args["keywords"].as_array().ok_or("no `keywords`")?;
    Ok(keywords.iter().all(|k| k.as_str().is_some_and(|k| diff.contains(k))))
}

/// Python's `difflib.unified_diff` without context, its lines joined.
fn unified(before: &[&str], after: &[&str]) -> String {
    let mut lines = vec!["--- \n".to_owned(), "+++ \n".to_owned()];
    for op in capture_diff_slices(Algorithm::Myers, before, after) {
        let (old, new) = (op.old_range(), op.new_range());
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        let range = |r: &std::ops::Range<usize>| match r.len() {
            1 => format!("{}", r.start + 1),
            0 => format!("{},0", r.start),
            n => format!("{},{n}", r.start + 1),
        };
        lines.push(format!("@@ -{} +{} @@\n", range(&old), range(&new)));
        lines.extend(before[old].iter().map(|l| format!("-{l}")));
        lines.extend(after[new].iter().map(|l| format!("+{l}")));
    }
    lines.join("\n")
}
