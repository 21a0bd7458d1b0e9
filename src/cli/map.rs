//! `vhd map`: the extents of a virtual disk.

use std::path::PathBuf;

use serde::Serialize;

use super::args::InputFormat;
use super::context::Context;
use super::exit::Outcome;
use super::output::{JsonList, Output, SCHEMA_VERSION};
use super::size::Short;
use crate::error::Result;
use crate::files::OpenImage;
use crate::image::{Extent, ExtentState, Image as _, whole};
use crate::page::PAGE_SIZE;
use crate::vhd::VhdImage;

/// List where a virtual disk holds data and where it is known to be zero.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Extents come in order and without gaps. What is zero is known from block tables, bitmaps and holes, \
     not by reading: data may turn out to be zeros too. The offset is where the data lies in the file, where \
     it lies there in one piece.\n\n",
    "Examples:\n",
    "  vhd map disk.vhd\n",
    "  vhd map disk.vhd --offsets\n",
    "  vhd map disk.vhd --json | jq '.extents[] | select(.state == \"data\")'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image to look at.
    image: PathBuf,
    /// Its format [default: found out].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Split data at the blocks of the file, so that all of it has an offset.
    #[arg(long)]
    offsets: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Head<'a> {
    schema_version: u32,
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
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let image = context.open(&args.image, args.format)?;
    let mut output = Output::text()?;
    if args.json {
        json(&image, args.offsets, &mut output)?;
    } else {
        text(&image, args.offsets, &mut output)?;
    }
    output.finish()?;
    image.check_unchanged()?;
    Ok(Outcome::Done)
}

/// The extents with their offsets; if `split`, cut where the file goes on elsewhere.
fn items(image: &OpenImage, split: bool) -> impl Iterator<Item = Result<Item>> + '_ {
    // Blocks never lie end to end: each begins with its bitmap.
    let block = image.vhd().and_then(VhdImage::block_size);
    let cut = block
        .filter(|_| split)
        .unwrap_or(u64::MAX - u64::MAX % PAGE_SIZE);
    image.extents(whole(image)).flat_map(move |extent| {
        let (pieces, error) = match extent {
            Ok(extent) => (Some(pieces(extent, cut)), None),
            Err(error) => (None, Some(Err(error))),
        };
        let items = pieces
            .into_iter()
            .flatten()
            .map(move |piece| item(image, piece, block));
        items.chain(error)
    })
}

/// Data cut at multiples of `cut`; zeros are one piece.
fn pieces(extent: Extent, cut: u64) -> impl Iterator<Item = Extent> {
    let Extent { range, state } = extent;
    let cut = if state == ExtentState::Data {
        cut
    } else {
        u64::MAX - u64::MAX % PAGE_SIZE
    };
    range.windows(cut).map(move |range| Extent { range, state })
}

fn item(image: &OpenImage, extent: Extent, block: Option<u64>) -> Result<Item> {
    let Extent { range, state } = extent;
    let data = state == ExtentState::Data;
    let in_one_place = block.is_none_or(|block| range.windows(block).nth(1).is_none());
    let offset = if data && in_one_place {
        image.locate(range.start())?
    } else {
        None
    };
    Ok(Item {
        start: range.start(),
        length: range.len(),
        state: if data { "data" } else { "zero" },
        offset,
    })
}

fn json(image: &OpenImage, split: bool, output: &mut Output) -> Result<()> {
    let head = Head {
        schema_version: SCHEMA_VERSION,
        image: &image.path().to_string_lossy(),
        format: image.format().name(),
        virtual_size: image.virtual_size(),
    };
    let mut list = JsonList::begin(output, &head, "extents")?;
    items(image, split).try_for_each(|item| list.item(output, &item?))?;
    list.end(output)
}

fn text(image: &OpenImage, split: bool, output: &mut Output) -> Result<()> {
    // Columns as wide as the largest number, so that lines can be written as they come.
    let width = image.virtual_size().to_string().len().max("LENGTH".len());
    output.line(format_args!(
        "{:>width$}  {:>width$}  STATE  {:>width$}",
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
        output.line(format_args!(
            "{:>width$}  {:>width$}  {:<5}  {offset:>width$}",
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
