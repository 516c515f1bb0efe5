//! A real server, and a database on it for each episode.
//!
//! A private one is MySQL or MariaDB in a sandbox: no network, its data on a tmpfs of limited size, reached through a socket. It
//! ends with us, however we end. An episode's SQL runs as a user of its own, who may do anything in the episode's database
//! and nothing outside it.

use crate::entry::{Entry, Table};
use crate::{show, statement, words};
use md5::{Digest, Md5};
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder, Value as Cell};
use rolegraft_python::Object;
use rolegraft_suite::docker::Container;
use rolegraft_suite::sandbox::{Mount, SandboxError, available, service, temporary_folder};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest result shown, in characters.
const SHOWN: usize = 800;
/// Rows that a query may give: a row takes six characters at least, so that more would not be seen.
const ROWS: usize = 1_000;
/// How long a statement may take if nothing else is said, in seconds: upstream's limit for function calls.
const STATEMENT_LIMIT: u64 = 60;
/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What the private server may store, in bytes.
const DISK: u64 = 1 << 30;
/// Where it finds the folder of its socket.
const SOCKET_FOLDER: &str = "/work/socket";
/// How the names of such folders begin; our process id follows.
const PREFIX: &str = "rolegraft-db-";
/// Where server programs are, which not every user's PATH names.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
/// Makes the system tables, as `mysqld --initialize-insecure` or `mariadb-install-db` does, and becomes the server: of the make
/// that is named, else MySQL where there is one. A `mysqld` may be MariaDB's.
const START: &str = r#"exec 2>&1
make=$1
mkdir -p /data/db /data/tmp /data/none
PATH=$PATH:/usr/sbin:/usr/local/sbin
options="--no-defaults --user=root --datadir=/data/db --tmpdir=/data/tmp --skip-log-bin --performance-schema=0
    --innodb-buffer-pool-size=64M"
common="--socket=/work/socket/s --pid-file=/data/pid --skip-networking --sql-mode= --character-set-server=utf8mb4
    --local-infile=0 --max-allowed-packet=16M --tmp-table-size=64M --max-heap-table-size=64M --max-connections=512
    --innodb-flush-log-at-trx-commit=0"
version=$(mysqld --no-defaults --version 2>/dev/null)
if [ "$make" != mariadb ] && [ -n "$version" ] && [[ $version != *MariaDB* ]]; then
    mysqld $options --initialize-insecure || exit 1
    exec mysqld $options $common --mysqlx=OFF --secure-file-priv=NULL
fi
scripts=/usr/share/mysql
[ -f /usr/share/mariadb/mariadb_system_tables.sql ] && scripts=/usr/share/mariadb
options="$options --innodb-log-file-size=16M"
{
    printf '%s;\n' 'create database mysql' 'use mysql' 'set @auth_root_socket=NULL, @skip_auth_anonymous=1'
    cat $scripts/m*_system_tables.sql $scripts/m*_performance_tables.sql $scripts/m*_system_tables_data.sql \
        $scripts/maria_add_gis_sp_bootstrap.sql
} | mariadbd $options --bootstrap || exit 1
exec mariadbd $options $common --secure-file-priv=/data/none"#;
/// Characters that MySQL's GROUP_CONCAT gives unless told otherwise.
const GROUP_CONCAT: usize = 1024;
/// Names that are the server's own.
const RESERVED: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// Why there is no server, or no database on it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ServerError {
    #[error(
        "no MySQL or MariaDB server is installed, or no bubblewrap; install the packages `mysql-server-core` or `mariadb-server-core`, and `bubblewrap`, or name a server with --db mysql://USER:PASSWORD@HOST"
    )]
    NotInstalled,
    #[error("no server program of {} is installed", .0.word())]
    NoProgram(Make),
    #[error("the private server does not start: {0}")]
    NotStarted(String),
    #[error("the database server: {0}")]
    Failed(String),
    #[error("{0}")]
    Gone(String),
    #[error("the server has a database `{0}` already, which a task needs for itself; name another server with --db")]
    Taken(String),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl From<mysql::Error> for ServerError {
    fn from(error: mysql::Error) -> Self {
        if has_lost(&error) { Self::Gone(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// Whether an error is a lost connection's, and not what the server said.
fn has_lost(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::IoError(_) | mysql::Error::CodecError(_) | mysql::Error::DriverError(_))
}

/// Who made a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// The reference.
    MySql,
    /// What stands in for it.
    MariaDb,
}

impl Make {
    /// Its name in settings.
    const fn word(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
    /// Whether its program is installed: a `mysqld` may be MariaDB's.
    fn is_installed(self) -> bool {
        match self {
            Self::MySql => program("mysqld").is_some_and(|path| !is_mariadbs(&path)),
            Self::MariaDb => program("mariadbd").is_some(),
        }
    }
    /// Its name, read.
    pub(crate) fn named(word: &str) -> Option<Self> {
        [Self::MySql, Self::MariaDb].into_iter().find(|make| make.word() == word)
    }
}

/// A running server.
pub struct Server {
    admin: Mutex<Conn>,
    /// Raised when `admin` had to be connected anew, which is when the server was away.
    lives: AtomicU64,
    opts: Opts,
    make: Make,
    /// Whether it has MD5().
    md5: bool,
    /// Whether `_` and `%` stand for other characters in a grant.
    wildcards: bool,
    /// How long a statement may take, in seconds.
    limit: u64,
    /// Names of databases in use.
    names: Mutex<BTreeSet<String>>,
    freed: Condvar,
    /// Of one of our own.
    own: Option<Own>,
}

/// A server of our own, which ends with this.
struct Own {
    _end: End,
    /// Of its socket.
    folder: tempfile::TempDir,
}

/// What ends a server when it is dropped.
enum End {
    Sandbox(#[allow(dead_code, reason = "kept for its drop")] Sender<()>),
    Container(
        #[allow(dead_code, reason = "kept for its drop")] Container,
        #[allow(dead_code, reason = "likewise")] Box<dyn Write + Send + Sync>,
    ),
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    /// Whose private server can be had, if any: there has to be a box for it, too.
    #[must_use]
    pub fn installed() -> Option<Make> {
        let make = [Make::MySql, Make::MariaDb].into_iter().find(|make| make.is_installed());
        make.filter(|_| available().is_ok())
    }

    /// Starts a private one, of MySQL where that is installed.
    ///
    /// # Errors
    /// If there is none, or no sandbox, or it does not start.
    pub fn private() -> Result<Self, ServerError> {
        Self::private_of(None)
    }

    /// Starts a private one of that make.
    ///
    /// # Errors
    /// As [`Self::private`].
    pub fn private_of(make: Option<Make>) -> Result<Self, ServerError> {
        if Self::installed().is_none() {
            return Err(ServerError::NotInstalled);
        }
        if let Some(make) = make.filter(|make| !make.is_installed()) {
            return Err(ServerError::NoProgram(make));
        }
        let word = make.map_or("", Make::word);
        let folder = socket_folder()?;
        let (ended, end) = channel::<()>();
        let (started, start) = channel();
        let (said, heard) = channel();
        let path = folder.path().to_owned();
        // The sandbox dies with the thread that made it: this one lives as long as the server is wanted.
        std::thread::spawn(move || {
            let mounts = [Mount { from: &path, to: SOCKET_FOLDER, writable: true }];
            match service(&mounts, "/data", DISK, &["bash", "-c", START, "start", word]) {
                Err(error) => drop(started.send(Err(error))),
                Ok(mut child) => {
                    let output = child.stdout.take();
                    let _ = started.send(Ok(()));
                    std::thread::spawn(move || {
                        let lines = output.into_iter().flat_map(|o| BufReader::new(o).split(b'\n'));
                        lines.map_while(Result::ok).all(|mut line| {
                            line.push(b'\n');
                            said.send(line).is_ok()
                        })
                    });
                    let _ = end.recv();
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        start.recv().map_err(|e| ServerError::NotStarted(e.to_string()))??;
        Self::once_started(Own { _end: End::Sandbox(ended), folder }, heard)
    }

    /// Starts one in a container of a Docker image that holds MariaDB or MySQL, and bash.
    ///
    /// # Errors
    /// If Docker or the image is missing, or the server does not start.
    pub fn contained(image: &str) -> Result<Self, ServerError> {
        let folder = socket_folder()?;
        let mounts = [Mount { from: folder.path(), to: SOCKET_FOLDER, writable: true }];
        let (container, streams) = Container::start(image, &mounts, &["bash", "-c", START, "start", ""])?;
        Self::once_started(Own { _end: End::Container(container, streams.input), folder }, streams.output)
    }

    /// Waits until a server of our own takes connections; `output` is what it says.
    fn once_started(own: Own, output: Receiver<Vec<u8>>) -> Result<Self, ServerError> {
        let socket = own.folder.path().join("s");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (kept, over) = (said.clone(), Arc::new(AtomicBool::new(false)));
        let closed = over.clone();
        std::thread::spawn(move || {
            for piece in output {
                let mut kept = lock(&kept);
                kept.extend(piece);
                let excess = kept.len().saturating_sub(4096);
                kept.drain(..excess);
            }
            closed.store(true, Ordering::Relaxed);
        });
        let opts: Opts = OptsBuilder::new().socket(Some(socket.to_string_lossy())).user(Some("root")).into();
        let begun = Instant::now();
        loop {
            match Conn::new(opts.clone()) {
                Ok(conn) => return Self::with(conn, opts, Some(own)),
                Err(_) if begun.elapsed() < START_LIMIT && !over.load(Ordering::Relaxed) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    let said = String::from_utf8_lossy(&lock(&said)).trim().to_owned();
                    return Err(ServerError::NotStarted(format!("{error}\n{said}")));
                }
            }
        }
    }

    /// A server that runs already, `mysql://USER:PASSWORD@HOST:PORT`: the user must be allowed to make databases and users.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn at(url: &str) -> Result<Self, ServerError> {
        let opts = Opts::from_url(url).map_err(|e| ServerError::Failed(format!("`{}`: {e}", without_password(url))))?;
        let opts: Opts = OptsBuilder::from_opts(opts).tcp_connect_timeout(Some(Duration::from_secs(10))).into();
        let conn =
            Conn::new(opts.clone()).map_err(|e| ServerError::Failed(format!("`{}`: {e}", without_password(url))))?;
        Self::with(conn, opts, None)
    }

    fn with(mut conn: Conn, opts: Opts, own: Option<Own>) -> Result<Self, ServerError> {
        let version: Option<String> = conn.query_first("SELECT VERSION()")?;
        let make = if version.is_some_and(|v| v.contains("MariaDB")) { Make::MariaDb } else { Make::MySql };
        let wildcards = !matches!(conn.query_first::<u8, _>("SELECT @@partial_revokes"), Ok(Some(1)));
        let md5 = has_md5(&mut conn);
        Ok(Self {
            admin: Mutex::new(conn),
            lives: AtomicU64::new(0),
            opts,
            make,
            md5,
            wildcards,
            limit: STATEMENT_LIMIT,
            names: Mutex::default(),
            freed: Condvar::new(),
            own,
        })
    }

    /// Who made it.
    #[must_use]
    pub fn make(&self) -> Make {
        self.make
    }

    /// The same server with another limit of a statement's time, in seconds.
    #[must_use]
    pub fn with_limit(mut self, seconds: u64) -> Self {
        self.limit = seconds;
        self
    }

    /// Runs a statement as the server's owner.
    fn admin(&self, sql: &str) -> Result<(), mysql::Error> {
        let mut conn = lock(&self.admin);
        match conn.query_drop(sql) {
            Err(error) if has_lost(&error) => {
                *conn = Conn::new(self.opts.clone())?;
                self.lives.fetch_add(1, Ordering::Relaxed);
                conn.query_drop(sql)
            }
            done => done,
        }
    }

    /// Whether it was there all the time since it had so many lives.
    fn has_lived(&self, lives: u64) -> bool {
        let mut conn = lock(&self.admin);
        self.lives.load(Ordering::Relaxed) == lives && conn.ping().is_ok()
    }

    /// Whether a private one has ended, so that another can be started.
    pub(crate) fn has_ended(&self) -> bool {
        self.own.is_some() && !self.has_lived(0)
    }

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

/// An installed server program.
fn program(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

fn is_mariadbs(program: &Path) -> bool {
    let said = Command::new(program).args(["--no-defaults", "--version"]).output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("MariaDB"))
}

/// MySQL 9 has lost it to a component, which is the administrator's to install.
fn has_md5(conn: &mut Conn) -> bool {
    matches!(conn.query_first::<String, _>("SELECT MD5('a')"), Ok(Some(_)))
}

/// A folder for the socket of a server of our own.
fn socket_folder() -> Result<tempfile::TempDir, ServerError> {
    temporary_folder(PREFIX).map_err(|e| ServerError::NotStarted(e.to_string()))
}

/// A URL that can be shown.
fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
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
