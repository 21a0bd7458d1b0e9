//! A page-blob service over HTTP with correct lists of changes and with faults of the connection.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{
    Answer, BlobId, BlobsAsked, Changed, Checksum, Conditions, Deleted, Lease, Metadata, NewBlob,
    PageStore, PagesAsked, Properties, Sequence, Since,
};
use vhdkit::page::{ChangeKind, PageRange};

pub(crate) const ACCOUNT: &str = "vhdkittest";
pub(crate) const CONTAINER: &str = "disks";

/// A fault of the connection or the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Answers 503 with Retry-After and does nothing.
    Busy,
    /// Answers 500 and does nothing.
    Error,
    /// Performs the request but answers 500.
    ErrorAfter,
    /// Closes the connection without doing anything.
    Reset,
    /// Performs the request and closes the connection without an answer.
    ResetAfter,
    /// Cuts off the body of the answer.
    Cut,
    /// Changes a byte of the body.
    Wrong,
    /// Answers late.
    Slow,
    /// Answers 403.
    Forbidden,
    /// Lets another writer go first.
    OtherWriter,
}

/// The faults by the number of the request, from 0.
pub(crate) type Plan = dyn Fn(u64, &Request) -> Option<Wire> + Send + Sync;

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn comp(&self) -> &str {
        self.query.get("comp").map_or("", String::as_str)
    }

    fn range(&self) -> Option<(u64, u64)> {
        let range = self.header("x-ms-range")?.strip_prefix("bytes=")?;
        let (start, last) = range.split_once('-')?;
        Some((start.parse().unwrap(), last.parse::<u64>().unwrap() + 1))
    }

    fn metadata(&self) -> Metadata {
        let entries = self.headers.iter();
        entries
            .filter_map(|(name, value)| {
                Some((name.strip_prefix("x-ms-meta-")?.to_owned(), value.clone()))
            })
            .collect()
    }

    fn only_if(&self) -> Conditions {
        Conditions {
            etag: self.header("if-match").map(str::to_owned),
            absent: self.header("if-none-match") == Some("*"),
            lease: self.header("x-ms-lease-id").map(str::to_owned),
            sequence_at_most: self
                .header("x-ms-if-sequence-number-le")
                .map(|n| n.parse().unwrap()),
        }
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn refused(status: u16, code: &str) -> Self {
        let mut reply = Self::new(status).with("x-ms-error-code", code);
        reply.body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No: {code}.\nRequestId:1</Message></Error>").into_bytes();
        reply
    }
}

/// A running server, stopped when dropped.
pub(crate) struct Server {
    pub(crate) store: Arc<MemoryStore>,
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// State shared by all connections.
struct Shared {
    store: Arc<MemoryStore>,
    plan: Option<Box<Plan>>,
    requests: AtomicU64,
    /// Addresses of managed disks, and the snapshots that they are.
    disks: BTreeMap<String, BlobId>,
    /// What signatures must be.
    signature: String,
}

pub(crate) const SIGNATURE: &str = "c2VjcmV0LXNpZ25hdHVyZS1vZi10aGUtdGVzdHM%3D";

impl Server {
    pub(crate) fn start(store: MemoryStore, plan: Option<Box<Plan>>) -> Self {
        Self::with_disks(store, plan, &[])
    }

    /// Starts a server with managed disks, each given by its account and the blob snapshot that it serves.
    pub(crate) fn with_disks(
        store: MemoryStore,
        plan: Option<Box<Plan>>,
        disks: &[(&str, BlobId)],
    ) -> Self {
        Self::with(Arc::new(store), plan, disks)
    }

    /// Starts another server with the same blobs.
    pub(crate) fn over(store: Arc<MemoryStore>, plan: Option<Box<Plan>>) -> Self {
        Self::with(store, plan, &[])
    }

    fn with(store: Arc<MemoryStore>, plan: Option<Box<Plan>>, disks: &[(&str, BlobId)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            plan,
            requests: AtomicU64::new(0),
            disks: disks
                .iter()
                .map(|(account, id)| (format!("/{account}/{CONTAINER}/abcd"), id.clone()))
                .collect(),
            signature: percent_decoded(SIGNATURE),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let _ = shared.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self {
            store,
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Returns the address of a blob, with a signature.
    pub(crate) fn url(&self, blob: &str) -> String {
        format!(
            "http://{}/{ACCOUNT}/{CONTAINER}/{blob}?sv=2021-12-02&sp=rwdlac&sig={SIGNATURE}",
            self.address
        )
    }

    /// Returns the address of a managed disk, with a signature.
    pub(crate) fn disk_url(&self, account: &str) -> String {
        format!(
            "http://{}/{account}/{CONTAINER}/abcd?sv=2018-03-28&sr=b&sig={SIGNATURE}",
            self.address
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader)? {
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            let fault = self.plan.as_ref().and_then(|plan| plan(number, &request));
            let mut reply = match fault {
                Some(Wire::Busy) => Reply::refused(503, "ServerBusy").with("retry-after", 1),
                Some(Wire::Error) => Reply::refused(500, "OperationTimedOut"),
                Some(Wire::Forbidden) => Reply::refused(403, "AuthorizationFailure"),
                Some(Wire::Reset) => return Ok(()),
                _ => {
                    if fault == Some(Wire::OtherWriter) {
                        self.disturb(&request);
                    }
                    self.answer(&request)
                }
            };
            match fault {
                Some(Wire::ErrorAfter) => reply = Reply::refused(500, "InternalError"),
                Some(Wire::ResetAfter) => return Ok(()),
                Some(Wire::Slow) => thread::sleep(Duration::from_millis(20)),
                Some(Wire::Wrong) => {
                    let middle = reply.body.len() / 2;
                    if let Some(byte) = reply.body.get_mut(middle) {
                        *byte ^= 1;
                    }
                }
                _ => {}
            }
            let cut = fault == Some(Wire::Cut);
            write_reply(stream, &request, &reply, cut)?;
            if cut {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes to the blob as another program would.
    fn disturb(&self, request: &Request) {
        let Some(id) = self.blob(request) else { return };
        let live = BlobId::live(&id.name);
        let _ = self.store.lease(&live, &Lease::Break);
        let _ = self
            .store
            .set_sequence(&live, Sequence::Next, &Conditions::default());
    }

    fn blob(&self, request: &Request) -> Option<BlobId> {
        if let Some(id) = self.disks.get(&request.path) {
            return Some(id.clone());
        }
        let name = request
            .path
            .strip_prefix(&format!("/{ACCOUNT}/{CONTAINER}/"))?;
        let live = BlobId::live(name);
        Some(match request.query.get("snapshot") {
            Some(time) => live.at(time),
            None => live,
        })
    }

    fn answer(&self, request: &Request) -> Reply {
        if request.query.get("sig") != Some(&self.signature) {
            return Reply::refused(403, "AuthenticationFailed");
        }
        if request.header("x-ms-version").is_none() || request.header("x-ms-date").is_none() {
            return Reply::refused(400, "MissingRequiredHeader");
        }
        if request.query.get("restype").map(String::as_str) == Some("container") {
            return self.list(request);
        }
        let Some(id) = self.blob(request) else {
            return Reply::refused(404, "ContainerNotFound");
        };
        let is_disk = self.disks.contains_key(&request.path);
        if is_disk && request.only_if() != Conditions::default() {
            return Reply::refused(400, "UnsupportedHeader");
        }
        let answer = self.perform(request, &id);
        answer.unwrap_or_else(|failure| {
            Reply::refused(
                failure.status().unwrap_or(500),
                failure.code().unwrap_or("InternalError"),
            )
        })
    }

    fn perform(&self, request: &Request, id: &BlobId) -> Answer<Reply> {
        let (store, only_if) = (&self.store, request.only_if());
        let number = |name| {
            request
                .header(name)
                .map(|value| value.parse::<u64>().unwrap())
        };
        Ok(match (request.method.as_str(), request.comp()) {
            ("HEAD", "") => properties(&store.properties(id)?),
            ("GET", "") => return self.read(request, id, &only_if),
            ("GET", "pagelist") => return self.pages(request, id, &only_if),
            ("PUT", "") => {
                let new = NewBlob {
                    size: number("x-ms-blob-content-length").unwrap(),
                    sequence: number("x-ms-blob-sequence-number").unwrap_or(0),
                    metadata: request.metadata(),
                };
                changed(201, store.create(id, &new, &only_if)?)
            }
            ("PUT", "page") => return self.write(request, id, &only_if),
            ("PUT", "properties") => {
                let done = match (
                    number("x-ms-blob-content-length"),
                    request.header("x-ms-sequence-number-action"),
                ) {
                    (Some(size), _) => store.resize(id, size, &only_if)?,
                    (None, Some("increment")) => {
                        store.set_sequence(id, Sequence::Next, &only_if)?
                    }
                    (None, Some(action)) => {
                        let number = number("x-ms-blob-sequence-number").unwrap();
                        let sequence = if action == "max" {
                            Sequence::AtLeast(number)
                        } else {
                            Sequence::Set(number)
                        };
                        store.set_sequence(id, sequence, &only_if)?
                    }
                    (None, None) => return Ok(Reply::refused(400, "MissingRequiredHeader")),
                };
                changed(200, done)
            }
            ("PUT", "metadata") => {
                changed(200, store.set_metadata(id, &request.metadata(), &only_if)?)
            }
            ("PUT", "snapshot") => Reply::new(201).with(
                "x-ms-snapshot",
                store.snapshot(id, &request.metadata(), &only_if)?,
            ),
            ("PUT", "lease") => {
                let of = |name| request.header(name).unwrap_or_default().to_owned();
                let (lease, status) = match request.header("x-ms-lease-action") {
                    Some("acquire") => (Lease::Acquire(of("x-ms-proposed-lease-id"), None), 201),
                    Some("renew") => (Lease::Renew(of("x-ms-lease-id")), 200),
                    Some("release") => (Lease::Release(of("x-ms-lease-id")), 200),
                    _ => (Lease::Break, 202),
                };
                store.lease(id, &lease)?;
                Reply::new(status)
            }
            ("DELETE", "") => {
                let all = request.header("x-ms-delete-snapshots") == Some("include");
                let what = if all {
                    Deleted::WithSnapshots
                } else {
                    Deleted::Itself
                };
                store.delete(id, what, &only_if)?;
                Reply::new(202)
            }
            _ => Reply::refused(400, "InvalidQueryParameterValue"),
        })
    }

    fn read(&self, request: &Request, id: &BlobId, only_if: &Conditions) -> Answer<Reply> {
        let size = self.store.properties(id)?.size;
        let (start, end) = request.range().unwrap_or((0, size));
        let end = end.min(size);
        if start >= end {
            return Ok(Reply::refused(416, "InvalidRange"));
        }
        let mut body = vec![0; (end - start) as usize];
        self.store.read(id, start, &mut body, only_if)?;
        let mut reply =
            Reply::new(206).with("content-range", format!("bytes {start}-{}/{size}", end - 1));
        for (asked, sum) in [
            ("x-ms-range-get-content-crc64", Checksum::Crc64),
            ("x-ms-range-get-content-md5", Checksum::Md5),
        ] {
            if request.header(asked) == Some("true") {
                reply = reply.with(sum.header(), sum.of(&body));
            }
        }
        reply.body = body;
        Ok(reply)
    }

    fn write(&self, request: &Request, id: &BlobId, only_if: &Conditions) -> Answer<Reply> {
        let (start, end) = request.range().unwrap();
        if request.header("x-ms-page-write") == Some("clear") {
            return Ok(changed(
                201,
                self.store
                    .clear_pages(id, PageRange::covering(start, end), only_if)?,
            ));
        }
        let mut checked = false;
        for (sum, code) in [
            (Checksum::Crc64, "Crc64Mismatch"),
            (Checksum::Md5, "Md5Mismatch"),
        ] {
            if let Some(sent) = request.header(sum.header()) {
                if sent != sum.of(&request.body) {
                    return Ok(Reply::refused(400, code));
                }
                checked = true;
            }
        }
        if !checked || request.body.len() as u64 != end - start {
            return Ok(Reply::refused(400, "InvalidHeaderValue"));
        }
        Ok(changed(
            201,
            self.store.put_pages(id, start, &request.body, only_if)?,
        ))
    }

    fn pages(&self, request: &Request, id: &BlobId, only_if: &Conditions) -> Answer<Reply> {
        let since = match request.header("x-ms-previous-snapshot-url") {
            Some(url) => {
                let path = url.split_once("://").unwrap().1.split_once('/').unwrap().1;
                let (path, query) = path.split_once('?').unwrap_or((path, ""));
                let signed = query
                    .split('&')
                    .any(|part| part == format!("sig={SIGNATURE}"));
                match self.disks.get(&format!("/{path}")) {
                    Some(before) if signed => before.snapshot.clone().map(Since::Snapshot),
                    _ => return Ok(Reply::refused(404, "BlobNotFound")),
                }
            }
            None => request
                .query
                .get("prevsnapshot")
                .cloned()
                .map(Since::Snapshot),
        };
        let asked = PagesAsked {
            within: request
                .range()
                .map(|(start, end)| PageRange::covering(start, end)),
            since,
            marker: request.query.get("marker").cloned(),
            max: request
                .query
                .get("maxresults")
                .map(|max| max.parse().unwrap()),
        };
        let pages = self.store.pages(id, &asked, only_if)?;
        let mut xml = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>");
        for change in &pages.list {
            let kind = match change.kind {
                ChangeKind::Update => "PageRange",
                ChangeKind::Clear => "ClearRange",
            };
            let (start, last) = (change.range.start(), change.range.end() - 1);
            xml += &format!("<{kind}><Start>{start}</Start><End>{last}</End></{kind}>");
        }
        xml += &format!(
            "<NextMarker>{}</NextMarker></PageList>",
            pages.marker.unwrap_or_default()
        );
        let mut reply = Reply::new(200);
        if let Some(size) = pages.size {
            reply = reply.with("x-ms-blob-content-length", size);
        }
        reply.body = xml.into_bytes();
        Ok(reply)
    }

    fn list(&self, request: &Request) -> Reply {
        if request.method == "PUT" {
            return Reply::refused(409, "ContainerAlreadyExists");
        }
        let asked = BlobsAsked {
            prefix: request.query.get("prefix").cloned().unwrap_or_default(),
            snapshots: request
                .query
                .get("include")
                .is_some_and(|include| include.contains("snapshots")),
            marker: request.query.get("marker").cloned(),
            max: request
                .query
                .get("maxresults")
                .map(|max| max.parse().unwrap()),
        };
        let blobs = self.store.blobs(&asked).unwrap();
        let mut xml = String::from("<EnumerationResults><Blobs>");
        for blob in &blobs.list {
            let p = &blob.properties;
            xml += &format!("<Blob><Name>{}</Name>", blob.id.name);
            if let Some(time) = &blob.id.snapshot {
                xml += &format!("<Snapshot>{time}</Snapshot>");
            }
            xml += &format!(
                "<Properties><Content-Length>{}</Content-Length><Etag>{}</Etag><BlobType>PageBlob</BlobType></Properties><Metadata>",
                p.size,
                p.etag.trim_matches('"')
            );
            for (name, value) in &p.metadata {
                xml += &format!("<{name}>{value}</{name}>");
            }
            xml += "</Metadata></Blob>";
        }
        xml += &format!(
            "</Blobs><NextMarker>{}</NextMarker></EnumerationResults>",
            blobs.marker.unwrap_or_default()
        );
        let mut reply = Reply::new(200);
        reply.body = xml.into_bytes();
        reply
    }
}

fn properties(p: &Properties) -> Reply {
    let mut reply = Reply::new(200)
        .with("x-ms-blob-type", "PageBlob")
        .with("x-ms-blob-sequence-number", p.sequence)
        .with(
            "x-ms-lease-state",
            if p.leased { "leased" } else { "available" },
        )
        .with("etag", &p.etag)
        .with("head-length", p.size);
    for (name, value) in &p.metadata {
        // Header names may be in any case.
        let name: &'static str = Box::leak(format!("x-ms-meta-{name}").into_boxed_str());
        reply = reply.with(name, value);
    }
    reply
}

fn changed(status: u16, done: Changed) -> Reply {
    let mut reply = Reply::new(status);
    if let Some(etag) = done.etag {
        reply = reply.with("etag", etag);
    }
    if let Some(number) = done.sequence {
        reply = reply.with("x-ms-blob-sequence-number", number);
    }
    reply
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers
        .get("content-length")
        .map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decoded(value)))
        .collect();
    Ok(Some(Request {
        method,
        path: percent_decoded(path),
        query,
        headers,
        body,
    }))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn write_reply(
    mut stream: &TcpStream,
    request: &Request,
    reply: &Reply,
    cut: bool,
) -> std::io::Result<()> {
    let mut len = reply.body.len().to_string();
    let mut head = format!(
        "HTTP/1.1 {} X\r\nserver: test\r\nx-ms-request-id: 0001\r\n",
        reply.status
    );
    for (name, value) in &reply.headers {
        if *name == "head-length" {
            len.clone_from(value);
        } else {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += &format!("content-length: {len}\r\n\r\n");
    let mut bytes = head.into_bytes();
    if request.method != "HEAD" {
        bytes.extend_from_slice(&reply.body);
    }
    let all = bytes.len();
    stream.write_all(&bytes[..if cut { all - all / 3 } else { all }])
}
