//! Lists of changed page ranges: columns, JSON, the cloud's `PageList`, and a map for other programs. All of them are
//! streamed: memory doesn't grow with the number of ranges.

use serde::Serialize;

use super::output::{JsonList, Output};
use super::size::{Count, Short, Size};
use crate::diff::Comparison;
use crate::error::Result;
use crate::files::Opened;
use crate::page::{Change, ChangeKind, Joiner};

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListingFormat {
    Text,
    Json,
    Xml,
    Map,
}

/// A list in progress.
pub(super) struct Listing {
    output: Output,
    format: ListingFormat,
    target_size: u64,
    joiner: Joiner,
    /// The current position of the map.
    at: u64,
    ranges: u64,
    json: Option<JsonList>,
}

#[derive(Serialize)]
struct Head {
    base: Side,
    target: Side,
}

#[derive(Serialize)]
struct Side {
    image: String,
    format: &'static str,
    virtual_size: u64,
}

impl Side {
    fn new(image: &dyn Opened) -> Self {
        Self {
            image: image.path().to_string_lossy().into_owned(),
            format: image.format().name(),
            virtual_size: image.virtual_size(),
        }
    }
}

/// A range in JSON.
#[derive(Debug, Serialize)]
pub(super) struct RangeItem {
    start: u64,
    length: u64,
    kind: &'static str,
}

impl From<Change> for RangeItem {
    fn from(change: Change) -> Self {
        Self {
            start: change.range.start(),
            length: change.range.len(),
            kind: change.kind.name(),
        }
    }
}

#[derive(Serialize)]
struct Totals {
    same: bool,
    range_count: u64,
    update_bytes: u64,
    clear_bytes: u64,
}

/// Prints the columns of one range, also for `vhd show --ranges`.
pub(super) fn text_line(output: &mut Output, change: Change) -> Result<()> {
    let (start, len) = (change.range.start(), change.range.len());
    output.line(format_args!(
        "{start:>18} {len:>18}  {:<6}  {}",
        change.kind.name(),
        Short(len)
    ))
}

/// Prints the column headings.
pub(super) fn text_head(output: &mut Output) -> Result<()> {
    output.line(format_args!(
        "{:>18} {:>18}  {:<6}  {}",
        "START", "LENGTH", "KIND", "SIZE"
    ))
}

impl Listing {
    pub(super) fn begin(
        mut output: Output,
        format: ListingFormat,
        base: &dyn Opened,
        target: &dyn Opened,
    ) -> Result<Self> {
        let mut json = None;
        match format {
            // The column headings are printed with the first range.
            ListingFormat::Text | ListingFormat::Map => {}
            ListingFormat::Json => {
                let head = Head {
                    base: Side::new(base),
                    target: Side::new(target),
                };
                json = Some(JsonList::begin(&mut output, &head, "ranges")?);
            }
            ListingFormat::Xml => {
                output.bytes(b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>\n")?;
            }
        }
        let target_size = target.virtual_size();
        Ok(Self {
            output,
            format,
            target_size,
            joiner: Joiner::default(),
            at: 0,
            ranges: 0,
            json,
        })
    }

    /// Adds a change after the previous one, and joins the two if they are adjacent and of the same kind.
    pub(super) fn push(&mut self, change: Change) -> Result<()> {
        self.joiner
            .push(change)
            .map_or(Ok(()), |done| self.print(done))
    }

    fn print(&mut self, change: Change) -> Result<()> {
        self.ranges += 1;
        if self.format == ListingFormat::Text && self.ranges == 1 {
            text_head(&mut self.output)?;
        }
        let range = change.range;
        match self.format {
            ListingFormat::Text => text_line(&mut self.output, change),
            ListingFormat::Json => match &mut self.json {
                Some(list) => list.item(&mut self.output, &RangeItem::from(change)),
                None => Ok(()),
            },
            ListingFormat::Xml => {
                let name = match change.kind {
                    ChangeKind::Update => "PageRange",
                    ChangeKind::Clear => "ClearRange",
                };
                let last = range.end() - 1;
                self.output.line(format_args!(
                    "  <{name}><Start>{}</Start><End>{last}</End></{name}>",
                    range.start()
                ))
            }
            ListingFormat::Map => {
                self.same_until(range.start())?;
                self.at = range.end();
                let state = match change.kind {
                    ChangeKind::Update => "data",
                    ChangeKind::Clear => "zero",
                };
                self.output
                    .line(format_args!("{} {} {state}", range.start(), range.len()))
            }
        }
    }

    fn same_until(&mut self, end: u64) -> Result<()> {
        if self.at < end {
            self.output
                .line(format_args!("{} {} same", self.at, end - self.at))?;
        }
        Ok(())
    }

    pub(super) fn end(mut self, comparison: &Comparison) -> Result<()> {
        if let Some(done) = self.joiner.finish() {
            self.print(done)?;
        }
        match self.format {
            ListingFormat::Text => self.summary(comparison)?,
            ListingFormat::Json => {
                let totals = Totals {
                    same: comparison.is_same(),
                    range_count: self.ranges,
                    update_bytes: comparison.update_bytes,
                    clear_bytes: comparison.clear_bytes,
                };
                if let Some(list) = self.json.take() {
                    list.end_with(&mut self.output, &totals)?;
                }
            }
            ListingFormat::Xml => self.output.line("</PageList>")?,
            ListingFormat::Map => self.same_until(self.target_size)?,
        }
        self.output.finish()
    }

    fn summary(&mut self, comparison: &Comparison) -> Result<()> {
        if comparison.is_same() {
            return self
                .output
                .line(format_args!("same: {}", Size(self.target_size)));
        }
        self.output.line(format_args!(
            "{}: {} updated, {} cleared",
            Count(self.ranges, "range"),
            Size(comparison.update_bytes),
            Size(comparison.clear_bytes)
        ))?;
        if comparison.resized {
            self.output.line(format_args!(
                "the target's size is {}",
                Size(self.target_size)
            ))?;
        }
        Ok(())
    }
}
