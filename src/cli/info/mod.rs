//! `vhd info`: prints every field of an image.

mod structures;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{InputFormat, Parents, cloud_remark, windows_remark};
use super::context::{Context, losses};
use super::exit::Outcome;
use super::message::{Topic, Warning};
use super::output::Output;
use super::several::Several;
use super::size::Size;
use super::{cloud, snapshot, store_path};
use crate::error::{Error, Result};
use crate::files::{
    BlobImage, Format, OpenImage, OpenOptions, Opened, find_stamp, open_image, vhd_inside,
};
use crate::image::Image as _;
use crate::storage::ReadAt;
use crate::vhd::{DynamicHeader, Field, Geometry, Timestamp, VhdImage};
use structures::{FooterInfo, HeaderInfo};

/// Print everything that an image contains about itself.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The unique id is printed twice, because programs disagree on the order of its bytes: as stored, and as Windows shows it. The virtual size is footer.current_size, never the geometry.\n\n",
    "Examples:\n",
    "  vhd info disk.vhd\n",
    "  vhd info disk.vhd --json | jq .footer.unique_id\n\n",
    crate::cli::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The images to inspect.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Their format [default: detected, for each].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Read as much as possible of a damaged VHD: what is lost reads as zeros.
    #[arg(long, visible_alias = "force")]
    salvage: bool,
    /// Print JSON, one document for each image.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let mut all = Several::new(context);
    for (n, path) in args.images.iter().enumerate() {
        all.take(path, info(args, path, n > 0 && !args.json, context))?;
    }
    all.finish()
}

/// Prints the information about one image; with `apart`, after an empty line.
fn info(args: &Args, path: &Path, apart: bool, context: &Context) -> Result<Outcome> {
    if let Some(point) = store_path::open(path)? {
        return snapshot::print_point(&point, args.json);
    }
    if cloud::is_far(path) || store_path::is_far_point(path) {
        return info_of_blob(args, path, apart, context);
    }
    // Not through the context: here warnings are part of the output.
    let options = OpenOptions {
        format: args.format.map(Into::into),
        format_option: Some("-f"),
        salvage: args.salvage,
        parents: args.parents.options(),
        ..OpenOptions::default()
    };
    let (image, broken) = open(path, options)?;
    let info = Info::of(&image, broken.as_ref())?;
    show(args, &info, &Structures::of(image.vhd()), apart)
}

/// As [`info`], for a page blob.
fn info_of_blob(args: &Args, path: &Path, apart: bool, context: &Context) -> Result<Outcome> {
    let mut opener = store_path::opener(path)?;
    if let Some(format) = args.format {
        opener = opener.format(format.into());
    }
    let Some(image) = opener.open_far(path)? else {
        return Err(Error::usage("this is not the address of a blob").with_path(path));
    };
    if store_path::is_far_point(path) {
        context.tell_access(Opened::path(&image))?;
    } else {
        context.tell_access(path)?;
    }
    let info = Info::of_blob(&image)?;
    show(args, &info, &Structures::of(image.vhd()), apart)
}

fn show(args: &Args, info: &Info, structures: &Structures, apart: bool) -> Result<Outcome> {
    let mut output = Output::text()?;
    if apart {
        output.line("")?;
    }
    if args.json {
        output.json(info)?;
    } else {
        print(info, structures, &mut output)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

/// The structures of a VHD, field by field, for display.
#[derive(Default)]
struct Structures {
    locators: Vec<String>,
    footer: Option<Vec<Field>>,
    header: Option<Vec<Field>>,
}

impl Structures {
    fn of<S: ReadAt>(vhd: Option<&VhdImage<S>>) -> Self {
        let Some(vhd) = vhd else {
            return Self::default();
        };
        let paths = vhd.parent_paths().iter();
        Self {
            locators: paths
                .map(|path| format!("{} \"{}\"", path.platform_code, path.text))
                .collect(),
            footer: Some(vhd.footer().fields()),
            header: vhd.header().map(DynamicHeader::fields),
        }
    }
}

/// Opens the image. A differencing VHD whose parent can't be read is opened alone, and the error is returned.
fn open(path: &Path, options: OpenOptions) -> Result<(OpenImage, Option<Error>)> {
    let error = match open_image(path, &options) {
        Ok(image) => return Ok((image, None)),
        Err(error) => error,
    };
    let mut alone = options;
    alone.parents.leave_out = true;
    match open_image(path, &alone) {
        Ok(image) if image.format() == Format::Differencing => Ok((image, Some(error))),
        _ => Err(error),
    }
}

/// The output of `--json`. Sizes and offsets are bytes.
#[derive(Debug, Serialize)]
struct Info {
    image: String,
    format: &'static str,
    virtual_size: u64,
    /// Length of the file.
    file_size: u64,
    /// The space that the file takes on its file system.
    stored_size: u64,
    footer: Option<FooterInfo>,
    dynamic_header: Option<HeaderInfo>,
    blocks: Option<Blocks>,
    /// The parents of a differencing VHD, the nearest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    parents: Option<Vec<ParentInfo>>,
    /// The last certain contents of the file.
    state_stamp: Option<StampInfo>,
    /// Noteworthy facts.
    notes: Vec<String>,
    /// Problems with the file that don't prevent reading it.
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct ParentInfo {
    image: String,
    format: &'static str,
    virtual_size: u64,
    /// `null` for a raw image.
    unique_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct StampInfo {
    /// Content digest of the virtual disk.
    content_digest: String,
    /// When it was set.
    time: String,
    valid: bool,
    /// Why it isn't valid.
    stale: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Blocks {
    /// Bytes of data in a block.
    block_size: u64,
    /// Blocks that the virtual size needs.
    needed: u64,
    /// Entries of the BAT.
    table_entries: u64,
    /// Blocks that are stored.
    allocated: u64,
}

impl Info {
    fn of(image: &OpenImage, broken: Option<&Error>) -> Result<Self> {
        let vhd = image.vhd();
        let metadata = image.file().metadata()?;
        Ok(Self {
            image: image.path().to_string_lossy().into_owned(),
            format: image.format().name(),
            virtual_size: image.virtual_size(),
            file_size: image.file().byte_len()?,
            stored_size: metadata.blocks().saturating_mul(512),
            footer: vhd.map(|vhd| vhd.footer().into()),
            dynamic_header: vhd
                .and_then(|vhd| Some(HeaderInfo::new(vhd.header()?, vhd.parent_paths()))),
            blocks: vhd.and_then(blocks),
            parents: (image.format() == Format::Differencing).then(|| parents(image)),
            state_stamp: state_stamp(image, broken)?,
            notes: {
                let mut remarks = vhd.map_or_else(Vec::new, |vhd| remarks(vhd, image.format()));
                remarks.extend(parent_remark(image)?);
                remarks
            },
            warnings: {
                let warnings = image.chain().flat_map(OpenImage::warnings);
                let warnings = warnings.chain(broken).map(Warning::of);
                let inside = vhd_inside(image);
                let warnings = warnings.chain(inside.as_ref().map(Warning::of));
                let lost = image.chain().flat_map(losses);
                let lost = lost.map(|text| Warning::new(Topic::DataLost, text));
                warnings.chain(lost).collect()
            },
        })
    }

    fn of_blob(image: &BlobImage) -> Result<Self> {
        let vhd = image.vhd();
        let warnings = image.warnings().into_iter();
        Ok(Self {
            image: image.path().to_string_lossy().into_owned(),
            format: image.format().name(),
            virtual_size: image.virtual_size(),
            file_size: image.blob().byte_len()?,
            stored_size: image.blob().stored_bytes()?,
            footer: vhd.map(|vhd| vhd.footer().into()),
            dynamic_header: vhd
                .and_then(|vhd| Some(HeaderInfo::new(vhd.header()?, vhd.parent_paths()))),
            blocks: vhd.and_then(blocks),
            parents: None,
            state_stamp: None,
            notes: vhd.map_or_else(Vec::new, |vhd| remarks(vhd, image.format())),
            warnings: warnings.map(Warning::of).collect(),
        })
    }
}

fn state_stamp(image: &OpenImage, broken: Option<&Error>) -> Result<Option<StampInfo>> {
    Ok(find_stamp(image)?.map(|found| {
        let stale = found.stale.or(broken.map(|_| "its parents can't be read"));
        StampInfo {
            content_digest: found.stamp.digest.to_string(),
            time: date(found.stamp.stamped),
            valid: stale.is_none(),
            stale,
        }
    }))
}

/// Converts nanoseconds since 1970 to a date, to the second.
fn date(nanoseconds: i128) -> String {
    let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok();
    let date = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    date.map_or_else(|| "a time out of range".to_owned(), |date| date.to_string())
}

fn blocks<S: ReadAt>(vhd: &VhdImage<S>) -> Option<Blocks> {
    let header = vhd.header()?;
    let block_size = vhd.block_size()?;
    Some(Blocks {
        block_size,
        needed: vhd.virtual_size().div_ceil(block_size.max(1)),
        table_entries: header.max_table_entries.into(),
        allocated: vhd.allocated_blocks(),
    })
}

fn parents(image: &OpenImage) -> Vec<ParentInfo> {
    let parents = image.chain().skip(1);
    parents
        .map(|parent| ParentInfo {
            image: parent.path().to_string_lossy().into_owned(),
            format: parent.format().name(),
            virtual_size: parent.virtual_size(),
            unique_id: parent.vhd().map(|vhd| vhd.footer().unique_id.to_string()),
        })
        .collect()
}

/// A remark about the parent of a differencing VHD, if there is one to make.
fn parent_remark(image: &OpenImage) -> Result<Option<String>> {
    let (Some(header), Some(parent)) = (image.vhd().and_then(VhdImage::header), image.parent())
    else {
        return Ok(None);
    };
    let changed = Timestamp::from_unix(parent.file().metadata()?.mtime());
    let known = header.parent_timestamp;
    let differs = known != Timestamp(0) && known != changed;
    Ok(differs.then(|| {
        format!(
            "the parent's file was changed at {changed}, but the child expects {known}: harmless if it was only copied"
        )
    }))
}

fn remarks<S: ReadAt>(vhd: &VhdImage<S>, format: Format) -> Vec<String> {
    let mut remarks = Vec::new();
    let footer = vhd.footer();
    let (size, geometry) = (footer.current_size, footer.disk_geometry);
    if geometry.size() != size {
        let creator = footer.creator_application;
        let consequence = if creator.size_may_be_read_from_geometry() {
            format!(
                ", but some programs, including qemu, use it as the size of files created by {creator}"
            )
        } else if geometry == Geometry::for_size(size) {
            ": rounded down, as specified".to_owned()
        } else {
            ", which is not the specified geometry for the size".to_owned()
        };
        let made = Size(geometry.size());
        remarks.push(format!("the geometry {geometry} gives {made}{consequence}"));
    }
    if footer.original_size != size {
        let original = Size(footer.original_size);
        remarks.push(format!(
            "the disk was resized: it had {original} when it was created"
        ));
    }
    if footer.is_hidden() {
        remarks.push("XenServer marked the disk as hidden: it belongs to a chain".to_owned());
    }
    remarks.extend(windows_remark(format, size));
    remarks.push(cloud_remark(format, size).unwrap_or_else(|| {
        let upload = if vhd.header().is_some() {
            ", once the disk is converted to fixed"
        } else {
            ""
        };
        format!("the size is a whole number of MiB, as Azure requires{upload}")
    }));
    remarks
}

fn print(info: &Info, structures: &Structures, output: &mut Output) -> Result<()> {
    let mut row = |name: &str, value: &str| output.line(format_args!("{name:<22}{value}"));
    row("image", &info.image)?;
    row("format", info.format)?;
    row("virtual size", &Size(info.virtual_size).to_string())?;
    row("file size", &Size(info.file_size).to_string())?;
    row("stored", &Size(info.stored_size).to_string())?;
    if let Some(blocks) = &info.blocks {
        row("block size", &Size(blocks.block_size).to_string())?;
        let Blocks {
            needed,
            table_entries: entries,
            allocated,
            ..
        } = blocks;
        row(
            "blocks",
            &format!("{allocated} of {needed} allocated, BAT of {entries} entries"),
        )?;
    }
    for parent in info.parents.iter().flatten() {
        let id = parent
            .unique_id
            .as_deref()
            .map_or_else(String::new, |id| format!(", unique id {id}"));
        let size = Size(parent.virtual_size);
        row(
            "parent",
            &format!("{}: {}, {size}{id}", parent.image, parent.format),
        )?;
    }
    for locator in &structures.locators {
        row("parent locator", locator)?;
    }
    if let Some(stamp) = &info.state_stamp {
        let StampInfo {
            content_digest,
            time: stamped,
            ..
        } = stamp;
        let state = stamp
            .stale
            .map_or_else(|| "valid".to_owned(), |why| format!("stale: {why}"));
        row(
            "state stamp",
            &format!("{content_digest}, set {stamped}, {state}"),
        )?;
    }
    for remark in &info.notes {
        row("note", remark)?;
    }
    for warning in &info.warnings {
        row("warning", &warning.message)?;
        if let Some(hint) = &warning.hint {
            row("hint", hint)?;
        }
    }
    for (name, fields) in [
        ("footer", &structures.footer),
        ("dynamic disk header", &structures.header),
    ] {
        if let Some(fields) = fields {
            section(name, fields, output)?;
        }
    }
    Ok(())
}

fn section(name: &str, fields: &[Field], output: &mut Output) -> Result<()> {
    output.line("")?;
    output.line(name)?;
    for Field { name, value, .. } in fields {
        output.line(format_args!("  {name:<20}{value}"))?;
    }
    Ok(())
}
