//! The backup of a partition table, which belongs at the end of a disk.

use std::path::Path;

use super::context::Context;
use crate::error::quoted;
use crate::files::{GptBackup, OpenOptions, ParentOptions, open_image, plan_gpt};
use crate::image::Image as _;
use crate::text::shown;

/// Reports if the backup of the GPT of the image at `path`, which was just created or changed, isn't at the end of its
/// disk.
pub(super) fn say_gpt_of(path: &Path, parents: ParentOptions, context: &Context) {
    let options = OpenOptions {
        parents,
        ..OpenOptions::default()
    };
    let looked = open_image(path, &options).and_then(|image| {
        let size = image.virtual_size();
        plan_gpt(&image, size, false).map(|(place, _)| (place, size))
    });
    match looked {
        Ok((Some(GptBackup::Elsewhere), size)) => context.note(gpt_remark(path, size, false)),
        Ok(_) => {}
        // The work is done: this only checks the result.
        Err(error) => context.detail(format_args!("{}: {error}", shown(path))),
    }
}

/// The message about the disk at `path`, of `size` bytes, if the backup of its GPT isn't at its end.
pub(super) fn gpt_remark(path: &Path, size: u64, would: bool) -> String {
    let (would, hint) = if would {
        ("would not be", ": --fix-gpt moves it there".to_owned())
    } else {
        let fix = format!("vhd resize {} --size {size} --fix-gpt", quoted(path));
        ("is not", format!("; to move it there: {fix}"))
    };
    format!(
        "{}: the backup of the partition table (GPT) {would} at the end of the disk{hint}",
        shown(path)
    )
}
