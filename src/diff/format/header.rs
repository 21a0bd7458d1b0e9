//! The header: which disk the diff turns into which.

use byteorder::{BigEndian, ByteOrder, WriteBytesExt};

use super::{MAGIC, VERSION, count, damaged};
use crate::error::{Error, Result};
use crate::image::{Hash, MAX_VIRTUAL_SIZE, WINDOW_SIZE};
use crate::page::PAGE_SIZE;
use crate::remedy::{Remedy, Step, Tool};

/// Length of the header before its records.
pub(crate) const HEAD_FIXED: usize = 48;

/// The window size as stored in the header.
const WINDOW: u32 = 4 << 20;

/// A longer header is refused before memory is allocated for it.
pub(crate) const HEAD_MAX: usize = 1 << 20;

/// Facts about the base or the target of a diff. It serves people and identification; none of it is needed to
/// rebuild the virtual disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Side {
    /// File name, without its folder.
    pub name: Option<String>,
    /// Format of the stored image: `raw`, `fixed`, `dynamic`.
    pub format: Option<String>,
    /// The VHD's unique id, as stored.
    pub unique_id: Option<[u8; 16]>,
    /// When the image was created, in seconds since 1970-01-01T00:00:00Z.
    pub time: Option<i64>,
    /// Name of the snapshot.
    pub snapshot: Option<String>,
    /// The cloud's id of the disk of which the snapshot was taken (`SourceResourceId`).
    pub source_resource_id: Option<String>,
    /// The cloud's id of that disk instance; it changes if the disk is deleted and created again (`SourceUniqueId`).
    pub source_unique_id: Option<String>,
    /// The VHD's footer, so that a fixed VHD can be restored byte for byte.
    pub footer: Option<Box<[u8; 512]>>,
}

/// The header of a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffHeader {
    /// Virtual size of the base in bytes.
    pub base_size: u64,
    /// Virtual size of the target in bytes.
    pub target_size: u64,
    /// The program that wrote the diff.
    pub program: Option<String>,
    /// Facts about the base.
    pub base: Side,
    /// Facts about the target.
    pub target: Side,
    /// In an undo journal: the identities of the diffs that it undoes, in order.
    pub undoes: Vec<Hash>,
}

/// Record tags. This is added once for the base and twice for the target.
const SIDE: u16 = 0x100;
/// A reader must refuse the diff if it doesn't know a tag with this bit.
const MUST_UNDERSTAND: u16 = 0x8000;
/// A feature flag that must be understood: the diff is reversible.
const REVERSIBLE: u32 = 1;
const PROGRAM: u16 = 1;
const UNDOES: u16 = 2;
const NAME: u16 = 1;
const FORMAT: u16 = 2;
const UNIQUE_ID: u16 = 3;
const TIME: u16 = 4;
const SNAPSHOT: u16 = 5;
const SOURCE_RESOURCE_ID: u16 = 6;
const SOURCE_UNIQUE_ID: u16 = 7;
const FOOTER: u16 = 8;

/// Encodes the header. Fails if its texts are too long, or if no reader would accept its sizes.
pub(crate) fn encode_header(header: &DiffHeader, reversible: bool) -> Result<Vec<u8>> {
    for (field, size) in [
        ("base_size", header.base_size),
        ("target_size", header.target_size),
    ] {
        if !is_size(size) {
            return Err(
                Error::usage("a diff can't be made for an image of this size")
                    .with_field(field)
                    .with_found(size)
                    .with_expected(SIZES),
            );
        }
    }
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&MAGIC);
    let flags = if reversible { REVERSIBLE } else { 0 };
    let fixed = [VERSION, flags, 0, 512, WINDOW, 0];
    fixed
        .iter()
        .try_for_each(|n| out.write_u32::<BigEndian>(*n))
        .map_err(no_memory)?;
    out.extend_from_slice(&header.base_size.to_be_bytes());
    out.extend_from_slice(&header.target_size.to_be_bytes());
    record(
        &mut out,
        PROGRAM,
        header.program.as_deref().map(str::as_bytes),
    );
    let undoes = header.undoes.concat();
    record(&mut out, UNDOES, (!undoes.is_empty()).then_some(&undoes));
    side_records(&mut out, SIDE, &header.base);
    side_records(&mut out, 2 * SIDE, &header.target);
    let len = out.len() + 4;
    if len > HEAD_MAX {
        return Err(Error::usage(
            "the names and ids of the two images are too long for a diff's header",
        )
        .with_found(format_args!("{len} bytes"))
        .with_expected(format_args!("at most {HEAD_MAX}")));
    }
    out[16..20].copy_from_slice(&count(len));
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    Ok(out)
}

fn no_memory(error: std::io::Error) -> Error {
    Error::io("cannot build the header", error)
}

fn side_records(out: &mut Vec<u8>, side: u16, of: &Side) {
    let text = |t: &Option<String>| t.as_ref().map(|t| t.as_bytes().to_vec());
    let time = of.time.map(|t| t.to_be_bytes().to_vec());
    record(out, side + NAME, text(&of.name));
    record(out, side + FORMAT, text(&of.format));
    record(out, side + UNIQUE_ID, of.unique_id);
    record(out, side + TIME, time);
    record(out, side + SNAPSHOT, text(&of.snapshot));
    record(out, side + SOURCE_RESOURCE_ID, text(&of.source_resource_id));
    record(out, side + SOURCE_UNIQUE_ID, text(&of.source_unique_id));
    record(out, side + FOOTER, of.footer.as_deref());
}

fn record(out: &mut Vec<u8>, tag: u16, value: Option<impl AsRef<[u8]>>) {
    if let Some(value) = value {
        let value = value.as_ref();
        out.extend_from_slice(&tag.to_be_bytes());
        out.extend_from_slice(&count(value.len()));
        out.extend_from_slice(value);
    }
}

impl DiffHeader {
    /// Returns the length of the whole header, given its fixed part: what must be read before [`DiffHeader::decode`].
    /// Fails if it isn't a diff, or one of a newer version.
    pub(crate) fn length(fixed: &[u8; HEAD_FIXED]) -> Result<usize> {
        if fixed[..8] != MAGIC {
            return Err(Error::damaged(
                "this is not a diff: a diff's magic bytes are missing at its beginning",
            )
            .with_offset(0)
            .with_field("magic")
            .with_found(ascii(&fixed[..8]))
            .with_expected(ascii(&MAGIC))
            .with_remedy(
                Remedy::new("name a ")
                    .named("file that ")
                    .step(Step::Use(Tool::Diff), "diff")
                    .named(" wrote")
                    .text("; to compare two images use ")
                    .step(Step::Use(Tool::Diff), "a comparison"),
            ));
        }
        let version = BigEndian::read_u32(&fixed[8..]);
        if version != VERSION {
            return Err(
                Error::unsupported("this version of the diff format is not supported")
                    .with_offset(8)
                    .with_field("version")
                    .with_found(version)
                    .with_expected(VERSION)
                    .with_hint("use the program that wrote it, or a newer vhdkit"),
            );
        }
        let flags = BigEndian::read_u32(&fixed[12..]);
        if flags & !REVERSIBLE != 0 {
            return Err(Error::unsupported(
                "the diff needs a feature that this program doesn't support",
            )
            .with_offset(12)
            .with_field("must_understand")
            .with_found(format_args!("{flags:#010x}"))
            .with_expected("0, or 1 for a reversible diff")
            .with_hint("use the program that wrote it, or a newer vhdkit"));
        }
        let length = BigEndian::read_u32(&fixed[16..]) as usize;
        if !(HEAD_FIXED + 4..=HEAD_MAX).contains(&length) {
            return Err(damaged("the header has an impossible length")
                .with_offset(16)
                .with_field("header_length")
                .with_found(length)
                .with_expected(format_args!("{} to {HEAD_MAX}", HEAD_FIXED + 4)));
        }
        Ok(length)
    }

    /// Returns whether the diff with this header is reversible.
    pub(crate) fn is_reversible(fixed: &[u8; HEAD_FIXED]) -> bool {
        BigEndian::read_u32(&fixed[12..]) & REVERSIBLE != 0
    }

    /// The header for the opposite direction.
    pub(crate) fn reversed(&self) -> Self {
        Self {
            base_size: self.target_size,
            target_size: self.base_size,
            program: self.program.clone(),
            base: self.target.clone(),
            target: self.base.clone(),
            undoes: Vec::new(),
        }
    }

    /// Decodes the whole header, including its checksum.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (fields, crc) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| damaged("the header is too short"))?;
        let (found, computed) = (u32::from_be_bytes(*crc), crc32fast::hash(fields));
        if found != computed {
            return Err(damaged("the header's checksum is wrong")
                .with_offset(fields.len() as u64)
                .with_field("header_crc32")
                .with_found(format_args!("{found:#010x}"))
                .with_expected(format_args!("{computed:#010x}")));
        }
        let (fixed, records) = fields
            .split_first_chunk::<HEAD_FIXED>()
            .ok_or_else(|| damaged("the header is too short"))?;
        let [page_size, window_size, reserved] =
            [20, 24, 28].map(|at| BigEndian::read_u32(&fixed[at..]));
        if (u64::from(page_size), u64::from(window_size), reserved) != (PAGE_SIZE, WINDOW_SIZE, 0) {
            return Err(Error::unsupported(
                "this version doesn't allow the page or window size of the diff",
            )
            .with_offset(20)
            .with_field("page_size, window_size, reserved")
            .with_found(format_args!("{page_size}, {window_size}, {reserved}"))
            .with_expected(format_args!("{PAGE_SIZE}, {WINDOW_SIZE}, 0"))
            .with_hint("use the program that wrote it, or a newer vhdkit"));
        }
        let mut header = Self {
            base_size: size(fixed, 32, "base_size")?,
            target_size: size(fixed, 40, "target_size")?,
            program: None,
            base: Side::default(),
            target: Side::default(),
            undoes: Vec::new(),
        };
        header.decode_records(records)?;
        Ok(header)
    }

    fn decode_records(&mut self, mut rest: &[u8]) -> Result<()> {
        let mut offset = HEAD_FIXED as u64;
        let mut last = 0;
        while !rest.is_empty() {
            let cut = || {
                damaged("a record extends beyond the end of the header")
                    .with_offset(offset)
                    .with_field("record")
            };
            let (lead, after) = rest.split_first_chunk::<6>().ok_or_else(cut)?;
            let tag = BigEndian::read_u16(&lead[..2]);
            let len = BigEndian::read_u32(&lead[2..]) as usize;
            let (value, after) = after.split_at_checked(len).ok_or_else(cut)?;
            // Strict order means that each tag occurs at most once, so that no two readers can disagree about which one
            // counts.
            if tag <= last {
                return Err(damaged("a record is repeated or in the wrong place")
                    .with_offset(offset)
                    .with_field("record")
                    .with_found(format_args!("{tag:#06x}"))
                    .with_expected(format_args!("a tag above {last:#06x}")));
            }
            last = tag;
            self.set(tag, value).map_err(|e| e.with_offset(offset))?;
            offset += (6 + len) as u64;
            rest = after;
        }
        Ok(())
    }

    fn set(&mut self, tag: u16, value: &[u8]) -> Result<()> {
        let bad = |what: &str| {
            damaged("a record of the header has a bad value")
                .with_field(format!("record {tag:#06x}"))
                .with_expected(what)
        };
        let text = || {
            String::from_utf8(value.to_vec())
                .map(Some)
                .map_err(|_| bad("UTF-8 text"))
        };
        let side = match tag & !0xff {
            0 => {
                match tag {
                    PROGRAM => self.program = text()?,
                    UNDOES => {
                        let (hashes, rest) = value.as_chunks::<32>();
                        if !rest.is_empty() {
                            return Err(bad("a multiple of 32 bytes"));
                        }
                        self.undoes = hashes.to_vec();
                    }
                    _ => {}
                }
                return Ok(());
            }
            SIDE => &mut self.base,
            0x200 => &mut self.target,
            _ if tag & MUST_UNDERSTAND != 0 => {
                return Err(Error::unsupported(
                    "the diff needs a feature that this program doesn't support",
                )
                .with_field(format!("record {tag:#06x}"))
                .with_hint("use the program that wrote it, or a newer vhdkit"));
            }
            // Additions that may be ignored.
            _ => return Ok(()),
        };
        match tag & 0xff {
            NAME => side.name = text()?,
            FORMAT => side.format = text()?,
            UNIQUE_ID => side.unique_id = Some(value.try_into().map_err(|_| bad("16 bytes"))?),
            TIME => {
                side.time = Some(i64::from_be_bytes(
                    value.try_into().map_err(|_| bad("8 bytes"))?,
                ));
            }
            SNAPSHOT => side.snapshot = text()?,
            SOURCE_RESOURCE_ID => side.source_resource_id = text()?,
            SOURCE_UNIQUE_ID => side.source_unique_id = text()?,
            FOOTER => side.footer = Some(Box::new(value.try_into().map_err(|_| bad("512 bytes"))?)),
            _ => {}
        }
        Ok(())
    }
}

fn size(fixed: &[u8; HEAD_FIXED], at: usize, field: &str) -> Result<u64> {
    let size = BigEndian::read_u64(&fixed[at..]);
    if !is_size(size) {
        return Err(damaged("a virtual size is impossible")
            .with_offset(at as u64)
            .with_field(field)
            .with_found(size)
            .with_expected(SIZES));
    }
    Ok(size)
}

const SIZES: &str = "a multiple of 512 up to 1 PiB";

/// Returns whether a virtual disk can have this size. The limit ensures that no sum of an offset and a length
/// overflows.
fn is_size(size: u64) -> bool {
    size.is_multiple_of(PAGE_SIZE) && size <= MAX_VIRTUAL_SIZE
}

fn ascii(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

const _: () = assert!(WINDOW as u64 == WINDOW_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> DiffHeader {
        let side = |n: u8| Side {
            name: Some(format!("name {n} ü")),
            format: Some("fixed".into()),
            unique_id: Some([n; 16]),
            time: Some(-5),
            snapshot: Some("monday".into()),
            source_resource_id: Some("/subscriptions/x".into()),
            source_unique_id: Some("guid".into()),
            footer: Some(Box::new([n; 512])),
        };
        DiffHeader {
            base_size: 512,
            target_size: 1 << 40,
            program: Some("test 1".into()),
            base: side(1),
            target: side(2),
            undoes: vec![[3; 32], [4; 32]],
        }
    }

    fn decode(bytes: &[u8]) -> Result<DiffHeader> {
        let fixed = bytes
            .first_chunk::<HEAD_FIXED>()
            .ok_or_else(|| damaged("short"))?;
        let length = DiffHeader::length(fixed)?;
        DiffHeader::decode(bytes.get(..length).ok_or_else(|| damaged("short"))?)
    }

    #[test]
    fn everything_comes_back() {
        assert_eq!(
            decode(&encode_header(&full(), false).unwrap()).unwrap(),
            full()
        );
    }

    #[test]
    fn each_damaged_byte_and_each_cut_is_an_error() {
        let bytes = encode_header(&full(), false).unwrap();
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        BigEndian::write_u32(&mut bytes[end..], crc);
        bytes
    }

    #[test]
    fn a_future_version_flag_or_required_record_is_refused_as_unsupported() {
        let bytes = encode_header(&full(), false).unwrap();
        for at in [8, 12] {
            let mut future = bytes.clone();
            future[at] = 1;
            let error = decode(&resealed(future)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        }
        let mut future = bytes.clone();
        future[HEAD_FIXED] = 0x80;
        assert_eq!(
            decode(&resealed(future)).unwrap_err().kind(),
            crate::ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_future_record_that_may_be_ignored_is() {
        let mut bytes = encode_header(
            &DiffHeader {
                base: Side::default(),
                target: Side::default(),
                undoes: Vec::new(),
                ..full()
            },
            false,
        )
        .unwrap();
        bytes[HEAD_FIXED] = 0x70;
        assert_eq!(decode(&resealed(bytes)).unwrap().program, None);
    }

    #[test]
    fn sizes_that_no_reader_takes_are_not_written() {
        for size in [511, 513, 1 << 63, u64::MAX] {
            for (base_size, target_size) in [(size, 512), (512, size)] {
                let header = DiffHeader {
                    base_size,
                    target_size,
                    ..full()
                };
                let error = encode_header(&header, false).unwrap_err();
                assert_eq!(error.kind(), crate::ErrorKind::Usage, "{size}");
            }
        }
    }
}
