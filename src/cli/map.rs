//! `vhd map`: lists the extents of a virtual disk.

use std::path::PathBuf;

use serde::Serialize;

use super::args::{InputFormat, Parents, SaidFormat};
use super::context::{Context, Reading};
use super::exit::Outcome;
use super::output::{JsonList, Output};
use super::picture::Drawing;
use super::size::Short;
use crate::error::Result;
use crate::files::{Mapped, MappedExtents, OpenImage, Opened};
use crate::image::{Extent, ExtentState, whole};
use crate::page::{PAGE_SIZE, PageRange};
use crate::vhd::VhdImage;

/// List where a virtual disk holds data and where it is known to be zero.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Extents come in order and without gaps. What is zero is known from block tables, bitmaps and holes, \
     not by reading: data may turn out to be zeros too. The offset is where the data is in the file, if it is there in one piece. For a differencing VHD the depth is the number of parents down to the data, and the file is the image that has it.\n\n",
    "Examples:\n",
    "  vhd map disk.vhd\n",
    "  vhd map disk.vhd --offsets\n",
    "  vhd map disk.vhd --draw svg > disk.svg\n",
    "  vhd map disk.vhd --json | jq '.extents[] | select(.state == \"data\")'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image to inspect.
    image: PathBuf,
    /// Its format [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Read as much as possible of a damaged VHD: what is lost reads as zeros.
    #[arg(long, visible_alias = "force")]
    salvage: bool,
    /// Split data at the blocks of the file, so that all of it has an offset.
    #[arg(long)]
    offsets: bool,
    /// Draw a picture instead: rows of cells with the partitions beside them.
    #[arg(long, value_name = "FORM", conflicts_with_all = ["json", "offsets"])]
    draw: Option<Drawing>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

#[derive(Serialize)]
struct Head<'a> {
    image: &'a str,
    format: &'static str,
    virtual_size: u64,
}

#[derive(Serialize)]
struct Item {
    start: u64,
    length: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// For a differencing VHD: how many parents down the data is.
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    /// The file that contains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let image = context.open_source(
        &args.image,
        SaidFormat::by("-f", args.format),
        &args.parents,
        Reading::salvaging(args.salvage),
    )?;
    let mut output = Output::text()?;
    if let Some(drawing) = args.draw {
        drawing.disk(&*image, &mut output)?;
    } else if args.json {
        json(&*image, args.offsets, &mut output)?;
    } else {
        text(&*image, args.offsets, &mut output)?;
    }
    output.finish()?;
    image.check_unchanged()?;
    Ok(Outcome::Done)
}

/// The extents, with their offsets where all of one is contiguous in one file. With `split`, they are cut where it
/// isn't.
fn items(image: &dyn Opened, split: bool) -> Box<dyn Iterator<Item = Result<Item>> + '_> {
    match image.as_file() {
        Some(image) => Box::new(placed(image, split)),
        None => Box::new(image.extents(whole(image)).map(|extent| {
            let Extent { range, state } = extent?;
            Ok(Item {
                start: range.start(),
                length: range.len(),
                state: name_of(state),
                offset: None,
                depth: None,
                file: None,
            })
        })),
    }
}

fn name_of(state: ExtentState) -> &'static str {
    match state {
        ExtentState::Data => "data",
        ExtentState::Zero => "zero",
    }
}

fn placed(image: &OpenImage, split: bool) -> impl Iterator<Item = Result<Item>> + '_ {
    let chain = image.parent().is_some();
    joined(image.mapped(whole(image))).flat_map(move |mapped| {
        let (pieces, error) = match mapped {
            Ok(mapped) => (Some(pieces(mapped, split)), None),
            Err(error) => (None, Some(Err(error))),
        };
        let items = pieces
            .into_iter()
            .flatten()
            .map(move |piece| item(piece, chain));
        items.chain(error)
    })
}

/// Joins adjacent extents in the same state; data from different files is kept apart.
fn joined<'a>(mut extents: MappedExtents<'a>) -> impl Iterator<Item = Result<Mapped<'a>>> {
    let mut held: Option<Mapped<'a>> = None;
    std::iter::from_fn(move || {
        loop {
            let next = match extents.next() {
                Some(Ok(next)) => next,
                Some(Err(error)) => return Some(Err(error)),
                None => return held.take().map(Ok),
            };
            match &mut held {
                Some(last) if is_one(last, &next) => {
                    let (start, end) = (last.extent.range.start(), next.extent.range.end());
                    last.extent.range = PageRange::covering(start, end);
                }
                _ => {
                    if let Some(done) = held.replace(next) {
                        return Some(Ok(done));
                    }
                }
            }
        }
    })
}

fn is_one(last: &Mapped<'_>, next: &Mapped<'_>) -> bool {
    let same_file = last.depth == next.depth || next.extent.state == ExtentState::Zero;
    last.extent.state == next.extent.state && same_file
}

/// Blocks are never contiguous: each begins with its bitmap.
fn block_of(image: &OpenImage) -> Option<u64> {
    image.vhd().and_then(VhdImage::block_size)
}

/// Cuts data at the blocks of its file if `split` is set; zeros are one piece.
fn pieces(mapped: Mapped<'_>, split: bool) -> impl Iterator<Item = Mapped<'_>> {
    let Extent { range, state } = mapped.extent;
    let cut = block_of(mapped.image)
        .filter(|_| split && state == ExtentState::Data)
        .unwrap_or(u64::MAX - u64::MAX % PAGE_SIZE);
    range.windows(cut).map(move |range| Mapped {
        extent: Extent { range, state },
        ..mapped
    })
}

fn item(mapped: Mapped<'_>, chain: bool) -> Result<Item> {
    let Extent { range, state } = mapped.extent;
    let data = state == ExtentState::Data;
    let block = block_of(mapped.image);
    let in_one_place = block.is_none_or(|block| range.windows(block).nth(1).is_none());
    let offset = if data && in_one_place {
        mapped.image.locate(range.start())?
    } else {
        None
    };
    let place = data && chain;
    Ok(Item {
        start: range.start(),
        length: range.len(),
        state: name_of(state),
        offset,
        depth: place.then_some(mapped.depth),
        file: place.then(|| mapped.image.path().to_string_lossy().into_owned()),
    })
}

/// Nothing follows the extents.
#[derive(Serialize)]
struct NoMore {}

fn json(image: &dyn Opened, split: bool, output: &mut Output) -> Result<()> {
    let head = Head {
        image: &image.path().to_string_lossy(),
        format: image.format().name(),
        virtual_size: image.virtual_size(),
    };
    let mut list = JsonList::begin(output, &head, "extents")?;
    items(image, split).try_for_each(|item| list.item(output, &item?))?;
    list.end_with(output, &NoMore {})
}

fn text(image: &dyn Opened, split: bool, output: &mut Output) -> Result<()> {
    // Columns are as wide as the largest number, so that lines can be written as they come.
    let width = image.virtual_size().to_string().len().max("LENGTH".len());
    let place = if image
        .as_file()
        .is_some_and(|image| image.parent().is_some())
    {
        "  DEPTH  FILE"
    } else {
        ""
    };
    output.line(format_args!(
        "{:>width$}  {:>width$}  STATE  {:>width$}{place}",
        "START", "LENGTH", "OFFSET"
    ))?;
    let (mut data, mut zero, mut count) = (0, 0, 0_u64);
    for item in items(image, split) {
        let item = item?;
        count += 1;
        *(if item.state == "data" {
            &mut data
        } else {
            &mut zero
        }) += item.length;
        let offset = item
            .offset
            .map_or_else(|| "-".into(), |offset| offset.to_string());
        let place = match (item.depth, item.file) {
            (Some(depth), Some(file)) => format!("  {depth:>5}  {file}"),
            _ => String::new(),
        };
        output.line(format_args!(
            "{:>width$}  {:>width$}  {:<5}  {offset:>width$}{place}",
            item.start, item.length, item.state
        ))?;
    }
    let extents = if count == 1 { "extent" } else { "extents" };
    output.line(format_args!(
        "{count} {extents}: {} data, {} zero",
        Short(data),
        Short(zero)
    ))
}
