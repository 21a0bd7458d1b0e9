//! Finds the points in time that one store has and another lacks.

use super::{FarPoint, Time};
use crate::error::{Error, Result};
use crate::files::PointNote;
use std::path::Path;

/// A point in time of the source.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Its metadata.
    pub(super) note: PointNote,
    /// Its name in the target.
    pub(super) name: String,
    pub(super) time: Option<Time>,
}

/// The points in time to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// The index in the source of the first one to copy.
    pub(super) begin: usize,
    /// Whether the one before that is the newest in the target, so that only the changes since then are needed.
    pub(super) follows: bool,
}

/// Returns the points in time of `source` after the newest one in `there`, those of the target called `path`.
///
/// # Errors
///
/// [`Mismatch`](crate::ErrorKind::Mismatch) if the two don't share a history.
pub(super) fn missing(
    source: &[Known],
    (there, path, disk): (&[FarPoint], &Path, &str),
) -> Result<Missing> {
    let Some(newest) = there.last() else {
        return Ok(Missing {
            begin: 0,
            follows: false,
        });
    };
    if let Some(at) = source.iter().rposition(|known| is_same(known, newest)) {
        if let (Some(found), Some(expected)) = (newest.digest(), source[at].note.digest)
            && found != expected
        {
            return Err(
                Error::mismatch("the histories of the two disks have diverged")
                    .with_path(path)
                    .with_field("content digest")
                    .with_found(format_args!("{found} of {disk}@{}", newest.name))
                    .with_expected(format_args!("{expected}, as in the source"))
                    .with_hint("copy to another store"),
            );
        }
        return Ok(Missing {
            begin: at + 1,
            follows: true,
        });
    }
    // It was deleted from the source since; later ones can still follow.
    let later = |known: &Known| matches!((known.time, newest.time), (Some(k), Some(n)) if k > n);
    let of_disk = |known: &Known| {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        same(&known.note.disk_id, &newest.note.disk_id)
            || same(&known.note.unique, &newest.note.unique)
            || there.iter().any(|point| is_same(known, point))
    };
    let begin = source.iter().position(later);
    match begin {
        Some(begin) if source.iter().any(of_disk) => Ok(Missing {
            begin,
            follows: false,
        }),
        _ => Err(
            Error::mismatch("the source doesn't have the newest snapshot of the target")
                .with_path(path)
                .with_found(format_args!("{disk}@{}", newest.name))
                .with_expected(match source.last() {
                    Some(last) => {
                        format!("one of the source's, of which {} is the newest", last.name)
                    }
                    None => "one of the source's, but it has none".to_owned(),
                })
                .with_hint("copy to another store, or from the one that it came from"),
        ),
    }
}

/// Fails if a point in time of the target has the name of one that is `coming`: it was renamed at one end, or made anew
/// under an old name. Names are all that people have to choose by.
pub(super) fn refuse_taken_names<'a>(
    coming: impl IntoIterator<Item = &'a Known>,
    (there, path, disk): (&[FarPoint], &Path, &str),
) -> Result<()> {
    for known in coming {
        if there.iter().any(|point| point.name == known.name) {
            return Err(Error::mismatch(
                "another snapshot of the target has the name of one that would be copied",
            )
            .with_path(path)
            .with_found(format_args!("{disk}@{}", known.name))
            .with_hint("give that one another name in the source, and copy again"));
        }
    }
    Ok(())
}

/// Returns whether both are the same point in time: by their ids, or by their names if nothing contradicts that. A copy that
/// went through a folder has another id, but the same name and content.
fn is_same(known: &Known, point: &FarPoint) -> bool {
    let named = known.name == point.name;
    let digests = known.note.digest.zip(point.digest());
    match known.note.id.as_ref().zip(point.note.id.as_ref()) {
        Some((here, there)) if here == there => true,
        Some(_) => named && digests.is_some_and(|(here, there)| here == there),
        None => named && digests.is_none_or(|(here, there)| here == there),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::image::ContentDigest;

    fn note(name: &str, id: Option<&str>, digest: u8) -> PointNote {
        PointNote {
            name: Some(name.into()),
            id: id.map(str::to_owned),
            disk_id: id.map(|_| "disk".to_owned()),
            digest: Some(ContentDigest([digest; 32])),
            ..PointNote::default()
        }
    }

    fn known(name: &str, id: Option<&str>, digest: u8) -> Known {
        Known {
            note: note(name, id, digest),
            name: name.into(),
            time: Some(Time::from_unix(digest.into())),
        }
    }

    fn there(name: &str, id: Option<&str>, digest: u8) -> FarPoint {
        FarPoint {
            name: name.into(),
            key: name.into(),
            time: Some(Time::from_unix(digest.into())),
            size: 512,
            note: note(name, id, digest),
            is_complete: true,
        }
    }

    #[test]
    fn copies_go_on_after_the_newest_and_past_what_was_deleted() {
        let source = [
            known("a", Some("1"), 1),
            known("b", Some("2"), 2),
            known("c", Some("3"), 3),
        ];
        let path = Path::new("x");
        let find = |source: &[Known], there: &[FarPoint]| missing(source, (there, path, "web"));
        let is = |begin, follows| Missing { begin, follows };
        assert_eq!(find(&source, &[]).unwrap(), is(0, false));
        assert_eq!(
            find(&source, &[there("a", Some("1"), 1)]).unwrap(),
            is(1, true)
        );
        assert_eq!(
            find(&source, &[there("c", Some("3"), 3)]).unwrap(),
            is(3, true)
        );
        // By name, if one of the two has no id.
        assert_eq!(find(&source, &[there("b", None, 2)]).unwrap(), is(2, true));
        // Through a folder, it got another id.
        assert_eq!(
            find(&source, &[there("b", Some("9"), 2)]).unwrap(),
            is(2, true)
        );
        // The source has deleted b.
        let less = [source[0].clone(), source[2].clone()];
        assert_eq!(
            find(&less, &[there("b", Some("2"), 2)]).unwrap(),
            is(1, false)
        );
        // Another disk, another content, nothing that is newer.
        for other in [
            there("b", Some("9"), 8),
            there("a", Some("1"), 9),
            there("d", None, 4),
        ] {
            let other = FarPoint {
                note: PointNote {
                    disk_id: None,
                    ..other.note.clone()
                },
                ..other
            };
            let error = find(&source, &[other]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
        }
    }
}
