//! `vhd snapshot send`: writes snapshots as a stream.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::overwrite;
use super::{Context, Count, DiskArgs, LockArgs, Outcome, Output, RateArgs, Result, Size};
use crate::cli::output::STDOUT;
use crate::cli::stdin::{self, Expected, STDIN};
use crate::error::{Error, ErrorKind};
use crate::snapshot::{
    After, Disk, Outgoing, ReceiverState, Span, Standing, Work, is_encrypted, open_beside,
};
use crate::storage::{AtomicFile, Audience, File};

/// Write snapshots to stdout as a stream, for vhd snapshot receive.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "For use without a shared folder: a pipe, ssh, or a file that is carried over. The two sides don't communicate; vhd \
     snapshot receive --status at the receiver says what to continue after. What the receiver has already is skipped there. \
     If the receiver's newest snapshot is gone here, its window hashes (--after-status) are enough to send the next one as \
     what differs from it, in mebibytes that hold a change; the difference is made in a file in TMPDIR first. Zeros \
     and holes aren't sent; what is sent isn't packed any further (docs/send-format.md).\n\n",
    "Examples:\n",
    "  vhd snapshot send --store /backup --disk web | ssh far vhd snapshot receive --store /b\n",
    "  at=$(ssh far vhd snapshot receive --store /b --disk web --status) &&\n",
    "    vhd snapshot send --store /backup --disk web --after \"$at\" | ssh far vhd snapshot receive --store /b\n",
    "  ssh far vhd snapshot receive --store /b --disk web --status --windows |\n",
    "    vhd snapshot send --store /backup --disk web --after-status - | ssh far vhd snapshot receive --store /b\n",
    "  vhd snapshot send --store /backup --disk web --until tue | zstd > web.vhdsnap.zst\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// Send only snapshots after this one, which the receiver has: a name, or what its vhd snapshot receive --status
    /// printed.
    #[arg(long, value_name = "SNAPSHOT")]
    after: Option<String>,
    /// Send only what comes after the newest snapshot of the receiver, as its vhd snapshot receive --status --windows
    /// wrote it to this file; - for stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "after")]
    after_status: Option<PathBuf>,
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
    let (name, standing) = match &args.after {
        Some(text) if text.starts_with(Standing::PREFIX) => (None, Some(text.parse()?)),
        Some(text) if text.is_empty() => {
            return Err(Error::usage("--after was given nothing")
                .with_expected("a snapshot, or what vhd snapshot receive --status prints")
                .with_hint("the command that should have printed it failed: see its messages"));
        }
        name => (name.as_ref(), None),
    };
    let (disk, names) = args.disk.meant(name.into_iter().chain(&args.until))?;
    let mut names = names.into_iter();
    let after = name.and_then(|_| names.next()).map(After::Name);
    let until = names.next();
    let state = args.after_status.as_deref().map(read_state).transpose()?;
    let after = after
        .or(standing.as_ref().map(After::Point))
        .or(state.as_ref().map(After::State));
    if is_encrypted(&args.disk.store.store)? {
        context.note("the stream is not encrypted: protect it on its way, as ssh does");
    }
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

/// Reads where the receiver stands.
fn read_state(file: &Path) -> Result<ReceiverState> {
    let scratch = &std::env::temp_dir();
    if file == Path::new("-") {
        let stdin = stdin::open(Expected::Status)?;
        return ReceiverState::read((stdin, Path::new(STDIN)), scratch);
    }
    ReceiverState::read((File::open(file)?.reader(), file), scratch)
}
