//! Downloads that continue after an interruption, as a person sees them.

use std::path::Path;

use super::context::Context;
use crate::error::Result;
use crate::files::{Begun, FetchedFrom, NewImage, NewImageOptions};
use crate::image::{ContentDigest, CopyOptions, Image};
use crate::text::shown;

/// Begins a new image. If it comes `from` elsewhere, an interrupted download of the same is continued.
pub(super) fn begin(
    path: &Path,
    options: &NewImageOptions,
    from: Option<&FetchedFrom>,
    context: &Context,
) -> Result<NewImage> {
    let Some(from) = from else {
        return NewImage::create(path, options);
    };
    let new = NewImage::fetch(path, options, from)?;
    match new.begun() {
        Begun::New => {}
        Begun::Resumed => context.note(format_args!(
            "{}: continues an interrupted download: what is here already is checked, and the rest is fetched",
            shown(path)
        )),
        Begun::Afresh(why) => context.note(format_args!(
            "{}: an interrupted download can't be continued, because {why}: it begins afresh",
            shown(path)
        )),
    }
    Ok(new)
}

/// Fills the new image at `path`, and reports what is kept if that fails.
pub(super) fn fill(
    (path, new): (&Path, &mut NewImage),
    source: &dyn Image,
    options: CopyOptions<'_>,
    context: &Context,
) -> Result<Option<ContentDigest>> {
    let filled = new.fill(source, options);
    if let (Err(_), Some(kept)) = (&filled, new.kept()) {
        context.note(format_args!(
            "{}: what was fetched so far is kept in {}; the same command continues from there",
            shown(path),
            shown(kept)
        ));
    }
    filled
}
