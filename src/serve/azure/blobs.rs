//! The storage service: containers, page blobs, their snapshots; managed disks to which access was granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::access::{self, Wanted};
use super::accounts::Accounts;
use super::conditions::{Found, check, check_lease, check_lease_of_reader, check_sequence};
use super::http::{Body, Request, Response};
use super::identity::Identity;
use super::lease::lease;
use super::lists;
use super::pages::PageMap;
use super::refusal::{Answered, refuse, refuse_permission, refuse_too_long};
use super::text::{now, percent_decoded, uuid};
use super::volume::{CopyOf, Frozen, Held, Live, Record, Volume, shown_time};
use crate::blob::{Checksum, MAX_BLOB, MAX_PUT};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PAGE_SIZE, PageRange, to_usize};
use crate::progress::Silent;
use crate::snapshot::Family;

/// Bytes sent at a time.
const PIECE: u64 = 1 << 20;

/// The longest response with a hash.
const MOST_HASHED: u64 = 4 << 20;

/// A managed disk, or a snapshot of one, to which access was granted.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) volume: Arc<Volume>,
    /// The snapshot; `None` for the disk itself.
    pub(super) time: Option<String>,
    pub(super) write: bool,
}

/// Finds the resource that access was granted to.
pub(super) trait Grants {
    /// By the address of a request, or of the source of a copy.
    fn granted(&self, path: &str, query: &[(String, String)]) -> Option<Granted>;
}

/// The storage service.
pub(super) struct Storage<'a> {
    pub(super) accounts: &'a Accounts,
    pub(super) identity: &'a Identity,
    pub(super) grants: &'a dyn Grants,
    /// The address of the server.
    pub(super) root: String,
}

/// Which blob a request is for.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    account: &'a str,
    container: &'a str,
    blob: &'a str,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Self {
        let path = path.trim_start_matches('/');
        let (account, rest) = path.split_once('/').unwrap_or((path, ""));
        let (container, blob) = rest.split_once('/').unwrap_or((rest, ""));
        Self {
            account,
            container,
            blob,
        }
    }
}

/// A blob or a snapshot, for reading.
enum Source<'a> {
    Live(&'a Live),
    Frozen(&'a Frozen),
}

impl Source<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Live(live) => live.size(),
            Self::Frozen(frozen) => frozen.taken.size,
        }
    }

    fn map(&self) -> &PageMap {
        match self {
            Self::Live(live) => live.map(),
            Self::Frozen(frozen) => &frozen.map,
        }
    }

    fn etag(&self) -> String {
        match self {
            Self::Live(live) => live.etag(),
            Self::Frozen(frozen) => frozen.taken.etag.clone(),
        }
    }

    fn modified(&self) -> i64 {
        match self {
            Self::Live(live) => live.modified(),
            Self::Frozen(frozen) => frozen.taken.modified,
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Self::Live(live) => live.read(buf, offset),
            Self::Frozen(frozen) => frozen.read(buf, offset),
        }
    }
}

fn not_found<T>() -> Answered<T> {
    refuse(404, "BlobNotFound", "The specified blob does not exist.")
}

fn changed(status: u16, live: &Live) -> Response {
    Response::new(status)
        .with("etag", live.etag())
        .with("last-modified", shown_time(live.modified()))
        .with("x-ms-blob-sequence-number", live.record.sequence)
        .with("x-ms-request-server-encrypted", "true")
}

impl Storage<'_> {
    /// Answers a request.
    pub(super) fn answer(&self, request: &Request) -> Answered {
        let place = Place::of(&request.path);
        let comp = request.asked("comp").unwrap_or("").to_ascii_lowercase();
        if place.account.starts_with("md-") {
            return self.managed(request, &comp);
        }
        let what = request.asked("restype").unwrap_or("");
        let method = request.method.as_str();
        if request.too_long {
            return refuse_too_long();
        }
        match (place.container, place.blob) {
            ("", _) => self.account(request, place, &comp, what),
            (_, "") if what == "container" || method == "GET" => {
                self.container(request, place, &comp)
            }
            (_, "") => refuse(
                400,
                "InvalidUri",
                "The requested URI does not represent any resource on the server.",
            ),
            _ => self.blob(request, place, &comp),
        }
    }

    fn allow(&self, request: &Request, place: Place<'_>, any_of: &str) -> Answered<()> {
        let wanted = Wanted {
            account: place.account,
            container: place.container,
            blob: place.blob,
            snapshot: request.asked("snapshot"),
            any_of,
        };
        access::check(request, wanted, self.identity)
    }

    fn account(&self, request: &Request, place: Place<'_>, comp: &str, what: &str) -> Answered {
        match (request.method.as_str(), comp, what) {
            ("GET", "list", _) => {
                self.allow(request, place, "l")?;
                let list = lists::containers(
                    request,
                    &self.root,
                    place.account,
                    &self.accounts.containers(),
                )?;
                Ok(Response::new(200).with_body("application/xml", list))
            }
            ("GET" | "HEAD", "properties", "account") => {
                // Anyone with any right may query this.
                self.allow(request, place, "rwdlacup")?;
                Ok(Response::new(200)
                    .with("x-ms-sku-name", "Standard_LRS")
                    .with("x-ms-account-kind", "StorageV2")
                    .with("x-ms-is-hns-enabled", "false"))
            }
            ("GET", "properties", "service") => {
                self.allow(request, place, "r")?;
                let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><StorageServiceProperties/>";
                Ok(Response::new(200).with_body("application/xml", body))
            }
            _ => refuse(
                501,
                "NotImplemented",
                "This server doesn't have that operation on accounts.",
            ),
        }
    }

    fn container(&self, request: &Request, place: Place<'_>, comp: &str) -> Answered {
        let told = |status, container: &super::accounts::Container| {
            Response::new(status)
                .with("etag", container.etag())
                .with("last-modified", shown_time(container.modified))
        };
        match (request.method.as_str(), comp) {
            ("PUT", "") => {
                self.allow(request, place, "cw")?;
                let made = self
                    .accounts
                    .create_container(place.container, metadata(request)?)?;
                Ok(told(201, &made))
            }
            ("PUT", "metadata") => {
                self.allow(request, place, "w")?;
                let made = self
                    .accounts
                    .set_metadata(place.container, metadata(request)?)?;
                Ok(told(200, &made))
            }
            ("GET" | "HEAD", "" | "metadata") => {
                self.allow(request, place, "rl")?;
                let found = self.accounts.container(place.container)?;
                let mut response = told(200, &found)
                    .with("x-ms-lease-status", "unlocked")
                    .with("x-ms-lease-state", "available");
                response.more = headers_of(&found.metadata);
                Ok(response)
            }
            ("GET", "acl") => {
                self.allow(request, place, "r")?;
                let found = self.accounts.container(place.container)?;
                let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><SignedIdentifiers/>";
                Ok(told(200, &found).with_body("application/xml", body))
            }
            ("GET", "list") => {
                self.allow(request, place, "l")?;
                let prefix = request.asked("prefix").unwrap_or("");
                let all = self.accounts.blobs(place.container, prefix)?;
                let names = (self.root.as_str(), place.account, place.container);
                let list = lists::blobs(request, names, all)?;
                Ok(Response::new(200).with_body("application/xml", list))
            }
            ("DELETE", "") => {
                self.allow(request, place, "d")?;
                self.accounts.delete_container(place.container)?;
                Ok(Response::new(202))
            }
            _ => refuse(
                501,
                "NotImplemented",
                "This server doesn't have that operation on containers.",
            ),
        }
    }

    fn blob(&self, request: &Request, place: Place<'_>, comp: &str) -> Answered {
        let method = request.method.as_str();
        let letters = match (method, comp) {
            ("GET" | "HEAD", _) => "r",
            ("PUT", "" | "snapshot") => "cw",
            ("DELETE", _) if request.asked("snapshot").is_some() => "dx",
            ("DELETE", _) => "d",
            _ => "w",
        };
        self.allow(request, place, letters)?;
        if method == "PUT" && comp.is_empty() {
            return self.put_blob(request, place);
        }
        let volume = self.accounts.blob(place.container, place.blob)?;
        if method == "DELETE" {
            return self.delete(request, place, &volume);
        }
        if matches!(method, "GET" | "HEAD") {
            return read(
                request,
                &volume,
                request.asked("snapshot"),
                comp,
                false,
                &|previous| self.previous(previous, &volume),
            );
        }
        if method != "PUT" {
            return refuse(
                405,
                "UnsupportedHttpVerb",
                "The resource doesn't support the specified HTTP verb.",
            );
        }
        if request.asked("snapshot").is_some() {
            return refuse(
                400,
                "InvalidQueryParameterValue",
                "A snapshot can't be changed.",
            );
        }
        // Before the lock: a thread that holds the lock of a blob must not take another one.
        let source = self.page_source(request, comp)?;
        let mut guard = volume.write();
        let live = &mut *guard;
        if !live.is_there() {
            return not_found();
        }
        let etag = live.etag();
        check(
            request,
            Found {
                etag: &etag,
                modified: live.modified(),
            },
        )?;
        match comp {
            "page" => {
                check_lease(request, live)?;
                check_sequence(request, live.record.sequence)?;
                put_page(request, live, source.as_ref())
            }
            "properties" => {
                check_lease(request, live)?;
                set_properties(request, live)
            }
            "metadata" => {
                check_lease(request, live)?;
                live.record.metadata = metadata(request)?;
                live.touch()?;
                Ok(changed(200, live))
            }
            "lease" => lease(request, live),
            "snapshot" => {
                check_lease_of_reader(request, live)?;
                let given = metadata(request)?;
                let given = (!given.is_empty()).then_some(given);
                let taken = volume.snapshot(live, given, Family::default(), false)?;
                Ok(changed(201, live).with("x-ms-snapshot", taken.time))
            }
            _ => refuse(
                501,
                "NotImplemented",
                "This server doesn't have that operation on blobs.",
            ),
        }
    }

    /// Requests by the granted address of a managed disk, which supports fewer operations.
    fn managed(&self, request: &Request, comp: &str) -> Answered {
        let Some(granted) = self.grants.granted(&request.path, &request.query) else {
            return refuse(
                403,
                "AuthenticationFailed",
                "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
            );
        };
        let volume = &granted.volume;
        let method = request.method.as_str();
        if matches!(method, "GET" | "HEAD") {
            let time = granted.time.as_deref();
            return read(request, volume, time, comp, true, &|previous| {
                self.previous(previous, volume)
            });
        }
        if !granted.write || granted.time.is_some() {
            return refuse_permission();
        }
        if request.too_long {
            return refuse_too_long();
        }
        let source = self.page_source(request, comp)?;
        let mut live = volume.write();
        match (method, comp) {
            ("PUT", "page") => put_page(request, &mut live, source.as_ref()),
            // A program that doesn't know that it writes to a managed disk makes the blob first, and tells its type at the
            // end: the first is right if the size is, the second changes nothing.
            ("PUT", "") => {
                let size = request
                    .said("x-ms-blob-content-length")
                    .and_then(|size| size.parse().ok());
                if size == Some(live.size()) {
                    return Ok(changed(201, &live));
                }
                refuse(
                    409,
                    "OperationNotAllowed",
                    format!(
                        "A managed disk can't be made anew; this one has {} bytes.",
                        live.size()
                    ),
                )
            }
            ("PUT", "properties") if request.said("x-ms-blob-content-length").is_none() => {
                Ok(changed(200, &live))
            }
            _ => refuse(
                403,
                "FeatureNotSupportedForManagedDisks",
                "That can't be done with a managed disk.",
            ),
        }
    }

    /// The map of what a list of changes is compared with: an earlier snapshot of the same disk, by the address that
    /// access to it was granted by.
    fn previous(&self, address: &str, volume: &Arc<Volume>) -> Answered<(u64, String)> {
        let (path, query) = split_address(address)?;
        let Some(previous) = self.grants.granted(&path, &query) else {
            return refuse(
                404,
                "BlobNotFound",
                "The previous snapshot does not exist, or access to it isn't granted any more.",
            );
        };
        if !Arc::ptr_eq(&previous.volume, volume) {
            return refuse(
                409,
                "BlobOverwritten",
                "The previous snapshot isn't one of the same disk.",
            );
        }
        let Some(time) = previous.time else {
            return refuse(
                400,
                "InvalidHeaderValue",
                "The previous one isn't a snapshot.",
            );
        };
        let live = volume.read();
        match live
            .record
            .snapshots
            .iter()
            .find(|taken| taken.time == time)
        {
            Some(taken) => Ok((volume.map_of(taken)?.generation, time)),
            None => not_found(),
        }
    }

    fn put_blob(&self, request: &Request, place: Place<'_>) -> Answered {
        if let Some(source) = request.said("x-ms-copy-source") {
            return self.copy_blob(request, place, source);
        }
        if request.said("x-ms-blob-type") != Some("PageBlob") {
            return refuse(
                400,
                "InvalidHeaderValue",
                "This server has page blobs only (x-ms-blob-type: PageBlob).",
            );
        }
        let size = request
            .said("x-ms-blob-content-length")
            .and_then(|size| size.parse::<u64>().ok());
        let Some(size) = size.filter(|size| size.is_multiple_of(PAGE_SIZE) && *size <= MAX_BLOB)
        else {
            return refuse(
                400,
                "InvalidHeaderValue",
                "x-ms-blob-content-length is a multiple of 512, and at most 8 TiB.",
            );
        };
        let mut record = Record::new(place.blob, false, Some("content"));
        record.metadata = metadata(request)?;
        record.content_md5 = request.said("x-ms-blob-content-md5").map(str::to_owned);
        if let Some(kind) = request
            .said("x-ms-blob-content-type")
            .or_else(|| request.said("content-type"))
        {
            kind.clone_into(&mut record.content_type);
        }
        if let Some(text) = request.said("x-ms-blob-sequence-number") {
            record.sequence = sequence(text)?;
        }
        let volume = self.make(request, place, size, record)?;
        let live = volume.read();
        Ok(changed(201, &live))
    }

    /// Creates a blob of zeros, or replaces another one with it.
    fn make(
        &self,
        request: &Request,
        place: Place<'_>,
        size: u64,
        record: Record,
    ) -> Answered<Arc<Volume>> {
        let found = self.accounts.blob_if_there(place.container, place.blob)?;
        let (volume, is_new) = if let Some(volume) = found {
            (volume, false)
        } else {
            if request.said("if-match").is_some() {
                return refuse(412, "ConditionNotMet", "There is no such blob.");
            }
            self.accounts
                .create_blob(place.container, place.blob, size, record.clone())?
        };
        if !is_new {
            let mut live = volume.write();
            if request.said("if-none-match") == Some("*") {
                return refuse(
                    409,
                    "BlobAlreadyExists",
                    "The specified blob already exists.",
                );
            }
            let etag = live.etag();
            check(
                request,
                Found {
                    etag: &etag,
                    modified: live.modified(),
                },
            )?;
            check_lease(request, &live)?;
            live.replace(size, record)?;
        }
        Ok(volume)
    }

    fn copy_blob(&self, request: &Request, place: Place<'_>, source: &str) -> Answered {
        let (volume, time) = self.source(request, source)?;
        let shown = source.split('?').next().unwrap_or("").to_owned();
        let target = self.accounts.blob_if_there(place.container, place.blob)?;
        if time.is_none()
            && target
                .as_ref()
                .is_some_and(|target| Arc::ptr_eq(target, &volume))
        {
            return refuse(
                409,
                "CannotCopyOntoItself",
                "The source and the target are the same blob.",
            );
        }
        let (frozen, record, size) = {
            let live = volume.read();
            let (frozen, size, kind, known, sequence) = match &time {
                Some(time) => {
                    let Some(frozen) = volume.frozen(&live, time)? else {
                        return not_found();
                    };
                    let taken = frozen.taken.clone();
                    (
                        Some(frozen),
                        taken.size,
                        taken.content_type,
                        taken.metadata,
                        taken.sequence,
                    )
                }
                None if live.is_there() => {
                    let record = &live.record;
                    (
                        None,
                        live.size(),
                        record.content_type.clone(),
                        record.metadata.clone(),
                        record.sequence,
                    )
                }
                None => return not_found(),
            };
            let mut record = Record::new(place.blob, false, Some("content"));
            let given = metadata(request)?;
            record.metadata = if given.is_empty() { known } else { given };
            record.content_type = kind;
            record.sequence = sequence;
            (frozen, record, size)
        };
        let target = self.make(request, place, size, record)?;
        if let Some(frozen) = &frozen {
            target.fill(frozen, &Silent)?;
        } else {
            let (etag, data) = {
                let live = volume.read();
                let all = PageRange::covering(0, size.min(live.size()));
                let data = live.map().list(all, None).map(|change| change.range);
                (live.etag(), data.collect::<Vec<_>>())
            };
            target.fill_with(data.into_iter(), &Silent, |buf, offset| {
                let live = volume.read();
                if live.etag() == etag {
                    return live.read(buf, offset);
                }
                Err(Error::new(
                    ErrorKind::Changed,
                    "the source was written while it was being copied",
                ))
            })?;
        }
        let mut live = target.write();
        let id = uuid();
        live.record.copy = Some(CopyOf {
            id: id.clone(),
            source: shown,
            bytes: size,
            finished: now(),
        });
        live.touch()?;
        Ok(changed(202, &live)
            .with("x-ms-copy-id", id)
            .with("x-ms-copy-status", "success"))
    }

    /// The source of a copy, if the request may read it.
    fn source(&self, request: &Request, address: &str) -> Answered<(Arc<Volume>, Option<String>)> {
        let (path, query) = split_address(address)?;
        let place = Place::of(&path);
        let get = |name: &str| {
            query
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        if place.account.starts_with("md-") {
            return refuse(
                409,
                "CopySourceCannotBeIncrementalCopyBlob",
                "Source blob of a copy operation cannot be non-snapshot incremental copy blob.",
            );
        }
        let time = get("snapshot");
        if get("sig").is_some() {
            let wanted = Wanted {
                account: place.account,
                container: place.container,
                blob: place.blob,
                snapshot: time.as_deref(),
                any_of: "r",
            };
            access::by_signature(&query, request, wanted, self.identity)?;
        } else if place.account != self.identity.account || request.said("authorization").is_none()
        {
            // A signature for the target doesn't permit reading anything else.
            return refuse(
                403,
                "CannotVerifyCopySource",
                "The source of the copy can't be read without a signature (SAS).",
            );
        }
        let volume = self.accounts.blob(place.container, place.blob)?;
        Ok((volume, time))
    }

    /// The pages of another blob that are to be put, if the request is about such.
    fn page_source(&self, request: &Request, comp: &str) -> Answered<Option<Vec<u8>>> {
        let Some(address) = request.said("x-ms-copy-source").filter(|_| comp == "page") else {
            return Ok(None);
        };
        let (volume, time) = self.source(request, address)?;
        let range = request.said("x-ms-source-range").and_then(parse_range);
        let range = range.and_then(|(start, last)| Some((start, last?.checked_add(1)?)));
        let Some((start, end)) = range.filter(|(start, end)| start < end) else {
            return refuse(
                400,
                "InvalidHeaderValue",
                "The range of the source is missing (x-ms-source-range).",
            );
        };
        if end - start > MAX_PUT {
            return refuse(
                413,
                "RequestBodyTooLarge",
                "The range of the source has 4 MiB at most.",
            );
        }
        let live = volume.read();
        let frozen = match &time {
            Some(time) => match volume.frozen(&live, time)? {
                Some(frozen) => Some(frozen),
                None => return not_found(),
            },
            None if live.is_there() => None,
            None => return not_found(),
        };
        let from = frozen.as_ref().map_or(Source::Live(&live), Source::Frozen);
        if end > from.size() {
            return refuse(
                416,
                "InvalidRange",
                "The range of the source is beyond its end.",
            );
        }
        let mut bytes = vec![0; to_usize(end - start)];
        from.read(&mut bytes, start)?;
        Ok(Some(bytes))
    }

    fn delete(&self, request: &Request, place: Place<'_>, volume: &Arc<Volume>) -> Answered {
        let which = request
            .said("x-ms-delete-snapshots")
            .map(str::to_ascii_lowercase);
        let mut live = volume.write();
        if let Some(time) = request.asked("snapshot") {
            if which.is_some() {
                return refuse(400, "InvalidHeaderValue", "A snapshot has no snapshots.");
            }
            if !volume.delete_snapshot(&mut live, time)? {
                return not_found();
            }
            return Ok(Response::new(202));
        }
        let etag = live.etag();
        check(
            request,
            Found {
                etag: &etag,
                modified: live.modified(),
            },
        )?;
        match (which.as_deref(), live.record.snapshots.is_empty()) {
            (Some("only"), _) => {
                check_lease_of_reader(request, &live)?;
                volume.delete_snapshots(&mut live)?;
                Ok(Response::new(202))
            }
            (None, false) => refuse(
                409,
                "SnapshotsPresent",
                "This operation is not permitted because the blob has snapshots.",
            ),
            (None, true) | (Some("include"), _) => {
                check_lease(request, &live)?;
                drop(live);
                self.accounts.delete_blob(place.container, place.blob)?;
                Ok(Response::new(202))
            }
            (Some(_), _) => refuse(
                400,
                "InvalidHeaderValue",
                "x-ms-delete-snapshots is include or only.",
            ),
        }
    }
}

/// Writes or clears pages.
fn put_page(request: &Request, live: &mut Live, source: Option<&Vec<u8>>) -> Answered {
    let Some((start, Some(last))) = asked_range(request)? else {
        return refuse(
            400,
            "InvalidHeaderValue",
            "The range of pages is missing (x-ms-range).",
        );
    };
    let end = last.checked_add(1);
    let range = end.and_then(|end| PageRange::new(start, end));
    let range = range.filter(|range| !range.is_empty() && range.end() <= live.size());
    let Some(range) = range else {
        return refuse(
            416,
            "InvalidPageRange",
            "The page range specified is invalid.",
        );
    };
    match request
        .said("x-ms-page-write")
        .unwrap_or("")
        .to_ascii_lowercase()
        .as_str()
    {
        "clear" => {
            if !request.body.is_empty() || request.said("content-md5").is_some() {
                return refuse(
                    400,
                    "InvalidInput",
                    "Pages are cleared without a body and without Content-MD5.",
                );
            }
            live.clear(range)?;
            Ok(changed(201, live))
        }
        "update" => {
            if range.len() > MAX_PUT {
                return refuse_too_long();
            }
            let data = source.unwrap_or(&request.body);
            if data.len() != range.buffer_len() {
                return refuse(
                    400,
                    "InvalidHeaderValue",
                    "The data is not as long as the range.",
                );
            }
            let hash = checksum(request, data)?;
            live.update(range, data)?;
            Ok(changed(201, live).with(hash.0, hash.1))
        }
        _ => refuse(
            400,
            "InvalidHeaderValue",
            "x-ms-page-write is update or clear.",
        ),
    }
}

/// Handles reads of a blob or a snapshot: HEAD, GET, and lists of pages.
fn read(
    request: &Request,
    volume: &Arc<Volume>,
    time: Option<&str>,
    comp: &str,
    managed: bool,
    previous: &dyn Fn(&str) -> Answered<(u64, String)>,
) -> Answered {
    // Before the lock: it may look at the same blob.
    let since = match request
        .said("x-ms-previous-snapshot-url")
        .filter(|_| comp == "pagelist")
    {
        Some(address) => Some(previous(address)?),
        None => None,
    };
    let live = volume.read();
    let frozen = match time {
        Some(time) => match volume.frozen(&live, time)? {
            Some(frozen) => Some(frozen),
            None => return not_found(),
        },
        None if live.is_there() => None,
        None => return not_found(),
    };
    let source = frozen.as_ref().map_or(Source::Live(&live), Source::Frozen);
    if !managed {
        let etag = source.etag();
        check(
            request,
            Found {
                etag: &etag,
                modified: source.modified(),
            },
        )?;
        if frozen.is_none() {
            check_lease_of_reader(request, &live)?;
        }
    }
    match (request.method.as_str(), comp) {
        ("GET", "pagelist") => page_list(request, volume, &live, &source, since),
        ("HEAD", "" | "metadata") => {
            let mut response = told(&live, frozen.as_ref());
            response.body = Body::Length(source.size());
            Ok(response)
        }
        ("GET", "metadata") => Ok(told(&live, frozen.as_ref())),
        ("GET", "") => get(request, volume, &live, &source, frozen.clone()),
        _ => refuse(
            501,
            "NotImplemented",
            "This server doesn't have that operation on blobs.",
        ),
    }
}

fn page_list(
    request: &Request,
    volume: &Volume,
    live: &Live,
    source: &Source<'_>,
    given: Option<(u64, String)>,
) -> Answered {
    let since = match (given, request.asked("prevsnapshot")) {
        (Some(given), _) => Some(given),
        (None, Some(time)) => {
            let taken = live
                .record
                .snapshots
                .iter()
                .find(|taken| taken.time == time);
            let Some(taken) = taken else {
                return refuse(404, "BlobNotFound", "The previous snapshot does not exist.");
            };
            Some((volume.map_of(taken)?.generation, time.to_owned()))
        }
        (None, None) => None,
    };
    let map = source.map();
    if let Some((generation, time)) = &since {
        let newer = match source {
            Source::Live(_) => false,
            Source::Frozen(frozen) => *time > frozen.taken.time,
        };
        if newer {
            return refuse(
                400,
                "InvalidQueryParameterValue",
                "The previous snapshot is newer than this one.",
            );
        }
        if map.born > *generation {
            return refuse(
                409,
                "BlobOverwritten",
                "The blob has been overwritten since the previous snapshot.",
            );
        }
    }
    let all = PageRange::covering(0, source.size());
    let within = match asked_range(request)? {
        None => all,
        Some((start, last)) => {
            let end = last.map_or(source.size(), |last| last.saturating_add(1));
            PageRange::covering(start.min(end), end.min(source.size())).cut_to(all)
        }
    };
    let list = lists::pages(
        request,
        map,
        within,
        since.map(|(generation, _)| generation),
    )?;
    Ok(Response::new(200)
        .with("etag", source.etag())
        .with("last-modified", shown_time(source.modified()))
        .with("x-ms-blob-content-length", source.size())
        .with_body("application/xml", list))
}

/// The headers of a blob or a snapshot.
fn told(live: &Live, frozen: Option<&Frozen>) -> Response {
    let record = &live.record;
    let source = frozen.map_or(Source::Live(live), Source::Frozen);
    let (metadata, sequence, kind) = match frozen {
        Some(frozen) => (
            &frozen.taken.metadata,
            frozen.taken.sequence,
            &frozen.taken.content_type,
        ),
        None => (&record.metadata, record.sequence, &record.content_type),
    };
    let mut response = Response::new(200)
        .with("etag", source.etag())
        .with("last-modified", shown_time(source.modified()))
        .with("content-type", kind)
        .with("accept-ranges", "bytes")
        .with("x-ms-blob-type", "PageBlob")
        .with("x-ms-blob-sequence-number", sequence)
        .with("x-ms-creation-time", shown_time(record.created))
        .with("x-ms-server-encrypted", "true");
    if frozen.is_none() {
        let (state, status) = Held::shown(record.lease.as_ref());
        response = response
            .with("x-ms-lease-state", state)
            .with("x-ms-lease-status", status);
        if state == "leased" {
            let fixed = record
                .lease
                .as_ref()
                .is_some_and(|held| held.duration.is_some());
            response = response.with(
                "x-ms-lease-duration",
                if fixed { "fixed" } else { "infinite" },
            );
        }
        if let Some(copy) = &record.copy {
            response = response
                .with("x-ms-copy-id", &copy.id)
                .with("x-ms-copy-status", "success")
                .with("x-ms-copy-source", &copy.source)
                .with(
                    "x-ms-copy-progress",
                    format!("{}/{}", copy.bytes, copy.bytes),
                )
                .with("x-ms-copy-completion-time", shown_time(copy.finished));
        }
        if let Some(md5) = &record.content_md5 {
            response = response.with("content-md5", md5);
        }
    }
    response.more = headers_of(metadata);
    response
}

fn get(
    request: &Request,
    volume: &Arc<Volume>,
    live: &Live,
    source: &Source<'_>,
    frozen: Option<Frozen>,
) -> Answered {
    let size = source.size();
    let mut response = told(live, frozen.as_ref());
    let (start, end) = match asked_range(request)? {
        None => (0, size),
        Some((start, last)) => {
            if start >= size || last.is_some_and(|last| last < start) {
                return refuse(
                    416,
                    "InvalidRange",
                    "The range specified is invalid for the current size of the resource.",
                );
            }
            (
                start,
                last.map_or(size, |last| last.saturating_add(1).min(size)),
            )
        }
    };
    let len = end - start;
    if asked_range(request)?.is_some() {
        response.status = 206;
        // The hash of the whole isn't that of a part.
        response.headers.retain(|(name, value)| {
            let of_whole = *name == "content-md5";
            if of_whole {
                response
                    .more
                    .push(("x-ms-blob-content-md5".to_owned(), value.clone()));
            }
            !of_whole
        });
        response = response.with("content-range", format!("bytes {start}-{}/{size}", end - 1));
    }
    let wants = |name: &str| {
        request
            .said(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    };
    let hashes = [
        ("x-ms-range-get-content-md5", Checksum::Md5),
        ("x-ms-range-get-content-crc64", Checksum::Crc64),
    ];
    let hashed = hashes
        .iter()
        .find(|(name, _)| wants(name))
        .map(|(_, kind)| *kind);
    if hashed.is_some() && len > MOST_HASHED {
        return refuse(
            400,
            "OutOfRangeInput",
            "A range with a hash has 4 MiB at most.",
        );
    }
    if len <= PIECE || hashed.is_some() {
        let mut bytes = vec![0; to_usize(len)];
        source.read(&mut bytes, start)?;
        if let Some(kind) = hashed {
            response = response.with(kind.header(), kind.of(&bytes));
        }
        response.body = Body::Bytes(bytes);
        return Ok(response);
    }
    let (volume, etag) = (Arc::clone(volume), source.etag());
    let mut at = start;
    let pieces = std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let mut bytes = vec![0; to_usize(PIECE.min(end - at))];
        let done = if let Some(frozen) = &frozen {
            frozen.read(&mut bytes, at)
        } else {
            let live = volume.read();
            if live.etag() == etag {
                live.read(&mut bytes, at)
            } else {
                Err(Error::new(
                    ErrorKind::Changed,
                    "the blob was written while it was being sent",
                ))
            }
        };
        at += PIECE;
        Some(done.map(|()| bytes))
    });
    response.body = Body::Pieces(len, Box::new(pieces));
    Ok(response)
}

fn set_properties(request: &Request, live: &mut Live) -> Answered {
    let size = match request
        .said("x-ms-blob-content-length")
        .map(str::parse::<u64>)
    {
        None => None,
        Some(Ok(size)) if size.is_multiple_of(PAGE_SIZE) && size <= MAX_BLOB => Some(size),
        Some(_) => {
            return refuse(
                400,
                "InvalidHeaderValue",
                "x-ms-blob-content-length is a multiple of 512, and at most 8 TiB.",
            );
        }
    };
    let action = request
        .said("x-ms-sequence-number-action")
        .map(str::to_ascii_lowercase);
    let number = request
        .said("x-ms-blob-sequence-number")
        .map(sequence)
        .transpose()?;
    let next = match (action.as_deref(), number) {
        (None, _) => live.record.sequence,
        (Some("increment"), None) => live.record.sequence.saturating_add(1),
        (Some("update"), Some(number)) => number,
        (Some("max"), Some(number)) => number.max(live.record.sequence),
        _ => {
            return refuse(
                400,
                "InvalidHeaderValue",
                "x-ms-sequence-number-action is increment, or max or update with a number.",
            );
        }
    };
    // The properties that a request doesn't name are cleared, unless it is about something else.
    if size.is_none() && action.is_none() {
        let kind = request
            .said("x-ms-blob-content-type")
            .unwrap_or("application/octet-stream");
        kind.clone_into(&mut live.record.content_type);
        live.record.content_md5 = request.said("x-ms-blob-content-md5").map(str::to_owned);
    }
    live.record.sequence = next;
    if let Some(size) = size {
        live.resize(size)?;
    }
    live.touch()?;
    Ok(changed(200, live))
}

/// The hash for the response to a put, after checking that of the request.
fn checksum(request: &Request, data: &[u8]) -> Answered<(&'static str, String)> {
    if let Some(sent) = request.said("x-ms-content-crc64") {
        let found = Checksum::Crc64.of(data);
        if sent != found {
            return refuse(
                400,
                "Crc64Mismatch",
                "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.",
            );
        }
        return Ok((Checksum::Crc64.header(), found));
    }
    let found = Checksum::Md5.of(data);
    if request
        .said("content-md5")
        .is_some_and(|sent| sent != found)
    {
        return refuse(
            400,
            "Md5Mismatch",
            "The MD5 value specified in the request did not match with the MD5 value calculated by the server.",
        );
    }
    Ok((Checksum::Md5.header(), found))
}

fn sequence(text: &str) -> Answered<u64> {
    match text.parse::<u64>() {
        Ok(number) if i64::try_from(number).is_ok() => Ok(number),
        _ => refuse(
            400,
            "InvalidHeaderValue",
            "The sequence number is 0 to 2^63 - 1.",
        ),
    }
}

/// First and last byte of `bytes=a-b`; the last may be omitted.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (start, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() {
        None
    } else {
        Some(last.parse().ok()?)
    };
    Some((start.parse().ok()?, last))
}

fn asked_range(request: &Request) -> Answered<Option<(u64, Option<u64>)>> {
    let Some(text) = request.said("x-ms-range").or_else(|| request.said("range")) else {
        return Ok(None);
    };
    match parse_range(text) {
        Some(range) => Ok(Some(range)),
        None => refuse(400, "InvalidHeaderValue", "The range is bytes=FIRST-LAST."),
    }
}

/// The metadata of a request.
fn metadata(request: &Request) -> Answered<BTreeMap<String, String>> {
    const MOST: usize = 8 << 10;
    let mut found = BTreeMap::new();
    let mut length = 0;
    for (name, value) in &request.headers {
        let Some(name) = name.strip_prefix("x-ms-meta-") else {
            continue;
        };
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return refuse(
                400,
                "InvalidMetadata",
                "The names of metadata are letters, digits and underscores.",
            );
        }
        length += name.len() + value.len();
        found.insert(name.to_owned(), value.clone());
    }
    if length > MOST {
        return refuse(
            400,
            "MetadataTooLarge",
            "The size of the specified metadata exceeds the maximum size permitted.",
        );
    }
    Ok(found)
}

fn headers_of(metadata: &BTreeMap<String, String>) -> Vec<(String, String)> {
    metadata
        .iter()
        .map(|(name, value)| (format!("x-ms-meta-{name}"), value.clone()))
        .collect()
}

/// An address as path and query, whatever host it names.
fn split_address(address: &str) -> Answered<(String, Vec<(String, String)>)> {
    let parsed = (|| {
        let (_, rest) = address.split_once("://")?;
        let (host, rest) = rest.split_once('/')?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut path = format!("/{}", percent_decoded(path, false)?);
        // The account may be in the host.
        if host.starts_with("md-") {
            path = format!("/{}{path}", host.split('.').next()?);
        }
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((percent_decoded(name, true)?, percent_decoded(value, true)?));
        }
        Some((path, pairs))
    })();
    match parsed {
        Some(parsed) => Ok(parsed),
        None => refuse(
            400,
            "InvalidHeaderValue",
            "The address of the source can't be understood.",
        ),
    }
}
