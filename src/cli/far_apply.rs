//! `vhd apply` on page blobs.

use std::path::Path;

use super::context::Context;
use super::far;
use super::upload::{begin, options_of};
use crate::blob::BlobName;
use crate::diff::Chain;
use crate::error::{Error, Result};
use crate::files::{
    Applied, ApplyOptions, BlobApplied, BlobApply, Format, Opened, apply_to_blob,
    apply_to_new_blob, roll_back_blob, target_footer,
};
use crate::image::ContentDigest;
use crate::snapshot::check_name;
use crate::text::shown;

/// An error about an option that an apply to a blob doesn't have.
pub(super) fn refuse_options(base: &Path, options: &[(&str, bool)]) -> Result<()> {
    let Some((option, _)) = options.iter().find(|(_, given)| *given) else {
        return Ok(());
    };
    Err(Error::usage("a page blob is not changed in this way")
        .with_path(base)
        .with_found(option)
        .with_hint(format!(
            "omit {option}: what the blob held is kept in a snapshot of it meanwhile"
        )))
}

/// Changes the blob whose address is `base`.
pub(super) fn in_place(
    base: &Path,
    chain: &Chain,
    how: BlobApply<'_>,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<BlobApplied> {
    let name = parse(base)?;
    let connector = far::connector()?;
    context.tell_access(name.shown())?;
    apply_to_blob(&connector, &name, chain, how, options)
}

/// The name of a blob snapshot that can also be one in a store.
pub(super) fn check_point(name: Option<&str>, base: &Path) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    if !far::is_address(base) {
        return Err(Error::usage("only a page blob has blob snapshots")
            .with_path(base)
            .with_found("--blob-snapshot")
            .with_hint("omit it; vhd snapshot create keeps points in time of a file"));
    }
    check_name(name)
}

/// Takes back what was interrupted.
pub(super) fn roll_back(
    base: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<Option<ContentDigest>> {
    let name = parse(base)?;
    context.tell_access(name.shown())?;
    roll_back_blob(&*far::connector()?, &name, options)
}

/// Makes a new blob of what `chain` makes of `base`.
pub(super) fn to_new(
    base: &dyn Opened,
    chain: &Chain,
    (output, format, replace): (&Path, Format, bool),
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<Applied> {
    let of_target = chain
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    let like = of_target.or_else(|| base.footer().cloned());
    let new = options_of(format, chain.target_size(), like.as_ref(), replace);
    apply_to_new_blob(base, chain, || begin(output, &new, context), options)
}

/// Says what only an apply to a blob has to say.
pub(super) fn say(base: &Path, done: &BlobApplied, context: &Context) {
    let name = shown(base);
    if let Some(time) = &done.fell_back_on {
        context.detail(format_args!(
            "{name}: held what the snapshot {time} holds, so no other one was taken to go back to"
        ));
    }
    if let Some(time) = &done.snapshot {
        context.note(format_args!("{name}: the snapshot of the result is {time}"));
    }
}

fn parse(path: &Path) -> Result<BlobName> {
    BlobName::parse(path.to_str().unwrap_or_default())
}
