//! State stamps: the contents of an image file at a time when they were certain, in an extended attribute of the file.
//!
//! ```text
//! vhdkit state 1
//! digest 43c35ca2...             content digest of the virtual disk
//! format raw                     how the file was read
//! size 33554432                  length of the file
//! modified 1763697600.123456789  when its bytes were last changed
//! inode 1835021                  its number on the file system
//! stamped 1763697601.000000000   when the stamp was set, by the clock
//! parents 9f3c...                only for a differencing VHD: BLAKE3 over its parents
//! ```
//!
//! Setting the attribute changes the file's ctime, so the stamp can't contain that. It contains the current time
//! instead: if the ctime is later than a second after that, the file was changed since, even if its other times were
//! set back. Copies include the attribute, but their inode and times differ.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Format, OpenImage};
use crate::error::Result;
use crate::image::{ContentDigest, Hash, Image as _, WINDOW_SIZE};
use crate::storage::{File, Stamp};

/// The extended attribute.
pub const STATE_ATTRIBUTE: &str = "user.vhdkit.state";

const FIRST_LINE: &str = "vhdkit state 1";

/// Longer values aren't stamps.
const LONGEST: usize = 1024;

/// How much later than the time in the stamp the ctime may be, in nanoseconds.
const SLACK: i128 = SECOND;

/// Disks up to this size are read regardless of their stamp: that takes no time and checks everything.
const SMALL: u64 = 2 * WINDOW_SIZE;

const SECOND: i128 = 1_000_000_000;

/// The contents of an image, and the state of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateStamp {
    /// Content digest of the virtual disk.
    pub digest: ContentDigest,
    /// When it was set, in nanoseconds since 1970.
    pub stamped: i128,
    format: Format,
    size: u64,
    modified: i128,
    inode: u64,
    parents: Option<Hash>,
}

/// A stamp, and whether it still describes the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStamp {
    /// The stamp.
    pub stamp: StateStamp,
    /// The reason why it is no longer valid, if so.
    pub stale: Option<&'static str>,
}

/// Reads the state stamp of an image, valid or not. Returns `None` if there is none that this program understands.
pub fn find_stamp(image: &OpenImage) -> Result<Option<FoundStamp>> {
    let stamp = read(image.file())?;
    Ok(stamp.map(|stamp| FoundStamp {
        stale: stamp.stale(image),
        stamp,
    }))
}

/// The content digest from a valid stamp of the image, if using it saves reading the image.
pub(super) fn stamped_digest(image: &OpenImage) -> Result<Option<ContentDigest>> {
    if image.virtual_size() <= SMALL {
        return Ok(None);
    }
    let found = find_stamp(image)?;
    Ok(found
        .filter(|found| found.stale.is_none())
        .map(|found| found.stamp.digest))
}

/// Stamps an image that is certain to have this `digest`, in the [settled](File::settle) state in which it was opened.
/// The caller holds the exclusive lock, since other commands would notice the stamp as a change of the file. Returns
/// `Ok(false)` if there is no stamp now: on a device, on a file system without extended attributes or with unreliable
/// times, or if the clock was set back.
pub fn set_stamp(image: &OpenImage, digest: ContentDigest) -> Result<bool> {
    let file = image.file();
    let settled = image.stamp().is_older_than(now());
    if !settled
        || image
            .chain()
            .any(|image| image.file().time_doubt().is_some())
    {
        // An older one would be just as wrong.
        if !file.is_block_device() {
            remove_stamp(file)?;
        }
        return Ok(false);
    }
    let stamp = StateStamp {
        digest,
        stamped: now(),
        format: image.format(),
        size: image.stamp().len(),
        modified: nanoseconds(image.stamp().modified()),
        inode: image.stamp().inode(),
        parents: parents_of(image),
    };
    if !file.set_attribute(STATE_ATTRIBUTE, stamp.encode().as_bytes())? {
        return Ok(false);
    }
    if stamp.stale_by(&file.stamp()?).is_none() {
        return Ok(true);
    }
    remove_stamp(file)?;
    Ok(false)
}

/// Returns whether the file of `image`, in the settled state `now`, has a valid stamp with this digest.
pub(super) fn is_stamped(image: &OpenImage, now: &Stamp, digest: ContentDigest) -> Result<bool> {
    let found = read(image.file())?.filter(|stamp| stamp.stale_by(now).is_none());
    Ok(
        found.is_some_and(|stamp| stamp.digest == digest && stamp.format == image.format())
            && now.is_older_than(self::now()),
    )
}

/// Removes the stamp of a file that is about to be written. If it can't be removed, times and size reveal the change.
pub(super) fn remove_stamp(file: &File) -> Result<()> {
    match file.attribute(STATE_ATTRIBUTE)? {
        Some(_) => file.remove_attribute(STATE_ATTRIBUTE),
        None => Ok(()),
    }
}

fn read(file: &File) -> Result<Option<StateStamp>> {
    if file.is_block_device() {
        return Ok(None);
    }
    let value = file.attribute(STATE_ATTRIBUTE)?;
    let value = value.filter(|value| value.len() <= LONGEST);
    let text = value.and_then(|value| String::from_utf8(value).ok());
    Ok(text.and_then(|text| StateStamp::decode(&text)))
}

impl StateStamp {
    fn encode(&self) -> String {
        let Self {
            digest,
            format,
            size,
            inode,
            ..
        } = self;
        let (modified, stamped) = (Time(self.modified), Time(self.stamped));
        let parents = self.parents.map_or_else(String::new, |hash| {
            format!("parents {}\n", ContentDigest(hash))
        });
        format!(
            "{FIRST_LINE}\ndigest {digest}\nformat {format}\nsize {size}\nmodified {modified}\ninode {inode}\n\
             stamped {stamped}\n{parents}"
        )
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut value = |name: &str| {
            let (found, value) = lines.next()?.split_once(' ')?;
            (found == name).then_some(value)
        };
        let stamp = Self {
            digest: value("digest")?.parse().ok()?,
            format: value("format")?.parse().ok()?,
            size: value("size")?.parse().ok()?,
            modified: Time::decode(value("modified")?)?,
            inode: value("inode")?.parse().ok()?,
            stamped: Time::decode(value("stamped")?)?,
            parents: None,
        };
        let parents = match lines.next() {
            None => None,
            Some(line) => Some(
                line.strip_prefix("parents ")?
                    .parse::<ContentDigest>()
                    .ok()?
                    .0,
            ),
        };
        let stamp = Self { parents, ..stamp };
        // The contents of a child depend on its parents: without them the stamp is incomplete.
        if parents.is_some() != (stamp.format == Format::Differencing) {
            return None;
        }
        // Additional lines have a meaning unknown to this program.
        (lines.next().is_none() && stamp.encode() == text).then_some(stamp)
    }

    fn stale(&self, image: &OpenImage) -> Option<&'static str> {
        if self.format != image.format() {
            return Some("the image was read as another format");
        }
        let mut chain = image.chain();
        self.stale_by(image.stamp())
            .or_else(|| {
                (self.parents != parents_of(image)).then_some("a parent was changed or replaced")
            })
            .or_else(|| chain.find_map(|image| image.file().time_doubt()))
    }

    fn stale_by(&self, file: &Stamp) -> Option<&'static str> {
        if self.inode != file.inode() {
            Some("the file is a copy, or was restored")
        } else if self.size != file.len() {
            Some("the file has another size")
        } else if self.modified != nanoseconds(file.modified()) {
            Some("the file was written to")
        } else if file.changed().1 == 0 && self.modified / SECOND >= self.stamped.div_euclid(SECOND)
        {
            // If times are whole seconds, a later change may have left the same one.
            Some("it was set in the second in which the file was written")
        } else if nanoseconds(file.changed()) > self.stamped.saturating_add(SLACK) {
            Some("the file, or something about it, was changed")
        } else {
            None
        }
    }
}

/// A hash that identifies the parents of a differencing VHD and their state; `None` if it has none.
fn parents_of(image: &OpenImage) -> Option<Hash> {
    if image.format() != Format::Differencing {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for parent in image.chain().skip(1) {
        let stamp = parent.stamp();
        let (modified, changed) = (stamp.modified(), stamp.changed());
        let line = format!(
            "{} {} {} {} {}\n",
            parent.format(),
            stamp.len(),
            Time(nanoseconds(modified)),
            Time(nanoseconds(changed)),
            stamp.inode()
        );
        hasher.update(line.as_bytes());
    }
    Some(*hasher.finalize().as_bytes())
}

/// The current time in nanoseconds since 1970.
pub(super) fn now() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i128::try_from(now.as_nanos()).unwrap_or(0))
}

fn nanoseconds((seconds, nanoseconds): (i64, i64)) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

/// Nanoseconds since 1970, printed as seconds with nine decimal places.
struct Time(i128);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, rest) = (
            self.0.div_euclid(1_000_000_000),
            self.0.rem_euclid(1_000_000_000),
        );
        write!(f, "{seconds}.{rest:09}")
    }
}

impl Time {
    fn decode(text: &str) -> Option<i128> {
        let (seconds, rest) = text.split_once('.')?;
        let (seconds, rest): (i64, u32) = (seconds.parse().ok()?, rest.parse().ok()?);
        Some(nanoseconds((seconds, i64::from(rest))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(parents: Option<Hash>) -> StateStamp {
        StateStamp {
            digest: ContentDigest([7; 32]),
            stamped: 1_763_697_601_000_000_000,
            format: parents.map_or(Format::Raw, |_| Format::Differencing),
            size: 512,
            modified: -1,
            inode: 12,
            parents,
        }
    }

    #[test]
    fn it_reads_what_it_writes_and_nothing_else() {
        for stamp in [stamp(None), stamp(Some([3; 32]))] {
            let text = stamp.encode();
            assert_eq!(StateStamp::decode(&text), Some(stamp), "{text}");
            for at in 0..text.len() {
                assert_eq!(StateStamp::decode(&text[..at]), None, "{at}");
            }
            for wrong in [
                format!("{text}more\n"),
                text.replace("state 1", "state 2"),
                text.replace("format ", "format cooked"),
                text.replace("differencing", "dynamic"),
                text.replace("raw", "differencing"),
                text.replace("size 512", "size 0512"),
                text.replace("size 512", "size 99999999999999999999999"),
                text.replace("inode", "inodes"),
                text.replace("modified -1.999999999", "modified -1.9999999999"),
                text.replace("modified -1.999999999", "modified 9999999999999999999999.0"),
                text.replace('\n', "\r\n"),
            ] {
                let decoded = StateStamp::decode(&wrong);
                assert!(wrong == text || decoded.is_none(), "{wrong}");
            }
        }
    }
}
