//! `vhd merge`: folds a differencing VHD into its parent, or a chain into a new image.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{OutputFormat, Parents};
use super::context::{Context, Warning};
use super::convert;
use super::exit::Outcome;
use super::output::{Output, SCHEMA_VERSION};
use super::size::Size;
use crate::error::Result;
use crate::files::{MergeOptions, Merged, merge};
use crate::text::shown;

/// Fold a differencing VHD into its parent, or a whole chain into a new image.
///
/// Without -o the parent itself comes to hold what the child reads as: behind an undo journal, so that it is always
/// in the old or the new state, or one command away from either.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(after_help = concat!(
    "Only what the child stores is read and, where the parent differs, written. The parent keeps its unique id, and \
     grows if the child is larger. Any other child of the same parent can't be read rightly any more: merge only into \
     a parent that has no other. The child stays, unless --delete is given: don't give \
     it while other images have the child as their parent.\n\n",
    "Examples:\n",
    "  vhd merge child.vhd                          into its parent\n",
    "  vhd merge child.vhd --delete                 and remove the child when that is safe\n",
    "  vhd merge child.vhd -o whole.vhd             the chain as one new image\n",
    "  vhd-apply --rollback parent.vhd              take an interrupted merge back\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The differencing VHD.
    child: PathBuf,
    /// Make a new image of the whole chain instead of changing the parent.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["delete", "dry_run"])]
    output: Option<PathBuf>,
    /// Format of the new image [default: dynamic if it ends in .vhd or .avhd, else raw].
    #[arg(short = 'O', long, value_name = "FORMAT", requires = "output")]
    output_format: Option<OutputFormat>,
    /// Replace the output if it exists.
    #[arg(long, requires = "output")]
    force: bool,
    /// With -o: read damaged images as far as they go; what is lost in one reads as its parent has it, or as zeros.
    #[arg(long, requires = "output")]
    salvage: bool,
    /// Remove the child once the merge is on stable storage.
    #[arg(long)]
    delete: bool,
    /// Check everything, say what would be done, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Read all of the result and compare its content digest, not only what was written.
    #[arg(long)]
    verify: bool,
    /// Make a file without holes of the result, as Windows and Hyper-V want it: zeros are stored too.
    #[arg(long)]
    dense: bool,
    /// Print a JSON summary.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if let Some(output) = &args.output {
        return to_new(args, output, context);
    }
    let workers = context.workers()?;
    let progress = context.progress();
    // Not to be printed while progress is shown.
    let warnings = RefCell::new(Vec::new());
    let options = MergeOptions {
        workers: &workers,
        progress: &*progress,
        parents: &args.parents.options(),
        verify: args.verify,
        dry_run: args.dry_run,
        delete: args.delete,
        dense: args.dense,
        warn: &|warning| warnings.borrow_mut().push(Warning::of(warning)),
    };
    let merged = merge(&args.child, options);
    drop(progress);
    for warning in warnings.take() {
        context.warn_of(&warning);
    }
    let merged = merged?;
    say(args, &merged, context);
    if args.json {
        print(&Summary::of(args, &merged))?;
    }
    Ok(Outcome::Done)
}

/// The chain reads as one disk: to make one of it is to convert it.
fn to_new(args: &Args, output: &Path, context: &Context) -> Result<Outcome> {
    let converted = convert::run(
        &convert::Args {
            io: super::args::Io::Auto,
            source: args.child.clone(),
            destination: output.to_path_buf(),
            format: None,
            output_format: args.output_format,
            azure: false,
            block_size: None,
            salvage: args.salvage,
            force: args.force,
            dense: args.dense,
            fix_gpt: false,
            verify: args.verify,
            parents: args.parents.clone(),
        },
        context,
    )?;
    if args.json {
        print(&NewSummary {
            schema_version: SCHEMA_VERSION,
            child: args.child.to_string_lossy().into_owned(),
            output: output.to_string_lossy().into_owned(),
            outcome: "written",
        })?;
    }
    Ok(converted)
}

fn say(args: &Args, merged: &Merged, context: &Context) {
    let (child, parent) = (shown(&args.child), shown(&merged.parent));
    if merged.same {
        context.note(format_args!("{parent}: holds the same as {child} already"));
    } else {
        let what = match (args.dry_run, merged.finished_interrupted) {
            (true, true) => "an interrupted merge would be finished",
            (true, false) => "would be written",
            (false, true) => "the interrupted merge is finished",
            (false, false) => "merged",
        };
        let grown = if merged.virtual_size == merged.old_size {
            String::new()
        } else {
            format!(", before {}", Size(merged.old_size))
        };
        context.note(format_args!(
            "{parent}: {what}: {} updated, {} cleared, virtual size {}{grown}",
            Size(merged.updated),
            Size(merged.cleared),
            Size(merged.virtual_size),
        ));
    }
    if args.dry_run {
        return;
    }
    if !merged.same {
        context.note(format_args!(
            "any other child of {parent} can't be read rightly any more"
        ));
    }
    if merged.deleted {
        context.note(format_args!("{child}: removed"));
    } else {
        context.note(format_args!(
            "{child}: not needed any more, and kept (--delete removes it)"
        ));
    }
}

#[derive(Serialize)]
struct Summary {
    schema_version: u32,
    child: String,
    parent: String,
    outcome: &'static str,
    old_virtual_size: u64,
    virtual_size: u64,
    update_bytes: u64,
    clear_bytes: u64,
    digest: Option<String>,
    deleted: bool,
}

impl Summary {
    fn of(args: &Args, merged: &Merged) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            child: args.child.to_string_lossy().into_owned(),
            parent: merged.parent.to_string_lossy().into_owned(),
            outcome: match (merged.same, args.dry_run, merged.finished_interrupted) {
                (true, ..) => "already_merged",
                (false, true, _) => "would_merge",
                (false, false, true) => "finished",
                (false, false, false) => "merged",
            },
            old_virtual_size: merged.old_size,
            virtual_size: merged.virtual_size,
            update_bytes: merged.updated,
            clear_bytes: merged.cleared,
            digest: merged.digest.map(|digest| digest.to_string()),
            deleted: merged.deleted,
        }
    }
}

#[derive(Serialize)]
struct NewSummary {
    schema_version: u32,
    child: String,
    output: String,
    outcome: &'static str,
}

fn print(summary: &impl Serialize) -> Result<()> {
    let mut output = Output::text()?;
    output.json(summary)?;
    output.finish()
}
