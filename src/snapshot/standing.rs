//! Where a receiver stands: which snapshot is its newest, for the sender to continue from there.
//!
//! ```text
//! point:ID:DIGEST          a line of text: the newest snapshot. point:none: there is none yet
//!
//! "vhdkit status 1\n"      16 bytes: the same with the window hashes, so that a sender that doesn't have the snapshot
//! length of the manifest    8 bytes, big-endian; 0 if there is no snapshot, and then the end
//! manifest
//! window hashes            as in newest.windows
//! ```

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::manifest::LONGEST;
use super::plain::is_absent;
use super::{Disk, Manifest, PointImage, Work, check_disk_name, disks, open_beside, windows};
use crate::error::{Error, Result};
use crate::image::{
    ContentDigest, DIGEST_WINDOW, Image as _, WindowList, WindowListWriter, window_hashes,
};
use crate::remedy::{Remedy, SnapshotJob, Step};
use crate::storage::{File, spool_beside};

/// The first bytes of what [`write_standing`] writes.
const STANDING_MAGIC: &[u8; 16] = b"vhdkit status 1\n";

/// The length of a list of window hashes without its windows, and that of each.
const LIST_ENDS: u64 = 56;
const LISTED: u64 = 40;

/// What identifies the newest snapshot of a disk, wherever it is: `point:ID:DIGEST`, or `point:none`. No name of a
/// snapshot looks like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The disk has no snapshot, or there is no such disk.
    Nothing,
    /// Its newest snapshot.
    At {
        /// The id of the snapshot.
        id: String,
        /// Its content digest.
        content_digest: ContentDigest,
    },
}

impl Standing {
    /// The beginning of its text.
    pub const PREFIX: &'static str = "point:";

    /// That of a disk with this newest snapshot.
    pub fn of(newest: Option<&Manifest>) -> Self {
        newest.map_or(Self::Nothing, |newest| Self::At {
            id: newest.id.clone(),
            content_digest: newest.content_digest,
        })
    }

    /// That of the disk `name` of the store at `store`, which need not have it, and the name of its newest snapshot.
    pub fn find(store: &Path, name: &str) -> Result<(Self, Option<String>)> {
        let disk = look(store, name)?;
        let newest = disk.as_ref().map(newest).transpose()?.flatten();
        Ok((Self::of(newest), newest.map(|newest| newest.name.clone())))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "{}none", Self::PREFIX),
            Self::At { id, content_digest } => write!(f, "{}{id}:{content_digest}", Self::PREFIX),
        }
    }
}

impl FromStr for Standing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let point = text.strip_prefix(Self::PREFIX)?;
            if point == "none" {
                return Some(Self::Nothing);
            }
            let (id, digest) = point.split_once(':')?;
            let is_id = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            let content_digest = digest.parse().ok().filter(|_| is_id)?;
            let id = id.to_owned();
            Some(Self::At { id, content_digest })
        };
        parsed().ok_or_else(|| {
            Error::usage("this doesn't identify a snapshot")
                .with_found(text)
                .with_expected("point:ID:DIGEST, or point:none")
                .with_remedy(
                    Remedy::new("use the line that ")
                        .step(asked(false), "asking the receiver where it stands")
                        .text(" prints at the receiver"),
                )
        })
    }
}

/// The disk, as it is at one moment; `None` if the store doesn't have it.
fn look(store: &Path, name: &str) -> Result<Option<Disk>> {
    check_disk_name(name)?;
    disks(store)?;
    match Disk::look(store, name) {
        // The first copy may be creating it, or removing it again.
        Err(_) if is_absent(&store.join(name)) => Ok(None),
        looked => looked.map(Some),
    }
}

/// The newest snapshot. If a manifest can't be read, it isn't known which that is.
fn newest(disk: &Disk) -> Result<Option<&Manifest>> {
    match disk.damaged().first() {
        None => Ok(disk.newest()),
        Some(error) => Err(Error::damaged("a manifest of this disk can't be read")
            .with_path(error.path().unwrap_or(disk.folder()))
            .with_source(error.to_string())
            .with_remedy(super::remedies::lists("what is damaged"))),
    }
}

/// The window hashes of a snapshot: as stored, or what they are computed of.
enum Hashes {
    Stored(File),
    Unknown(Box<PointImage>),
}

/// Writes which snapshot is the newest of the disk `name` of the store at `store`, with its window hashes, to `out`,
/// called `out_name` in messages. Nothing is changed.
///
/// # Errors
///
/// [`Damaged`](crate::ErrorKind::Damaged) if the snapshot isn't what its manifest says, where the hashes have to be
/// computed.
pub fn write_standing<W: Write>(
    (store, name): (&Path, &str),
    (mut out, out_name): (W, &Path),
    work: Work<'_>,
) -> Result<Standing> {
    let failed = |error| Error::io("cannot write", error).with_path(out_name);
    let found = match look(store, name)? {
        None => None,
        Some(_) => Some(open_beside(store, name, opened)?),
    };
    let mut head = STANDING_MAGIC.to_vec();
    // The disk is kept: it may have the lock.
    let Some((_disk, Some((point, hashes)))) = found else {
        head.extend([0; 8]);
        out.write_all(&head)
            .and_then(|()| out.flush())
            .map_err(failed)?;
        return Ok(Standing::Nothing);
    };
    let manifest = point.encode()?;
    head.extend((manifest.len() as u64).to_be_bytes());
    head.extend(manifest);
    out.write_all(&head).map_err(failed)?;
    match hashes {
        Hashes::Stored(file) => {
            io::copy(&mut file.reader(), &mut out).map_err(failed)?;
            out.flush().map_err(failed)?;
        }
        Hashes::Unknown(image) => {
            let size = image.virtual_size();
            work.progress.begin("hashing the newest snapshot", size);
            let mut writer = WindowListWriter::new(&mut out, out_name, size)?;
            window_hashes(&*image, work.workers, work.progress, |at, hashes| {
                writer.push(at, hashes)
            })?;
            super::check_content(&image, writer.finish()?)?;
        }
    }
    Ok(Standing::of(Some(&point)))
}

fn opened(disk: &mut Disk) -> Result<(Option<(Manifest, Hashes)>, bool)> {
    let Some(point) = newest(disk)?.cloned() else {
        return Ok((None, true));
    };
    if let Some(list) = windows::stored(disk)?
        && list.digest() == point.content_digest
    {
        let file = list.into_storage();
        return Ok((Some((point, Hashes::Stored(file))), true));
    }
    let mut image = disk.image(&point)?;
    let held = image.hold_files()?;
    Ok((Some((point, Hashes::Unknown(Box::new(image)))), held))
}

fn asked(windows: bool) -> Step {
    Step::Snapshot {
        job: SnapshotJob::Status { windows },
        of: None,
    }
}

fn use_that() -> Remedy {
    Remedy::new("use what ")
        .step(asked(true), "asking the receiver where it stands")
        .text(" writes at the receiver; if it was cut off, its messages say why")
}

/// Where a receiver stands, with the window hashes of its newest snapshot.
#[derive(Debug)]
pub struct ReceiverState {
    pub(super) newest: Option<(Manifest, WindowList<File>)>,
    /// What it is called in messages.
    pub(super) name: PathBuf,
    /// The folder for files without names.
    pub(super) scratch: PathBuf,
}

impl ReceiverState {
    /// Reads what [`write_standing`] wrote, called `name` in messages. The window hashes, and later a diff, are kept in
    /// files without names in the folder `scratch`.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::ErrorKind::Damaged) if it isn't that, or isn't complete.
    pub fn read<R: Read>((mut input, name): (R, &Path), scratch: &Path) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(what.to_owned()).with_path(name);
        let mut fill = |bytes: &mut [u8]| match input.read_exact(bytes) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(damaged(
                "this is not the state of a receiver, or it was cut off",
            )
            .with_remedy(use_that())),
            read => read.map_err(|e| Error::io("cannot read", e).with_path(name)),
        };
        let (mut magic, mut len) = ([0; 16], [0; 8]);
        fill(&mut magic)?;
        if magic != *STANDING_MAGIC {
            return Err(damaged("this is not the state of a receiver")
                .with_found(format_args!("\"{}\"", magic.escape_ascii()))
                .with_expected(format_args!("\"{}\"", STANDING_MAGIC.escape_ascii()))
                .with_remedy(use_that()));
        }
        fill(&mut len)?;
        let len = u64::from_be_bytes(len);
        if len > LONGEST {
            return Err(
                damaged("the state of the receiver has an impossible length")
                    .with_offset(16)
                    .with_found(len)
                    .with_expected(format_args!("at most {LONGEST}")),
            );
        }
        if len == 0 {
            return match fill(&mut [0]) {
                Ok(()) => Err(damaged("there is data after the end").with_offset(24)),
                Err(_) => Ok(Self::new(None, name, scratch)),
            };
        }
        let mut manifest = vec![0; crate::page::to_usize(len)];
        fill(&mut manifest)?;
        let point = Manifest::decode_alone(&manifest).map_err(|error| {
            damaged("the manifest of the receiver's newest snapshot can't be used")
                .with_offset(24)
                .with_source(error)
        })?;
        let windows = point.virtual_size.div_ceil(DIGEST_WINDOW);
        let longest = windows.saturating_mul(LISTED).saturating_add(LIST_ENDS);
        let file = spool_beside(&scratch.join("state"), name)?;
        file.appender()
            .take_all(&mut input.take(longest.saturating_add(1)))
            .map_err(|e| Error::io("cannot keep the window hashes", e).with_path(scratch))?;
        let list = WindowList::open(file)?;
        if list.digest() != point.content_digest {
            return Err(damaged("these window hashes are of another snapshot")
                .with_field("content digest")
                .with_found(list.digest())
                .with_expected(point.content_digest));
        }
        Ok(Self::new(Some((point, list)), name, scratch))
    }

    fn new(newest: Option<(Manifest, WindowList<File>)>, name: &Path, scratch: &Path) -> Self {
        let [name, scratch] = [name, scratch].map(Path::to_path_buf);
        Self {
            newest,
            name,
            scratch,
        }
    }

    /// The same without the window hashes.
    pub fn standing(&self) -> Standing {
        Standing::of(self.newest.as_ref().map(|(newest, _)| newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_and_nothing_else() {
        let at = Standing::At {
            id: "0d3e8a52-5f0c-4c1a-9f07-8f3f0c5d2a10".to_owned(),
            content_digest: ContentDigest([7; 32]),
        };
        for standing in [Standing::Nothing, at.clone()] {
            let text = standing.to_string();
            assert_eq!(text.parse::<Standing>().unwrap(), standing);
            assert!(super::super::check_name(&text).is_err());
            for cut in 0..text.len() {
                assert!(text[..cut].parse::<Standing>().is_err());
            }
        }
        let text = at.to_string();
        assert!(format!("{text}0").parse::<Standing>().is_err());
        assert!(text.replace('-', "/").parse::<Standing>().is_err());
    }

    #[test]
    fn a_state_that_is_cut_off_or_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| ReceiverState::read((bytes, Path::new("in")), folder.path());
        let nothing = [&STANDING_MAGIC[..], &[0; 8]].concat();
        assert_eq!(read(&nothing).unwrap().standing(), Standing::Nothing);
        for cut in 0..nothing.len() {
            assert!(read(&nothing[..cut]).is_err());
        }
        assert!(read(&[&nothing[..], b"x"].concat()).is_err());
        assert!(read(&[&STANDING_MAGIC[..], &[1; 8]].concat()).is_err());
        assert!(read(&[&STANDING_MAGIC[..], &9_u64.to_be_bytes(), b"not JSON!"].concat()).is_err());
    }
}
