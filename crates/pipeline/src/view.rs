//! A report's page, served to browsers on this machine that do not let a page opened as a file load what lies beside it.

use rolegraft_report::DATA;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tiny_http::{Header, Request, Response, Server};

const PAGE: &str = "report.html";
/// How long a stop may go unnoticed.
const WAIT: Duration = Duration::from_millis(100);

/// Why a page cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ViewError {
    #[error("`{}` holds no `{PAGE}`; give the directory of a finished run, or make one with `rolegraft report LOG… --html DIR`", .0.display())]
    NoPage(PathBuf),
    #[error("cannot listen on port {port}: {source}")]
    Listen { port: u16, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the connection failed")]
    Receive(#[source] io::Error),
}

/// Serves `report.html` and the episodes beside it on 127.0.0.1 until `stop`; a port of 0 is any that is free.
/// `listening` hears the address.
///
/// # Errors
/// If there is no page, or the port is taken.
pub fn view(dir: &Path, port: u16, stop: &AtomicBool, listening: &mut dyn FnMut(SocketAddr)) -> Result<(), ViewError> {
    if !dir.join(PAGE).is_file() {
        return Err(ViewError::NoPage(dir.to_owned()));
    }
    let server = Server::http((Ipv4Addr::LOCALHOST, port)).map_err(|source| ViewError::Listen { port, source })?;
    let Some(address) = server.server_addr().to_ip() else { return Ok(()) };
    listening(address);
    while !stop.load(Ordering::Relaxed) {
        if let Some(request) = server.recv_timeout(WAIT).map_err(ViewError::Receive)? {
            // A browser that went away is no error.
            let _ = answer(dir, address, request);
        }
    }
    Ok(())
}

fn answer(dir: &Path, address: SocketAddr, request: Request) -> io::Result<()> {
    // A name that a foreign site points at this machine is not ours.
    let host = request.headers().iter().find(|h| h.field.equiv("Host")).map(|h| h.value.as_str().to_owned());
    let ours = [address.to_string(), format!("localhost:{}", address.port())];
    let known = host.is_some_and(|host| ours.contains(&host));
    let file = served(request.url()).filter(|_| known && request.method() == &tiny_http::Method::Get);
    let opened = file.and_then(|(name, kind)| Some((std::fs::File::open(inside(dir, &name)?).ok()?, kind)));
    let Some((file, kind)) = opened else { return request.respond(Response::empty(404)) };
    let mut response = Response::from_file(file);
    for (field, value) in [("Content-Type", kind), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    {
        response.add_header(Header::from_bytes(field, value).map_err(|()| io::ErrorKind::InvalidInput)?);
    }
    request.respond(response)
}

/// The file that a path stands for, and its type: the page and its data, nothing else.
fn served(url: &str) -> Option<(String, &'static str)> {
    let path = url.split('?').next()?.strip_prefix('/')?;
    if path.is_empty() || path == PAGE {
        return Some((PAGE.to_owned(), "text/html; charset=utf-8"));
    }
    let script = path.strip_prefix(DATA)?.strip_prefix('/')?.strip_suffix(".js")?;
    let plain = !script.is_empty() && script.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| (path.to_owned(), "text/javascript; charset=utf-8"))
}

/// A file of `dir`, if no link leads out of it.
fn inside(dir: &Path, name: &str) -> Option<PathBuf> {
    let (dir, file) = (dir.canonicalize().ok()?, dir.join(name).canonicalize().ok()?);
    file.starts_with(dir).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_and_its_data_are_served() {
        assert_eq!(served("/").unwrap().0, "report.html");
        assert_eq!(served("/report.html?x=1").unwrap().0, "report.html");
        assert_eq!(served("/report-data/12.js").unwrap().0, "report-data/12.js");
        for other in
            ["/run.json", "/report-data/", "/report-data/../run.js", "/report-data/a/b.js", "//etc/passwd", "/..", ""]
        {
            assert_eq!(served(other), None, "{other}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("out.js"), "").unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::os::unix::fs::symlink(dir.path().join("out.js"), run.join("in.js")).unwrap();
        assert_eq!(inside(&run, "in.js"), None);
    }
}
