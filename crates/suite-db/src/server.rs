//! A real server: one that runs already, or a private one, which is MySQL or MariaDB in a sandbox: no network, its data on a tmpfs
//! of limited size, reached through a socket. It ends with us, however we end.

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};
use rolegraft_suite::docker::Container;
use rolegraft_suite::sandbox::{Mount, SandboxError, available, service, temporary_folder};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
pub(crate) fn has_lost(error: &mysql::Error) -> bool {
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
    pub(crate) lives: AtomicU64,
    pub(crate) opts: Opts,
    pub(crate) make: Make,
    /// Whether it has MD5().
    pub(crate) md5: bool,
    /// Whether `_` and `%` stand for other characters in a grant.
    pub(crate) wildcards: bool,
    /// How long a statement may take, in seconds.
    pub(crate) limit: u64,
    /// Names of databases in use.
    pub(crate) names: Mutex<BTreeSet<String>>,
    pub(crate) freed: Condvar,
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) fn admin(&self, sql: &str) -> Result<(), mysql::Error> {
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
    pub(crate) fn has_lived(&self, lives: u64) -> bool {
        let mut conn = lock(&self.admin);
        self.lives.load(Ordering::Relaxed) == lives && conn.ping().is_ok()
    }

    /// Whether a private one has ended, so that another can be started.
    pub(crate) fn has_ended(&self) -> bool {
        self.own.is_some() && !self.has_lived(0)
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
