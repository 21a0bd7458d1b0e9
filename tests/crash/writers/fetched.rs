//! Images that are fetched from elsewhere: from the beginning, and continuing what an interrupted download kept.

use std::path::Path;

use vhdkit::files::{FetchedFrom, Format, NewImage};
use vhdkit::image::{CopyOptions, Extents, Image, RawImage};
use vhdkit::page::PageRange;
use vhdkit::parallel::Work;
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, Overwrite};
use vhdkit::{Error, Result};

use super::files;
use super::new_files::new_file;
use crate::explore::Writer;
use crate::ground::{WORKERS, holds, new_options};
use crate::recorder::Files;

/// A window, and a part of the next.
const SIZE: usize = (4 << 20) + 8192;

fn disk() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for (at, fill) in [(4096, 1), (1 << 20, 2), (4 << 20, 3)] {
        bytes[at..at + 5120].fill(fill);
    }
    bytes
}

/// A source that can't be read from some byte on.
struct Far(RawImage<Memory>, u64);

impl Image for Far {
    fn virtual_size(&self) -> u64 {
        self.0.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset >= self.1 {
            return Err(Error::usage("the connection ended"));
        }
        self.0.read_exact_at(buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.0.extents(within)
    }
}

fn fetch(at: &Path, format: Format, overwrite: Overwrite, until: u64) -> Result<()> {
    let source = Far(RawImage::open(Memory::new(disk()))?, until);
    let mut options = new_options(format, source.virtual_size());
    options.overwrite = overwrite;
    let from = FetchedFrom {
        source: "https://example.org/disk".into(),
        version: "1".into(),
    };
    let mut new = NewImage::fetch(at.join("new"), &options, &from)?;
    let copying = CopyOptions {
        work: Work::new(&WORKERS, &Silent),
        digest: true,
    };
    new.fill(&source, copying)?;
    new.publish()
}

pub(super) fn all() -> Vec<Writer> {
    let mut writers = Vec::new();
    for format in [Format::Raw, Format::Dynamic] {
        let begun = files(|at| {
            fetch(at, format, Overwrite::No, 4 << 20).unwrap_err();
            Ok(())
        });
        assert!(begun.contains_key("new.fetched") && begun.contains_key("new.fetched.log"));
        for (name, before) in [("fetch", Files::new()), ("continue a fetch", begun)] {
            writers.extend(new_file(
                &format!("{name}: {format}"),
                "new",
                before,
                move |at, overwrite| fetch(at, format, overwrite, u64::MAX),
                |path| holds(path, &disk()),
            ));
        }
    }
    writers
}
