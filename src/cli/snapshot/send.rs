//! `vhd snapshot send`: snapshots as a stream.

use std::path::Path;

use super::{Access, Context, Count, DiskArgs, Outcome, Output, Result, Size};
use crate::error::ErrorKind;
use crate::snapshot::{Span, Work, send};

/// Write snapshots to stdout as a stream, for vhd snapshot receive.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "For where no folder is shared: a pipe, ssh, or a file that is carried. The two sides ask each other nothing; vhd \
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
    /// Send only what comes after this snapshot, which the receiver has.
    #[arg(long, value_name = "SNAPSHOT")]
    after: Option<String>,
    /// Send nothing that comes after this snapshot.
    #[arg(long, value_name = "SNAPSHOT")]
    until: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let output = Output::binary().map_err(|e| match e.kind() {
        ErrorKind::Usage => {
            e.with_hint("pipe it into vhd snapshot receive, or redirect it to a file")
        }
        _ => e,
    })?;
    let (mut disk, names) = args
        .disk
        .open_for(Access::Read, args.after.iter().chain(&args.until))?;
    let (after, until) = match (names.as_slice(), &args.after) {
        ([after, until], _) => (Some(*after), Some(*until)),
        ([after], Some(_)) => (Some(*after), None),
        ([until], None) => (None, Some(*until)),
        _ => (None, None),
    };
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let span = Span { after, until };
    let sent = send(
        &mut disk,
        span,
        (output, Path::new("(standard output)")),
        work,
    )?;
    drop(progress);
    context.note(format_args!(
        "{}: {} sent in {}",
        disk.name(),
        Count(sent.points.len() as u64, "snapshot"),
        Size(sent.bytes)
    ));
    Ok(Outcome::Done)
}
