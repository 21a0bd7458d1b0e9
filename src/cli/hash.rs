//! `vhd hash`: prints the digest of a virtual disk's contents.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use sha2::Digest as _;

use super::args::{InputFormat, Parents, SaidFormat, overwrite};
use super::context::{Context, Reading};
use super::exit::Outcome;
use super::output::Output;
use super::several::Several;
use crate::error::{Error, Result};
use crate::files::{OpenImage, Opened, Stamping, write_windows};
use crate::image::{content_digest, stream};
use crate::storage::{File, refuse_part_of_store};
use crate::text::shown;

/// Print the digest of virtual disks, whatever format stores them.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Two images with the same digest present the same virtual disk: a raw one, a fixed and a dynamic VHD of \
     the same disk have one digest. The content digest is computed in parallel and costs nothing where the \
     disk is known to be zero; sha256 and blake3 are the plain digests of all its bytes, which sha256sum and \
     b3sum print for a raw image.\n\n",
    "Examples:\n",
    "  vhd hash disk.vhd disk.raw\n",
    "  vhd hash --algorithm sha256 disk.vhd\n",
    "  vhd hash --windows monday.digests monday.vhd           for vhd-diff --base-digests\n",
    "  vhd hash --stamp disk.vhd                 so that vhd-apply needn't read it again\n\n",
    super::args::exit_codes!(),
))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// The images to hash.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Which digest.
    #[arg(short, long, value_name = "NAME", default_value = "content")]
    algorithm: Algorithm,
    /// Also write the image's window hashes to this file: vhd-diff --base-digests then needn't read the image.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["algorithm", "stamp"])]
    windows: Option<PathBuf>,
    /// Replace that file if it exists.
    #[arg(long, requires = "windows")]
    force: bool,
    /// Record the content digest in the file's state stamp, an extended attribute, and its window hashes in
    /// IMAGE.windows: vhd-apply then reads only what changes.
    #[arg(long, conflicts_with = "salvage")]
    stamp: bool,
    /// Their format [default: detected, for each].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Read as much as possible of a damaged VHD: what is lost reads as zeros.
    #[arg(long, conflicts_with = "windows")]
    salvage: bool,
    /// Print JSON, one document for each image.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    /// BLAKE3 over size and windows: the digest in diffs.
    Content,
    /// SHA-256 of all bytes.
    Sha256,
    /// BLAKE3 of all bytes.
    Blake3,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }
}

/// The output of `--json` for each image.
#[derive(Serialize)]
struct View {
    image: String,
    format: &'static str,
    virtual_size: u64,
    algorithm: &'static str,
    digest: String,
    stamped: bool,
    windows: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if args.stamp && !matches!(args.algorithm, Algorithm::Content) {
        return Err(
            Error::usage("a state stamp contains only the content digest")
                .with_hint("omit --algorithm"),
        );
    }
    if args.windows.is_some() && args.images.len() != 1 {
        return Err(Error::usage("a list of window hashes is for one image")
            .with_found(format_args!("{} images", args.images.len()))
            .with_hint("make a list for each"));
    }
    let mut all = Several::new(context);
    for path in &args.images {
        all.take(path, hash(path, args, context).map(|()| Outcome::Done))?;
    }
    all.finish()
}

fn hash(path: &Path, args: &Args, context: &Context) -> Result<()> {
    if args.stamp {
        refuse_part_of_store(path)?;
        refuse_unwritable(path)?;
    }
    let image = context.open_source(
        path,
        SaidFormat::by("-f", args.format),
        &args.parents,
        Reading::salvaging(args.salvage),
    )?;
    if args.stamp || args.windows.is_some() {
        file(&*image)?;
    }
    let workers = &context.workers_reading(&[&*image])?;
    let progress = context.progress();
    progress.begin("hashing", image.virtual_size());
    let mut stamping = None;
    let hex = match args.algorithm {
        Algorithm::Content => {
            let content = match &args.windows {
                None if args.stamp => {
                    let read = Stamping::read(file(&*image)?, workers, &*progress)?;
                    stamping.insert(read).digest()
                }
                None => content_digest(&*image, workers, &*progress)?,
                Some(list) => {
                    let overwrite = overwrite(args.force);
                    write_windows(file(&*image)?, list, overwrite, workers, &*progress)?
                }
            };
            content.to_string()
        }
        Algorithm::Sha256 => {
            let mut hasher = sha2::Sha256::new();
            stream(&*image, workers, &*progress, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            hex(&hasher.finalize())
        }
        Algorithm::Blake3 => {
            let mut hasher = blake3::Hasher::new();
            stream(&*image, workers, &*progress, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            hasher.finalize().to_hex().to_string()
        }
    };
    image.check_unchanged()?;
    drop(progress);
    let mut output = Output::text()?;
    if !args.json {
        output.line(format_args!("{hex}  {}", shown(&path)))?;
        output.finish()?;
        output = Output::text()?;
    }
    if let Some(read) = stamping {
        stamp(read, path)?;
    }
    if args.json {
        output.json(&View {
            image: path.to_string_lossy().into_owned(),
            format: image.format().name(),
            virtual_size: image.virtual_size(),
            algorithm: args.algorithm.name(),
            digest: hex,
            stamped: args.stamp,
            windows: args
                .windows
                .as_ref()
                .map(|list| list.to_string_lossy().into_owned()),
        })?;
    }
    output.finish()
}

/// The image as a file, since only files have a state.
fn file(image: &dyn Opened) -> Result<&OpenImage> {
    image.as_file().ok_or_else(|| {
        Error::usage("only an image in a file has a state stamp or a list of window hashes")
            .with_path(image.path())
            .with_hint("omit --stamp or --windows")
    })
}

/// Fails early if the file can't be opened for writing, before all of it is read in vain.
fn refuse_unwritable(path: &Path) -> Result<()> {
    let is_file = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    if is_file {
        File::open_writable(path)?;
    }
    Ok(())
}

/// Records the digest of the image's contents.
fn stamp(read: Stamping<'_>, path: &Path) -> Result<()> {
    if read.stamp()? {
        return Ok(());
    }
    Err(Error::unsupported("the file can't be given a state stamp")
        .with_path(path)
        .with_hint("a stamp needs a file, not a device, that you may write, on a file system with extended attributes"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
