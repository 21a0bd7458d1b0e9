//! The page-blob service over HTTP: each method of [`PageStore`] is one request.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::checksum::Checksum;
use super::credential::Credential;
use super::failure::{Done, Failure, Refusal, Task};
use super::http::{Call, Http, Reply};
use super::name::encoded;
use super::secret::Secret;
use super::store::{
    Answer, BlobId, BlobKind, Blobs, BlobsAsked, Changed, Conditions, Deleted, Lease, MAX_PUT,
    Metadata, NewBlob, PageStore, Pages, PagesAsked, Properties, Sequence, Since,
};
use super::{BlobName, list, times};
use crate::error::{Error, ErrorKind, Result};
use crate::page::PageRange;

/// The API version of requests: the first one with paged lists is a year older.
const VERSION: &str = "2021-12-02";

/// The longest list that is read; and the longest error response.
const LONGEST_LIST: u64 = 32 << 20;
const LONGEST_REFUSAL: u64 = 64 << 10;

/// The prefix of metadata headers.
const METADATA: &str = "x-ms-meta-";

/// A container on the service, or on a compatible server.
#[derive(Debug)]
pub struct Rest {
    container: BlobName,
    /// The name of everything in it in messages, if it has one of its own.
    called: Option<PathBuf>,
    credential: Credential,
    http: Arc<Http>,
    /// The checksums that the server is known to accept and to return.
    put: Level,
    get: Level,
}

/// The best checksum that a server supports, found by trying better ones first.
#[derive(Debug, Default)]
struct Level(AtomicU8);

impl Level {
    fn checksum(&self) -> Option<Checksum> {
        match self.0.load(Ordering::Relaxed) {
            0 => Some(Checksum::Crc64),
            1 => Some(Checksum::Md5),
            _ => None,
        }
    }

    /// Switches to the next worse one after `refused`.
    fn lower(&self, refused: Checksum) {
        let next = match refused {
            Checksum::Crc64 => 1,
            Checksum::Md5 => 2,
        };
        self.0.fetch_max(next, Ordering::Relaxed);
    }
}

/// A request before it is signed.
struct Draft<'a> {
    method: &'static str,
    task: Task,
    /// `None` means the container.
    blob: Option<&'a BlobId>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    metadata: Option<&'a Metadata>,
    body: &'a [u8],
    /// The status of a successful response.
    expected: u16,
}

impl<'a> Draft<'a> {
    fn new(method: &'static str, task: Task, blob: Option<&'a BlobId>, expected: u16) -> Self {
        Self {
            method,
            task,
            blob,
            query: Vec::new(),
            headers: Vec::new(),
            metadata: None,
            body: &[],
            expected,
        }
    }

    fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    fn header(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn metadata(mut self, metadata: &'a Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    fn only_if(mut self, conditions: &Conditions) -> Self {
        if let Some(etag) = &conditions.etag {
            self = self.header("if-match", etag);
        }
        if conditions.absent {
            self = self.header("if-none-match", "*");
        }
        if let Some(lease) = &conditions.lease {
            self = self.header("x-ms-lease-id", lease);
        }
        if let Some(most) = conditions.sequence_at_most {
            self = self.header("x-ms-if-sequence-number-le", most);
        }
        self
    }
}

impl Rest {
    /// The container of `name`, accessed with `credential`.
    pub fn new(name: &BlobName, credential: Credential, http: Arc<Http>) -> Self {
        Self {
            container: name.sibling("", None),
            called: None,
            credential,
            http,
            put: Level::default(),
            get: Level::default(),
        }
    }

    /// The managed disk called `called`, to which `name` grants access.
    pub(crate) fn granted(name: &BlobName, called: PathBuf, http: Arc<Http>) -> Self {
        let credential = match name.sas() {
            Some(sas) => Credential::of_signature(sas.clone(), "the access that was granted"),
            None => Credential::none(),
        };
        Self {
            called: Some(called),
            ..Self::new(name, credential, http)
        }
    }

    /// The HTTP client for requests.
    pub fn http(&self) -> &Arc<Http> {
        &self.http
    }

    /// The credentials for requests.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    fn send(&self, draft: &Draft<'_>) -> Answer<Reply<'_>> {
        let name = self.name_of(draft.blob);
        let reply = self.send_once(draft, name.as_path())?;
        if reply.status() == draft.expected {
            return Ok(reply);
        }
        let refusal = refusal(reply);
        if refusal.status == 401 && self.credential.renew() {
            // The token has expired early.
            let reply = self.send_once(draft, name.as_path())?;
            if reply.status() == draft.expected {
                return Ok(reply);
            }
            return Err(self.refused(draft, &name, self::refusal(reply)));
        }
        Err(self.refused(draft, &name, refusal))
    }

    fn refused(&self, draft: &Draft<'_>, name: &Path, refusal: Refusal) -> Failure {
        if (200..400).contains(&refusal.status) && refusal.status != 304 {
            let error = Error::new(
                ErrorKind::Unsupported,
                "the server doesn't answer as the service does",
            )
            .with_path(name)
            .with_found(format_args!("status {}", refusal.status))
            .with_expected(format_args!("status {}", draft.expected))
            .with_hint("check the address, and what is between here and the service");
            return Failure::lasting(error).answered(refusal.status, refusal.code);
        }
        refusal.failure(draft.task, name, self.credential.access(), times::now())
    }

    fn send_once(&self, draft: &Draft<'_>, name: &Path) -> Answer<Reply<'_>> {
        let nothing = Metadata::new();
        let metadata = draft.metadata.unwrap_or(&nothing);
        check_metadata(metadata, name)?;
        let names: Vec<String> = metadata
            .keys()
            .map(|key| format!("{METADATA}{key}"))
            .collect();
        let mut all: Vec<(&str, String)> = draft.headers.clone();
        all.extend(
            names
                .iter()
                .map(String::as_str)
                .zip(metadata.values().cloned()),
        );
        let now = times::to_header(times::now()).ok_or_else(|| {
            Error::new(ErrorKind::Io, "this machine's clock gives no time").with_path(name)
        })?;
        all.push(("x-ms-date", now));
        all.push(("x-ms-version", VERSION.to_owned()));
        all.push(("x-ms-client-request-id", uuid::Uuid::new_v4().to_string()));
        if draft.method == "PUT" {
            all.push(("content-length", draft.body.len().to_string()));
        }
        let endpoint = self.container.endpoint();
        let blob = draft.blob.map_or("", |blob| blob.name.as_str());
        let path = endpoint.path(self.container.container(), blob);
        let mut query = draft.query.clone();
        if let Some(time) = draft.blob.and_then(|blob| blob.snapshot.as_ref()) {
            query.push(("snapshot", time.clone()));
        }
        let authorization = self
            .credential
            .authorization(&self.http, draft.method, &path, &query, &all)
            .map_err(|e| e.with_path(name))?;
        all.extend(authorization.map(|value| ("authorization", value)));
        let mut url = endpoint.root() + &path;
        let mut lead = '?';
        for (name, value) in &query {
            let _ = write!(url, "{lead}{name}={}", encoded(value, ""));
            lead = '&';
        }
        if let Some(sas) = self.credential.signature() {
            url.push(lead);
            url += sas.expose();
        }
        let call = Call {
            method: draft.method,
            url: &Secret::new(url),
            headers: &all,
            body: draft.body,
        };
        let sent = self.http.send(&call);
        sent.map_err(|e| self.http.failure(draft.task.doing(), name, &e))
    }

    fn name_of(&self, blob: Option<&BlobId>) -> PathBuf {
        match blob {
            Some(blob) => self.shown(blob),
            None => self
                .called
                .as_deref()
                .unwrap_or(self.container.shown())
                .to_path_buf(),
        }
    }

    /// The failure for a body that didn't arrive completely.
    fn cut(&self, draft: &Draft<'_>, e: &io::Error) -> Failure {
        let error = Error::io(
            draft.task.doing(),
            io::Error::new(e.kind(), "the answer ended too early"),
        );
        let error = error
            .with_path(self.name_of(draft.blob))
            .with_hint("check the connection to the network, and run the command again");
        Failure::passing(error, Done::No)
    }

    fn change(&self, draft: &Draft<'_>) -> Answer<Changed> {
        let reply = self.send(draft)?;
        let changed = Changed {
            etag: reply.header("etag").map(str::to_owned),
            sequence: reply
                .header("x-ms-blob-sequence-number")
                .and_then(|number| number.parse().ok()),
        };
        // Makes the connection reusable.
        let _ = reply.read_all(LONGEST_REFUSAL);
        Ok(changed)
    }

    /// Returns whether `failure` means that the server doesn't support this checksum.
    fn lacks_checksum(failure: &Failure) -> bool {
        match failure.status() {
            Some(501) => true,
            Some(500) => failure.is("FeatureNotSupported"),
            Some(400) => [
                "UnsupportedHeader",
                "InvalidHeaderValue",
                "FeatureNotSupported",
            ]
            .iter()
            .any(|code| failure.is(code)),
            _ => false,
        }
    }

    fn read_once(
        &self,
        blob: &BlobId,
        offset: u64,
        buf: &mut [u8],
        only_if: &Conditions,
        checksum: Option<Checksum>,
    ) -> Answer<()> {
        let len = buf.len() as u64;
        let last = offset.saturating_add(len) - 1;
        let mut draft = Draft::new("GET", Task::Read, Some(blob), 206)
            .header("x-ms-range", format_args!("bytes={offset}-{last}"))
            .only_if(only_if);
        match checksum {
            Some(Checksum::Crc64) => draft = draft.header("x-ms-range-get-content-crc64", "true"),
            Some(Checksum::Md5) => draft = draft.header("x-ms-range-get-content-md5", "true"),
            None => {}
        }
        let reply = self.send(&draft)?;
        let damaged = |what: &str, found: String, expected: String| {
            let error = Error::damaged(what.to_owned())
                .with_path(self.shown(blob))
                .with_offset(offset)
                .with_found(found)
                .with_expected(expected)
                .with_hint("run the command again; check what is between here and the service");
            Failure::passing(error, Done::No)
        };
        let expected = format!("bytes {offset}-{last}/");
        let range = reply.header("content-range").unwrap_or("nothing");
        if !range.starts_with(&expected) {
            let range = range.to_owned();
            return Err(damaged(
                "the service sent a different range than requested",
                range,
                expected,
            ));
        }
        let sums = checksum.and_then(|sum| Some((sum, reply.header(sum.header())?.to_owned())));
        reply.read_exact(buf).map_err(|e| self.cut(&draft, &e))?;
        if let Some((sum, sent)) = sums {
            let received = sum.of(buf);
            if received != sent {
                return Err(damaged(
                    "the checksum of the received data is wrong",
                    received,
                    sent,
                ));
            }
        }
        Ok(())
    }
}

/// Names must be identifiers, and values printable ASCII: otherwise a server stores something other than intended.
fn check_metadata(metadata: &Metadata, name: &Path) -> Result<()> {
    for (key, value) in metadata {
        let good_key = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let good_value = value.bytes().all(|b| (b' '..=b'~').contains(&b)) && value.trim() == value;
        if !good_key || !good_value {
            return Err(Error::usage("a blob can't have this")
                .with_path(name)
                .with_found(format_args!("{key}={value}"))
                .with_expected(
                    "a name of lower-case letters, digits and _, and a value of ASCII",
                ));
        }
    }
    Ok(())
}

fn refusal(reply: Reply<'_>) -> Refusal {
    let text = |name: &str| reply.header(name).map(str::to_owned);
    let mut refusal = Refusal {
        status: reply.status(),
        code: text("x-ms-error-code").unwrap_or_default(),
        request: text("x-ms-request-id").unwrap_or_default(),
        date: text("date").and_then(|date| times::from_header(&date)),
        after: text("retry-after")
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
        ..Refusal::default()
    };
    if let Ok(body) = reply.read_all(LONGEST_REFUSAL) {
        let (code, message) = list::error(&body);
        if refusal.code.is_empty() {
            refusal.code = code;
        }
        refusal.message = message;
    }
    refusal
}

fn properties(reply: &Reply<'_>, name: &Path) -> Result<Properties> {
    let missing = |header: &'static str| {
        Error::damaged("the answer of the service is not about a blob")
            .with_path(name)
            .with_field(header)
            .with_found("nothing, or no number")
            .with_hint("check the address, and what is between here and the service")
    };
    let number = |header: &'static str| {
        let value = reply.header(header).and_then(|value| value.parse().ok());
        value.ok_or_else(|| missing(header))
    };
    let kind = match reply.header("x-ms-blob-type") {
        Some("PageBlob") => BlobKind::Page,
        Some(_) => BlobKind::Other,
        None => return Err(missing("x-ms-blob-type")),
    };
    Ok(Properties {
        size: number("content-length")?,
        etag: reply
            .header("etag")
            .ok_or_else(|| missing("etag"))?
            .to_owned(),
        last_modified: reply.header("last-modified").map(str::to_owned),
        sequence: match kind {
            BlobKind::Page => number("x-ms-blob-sequence-number")?,
            BlobKind::Other => 0,
        },
        kind,
        leased: matches!(
            reply.header("x-ms-lease-state"),
            Some("leased" | "breaking")
        ),
        metadata: reply
            .headers()
            .filter_map(|(name, value)| {
                let name = name
                    .get(..METADATA.len())
                    .filter(|start| start.eq_ignore_ascii_case(METADATA))
                    .and(name.get(METADATA.len()..))?;
                Some((name.to_ascii_lowercase(), value.to_owned()))
            })
            .collect(),
    })
}

fn bytes(range: PageRange) -> String {
    format!("bytes={}-{}", range.start(), range.end().saturating_sub(1))
}

impl PageStore for Rest {
    fn shown(&self, blob: &BlobId) -> PathBuf {
        if let Some(called) = &self.called {
            return called.clone();
        }
        let name = self.container.sibling(&blob.name, blob.snapshot.as_deref());
        name.shown().to_path_buf()
    }

    fn is_managed_disk(&self) -> bool {
        self.container.is_managed_disk()
    }

    fn properties(&self, blob: &BlobId) -> Answer<Properties> {
        let draft = Draft::new("HEAD", Task::Look, Some(blob), 200);
        let reply = self.send(&draft)?;
        Ok(properties(&reply, &self.shown(blob))?)
    }

    fn create(&self, blob: &BlobId, new: &NewBlob, only_if: &Conditions) -> Answer<Changed> {
        let draft = Draft::new("PUT", Task::Create, Some(blob), 201)
            .header("x-ms-blob-type", "PageBlob")
            .header("x-ms-blob-content-length", new.size)
            .header("x-ms-blob-sequence-number", new.sequence)
            .metadata(&new.metadata)
            .only_if(only_if);
        self.change(&draft)
    }

    fn resize(&self, blob: &BlobId, size: u64, only_if: &Conditions) -> Answer<Changed> {
        let draft = Draft::new("PUT", Task::Change, Some(blob), 200)
            .query("comp", "properties")
            .header("x-ms-blob-content-length", size)
            .only_if(only_if);
        self.change(&draft)
    }

    fn set_metadata(
        &self,
        blob: &BlobId,
        metadata: &Metadata,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        let draft = Draft::new("PUT", Task::Change, Some(blob), 200)
            .query("comp", "metadata")
            .metadata(metadata)
            .only_if(only_if);
        self.change(&draft)
    }

    fn set_sequence(
        &self,
        blob: &BlobId,
        sequence: Sequence,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        let (action, number) = match sequence {
            Sequence::AtLeast(number) => ("max", Some(number)),
            Sequence::Set(number) => ("update", Some(number)),
            Sequence::Next => ("increment", None),
        };
        let mut draft = Draft::new("PUT", Task::Change, Some(blob), 200)
            .query("comp", "properties")
            .header("x-ms-sequence-number-action", action)
            .only_if(only_if);
        if let Some(number) = number {
            draft = draft.header("x-ms-blob-sequence-number", number);
        }
        self.change(&draft)
    }

    fn put_pages(
        &self,
        blob: &BlobId,
        offset: u64,
        data: &[u8],
        only_if: &Conditions,
    ) -> Answer<Changed> {
        let len = data.len() as u64;
        let range = PageRange::from_len(offset, len)?;
        if range.is_empty() || len > MAX_PUT {
            return Err(Error::usage("a write of pages has 512 bytes to 4 MiB")
                .with_path(self.shown(blob))
                .with_found(format_args!("{len} bytes"))
                .into());
        }
        loop {
            let checksum = self.put.checksum();
            let mut draft = Draft::new("PUT", Task::Write, Some(blob), 201)
                .query("comp", "page")
                .header("x-ms-page-write", "update")
                .header("x-ms-range", bytes(range))
                .only_if(only_if);
            draft.body = data;
            if let Some(checksum) = checksum {
                draft = draft.header(checksum.header(), checksum.of(data));
            }
            match (self.change(&draft), checksum) {
                // Nothing is written without a checksum.
                (Err(failure), Some(Checksum::Crc64)) if Self::lacks_checksum(&failure) => {
                    self.put.lower(Checksum::Crc64);
                }
                (answer, _) => return answer,
            }
        }
    }

    fn clear_pages(
        &self,
        blob: &BlobId,
        range: PageRange,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        let draft = Draft::new("PUT", Task::Write, Some(blob), 201)
            .query("comp", "page")
            .header("x-ms-page-write", "clear")
            .header("x-ms-range", bytes(range))
            .only_if(only_if);
        self.change(&draft)
    }

    fn read(&self, blob: &BlobId, offset: u64, buf: &mut [u8], only_if: &Conditions) -> Answer<()> {
        if buf.is_empty() {
            return Ok(());
        }
        loop {
            // The service supports checksums for at most 4 MiB.
            let small = u64::try_from(buf.len()).is_ok_and(|len| len <= MAX_PUT);
            let checksum = self.get.checksum().filter(|_| small);
            match (
                self.read_once(blob, offset, buf, only_if, checksum),
                checksum,
            ) {
                (Err(failure), Some(checksum)) if Self::lacks_checksum(&failure) => {
                    self.get.lower(checksum);
                }
                (answer, _) => return answer,
            }
        }
    }

    fn pages(&self, blob: &BlobId, asked: &PagesAsked, only_if: &Conditions) -> Answer<Pages> {
        let mut draft = Draft::new("GET", Task::ListPages, Some(blob), 200)
            .query("comp", "pagelist")
            .only_if(only_if);
        if let Some(range) = asked.within {
            draft = draft.header("x-ms-range", bytes(range));
        }
        match &asked.since {
            Some(Since::Snapshot(time)) => draft = draft.query("prevsnapshot", time),
            Some(Since::Disk(name)) => {
                draft = draft.header("x-ms-previous-snapshot-url", name.address().expose());
            }
            None => {}
        }
        if let Some(marker) = &asked.marker {
            draft = draft.query("marker", marker);
        }
        if let Some(max) = asked.max {
            draft = draft.query("maxresults", max.to_string());
        }
        let reply = self.send(&draft)?;
        let server = reply.header("server").unwrap_or_default();
        if asked.since.is_some() && server.starts_with("Azurite-Blob/") {
            // It lists all pages, whatever the request.
            return Err(
                Error::unsupported("this server can't list what changed since a snapshot")
                    .with_path(self.shown(blob))
                    .with_found(server)
                    .with_hint("compare the two by their content")
                    .into(),
            );
        }
        let size = reply.header("x-ms-blob-content-length");
        let size = size.and_then(|size| size.parse().ok());
        let body = reply
            .read_all(LONGEST_LIST)
            .map_err(|e| self.cut(&draft, &e))?;
        let mut pages = list::pages(&body, size).map_err(|e| e.with_path(self.shown(blob)))?;
        pages.size = size;
        Ok(pages)
    }

    fn snapshot(&self, blob: &BlobId, metadata: &Metadata, only_if: &Conditions) -> Answer<String> {
        let draft = Draft::new("PUT", Task::Snapshot, Some(blob), 201)
            .query("comp", "snapshot")
            .metadata(metadata)
            .only_if(only_if);
        let reply = self.send(&draft)?;
        let time = reply.header("x-ms-snapshot").map(str::to_owned);
        let _ = reply.read_all(LONGEST_REFUSAL);
        time.ok_or_else(|| {
            Error::damaged("the service doesn't name the time of the snapshot that it took")
                .with_path(self.shown(blob))
                .into()
        })
    }

    fn lease(&self, blob: &BlobId, lease: &Lease) -> Answer<()> {
        let draft = |action, expected| {
            Draft::new("PUT", Task::Lease, Some(blob), expected)
                .query("comp", "lease")
                .header("x-ms-lease-action", action)
        };
        let draft = match lease {
            Lease::Acquire(id, duration) => draft("acquire", 201)
                .header(
                    "x-ms-lease-duration",
                    duration.map_or_else(|| "-1".into(), |d| d.as_secs().to_string()),
                )
                .header("x-ms-proposed-lease-id", id),
            Lease::Renew(id) => draft("renew", 200).header("x-ms-lease-id", id),
            Lease::Release(id) => draft("release", 200).header("x-ms-lease-id", id),
            Lease::Break => draft("break", 202).header("x-ms-lease-break-period", 0),
        };
        self.change(&draft).map(drop)
    }

    fn delete(&self, blob: &BlobId, what: Deleted, only_if: &Conditions) -> Answer<()> {
        let mut draft = Draft::new("DELETE", Task::Delete, Some(blob), 202).only_if(only_if);
        if what == Deleted::WithSnapshots {
            draft = draft.header("x-ms-delete-snapshots", "include");
        }
        self.change(&draft).map(drop)
    }

    fn blobs(&self, asked: &BlobsAsked) -> Answer<Blobs> {
        let include = if asked.snapshots {
            "snapshots,metadata"
        } else {
            "metadata"
        };
        let mut draft = Draft::new("GET", Task::ListBlobs, None, 200)
            .query("restype", "container")
            .query("comp", "list")
            .query("include", include);
        if !asked.prefix.is_empty() {
            draft = draft.query("prefix", &asked.prefix);
        }
        if let Some(marker) = &asked.marker {
            draft = draft.query("marker", marker);
        }
        if let Some(max) = asked.max {
            draft = draft.query("maxresults", max.to_string());
        }
        let reply = self.send(&draft)?;
        let body = reply
            .read_all(LONGEST_LIST)
            .map_err(|e| self.cut(&draft, &e))?;
        Ok(list::blobs(&body).map_err(|e| e.with_path(self.container.shown()))?)
    }

    fn create_container(&self) -> Answer<()> {
        let draft =
            Draft::new("PUT", Task::CreateContainer, None, 201).query("restype", "container");
        self.change(&draft).map(drop)
    }
}
