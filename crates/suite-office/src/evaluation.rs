//! The checks of a task: microsoft/Simia-Agent-Training@ea77d9d:`OfficeBench/utils/evaluate.py`.

use crate::files::Testbed;
use crate::{excel, mail, word};
use serde_json::Value;
use std::path::PathBuf;

/// Whether every check holds, and why the first that does not fails. A check that raises fails.
pub(crate) fn evaluate(bed: &Testbed, checks: &[Value]) -> Result<(), String> {
    for check in checks {
        let name = check["function"].as_str().unwrap_or_default();
        match one(bed, name, &check["args"]) {
            Ok(true) => {}
            Ok(false) => return Err(format!("{name} does not hold")),
            Err(reason) => return Err(format!("{name}: {reason}")),
        }
    }
    Ok(())
}

fn path(args: &Value, field: &str) -> Result<PathBuf, String> {
    let text = args[field].as_str().ok_or_else(|| format!("no `{field}`"))?;
    Ok(PathBuf::from(text.trim_start_matches('/').trim_start_matches("testbed/")))
}

fn one(bed: &Testbed, name: &str, args: &Value) -> Result<bool, String> {
    match name {
        "evaluate_file_exist" => Ok(bed.exists(&path(args, "file")?)),
        "evaluate_file_not_exist" => Ok(!bed.exists(&path(args, "file")?)),
        "evaluate_contain" => contain(bed, args),
        "evaluate_not_contain" => Ok(!contain(bed, args)?),
        "evaluate_excel_cell_value" => {
            let file = path(args, "file")?;
            if !bed.exists(&file) {
                return Ok(false);
            }
            let text = excel::table(bed, &file)?;
            let matches = args["matches"].as_array().ok_or("no `matches`")?;
            Ok(matches.iter().all(|m| {
                let value = m["value"].as_str().map_or_else(|| m["value"].to_string(), str::to_owned);
                text.contains(&format!("({}, {}): {value}", m["row"], m["col"]))
            }))
        }
        "evaluate_exact_match" => {
            let (result, expected) = (path(args, "result_file")?, path(args, "expected_file")?);
            if !bed.exists(&result) {
                return Ok(false);
            }
            let text = |p: &PathBuf| -> Result<String, String> {
                match args["doc_type"].as_str() {
                    Some("xlsx") => excel::table(bed, p),
                    Some("txt" | "ics") => {
                        let bytes = bed.read(p).map_err(|e| e.to_string())?;
                        Ok(String::from_utf8(bytes)
                            .map_err(|e| e.to_string())?
                            .replace("\r\n", "\n")
                            .replace('\r', "\n"))
                    }
                    other => Err(format!("doc_type {other:?} cannot be compared")),
                }
            };
            Ok(text(&result)? == text(&expected)?)
        }
        other => Err(format!("there is no check `{other}`")),
    }
}

fn contain(bed: &Testbed, args: &Value) -> Result<bool, String> {
    let content = match args["doc_type"].as_str().ok_or("no `doc_type`")? {
        "email" => mail::account(bed, args["username"].as_str().ok_or("no `username`")?),
        kind => {
            let file = path(args, "file")?;
            if !bed.exists(&file) {
                return Ok(false);
            }
            match kind {
                "xlsx" => excel::table(bed, &file)?,
                "doc" | "docx" => word::text(bed, &file)?,
                "txt" | "ics" => {
                    String::from_utf8(bed.read(&file).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?
                }
                other => return Err(format!("doc_type `{other}` is not supported")),
            }
        }
    };
    let mut content = content.to_lowercase();
    for keyword in args["keywords"].as_array().into_iter().flatten() {
        let keyword = keyword.as_str().ok_or("a keyword is not text")?.to_lowercase();
        // upstream: a keyword that reads as a number removes all commas, from then on.
        if keyword.trim().parse::<f64>().is_ok() {
            content = content.replace(',', "");
        }
        if !content.contains(&keyword) {
            return Ok(false);
        }
    }
    Ok(true)
}
