//! A database for each episode, whose SQL runs as a user of its own, who may do anything in it and nothing outside it.

use crate::entry::{Entry, Table};
use crate::server::{Make, Server, ServerError, has_lost, lock};
use crate::{show, statement, words};
use md5::{Digest, Md5};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Value as Cell};
use rolegraft_python::Object;
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Longest result shown, in characters.
const SHOWN: usize = 800;
/// Rows that a query may give: a row takes six characters at least, so that more would not be seen.
const ROWS: usize = 1_000;
/// Characters that MySQL's GROUP_CONCAT gives unless told otherwise.
const GROUP_CONCAT: usize = 1024;
/// Names that are the server's own.
const RESERVED: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// A name in backticks.
fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// A word that nobody guesses.
fn random() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:08x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2) as u32)
}

impl Server {
    /// A database of that name with a task's tables, committed. Who asks for a name that is in use waits for it.
    ///
    /// # Errors
    /// If the server fails, or has a database of that name which is not ours.
    pub fn open(self: &Arc<Self>, database: &str, tables: &[Table]) -> Result<Database, ServerError> {
        let database = match RESERVED.contains(&database.to_lowercase().as_str()) {
            true => format!("{database}_"),
            false => database.to_owned(),
        };
        let names = lock(&self.names);
        let mut names =
            self.freed.wait_while(names, |names| names.contains(&database)).unwrap_or_else(PoisonError::into_inner);
        names.insert(database.clone());
        drop(names);
        // From here on dropping it gives the name back.
        let (user, password) = (format!("rg{}", &random()[..16]), random());
        let lives = self.lives.load(Ordering::Relaxed);
        let mut made = Database {
            server: self.clone(),
            lives,
            name: database,
            user,
            password,
            kept: None,
            created: false,
            lost: None,
        };
        made.create(tables)?;
        Ok(made)
    }
}

/// An episode's database. Dropping it removes it.
pub struct Database {
    server: Arc<Server>,
    name: String,
    user: String,
    password: String,
    /// The connection, where one is kept from statement to statement.
    kept: Option<Conn>,
    created: bool,
    /// Which of the server's lives it was made in.
    lives: u64,
    /// How its server went away, if it did.
    lost: Option<String>,
}

/// What a cell is stored as.
fn stored(cell: &Value) -> Cell {
    match cell {
        Value::Null => Cell::NULL,
        other => Cell::Bytes(Object::from(other).text().into_bytes()),
    }
}

impl Database {
    fn create(&mut self, tables: &[Table]) -> Result<(), ServerError> {
        let server = self.server.clone();
        let database = name(&self.name);
        match server.admin(&format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")) {
            Err(mysql::Error::MySqlError(error)) if error.code == 1007 => {
                return Err(ServerError::Taken(self.name.clone()));
            }
            done => done?,
        }
        self.created = true;
        let granted = match server.wildcards {
            true => database.replace('_', "\\_").replace('%', "\\%"),
            false => database.clone(),
        };
        server.admin(&format!("CREATE USER '{}'@'%' IDENTIFIED BY '{}'", self.user, self.password))?;
        server.admin(&format!("GRANT ALL ON {granted}.* TO '{}'@'%'", self.user))?;
        let mut conn = self.connect()?;
        for table in tables {
            // Some of upstream's tables cannot be made: the episode goes on without.
            if let Err(error) = fill(&mut conn, table) {
                self.notice(&error);
            }
        }
        self.lost.clone().map_or(Ok(()), |reason| Err(ServerError::Gone(reason)))
    }

    /// How the server went away since this was made, if it did: what was seen since then says nothing of a model.
    #[must_use]
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Notices whether a failure is the server's end, and not that of one statement or connection.
    fn notice(&mut self, error: &mysql::Error) {
        if has_lost(error) && self.lost.is_none() && !self.server.has_lived(self.lives) {
            self.lost = Some(error.to_string());
        }
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Result<Conn, mysql::Error> {
        let server = &self.server;
        // MySQL's limit holds for SELECT alone: what else takes too long is ended from here.
        let (limit, patience) = match server.make {
            Make::MariaDb => (format!("max_statement_time={}", server.limit), 10),
            Make::MySql => (format!("max_execution_time={}", server.limit * 1000), 2),
        };
        let opts = OptsBuilder::from_opts(server.opts.clone())
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .db_name(Some(&self.name))
            .read_timeout(Some(Duration::from_secs(server.limit + patience)))
            .prefer_socket(false)
            .init(vec![format!("SET SESSION sql_mode='', sql_select_limit={ROWS}, {limit}")]);
        Conn::new(opts)
    }

    /// What upstream's `execute` gives: a new connection for each statement, or, with `keep`, one for all. A result is Python's
    /// text of a list of tuples, an error `CODE (STATE): MESSAGE`.
    pub fn execute(&mut self, sql: &str, keep: bool) -> String {
        if statement::is_several(sql) {
            return "Commands out of sync; you can't run this command now".into();
        }
        if statement::is_empty(sql) {
            return "[]".into();
        }
        let text = self.connection().and_then(|mut conn| {
            let connection = conn.connection_id();
            let text = run(&mut conn, sql).inspect_err(|error| self.end(connection, error))?;
            conn.query_drop("COMMIT")?;
            if keep {
                self.kept = Some(conn);
            }
            Ok(text)
        });
        shortened(text.unwrap_or_else(|error| self.failed(&error, sql)))
    }

    /// Ends a statement of which nothing was heard in time.
    fn end(&self, connection: u32, error: &mysql::Error) {
        if matches!(error, mysql::Error::IoError(_)) {
            let _ = self.server.admin(&format!("KILL {connection}"));
        }
    }

    /// The connection that was kept, else a new one.
    fn connection(&mut self) -> Result<Conn, mysql::Error> {
        self.kept.take().map_or_else(|| self.connect(), Ok)
    }

    /// An error as upstream shows it, in MySQL's words.
    fn failed(&mut self, error: &mysql::Error, sql: &str) -> String {
        self.notice(error);
        match error {
            mysql::Error::MySqlError(e) => {
                let said = format!("{} ({}): {}", e.code, e.state, e.message);
                if self.server.make == Make::MariaDb { words::of_mysql(&said, sql) } else { said }
            }
            other => format!("2013 (HY000): Lost connection to MySQL server during query: {other}"),
        }
    }

    /// The text of the query that hashes a table.
    pub fn hash(&mut self, table: &Table) -> String {
        let columns: Vec<String> = table.info.columns.iter().map(|c| name(&c.name)).collect();
        let (columns, table) = (columns.join(","), name(&table.name));
        if !self.server.md5 {
            return self.hash_of_our_own(&columns, &table);
        }
        let sql = format!(
            "select md5(group_concat(rowhash order by rowhash)) as hash from( SELECT substring(MD5(CONCAT_WS(',', {columns})), 1, 5) \
             AS rowhash FROM {table}) as sub;"
        );
        self.execute(&sql, false)
    }

    /// The same of a server that has no MD5().
    fn hash_of_our_own(&mut self, columns: &str, table: &str) -> String {
        let sql = format!("SELECT CONCAT_WS(',', {columns}) FROM {table} LIMIT {}", u64::MAX);
        let rows = self.connection().and_then(|mut conn| conn.query::<Vec<u8>, _>(&sql));
        match rows {
            Ok(rows) => format!("[({},)]", table_hash(&rows).map_or("None".into(), |hash| format!("'{hash}'"))),
            Err(error) => shortened(self.failed(&error, &sql)),
        }
    }
}

fn hex(text: &[u8]) -> String {
    format!("{:x}", Md5::digest(text))
}

/// The hash of a table whose rows are joined by commas; an empty one has none.
fn table_hash(rows: &[Vec<u8>]) -> Option<String> {
    let mut hashes: Vec<String> = rows.iter().map(|row| hex(row)[..5].to_owned()).collect();
    hashes.sort();
    let joined = hashes.join(",");
    (!rows.is_empty()).then(|| hex(&joined.as_bytes()[..joined.len().min(GROUP_CONCAT)]))
}

impl Drop for Database {
    fn drop(&mut self) {
        self.kept = None;
        if self.created {
            let _ = self.server.admin(&format!("DROP DATABASE IF EXISTS {}", name(&self.name)));
            let _ = self.server.admin(&format!("DROP USER IF EXISTS '{}'@'%'", self.user));
        }
        lock(&self.server.names).remove(&self.name);
        self.server.freed.notify_all();
    }
}

fn fill(conn: &mut Conn, table: &Table) -> Result<(), mysql::Error> {
    let names: Vec<String> = table.info.columns.iter().map(|c| name(&c.name)).collect();
    let columns: Vec<String> = names.iter().map(|n| format!("{n} TEXT")).collect();
    conn.query_drop(format!("CREATE TABLE IF NOT EXISTS {} ({})", name(&table.name), columns.join(",")))?;
    if table.info.rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = table.info.rows.iter().map(|row| format!("({})", vec!["?"; row.len()].join(","))).collect();
    let sql = format!("INSERT INTO {} ({}) VALUES {}", name(&table.name), names.join(","), rows.join(","));
    let cells: Vec<Cell> = table.info.rows.iter().flatten().map(stored).collect();
    conn.exec_drop(sql, cells)?;
    conn.query_drop("COMMIT")
}

/// The first result set as Python's text.
fn run(conn: &mut Conn, sql: &str) -> Result<String, mysql::Error> {
    let result = conn.query_iter(sql)?;
    let columns = result.columns().as_ref().to_vec();
    let (mut text, mut first) = ("[".to_owned(), true);
    for row in result {
        let row = row?;
        // What is cut off later need not be written.
        if text.len() > 16 * SHOWN {
            continue;
        }
        let cells: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(i, c)| row.as_ref(i).map_or_else(|| "None".into(), |v| show::cell(v, c)))
            .collect();
        if !std::mem::take(&mut first) {
            text += ", ";
        }
        text += &show::row(&cells);
    }
    Ok(text + "]")
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}[TRUNCATED]", &text[..at]),
        None => text,
    }
}

/// Opens a task's database, named as upstream names it: after the table, or, for function calls, after a session.
///
/// # Errors
/// As [`Server::open`].
pub fn open(server: &Arc<Server>, entry: &Entry, calls: bool) -> Result<Database, ServerError> {
    let tables = entry.table.all();
    let named = tables.first().map_or("dbbench", |table| table.name.as_str());
    if calls { server.open(&format!("dbbench_{}", random()), tables) } else { server.open(named, tables) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_hashed_as_the_server_does() {
        let rows = |rows: &[&str]| rows.iter().map(|row| row.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(table_hash(&[]), None);
        assert_eq!(table_hash(&rows(&["a"])).as_deref(), Some(hex(b"0cc17").as_str()));
        assert_eq!(table_hash(&rows(&["a", ""])).as_deref(), Some(hex(b"0cc17,d41d8").as_str()));
        assert_eq!(table_hash(&rows(&["", "a"])), table_hash(&rows(&["a", ""])));
    }
    #[test]
    #[allow(clippy::print_stderr)]
    fn our_hash_is_the_servers() {
        let server = match Server::private() {
            Ok(server) => Arc::new(server),
            Err(error @ (ServerError::NotInstalled | ServerError::Sandbox(_))) => {
                eprintln!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        if !server.md5 {
            eprintln!("skipped: the server has no MD5()");
            return;
        }
        for rows in [
            serde_json::json!([]),
            serde_json::json!([["a", "b"]]),
            serde_json::json!([["é", null], [null, null], ["", ""], ["it's", "\u{a0}"], ["漢,字", "1.5"], [1, 2.5]]),
        ] {
            let info = serde_json::json!({"columns": [{"name": "a b"}, {"name": "c`d"}], "rows": rows});
            let table = serde_json::from_value(serde_json::json!({"table_name": "t", "table_info": info})).unwrap();
            let mut database = server.open("hashes", std::slice::from_ref(&table)).unwrap();
            assert_eq!(database.hash_of_our_own("`a b`,`c``d`", "`t`"), database.hash(&table));
            database.execute("ALTER TABLE t DROP `a b`", false);
            assert_eq!(database.hash_of_our_own("`a b`,`c``d`", "`t`"), database.hash(&table));
        }
    }
}
