//! Recognizing foreign formats.

use std::path::{Path, PathBuf};

use byteorder::{BigEndian, ByteOrder as _, LittleEndian};

use crate::error::Result;
use crate::page::to_usize;
use crate::storage::ReadAt;

/// Bytes read from the start of a file.
const HEAD: u64 = 512;

/// Bytes read from the end of a file.
const TAIL: u64 = 512;

/// The first and last bytes of a file.
pub(super) struct Sample {
    head: Vec<u8>,
    tail: Vec<u8>,
    len: u64,
    path: PathBuf,
}

impl Sample {
    pub(super) fn of<S: ReadAt>(storage: &S) -> Result<Self> {
        let len = storage.byte_len()?;
        let mut head = vec![0; to_usize(len.min(HEAD))];
        storage.read_exact_at(&mut head, 0)?;
        let mut tail = vec![0; to_usize(len.min(TAIL))];
        storage.read_exact_at(&mut tail, len.saturating_sub(TAIL))?;
        Ok(Self {
            head,
            tail,
            len,
            path: storage.name().to_path_buf(),
        })
    }

    pub(super) fn into_head(self) -> Vec<u8> {
        self.head
    }

    fn has(&self, at: usize, bytes: &[u8]) -> bool {
        self.head
            .get(at..)
            .is_some_and(|head| head.starts_with(bytes))
    }

    /// The head, without a byte order mark or leading spaces.
    fn text(&self) -> &[u8] {
        let head = self.head.as_slice();
        head.strip_prefix(b"\xEF\xBB\xBF")
            .unwrap_or(head)
            .trim_ascii_start()
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.head.get(at).copied()
    }

    fn le32(&self, at: usize) -> Option<u32> {
        let bytes = self.head.get(at..at.checked_add(4)?)?;
        Some(LittleEndian::read_u32(bytes))
    }

    fn le64(&self, at: usize) -> Option<u64> {
        let bytes = self.head.get(at..at.checked_add(8)?)?;
        Some(LittleEndian::read_u64(bytes))
    }

    /// Returns whether the first sector may be that of a disk, with a boot signature.
    fn can_boot(&self) -> bool {
        self.has(510, &[0x55, 0xAA])
    }
}

/// How a format is recognized.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// By one of these at the start of the file.
    Start(&'static [&'static [u8]]),
    /// By these bytes at this offset.
    At(usize, &'static [u8]),
    /// By these bytes, this many bytes before the end of the file.
    BeforeEnd(u64, &'static [u8]),
    /// By more than a constant.
    Fields(fn(&Sample) -> bool),
    /// By its extension alone, unless the first sector is that of a disk: nothing inside the file is known.
    Name,
}

impl Mark {
    pub(super) fn is_on(self, sample: &Sample, extensions: &[&str]) -> bool {
        match self {
            Self::Start(all) => all.iter().any(|bytes| sample.has(0, bytes)),
            Self::At(at, bytes) => sample.has(at, bytes),
            Self::BeforeEnd(back, bytes) => {
                sample.len >= back
                    && (TAIL.checked_sub(back))
                        .and_then(|at| sample.tail.get(to_usize(at.min(sample.len))..))
                        .is_some_and(|tail| tail.starts_with(bytes))
            }
            Self::Fields(test) => test(sample),
            Self::Name => is_named(&sample.path, extensions) && !sample.can_boot(),
        }
    }
}

/// Returns whether `path` has one of these extensions.
pub(super) fn is_named(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| {
        let mut known = extensions.iter();
        known.any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// gzip: two bytes, the only defined method, and three flags that must be clear: 27 bits.
pub(super) fn gzip(sample: &Sample) -> bool {
    let flags = sample.byte(3).is_some_and(|flags| flags & 0xE0 == 0);
    sample.has(0, &[0x1F, 0x8B, 8]) && flags
}

/// bzip2: `BZh` and the block size: 28 bits.
pub(super) fn bzip2(sample: &Sample) -> bool {
    sample.has(0, b"BZh")
        && sample
            .byte(3)
            .is_some_and(|size| (b'1'..=b'9').contains(&size))
}

/// zstd: a frame, or a skippable frame, with which files by parallel compressors begin: 28 bits.
pub(super) fn zstd(sample: &Sample) -> bool {
    const SKIPPED: u32 = 0x184D_2A50;
    let magic = sample.le32(0);
    magic == Some(0xFD2F_B528) || magic.is_some_and(|magic| magic & !0xF == SKIPPED)
}

/// lzma has no signature: the usual properties, a dictionary size that is actually used, and a length that is unknown
/// or possible for a file: at least 70 bits.
pub(super) fn lzma(sample: &Sample) -> bool {
    let dictionary = sample.le32(1).is_some_and(|size| {
        let half = size & size.wrapping_sub(1);
        size >= 1 << 16 && (half == 0 || half == size / 3 * 2)
    });
    let known = sample.le64(5).is_some_and(|len| len < 1 << 40 && len > 0);
    let length = known || sample.le64(5) == Some(u64::MAX);
    sample.byte(0) == Some(0x5D) && dictionary && length && !sample.can_boot()
}

/// tar: `ustar` or, in older archives, a header with a correct checksum.
pub(super) fn tar(sample: &Sample) -> bool {
    sample.has(257, b"ustar\0") || sample.has(257, b"ustar ") || old_tar(sample)
}

/// OVA: a tar archive whose first file is a virtual machine's description.
pub(super) fn ova(sample: &Sample) -> bool {
    tar(sample) && first_name(sample).is_some_and(|name| name.ends_with(b".ovf"))
}

/// XVA: a tar archive whose first file is `XenServer`'s description of the virtual machine.
pub(super) fn xva(sample: &Sample) -> bool {
    tar(sample) && first_name(sample).is_some_and(|name| name.ends_with(b"ova.xml"))
}

fn first_name(sample: &Sample) -> Option<&[u8]> {
    sample.head.get(..100)?.split(|byte| *byte == 0).next()
}

/// A tar header as of 1979: a name, then octal numbers, one of which is the sum of all bytes.
fn old_tar(sample: &Sample) -> bool {
    let Some(header) = sample.head.first_chunk::<512>() else {
        return false;
    };
    let Some(sum) = octal(header.get(148..156).unwrap_or_default()) else {
        return false;
    };
    let bytes = header.iter().enumerate();
    let computed: u64 = bytes
        .map(|(at, byte)| {
            let blank = (148..156).contains(&at);
            u64::from(if blank { b' ' } else { *byte })
        })
        .sum();
    let mode = octal(header.get(100..108).unwrap_or_default());
    let size = octal(header.get(124..136).unwrap_or_default());
    sum == computed && mode.is_some() && size.is_some() && header[0] > b' ' && header[0] < 0x7F
}

/// A number in a tar field: octal digits after spaces, terminated by a space or a zero byte.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte));
    let digits = digits.get(..end?)?;
    if digits.is_empty() {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum * 8 + u64::from(digit - b'0');
    Some(digits.iter().fold(0, add))
}

/// AFF4: a zip archive whose first file is one that only these have.
pub(super) fn aff4(sample: &Sample) -> bool {
    let names: [&[u8]; 3] = [b"container.description", b"information.turtle", b"aff4"];
    sample.has(0, b"PK\x03\x04") && names.iter().any(|name| sample.has(30, name))
}

/// A sparse VMDK extent without a disk descriptor: one of several.
pub(super) fn vmdk_part(sample: &Sample) -> bool {
    let stem = sample.path.file_stem().unwrap_or_default();
    let stem = stem.as_encoded_bytes();
    let numbered = stem
        .last_chunk()
        .is_some_and(|[dash, s, rest @ ..]: &[u8; 5]| {
            *dash == b'-' && s.eq_ignore_ascii_case(&b's') && rest.iter().all(u8::is_ascii_digit)
        });
    sample.has(0, b"KDMV") && sample.le64(28) == Some(0) && numbered
}

/// Norton Ghost: three bytes that aren't valid code on any processor, and the compression method: 28 bits.
pub(super) fn ghost(sample: &Sample) -> bool {
    sample.has(0, &[0xFE, 0xEF, 1]) && sample.byte(3).is_some_and(|packing| packing <= 10)
}

/// ZFS: the magic number of a send stream, in either byte order, in its first record, which is of type 0.
pub(super) fn zfs_send(sample: &Sample) -> bool {
    const MAGIC: u64 = 0x0002_F5BA_CBAC;
    let magic = sample.le64(8);
    sample.le32(0) == Some(0) && (magic == Some(MAGIC) || magic == Some(MAGIC.swap_bytes()))
}

/// An alias of Xen Orchestra for a VHD that is stored as a folder of blocks: the name of that folder.
pub(super) fn alias(sample: &Sample) -> bool {
    let name = sample.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().to_ascii_lowercase();
    name.ends_with(".alias.vhd") && sample.len <= 4096
}

/// A VHD set: the small VHDX that Hyper-V keeps next to the files that contain the disk.
pub(super) fn vhd_set(sample: &Sample) -> bool {
    let extension = sample.path.extension().unwrap_or_default();
    sample.has(0, b"vhdxfile") && extension.eq_ignore_ascii_case("vhds")
}

/// cpio: six octal digits or, in its oldest form, 16 bits in either byte order, a possible file mode, and a name that
/// ends where its length says.
pub(super) fn cpio(sample: &Sample) -> bool {
    let digits = |from: usize, hex: bool| {
        let digits = sample.head.get(from..from + 8).unwrap_or_default();
        let fits = |byte: &u8| byte.is_ascii_hexdigit() && (hex || byte.is_ascii_digit());
        digits.len() == 8 && digits.iter().all(fits)
    };
    let modern = sample.has(0, b"070701") || sample.has(0, b"070702");
    if modern || sample.has(0, b"070707") {
        return digits(6, modern);
    }
    let half = |at: usize| {
        let bytes = sample.head.get(at..at + 2)?;
        Some(if sample.has(0, &[0xC7, 0x71]) {
            LittleEndian::read_u16(bytes)
        } else {
            BigEndian::read_u16(bytes)
        })
    };
    let mode = half(6)
        .is_some_and(|mode| matches!(mode >> 12, 0 | 0o1 | 0o2 | 0o4 | 0o6 | 0o10 | 0o12 | 0o14));
    let name = half(20).map(usize::from).filter(|len| *len > 1);
    let name = name.and_then(|len| sample.head.get(26..26 + len));
    let named = name
        .and_then(<[u8]>::split_last)
        .is_some_and(|(end, name)| *end == 0 && !name.contains(&0));
    (sample.has(0, &[0xC7, 0x71]) || sample.has(0, &[0x71, 0xC7])) && mode && named
}

/// compress: two bytes, the code width, and then codes, none of which exceeds those known so far: more than 80 bits for
/// 100 codes.
pub(super) fn compress(sample: &Sample) -> bool {
    const WIDTH: usize = 9;
    let flags = sample.byte(2).unwrap_or_default();
    if !sample.has(0, &[0x1F, 0x9D]) || flags & 0x60 != 0 || !(9..=16).contains(&(flags & 0x1F)) {
        return false;
    }
    let first_free = if flags & 0x80 == 0 { 256 } else { 257 };
    let bits = sample.head.get(3..).unwrap_or_default();
    let code = |n: usize| {
        let at = n * WIDTH;
        let pair = bits.get(at / 8..at / 8 + 2)?;
        Some(usize::from(LittleEndian::read_u16(pair) >> (at % 8)) & 0x1FF)
    };
    let codes = (0..100).map_while(code);
    let known = codes.enumerate().all(|(n, code)| match n {
        0 => code < 256,
        n => code < first_free + n,
    });
    known && sample.len > 3 && !sample.can_boot()
}

/// dar: the number 123, a label of ten bytes, the flag of the last or an earlier slice, and the only possible
/// continuation of its header.
pub(super) fn dar(sample: &Sample) -> bool {
    let flag = sample.byte(14).is_some_and(|flag| b"TN".contains(&flag));
    let more = sample.byte(15).is_some_and(|more| b"TSN".contains(&more));
    sample.has(0, &[0, 0, 0, 0x7B]) && flag && more && !sample.can_boot()
}

/// zpaq: the tag before a block, or the block itself.
pub(super) fn zpaq(sample: &Sample) -> bool {
    let tag = b"7kSt\xA01\x83\xD3\x8C\xB2\x28\xB0\xD3";
    sample.has(0, tag) || sample.has(0, b"zPQ\x01\x01") || sample.has(0, b"zPQ\x02\x01")
}

/// LHA: the name of its compression method, after the length and the sum of its header.
pub(super) fn lha(sample: &Sample) -> bool {
    let way = sample.head.get(2..7).unwrap_or_default();
    let known = |way: &[u8]| way.starts_with(b"-lh") || way.starts_with(b"-lz");
    known(way) && way.ends_with(b"-") && !sample.can_boot()
}

/// HTML: the beginning of a page, in upper or lower case.
pub(super) fn html(sample: &Sample) -> bool {
    let text = sample.text();
    [&b"<!doctype html"[..], b"<html"].iter().any(|start| {
        let head = text.get(..start.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(start))
    })
}

/// XML, as in responses of services.
pub(super) fn xml(sample: &Sample) -> bool {
    let text = sample.text();
    text.starts_with(b"<?xml ") || text.starts_with(b"<Error>") || text.starts_with(b"<Error ")
}

/// JSON: the start of an object, or of an array of objects, and nothing but text up to the end or up to zeros.
pub(super) fn json(sample: &Sample) -> bool {
    let text = sample.text();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let next = text.get(1..).unwrap_or_default().trim_ascii_start();
    let object = text.starts_with(b"{") && next.starts_with(b"\"");
    let array = text.starts_with(b"[") && (next.starts_with(b"{") || next.starts_with(b"\""));
    let printed = |byte: &u8| *byte >= b' ' || b"\t\r\n".contains(byte);
    (object || array) && text.len() >= 8 && text.iter().all(printed)
}

/// A manifest of a store: JSON that begins with the member that all manifests have first.
pub(super) fn manifest(sample: &Sample) -> bool {
    let head = sample.head.trim_ascii_start();
    head.strip_prefix(b"{")
        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"schema_version\":"))
}

/// The size of the virtual disk, if the first sector of a foreign image contains it.
pub(super) fn disk_size<S: ReadAt>(storage: &S, head: &[u8]) -> Option<u64> {
    let le64 = |at: usize| Some(LittleEndian::read_u64(head.get(at..at.checked_add(8)?)?));
    let be64 = |at: usize| Some(BigEndian::read_u64(head.get(at..at.checked_add(8)?)?));
    if head.starts_with(b"vhdxfile") {
        return vhdx_size(storage);
    }
    if head.starts_with(b"QFI\xFB") {
        return be64(24);
    }
    if head.starts_with(b"QED\0") {
        return le64(48);
    }
    if head.starts_with(b"KDMV") {
        return le64(12)?.checked_mul(512);
    }
    if head.starts_with(b"Withou") {
        return le64(36)?.checked_mul(512);
    }
    let is_vdi = head
        .get(64..)
        .is_some_and(|head| head.starts_with(&[0x7F, 0x10, 0xDA, 0xBE]));
    if is_vdi { le64(368) } else { None }
}

/// The disk size in the metadata of a VHDX, which is located by its region table.
fn vhdx_size<S: ReadAt>(storage: &S) -> Option<u64> {
    const REGIONS: u64 = 192 << 10;
    const METADATA: [u8; 16] = [
        0x06, 0xA2, 0x7C, 0x8B, 0x90, 0x47, 0x9A, 0x4B, 0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88,
        0x6E,
    ];
    const DISK_SIZE: [u8; 16] = [
        0x24, 0x42, 0xA5, 0x2F, 0x1B, 0xCD, 0x76, 0x48, 0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4,
        0xB8,
    ];
    let read = |at: u64| {
        let mut table = [0; 4096];
        storage.read_exact_at(&mut table, at).ok().map(|()| table)
    };
    // The header is followed by entries of 32 bytes, each with an id and an offset.
    let entry = |table: &[u8; 4096], head: usize, id: &[u8; 16]| {
        let (_, entries) = table.split_at(head);
        let (entries, _) = entries.as_chunks::<32>();
        entries.iter().copied().find(|entry| entry.starts_with(id))
    };
    let region = entry(&read(REGIONS)?, 16, &METADATA)?;
    let metadata = LittleEndian::read_u64(region.get(16..24)?);
    let item = entry(&read(metadata)?, 32, &DISK_SIZE)?;
    let at = LittleEndian::read_u32(item.get(16..20)?);
    let mut size = [0; 8];
    let at = metadata.checked_add(u64::from(at))?;
    storage.read_exact_at(&mut size, at).ok()?;
    Some(LittleEndian::read_u64(&size))
}
