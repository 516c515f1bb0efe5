//! What a model's SQL tries, and what the server has to be spared.
#![allow(missing_docs, clippy::print_stderr)]

use proptest::prelude::*;
use rolegraft_suite_db::{Database, Server, ServerError, Table, compare};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn server() -> Option<Arc<Server>> {
    match Server::private() {
        Ok(server) => Some(Arc::new(server.with_limit(2))),
        Err(error @ (ServerError::NotInstalled | ServerError::Sandbox(_))) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn table(name: &str) -> Table {
    let info = json!({"columns": [{"name": "a"}, {"name": "b%`c"}], "rows": [["1", "x"], ["2", "it's"]]});
    serde_json::from_value(json!({"table_name": name, "table_info": info})).unwrap()
}

fn open(server: &Arc<Server>, name: &str) -> Database {
    server.open(name, &[table(name)]).unwrap()
}

#[test]
fn sql_stays_in_its_database() {
    let Some(server) = server() else { return };
    let mut other = open(&server, "other");
    let mut own = open(&server, "own");
    let before = other.execute("SELECT * FROM other", false);
    assert_eq!(before, "[('1', 'x'), ('2', \"it's\")]");
    for sql in [
        "DROP DATABASE other",
        "SELECT * FROM other.other",
        "USE other",
        "DELETE FROM `other`.`other`",
        "SELECT user, authentication_string FROM mysql.user",
        "UPDATE mysql.global_priv SET priv = '{}'",
        "CREATE DATABASE x",
        "CREATE USER x",
        "GRANT ALL ON *.* TO CURRENT_USER()",
        "SET GLOBAL max_connections = 1",
        "SHUTDOWN",
        "SELECT 1 INTO OUTFILE '/data/none/x'",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE own",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE own",
        "INSTALL SONAME 'x'",
        "CREATE FUNCTION f RETURNS STRING SONAME 'x.so'",
        "KILL 1",
        "FLUSH TABLES WITH READ LOCK",
        "CHANGE MASTER TO MASTER_HOST='x'",
        // By way of another statement, name or object.
        "EXECUTE IMMEDIATE 'SELECT * FROM other.other'",
        "CREATE VIEW v AS SELECT * FROM other.other",
        "CREATE TABLE t AS SELECT * FROM other.other",
        "RENAME TABLE own.own TO other.own",
        "CREATE TRIGGER other.t BEFORE INSERT ON other.other FOR EACH ROW SET @x = 1",
        "CREATE DEFINER = 'root'@'localhost' PROCEDURE p() SELECT 1",
        "LOCK TABLES other.other WRITE",
        "HANDLER other.other OPEN",
        "ANALYZE TABLE other.other PERSISTENT FOR ALL",
        "SET ROLE root",
        "SET PASSWORD FOR 'root'@'localhost' = PASSWORD('x')",
        "ALTER USER 'root'@'localhost' IDENTIFIED BY 'x'",
        "RENAME USER CURRENT_USER() TO x",
        "SET GLOBAL general_log_file = '/tmp/x'",
        "SET GLOBAL local_infile = 1",
        "SHOW GRANTS FOR 'root'@'localhost'",
        "SHOW BINARY LOGS",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')",
        "CREATE TABLE t (a INT) ENGINE = CSV DATA DIRECTORY = '/tmp'",
    ] {
        let said = own.execute(sql, false);
        assert!(!said.starts_with('['), "{sql}: {said}");
    }
    assert_eq!(own.execute("SELECT LOAD_FILE('/etc/passwd')", false), "[(None,)]");
    assert!(!own.execute("SHOW DATABASES", false).contains("other"));
    let others = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema IN ('other', 'mysql')";
    assert_eq!(own.execute(others, false), "[(0,)]");
    // Several statements are refused whole.
    assert!(own.execute("DELETE FROM own; SELECT 1", false).starts_with("Commands out of sync"));
    assert_eq!(own.execute("SELECT COUNT(*) FROM own", false), "[(2,)]");
    // What it ruins is its own.
    assert_eq!(own.execute("DROP DATABASE own", false), "[]");
    assert!(own.execute("SELECT 1", false).starts_with("1049"));
    assert_eq!(other.execute("SELECT * FROM other", false), before);
}

#[test]
fn statements_and_results_are_bounded() {
    let Some(server) = server() else { return };
    let many = (0..400).map(|i| format!("('{i}', '{}')", "y".repeat(50))).collect::<Vec<_>>().join(",");
    let own = |name: &str| {
        let mut own = server.open(name, &[table("own")]).unwrap();
        own.execute(&format!("INSERT INTO own VALUES {many}"), false);
        own
    };
    // Each of these is ended by the limit: all at once.
    std::thread::scope(|scope| {
        for (number, sql) in [
            "SELECT SLEEP(1000000000)",
            "SELECT COUNT(*) FROM own a, own b, own c, own d, own e WHERE a.a + b.a + c.a + d.a + e.a < 0",
            "SELECT BENCHMARK(100000000000, MD5('x'))",
            "INSERT INTO own SELECT a.a, REPEAT('z', 10000) FROM own a, own b, own c, own d",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT SUM(n) FROM r",
        ]
        .into_iter()
        .enumerate()
        {
            let mut own = own(&format!("own{number}"));
            scope.spawn(move || {
                let begun = Instant::now();
                let said = own.execute(sql, false);
                assert!(begun.elapsed() < Duration::from_secs(8), "{sql}: {:?}", begun.elapsed());
                assert!(said.chars().count() <= 811, "{sql}: {said}");
            });
        }
    });
    let mut own = own("own");
    for sql in ["SELECT * FROM own a, own b, own c, own d", "SELECT REPEAT('x', 15000000)", "SELECT REPEAT('é', 900)"]
    {
        let begun = Instant::now();
        let said = own.execute(sql, false);
        assert!(said.ends_with("[TRUNCATED]") && said.chars().count() == 811, "{sql}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{sql}");
    }
    assert!(own.execute("SELECT 1", false) == "[(1,)]");
}

#[test]
fn names_of_all_kinds_work_and_equal_ones_wait() {
    let Some(server) = server() else { return };
    for name in ["a_b", "a%b", "Football Matches", "it's", "q\"x", "back`tick", "é漢", "mysql", "10/4 #1."] {
        let mut database = open(&server, name);
        assert_eq!(
            database.execute(&format!("SELECT a FROM `{}` LIMIT 1", name.replace('`', "``")), false),
            "[('1',)]"
        );
    }
    let first = open(&server, "same");
    let (starts, started) = std::sync::mpsc::channel();
    let waiting = {
        let server = server.clone();
        std::thread::spawn(move || {
            starts.send(()).unwrap();
            drop(open(&server, "same"));
        })
    };
    started.recv().unwrap();
    let others: Vec<Database> = (0..20).map(|i| open(&server, &format!("side{i}"))).collect();
    // Twenty were made meanwhile; this one has to wait.
    assert!(!waiting.is_finished());
    drop(first);
    waiting.join().unwrap();
    drop(others);
}

proptest! {
    #[test]
    fn answers_of_any_kind_are_compared(answer: String, label in prop::collection::vec(any::<String>(), 0..3)) {
        let label: Vec<_> = label.into_iter().map(serde_json::Value::from).collect();
        let _ = compare::text(&answer, &label);
        let _ = compare::call(&answer.clone().into(), &label.clone().into());
        let _ = compare::call_changed(&answer, &label.into());
    }
    #[test]
    fn literals_are_compared_in_time(parts in prop::collection::vec(prop::sample::select(vec![
        "[", "]", "(", ")", "{", "}", ",", "'", "\"", "1", "e9", "*", "-", "+", "/", " ", "\\", "None", "0x", ":", "a", ".",
    ]), 0..60)) {
        let answer = parts.concat();
        let _ = compare::text(&answer, &["1".into()]);
        let _ = compare::call(&answer.into(), &json!(["1"]));
    }
}

#[test]
fn endless_answers_are_compared_in_time() {
    for answer in
        ["[".repeat(100_000), "9*".repeat(50_000) + "9", "-".repeat(100_000), "'".repeat(1 << 20), "(1,".repeat(30_000)]
    {
        let begun = Instant::now();
        let _ = compare::text(&answer, &["1".into()]);
        let _ = compare::call(&answer.clone().into(), &json!(["1"]));
        assert!(begun.elapsed() < Duration::from_secs(20), "{}…", &answer[..20]);
    }
}
