//! `vhd snapshot upgrade`: a store of an older version as one of the newest.

use serde::Serialize;

use super::{Access, Context, Count, Outcome, Output, Result, Size, StoreArgs, disks_there};
use crate::cli::document::ErrorView;
use crate::snapshot::{Disk, Upgraded, Work, upgrade, upgrade_marker};
use crate::text::shown;

/// Bring a store of version 1 to version 2: pack its bases.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The store gets a marker, and each base that is a dynamic VHD or a raw image is packed: every point in time stays \
     what it is. A new base is complete, and compared with the digest of its snapshot, before the old one is removed; \
     there must be room for both. What was interrupted is finished by the same command. Programs that know only \
     version 1 can't read the packed bases.\n\n",
    "Examples:\n",
    "  vhd snapshot upgrade --store /backup\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    store: String,
    store_version: u32,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    packed: Vec<String>,
    old_used_size: u64,
    used_size: u64,
    error: Option<ErrorView>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let store = args.store.store.as_path();
    let names = disks_there(store)?;
    let version = upgrade_marker(store)?.version;
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let (mut views, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        let done =
            Disk::open(store, &name, Access::Write).and_then(|mut disk| upgrade(&mut disk, work));
        let (done, error) = match done {
            Ok(done) => (done, None),
            Err(error) => (Upgraded::default(), Some(error)),
        };
        views.push(DiskView {
            disk: name,
            packed: done.packed,
            old_used_size: done.used[0],
            used_size: done.used[1],
            error: error.as_ref().map(ErrorView::from),
        });
        errors.extend(error);
    }
    drop(progress);
    for view in views.iter().filter(|view| view.error.is_none()) {
        context.note(format_args!(
            "{}: {} packed, {} before, {} now",
            view.disk,
            Count(view.packed.len() as u64, "base"),
            Size(view.old_used_size),
            Size(view.used_size)
        ));
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            store: shown(store).to_string(),
            store_version: version,
            disks: views,
        })?;
        output.finish()?;
    }
    // All are told; the first one says how the command ends.
    let mut errors = errors.into_iter();
    let first = errors.next();
    for error in errors {
        context.report(&error);
    }
    first.map_or(Ok(Outcome::Done), Err)
}
