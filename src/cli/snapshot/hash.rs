//! `vhd snapshot hash`: the content digests of points in time, from their data.

use serde::Serialize;

use super::{Context, DiskArgs, LockArgs, Outcome, Output, Result};
use crate::files::Opened as _;
use crate::image::{Image as _, content_digest};
use crate::parallel::Workers;
use crate::snapshot::{Disk, PointImage, check_content, open_beside};
use crate::text::shown;

/// Print the content digests of snapshots, computed from their data.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The same digest that vhd hash prints of an image. It is compared with the manifest: if a snapshot is wrong, the exit code is 3.\n\n",
    "Examples:\n",
    "  vhd snapshot hash --store /backup --disk web tue\n",
    "  vhd snapshot hash --store /backup --disk web --all\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshots, or DISK@SNAPSHOT [default: the newest].
    snapshots: Vec<String>,
    /// All snapshots of the disk.
    #[arg(long, conflicts_with = "snapshots")]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    disk: String,
    snapshots: Vec<PointView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    virtual_size: u64,
    content_digest: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let (disk, names) = args.disk.meant(&args.snapshots)?;
    let store = &args.disk.store.store;
    let patience = args.lock.patience(context);
    let names: Vec<String> = if names.is_empty() {
        let disk = Disk::look(store, &disk)?;
        let points = if args.all {
            disk.points()
        } else {
            disk.points()
                .last_chunk::<1>()
                .map_or(&[][..], |newest| newest)
        };
        points.iter().map(|point| point.name.clone()).collect()
    } else {
        names.into_iter().map(str::to_owned).collect()
    };
    let workers = context.workers()?;
    let mut all = Vec::new();
    for names in names.chunks(AT_ONCE) {
        let open = |disk: &mut Disk| {
            let mut held = true;
            let images = names.iter().map(|name| {
                let mut image = disk.image(disk.find(name)?)?;
                held &= image.hold_files()?;
                Ok(image)
            });
            let images = images.collect::<Result<Vec<PointImage>>>()?;
            Ok((images, held))
        };
        // The disk is kept: where not all files can be held, it has the lock.
        let (_disk, images) = patience.wait_for(|| open_beside(store, &disk, open))?;
        for image in images {
            hash(&image, args.json, &mut all, context, &workers)?;
        }
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk,
            snapshots: all,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

/// Snapshots whose files are held at a time.
const AT_ONCE: usize = 32;

fn hash(
    image: &PointImage,
    json: bool,
    all: &mut Vec<PointView>,
    context: &Context,
    workers: &Workers,
) -> Result<()> {
    let progress = context.progress();
    progress.begin("hashing", image.virtual_size());
    let digest = content_digest(image, workers, &*progress)?;
    drop(progress);
    image.check_unchanged()?;
    check_content(image, digest)?;
    if json {
        let point = image.manifest();
        all.push(PointView {
            name: point.name.clone(),
            id: point.id.clone(),
            virtual_size: point.virtual_size,
            content_digest: digest.to_string(),
        });
        return Ok(());
    }
    let mut output = Output::text()?;
    output.line(format_args!("{digest}  {}", shown(image.path())))?;
    output.finish()
}
