//! New managed disks from images: `vhd convert IMAGE azure:GROUP/NAME`, and restoring to one.

use std::cell::Cell;
use std::path::Path;

use super::args::OutputFormat;
use super::cloud;
use super::context::Context;
use super::convert::{Args, open_source, print_json, verify, whole_mebibytes};
use super::exit::Outcome;
use super::size::{self, Size};
use crate::cloud::GroupName;
use crate::error::{Error, Result};
use crate::files::{Format, NewManagedDisk, Opened, plan_gpt, upload_disk};
use crate::image::{ContentDigest, CopyOptions, Resized, content_digest, copy};
use crate::parallel::Work;
use crate::text::shown;
use crate::vhd::{DiskType, Footer};

/// Returns whether the destination is a managed disk.
pub(super) fn is_wanted(args: &Args) -> bool {
    cloud::is_name(&args.destination)
}

/// How to create a managed disk from an image.
pub(super) struct Upload<'a> {
    /// Its name.
    pub(super) output: &'a Path,
    /// What is done, for a progress bar.
    pub(super) doing: &'a str,
    pub(super) fix_gpt: bool,
    /// Whether to read it back.
    pub(super) verify: bool,
}

/// Creates a managed disk from the source of a conversion.
pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    refuse(
        &args.destination,
        args.output_format,
        &[
            ("--dense", args.dense),
            ("--force", args.force > 0),
            ("--block-size", args.block_size.is_some()),
        ],
    )?;
    size::block(args.block_size, Format::Fixed)?;
    let source = open_source(args, context)?;
    let upload = Upload {
        output: &args.destination,
        doing: "uploading",
        fix_gpt: args.fix_gpt,
        verify: args.verify,
    };
    let size = upload.run(&*source, |_| Ok(()), context)?;
    context.note(format_args!(
        "{}: a managed disk, virtual size {}",
        shown(&args.destination),
        Size(size)
    ));
    print_json(args, (Format::Fixed, size), &*source, None)?;
    Ok(Outcome::Done)
}

/// Fails for what a managed disk can't have.
pub(super) fn refuse(
    output: &Path,
    format: Option<OutputFormat>,
    given: &[(&str, bool)],
) -> Result<()> {
    let format = format.filter(|format| *format != OutputFormat::Fixed);
    let format = format.map(|format| format!("-O {}", Format::from(format)));
    let option = given
        .iter()
        .find(|(_, given)| *given)
        .map(|(option, _)| (*option).to_owned());
    match option.or(format) {
        Some(option) => Err(Error::usage("a managed disk isn't created in this way")
            .with_path(output)
            .with_found(&option)
            .with_hint(format!("omit {}", option.split(' ').next().unwrap_or("it")))),
        None => Ok(()),
    }
}

impl Upload<'_> {
    /// Creates the disk, and returns its size. The digest of what was read is passed to `check` before the disk counts.
    pub(super) fn run(
        &self,
        source: &dyn Opened,
        check: impl Fn(ContentDigest) -> Result<()>,
        context: &Context,
    ) -> Result<u64> {
        let name = cloud::name(self.output)?;
        let cloud = cloud::cloud()?;
        let group = match name.subscription() {
            Some(id) => format!("/subscriptions/{id}/resourceGroups/{}", name.group()),
            None => format!("azure:{}", name.group()),
        };
        let group = cloud::group(&cloud, &GroupName::parse(&group)?, None)?;
        let read = source.virtual_size();
        let size = whole_mebibytes(read)?;
        let (_, gpt) =
            plan_gpt(source, size, self.fix_gpt).map_err(|error| error.with_path(source.path()))?;
        let identity = source.footer().cloned().map(Footer::measured_by_size);
        let footer = Footer::for_disk(DiskType::Fixed, size, identity.as_ref());
        let new = NewManagedDisk {
            name: &name,
            region: &group.location,
            virtual_size: size,
            footer: &footer,
        };
        let workers = context.workers_far()?;
        let found = Cell::new(None);
        let moved = gpt.is_some();
        let made = upload_disk(
            &cloud,
            new,
            |image| {
                let progress = context.progress();
                progress.begin(self.doing, read);
                let options = CopyOptions {
                    work: Work::new(&workers, &*progress),
                    digest: true,
                };
                let digest = copy(source, image, options)?;
                source.check_unchanged()?;
                if let Some(digest) = digest {
                    check(digest)?;
                }
                found.set(digest);
                gpt.map_or(Ok(()), |gpt| gpt.write(image))
            },
            |written| {
                let Some(digest) = found.get().filter(|_| self.verify && !moved) else {
                    return Ok(());
                };
                let progress = context.progress();
                progress.begin("verifying", read);
                let written = content_digest(&Resized::new(&written, read), &workers, &*progress)?;
                verify(self.output, digest, written)
            },
        )?;
        if size > read {
            context.note(format_args!(
                "{} of zeros were added at the end to make whole MiB",
                Size(size - read)
            ));
        }
        context.detail(format_args!("{} in {}", made.id, made.location));
        Ok(size)
    }
}
