//! `vhd merge`: merges a differencing VHD into its parent, or a chain into a new image.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{OutputFormat, Parents, orphans};
use super::context::Context;
use super::convert;
use super::exit::Outcome;
use super::gpt::say_gpt_of;
use super::message::{Topic, Warning};
use super::output::Output;
use super::size::Size;
use crate::error::Result;
use crate::files::{
    MergeOptions, Merged, OpenImage, OpenOptions, WindowsFolder, merge, names_of, open_image,
};
use crate::parallel::Work;
use crate::text::shown;

/// Merge a differencing VHD into its parent, or a whole chain into a new image.
///
/// Without -o the parent itself gets the content of the child: with an undo journal, so that it is always in the old or
/// the new state, or one command away from either.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(after_help = concat!(
    "Only what the child stores is read and, where the parent differs, written. The parent keeps its unique id, and \
     grows if the child is larger. Other children of the same parent wouldn't read as before: they are looked for in the \
     folders of the two images and in those of --parent-path, and if there are any nothing is written, unless --force is \
     given. The child stays, unless --delete is given. Then its own children, looked for in the same folders, first get \
     the parent as theirs: to fold the oldest delta of a chain that lives on, merge it with --delete.\n\n",
    "Examples:\n",
    "  vhd merge child.vhd                          into its parent\n",
    "  vhd merge child.vhd --delete                 and remove the child; its own children get the parent\n",
    "  vhd merge child.vhd -o whole.vhd             the chain as one new image\n",
    "  vhd-apply --rollback parent.vhd              undo an interrupted merge\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The differencing VHD.
    child: PathBuf,
    /// Write a new image of the whole chain instead of changing the parent; - writes the raw disk to stdout.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["delete", "dry_run"])]
    output: Option<PathBuf>,
    /// Format of the new image [default: dynamic if it ends in .vhd or .avhd, else raw].
    #[arg(short = 'O', long, value_name = "FORMAT", requires = "output")]
    output_format: Option<OutputFormat>,
    /// Continue although the parent has other children, which then won't read as before. With -o: replace the output if
    /// it exists; twice: even if other images have it as their parent.
    #[arg(long, action = clap::ArgAction::Count)]
    force: u8,
    /// Windows path of the images' folder, as in 'D:\vms': children that get another parent then also record its
    /// absolute path there.
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    windows_dir: Option<WindowsFolder>,
    /// With -o: read as much as possible of damaged images; what is lost in one reads as its parent has it, or as
    /// zeros.
    #[arg(long, requires = "output")]
    salvage: bool,
    /// Remove the child once the merge is on stable storage; its own children are given the parent.
    #[arg(long)]
    delete: bool,
    /// Check everything and report what would be done, but write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Read all of the result and compare its content digest, not only what was written.
    #[arg(long)]
    verify: bool,
    /// Write the result as a file without holes, as Windows and Hyper-V require: zeros are stored too.
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
    // Kept until progress is no longer shown.
    let warnings = RefCell::new(Vec::new());
    let options = MergeOptions {
        work: Work::new(&workers, &*progress),
        parents: &args.parents.options(),
        verify: args.verify,
        dry_run: args.dry_run,
        delete: args.delete,
        dense: args.dense,
        orphans: orphans(args.force),
        windows_folder: args.windows_dir.as_ref(),
        warn: &|warning| warnings.borrow_mut().push(Warning::of(warning)),
    };
    if !args.dry_run {
        watch_parent(args);
    }
    let merged = merge(&args.child, options);
    drop(progress);
    for warning in warnings.take() {
        context.warn_of(&warning);
    }
    let merged = merged?;
    say(args, &merged, context);
    if !args.dry_run && !merged.same && merged.virtual_size != merged.old_size {
        say_gpt_of(&merged.parent, args.parents.options(), context);
    }
    if args.json {
        print(&Summary::of(args, &merged))?;
    }
    Ok(Outcome::Done)
}

/// The parent is what is changed. The merge itself reports if it can't be opened.
fn watch_parent(args: &Args) {
    let options = OpenOptions {
        parents: args.parents.options(),
        ..OpenOptions::default()
    };
    let child = open_image(&args.child, &options);
    if let Some(parent) = child.ok().as_ref().and_then(OpenImage::parent) {
        super::signals::writes(parent.path());
    }
}

/// The chain reads as one disk, so merging it to a new image is a conversion.
fn to_new(args: &Args, output: &Path, context: &Context) -> Result<Outcome> {
    convert::refuse_on_stdout("--json", args.json && output == Path::new("-"))?;
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
            json: false,
            parents: args.parents.clone(),
        },
        context,
    )?;
    if args.json {
        print(&NewSummary {
            child: args.child.to_string_lossy().into_owned(),
            image: output.to_string_lossy().into_owned(),
            outcome: "written",
        })?;
    }
    Ok(converted)
}

fn say(args: &Args, merged: &Merged, context: &Context) {
    let (child, parent) = (shown(&args.child), shown(&merged.parent));
    if merged.same {
        context.note(format_args!("{parent}: already holds the same as {child}"));
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
    say_of_children(args, merged, context);
}

/// Reports the effect on images that are read through the two.
fn say_of_children(args: &Args, merged: &Merged, context: &Context) {
    let (child, parent) = (shown(&args.child), shown(&merged.parent));
    let folders = &merged.looked_in;
    let names = |paths: &[PathBuf]| names_of(paths.iter().map(PathBuf::as_path));
    let (siblings, heirs) = (names(&merged.siblings), names(&merged.grandchildren));
    let would =
        |done: &'static str, planned: &'static str| if args.dry_run { planned } else { done };
    if !merged.siblings.is_empty() && !merged.same {
        let read = would("do not read", "would not read");
        context.warn(
            Topic::OtherChildren,
            format_args!("other children of {parent} {read} as before: {siblings}"),
        );
    } else if merged.siblings.is_empty() {
        context.note(format_args!("no other child of {parent} in {folders}"));
    }
    if args.delete {
        if !merged.grandchildren.is_empty() {
            let is = would("is", "would be");
            context.note(format_args!(
                "{parent}: {is} the parent of {heirs} now, in place of {child}"
            ));
        }
        let removed = would("removed", "would be removed");
        context.note(format_args!("{child}: {removed}"));
    } else if merged.grandchildren.is_empty() {
        context.note(format_args!(
            "{child}: kept; no image in {folders} has it as its parent (--delete removes it)"
        ));
    } else {
        context.note(format_args!(
            "{child}: kept, it is the parent of {heirs} (--delete gives them {parent} as their parent, and removes it)"
        ));
    }
}

#[derive(Serialize)]
struct Summary {
    child: String,
    parent: String,
    outcome: &'static str,
    old_virtual_size: u64,
    virtual_size: u64,
    update_bytes: u64,
    clear_bytes: u64,
    content_digest: Option<String>,
    child_deleted: bool,
    /// Other children of the parent.
    siblings: Vec<String>,
    /// Children of the child, or of the parent if the child was deleted.
    grandchildren: Vec<String>,
}

impl Summary {
    fn of(args: &Args, merged: &Merged) -> Self {
        Self {
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
            content_digest: merged.digest.map(|digest| digest.to_string()),
            child_deleted: merged.deleted,
            siblings: listed(&merged.siblings),
            grandchildren: listed(&merged.grandchildren),
        }
    }
}

fn listed(paths: &[PathBuf]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

#[derive(Serialize)]
struct NewSummary {
    child: String,
    image: String,
    outcome: &'static str,
}

fn print(summary: &impl Serialize) -> Result<()> {
    let mut output = Output::text()?;
    output.json(summary)?;
    output.finish()
}
