//! What an argument names: an image, a partition of it, and a path in that.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::cli::args::{Parents, SaidFormat};
use crate::cli::context::{Context, Reading};
use crate::cli::names;
use crate::cli::role::Role;
use crate::error::{Error, Result, quoted};
use crate::files::Opened;
use crate::inside::{Contents, Files, Node, Partition, contents, partitions};
use crate::text::shown;

/// An image, a partition and a path in it, as specified by the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) image: PathBuf,
    pub(super) partition: Option<u32>,
    /// `None` if only the image is given.
    pub(super) path: Option<Vec<u8>>,
}

impl Named {
    /// Splits `what`: the image is the longest prefix for which `is_image` holds.
    fn parse(what: &Path, is_image: impl Fn(&Path) -> bool) -> Self {
        let bytes = what.as_os_str().as_bytes();
        // The path begins with the slash after the image; for a store, with the slash after the name of the disk.
        let point = bytes.windows(2).position(|two| two == b"::");
        let whole = std::iter::once(bytes.len());
        let slashes = bytes
            .iter()
            .enumerate()
            .filter(|(at, byte)| **byte == b'/' && point.is_none_or(|p| *at > p + 1));
        let cuts = slashes.map(|(at, _)| at).chain(whole);
        let cuts: Vec<usize> = if point.is_some() {
            cuts.collect()
        } else {
            cuts.collect::<Vec<_>>().into_iter().rev().collect()
        };
        for cut in cuts {
            let (image, path) = bytes.split_at(cut);
            let path = (!path.is_empty()).then(|| path.to_vec());
            let (stem, partition) = numbered(image, point.map_or(0, |point| point + 2));
            for (image, partition) in [(image, None), (stem, partition)] {
                if point.is_some()
                    && partition.is_none()
                    && numbered(image, point.map_or(0, |p| p + 2)).1.is_some()
                {
                    continue;
                }
                let image = PathBuf::from(OsStr::from_bytes(image));
                if point.is_some() || is_image(&image) {
                    return Self {
                        image,
                        partition,
                        path,
                    };
                }
            }
        }
        Self {
            image: what.to_path_buf(),
            partition: None,
            path: None,
        }
    }
}

/// Splits `disk.vhd:2` into `disk.vhd` and 2, if the colon is after `from`.
pub(super) fn numbered(image: &[u8], from: usize) -> (&[u8], Option<u32>) {
    let colon = image
        .iter()
        .rposition(|byte| *byte == b':')
        .filter(|at| *at >= from);
    let parts = colon.map(|at| image.split_at(at));
    let number =
        parts.and_then(|(_, number)| std::str::from_utf8(number.get(1..)?).ok()?.parse().ok());
    match (parts, number) {
        (Some((stem, _)), Some(number)) => (stem, Some(number)),
        _ => (image, None),
    }
}

pub(super) fn open(
    what: &Path,
    parents: &Parents,
    context: &Context,
) -> Result<(Named, Box<dyn Opened>)> {
    let is_image = |path: &Path| std::fs::metadata(path).is_ok_and(|found| !found.is_dir());
    let named = Named::parse(what, is_image);
    names::admit(Role::Image, &named.image)?;
    let image =
        context.open_source(&named.image, SaidFormat::NEVER, parents, Reading::default())?;
    Ok((named, image))
}

/// A path that was found.
pub(super) struct Place<'a> {
    pub(super) partition: Partition,
    pub(super) files: Files<'a>,
    pub(super) node: Node,
    pub(super) path: Vec<u8>,
}

/// Finds a path in the only partition that has it.
pub(super) fn place<'a>(named: &Named, image: &'a dyn Opened) -> Result<Place<'a>> {
    let path = named.path.clone().unwrap_or_else(|| b"/".to_vec());
    let table = partitions(image)?;
    let mut found = Vec::new();
    let mut unread = Vec::new();
    let wanted = |partition: &&Partition| {
        named
            .partition
            .is_none_or(|number| number == partition.number)
    };
    for partition in table.partitions.iter().filter(wanted) {
        match contents(image, partition)? {
            Contents::Files(files) => {
                if let Some(node) = files.find(&path)? {
                    found.push(Place {
                        partition: partition.clone(),
                        files,
                        node,
                        path: path.clone(),
                    });
                }
            }
            Contents::NotRead(what) => unread.push(format!(
                "partition {} is {what}, which is not read",
                partition.number
            )),
            Contents::Damaged(what, error) => {
                unread.push(format!(
                    "partition {} is {what}, damaged: {error}",
                    partition.number
                ));
            }
        }
    }
    let numbers: Vec<String> = found
        .iter()
        .map(|place| place.partition.number.to_string())
        .collect();
    let list = format!("vhd files ls {}", quoted(&named.image));
    match (found.pop(), numbers.len()) {
        (Some(place), 1) => Ok(place),
        (Some(_), _) => Err(Error::usage("the path is in several partitions")
            .with_path(&named.image)
            .with_found(format_args!(
                "{} in partitions {}",
                shown(OsStr::from_bytes(&path)),
                numbers.join(", ")
            ))
            .with_hint(format!(
                "name one, as in IMAGE:{}/PATH; {list} lists them",
                numbers.first().map_or("1", |n| n)
            ))),
        (None, _) => {
            let error = match (unread.is_empty(), named.partition) {
                (true, Some(number))
                    if !table.partitions.iter().any(|own| own.number == number) =>
                {
                    Error::usage(format!("there is no partition {number}"))
                }
                (true, _) => Error::usage("there is no such file or folder in the image"),
                (false, _) => {
                    Error::unsupported(format!("the path was not found; {}", unread.join("; ")))
                }
            };
            Err(error
                .with_path(&named.image)
                .with_found(shown(OsStr::from_bytes(&path)))
                .with_hint(format!("{list} lists the partitions")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let is_image = |path: &Path| {
            ["a/disk.vhd", "odd:3"]
                .iter()
                .any(|known| path.as_os_str() == *known)
        };
        for (what, image, partition, path) in [
            ("a/disk.vhd", "a/disk.vhd", None, None),
            ("a/disk.vhd/", "a/disk.vhd", None, Some("/")),
            ("a/disk.vhd:2", "a/disk.vhd", Some(2), None),
            (
                "a/disk.vhd:2/etc/a:1/x",
                "a/disk.vhd",
                Some(2),
                Some("/etc/a:1/x"),
            ),
            ("odd:3/x", "odd:3", None, Some("/x")),
            ("odd:3:1/x", "odd:3", Some(1), Some("/x")),
            ("/s/t::web@tue", "/s/t::web@tue", None, None),
            (
                "/s/t::web@tue/etc/b:1",
                "/s/t::web@tue",
                None,
                Some("/etc/b:1"),
            ),
            (
                "/s/t::web@tue:2/etc",
                "/s/t::web@tue",
                Some(2),
                Some("/etc"),
            ),
            ("::web@tue:2", "::web@tue", Some(2), None),
            ("missing/etc", "missing/etc", None, None),
        ] {
            let named = Named::parse(Path::new(what), is_image);
            assert_eq!(named.image, Path::new(image), "{what}");
            assert_eq!(named.partition, partition, "{what}");
            assert_eq!(named.path.as_deref(), path.map(str::as_bytes), "{what}");
        }
    }
}
