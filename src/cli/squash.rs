//! `vhd squash`: merges consecutive diffs into one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::overwrite;
use super::context::Context;
use super::exit::Outcome;
use super::output::Output;
use super::size::{Count, Size};
use super::stdin::{self, Expected, STDIN};
use crate::diff::{Chain, Compression, DiffFile, FinishedDiff, SquashOptions, squash};
use crate::error::{Error, Result};
use crate::files::{open_diff, refuse_same_file, spool_diff};
use crate::image::ContentDigest;
use crate::parallel::Work;
use crate::progress::Progress;
use crate::storage::{AtomicFile, Audience};
use crate::text::shown;

/// Merge consecutive diffs into one, without any image.
///
/// The result turns the base of the first diff into the target of the last one, like the diffs one after another.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Every diff is verified first, and each must start from the target of the one before it. Of a page that several \
     of them change, the newest data stays. A result of reversible diffs is reversible, and leaves out what is in the \
     end as it was. Without both ways, what the base holds under a window that several diffs change isn't known: then \
     apply knows the right base by its content digest alone.\n\n",
    "Examples:\n",
    "  vhd squash tuesday.vhddiff wednesday.vhddiff -o both.vhddiff\n",
    "  vhd squash *.vhddiff -o - | ssh far vhd-apply copy.vhd -\n",
    "  ssh far cat d.vhddiff | vhd squash c.vhddiff - -o cd.vhddiff --reversible\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The diffs, in the order in which they were created; - is stdin.
    #[arg(value_name = "DIFF", required = true)]
    diffs: Vec<PathBuf>,
    /// Write the result to this file; - is stdout.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Refuse to write a diff that can't be undone.
    #[arg(long)]
    reversible: bool,
    /// How data is stored that has to be compressed again: none, zstd or zstd:LEVEL with a level from 1 to 19.
    #[arg(long, value_name = "HOW", default_value = "zstd", value_parser = super::diff::parse_compression)]
    compress: Compression,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
    /// Print a JSON summary.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let stdout = args.output == Path::new("-");
    if stdout && args.json {
        return Err(
            Error::usage("the diff and the JSON summary can't both go to stdout")
                .with_hint("write the diff to a file with -o FILE"),
        );
    }
    let overwrite = overwrite(args.force);
    let begun = if stdout {
        None
    } else {
        let inputs: Vec<&Path> = args.diffs.iter().map(PathBuf::as_path).collect();
        refuse_same_file(&args.output, &inputs)?;
        let files = inputs.into_iter().filter(|path| *path != Path::new("-"));
        Some(AtomicFile::begin(
            &args.output,
            overwrite,
            Audience::of(files)?,
        )?)
    };
    let progress = context.progress();
    let chain = Chain::new(open_diffs(&args.diffs, &args.output, &*progress)?)?;
    let one_way = check_reversible(args, &chain)?;
    let Some(file) = begun else {
        let name = Path::new("(standard output)");
        let out = write(args, &chain, Output::binary()?, name, context, &*progress)?.out;
        drop(progress);
        note_one_way(one_way, context);
        out.finish()?;
        return Ok(Outcome::Done);
    };
    let out = file.file().appender();
    let done = write(args, &chain, out, &args.output, context, &*progress)?;
    let summary = Summary::new(args, &chain, &done);
    drop(done);
    file.publish(overwrite)?;
    drop(progress);
    note_one_way(one_way, context);
    if args.json {
        let mut output = Output::text()?;
        output.json(&summary)?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}: {} in one, {} updated and {} cleared{}, in {}",
        shown(&args.output),
        Count(summary.diffs as u64, "diff"),
        Size(summary.update_bytes),
        Size(summary.clear_bytes),
        if summary.reversible {
            ", reversible"
        } else {
            ""
        },
        Size(summary.file_size)
    ));
    Ok(Outcome::Done)
}

/// Opens the diffs of a command line, one of which may come from stdin: it is spooled in the folder of `beside`.
pub(super) fn open_diffs(
    diffs: &[PathBuf],
    beside: &Path,
    progress: &dyn Progress,
) -> Result<Vec<DiffFile>> {
    let is_stdin = |path: &Path| path == Path::new("-");
    if diffs.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(Error::usage("only one diff can come from stdin"));
    }
    let open = |path: &PathBuf| {
        if is_stdin(path) {
            let mut stream = stdin::open(Expected::Diff)?;
            let stream = (&mut stream as &mut dyn io::Read, Path::new(STDIN));
            spool_diff(stream, beside, progress).map_err(stdin::of_pipe)
        } else {
            open_diff(path, progress)
        }
    };
    diffs.iter().map(open).collect()
}

/// The first diff that isn't reversible, because of which the result isn't, if there are also others.
fn check_reversible<'a>(args: &Args, chain: &'a Chain) -> Result<Option<&'a Path>> {
    let Some(first) = chain.diffs().iter().find(|diff| !diff.is_reversible()) else {
        return Ok(None);
    };
    if args.reversible {
        return Err(not_reversible(
            first,
            "omit --reversible to squash it one way",
        ));
    }
    let others = chain.diffs().iter().any(|diff| diff.is_reversible());
    Ok(others.then_some(first.name()))
}

/// The error for a diff that should be reversible.
pub(super) fn not_reversible(diff: &DiffFile, hint: &str) -> Error {
    Error::usage("this diff isn't reversible: it doesn't contain the old data of its base")
        .with_path(diff.name())
        .with_hint(hint)
}

fn note_one_way(first: Option<&Path>, context: &Context) {
    if let Some(name) = first {
        context.note(format_args!(
            "{}: isn't reversible, and so the result isn't either",
            shown(&name)
        ));
    }
}

fn write<W: Write>(
    args: &Args,
    chain: &Chain,
    out: W,
    name: &Path,
    context: &Context,
    progress: &dyn Progress,
) -> Result<FinishedDiff<W>> {
    let workers = context.workers()?;
    progress.begin("squashing", chain.target_size());
    let options = SquashOptions {
        work: Work::new(&workers, progress),
        compression: args.compress,
    };
    squash(chain, out, name, options)
}

#[derive(Serialize)]
struct Summary {
    diff: String,
    identity: String,
    diffs: usize,
    reversible: bool,
    update_bytes: u64,
    clear_bytes: u64,
    file_size: u64,
    base: Side,
    target: Side,
}

#[derive(Serialize)]
struct Side {
    virtual_size: u64,
    content_digest: Option<String>,
}

impl Summary {
    fn new<W>(args: &Args, chain: &Chain, done: &FinishedDiff<W>) -> Self {
        let side = |virtual_size, digest: Option<ContentDigest>| Side {
            virtual_size,
            content_digest: digest.map(|digest| digest.to_string()),
        };
        Self {
            diff: args.output.to_string_lossy().into_owned(),
            identity: ContentDigest(done.digest).to_string(),
            diffs: chain.diffs().len(),
            reversible: done.trailer.way_back.is_some(),
            update_bytes: done.trailer.update_bytes,
            clear_bytes: done.trailer.clear_bytes,
            file_size: done.len,
            base: side(chain.base_size(), chain.base_digest()),
            target: side(chain.target_size(), chain.target_digest()),
        }
    }
}
