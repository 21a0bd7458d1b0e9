//! What `vhd apply` reports.

use std::path::Path;

use serde::Serialize;

use super::args::{Args, Check, is_file, result};
use crate::cli::args::windows_remark;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::far;
use crate::cli::gpt::say_gpt_of;
use crate::cli::message::Topic;
use crate::cli::output::Output as Stdout;
use crate::cli::size::Size;
use crate::error::{Result, quoted};
use crate::files::{Applied, BaseChecked, Format, Strategy};
use crate::text::shown;

/// Reports the location of the GPT's backup in a resulting file, if it isn't at the end.
pub(super) fn say_gpt(args: &Args, applied: &Applied, context: &Context) {
    let written = args.output.is_some() || applied.already < applied.diffs;
    let path = args.output.as_ref().unwrap_or(&args.base);
    if written && !args.dry_run && is_file(path) {
        say_gpt_of(path, args.parents.options(), context);
    }
}

/// Reports that a check couldn't be thorough: as a warning, unless the user asked for that.
pub(super) fn say_doubt(args: &Args, context: &Context, doubt: &str) {
    if args.base_check == Check::Touched {
        context.note(doubt);
    } else {
        context.warn(Topic::BasePartlyChecked, doubt);
    }
}

pub(super) fn say(args: &Args, applied: &Applied, made: Option<Format>, context: &Context) {
    let path = shown(result(args));
    let new = args.output.is_some();
    say_how(args, applied, context);
    match (applied.checked, applied.already < applied.diffs) {
        (BaseChecked::Full | BaseChecked::Stamp, _) | (_, false) => {}
        (BaseChecked::Touched, _) => say_doubt(
            args,
            context,
            "the base was checked only under the changed pages: the rest of it wasn't verified",
        ),
        (BaseChecked::Partly, _) => say_doubt(
            args,
            context,
            "the diff doesn't fully describe its base, so it isn't certain that this is the right base",
        ),
    }
    if applied.already == applied.diffs && !new {
        context.note(format_args!(
            "{path}: already holds the target, nothing was written"
        ));
        return;
    }
    if applied.already > 0 {
        context.note(format_args!(
            "{} of {} diffs were applied already",
            applied.already, applied.diffs
        ));
    }
    let what = match (args.dry_run, applied.finished_interrupted) {
        (true, true) => "an interrupted apply would be finished",
        (true, false) => "fits; would be written",
        (false, true) => "the interrupted apply is finished",
        (false, false) => "done",
    };
    let verified = if applied.verified { ", verified" } else { "" };
    let format = made.map_or_else(String::new, |format| format!("{format}, "));
    if let Some(remark) = made.and_then(|format| windows_remark(format, applied.target_size)) {
        context.warn(Topic::TooLargeForWindows, remark);
    }
    context.note(format_args!(
        "{path}: {what}: {format}{} updated, {} cleared, virtual size {}{verified}",
        Size(applied.updated),
        Size(applied.cleared),
        Size(applied.target_size),
    ));
}

/// Reports details with -v, and attributes that were lost.
pub(super) fn say_how(args: &Args, applied: &Applied, context: &Context) {
    let path = shown(result(args));
    if applied.checked == BaseChecked::Stamp {
        let by = if far::is_address(&args.base) {
            "a snapshot with a recorded digest, since which nothing was written"
        } else {
            "its state stamp or its window hashes"
        };
        context.detail(format_args!(
            "{}: identified by {by}, so it wasn't read completely",
            shown(&args.base)
        ));
    }
    if let (Some(output), Some(_)) = (&args.output, applied.strategy) {
        context.detail(format_args!(
            "{}: created as a clone of {}, with which it shares unchanged data",
            shown(&output),
            shown(&args.base)
        ));
    } else {
        say_how_in_place(&args.base, applied, context);
    }
    let written = applied.already < applied.diffs && !args.dry_run;
    let file = is_file(args.output.as_ref().unwrap_or(&args.base));
    if file && (written || args.output.is_some() && !args.dry_run) {
        let unread = applied.checked == BaseChecked::Stamp && !applied.verified;
        context.detail(match (applied.stamped, unread) {
            (true, _) => format!("{path}: stamped with its state"),
            (false, false) => format!("{path}: not stamped with its state"),
            (false, true) => format!(
                "{path}: not stamped with its state, since its digest is only taken from the diff; to read and stamp \
                 it: vhd hash --stamp {}",
                quoted(args.output.as_ref().unwrap_or(&args.base))
            ),
        });
    }
}

/// Reports how an image was changed in place, and what was left or lost.
pub(crate) fn say_how_in_place(image: &Path, applied: &Applied, context: &Context) {
    let image = shown(&image);
    if let Some(strategy) = applied.strategy {
        let how = match strategy {
            Strategy::Clone => "changed by replacing it with a clone",
            Strategy::Copy => "changed by replacing it with a copy",
            Strategy::Journal => "changed directly, with an undo journal",
        };
        context.detail(format_args!("{image}: {how}"));
    }
    if applied.behind > 0 {
        context.note(format_args!(
            "{image}: the device is larger: its last {} were neither read nor changed",
            Size(applied.behind)
        ));
    }
    for lost in &applied.lost {
        context.warn(
            Topic::MetadataLost,
            format_args!("{image}: the new file couldn't be given {lost}"),
        );
    }
}

#[derive(Serialize)]
pub(super) struct Summary<'a> {
    image: String,
    outcome: &'a str,
    #[serde(flatten)]
    applied: Option<Details>,
    /// The time of the blob snapshot that was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_snapshot: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Details {
    diffs: usize,
    already_applied: usize,
    base_check: &'static str,
    /// How the base was changed in place, or `clone` for a new image that began as one; otherwise `null`.
    strategy: Option<&'static str>,
    /// Whether the result has a state stamp.
    stamped: bool,
    virtual_size: u64,
    content_digest: Option<String>,
    update_bytes: u64,
    clear_bytes: u64,
    verified: bool,
}

pub(super) fn print(
    args: &Args,
    applied: Option<&Applied>,
    blob_snapshot: Option<String>,
) -> Result<Outcome> {
    let outcome = match applied {
        None => "rolled_back",
        Some(applied) if applied.already == applied.diffs => "already_applied",
        Some(_) if args.dry_run => "would_apply",
        Some(applied) if applied.finished_interrupted => "finished",
        Some(_) => "applied",
    };
    let details = applied.map(|applied| Details {
        diffs: applied.diffs,
        already_applied: applied.already,
        base_check: match applied.checked {
            BaseChecked::Full => "full",
            BaseChecked::Touched => "touched",
            BaseChecked::Partly => "partly",
            BaseChecked::Stamp => "stamp",
        },
        strategy: applied.strategy.map(Strategy::name),
        stamped: applied.stamped,
        virtual_size: applied.target_size,
        content_digest: applied.target_digest.map(|digest| digest.to_string()),
        update_bytes: applied.updated,
        clear_bytes: applied.cleared,
        verified: applied.verified,
    });
    let image = args
        .output
        .as_ref()
        .unwrap_or(&args.base)
        .to_string_lossy()
        .into_owned();
    let mut output = Stdout::text()?;
    output.json(&Summary {
        image,
        outcome,
        applied: details,
        blob_snapshot,
    })?;
    output.finish()?;
    Ok(Outcome::Done)
}
