//! Lists as the storage service writes them: pages, blobs, containers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::accounts::Container;
use super::http::Request;
use super::pages::PageMap;
use super::refusal::{Answered, refuse};
use super::text::xml;
use super::volume::{CopyOf, Held, Volume, hex, shown_time};
use crate::page::{ChangeKind, PageRange};

/// Maximum number of ranges or entries in one response.
const MOST_RANGES: usize = 10_000;
const MOST_ENTRIES: usize = 5_000;

/// A number of the query, between 1 and `most`.
fn max_results(request: &Request, most: usize) -> Answered<usize> {
    match request.asked("maxresults") {
        None | Some("") => Ok(most),
        Some(text) => match text.parse::<usize>() {
            Ok(0) | Err(_) => refuse(
                400,
                "OutOfRangeQueryParameterValue",
                "One of the query parameters specified in the request URI is outside the permissible range.",
            ),
            Ok(n) => Ok(n.min(most)),
        },
    }
}

/// The pages of `within` that hold data, or that changed since a generation. A marker tells where to continue.
pub(super) fn pages(
    request: &Request,
    map: &PageMap,
    within: PageRange,
    since: Option<u64>,
) -> Answered<String> {
    let most = max_results(request, MOST_RANGES)?;
    // A client that doesn't ask for parts gets the whole list: older ones don't know markers.
    let paged = request.asked("maxresults").is_some() || request.asked("marker").is_some();
    let most = if paged { most } else { usize::MAX };
    let from = match request.asked("marker") {
        None | Some("") => within.start(),
        Some(text) => match text.parse::<u64>() {
            Ok(at) if at % 512 == 0 && at >= within.start() => at.min(within.end()),
            _ => {
                return refuse(
                    400,
                    "InvalidQueryParameterValue",
                    "The marker isn't one that this server gave.",
                );
            }
        },
    };
    let rest = PageRange::new(from, within.end()).unwrap_or_default();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>");
    let mut listed = map.list(rest, since);
    for change in listed.by_ref().take(most) {
        let name = match change.kind {
            ChangeKind::Update => "PageRange",
            ChangeKind::Clear => "ClearRange",
        };
        let (start, end) = (change.range.start(), change.range.end());
        let _ = write!(
            out,
            "<{name}><Start>{start}</Start><End>{}</End></{name}>",
            end - 1
        );
    }
    if let Some(next) = listed.next() {
        let _ = write!(out, "<NextMarker>{}</NextMarker>", next.range.start());
    }
    out.push_str("</PageList>");
    Ok(out)
}

/// A blob or a snapshot in a list.
struct Entry {
    name: String,
    snapshot: Option<String>,
    inner: String,
}

impl Entry {
    /// Where it is in the order: snapshots before their blob.
    fn place(&self) -> (String, String) {
        (
            self.name.clone(),
            self.snapshot.clone().unwrap_or_else(|| "~".to_owned()),
        )
    }
}

/// The blobs of a container.
pub(super) fn blobs(
    request: &Request,
    (root, account, container): (&str, &str, &str),
    all: Vec<(String, Arc<Volume>)>,
) -> Answered<String> {
    let include = request.asked("include").unwrap_or("").to_ascii_lowercase();
    let includes = |what: &str| include.split(',').any(|part| part.trim() == what);
    let (snapshots, metadata, copies) = (
        includes("snapshots"),
        includes("metadata"),
        includes("copy"),
    );
    let delimiter = request.asked("delimiter").filter(|text| !text.is_empty());
    let prefix = request.asked("prefix").unwrap_or("");
    if snapshots && delimiter.is_some() {
        return refuse(
            400,
            "InvalidQueryParameterValue",
            "Snapshots can't be listed with a delimiter.",
        );
    }
    let most = max_results(request, MOST_ENTRIES)?;
    let marker = match request.asked("marker") {
        None | Some("") => None,
        Some(text) => Some(place_of(text).ok_or(()).or_else(|()| {
            refuse(
                400,
                "OutOfRangeInput",
                "The marker isn't one that this server gave.",
            )
        })?),
    };
    let mut out = String::new();
    let (mut count, mut next) = (0, None);
    let mut last_prefix = String::new();
    for (name, volume) in all {
        if marker.as_ref().is_some_and(|(known, _)| name < *known) {
            continue;
        }
        let group = delimiter.and_then(|delimiter| {
            let rest = name.get(prefix.len()..)?;
            let at = rest.find(delimiter)?;
            name.get(..prefix.len() + at + delimiter.len())
                .map(str::to_owned)
        });
        let entries = match group {
            Some(group) if group == last_prefix => continue,
            Some(group) => {
                let inner = format!("<BlobPrefix><Name>{}</Name></BlobPrefix>", xml(&group));
                last_prefix = group;
                vec![Entry {
                    name,
                    snapshot: None,
                    inner,
                }]
            }
            None => entries(&name, &volume, (snapshots, metadata, copies)),
        };
        for entry in entries {
            if marker
                .as_ref()
                .is_some_and(|marker| entry.place() < *marker)
            {
                continue;
            }
            if count == most {
                next.get_or_insert_with(|| marker_of(&entry.place()));
                break;
            }
            count += 1;
            out.push_str(&entry.inner);
        }
        if next.is_some() {
            break;
        }
    }
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"{}\" ContainerName=\"{}\">{}<Blobs>{out}</Blobs>\
         <NextMarker>{}</NextMarker></EnumerationResults>",
        xml(&format!("{root}/{account}/")),
        xml(container),
        echoed(request),
        next.unwrap_or_default(),
    ))
}

/// The parameters of the request, which clients take from the response.
fn echoed(request: &Request) -> String {
    let names = [
        ("prefix", "Prefix"),
        ("marker", "Marker"),
        ("maxresults", "MaxResults"),
        ("delimiter", "Delimiter"),
    ];
    names.iter().fold(String::new(), |mut out, (name, tag)| {
        if let Some(value) = request.asked(name).filter(|value| !value.is_empty()) {
            let _ = write!(out, "<{tag}>{}</{tag}>", xml(value));
        }
        out
    })
}

fn marker_of(place: &(String, String)) -> String {
    hex(format!("{}\n{}", place.0, place.1).as_bytes())
}

fn place_of(marker: &str) -> Option<(String, String)> {
    let bytes = super::volume::unhex(marker)?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, snapshot) = text.rsplit_once('\n')?;
    Some((name.to_owned(), snapshot.to_owned()))
}

fn entries(
    name: &str,
    volume: &Volume,
    (snapshots, metadata, copies): (bool, bool, bool),
) -> Vec<Entry> {
    let live = volume.read();
    let record = &live.record;
    let mut found = Vec::new();
    let whole = |snapshot: Option<&str>,
                 properties: String,
                 metadata: Option<&BTreeMap<String, String>>| {
        let mut inner = format!("<Blob><Name>{}</Name>", xml(name));
        if let Some(time) = snapshot {
            let _ = write!(inner, "<Snapshot>{time}</Snapshot>");
        }
        let _ = write!(inner, "<Properties>{properties}</Properties>");
        if let Some(metadata) = metadata {
            inner.push_str("<Metadata>");
            for (key, value) in metadata {
                let _ = write!(inner, "<{key}>{}</{key}>", xml(value));
            }
            inner.push_str("</Metadata>");
        }
        inner.push_str("</Blob>");
        Entry {
            name: name.to_owned(),
            snapshot: snapshot.map(str::to_owned),
            inner,
        }
    };
    let common = |etag: &str, modified: i64, size: u64, sequence: u64, kind: &str| {
        format!(
            "<Creation-Time>{}</Creation-Time><Last-Modified>{}</Last-Modified><Etag>{}</Etag><Content-Length>{size}</Content-Length>\
             <Content-Type>{}</Content-Type><Content-Encoding/><Content-Language/><Content-MD5>{}</Content-MD5>\
             <x-ms-blob-sequence-number>{sequence}</x-ms-blob-sequence-number><BlobType>PageBlob</BlobType>\
             <ServerEncrypted>true</ServerEncrypted>",
            shown_time(record.created),
            shown_time(modified),
            etag.trim_matches('"'),
            xml(kind),
            xml(record.content_md5.as_deref().unwrap_or("")),
        )
    };
    if snapshots {
        for taken in &record.snapshots {
            let properties = common(
                &taken.etag,
                taken.modified,
                taken.size,
                taken.sequence,
                &taken.content_type,
            );
            found.push(whole(
                Some(&taken.time),
                properties,
                metadata.then_some(&taken.metadata),
            ));
        }
    }
    if live.is_there() {
        let (state, status) = Held::shown(record.lease.as_ref());
        let mut properties = common(
            &live.etag(),
            live.modified(),
            live.size(),
            record.sequence,
            &record.content_type,
        );
        let _ = write!(
            properties,
            "<LeaseStatus>{status}</LeaseStatus><LeaseState>{state}</LeaseState>"
        );
        if state == "leased" {
            let fixed = record
                .lease
                .as_ref()
                .is_some_and(|held| held.duration.is_some());
            let _ = write!(
                properties,
                "<LeaseDuration>{}</LeaseDuration>",
                if fixed { "fixed" } else { "infinite" }
            );
        }
        if let Some(copy) = record.copy.as_ref().filter(|_| copies) {
            properties.push_str(&copy_elements(copy));
        }
        found.push(whole(
            None,
            properties,
            metadata.then_some(&record.metadata),
        ));
    }
    found
}

fn copy_elements(copy: &CopyOf) -> String {
    format!(
        "<CopyId>{}</CopyId><CopyStatus>success</CopyStatus><CopySource>{}</CopySource><CopyProgress>{}/{}</CopyProgress>\
         <CopyCompletionTime>{}</CopyCompletionTime>",
        copy.id,
        xml(&copy.source),
        copy.bytes,
        copy.bytes,
        shown_time(copy.finished),
    )
}

/// The containers of the account.
pub(super) fn containers(
    request: &Request,
    root: &str,
    account: &str,
    all: &[Container],
) -> Answered<String> {
    let prefix = request.asked("prefix").unwrap_or("");
    let marker = request.asked("marker").unwrap_or("");
    let most = max_results(request, MOST_ENTRIES)?;
    let metadata = request
        .asked("include")
        .is_some_and(|include| include.contains("metadata"));
    let mut listed = all.iter().filter(|container| {
        container.name.starts_with(prefix) && container.name.as_str() >= marker
    });
    let mut out = String::new();
    for container in listed.by_ref().take(most) {
        let _ = write!(
            out,
            "<Container><Name>{}</Name><Properties><Last-Modified>{}</Last-Modified><Etag>{}</Etag>\
             <LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>\
             <HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold></Properties>",
            container.name,
            shown_time(container.modified),
            container.etag(),
        );
        if metadata {
            out.push_str("<Metadata>");
            for (key, value) in &container.metadata {
                let _ = write!(out, "<{key}>{}</{key}>", xml(value));
            }
            out.push_str("</Metadata>");
        }
        out.push_str("</Container>");
    }
    let next = listed.next().map_or("", |container| &container.name);
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"{}\">{}<Containers>{out}</Containers>\
         <NextMarker>{next}</NextMarker></EnumerationResults>",
        xml(&format!("{root}/{account}/")),
        echoed(request),
    ))
}
