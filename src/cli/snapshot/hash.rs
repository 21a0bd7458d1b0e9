//! `vhd snapshot hash`: the content digests of points in time, from their data.

use serde::Serialize;

use super::{Access, Context, DiskArgs, Manifest, Outcome, Output, Result};
use crate::files::Opened as _;
use crate::image::{Image as _, content_digest};
use crate::snapshot::check_content;
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
}

/// What `--json` prints.
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
    let (disk, names) = args.disk.open_for(Access::Read, &args.snapshots)?;
    let points: Vec<&Manifest> = if args.all {
        disk.points().iter().collect()
    } else if names.is_empty() {
        disk.newest().into_iter().collect()
    } else {
        let names = names.into_iter();
        names.map(|name| disk.find(name)).collect::<Result<_>>()?
    };
    let workers = context.workers()?;
    let mut all = Vec::new();
    for point in points {
        let image = disk.image(point)?;
        let progress = context.progress();
        progress.begin("hashing", image.virtual_size());
        let digest = content_digest(&image, &workers, &*progress)?;
        drop(progress);
        image.check_unchanged()?;
        check_content(&image, digest)?;
        if args.json {
            all.push(PointView {
                name: point.name.clone(),
                id: point.id.clone(),
                virtual_size: point.virtual_size,
                content_digest: digest.to_string(),
            });
            continue;
        }
        let mut output = Output::text()?;
        output.line(format_args!("{digest}  {}", shown(image.path())))?;
        output.finish()?;
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: disk.name().to_owned(),
            snapshots: all,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}
