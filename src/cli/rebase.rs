//! `vhd rebase`: changes the parent of a differencing VHD.

use std::cell::RefCell;
use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::message::{Topic, Warning};
use super::output::Output;
use super::size::Size;
use crate::error::Result;
use crate::files::{
    Compared, ParentOptions, RebaseOptions, Rebased, WindowsFolder, names_of, rebase,
};
use crate::text::shown;

/// Give a differencing VHD another parent.
///
/// The content of the child doesn't change: both parents are compared where the child stores nothing, and where the new
/// one differs, the child stores the data itself from then on.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Data that both chains take from the same file isn't read. If the current parent can't be found, a new one is accepted only if it \
     has the unique id that the child names, as after moving or renaming it. With --unsafe nothing is compared, and any \
     image that isn't larger is taken: what the child reads as then is up to you.\n\n\
     If the command is killed, the child reads as before, with one parent or the other: run it again to finish it.\n\n",
    "Examples:\n",
    "  vhd rebase child.avhd --parent 'renamed base.vhd'       after its parent was renamed or moved\n",
    "  vhd rebase leaf.avhd --parent base.vhd                  past the image between the two\n",
    "  vhd rebase child.avhd --parent base.vhd --dry-run       how much would the child have to store?\n",
    "  vhd rebase child.avhd --parent base.vhd --unsafe        the parent is gone, and base.vhd holds the same\n\n",
    super::args::exit_codes!(),
))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// The differencing VHD.
    child: PathBuf,
    /// Its new parent.
    #[arg(long, value_name = "FILE")]
    parent: PathBuf,
    /// Its current parent, or another image of that one's chain, if it isn't found automatically.
    #[arg(long, value_name = "FILE", conflicts_with = "blindly")]
    old_parent: Vec<PathBuf>,
    /// Also look in this folder, by their file names, for the current parent and for the parents of the new one.
    #[arg(long, value_name = "DIR")]
    parent_path: Vec<PathBuf>,
    /// Accept raw images as parents: nothing shows whether they are the right ones.
    #[arg(long)]
    raw_parent: bool,
    /// Compare nothing: only change the child's reference to its parent.
    #[arg(long = "unsafe")]
    blindly: bool,
    /// Windows path of the child's folder, as in 'D:\vms': the child then also records its parent's absolute path
    /// there.
    #[arg(long, value_name = "DIR")]
    windows_dir: Option<WindowsFolder>,
    /// Check everything and report what would be done, but write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON summary.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let progress = context.progress();
    // Kept until progress is no longer shown.
    let warnings = RefCell::new(Vec::new());
    let parents = ParentOptions {
        files: args.old_parent.clone(),
        folders: args.parent_path.clone(),
        allow_raw: args.raw_parent,
        ..ParentOptions::default()
    };
    let options = RebaseOptions {
        progress: &*progress,
        parents: &parents,
        windows_folder: args.windows_dir.as_ref(),
        blindly: args.blindly,
        dry_run: args.dry_run,
        warn: &|warning| warnings.borrow_mut().push(Warning::of(warning)),
    };
    if !args.dry_run {
        super::signals::writes(&args.child);
    }
    let rebased = rebase(&args.child, &args.parent, options);
    drop(progress);
    for warning in warnings.take() {
        context.warn_of(&warning);
    }
    let rebased = rebased?;
    say(args, &rebased, context)?;
    if args.json {
        print(args, &rebased)?;
    }
    Ok(Outcome::Done)
}

fn say(args: &Args, rebased: &Rebased, context: &Context) -> Result<()> {
    let (child, parent) = (shown(&args.child), shown(&args.parent));
    let stored = rebased.updated + rebased.cleared;
    let would = if args.dry_run { "would be" } else { "is" };
    if rebased.already {
        context.note(format_args!(
            "{child}: already has {parent} as its parent, nothing was written"
        ));
    } else {
        context.note(format_args!("{child}: {parent} {would} its parent now"));
    }
    match rebased.compared {
        Compared::Content if stored > 0 => {
            let more = if args.dry_run { "would have to store" } else { "stores" };
            context.note(format_args!(
                "{child}: {more} {} more, which the new parent doesn't contain",
                Size(stored)
            ));
        }
        Compared::Content => context.detail(format_args!(
            "{child}: reads the same with both, {} of each were read",
            Size(rebased.read)
        )),
        Compared::Id => context.note(
            "the new parent was identified by its unique id, and nothing was compared: the current one can't be read",
        ),
        Compared::Nothing => context.warn(Topic::NothingCompared, format_args!(
            "nothing was compared: {child} reads as before only if {parent} has the same content as its previous parent"
        )),
    }
    let children = rebased.children.paths();
    if rebased.compared == Compared::Nothing && !children.is_empty() {
        let names = names_of(children.iter().map(PathBuf::as_path));
        context.warn(
            Topic::OtherChildren,
            format_args!("{child} is itself a parent: {names}"),
        );
    }
    if !crate::files::finds_parent(&args.child, &args.parent)? {
        context.note(format_args!(
            "the parent {parent} is not in the folder of the child or below: to read the child, give --parent or \
             --parent-path"
        ));
    }
    Ok(())
}

#[derive(Serialize)]
struct Summary {
    child: String,
    parent: String,
    old_parent: Option<String>,
    /// `rebased`, `would_rebase` or `already`.
    outcome: &'static str,
    /// How it was established that the child reads the same: `content`, `unique_id` or `nothing`.
    compared: &'static str,
    /// Bytes that were read of both parents.
    compared_bytes: u64,
    update_bytes: u64,
    clear_bytes: u64,
}

fn print(args: &Args, rebased: &Rebased) -> Result<()> {
    let mut output = Output::text()?;
    output.json(&Summary {
        child: args.child.to_string_lossy().into_owned(),
        parent: args.parent.to_string_lossy().into_owned(),
        old_parent: rebased
            .old_parent
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        outcome: match (rebased.already, args.dry_run) {
            (true, _) => "already",
            (false, true) => "would_rebase",
            (false, false) => "rebased",
        },
        compared: match rebased.compared {
            Compared::Content => "content",
            Compared::Id => "unique_id",
            Compared::Nothing => "nothing",
        },
        compared_bytes: rebased.read,
        update_bytes: rebased.updated,
        clear_bytes: rebased.cleared,
    })?;
    output.finish()
}
