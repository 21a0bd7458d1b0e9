//! `vhd snapshot send`: writes snapshots as a stream.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::overwrite;
use super::{Context, Count, DiskArgs, LockArgs, Outcome, Output, RateArgs, Result, Size};
use crate::cli::output::STDOUT;
use crate::error::{Error, ErrorKind};
use crate::snapshot::{Disk, Outgoing, Span, Work, open_beside};
use crate::storage::{AtomicFile, Audience};

/// Write snapshots to stdout as a stream, for vhd snapshot receive.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "For use without a shared folder: a pipe, ssh, or a file that is carried over. The two sides don't communicate; vhd \
     snapshot show at the receiver says what to continue after. What the receiver has already is skipped there. Zeros \
     and holes aren't sent; what is sent isn't packed any further (docs/send-format.md).\n\n",
    "Examples:\n",
    "  vhd snapshot send --store /backup --disk web | ssh far vhd snapshot receive --store /b\n",
    "  last=$(ssh far vhd snapshot show --store /b --disk web --json | jq -r .name)\n",
    "  vhd snapshot send --store /backup --disk web --after \"$last\" | ssh far vhd snapshot receive --store /b\n",
    "  vhd snapshot send --store /backup --disk web --until tue | zstd > web.vhdsnap.zst\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// Send only snapshots after this one, which the receiver has.
    #[arg(long, value_name = "SNAPSHOT")]
    after: Option<String>,
    /// Send no snapshots after this one.
    #[arg(long, value_name = "SNAPSHOT")]
    until: Option<String>,
    /// Write the stream to this file [default: -, which is stdout].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, requires = "output")]
    force: bool,
    /// Print a JSON summary; needs -o.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    rate: RateArgs,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    disk: String,
    stream: String,
    snapshots: Vec<PointView>,
    file_size: u64,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let file = args
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    if args.json && file.is_none() {
        return Err(
            Error::usage("the stream and the JSON summary can't both go to stdout")
                .with_hint("write the stream to a file with -o FILE"),
        );
    }
    let stdout = if file.is_some() {
        None
    } else {
        Some(Output::binary().map_err(|e| match e.kind() {
            ErrorKind::Usage => e.override_hint(
                "pipe it into vhd snapshot receive, or write it to a file with -o FILE",
            ),
            _ => e,
        })?)
    };
    let (disk, names) = args.disk.meant(args.after.iter().chain(&args.until))?;
    let (after, until) = match (names.as_slice(), &args.after) {
        ([after, until], _) => (Some(*after), Some(*until)),
        ([after], Some(_)) => (Some(*after), None),
        ([until], None) => (None, Some(*until)),
        _ => (None, None),
    };
    let workers = context.workers()?;
    let progress = args.rate.limit(context.progress());
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let span = Span { after, until };
    let patience = args.lock.patience(context);
    let open = |disk: &mut Disk| Outgoing::open(disk, span, work);
    // The disk is kept: where not all files can be held, it has the lock.
    let (disk, outgoing) =
        patience.wait_for(|| open_beside(&args.disk.store.store, &disk, open))?;
    let sent = match (file, stdout) {
        (Some(path), _) => {
            let audience = Audience::of([disk.folder()])?;
            let file = AtomicFile::begin(path, overwrite(args.force), audience)?;
            let sent = outgoing.send((file.file().appender(), path), work)?;
            file.publish(overwrite(args.force))?;
            sent
        }
        (None, Some(output)) => outgoing.send((output, Path::new(STDOUT)), work)?,
        (None, None) => return Err(Error::usage("nothing to write to")),
    };
    drop(progress);
    if let (true, Some(path)) = (args.json, file) {
        let mut output = Output::text()?;
        output.json(&View {
            disk: disk.name().to_owned(),
            stream: path.to_string_lossy().into_owned(),
            snapshots: sent
                .points
                .iter()
                .map(|point| PointView {
                    name: point.name.clone(),
                    id: point.id.clone(),
                })
                .collect(),
            file_size: sent.bytes,
        })?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}: {} sent in {}",
        disk.name(),
        Count(sent.points.len() as u64, "snapshot"),
        Size(sent.bytes)
    ));
    Ok(Outcome::Done)
}
