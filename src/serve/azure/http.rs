//! HTTP/1.1 as far as clients of the service use it: one request at a time on a connection, and limits on everything that a
//! client controls.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::text::percent_decoded;
use crate::error::Result;
use crate::page::to_usize;

/// The longest head of a request: its first line and its headers.
const LONGEST_HEAD: usize = 64 << 10;

/// The most headers of a request.
const MOST_HEADERS: usize = 128;

/// The longest accepted body: the largest put, and some room for others.
pub(super) const LONGEST_BODY: u64 = 4 << 20;

/// Bytes of an overlong body that are read before it is refused: a client that is still sending may not read the refusal.
const MOST_DRAINED: u64 = 64 << 20;

/// Time limit for the head of a request, and for its body or a piece of a response.
const HEAD_TIME: Duration = Duration::from_secs(30);
const BODY_TIME: Duration = Duration::from_secs(300);

/// A connection, encrypted or not.
pub(super) trait Stream: Read + Write {
    /// Sets the time limit for all further reads.
    fn read_within(&self, limit: Duration);

    /// Sets the time limit for all further writes.
    fn write_within(&self, limit: Duration);
}

/// A request.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// As it was sent, percent-encoded, without the query.
    pub(super) raw_path: String,
    /// Decoded.
    pub(super) path: String,
    /// Decoded names and values, in order.
    pub(super) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the body was longer than [`LONGEST_BODY`], and so isn't here.
    pub(super) too_long: bool,
    /// Whether it came through TLS.
    pub(super) tls: bool,
    /// The sender.
    pub(super) peer: Option<std::net::IpAddr>,
}

impl Request {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The value of a header, if there is one that isn't empty.
    pub(super) fn said(&self, name: &str) -> Option<&str> {
        self.header(name).filter(|value| !value.is_empty())
    }

    /// The value of a parameter of the query; the case of its name doesn't matter.
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter();
        let found = found.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The address by which the client reaches this server.
    pub(super) fn root(&self, fallback: &str) -> String {
        let host = self.said("host").filter(|host| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
            host.bytes().all(good)
        });
        let scheme = if self.tls { "https" } else { "http" };
        host.map_or_else(|| fallback.to_owned(), |host| format!("{scheme}://{host}"))
    }
}

/// The body of a response.
pub(super) enum Body {
    Bytes(Vec<u8>),
    /// A body of this many bytes, sent in pieces.
    Pieces(u64, Box<dyn Iterator<Item = Result<Vec<u8>>> + Send>),
    /// No body, but the length that GET would return: for HEAD.
    Length(u64),
}

/// A response.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Headers whose names aren't fixed: metadata.
    pub(super) more: Vec<(String, String)>,
    pub(super) body: Body,
}

impl Response {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            more: Vec::new(),
            body: Body::Bytes(Vec::new()),
        }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    #[must_use]
    pub(super) fn with_body(mut self, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        self.headers.push(("content-type", kind.to_owned()));
        self.body = Body::Bytes(body.into());
        self
    }
}

/// The reason for which a request couldn't be read.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client disconnected, or took too long.
    Gone,
    /// It isn't supported HTTP; the status to respond with.
    Bad(u16),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Reads requests from a connection.
pub(super) struct Reader {
    /// Bytes that were read and not used yet.
    buffer: Vec<u8>,
    idle: Duration,
}

impl Reader {
    /// Maximum idle time between requests.
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            buffer: Vec::new(),
            idle,
        }
    }

    /// The next request.
    pub(super) fn next(&mut self, stream: &mut dyn Stream) -> Result<Request, Ended> {
        let (mut request, length) = self.head(stream)?;
        let expects = request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if expects && !matches!(length, Length::Known(0)) {
            stream.write_within(HEAD_TIME);
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.flush()?;
        }
        let deadline = Instant::now() + BODY_TIME;
        match length {
            Length::Known(length) if length > LONGEST_BODY => {
                if length > MOST_DRAINED {
                    return Err(Ended::Bad(413));
                }
                self.drain(stream, length, deadline)?;
                request.too_long = true;
            }
            Length::Known(length) => {
                request.body = self.take(stream, to_usize(length), deadline)?;
            }
            Length::Chunked => self.chunks(stream, &mut request, deadline)?,
        }
        Ok(request)
    }

    fn head(&mut self, stream: &mut dyn Stream) -> Result<(Request, Length), Ended> {
        let mut deadline = None;
        loop {
            if self.buffer.is_empty() {
                self.more(stream, Instant::now() + self.idle)?;
                continue;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + HEAD_TIME);
            if let Some(parsed) = self.parse()? {
                return Ok(parsed);
            }
            if self.buffer.len() >= LONGEST_HEAD {
                return Err(Ended::Bad(431));
            }
            self.more(stream, deadline)?;
        }
    }

    /// The head of a request, if all of it is here.
    fn parse(&mut self) -> Result<Option<(Request, Length)>, Ended> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let used = match parsed.parse(&self.buffer) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Ended::Bad(400)),
        };
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(Ended::Bad(400));
        };
        let mut request = Request {
            method: method.to_owned(),
            ..Request::default()
        };
        for header in parsed.headers.iter() {
            let value = std::str::from_utf8(header.value).map_err(|_| Ended::Bad(400))?;
            let name = header.name.to_ascii_lowercase();
            // Two lengths could hide one request in another.
            let twice = matches!(
                name.as_str(),
                "content-length" | "transfer-encoding" | "host"
            ) && request.header(&name).is_some();
            if twice {
                return Err(Ended::Bad(400));
            }
            request.headers.push((name, value.trim().to_owned()));
        }
        let target = absolute(target);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        path.clone_into(&mut request.raw_path);
        request.path = percent_decoded(path, false).ok_or(Ended::Bad(400))?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decoded(name, true).zip(percent_decoded(value, true));
            request.query.push(decoded.ok_or(Ended::Bad(400))?);
        }
        let coding = request.header("transfer-encoding");
        let length = match (coding, request.header("content-length")) {
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Length::Chunked,
            (None, Some(length)) if length.bytes().all(|b| b.is_ascii_digit()) => {
                Length::Known(length.parse().map_err(|_| Ended::Bad(400))?)
            }
            (None, None) => Length::Known(0),
            _ => return Err(Ended::Bad(400)),
        };
        self.buffer.drain(..used);
        Ok(Some((request, length)))
    }

    fn chunks(
        &mut self,
        stream: &mut dyn Stream,
        request: &mut Request,
        deadline: Instant,
    ) -> Result<(), Ended> {
        let mut whole = 0_u64;
        loop {
            let line = self.line(stream, deadline)?;
            let digits = line.split(';').next().unwrap_or("").trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| Ended::Bad(400))?;
            if length == 0 {
                // Trailers, which aren't used, end with an empty line.
                while !self.line(stream, deadline)?.is_empty() {}
                return Ok(());
            }
            whole = whole.saturating_add(length);
            if whole > MOST_DRAINED {
                return Err(Ended::Bad(413));
            }
            if whole > LONGEST_BODY {
                request.too_long = true;
                request.body = Vec::new();
                self.drain(stream, length, deadline)?;
            } else {
                let chunk = self.take(stream, to_usize(length), deadline)?;
                request.body.extend(chunk);
            }
            if !self.line(stream, deadline)?.is_empty() {
                return Err(Ended::Bad(400));
            }
        }
    }

    /// A line without its end.
    fn line(&mut self, stream: &mut dyn Stream, deadline: Instant) -> Result<String, Ended> {
        const LONGEST_LINE: usize = 8 << 10;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| Ended::Bad(400));
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(Ended::Bad(400));
            }
            self.more(stream, deadline)?;
        }
    }

    fn take(
        &mut self,
        stream: &mut dyn Stream,
        len: usize,
        deadline: Instant,
    ) -> Result<Vec<u8>, Ended> {
        while self.buffer.len() < len {
            self.more(stream, deadline)?;
        }
        let rest = self.buffer.split_off(len);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn drain(
        &mut self,
        stream: &mut dyn Stream,
        mut len: u64,
        deadline: Instant,
    ) -> Result<(), Ended> {
        loop {
            let here = u64::try_from(self.buffer.len())
                .unwrap_or(u64::MAX)
                .min(len);
            self.buffer.drain(..to_usize(here));
            len -= here;
            if len == 0 {
                return Ok(());
            }
            self.more(stream, deadline)?;
        }
    }

    /// Reads the available bytes.
    fn more(&mut self, stream: &mut dyn Stream, deadline: Instant) -> Result<(), Ended> {
        const PIECE: usize = 64 << 10;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ended::Gone);
        }
        stream.read_within(left);
        let before = self.buffer.len();
        self.buffer.resize(before + PIECE, 0);
        let read = stream.read(self.buffer.get_mut(before..).unwrap_or_default());
        self.buffer
            .truncate(before + read.as_ref().copied().unwrap_or(0));
        match read? {
            0 => Err(Ended::Gone),
            _ => Ok(()),
        }
    }
}

enum Length {
    Known(u64),
    Chunked,
}

/// A target as a path: a client that takes this server for its proxy sends whole addresses, in whose host the account is.
fn absolute(target: &str) -> String {
    let Some((_, rest)) = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'))
    else {
        return target.to_owned();
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let account = authority.split(['.', ':']).next().unwrap_or(authority);
    format!("/{account}/{path}")
}

/// Sends a response; `false` if the connection has to be closed.
pub(super) fn answer(
    stream: &mut dyn Stream,
    request: Option<&Request>,
    response: Response,
) -> io::Result<bool> {
    use std::fmt::Write as _;
    let is_head = request.is_some_and(|request| request.method == "HEAD");
    let close = request.is_none_or(|request| {
        request
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    });
    let length = match &response.body {
        Body::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        Body::Pieces(length, _) | Body::Length(length) => *length,
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        response.status,
        reason(response.status)
    );
    let named = response.headers.iter().map(|(name, value)| (*name, value));
    let more = response
        .more
        .iter()
        .map(|(name, value)| (name.as_str(), value));
    for (name, value) in named.chain(more) {
        // A value can't start another header.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if response.status != 204 {
        let _ = write!(head, "content-length: {length}\r\n");
    }
    let _ = write!(
        head,
        "connection: {}\r\n\r\n",
        if close { "close" } else { "keep-alive" }
    );
    let mut out = head.into_bytes();
    stream.write_within(BODY_TIME);
    match response.body {
        Body::Bytes(bytes) if !is_head => {
            out.extend(bytes);
            stream.write_all(&out)?;
        }
        Body::Pieces(length, pieces) if !is_head => {
            stream.write_all(&out)?;
            let mut left = length;
            for piece in pieces {
                // The head has been sent: an error can only be indicated by closing the connection.
                let piece = piece.map_err(io::Error::other)?;
                left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                stream.write_within(BODY_TIME);
                stream.write_all(&piece)?;
            }
            if left > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        _ => stream.write_all(&out)?,
    }
    stream.flush()?;
    Ok(!close)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Told {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            // In small pieces: nothing may depend on how the input is split.
            let len = buf.len().min(7);
            self.0.read(&mut buf[..len])
        }
    }

    impl Write for Told {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.1.write(buf)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Told {
        fn read_within(&self, _: Duration) {}

        fn write_within(&self, _: Duration) {}
    }

    fn told(text: &[u8]) -> Told {
        Told(io::Cursor::new(text.to_vec()), Vec::new())
    }

    fn first(text: &str) -> Result<Request, Ended> {
        Reader::new(Duration::from_secs(9)).next(&mut told(text.as_bytes()))
    }

    #[test]
    fn requests_follow_each_other() {
        let mut stream = told(
            b"PUT /a/c/b%20c?comp=page&x=%2F+1 HTTP/1.1\r\nHost: h:1\r\nExpect: 100-continue\r\n\
              Content-Length: 5\r\n\r\nhelloGET http://md-1.blob.example/c/abcd?sig=x HTTP/1.1\r\n\r\n\
              PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
        );
        let mut reader = Reader::new(Duration::from_secs(9));
        let put = reader.next(&mut stream).unwrap();
        assert_eq!(
            (put.raw_path.as_str(), put.path.as_str()),
            ("/a/c/b%20c", "/a/c/b c")
        );
        assert_eq!(
            (put.asked("COMP"), put.asked("x")),
            (Some("page"), Some("/ 1"))
        );
        assert_eq!(
            (&put.body[..], put.header("host")),
            (&b"hello"[..], Some("h:1"))
        );
        assert!(stream.1.starts_with(b"HTTP/1.1 100 "));
        let get = reader.next(&mut stream).unwrap();
        assert_eq!(get.path, "/md-1/c/abcd");
        assert_eq!(reader.next(&mut stream).unwrap().body, b"abcde");
        assert!(matches!(reader.next(&mut stream), Err(Ended::Gone)));
    }

    #[test]
    fn what_is_too_long_or_not_http_is_refused() {
        for (text, status) in [
            ("HELO x\r\n\r\n".to_owned(), 400),
            ("GET /%zz HTTP/1.1\r\n\r\n".to_owned(), 400),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
                400,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
                400,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                    .to_owned(),
                400,
            ),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
                400,
            ),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
                400,
            ),
            (
                format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", u64::MAX),
                413,
            ),
            (
                format!("GET /{} HTTP/1.1\r\n", "x".repeat(LONGEST_HEAD)),
                431,
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\n{}\r\n",
                    "a: b\r\n".repeat(MOST_HEADERS + 1)
                ),
                400,
            ),
        ] {
            match first(&text) {
                Err(Ended::Bad(found)) => assert_eq!(found, status, "{text:.60}"),
                other => panic!("{text:.60}: {other:?}"),
            }
        }
        let length = LONGEST_BODY + 512;
        let long = format!(
            "PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(to_usize(length))
        );
        let request = Reader::new(Duration::from_secs(9))
            .next(&mut told(long.as_bytes()))
            .unwrap();
        assert!(request.too_long && request.body.is_empty());
    }

    #[test]
    fn a_value_can_not_begin_another_header() {
        let mut stream = told(b"");
        let response = Response::new(200).with("x-ms-a", "1\r\nset-cookie: 2");
        assert!(!answer(&mut stream, None, response).unwrap());
        let sent = String::from_utf8(stream.1).unwrap();
        assert!(sent.contains("x-ms-a: 1set-cookie: 2\r\n"), "{sent}");
    }
}
