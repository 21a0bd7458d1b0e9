//! Where changes go as they are found: into a list, to the files that own them, into a picture.

use clap::ValueEnum;

use super::changed_files;
use super::context::Context;
use super::listing::{Listing, ListingFormat};
use super::output::Output;
use super::picture::{Cells, Drawing, larger};
use crate::diff::{Comparison, WindowChange};
use crate::error::{Error, Result};
use crate::files::Opened;
use crate::inside::{ChangedBytes, file_changes};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// Columns and a summary.
    Text,
    /// One object.
    Json,
    /// A `PageList` as in the cloud's REST interface, with inclusive ends.
    Xml,
    /// Lines of START LENGTH data|zero|same over the whole target.
    Map,
    /// A picture for a browser: rows of cells, partitions, what changed in colour.
    Svg,
    /// The picture for a terminal.
    Term,
}

/// The form of the report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) format: ListFormat,
    pub(super) json: bool,
    /// The files that own what changed, instead of the ranges or beside the picture.
    pub(super) by_file: bool,
    /// Of files also those of which only owner, permissions or times changed.
    pub(super) all: bool,
}

/// A report of changes under way.
pub(super) struct ChangeReport {
    wanted: Wanted,
    listing: Option<Listing>,
    owned: Option<ChangedBytes>,
    picture: Option<(Drawing, Cells)>,
}

impl Wanted {
    fn drawing(self) -> Option<Drawing> {
        match self.format {
            ListFormat::Svg => Some(Drawing::Svg),
            ListFormat::Term => Some(Drawing::Term),
            ListFormat::Text | ListFormat::Json | ListFormat::Xml | ListFormat::Map => None,
        }
    }

    fn listing(self) -> Option<ListingFormat> {
        match self.format {
            _ if self.by_file => None,
            ListFormat::Text if self.json => Some(ListingFormat::Json),
            ListFormat::Text => Some(ListingFormat::Text),
            ListFormat::Json => Some(ListingFormat::Json),
            ListFormat::Xml => Some(ListingFormat::Xml),
            ListFormat::Map => Some(ListingFormat::Map),
            ListFormat::Svg | ListFormat::Term => None,
        }
    }

    fn check(self) -> Result<()> {
        if self.by_file && matches!(self.format, ListFormat::Xml | ListFormat::Map) {
            return Err(
                Error::usage("--files is for people, for JSON and for pictures")
                    .with_hint("use --files alone, with --json, or with --format svg or term"),
            );
        }
        if self.json && self.drawing().is_some() {
            return Err(Error::usage("a picture and JSON can't both go to stdout")
                .with_hint("omit --json or --format"));
        }
        Ok(())
    }
}

impl ChangeReport {
    /// Begins a report of what changed from `base` to `target`.
    pub(super) fn begin(
        wanted: Wanted,
        [base, target]: [&dyn Opened; 2],
        context: &Context,
    ) -> Result<Self> {
        wanted.check()?;
        // With -q the exit code is the answer, as with cmp -s.
        let listed = |format: &ListingFormat| !(context.quiet() && *format == ListingFormat::Text);
        let listing = match wanted.listing().filter(listed) {
            Some(format) => Some(Listing::begin(Output::text()?, format, base, target)?),
            None => None,
        };
        let picture = match wanted.drawing() {
            Some(drawing) => Some((drawing, drawing.cells(target, larger([base, target]))?)),
            None => None,
        };
        Ok(Self {
            wanted,
            listing,
            owned: wanted.by_file.then(ChangedBytes::default),
            picture,
        })
    }

    /// Takes the changes of the next window.
    pub(super) fn push(&mut self, change: &WindowChange) -> Result<()> {
        for change in &change.changes {
            if let Some(owned) = &mut self.owned {
                owned.push(change.range);
            }
            if let Some((_, cells)) = &mut self.picture {
                cells.change(*change);
            }
            if let Some(listing) = &mut self.listing {
                listing.push(*change)?;
            }
        }
        Ok(())
    }

    /// Prints what has to wait for the end.
    pub(super) fn end(
        self,
        images: [&dyn Opened; 2],
        comparison: &Comparison,
        context: &Context,
    ) -> Result<()> {
        if let Some(listing) = self.listing {
            listing.end(comparison)?;
        }
        let [base, target] = images;
        if let Some((drawing, cells)) = self.picture {
            let files = match &self.owned {
                Some(owned) => Some(file_changes(base, target, owned)?),
                None => None,
            };
            let mut output = Output::text()?;
            drawing.changes(images, cells, comparison, files.as_ref(), &mut output)?;
            return output.finish();
        }
        match self.owned {
            Some(owned) => {
                let form = changed_files::Form {
                    all: self.wanted.all,
                    json: self.wanted.json || self.wanted.format == ListFormat::Json,
                };
                changed_files::print(base, target, &owned, form, context)
            }
            None => Ok(()),
        }
    }
}
