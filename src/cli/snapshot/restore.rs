//! `vhd snapshot restore`: a point in time as an image.

use std::path::{Path, PathBuf};

use super::args::{OutputFormat, default_format, overwrite};
use super::{Access, Context, DiskArgs, Outcome, Output, Result, Size, Time, parse_time, show};
use crate::error::Error;
use crate::files::{self, Format, Source as _, refuse_same_file};
use crate::image::{ContentHasher, DIGEST_WINDOW, Image as _, WindowHashes, stream};
use crate::snapshot::{PointImage, Work, check_content, restore};

/// Make an image of a snapshot.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Every page is read once, from the newest diff that has it, however many there are. The image appears only when \
     its content digest is the one that the manifest says; an existing one is replaced only then. A fixed VHD comes \
     out byte for byte. To stdout the raw disk is written, and a wrong digest is found only at its end: then the exit \
     code is 3.\n\n",
    "Examples:\n",
    "  vhd snapshot restore --store /backup --disk web tue -o tuesday.vhd\n",
    "  vhd snapshot restore --store /backup --disk web --at 2026-11-20T12:00:00Z -o disk.raw\n",
    "  vhd snapshot restore --store /backup --disk web -o - | ssh far 'cat > disk.raw'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshot [default: the newest].
    snapshot: Option<String>,
    /// The newest that isn't newer than this time.
    #[arg(long, value_parser = parse_time, conflicts_with = "snapshot")]
    at: Option<Time>,
    /// The image to make; - writes the raw disk to stdout.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Its format [default: raw or VHD by its name, the kind of VHD as it was].
    #[arg(short = 'O', long, value_name = "FORMAT")]
    output_format: Option<OutputFormat>,
    /// Replace the image if it exists.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let disk = args.disk.open(Access::Read)?;
    let point = disk.image(show::choose(&disk, args.snapshot.as_deref(), args.at)?)?;
    drop(disk);
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    if args.output == Path::new("-") {
        if !matches!(args.output_format, None | Some(OutputFormat::Raw)) {
            return Err(Error::usage("only the raw disk can be written to stdout")
                .hint("leave -O away, or name a file with -o"));
        }
        to_stdout(&point, work)?;
        return Ok(Outcome::Done);
    }
    refuse_same_file(&args.output, &point.files())?;
    let format = format(args, &point)?;
    let output = files::Output {
        path: &args.output,
        format,
        overwrite: overwrite(args.force),
    };
    restore(&point, output, work)?;
    drop(progress);
    context.note(format_args!(
        "{}: {} as {format}, virtual size {}",
        args.output.display(),
        point.path().display(),
        Size(point.virtual_size())
    ));
    Ok(Outcome::Done)
}

fn format(args: &Args, point: &PointImage) -> Result<Format> {
    let by_name = default_format(&args.output);
    match args.output_format.map(Format::from) {
        Some(Format::Differencing) => Err(Error::usage(
            "a restored image stands alone: it can't be a differencing VHD",
        )
        .found("-O differencing")
        .hint("to store only what differs from another image, make a diff with vhd-diff and apply it with vhd-apply -O differencing")),
        Some(format) => Ok(format),
        None if by_name == Format::Raw => Ok(by_name),
        None => Ok(match point.format() {
            Format::Fixed => Format::Fixed,
            _ => by_name,
        }),
    }
}

fn to_stdout(point: &PointImage, work: Work<'_>) -> Result<()> {
    let mut output = Output::binary()?;
    let mut digest = Plain::new(point.virtual_size());
    work.progress.begin("restoring", point.virtual_size());
    stream(point, work.workers, work.progress, |bytes| {
        digest.update(bytes);
        output.bytes(bytes)
    })?;
    output.finish()?;
    point.check_unchanged()?;
    check_content(point, digest.finish())
}

/// The content digest of bytes that pass in order.
struct Plain {
    digest: ContentHasher,
    window: blake3::Hasher,
    fed: u64,
    at: u64,
}

impl Plain {
    fn new(size: u64) -> Self {
        Self {
            digest: ContentHasher::new(size),
            window: blake3::Hasher::new(),
            fed: 0,
            at: 0,
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(DIGEST_WINDOW - self.fed).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.window.update(now);
            self.fed += now.len() as u64;
            if self.fed == DIGEST_WINDOW {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        let hash = *self.window.finalize().as_bytes();
        self.digest.push(self.at, &WindowHashes::from(hash));
        self.window.reset();
        self.at += self.fed;
        self.fed = 0;
    }

    fn finish(mut self) -> crate::image::ContentDigest {
        if self.fed > 0 {
            self.close();
        }
        self.digest.finish()
    }
}
