//! Lists in XML: alternating page ranges and clear ranges, and blobs with their snapshots.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::store::{BlobId, BlobKind, Blobs, Listed, Metadata, Pages, Properties};
use crate::error::{Error, Result};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageRange};

/// The deepest nesting of elements that is accepted; lists have six levels.
const DEEPEST: usize = 16;

/// The longest text of one element that is kept.
const LONGEST: usize = 16 << 10;

/// Walks the elements of a document. `end` is called when an element ends, with the names of its ancestors and itself,
/// and its text.
fn walk(xml: &[u8], mut end: impl FnMut(&[String], &str) -> Result<()>) -> Result<()> {
    let refuse =
        |what: &str| Error::damaged(format!("the answer of the service is not a list: {what}"));
    // Some servers begin with a byte order mark.
    let xml = xml.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(xml);
    let xml = std::str::from_utf8(xml).map_err(|_| refuse("it is not text"))?;
    let mut reader = Reader::from_str(xml);
    let mut names: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut elements = 0_u64;
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                if names.len() >= DEEPEST {
                    return Err(refuse("it is nested too deeply"));
                }
                names.push(local(start.name().as_ref()).to_owned());
                text.clear();
                elements += 1;
            }
            Ok(Event::End(_)) => {
                end(&names, text.trim())?;
                names.pop();
                text.clear();
            }
            Ok(Event::Empty(empty)) => {
                names.push(local(empty.name().as_ref()).to_owned());
                end(&names, "")?;
                names.pop();
                text.clear();
                elements += 1;
            }
            Ok(Event::Text(part)) => text += &part,
            Ok(Event::CData(part)) => text += &part,
            Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                Ok(Some(c)) => text.push(c),
                _ => text.push(named(&reference).ok_or_else(|| refuse("an entity is unknown"))?),
            },
            Ok(Event::Eof) if !names.is_empty() => return Err(refuse("it is truncated")),
            Ok(Event::Eof) if elements == 0 => return Err(refuse("it is empty")),
            Ok(Event::Eof) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(refuse(&e.to_string())),
        }
        if text.len() > LONGEST {
            return Err(refuse("an element is too long"));
        }
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn named(reference: &str) -> Option<char> {
    Some(match reference {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

/// Reads a `PageList` that is kept in a file: its ranges, and whether it is all of a list.
pub fn page_list(xml: &[u8]) -> Result<(Vec<PageRange>, bool)> {
    let pages = pages(xml, None)?;
    let ranges = pages.list.iter().map(|change| change.range).collect();
    Ok((ranges, pages.marker.is_none()))
}

/// Parses a `PageList`. `size` is that of the blob: everything beyond is cut.
pub(super) fn pages(xml: &[u8], size: Option<u64>) -> Result<Pages> {
    let size = size.unwrap_or(u64::MAX);
    let mut pages = Pages::default();
    let (mut start, mut last) = (None, None);
    let mut is_list = false;
    walk(xml, |names, text| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match names[..] {
            ["PageList", "PageRange" | "ClearRange", "Start"] => start = Some(number(text)?),
            ["PageList", "PageRange" | "ClearRange", "End"] => last = Some(number(text)?),
            ["PageList", kind @ ("PageRange" | "ClearRange")] => {
                let kind = if kind == "PageRange" {
                    ChangeKind::Update
                } else {
                    ChangeKind::Clear
                };
                if let Some(range) = range(start.take(), last.take(), size)? {
                    pages.list.push(Change { range, kind }).map_err(|_| {
                        Error::damaged("the ranges of the list are not in ascending order")
                            .with_found(format_args!("{range:?}"))
                    })?;
                }
            }
            ["PageList", "NextMarker"] if !text.is_empty() => pages.marker = Some(text.to_owned()),
            ["PageList"] => is_list = true,
            _ => {}
        }
        Ok(())
    })?;
    if !is_list {
        return Err(Error::damaged(
            "the answer of the service is not a list of pages",
        ));
    }
    Ok(pages)
}

/// The range from `start` to the byte `last`, cut at the size; `None` if nothing is left.
fn range(start: Option<u64>, last: Option<u64>, size: u64) -> Result<Option<PageRange>> {
    let end = last.and_then(|last| last.checked_add(1));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(Error::damaged("a range of the list has no start or no end"));
    };
    let whole = PageRange::new(start, end).filter(|range| !range.is_empty());
    let whole = whole.ok_or_else(|| {
        Error::damaged("a range of the list is not made of whole pages")
            .with_found(format_args!("{start} to {}", end - 1))
    })?;
    if start >= size {
        return Ok(None);
    }
    Ok(PageRange::new(start, whole.end().min(size - size % PAGE_SIZE)).filter(|r| !r.is_empty()))
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        Error::damaged("a number in the list is invalid")
            .with_found(text.chars().take(40).collect::<String>())
    })
}

/// Parses the response to List Blobs.
pub(super) fn blobs(xml: &[u8]) -> Result<Blobs> {
    let mut blobs = Blobs::default();
    let mut next = Draft::default();
    let mut is_list = false;
    walk(xml, |names, text| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match names[..] {
            ["EnumerationResults", "Blobs", "Blob"] => {
                let draft = std::mem::take(&mut next);
                blobs.list.extend(draft.finish()?);
            }
            ["EnumerationResults", "Blobs", "Blob", ref field @ ..] => next.take(field, text)?,
            ["EnumerationResults", "NextMarker"] if !text.is_empty() => {
                blobs.marker = Some(text.to_owned());
            }
            ["EnumerationResults"] => is_list = true,
            _ => {}
        }
        Ok(())
    })?;
    if !is_list {
        return Err(Error::damaged(
            "the answer of the service is not a list of blobs",
        ));
    }
    Ok(blobs)
}

/// A blob of a list that is being parsed.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    snapshot: Option<String>,
    size: Option<u64>,
    etag: Option<String>,
    last_modified: Option<String>,
    is_page_blob: bool,
    sequence: u64,
    leased: bool,
    metadata: Metadata,
}

impl Draft {
    fn take(&mut self, field: &[&str], text: &str) -> Result<()> {
        match *field {
            ["Name"] => self.name = Some(text.to_owned()),
            ["Snapshot"] if !text.is_empty() => self.snapshot = Some(text.to_owned()),
            ["Properties", "Content-Length"] => self.size = Some(number(text)?),
            ["Properties", "Etag"] => self.etag = Some(quoted_etag(text)),
            ["Properties", "Last-Modified"] => self.last_modified = Some(text.to_owned()),
            ["Properties", "BlobType"] => self.is_page_blob = text == "PageBlob",
            ["Properties", "x-ms-blob-sequence-number"] if !text.is_empty() => {
                self.sequence = number(text)?;
            }
            ["Properties", "LeaseState"] => self.leased = matches!(text, "leased" | "breaking"),
            ["Metadata", name] => {
                self.metadata
                    .insert(name.to_ascii_lowercase(), text.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<Listed>> {
        let (Some(name), Some(size)) = (self.name, self.size) else {
            // A folder marker, or a deleted blob: nothing that could be read.
            return Ok(None);
        };
        Ok(Some(Listed {
            id: BlobId {
                name,
                snapshot: self.snapshot,
            },
            properties: Properties {
                size,
                etag: self
                    .etag
                    .ok_or_else(|| Error::damaged("a blob of the list has no ETag"))?,
                last_modified: self.last_modified,
                kind: if self.is_page_blob {
                    BlobKind::Page
                } else {
                    BlobKind::Other
                },
                sequence: self.sequence,
                leased: self.leased,
                metadata: self.metadata,
            },
        }))
    }
}

/// Headers contain the tag in quotes, lists don't.
fn quoted_etag(text: &str) -> String {
    if text.starts_with('"') || text.starts_with("W/") {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

/// Code and message of an error in XML; empty if missing.
pub(super) fn error(xml: &[u8]) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    // An unreadable error is no worse than a missing one.
    let _ = walk(xml, |names, text| {
        match names.last().map(String::as_str) {
            Some("Code") if code.is_empty() => text.clone_into(&mut code),
            Some("Message") if message.is_empty() => text.clone_into(&mut message),
            _ => {}
        }
        Ok(())
    });
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(inner: &str) -> Vec<u8> {
        format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>{inner}</PageList>")
            .into_bytes()
    }

    fn entry(kind: &str, start: u64, last: u64) -> String {
        format!("<{kind}>\n <Start>{start}</Start><End>{last}</End></{kind}>")
    }

    #[test]
    fn both_kinds_alternate_and_neighbours_join() {
        let xml = list(
            &[
                entry("ClearRange", 0, 4095),
                entry("PageRange", 4096, 4607),
                entry("PageRange", 4608, 5119),
                entry("ClearRange", 8192, 8703),
                entry("PageRange", 1 << 20, (1 << 20) + 1023),
                "<NextMarker>abc&amp;d</NextMarker>".into(),
            ]
            .concat(),
        );
        let pages = pages(&xml, Some((1 << 20) + 512)).unwrap();
        let found: Vec<_> = pages
            .list
            .iter()
            .map(|c| (c.kind.name(), c.range.start(), c.range.end()))
            .collect();
        assert_eq!(
            found,
            [
                ("clear", 0, 4096),
                ("update", 4096, 5120),
                ("clear", 8192, 8704),
                ("update", 1 << 20, (1 << 20) + 512),
            ]
        );
        assert_eq!(pages.marker.as_deref(), Some("abc&d"));
    }

    #[test]
    fn empty_lists_are_lists() {
        for xml in [list(""), b"<PageList/>".to_vec(), list("<NextMarker/>")] {
            let pages = pages(&xml, None).unwrap();
            assert!(pages.list.is_empty() && pages.marker.is_none());
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for xml in [
            b"".to_vec(),
            b"<html><body>sign in</body></html>".to_vec(),
            b"\xff\xfe".to_vec(),
            list("<PageRange><Start>0</Start></PageRange>"),
            list("<PageRange><Start>0</Start><End>x</End></PageRange>"),
            list(&entry("PageRange", 0, 18_446_744_073_709_551_615)),
            list(&entry("PageRange", 1, 511)),
            list(&entry("PageRange", 512, 511)),
            list(&(entry("PageRange", 4096, 4607) + &entry("ClearRange", 0, 511))),
            list(&(entry("PageRange", 0, 1023) + &entry("ClearRange", 512, 1023))),
            list("&unknown;"),
            b"<PageList><PageRange><Start>0</Start><End>511</End></PageRange>".to_vec(),
            "<a>".repeat(100).into_bytes(),
            list(&"x".repeat(LONGEST + 1)),
        ] {
            assert!(
                pages(&xml, None).is_err(),
                "{}",
                String::from_utf8_lossy(&xml)
            );
        }
    }

    #[test]
    fn blobs_come_with_their_snapshots_and_metadata() {
        let xml = "<EnumerationResults><Prefix/><Blobs>\
            <Blob><Name>a &lt;b&gt;</Name><Snapshot>2026-11-28T10:00:00.0000000Z</Snapshot><Properties>\
            <Content-Length>1024</Content-Length><Etag>0x8D</Etag><BlobType>PageBlob</BlobType>\
            <x-ms-blob-sequence-number>7</x-ms-blob-sequence-number><LeaseState>available</LeaseState></Properties>\
            <Metadata><Vhdkit_Name>monday</Vhdkit_Name></Metadata></Blob>\
            <Blob><Name>c</Name><Properties><Content-Length>5</Content-Length><Etag>\"1\"</Etag>\
            <BlobType>BlockBlob</BlobType><LeaseState>leased</LeaseState></Properties></Blob>\
            <BlobPrefix><Name>folder/</Name></BlobPrefix></Blobs><NextMarker>m</NextMarker></EnumerationResults>";
        let blobs = blobs(xml.as_bytes()).unwrap();
        assert_eq!(blobs.marker.as_deref(), Some("m"));
        let [first, second] = &blobs.list[..] else {
            panic!("{blobs:?}")
        };
        assert_eq!(
            first.id,
            BlobId::live("a <b>").at("2026-11-28T10:00:00.0000000Z")
        );
        assert_eq!(
            (first.properties.size, first.properties.sequence),
            (1024, 7)
        );
        assert_eq!(first.properties.etag, "\"0x8D\"");
        assert_eq!(first.properties.metadata["vhdkit_name"], "monday");
        assert_eq!(second.properties.kind, BlobKind::Other);
        assert!(second.properties.leased && !first.properties.leased);
        assert!(super::blobs(b"<PageList/>").is_err());
    }

    #[test]
    fn errors_are_read_as_far_as_they_go() {
        let xml = b"<Error><Code>AuthenticationFailed</Code><Message>No.</Message>\
            <AuthenticationErrorDetail>Expired</AuthenticationErrorDetail></Error>";
        let (code, message) = error(xml);
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("AuthenticationFailed", "No.")
        );
        assert_eq!(error(b"<html>").0, "");
        assert_eq!(error(b"").0, "");
    }
}
