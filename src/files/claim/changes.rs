//! Lists of changed ranges that other programs keep, read from text.
//!
//! | form | known by | what counts as changed |
//! | --- | --- | --- |
//! | the service's `PageList` | XML | page ranges and clear ranges |
//! | this program's own list | an object with `ranges` | all of them |
//! | those of the service's client libraries | `pageRange`, `clearRange`, `PageRanges`, `ClearRanges`, or a list of `start` and `end` | all of them |
//! | `qemu-img map --output=json` | a list with `depth` | depth 0: what the image itself holds, over its backing file |
//! | `rbd diff --format json` | a list with `exists` | all of them, also what no longer exists |
//! | `thin_delta` | XML with a `superblock` | blocks that differ, or that one of the two doesn't have |
//! | `nbdinfo --map=qemu:dirty-bitmap:NAME --json` | a list with `type` | `dirty` |
//!
//! A list of what is allocated says nothing about what changed, and is refused. Ranges that aren't whole pages are widened.

use std::io::Read;
use std::path::Path;

use super::json;
use super::ranges::{ADVICE, Collector, wrong};
use super::thin;
use crate::blob::page_list;
use crate::error::{Error, Result};
use crate::image::{Ranges, SharedExtents};
use crate::page::{PAGE_SIZE, PageRange, coalesce, to_usize};
use crate::storage::{Access, File, ReadAt as _};

/// Longest list that is read.
const LONGEST: u64 = 256 << 20;

/// Ranges of a disk that may have changed; everything else is taken to be as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangedRanges {
    /// In order, without overlap.
    ranges: Vec<PageRange>,
}

impl ChangedRanges {
    /// Reads the list in the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a list that isn't one of changes;
    /// [`Damaged`](crate::ErrorKind::Damaged) for one that can't be understood.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open_locked(path, Access::Read)?;
        let len = file.byte_len()?;
        if len > LONGEST {
            return Err(Error::unsupported("the list is too long")
                .with_path(path)
                .with_found(format_args!("{len} bytes"))
                .with_expected(format_args!("at most {LONGEST} bytes")));
        }
        let mut text = vec![0; to_usize(len)];
        file.read_exact_at(&mut text, 0)?;
        Self::parse(&text).map_err(|error| error.with_path(path))
    }

    /// Reads the list that comes through a pipe, to its end. Messages call it `name`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn read(pipe: impl Read, name: &Path) -> Result<Self> {
        let mut text = Vec::new();
        pipe.take(LONGEST + 1)
            .read_to_end(&mut text)
            .map_err(|e| Error::io("cannot read", e).with_path(name))?;
        if text.len() as u64 > LONGEST {
            return Err(Error::unsupported("the list is too long")
                .with_path(name)
                .with_expected(format_args!("at most {LONGEST} bytes")));
        }
        Self::parse(&text).map_err(|error| error.with_path(name))
    }

    /// Reads a list in any of the forms.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            Some(b'<') => Self::of_xml(text),
            Some(b'{' | b'[') => {
                let mut collector = Collector::default();
                json::read(text, &mut collector)?;
                Ok(Self::of(collector))
            }
            _ => Err(wrong("this is not a list of changed ranges").with_expected(
                "a PageList in XML, or one of the lists in JSON that the documentation names",
            )),
        }
    }

    fn of_xml(text: &[u8]) -> Result<Self> {
        if let Ok(xml) = std::str::from_utf8(text)
            && thin::is_delta(xml)
        {
            let mut collector = Collector::default();
            thin::read(xml, &mut collector)?;
            return Ok(Self::of(collector));
        }
        let (ranges, is_whole) = page_list(text).map_err(|error| error.with_hint(ADVICE))?;
        if !is_whole {
            return Err(wrong("this is only a part of a list")
                .with_found("a NextMarker")
                .with_hint(
                    "ask the service for the rest of it, with that marker, and join the two",
                ));
        }
        let mut collector = Collector::default();
        for range in ranges {
            collector.push(range.start(), range.end())?;
        }
        Ok(Self::of(collector))
    }

    fn of(collector: Collector) -> Self {
        Self {
            ranges: collector.ranges(),
        }
    }

    /// These ranges, in any order.
    pub fn of_ranges(mut ranges: Vec<PageRange>) -> Self {
        ranges.sort_unstable();
        Self {
            ranges: coalesce(ranges, 0).collect(),
        }
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[PageRange] {
        &self.ranges
    }

    /// The parts of a disk of this size that aren't listed, in order.
    pub fn rest(&self, size: u64) -> impl Iterator<Item = PageRange> + '_ {
        let end = size - size % PAGE_SIZE;
        let starts = std::iter::once(0).chain(self.ranges.iter().map(|range| range.end()));
        let ends = self.ranges.iter().map(|range| range.start()).chain([end]);
        starts.zip(ends).filter_map(move |(start, stop)| {
            let stop = stop.min(end);
            (start < stop).then(|| PageRange::covering(start, stop))
        })
    }

    /// The unlisted parts as the extents that two disks, the smaller one of this size, are taken to share.
    pub fn shared(&self, size: u64) -> Box<dyn SharedExtents + '_> {
        Box::new(Rest { list: self, size })
    }
}

struct Rest<'a> {
    list: &'a ChangedRanges,
    size: u64,
}

impl SharedExtents for Rest<'_> {
    fn equal_ranges(&self) -> Ranges<'_> {
        Box::new(self.list.rest(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(u64, u64)> {
        let list = ChangedRanges::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        list.ranges()
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect()
    }

    #[test]
    fn every_form_says_the_same() {
        let expected = [(512, 1536), (4096, 4608)];
        for text in [
            "<?xml version=\"1.0\"?><PageList><PageRange><Start>512</Start><End>1023</End></PageRange><ClearRange>\
             <Start>1024</Start><End>1535</End></ClearRange><PageRange><Start>4096</Start><End>4607</End></PageRange></PageList>",
            r#"{"base":{},"ranges":[{"start":512,"length":1024,"kind":"update"},{"start":4096,"length":512,"kind":"clear"}]}"#,
            r#"{"pageRange":[{"start":4096,"end":4607},{"start":512,"end":1023}],"clearRange":[{"start":1024,"end":1535}]}"#,
            r#"{"PageRanges":[{"Offset":512,"Length":1024}],"ClearRanges":[{"Offset":4096,"Length":512}]}"#,
            r#"{"pageRange":[{"offset":"512","count":"1024"},{"offset":4096,"count":512}]}"#,
            r#"[{"start":512,"end":1535,"cleared":false},{"start":4096,"end":4607,"cleared":true}]"#,
            // What no longer exists in the newer of two RBD snapshots has changed, too.
            r#"[{"offset":512,"length":1024,"exists":"true"},{"offset":4096,"length":512,"exists":"false"}]"#,
            r#"<superblock uuid="" time="1" transaction="2" data_block_size="1" nr_data_blocks="0"><diff left="1" right="2">
               <different begin="1" length="1"/><right_only begin="2" length="1"/><same begin="3" length="5"/>
               <left_only begin="8" length="1"/></diff></superblock>"#,
            r#"<superblock data_block_size="1"><diff left="1" right="2"><different><range begin="1" left_data_begin="7"
               right_data_begin="9" length="2"/></different><same><range begin="3" data_begin="3" length="5"/></same>
               <left_only><range begin="8" data_begin="8" length="1"/></left_only></diff></superblock>"#,
            // Widened to pages, and joined.
            r#"[{"start":513,"end":1000},{"start":1000,"end":1535},{"start":4100,"length":1}]"#,
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
        assert_eq!(parsed("<PageList></PageList>"), []);
        assert_eq!(parsed("[]"), []);
    }

    #[test]
    fn maps_say_what_an_image_holds_itself_and_nothing_of_what_is_after_them() {
        let end = u64::MAX - u64::MAX % PAGE_SIZE;
        for text in [
            r#"[{"start":0,"length":512,"depth":1,"zero":false,"data":true},{"start":512,"length":512,"depth":0,"zero":true,
                "data":false,"present":true},{"start":1024,"length":512,"depth":2,"data":true}]"#,
            r#"[{"offset":0,"length":512,"type":0,"description":"clean"},{"offset":512,"length":512,"type":1,
                "description":"dirty"},{"offset":1024,"length":512,"type":0,"description":"clean"}]"#,
        ] {
            assert_eq!(parsed(text), [(512, 1024), (1536, end)], "{text}");
        }
        let gap = r#"[{"start":512,"length":512,"depth":1}]"#;
        assert_eq!(parsed(gap), [(0, 512), (1024, end)]);
        let error =
            ChangedRanges::parse(br#"[{"offset":0,"length":512,"type":0,"description":"data"}]"#);
        assert!(error.unwrap_err().hint().unwrap().contains("dirty-bitmap"));
    }

    #[test]
    fn what_is_no_list_is_told_and_never_read_as_an_empty_one() {
        for text in [
            "",
            " ",
            "x",
            "null",
            "{}",
            "[1]",
            "[{}]",
            "{\"ranges\":{}}",
            "{\"ranges\":[{\"start\":1}]}",
            "[{\"start\":-1,\"end\":5}]",
            "[{\"start\":5,\"end\":1}]",
            "[{\"start\":1.5,\"end\":5}]",
            "[{\"start\":18446744073709551615,\"length\":512}]",
            "[{\"start\":\"x\",\"end\":5}]",
            "<PageList>",
            "<a/>",
            "<PageList><PageRange><Start>0</Start></PageRange></PageList>",
            "<PageList><NextMarker>2!</NextMarker></PageList>",
            "<superblock><diff><different begin=\"1\" length=\"1\"/></diff></superblock>",
            "<superblock data_block_size=\"0\"><diff/></superblock>",
            "<superblock data_block_size=\"128\"></superblock>",
            "<superblock data_block_size=\"128\"><diff/><diff/></superblock>",
            "<superblock data_block_size=\"128\"><diff><different begin=\"1\"/></diff></superblock>",
            "<superblock data_block_size=\"128\"><diff><different begin=\"x\" length=\"1\"/></diff></superblock>",
            "<superblock data_block_size=\"128\"><diff><different begin=\"1\" length=\"1\"/>",
            "<superblock data_block_size=\"128\"><diff><different begin=\"18446744073709551615\" length=\"1\"/></diff></superblock>",
            "{\"pageRange\":[],\"nextMarker\":\"2!\"}",
            "[{\"start\":512,\"length\":512,\"depth\":1},{\"start\":0,\"length\":512,\"depth\":1}]",
            "[{\"start\":0,\"length\":512,\"depth\":1},{\"start\":512,\"length\":512}]",
        ] {
            let error = ChangedRanges::parse(text.as_bytes()).expect_err(text);
            assert!(error.hint().is_some(), "{text}: {error}");
        }
        let deep = "[".repeat(1 << 20);
        ChangedRanges::parse(deep.as_bytes()).unwrap_err();
        ChangedRanges::parse(format!("{{\"ranges\":{deep}").as_bytes()).unwrap_err();
    }

    #[test]
    fn the_rest_is_everything_else() {
        let list =
            ChangedRanges::parse(br#"[{"start":0,"length":512},{"start":1024,"length":4096}]"#);
        let list = list.unwrap();
        let rest = |size| {
            let rest = list.rest(size);
            rest.map(|range| (range.start(), range.end()))
                .collect::<Vec<_>>()
        };
        assert_eq!(rest(8192), [(512, 1024), (5120, 8192)]);
        assert_eq!(rest(5120), [(512, 1024)]);
        assert_eq!(
            rest(700),
            [(512, 512)]
                .into_iter()
                .filter(|(a, b)| a < b)
                .collect::<Vec<_>>()
        );
        assert_eq!(rest(512), []);
    }
}
