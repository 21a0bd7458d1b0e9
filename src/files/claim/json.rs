//! The JSON forms of a list of changed ranges, read as a stream: memory depends on the number of ranges, which has a limit.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, de};

use super::ranges::{Collector, wrong};
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;

/// Where lists of ranges are in an object.
const LISTS: [&str; 11] = [
    "ranges",
    "pageRange",
    "clearRange",
    "pageRanges",
    "clearRanges",
    "PageRanges",
    "ClearRanges",
    "PageRange",
    "ClearRange",
    "page_ranges",
    "clear_ranges",
];

/// Where an object says that there is more.
const MARKERS: [&str; 4] = [
    "nextMarker",
    "NextMarker",
    "continuationToken",
    "next_marker",
];

/// Reads the ranges of `text` into `collector`.
pub(super) fn read(text: &[u8], collector: &mut Collector) -> Result<()> {
    let mut reader = Reader {
        collector,
        form: None,
        at: 0,
        error: None,
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let done = Document(&mut reader)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    if let Some(error) = reader.error.take() {
        return Err(error);
    }
    done.map_err(|e| wrong("this is not JSON of changed ranges").with_found(e))?;
    reader.end()
}

/// The meaning of a list's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Changed ranges.
    Ranges,
    /// Extents of a chain of images, each with the depth where it is stored.
    Depths,
    /// Extents that are dirty or clean.
    Bitmap,
}

struct Reader<'a> {
    collector: &'a mut Collector,
    form: Option<Form>,
    /// Where a map has come to.
    at: u64,
    error: Option<Error>,
}

/// An item in any of the spellings; what else it has isn't looked at.
#[derive(Deserialize)]
struct Item {
    #[serde(alias = "Start")]
    start: Option<Bytes>,
    #[serde(alias = "Offset")]
    offset: Option<Bytes>,
    #[serde(alias = "Length")]
    length: Option<Bytes>,
    #[serde(alias = "Count")]
    count: Option<Bytes>,
    #[serde(alias = "End")]
    end: Option<Bytes>,
    depth: Option<u64>,
    r#type: Option<IgnoredAny>,
    description: Option<String>,
}

/// A number, which some write as text.
#[derive(Debug, Clone, Copy)]
struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Bytes, E> {
                Ok(Bytes(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Bytes, E> {
                text.parse()
                    .map(Bytes)
                    .map_err(|_| E::custom("a bound of a range is not a number of bytes"))
            }
        }
        json.deserialize_any(Number)
    }
}

impl Item {
    fn form(&self) -> Form {
        match (self.depth, &self.r#type) {
            (Some(_), _) => Form::Depths,
            (None, Some(_)) => Form::Bitmap,
            (None, None) => Form::Ranges,
        }
    }

    /// First byte and end.
    fn bounds(&self) -> Result<(u64, u64)> {
        let number = |first: Option<Bytes>, second: Option<Bytes>| first.or(second).map(|n| n.0);
        let start = number(self.start, self.offset);
        let length = number(self.length, self.count);
        let end = match (start, length, self.end) {
            (Some(start), Some(length), _) => start.checked_add(length),
            // The service's ends are inclusive.
            (Some(_), None, Some(last)) => last.0.checked_add(1),
            _ => return Err(wrong("a range has no start, or no length and no end")),
        };
        match (start, end) {
            (Some(start), Some(end)) if start <= end => Ok((start, end)),
            _ => Err(wrong("a range ends before it begins, or beyond every disk")
                .with_found(format_args!("one that starts at {}", start.unwrap_or(0)))),
        }
    }
}

impl Reader<'_> {
    fn take(&mut self, item: &Item) -> Result<()> {
        let form = *self.form.get_or_insert(item.form());
        if form != item.form() {
            return Err(wrong("the items of the list are not all of one kind"));
        }
        let (start, end) = item.bounds()?;
        let changed = match form {
            Form::Ranges => return self.collector.push(start, end),
            Form::Depths => item.depth == Some(0),
            Form::Bitmap => match item.description.as_deref() {
                Some("dirty") => true,
                Some("clean") => false,
                other => return Err(not_of_changes(other)),
            },
        };
        if start < self.at {
            return Err(wrong("the extents of the map are not in order").with_found(start));
        }
        // What a map doesn't mention may have changed.
        self.collector.push(self.at, start)?;
        if changed {
            self.collector.push(start, end)?;
        }
        self.at = end;
        Ok(())
    }

    fn end(self) -> Result<()> {
        match self.form {
            Some(Form::Depths | Form::Bitmap) => self
                .collector
                .push(self.at, u64::MAX - u64::MAX % PAGE_SIZE),
            _ => Ok(()),
        }
    }

    /// Keeps the error, which says more than one of the JSON can.
    fn failed<E: de::Error>(&mut self, error: Error) -> E {
        self.error.get_or_insert(error);
        E::custom("")
    }
}

fn not_of_changes(found: Option<&str>) -> Error {
    Error::unsupported("this map lists what is stored, not what changed")
        .with_found(found.unwrap_or("no description"))
        .with_expected("dirty or clean")
        .with_hint("ask for the bitmap of changes: nbdinfo with map=qemu:dirty-bitmap:NAME")
}

/// The whole text: a list, or an object that has some.
struct Document<'a, 'b>(&'a mut Reader<'b>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ranges, or an object that has some")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> std::result::Result<(), A::Error> {
        List(self.0).visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> std::result::Result<(), A::Error> {
        let mut found = false;
        while let Some(name) = object.next_key::<String>()? {
            if LISTS.contains(&name.as_str()) {
                found = true;
                object.next_value_seed(List(self.0))?;
            } else if MARKERS.contains(&name.as_str()) {
                let marker: Option<String> = object.next_value()?;
                if marker.is_some_and(|marker| !marker.is_empty()) {
                    return Err(self.0.failed(
                        wrong("this is only a part of a list")
                            .with_found(name)
                            .override_hint("ask for the rest of it, and join the two"),
                    ));
                }
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        if found {
            return Ok(());
        }
        Err(A::Error::custom("an object without a list of ranges"))
    }
}

/// One list of items.
struct List<'a, 'b>(&'a mut Reader<'b>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        while let Some(item) = items.next_element::<Item>()? {
            if let Err(error) = self.0.take(&item) {
                return Err(self.0.failed(error));
            }
        }
        Ok(())
    }
}
