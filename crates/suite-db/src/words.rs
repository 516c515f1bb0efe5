//! MariaDB's errors in MySQL's words.

/// Bytes of a statement that MySQL shows of the place where it stops to understand it.
const EXCERPT: usize = 80;
/// The most that a character takes, in bytes.
const CHARACTER: usize = 4;
/// Clauses as MariaDB names them, and as MySQL does. A window's are named like a query's: they stay apart in MySQL alone.
const CLAUSES: [(&str, &str); 12] = [
    ("SELECT", "field list"),
    ("INSERT INTO", "field list"),
    ("VALUES", "field list"),
    ("SET", "field list"),
    ("UPDATE", "field list"),
    ("CALL", "field list"),
    ("FROM", "from clause"),
    ("ON", "on clause"),
    ("WHERE", "where clause"),
    ("GROUP BY", "group statement"),
    ("HAVING", "having clause"),
    ("ORDER BY", "order clause"),
];

/// What a statement gave, `CODE (STATE): MESSAGE` if it is an error, as MySQL would word it. What is MySQL's already stays.
pub(crate) fn of_mysql(said: &str, sql: &str) -> String {
    let reworded = match said.split_once(' ').map(|(code, _)| code) {
        Some("1052") => clause(said, " in ", " is ambiguous"),
        Some("1054") => clause(said, " in '", "'"),
        Some("1064") => Some(syntax(said, sql)),
        Some("1091") => missing(said),
        Some("4092") => Some(said.replace("4092 (42S02): Unknown VIEW: ", "1051 (42S02): Unknown table ")),
        _ => None,
    };
    reworded.unwrap_or_else(|| said.to_owned())
}

/// The clause that stands between two texts, the second of which is the last.
fn clause(said: &str, before: &str, after: &str) -> Option<String> {
    let (start, name) = said.strip_suffix(after)?.rsplit_once(before)?;
    let (_, ours) = CLAUSES.iter().find(|(theirs, _)| *theirs == name)?;
    Some(format!("{start}{before}{ours}{after}"))
}

fn syntax(said: &str, sql: &str) -> String {
    let said = said.replace("MariaDB server version", "MySQL server version");
    whole_excerpt(&said, sql).unwrap_or(said)
}

/// With MySQL's excerpt where MariaDB ends its own, shorter one with dots.
fn whole_excerpt(said: &str, sql: &str) -> Option<String> {
    let (start, rest) = said.split_once(" near '")?;
    let (shown, line) = rest.rsplit_once("...' at line ")?;
    if shown.len() + 3 + CHARACTER <= EXCERPT {
        return None;
    }
    let sql = sql.trim_end_matches(|c: char| c == ';' || c.is_ascii_whitespace());
    let mut places = sql.match_indices(shown).map(|(at, _)| &sql[at..]);
    let rest = places.find(|rest| rest.len() > EXCERPT)?;
    Some(format!("{start} near '{}' at line {line}", &rest[..rest.floor_char_boundary(EXCERPT)]))
}

/// What cannot be dropped.
fn missing(said: &str) -> Option<String> {
    let (start, rest) = said.split_once("Can't DROP ")?;
    let (_, rest) = rest.split_once('`')?;
    let name = rest.strip_suffix("`; check that it exists")?;
    Some(format!("{start}Can't DROP '{name}'; check that column/key exists"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: &str =
        "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your";

    #[test]
    fn clauses_have_mysqls_names() {
        for (theirs, ours) in [
            (
                "1054 (42S22): Unknown column 'Wrestler' in 'SELECT'",
                "1054 (42S22): Unknown column 'Wrestler' in 'field list'",
            ),
            ("1054 (42S22): Unknown column 'Team' in 'WHERE'", "1054 (42S22): Unknown column 'Team' in 'where clause'"),
            ("1054 (42S22): Unknown column 'x' in 'ORDER BY'", "1054 (42S22): Unknown column 'x' in 'order clause'"),
            ("1054 (42S22): Unknown column 'x' in 'GROUP BY'", "1054 (42S22): Unknown column 'x' in 'group statement'"),
            ("1054 (42S22): Unknown column 'x' in 'HAVING'", "1054 (42S22): Unknown column 'x' in 'having clause'"),
            ("1054 (42S22): Unknown column 't.x' in 'ON'", "1054 (42S22): Unknown column 't.x' in 'on clause'"),
            ("1054 (42S22): Unknown column 'x' in 'FROM'", "1054 (42S22): Unknown column 'x' in 'from clause'"),
            ("1054 (42S22): Unknown column 'x' in 'INSERT INTO'", "1054 (42S22): Unknown column 'x' in 'field list'"),
            ("1054 (42S22): Unknown column 'x' in 'VALUES'", "1054 (42S22): Unknown column 'x' in 'field list'"),
            ("1054 (42S22): Unknown column 'x' in 'SET'", "1054 (42S22): Unknown column 'x' in 'field list'"),
            ("1052 (23000): Column 'a' in SELECT is ambiguous", "1052 (23000): Column 'a' in field list is ambiguous"),
            (
                "1091 (42000): Can't DROP COLUMN `x`; check that it exists",
                "1091 (42000): Can't DROP 'x'; check that column/key exists",
            ),
            ("4092 (42S02): Unknown VIEW: 'zz.nope'", "1051 (42S02): Unknown table 'zz.nope'"),
        ] {
            assert_eq!(of_mysql(theirs, ""), ours);
            assert_eq!(of_mysql(ours, ""), ours);
        }
        // A table's name, another error, a result.
        for said in [
            "1054 (42S22): Unknown column 'x' in 't'",
            "1146 (42S02): Table 'Tournament Results.Tournament_Results' doesn't exist",
            "[(\"in 'SELECT'\",)]",
            "[]",
        ] {
            assert_eq!(of_mysql(said, ""), said);
        }
    }

    #[test]
    fn excerpts_are_mysqls() {
        for (sql, theirs, ours) in [
            (
                "SELECT Replaced by FROM `Manager Changes` WHERE Outgoing manager = 'Stuart Pearce' AND Date of vacancy = '14 May \
                 2007';",
                "by FROM `Manager Changes` WHERE Outgoing manager = 'Stuart Pearce' AND Date o...",
                "by FROM `Manager Changes` WHERE Outgoing manager = 'Stuart Pearce' AND Date of v",
            ),
            (
                "SELECT Player FROM \"NBA Draft History\" WHERE \"School/Club Team\" LIKE '%California%' ORDER BY Pick ASC LIMIT 1;",
                "\"NBA Draft History\" WHERE \"School/Club Team\" LIKE '%California%' ORDER BY Pic...",
                "\"NBA Draft History\" WHERE \"School/Club Team\" LIKE '%California%' ORDER BY Pick A",
            ),
            // Whole characters of 80 bytes.
            (
                "SELECT     AVG(CAST(REPLACE(Jul,'\\n','') AS FLOAT)) AS Jul_Mean,    AVG(CAST(REPLACE([Daily mean °C (°F)] ,'\\n','') AS \
                 FLOAT)) AS Year_MeanFROM     [Climate Data]WHERE     Year IS NOT NULL;",
                "[Daily mean °C (°F)] ,'\\n','') AS FLOAT)) AS Year_MeanFROM     [Climate Dat...",
                "[Daily mean °C (°F)] ,'\\n','') AS FLOAT)) AS Year_MeanFROM     [Climate Data]W",
            ),
            (
                &format!("select 1 frm t where {}", "é".repeat(40)),
                &format!("t where {}...", "é".repeat(34)),
                &format!("t where {}", "é".repeat(36)),
            ),
            // Nothing is missing.
            ("select 1 1 ...", "1 ...", "1 ..."),
            ("SELECT [a] FROM t", "[a] FROM t", "[a] FROM t"),
        ] {
            let theirs =
                format!("{SYNTAX} MariaDB server version for the right syntax to use near '{theirs}' at line 1");
            let ours = format!("{SYNTAX} MySQL server version for the right syntax to use near '{ours}' at line 1");
            assert_eq!(of_mysql(&theirs, sql), ours);
            assert_eq!(of_mysql(&ours, sql), ours);
        }
    }
}
