//! `vhd apply`: turns a base into the target of its diffs.

mod args;
mod chain;
mod new_image;
mod report;

use std::sync::{Mutex, PoisonError};

pub(crate) use args::Args;
pub(crate) use report::say_how_in_place;

use super::args::{default_format, orphans, overwrite};
use super::context::Context;
use super::exit::Outcome;
use super::message::Warning;
use super::{cloud, far, far_apply};
use crate::error::{Error, Result};
use crate::files::{
    ApplyOptions, BlobApplied, BlobApply, EmptyDisk, InPlace, Orphans, apply_in_place,
    check_output, refuse_foreign, refuse_pending, refuse_same_file, roll_back,
};
use crate::image::ContentDigest;
use crate::parallel::{Work, Workers};
use crate::text::shown;
use args::{inputs, is_file};
use chain::{chain, refuse_base_as_diff, refuse_misplaced};
use new_image::{nowhere, to_new};
use report::{print, say, say_gpt};

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let workers = workers(args, context)?;
    let progress = context.progress();
    let parents = args.parents.options();
    let options = ApplyOptions {
        work: Work::new(&workers, &*progress),
        check: args.base_check.into(),
        verify: args.verify,
        parents: &parents,
    };
    if args.rollback {
        let digest = take_back(args, options, context)?;
        drop(progress);
        let digest = digest.map_or_else(String::new, |digest| format!(", content digest {digest}"));
        context.note(format_args!(
            "{}: holds the old point in time again{digest}",
            shown(&args.base)
        ));
        return if args.json {
            print(args, None, None)
        } else {
            Ok(Outcome::Done)
        };
    }
    refuse_misplaced(args)?;
    far_apply::check_point(args.blob_snapshot.as_deref(), &args.base)?;
    refuse_base_as_diff(args)?;
    // Kept until progress is no longer shown.
    let warnings = Mutex::new(Vec::new());
    let warn = |warning: &Error| {
        let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(Warning::of(warning));
    };
    if let (Some(output), None) = (&args.output, args.output_format)
        && !far::is_address(output)
    {
        default_format(output)?;
    }
    let (mut made, mut blob) = (None, None);
    let applied = match &args.output {
        Some(output) if !args.dry_run => {
            to_new(args, output, options, context).map(|(applied, format)| {
                made = Some(format);
                applied
            })
        }
        None if cloud::is_name(&args.base) => Err(Error::usage(
            "a managed disk can't be changed in place: it has no snapshot to go back to",
        )
        .with_path(&args.base)
        .with_hint("make a new image with -o")),
        None if far::is_address(&args.base) => {
            let done = to_blob(args, &warn, options, context);
            done.map(|done| blob.insert(done).applied.clone())
        }
        output => {
            if let Some(output) = output.as_ref().filter(|output| is_file(output)) {
                refuse_same_file(output, &inputs(args))?;
                check_output(output, overwrite(args.force))?;
                refuse_pending(&args.base)?;
            }
            super::store_path::refuse_point(&args.base)?;
            EmptyDisk::refuse(&args.base, "name the new image with -o")?;
            super::signals::writes(&args.base);
            if args.base_format.is_none() {
                refuse_foreign(&args.base, Some("-f"))?;
            }
            let chain = chain(args, &args.base, options.work.progress)?;
            let how = InPlace {
                format: args.base_format.map(Into::into),
                strategy: args.in_place.strategy(),
                undo: args.undo.as_deref(),
                dry_run: args.dry_run,
                dense: args.dense,
                orphans: match output {
                    // The base isn't changed.
                    Some(_) => Orphans::Allow,
                    None => orphans(args.force),
                },
                warn: Some(&warn),
            };
            apply_in_place(&args.base, chain, how, options)
        }
    };
    drop(progress);
    for warning in warnings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        context.warn_of(&warning);
    }
    let applied = applied?;
    say(args, &applied, made, context);
    say_gpt(args, &applied, context);
    if let Some(blob) = &blob {
        far_apply::say(&args.base, blob, context);
    }
    if args.json {
        print(args, Some(&applied), blob.and_then(|blob| blob.snapshot))
    } else {
        Ok(Outcome::Done)
    }
}

/// More threads where they mostly wait for a service.
fn workers(args: &Args, context: &Context) -> Result<Workers> {
    if cloud::is_far(&args.base) || args.output.as_deref().is_some_and(far::is_address) {
        context.workers_far()
    } else {
        context.workers()
    }
}

/// Takes back what was interrupted; gives the digest of what the base holds then, if it is known.
fn take_back(
    args: &Args,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<Option<ContentDigest>> {
    super::signals::writes(&args.base);
    if far::is_address(&args.base) {
        far_apply::roll_back(&args.base, options, context)
    } else {
        roll_back(&args.base, options)
    }
}

/// Changes the page blob that the base is.
fn to_blob(
    args: &Args,
    warn: &(dyn Fn(&Error) + Sync),
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<BlobApplied> {
    far_apply::refuse_options(
        &args.base,
        &[
            ("--undo", args.undo.is_some()),
            ("--in-place", args.in_place.strategy().is_some()),
            ("--dense", args.dense),
        ],
    )?;
    super::signals::writes(&args.base);
    let chain = chain(args, &nowhere(), options.work.progress)?;
    let how = BlobApply {
        format: args.base_format.map(Into::into),
        format_option: Some("-f"),
        dry_run: args.dry_run,
        snapshot: args.blob_snapshot.as_deref(),
        warn: Some(warn),
    };
    far_apply::in_place(&args.base, &chain, how, options, context)
}
