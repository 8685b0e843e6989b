//! A server on this machine for tests of downloads: made-up files, and every way in which servers disappoint.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

/// What lies under an address.
#[derive(Clone, Default)]
pub(crate) struct Route {
    pub(crate) body: Vec<u8>,
    /// Whether a request may name a start.
    pub(crate) ranges: bool,
    /// Answers with these errors come first.
    pub(crate) errors: VecDeque<u16>,
    /// The next answers are cut off behind so many bytes of their body.
    pub(crate) cuts: VecDeque<usize>,
    /// Leads to another address.
    pub(crate) to: Option<String>,
    /// Does not say how long the body is.
    pub(crate) no_length: bool,
}

impl Route {
    pub(crate) fn file(body: impl Into<Vec<u8>>) -> Self {
        Route { body: body.into(), ranges: true, ..Route::default() }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) base: String,
    routes: Arc<Mutex<HashMap<String, Route>>>,
    /// Paths asked for, with where each request wanted to start.
    seen: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let routes = Arc::new(Mutex::new(HashMap::new()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Server { base, routes: Arc::clone(&routes), seen: Arc::clone(&seen) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is its own business.
                let _ = answer(&stream.unwrap(), &routes, &seen);
            }
        });
        server
    }

    /// Puts something under an address, which is given back.
    pub(crate) fn put(&self, path: &str, route: Route) -> String {
        self.routes.lock().unwrap().insert(path.to_owned(), route);
        format!("{}{path}", self.base)
    }

    pub(crate) fn file(&self, path: &str, body: impl Into<Vec<u8>>) -> String {
        self.put(path, Route::file(body))
    }

    /// Where each request for a path wanted to start.
    pub(crate) fn starts(&self, path: &str) -> Vec<usize> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(asked, _)| asked == path).map(|(_, start)| *start).collect()
    }
}

fn answer(
    mut stream: &TcpStream,
    routes: &Mutex<HashMap<String, Route>>,
    seen: &Mutex<Vec<(String, usize)>>,
) -> std::io::Result<()> {
    let (mut path, mut start) = (String::new(), 0);
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("GET /") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    seen.lock().unwrap().push((path.clone(), start));
    let (route, error, cut) = {
        let mut routes = routes.lock().unwrap();
        match routes.get_mut(&path) {
            None => (Route::default(), Some(404), None),
            Some(route) => {
                let error = route.errors.pop_front();
                let cut = if error.is_none() { route.cuts.pop_front() } else { None };
                (route.clone(), error, cut)
            }
        }
    };
    let end = "Connection: close\r\n";
    if let Some(status) = error {
        let page = "<html><title>Error</title></html>";
        let length = page.len();
        return write!(
            stream,
            "HTTP/1.1 {status} Error\r\n{end}Content-Length: {length}\r\n\r\n{page}"
        );
    }
    if let Some(to) = route.to {
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\n{end}Location: {to}\r\nContent-Length: 0\r\n\r\n"
        );
    }
    let all = route.body.len();
    let status = if route.ranges && start > 0 {
        if start >= all {
            return write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\n{end}Content-Length: 0\r\n\r\n"
            );
        }
        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{all}", all - 1)
    } else {
        start = 0;
        "200 OK".to_owned()
    };
    let body = &route.body[start..];
    let length =
        if route.no_length { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "HTTP/1.1 {status}\r\n{end}{length}\r\n")?;
    stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])
}

/// Whether there is a curl; says so where a test has to do without.
pub(crate) fn curl_is_here() -> bool {
    let here = Command::new("curl").arg("--version").output().is_ok();
    if !here {
        println!("skipped: there is no curl");
    }
    here
}
