//! The state of an image in the metadata of its page blob.
//!
//! ```text
//! vhdkit_state        writing | applying    only while the image is incomplete
//! vhdkit_checkpoint   time                  applying: the snapshot that holds the old point in time
//! vhdkit_own          1                     applying: that snapshot was taken only for this
//! vhdkit_diffs        BLAKE3                applying: of the identities of the diffs
//! vhdkit_target       content digest        applying: of the future image, if that was computed
//! vhdkit_role         checkpoint            of a snapshot that was taken only for an apply
//! vhdkit_digest       content digest        of the image when this program last wrote to the blob
//! vhdkit_name         text                  the name of a point in time, of a snapshot
//! vhdkit_changed_tags text                  tags of snapshots that were changed later
//! vhdkit_copy         text                  applying: no diffs, but a point in time is added, whose snapshot has the same
//!                                           value, or one is deleted
//! ```
//!
//! Metadata of other programs is kept. Any program can write to a blob without changing this metadata, so the digest of a blob
//! may be out of date. A snapshot can't be written to, and gets its digest when it is taken, while nobody else can write.

use std::path::Path;

use crate::blob::{BlobFile, BlobId, Metadata, Properties};
use crate::diff::Chain;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ContentDigest, Hash};
use crate::remedy::{Choice, Remedy, Step, Tool};
use crate::storage::ReadAt as _;

/// The metadata that names the content digest of the virtual disk.
pub(super) const NOTED_DIGEST: &str = "vhdkit_digest";

/// The metadata that names a point in time.
pub(super) const NAME: &str = "vhdkit_name";

/// Prefix of all our metadata.
const OURS: &str = "vhdkit_";

const STATE: &str = "vhdkit_state";
const WRITING: &str = "writing";
const APPLYING: &str = "applying";
const CHECKPOINT: &str = "vhdkit_checkpoint";
const OWN: &str = "vhdkit_own";
const DIFFS: &str = "vhdkit_diffs";
const TARGET: &str = "vhdkit_target";
const ROLE: &str = "vhdkit_role";

/// The metadata of a blob with tags of its snapshots.
pub(super) const CHANGED_TAGS: &str = "vhdkit_changed_tags";

/// The metadata that tells the change in which a snapshot was taken.
pub(super) const COPY: &str = "vhdkit_copy";

/// The state in a blob's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// A new image is being written.
    Writing,
    /// Diffs are being applied to the image.
    Applying(Applying),
    /// A state that this program doesn't know.
    Unknown(String),
}

/// An apply that has begun and hasn't ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applying {
    /// The time of the snapshot with the earlier content of the blob.
    pub(super) checkpoint: String,
    /// Whether that snapshot was taken for this apply, and is deleted at its end.
    pub(super) own: bool,
    /// Identifies the diffs.
    pub(super) diffs: ContentDigest,
    /// The content digest of the result, if that was computed.
    pub(super) target: Option<ContentDigest>,
    /// The change, if it isn't one that applies diffs.
    pub(super) copy: Option<String>,
}

impl Mark {
    /// The mark among `metadata`, if there is one.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let state = metadata.get(STATE)?;
        Some(match state.as_str() {
            WRITING => Self::Writing,
            APPLYING => {
                Applying::of(metadata).map_or_else(|| Self::Unknown(state.clone()), Self::Applying)
            }
            _ => Self::Unknown(state.clone()),
        })
    }
}

impl Applying {
    fn of(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            checkpoint: metadata.get(CHECKPOINT)?.clone(),
            own: metadata.get(OWN).is_some_and(|own| own == "1"),
            diffs: metadata.get(DIFFS)?.parse().ok()?,
            target: match metadata.get(TARGET) {
                Some(target) => Some(target.parse().ok()?),
                None => None,
            },
            copy: metadata.get(COPY).cloned(),
        })
    }

    /// Returns how many of the last diffs of `chain` the mark is for, if it is for those.
    pub(super) fn was_of(&self, chain: &Chain) -> Option<usize> {
        let all = chain.identities();
        (1..=all.len()).find(|n| all.get(all.len() - n..).map(identity) == Some(self.diffs))
    }
}

/// One name for several diffs.
pub(super) fn identity(diffs: &[Hash]) -> ContentDigest {
    let mut hasher = blake3::Hasher::new();
    for diff in diffs {
        hasher.update(diff);
    }
    ContentDigest(*hasher.finalize().as_bytes())
}

/// The metadata of a blob while a new image is written to it.
pub(super) fn writing() -> Metadata {
    Metadata::from([(STATE.to_owned(), WRITING.to_owned())])
}

/// The metadata that any operation on the blob keeps: that of other programs, and that about snapshots.
pub(super) fn of_others(metadata: &Metadata) -> Metadata {
    let stays = |name: &str| !name.starts_with(OURS) || name == CHANGED_TAGS;
    let theirs = metadata.iter().filter(|(name, _)| stays(name));
    theirs
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The metadata of a blob while diffs are applied.
pub(super) fn applying(before: &Metadata, mark: &Applying) -> Metadata {
    let mut metadata = of_others(before);
    let own = if mark.own { "1" } else { "0" };
    metadata.extend(
        [
            (STATE, APPLYING.to_owned()),
            (CHECKPOINT, mark.checkpoint.clone()),
            (OWN, own.to_owned()),
            (DIFFS, mark.diffs.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(target) = mark.target {
        metadata.insert(TARGET.to_owned(), target.to_string());
    }
    if let Some(copy) = &mark.copy {
        metadata.insert(COPY.to_owned(), copy.clone());
    }
    metadata
}

/// The change that marks a blob, if a point in time is being added to it.
pub(super) fn copy_of(metadata: &Metadata) -> Option<&String> {
    metadata.get(COPY).filter(|_| metadata.contains_key(STATE))
}

/// The metadata of a blob while its first point in time is written.
pub(super) fn writing_first(copy: &str) -> Metadata {
    let mut metadata = writing();
    metadata.insert(COPY.to_owned(), copy.to_owned());
    metadata
}

/// Whether a snapshot was taken only to go back to.
pub(super) fn is_checkpoint(metadata: &Metadata) -> bool {
    metadata.get(ROLE).is_some_and(|role| role == "checkpoint")
}

/// The metadata of a checkpoint, with the digest of the disk if that is known.
pub(super) fn checkpoint(before: &Metadata, digest: Option<ContentDigest>) -> Metadata {
    let mut metadata = whole(before, digest);
    metadata.insert(ROLE.to_owned(), "checkpoint".to_owned());
    metadata
}

/// The metadata of a complete blob, with the digest of the disk if that is known.
pub(super) fn whole(before: &Metadata, digest: Option<ContentDigest>) -> Metadata {
    let mut metadata = of_others(before);
    if let Some(digest) = digest {
        metadata.insert(NOTED_DIGEST.to_owned(), digest.to_string());
    }
    metadata
}

/// The digest in the metadata of a snapshot. That of a blob isn't reliable, since it may have been written to.
pub(super) fn digest_of(blob: &BlobId, properties: &Properties) -> Option<ContentDigest> {
    blob.snapshot.as_ref()?;
    if properties.metadata.contains_key(STATE) {
        return None;
    }
    properties.metadata.get(NOTED_DIGEST)?.parse().ok()
}

/// An error if a program is writing the blob, or was interrupted.
pub(super) fn refuse_unfinished(blob: &BlobFile) -> Result<()> {
    refuse_marked(blob.name(), blob.properties())
}

/// Like [`refuse_unfinished`], from the known properties of the blob called `name`.
pub(super) fn refuse_marked(name: &Path, properties: &Properties) -> Result<()> {
    let Some(mark) = Mark::of(&properties.metadata) else {
        return Ok(());
    };
    let what = match &mark {
        Mark::Writing => "the blob isn't complete: the program that writes it hasn't finished",
        Mark::Applying(mark) if mark.copy.is_some() => {
            "the blob is between two points in time: a change of its snapshots hasn't finished"
        }
        Mark::Applying(_) => {
            "the blob is between two points in time: an apply to it hasn't finished"
        }
        Mark::Unknown(_) => {
            "the blob isn't complete, and what was being done to it isn't known here"
        }
    };
    let way = match &mark {
        Mark::Writing => Remedy::new("run the command that wrote it again, which continues; or ")
            .named("use ")
            .step(Step::Choose(Choice::Overwrite), "allow it")
            .text(" to replace the blob"),
        Mark::Applying(mark) if mark.copy.is_some() => how_to_go_on_copying(name),
        Mark::Applying(_) => how_to_go_on(name),
        Mark::Unknown(_) => Remedy::new(
            "finish that with the program that began it, or restore a snapshot of the blob",
        ),
    };
    let remedy = if properties.leased {
        Remedy::new("another program may be writing it right now: wait until that ends; otherwise ")
            .then(way)
    } else {
        way
    };
    let error = Error::new(ErrorKind::Pending, what)
        .with_path(name)
        .with_remedy(remedy);
    Err(match mark {
        Mark::Unknown(state) => error.with_field(STATE).with_found(state),
        Mark::Applying(mark) => error.with_found(format_args!(
            "the snapshot {}, which holds the old one",
            mark.checkpoint
        )),
        Mark::Writing => error,
    })
}

/// The two ways to proceed with a blob that is between two points in time.
pub(super) fn how_to_go_on(name: &Path) -> Remedy {
    Remedy::new("run the same ")
        .step(Step::Use(Tool::Apply), "apply")
        .text(" again to finish it, or undo it")
        .named(" with: ")
        .step(roll_back(name), "")
}

/// Describes how to proceed with a blob to which a point in time is being added.
pub(super) fn how_to_go_on_copying(name: &Path) -> Remedy {
    Remedy::new("run the same command again, which continues, or undo it")
        .named(" with: ")
        .step(roll_back(name), "")
}

/// Going back to the old point in time.
pub(super) fn roll_back(name: &Path) -> Step {
    Step::RollBack {
        image: name.to_path_buf(),
        journal_folder: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_as_it_was_written_and_keeps_what_others_wrote() {
        let theirs = Metadata::from([("owner".into(), "me".into())]);
        let mark = Applying {
            checkpoint: "2026-11-28T10:00:00.0000000Z".into(),
            own: true,
            diffs: ContentDigest([7; 32]),
            target: Some(ContentDigest([8; 32])),
            copy: None,
        };
        let marked = applying(&theirs, &mark);
        assert_eq!(Mark::of(&marked), Some(Mark::Applying(mark)));
        assert_eq!(whole(&marked, None), theirs);
        assert_eq!(Mark::of(&writing()), Some(Mark::Writing));
        assert_eq!(Mark::of(&theirs), None);
        // An unknown state is never taken for a complete image.
        for name in [CHECKPOINT, DIFFS] {
            let mut less = marked.clone();
            less.remove(name);
            assert_eq!(Mark::of(&less), Some(Mark::Unknown(APPLYING.into())));
        }
        let odd = Metadata::from([(STATE.into(), "melting".into())]);
        assert_eq!(Mark::of(&odd), Some(Mark::Unknown("melting".into())));
    }

    #[test]
    fn only_a_snapshot_says_for_certain_what_it_holds() {
        let digest = ContentDigest([3; 32]);
        let mut properties = Properties {
            size: 512,
            etag: String::new(),
            last_modified: None,
            kind: crate::blob::BlobKind::Page,
            sequence: 0,
            leased: false,
            metadata: whole(&Metadata::new(), Some(digest)),
        };
        let live = BlobId::live("b");
        assert_eq!(digest_of(&live, &properties), None);
        assert_eq!(digest_of(&live.at("t"), &properties), Some(digest));
        properties.metadata.extend(writing());
        assert_eq!(digest_of(&live.at("t"), &properties), None);
    }
}
