//! The XML of `thin_delta`, which compares two thin volumes of one pool: blocks of the pool's size, in sectors.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::ranges::{Collector, wrong};
use crate::error::Result;
use crate::page::PAGE_SIZE;

/// The deepest nesting of elements: `superblock`, `diff`, a kind, `range`.
const DEEPEST: usize = 8;

/// Blocks that differ, or that only one of the two volumes has. The rest is the same, or not in the list because
/// neither has it.
const CHANGED: [&str; 3] = ["different", "left_only", "right_only"];

/// Returns whether `xml` has the root element of such a list.
pub(super) fn is_delta(xml: &str) -> bool {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event() {
            Ok(Event::Start(root) | Event::Empty(root)) => {
                return root.name().as_ref() == "superblock";
            }
            Ok(Event::Eof) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

/// Reads the ranges of `xml` into `collector`.
pub(super) fn read(xml: &str, collector: &mut Collector) -> Result<()> {
    let mut reader = Reader::from_str(xml);
    let mut names: Vec<String> = Vec::new();
    let mut block = None;
    let mut diffs = 0;
    loop {
        let event = reader
            .read_event()
            .map_err(|e| wrong("this is not well-formed XML").with_found(e))?;
        let (element, stays) = match &event {
            Event::Start(element) => (element, true),
            Event::Empty(element) => (element, false),
            Event::End(_) => {
                names.pop();
                continue;
            }
            Event::Eof if names.is_empty() && diffs == 1 => return Ok(()),
            Event::Eof if names.is_empty() => {
                return Err(wrong("the list must have one element diff").with_found(diffs));
            }
            Event::Eof => return Err(wrong("the list is truncated")),
            _ => continue,
        };
        let name = element.name().as_ref().to_owned();
        match (names.len(), name.as_str()) {
            (0, "superblock") => block = Some(block_size(element)?),
            (1, "diff") => diffs += 1,
            _ => {}
        }
        // A verbose list has the ranges below their kind.
        let kind = match (name.as_str(), names.last()) {
            ("range", Some(above)) => above.as_str(),
            (own, _) => own,
        };
        if CHANGED.contains(&kind) && (!stays || name == "range") {
            let Some(block) = block else {
                return Err(wrong("the list doesn't specify the block size"));
            };
            push(element, block, collector)?;
        }
        if stays {
            if names.len() >= DEEPEST {
                return Err(wrong("the list is nested too deeply"));
            }
            names.push(name);
        }
    }
}

/// The number in an attribute.
fn number(element: &BytesStart<'_>, name: &str) -> Result<u64> {
    let attribute = element
        .try_get_attribute(name)
        .map_err(|e| wrong("this is not well-formed XML").with_found(e))?;
    let value = attribute.map(|attribute| attribute.value.into_owned());
    let value = value.ok_or_else(|| wrong("an attribute is missing").with_field(name))?;
    value.parse().map_err(|_| {
        wrong("an attribute is not a number")
            .with_field(name)
            .with_found(format_args!("{value:?}"))
    })
}

/// Bytes in a block.
fn block_size(superblock: &BytesStart<'_>) -> Result<u64> {
    let sectors = number(superblock, "data_block_size")?;
    sectors
        .checked_mul(PAGE_SIZE)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| {
            wrong("a block of this size is impossible")
                .with_field("data_block_size")
                .with_found(format_args!("{sectors} sectors"))
        })
}

fn push(element: &BytesStart<'_>, block: u64, collector: &mut Collector) -> Result<()> {
    let (begin, length) = (number(element, "begin")?, number(element, "length")?);
    let end = begin
        .checked_add(length)
        .and_then(|end| end.checked_mul(block));
    let Some(end) = end else {
        return Err(wrong("a range ends beyond every disk")
            .with_found(format_args!("{length} blocks from block {begin}")));
    };
    collector.push(begin.saturating_mul(block), end)
}
