//! DB-bench tasks: one statement, then the answer. The pool is not trained for them: they lie out of its domain.

use super::draft::{Draft, dumps};
use crate::words::Entities;
use md5::{Digest, Md5};
use serde_json::{Value, json};

fn hex(text: &str) -> String {
    format!("{:x}", Md5::digest(text.as_bytes()))
}

/// Upstream's hash of a table, as the text of the query that computes it.
fn hash(rows: &[[String; 2]]) -> String {
    let mut hashes: Vec<String> = rows.iter().map(|row| hex(&row.join(","))[..5].to_owned()).collect();
    hashes.sort();
    format!("[('{}',)]", hex(&hashes.join(",")))
}

fn operation(sql: &str) -> String {
    format!("I look.\nAction: Operation\n```sql\n{sql}\n```")
}

pub(super) fn task(e: &mut Entities<'_>) -> Draft {
    let table = e.word();
    let columns = [format!("{}_name", e.word()), format!("{}_count", e.word())];
    let rows: Vec<[String; 2]> = (0..3 + e.rng.below(3)).map(|_| [e.word(), e.number(2)]).collect();
    let [name, count] = &columns;
    let chosen = rows[e.rng.below(rows.len())].clone();
    let (kind, request, sql, observed, expected) = match e.rng.below(4) {
        0 => {
            let hits = rows.iter().filter(|row| row[0] == chosen[0]).map(|row| row[1].clone()).collect::<Vec<_>>();
            let observed = hits.iter().map(|hit| format!("('{hit}',)")).collect::<Vec<_>>().join(", ");
            (
                "other",
                format!("What is the {count} where the {name} is {}?", chosen[0]),
                format!("SELECT {count} FROM {table} WHERE {name} = '{}'", chosen[0]),
                format!("[{observed}]"),
                json!(hits),
            )
        }
        1 => {
            let all = rows.len().to_string();
            (
                "counting",
                "How many rows has the table?".to_owned(),
                format!("SELECT COUNT(*) FROM {table}"),
                format!("[({all},)]"),
                json!([all]),
            )
        }
        2 => {
            let new = [e.word(), e.number(2)];
            let after: Vec<[String; 2]> = rows.iter().cloned().chain([new.clone()]).collect();
            (
                "INSERT",
                format!("Insert a row with the {name} {} and the {count} {}.", new[0], new[1]),
                format!("INSERT INTO {table} VALUES ('{}', '{}')", new[0], new[1]),
                "[]".to_owned(),
                hash(&after).into(),
            )
        }
        _ => {
            let new = e.number(3);
            let changed = |row: &[String; 2]| match row[0] == chosen[0] {
                true => [row[0].clone(), new.clone()],
                false => row.clone(),
            };
            let after: Vec<[String; 2]> = rows.iter().map(changed).collect();
            (
                "UPDATE",
                format!("Set the {count} to {new} where the {name} is {}.", chosen[0]),
                format!("UPDATE {table} SET {count} = '{new}' WHERE {name} = '{}'", chosen[0]),
                "[]".to_owned(),
                hash(&after).into(),
            )
        }
    };
    let about = format!("The name of this table is {table}, and the headers of this table are {name},{count}.");
    let answer = if let Value::Array(label) = &expected { dumps(&label.clone().into()) } else { "[]".into() };
    let mut fields = json!({
        "description": request, "add_description": about, "type": [kind],
        "table": {"table_name": table, "table_info": {
            "columns": columns.iter().map(|c| json!({"name": c})).collect::<Vec<_>>(), "rows": rows,
        }},
    });
    let field = if expected.is_array() { "label" } else { "answer_md5" };
    fields[field] = expected;
    Draft {
        request: format!("{request}\n{about}"),
        fields,
        turns: vec![(operation(&sql), Some(observed)), (format!("Action: Answer\nFinal Answer: {answer}"), None)],
    }
}
