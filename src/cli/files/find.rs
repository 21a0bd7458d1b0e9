//! `vhd files find`: names in an image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::list::{begin, end, item};
use super::place::{open, place};
use crate::cli::args::Parents;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::error::{Error, Result};
use crate::inside::NodeKind;
use crate::text::shown;

#[derive(Debug, clap::Args)]
pub(super) struct Find {
    /// Image, partition and path.
    what: OsString,
    /// Only names that match this pattern, with * and ? as wildcards.
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

pub(super) fn find(args: &Find, context: &Context) -> Result<Outcome> {
    let (named, image) = open(Path::new(&args.what), &args.parents, context)?;
    let place = place(&named, &*image)?;
    let mut output = Output::text()?;
    let mut list = begin(&mut output, &named, &place, args.json)?;
    let (mut found, mut damaged) = (false, false);
    let mut start = place.path.clone();
    while start.last() == Some(&b'/') {
        start.pop();
    }
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![(place.node.clone(), start)];
    while let Some((node, path)) = stack.pop() {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if !path.is_empty()
            && args
                .name
                .as_ref()
                .is_none_or(|pattern| is_like(name, pattern.as_bytes()))
        {
            found = true;
            match &mut list {
                Some(list) => list.item(&mut output, &item(&place.files, &node, &path))?,
                None => output.line(shown(OsStr::from_bytes(&path)))?,
            }
        }
        // A folder with two names would lead to an endless walk.
        if node.kind != NodeKind::Folder || !seen.insert(node.id) {
            continue;
        }
        let inside = place.files.list(&node).map(|entries| {
            let nodes = entries.into_iter().rev().map(|entry| {
                let path = [&path, &b"/"[..], &entry.name].concat();
                place.files.node(&entry).map(|node| (node, path))
            });
            nodes.collect::<Vec<_>>()
        });
        let inside = inside.unwrap_or_else(|error| vec![Err(error)]);
        for node in inside {
            match node {
                Ok(node) => stack.push(node),
                Err(error) => {
                    context.report(&error);
                    damaged = true;
                }
            }
        }
    }
    end(list, output)?;
    image.check_unchanged()?;
    if damaged {
        return Err(Error::damaged("some of the folders can't be read").with_path(&named.image));
    }
    Ok(if found { Outcome::Done } else { Outcome::No })
}

/// Returns whether a name matches a pattern with * and ?.
pub(super) fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    // Where to continue if the last star has to match more.
    let (mut n, mut p, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(n) => {
                n += 1;
                p += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    (p, n) = (at + 1, from + 1);
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (name, pattern, like) in [
            ("a.conf", "*.conf", true),
            ("a.conf", "?.conf", true),
            ("ab.conf", "?.conf", false),
            ("abcabc", "*abc", true),
            ("abcab", "*abc", false),
            ("", "*", true),
            ("x", "", false),
        ] {
            assert_eq!(
                is_like(name.as_bytes(), pattern.as_bytes()),
                like,
                "{name} {pattern}"
            );
        }
    }
}
