//! `vhd show`: shows and verifies a diff.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::listing::{RangeItem, text_head, text_line};
use super::output::{JsonList, Output};
use super::size::{Count, Size};
use super::stdin::{self, Expected, STDIN};
use crate::diff::{DiffHeader, DiffReader, Direction, Side, Trailer};
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Hash};
use crate::page::{Change, Joiner};
use crate::storage::{Access, File, ReadAt as _};
use crate::vhd::{Timestamp, UniqueId};

/// Show and verify a diff.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The whole diff is read and every byte of it checked: exit code 0 means that it is intact. The identity is the \
     digest at its end, of everything before it.\n\n",
    "Examples:\n",
    "  vhd show tuesday.vhddiff\n",
    "  vhd show tuesday.vhddiff --ranges\n",
    "  vhd show - --json < tuesday.vhddiff | jq .totals\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The diff; - is stdin.
    diff: PathBuf,
    /// List the page ranges, too.
    #[arg(long)]
    ranges: bool,
    /// Print JSON, with the ranges.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let progress = context.progress();
    if args.diff == Path::new("-") {
        let stdin = BufReader::with_capacity(1 << 18, stdin::open(Expected::Diff)?);
        let shown = DiffReader::new(stdin, STDIN).and_then(|reader| show(args, reader, &*progress));
        return shown.map_err(stdin::of_pipe);
    }
    let file = File::open_locked(&args.diff, Access::Read)?;
    crate::files::refuse_image(&file)?;
    progress.begin("verifying the diff", file.byte_len()?);
    let reader = DiffReader::new(BufReader::with_capacity(1 << 18, file.reader()), &args.diff)?;
    show(args, reader, &*progress)
}

fn show<R: Read>(
    args: &Args,
    mut reader: DiffReader<R>,
    progress: &dyn crate::progress::Progress,
) -> Result<Outcome> {
    let mut output = Output::text()?;
    let header = HeaderView::new(&args.diff, reader.header());
    let mut list = None;
    if args.json {
        list = Some(JsonList::begin(&mut output, &header, "ranges")?);
    } else if args.ranges {
        text_head(&mut output)?;
    }
    let (mut done, mut ranges, mut joiner) = (0, 0_u64, Joiner::default());
    let mut print = |change: Change, output: &mut Output| {
        ranges += 1;
        match &mut list {
            Some(list) => list.item(output, &RangeItem::from(change)),
            None if args.ranges => text_line(output, change),
            None => Ok(()),
        }
    };
    while let Some((way, frame)) = reader.next_of_both()? {
        progress.check()?;
        let forward = frame.changes().iter().filter(|_| way == Direction::Forward);
        for change in forward {
            if let Some(change) = joiner.push(*change) {
                print(change, &mut output)?;
            }
        }
        // The payload is checked, too: a frame that can't be unpacked is damaged, whatever its checksums.
        frame.unpack()?;
        progress.advance(reader.bytes_read() - done);
        done = reader.bytes_read();
    }
    if let Some(change) = joiner.finish() {
        print(change, &mut output)?;
    }
    let (len, finished) = (reader.bytes_read(), reader.finished().copied());
    let Some((trailer, digest)) = finished else {
        return Err(Error::damaged("the diff has no end"));
    };
    match list {
        Some(list) => list.end_with(&mut output, &TailView::new(&trailer, ranges, &digest, len))?,
        None => text(
            &mut output,
            reader.header(),
            (&trailer, ranges),
            &digest,
            len,
        )?,
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn text(
    output: &mut Output,
    header: &DiffHeader,
    (trailer, ranges): (&Trailer, u64),
    digest: &Hash,
    len: u64,
) -> Result<()> {
    let mut line =
        |name: &str, value: &dyn std::fmt::Display| output.line(format_args!("{name:<18} {value}"));
    line("identity", &ContentDigest(*digest))?;
    line("length", &Size(len))?;
    line(
        "written by",
        &header.program.as_deref().unwrap_or("unknown"),
    )?;
    line("frames", &trailer.frames)?;
    line("ranges", &ranges)?;
    line("updated", &Size(trailer.update_bytes))?;
    line("cleared", &Size(trailer.clear_bytes))?;
    line("stored", &Size(trailer.stored_bytes))?;
    if let Some(back) = &trailer.way_back {
        line("reversible", &"yes")?;
        line("back: updated", &Size(back.update_bytes))?;
        line("back: cleared", &Size(back.clear_bytes))?;
        line("back: stored", &Size(back.stored_bytes))?;
    }
    if !header.undoes.is_empty() {
        line(
            "undoes",
            &format!("an apply of {}", Count(header.undoes.len() as u64, "diff")),
        )?;
    }
    let sides = [
        ("base", &header.base, header.base_size, trailer.base_digest),
        (
            "target",
            &header.target,
            header.target_size,
            trailer.target_digest,
        ),
    ];
    for (name, side, size, digest) in sides {
        output.line("")?;
        output.line(format_args!("{name}"))?;
        let digest = digest.map_or_else(|| "not computed".to_owned(), |digest| digest.to_string());
        let mut line = |name: &str, value: Option<String>| match value {
            Some(value) => output.line(format_args!("  {name:<16} {value}")),
            None => Ok(()),
        };
        line("name", side.name.clone())?;
        line("format", side.format.clone())?;
        line("virtual size", Some(Size(size).to_string()))?;
        line("content digest", Some(digest))?;
        line(
            "unique id",
            side.unique_id.map(|id| UniqueId(id).big_endian()),
        )?;
        line("time", side.time.map(time))?;
        line("snapshot", side.snapshot.clone())?;
        line("source resource", side.source_resource_id.clone())?;
        line("source unique id", side.source_unique_id.clone())?;
    }
    Ok(())
}

fn time(seconds: i64) -> String {
    Timestamp::from_unix(seconds).to_string()
}

#[derive(Serialize)]
struct HeaderView {
    diff: String,
    program: Option<String>,
    base: SideView,
    target: SideView,
    undoes: Vec<String>,
}

#[derive(Serialize)]
struct SideView {
    virtual_size: u64,
    name: Option<String>,
    format: Option<String>,
    unique_id: Option<String>,
    time: Option<String>,
    snapshot: Option<String>,
    source_resource_id: Option<String>,
    source_unique_id: Option<String>,
}

impl HeaderView {
    fn new(path: &Path, header: &DiffHeader) -> Self {
        Self {
            diff: path.to_string_lossy().into_owned(),
            program: header.program.clone(),
            base: SideView::new(&header.base, header.base_size),
            target: SideView::new(&header.target, header.target_size),
            undoes: header
                .undoes
                .iter()
                .map(|hash| ContentDigest(*hash).to_string())
                .collect(),
        }
    }
}

impl SideView {
    fn new(side: &Side, virtual_size: u64) -> Self {
        Self {
            virtual_size,
            name: side.name.clone(),
            format: side.format.clone(),
            unique_id: side.unique_id.map(|id| UniqueId(id).big_endian()),
            time: side.time.map(time),
            snapshot: side.snapshot.clone(),
            source_resource_id: side.source_resource_id.clone(),
            source_unique_id: side.source_unique_id.clone(),
        }
    }
}

#[derive(Serialize)]
struct TailView {
    identity: String,
    file_size: u64,
    totals: Totals,
    reversible: bool,
    way_back: Option<Totals>,
    base_content_digest: Option<String>,
    target_content_digest: Option<String>,
}

#[derive(Serialize)]
struct Totals {
    frames: u64,
    range_count: u64,
    update_bytes: u64,
    clear_bytes: u64,
    stored_bytes: u64,
}

impl TailView {
    fn new(t: &Trailer, ranges: u64, digest: &Hash, length: u64) -> Self {
        Self {
            identity: ContentDigest(*digest).to_string(),
            file_size: length,
            totals: Totals {
                frames: t.frames,
                range_count: ranges,
                update_bytes: t.update_bytes,
                clear_bytes: t.clear_bytes,
                stored_bytes: t.stored_bytes,
            },
            reversible: t.way_back.is_some(),
            way_back: t.way_back.map(|back| Totals {
                frames: back.frames,
                range_count: back.ranges,
                update_bytes: back.update_bytes,
                clear_bytes: back.clear_bytes,
                stored_bytes: back.stored_bytes,
            }),
            base_content_digest: t.base_digest.map(|digest| digest.to_string()),
            target_content_digest: t.target_digest.map(|digest| digest.to_string()),
        }
    }
}
