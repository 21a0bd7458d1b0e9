//! The manifest of a snapshot: human-readable JSON, with a checksum that can be verified by hand.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::PACKED;
use super::remedies::lists;
use super::{Family, PointFileName, Time, check_disk_name, check_name};
use crate::error::{Error, Result};
use crate::files::Format;
use crate::image::{ContentDigest, MAX_VIRTUAL_SIZE};
use crate::page::PAGE_SIZE;
use crate::vhd::Footer;

/// The newest version of manifests: of snapshots that begin as one of another disk.
pub const SCHEMA_VERSION: u32 = 3;

/// The version of the manifests of packed bases.
pub(super) const PACKED_SCHEMA: u32 = 2;

/// The version of the manifests of diffs, and of bases that are images.
pub(super) const FIRST_SCHEMA: u32 = 1;

/// In a longer manifest, a damaged byte isn't searched for: trying all takes time proportional to the square of its
/// length.
const LONGEST_MENDED: u64 = 4096;

/// The highest number of a snapshot, so that there is always a next one to refuse.
pub(super) const LAST_SEQUENCE: u32 = 999_999_999;

/// The largest data file, however much it stores besides the disk, so that sums can't overflow.
const LARGEST_FILE: u64 = 2 * MAX_VIRTUAL_SIZE;

/// A longer file isn't a manifest.
pub(super) const LONGEST: u64 = 1 << 20;

/// The metadata of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`] if it begins as a snapshot of another disk, 2 of a packed base, else 1.
    pub schema_version: u32,
    /// Its name, unique on the disk.
    pub name: String,
    /// Its position in the order of creation, from 1.
    pub sequence: u32,
    /// Distinguishes it from all other snapshots anywhere: a random UUID.
    pub id: String,
    /// What tells the disk that it is of from all others: given to its first snapshot, and the same in each later one and
    /// in every copy. `None` where an older program began the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_id: Option<String>,
    /// The id of the snapshot of the same disk on which its diff is based; `None` for a base, and for one that begins as
    /// a snapshot of another disk.
    pub parent: Option<String>,
    /// The snapshot of another disk on which its diff is based. Only the first snapshot of a disk can have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<Like>,
    /// The time of its content.
    #[serde(with = "text")]
    pub time: Time,
    /// The disk to which it belongs.
    pub family: Family,
    /// Size of the virtual disk in bytes.
    pub virtual_size: u64,
    /// The content digest of the virtual disk.
    #[serde(with = "text")]
    pub content_digest: ContentDigest,
    /// The image from which it was taken.
    pub source: Origin,
    /// The location of its data.
    pub data: Data,
    /// Bytes that it takes by itself.
    pub used_size: u64,
    /// User-defined tags.
    pub tags: BTreeMap<String, String>,
    /// Whether it can be used.
    pub state: State,
    /// 100 when it is complete.
    pub completion_percent: u8,
}

/// The snapshot of another disk as which the first one of a disk begins. It is found by its content, whatever it is
/// called by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Like {
    /// The name that its disk had.
    pub disk: String,
    /// The name that it had.
    pub snapshot: String,
    /// Its content digest.
    #[serde(with = "text")]
    pub content_digest: ContentDigest,
    /// The size of its virtual disk in bytes.
    pub virtual_size: u64,
}

impl Like {
    /// `point` of the disk called `disk`.
    pub(super) fn new(disk: &str, point: &Manifest) -> Self {
        Self {
            disk: disk.to_owned(),
            snapshot: point.name.clone(),
            content_digest: point.content_digest,
            virtual_size: point.virtual_size,
        }
    }

    /// Returns whether `point` holds what it does.
    pub fn is(&self, point: &Manifest) -> bool {
        self.content_digest == point.content_digest && self.virtual_size == point.virtual_size
    }
}

/// `DISK@SNAPSHOT`, as it was called.
impl fmt::Display for Like {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.disk, self.snapshot)
    }
}

/// The image from which a snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its file name, without a folder.
    pub name: Option<String>,
    /// `raw`, `fixed`, `dynamic` or `differencing`.
    pub format: String,
    /// A VHD's unique id, in stored byte order.
    pub unique_id: Option<String>,
    /// A VHD's footer in hexadecimal.
    pub footer: Option<String>,
}

/// The file with a snapshot's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// A whole image, or a diff.
    pub kind: DataKind,
    /// Its name, in the folder of the manifest.
    pub file: String,
    /// Its length in bytes.
    pub length: u64,
    /// A diff's identity, and that of a packed base: the digest at its end.
    #[serde(with = "optional_text")]
    pub identity: Option<ContentDigest>,
}

/// The kind of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataKind {
    /// An image with all of the disk.
    Base,
    /// A diff from the previous snapshot.
    Diff,
}

impl DataKind {
    /// `base` or `diff`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Diff => "diff",
        }
    }

    /// The extensions of such files.
    const fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Base => &[".vhd", ".raw", ".vhddiff"],
            Self::Diff => &[".vhddiff"],
        }
    }
}

/// Whether a snapshot can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it is there.
    Complete,
    /// It is being copied into the store.
    Copying,
}

impl State {
    /// `complete` or `copying`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Copying => "copying",
        }
    }
}

impl Origin {
    /// The format.
    pub fn format(&self) -> Format {
        self.format.parse().unwrap_or(Format::Raw)
    }

    /// The footer of the VHD.
    pub fn footer(&self) -> Option<Footer> {
        let bytes = unhex(self.footer.as_deref()?)?;
        Some(Footer::decode(&bytes))
    }
}

/// Formats the bytes of a footer as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 512]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

impl Manifest {
    /// The stem of its files' names.
    pub fn stem(&self) -> PointFileName {
        PointFileName {
            sequence: self.sequence,
            name: self.name.clone(),
        }
    }

    /// Returns whether it depends on no other snapshot of its disk: it contains a whole image, or begins as a
    /// [snapshot of another disk](Self::like).
    pub fn is_base(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether it is a base that is stored as a diff: from nothing, or from a snapshot of another disk.
    pub fn is_packed(&self) -> bool {
        self.is_base() && self.data.identity.is_some()
    }

    /// `base`, `diff`, or `like` if it begins as a snapshot of another disk.
    pub fn kind_name(&self) -> &'static str {
        match self.like {
            Some(_) => "like",
            None => self.data.kind.name(),
        }
    }

    /// Encodes the file: pretty-printed JSON whose last member is the checksum of all lines before it.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::usage("the manifest can't be written").with_source(e))?;
        let head = json.strip_suffix("\n}").unwrap_or(&json);
        let mut text = format!("{head},\n");
        let checksum = blake3::hash(text.as_bytes()).to_hex();
        let _ = write!(text, "{CHECKSUM}{checksum}\"\n}}\n");
        Ok(text.into_bytes())
    }

    /// Decodes the output of [`encode`](Self::encode). Messages call the file `path`, whose name must be that of the
    /// manifest.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |what: &str| {
            Error::damaged(what.to_owned())
                .with_path(path)
                .with_remedy(lists(
                    "what else is damaged; take the file from a copy of the store",
                ))
        };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("this manifest is not text"))?;
        let at = text
            .rfind(CHECKSUM)
            .ok_or_else(|| damaged("this manifest has no checksum at its end"))?;
        let (head, tail) = text.split_at(at);
        let expected = blake3::hash(head.as_bytes()).to_hex();
        if tail != format!("{CHECKSUM}{expected}\"\n}}\n") {
            let found = tail.strip_prefix(CHECKSUM).unwrap_or(tail);
            let found = found.split('"').next().unwrap_or_default();
            return Err(damaged("this manifest was changed")
                .with_field("checksum")
                .with_found(format_args!(
                    "\"{}\"",
                    found.chars().take(64).collect::<String>()
                ))
                .with_expected(expected));
        }
        let manifest: Self = serde_json::from_str(text)
            .map_err(|e| damaged("this manifest can't be parsed").with_source(e))?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// As [`decode`](Self::decode), for a manifest that didn't come as a file: it names itself.
    pub(super) fn decode_alone(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Names {
            name: String,
            sequence: u32,
        }
        let names: Names = serde_json::from_slice(bytes)
            .map_err(|e| Error::damaged("this is not a manifest").with_source(e))?;
        let stem = PointFileName {
            sequence: names.sequence,
            name: names.name,
        };
        Self::decode(bytes, Path::new(&stem.manifest()))
    }

    /// Reconstructs `bytes` if one of them was damaged: finds the only change of one byte for which the checksum
    /// matches.
    pub(super) fn decode_mended(bytes: &[u8], path: &Path) -> Option<Self> {
        let tail = CHECKSUM.len() + 64 + "\"\n}\n".len();
        if bytes.len() as u64 > LONGEST_MENDED {
            return None;
        }
        let (head, _) = bytes.split_at_checked(bytes.len().checked_sub(tail)?)?;
        // The damage is in the checksum: the text before it is right, and determines it.
        let mut good = head.to_vec();
        let checksum = blake3::hash(head).to_hex();
        good.extend(format!("{CHECKSUM}{checksum}\"\n}}\n").bytes());
        let wrong = good.iter().zip(bytes).filter(|(a, b)| a != b).count();
        if wrong <= 1 {
            return Self::decode(&good, path).ok();
        }
        // The damage is before it.
        let mut bytes = bytes.to_vec();
        for at in 0..head.len() {
            let old = bytes.get(at).copied()?;
            for change in 1..=u8::MAX {
                *bytes.get_mut(at)? = old ^ change;
                if Self::fits(&bytes, head.len()) {
                    return Self::decode(&bytes, path).ok();
                }
            }
            *bytes.get_mut(at)? = old;
        }
        None
    }

    fn fits(bytes: &[u8], at: usize) -> bool {
        let (head, tail) = bytes.split_at_checked(at).unwrap_or_default();
        let stored = tail.get(CHECKSUM.len()..).and_then(|rest| rest.get(..64));
        stored == Some(blake3::hash(head).to_hex().as_bytes())
    }

    /// Refuses impossible values, whatever the checksum.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let wrong = |field: &str, found: &dyn std::fmt::Display| {
            Error::damaged("this manifest has an impossible value")
                .with_path(path)
                .with_field(field)
                .with_found(found)
        };
        let versions = FIRST_SCHEMA..=SCHEMA_VERSION;
        if !versions.contains(&self.schema_version) {
            return Err(
                Error::unsupported("this manifest has an unsupported version")
                    .with_path(path)
                    .with_field("schema_version")
                    .with_found(self.schema_version)
                    .with_expected(format_args!("{FIRST_SCHEMA} to {SCHEMA_VERSION}"))
                    .with_hint("use the program that wrote the store, or a newer vhdkit"),
            );
        }
        if self.sequence == 0 || self.sequence > LAST_SEQUENCE {
            return Err(wrong("sequence", &self.sequence)
                .with_expected(format_args!("1 to {LAST_SEQUENCE}")));
        }
        check_name(&self.name)
            .map_err(|e| wrong("name", &format_args!("\"{}\"", self.name)).with_source(e))?;
        let stem = self.stem();
        if path
            .file_name()
            .is_none_or(|name| name != stem.manifest().as_str())
        {
            return Err(
                wrong("name, sequence", &stem).with_expected("those in the name of the file")
            );
        }
        match PointFileName::parse(&self.data.file) {
            Some((of, ending)) if of == stem && self.data.kind.endings().contains(&ending) => {}
            _ => return Err(wrong("data.file", &format_args!("\"{}\"", self.data.file))),
        }
        let whole = self.virtual_size.is_multiple_of(PAGE_SIZE);
        if self.virtual_size == 0 || self.virtual_size > MAX_VIRTUAL_SIZE || !whole {
            return Err(wrong("virtual_size", &self.virtual_size));
        }
        for (field, bytes) in [
            ("data.length", self.data.length),
            ("used_size", self.used_size),
        ] {
            if bytes > LARGEST_FILE {
                return Err(
                    wrong(field, &bytes).with_expected(format_args!("at most {LARGEST_FILE}"))
                );
            }
        }
        if self.source.format.parse::<Format>().is_err() {
            return Err(wrong(
                "source.format",
                &format_args!("\"{}\"", self.source.format),
            ));
        }
        if self.source.footer.is_some() && self.source.footer().is_none() {
            return Err(wrong(
                "source.footer",
                &"other than 1024 hexadecimal digits",
            ));
        }
        let is_diff = self.data.file.ends_with(PACKED);
        let is_whole = self.parent.is_none() && self.like.is_none();
        if (self.data.kind == DataKind::Base) != is_whole || is_diff != self.data.identity.is_some()
        {
            return Err(wrong(
                "parent, data.identity",
                &"what a base and a diff don't have in common",
            ));
        }
        if let Some(like) = &self.like {
            if self.parent.is_some() {
                return Err(
                    wrong("like, parent", &format_args!("\"{like}\", and a parent"))
                        .with_expected("one of the two"),
                );
            }
            check_disk_name(&like.disk)
                .and_then(|()| check_name(&like.snapshot))
                .map_err(|e| wrong("like", &format_args!("\"{like}\"")).with_source(e))?;
            let whole = like.virtual_size.is_multiple_of(PAGE_SIZE);
            if like.virtual_size == 0 || like.virtual_size > MAX_VIRTUAL_SIZE || !whole {
                return Err(wrong("like.virtual_size", &like.virtual_size));
            }
        }
        let expected = self.schema();
        if self.schema_version != expected {
            return Err(wrong("schema_version", &self.schema_version).with_expected(format_args!(
                "{expected}: 3 of one that begins as a snapshot of another disk, 2 of a base that is a diff, else 1"
            )));
        }
        Ok(())
    }

    /// The version that its manifest has: programs that know only a lower one can't read the snapshot.
    pub(super) fn schema(&self) -> u32 {
        match (&self.like, self.is_packed()) {
            (Some(_), _) => SCHEMA_VERSION,
            (None, true) => PACKED_SCHEMA,
            (None, false) => FIRST_SCHEMA,
        }
    }

    /// This snapshot, which has no parent and whose data is a diff from `like`, or from nothing if that is `None`.
    pub(super) fn standing_on(mut self, like: Option<Like>) -> Self {
        self.data.kind = if like.is_some() {
            DataKind::Diff
        } else {
            DataKind::Base
        };
        self.like = like;
        self.schema_version = self.schema();
        self
    }

    /// This snapshot with its data in `file`, whose form that tells: a base then, if it has no `parent`.
    pub(super) fn stored_as(
        &self,
        parent: Option<String>,
        file: String,
        (length, used_size): (u64, u64),
        identity: Option<ContentDigest>,
    ) -> Self {
        let mut stored = Self {
            like: None,
            data: Data {
                kind: if parent.is_none() {
                    DataKind::Base
                } else {
                    DataKind::Diff
                },
                file,
                length,
                identity,
            },
            parent,
            used_size,
            ..self.clone()
        };
        stored.schema_version = stored.schema();
        stored
    }
}

const CHECKSUM: &str = "  \"checksum\": \"";

/// Values serialized by their displayed text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// As [`text`], for optional values.
mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::snapshot) fn manifest() -> Manifest {
        Manifest {
            schema_version: FIRST_SCHEMA,
            name: "mon".to_owned(),
            sequence: 1,
            id: "4b2f".to_owned(),
            disk_id: None,
            parent: None,
            like: None,
            time: Time::from_unix(0),
            family: Family::default(),
            virtual_size: 512,
            content_digest: ContentDigest([7; 32]),
            source: Origin {
                name: None,
                format: "raw".to_owned(),
                unique_id: None,
                footer: None,
            },
            data: Data {
                kind: DataKind::Base,
                file: "000001-mon.vhd".to_owned(),
                length: 9,
                identity: None,
            },
            used_size: 9,
            tags: BTreeMap::from([("who".to_owned(), "\"me\"\n".to_owned())]),
            state: State::Complete,
            completion_percent: 100,
        }
    }

    #[test]
    fn it_comes_back_as_it_was_and_any_flipped_byte_is_found() {
        let path = Path::new("x/000001-mon.json");
        let bytes = manifest().encode().unwrap();
        assert_eq!(Manifest::decode(&bytes, path).unwrap(), manifest());
        for at in 0..bytes.len() {
            for bit in [1, 0x20] {
                let mut bad = bytes.clone();
                bad[at] ^= bit;
                assert!(Manifest::decode(&bad, path).is_err(), "{at}");
            }
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len], path).is_err(), "{len}");
        }
        assert!(Manifest::decode(&bytes, Path::new("000002-mon.json")).is_err());
    }

    #[test]
    fn one_that_begins_as_another_disks_has_a_version_of_its_own() {
        let path = Path::new("000001-mon.json");
        let mut like = manifest().stored_as(
            None,
            "000001-mon.vhddiff".to_owned(),
            (9, 9),
            Some(ContentDigest([1; 32])),
        );
        assert_eq!(like.schema_version, PACKED_SCHEMA);
        let bytes = like.encode().unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("like"));
        like = like.standing_on(Some(Like::new("web", &manifest())));
        assert_eq!(like.schema_version, SCHEMA_VERSION);
        assert!(like.is_base() && like.is_packed());
        let bytes = like.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes, path).unwrap(), like);
        let forge: [fn(&mut Manifest); 7] = [
            |m| m.parent = Some("x".to_owned()),
            |m| m.like = None,
            |m| m.schema_version = PACKED_SCHEMA,
            |m| m.data.kind = DataKind::Base,
            |m| m.data.identity = None,
            |m| "../x".clone_into(&mut m.like.as_mut().unwrap().disk),
            |m| m.like.as_mut().unwrap().virtual_size = 100,
        ];
        for (n, forge) in forge.into_iter().enumerate() {
            let mut forged = like.clone();
            forge(&mut forged);
            let bytes = forged.encode().unwrap();
            assert!(Manifest::decode(&bytes, path).is_err(), "{n}");
        }
        // Folded into what has a parent, or made a base, it is none any more.
        let file = || "000001-mon.vhddiff".to_owned();
        let diff = like.stored_as(Some("x".to_owned()), file(), (9, 9), like.data.identity);
        assert_eq!((diff.schema_version, &diff.like), (FIRST_SCHEMA, &None));
    }

    #[test]
    fn what_cannot_be_is_refused_whatever_the_checksum_says() {
        let path = Path::new("000001-mon.json");
        let forge: [fn(&mut Manifest); 14] = [
            |m| m.sequence = 0,
            |m| m.sequence = LAST_SEQUENCE + 1,
            |m| m.sequence = u32::MAX,
            |m| m.data.file = "../000001-mon.vhd".to_owned(),
            |m| m.data.file = "000002-mon.vhd".to_owned(),
            |m| m.data.file = "000001-mon.vhddiff".to_owned(),
            |m| m.data.file = "000001-mon.vhd.new".to_owned(),
            |m| m.virtual_size = 513,
            |m| m.virtual_size = 0,
            |m| m.parent = Some("x".to_owned()),
            |m| m.source.footer = Some("00".to_owned()),
            |m| m.schema_version = 2,
            |m| m.schema_version = 3,
            |m| m.data.identity = Some(ContentDigest([1; 32])),
        ];
        for change in forge {
            let mut bad = manifest();
            change(&mut bad);
            if bad.sequence != 1 {
                bad.data.file = format!("{}.vhd", bad.stem());
            }
            let path = path.with_file_name(bad.stem().manifest());
            let path = path.as_path();
            let bytes = bad.encode().unwrap();
            assert!(Manifest::decode(&bytes, path).is_err(), "{bad:?}");
        }
    }
}
