//! The binary format of snapshot streams: pure encoding and decoding of records, and reading and writing them in order.
//! `docs/send-format.md` describes the same bytes. All integers are big-endian.
//!
//! ```text
//! header  (SNAP DATA… DONE)…  ENDS
//! ```

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::manifest::LONGEST;
use super::name::check_disk_name;
use super::sparse_chunks::PIECE;
use crate::error::{Error, Result};
use crate::remedy::{Remedy, SnapshotJob, Step};

/// The first eight bytes. The first one isn't text, and the last one reveals line-ending conversion.
const MAGIC: [u8; 8] = *b"\x89VHDSND\n";

/// The last eight bytes.
const END_MAGIC: [u8; 8] = *b"\nDNSDHV\x89";

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Type, count, sequence.
const LEAD: usize = 16;

const SNAPSHOT: [u8; 4] = *b"SNAP";
const DATA: [u8; 4] = *b"DATA";
const DONE: [u8; 4] = *b"DONE";
const END: [u8; 4] = *b"ENDS";

/// The contents of a record.
#[derive(Debug)]
pub enum Record<'a> {
    /// A snapshot begins: its manifest, exactly as in its file.
    Snapshot(&'a [u8]),
    /// Bytes of its data at this offset.
    Data(u64, &'a [u8]),
    /// The snapshot's data, of this length, is complete.
    Done(u64),
    /// The stream with this many snapshots is complete.
    End(u32),
}

/// Writes a stream of snapshots, as described in `docs/send-format.md`.
#[derive(Debug)]
pub struct StreamWriter<W> {
    out: W,
    name: PathBuf,
    hasher: blake3::Hasher,
    offset: u64,
    sequence: u64,
}

impl<W: Write> StreamWriter<W> {
    /// Begins a stream of snapshots of `disk`. Messages call `out` `name`.
    pub fn new(out: W, name: &Path, disk: &str) -> Result<Self> {
        let mut writer = Self {
            out,
            name: name.to_path_buf(),
            hasher: blake3::Hasher::new(),
            offset: 0,
            sequence: 0,
        };
        let mut head = [&MAGIC[..], &VERSION.to_be_bytes(), &[0; 4]].concat();
        head.extend(count(disk.len())?);
        head.extend(disk.as_bytes());
        head.extend(crc32fast::hash(&head).to_be_bytes());
        writer.put(&head)?;
        Ok(writer)
    }

    /// Writes the next record. The caller is responsible for the order that the format requires.
    pub fn push(&mut self, record: &Record<'_>) -> Result<()> {
        match *record {
            Record::Snapshot(manifest) => {
                self.record(SNAPSHOT, count(manifest.len())?, &[manifest])
            }
            Record::Data(offset, bytes) => {
                self.record(DATA, count(bytes.len())?, &[&offset.to_be_bytes(), bytes])
            }
            Record::Done(len) => self.record(DONE, [0; 4], &[&len.to_be_bytes()]),
            Record::End(snapshots) => {
                let digest = *self.hasher.finalize().as_bytes();
                self.record(END, snapshots.to_be_bytes(), &[&digest])?;
                self.put(&END_MAGIC)
            }
        }
    }

    /// Flushes everything to `out`. Returns the length of the stream in bytes.
    pub fn finish(mut self) -> Result<u64> {
        self.out.flush().map_err(|e| self.failed(e))?;
        Ok(self.offset)
    }

    fn record(&mut self, kind: [u8; 4], count: [u8; 4], body: &[&[u8]]) -> Result<()> {
        self.sequence = self.sequence.saturating_add(1);
        let mut lead = [0; LEAD];
        lead[..4].copy_from_slice(&kind);
        lead[4..8].copy_from_slice(&count);
        lead[8..].copy_from_slice(&self.sequence.to_be_bytes());
        let mut crc = crc32fast::Hasher::new();
        for part in [&lead[..]].iter().chain(body) {
            crc.update(part);
            self.put(part)?;
        }
        self.put(&crc.finalize().to_be_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        self.out.write_all(bytes).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("cannot write", error)
            .with_path(&self.name)
            .with_offset(self.offset)
    }
}

fn count(n: usize) -> Result<[u8; 4]> {
    let n = u32::try_from(n).map_err(|e| Error::usage("too long for a stream").with_source(e))?;
    Ok(n.to_be_bytes())
}

/// Reads a stream of snapshots and trusts nothing, except for what only the manifests in it can tell: which record may
/// follow which, and whether the data matches.
#[derive(Debug)]
pub struct StreamReader<R> {
    input: R,
    name: PathBuf,
    disk: String,
    hasher: blake3::Hasher,
    offset: u64,
    /// The offset of the current record.
    start: u64,
    sequence: u64,
    buffer: Vec<u8>,
}

impl<R: Read> StreamReader<R> {
    /// Reads the header. Messages call `input` `name`.
    pub fn new(input: R, name: &Path) -> Result<Self> {
        let mut reader = Self {
            input,
            name: name.to_path_buf(),
            disk: String::new(),
            hasher: blake3::Hasher::new(),
            offset: 0,
            start: 0,
            sequence: 0,
            buffer: Vec::new(),
        };
        reader.header()?;
        Ok(reader)
    }

    fn header(&mut self) -> Result<()> {
        let magic: [u8; 8] = self.take()?;
        if magic != MAGIC {
            let send = Step::Snapshot {
                job: SnapshotJob::Send { after: None },
                of: None,
            };
            return Err(self
                .damaged("this is not a stream of snapshots")
                .with_found(format_args!("\"{}\"", magic.escape_ascii()))
                .with_expected(format_args!("\"{}\"", MAGIC.escape_ascii()))
                .with_remedy(
                    Remedy::new("feed it what ")
                        .step(send, "sending snapshots")
                        .text(" writes"),
                ));
        }
        let [version, must_understand, len]: [[u8; 4]; 3] =
            [self.take()?, self.take()?, self.take()?];
        let numbers = [version, must_understand].map(u32::from_be_bytes);
        if numbers != [VERSION, 0] {
            return Err(
                Error::unsupported("this version of the stream format is not supported")
                    .with_path(&self.name)
                    .with_offset(8)
                    .with_found(format_args!("{numbers:?}"))
                    .with_expected(format_args!("{:?}", [VERSION, 0]))
                    .with_hint("use the program that wrote it, or a newer vhdkit"),
            );
        }
        let disk = self.sized(u32::from_be_bytes(len), 80)?;
        self.crc(&[&magic, &version, &must_understand, &len, &disk])?;
        let disk = String::from_utf8(disk).unwrap_or_default();
        check_disk_name(&disk)
            .map_err(|e| self.damaged("the disk name is invalid").with_source(e))?;
        self.disk = disk;
        Ok(())
    }

    /// The name of the disk.
    pub fn disk(&self) -> &str {
        &self.disk
    }

    /// Reads and verifies the next record. There is none after [`Record::End`].
    pub fn next_record(&mut self) -> Result<Record<'_>> {
        self.start = self.offset;
        let before = *self.hasher.finalize().as_bytes();
        let lead: [u8; LEAD] = self.take()?;
        let (words, _) = lead.as_chunks::<4>();
        let [kind, count, high, low] = words else {
            return Err(self.cut());
        };
        let count = u32::from_be_bytes(*count);
        let sequence =
            u64::from(u32::from_be_bytes(*high)) << 32 | u64::from(u32::from_be_bytes(*low));
        let (least, most, fixed) = match *kind {
            SNAPSHOT => (1, LONGEST, 0),
            DATA => (1, PIECE, 8),
            DONE => (0, 0, 8),
            END => (0, u64::from(u32::MAX), 32),
            _ => return Err(self.unknown(*kind)),
        };
        let expected = self.sequence.saturating_add(1);
        if sequence != expected {
            return Err(self
                .damaged("a record is lost, repeated or out of place")
                .with_field("sequence")
                .with_found(sequence)
                .with_expected(expected));
        }
        self.sequence = sequence;
        if !(least..=most).contains(&u64::from(count)) {
            return Err(self
                .damaged("a record has an impossible length")
                .with_field("count")
                .with_found(count)
                .with_expected(format_args!("{least} to {most}")));
        }
        let len = if *kind == END { 0 } else { count };
        let mut body = std::mem::take(&mut self.buffer);
        body.resize(fixed + len as usize, 0);
        let read = self.fill(&mut body);
        let read = read.and_then(|()| self.crc(&[&lead, &body]));
        self.buffer = body;
        read?;
        if *kind == END {
            self.end(&before)?;
            return Ok(Record::End(count));
        }
        let (number, bytes) = self.buffer.split_at(fixed);
        let number = number.first_chunk().copied().map(u64::from_be_bytes);
        Ok(match *kind {
            SNAPSHOT => Record::Snapshot(bytes),
            DATA => Record::Data(number.unwrap_or_default(), bytes),
            _ => Record::Done(number.unwrap_or_default()),
        })
    }

    /// Checks that nothing follows the last record.
    fn end(&mut self, digest: &[u8; 32]) -> Result<()> {
        if self.buffer != digest {
            return Err(self
                .damaged("the digest of the stream is wrong")
                .with_field("digest"));
        }
        if self.take::<8>()? != END_MAGIC {
            return Err(self.damaged("the stream doesn't end as it should"));
        }
        self.start = self.offset;
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("there is data after the end of the stream")),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn unknown(&self, kind: [u8; 4]) -> Error {
        self.damaged("this is not a record of a stream")
            .with_field("type")
            .with_found(format_args!("\"{}\"", kind.escape_ascii()))
            .with_expected("SNAP, DATA, DONE or ENDS")
    }

    /// The error for the current record.
    pub(super) fn damaged(&self, message: &str) -> Error {
        Error::damaged(message)
            .with_path(&self.name)
            .with_offset(self.start)
    }

    fn cut(&self) -> Error {
        Error::damaged("the stream ended too early")
            .with_path(&self.name)
            .with_offset(self.offset)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("cannot read", error)
            .with_path(&self.name)
            .with_offset(self.offset)
    }

    fn sized(&mut self, len: u32, most: u32) -> Result<Vec<u8>> {
        if len > most {
            return Err(self
                .damaged("the header has an impossible length")
                .with_found(len));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn crc(&mut self, parts: &[&[u8]]) -> Result<()> {
        let mut crc = crc32fast::Hasher::new();
        for part in parts {
            crc.update(part);
        }
        let found = u32::from_be_bytes(self.take()?);
        let expected = crc.finalize();
        if found == expected {
            return Ok(());
        }
        Err(self
            .damaged("a record was changed in transit")
            .with_field("crc32")
            .with_found(format_args!("{found:#010x}"))
            .with_expected(format_args!("{expected:#010x}")))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => return Err(self.cut()),
                Ok(n) => {
                    filled = filled.saturating_add(n);
                    self.offset = self.offset.saturating_add(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        self.hasher.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::new(&mut bytes, Path::new("out"), "web").unwrap();
        for record in [
            Record::Snapshot(b"{}"),
            Record::Data(0, b"some"),
            Record::Data(9, b"more"),
            Record::Done(20),
            Record::Snapshot(b"{ }"),
            Record::Done(0),
            Record::End(2),
        ] {
            writer.push(&record).unwrap();
        }
        let len = writer.finish().unwrap();
        assert_eq!(len, bytes.len() as u64);
        bytes
    }

    /// All records as text.
    fn read(bytes: &[u8]) -> Result<Vec<String>> {
        let mut reader = StreamReader::new(bytes, Path::new("in"))?;
        let mut all = vec![reader.disk().to_owned()];
        loop {
            let record = reader.next_record()?;
            all.push(format!("{record:?}"));
            if matches!(record, Record::End(_)) {
                return Ok(all);
            }
        }
    }

    #[test]
    fn it_comes_back_as_it_was_and_any_damage_is_found_where_it_is() {
        let good = stream();
        let all = read(&good).unwrap();
        assert_eq!(all.len(), 8);
        assert_eq!(all[3], "Data(9, [109, 111, 114, 101])");
        for at in 0..good.len() {
            for bit in [1, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bit;
                let error = read(&bad).unwrap_err();
                let said = error.offset().unwrap();
                // A length that was increased leads beyond the end.
                let cut = said == good.len() as u64;
                assert!(cut || said <= at as u64, "{at}: {error}");
            }
            let error = read(&good[..at]).unwrap_err();
            assert_eq!(error.offset(), Some(at as u64), "{error}");
        }
        let longer = [&good[..], b"x"].concat();
        assert_eq!(read(&longer).unwrap_err().offset(), Some(good.len() as u64));
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let bytes = stream();
        assert_eq!(&bytes[..8], b"\x89VHDSND\n");
        assert_eq!(&bytes[8..23], b"\0\0\0\x01\0\0\0\0\0\0\0\x03web");
        let crc = crc32fast::hash(&bytes[..23]).to_be_bytes();
        assert_eq!(bytes[23..27], crc);
        assert_eq!(&bytes[27..45], b"SNAP\0\0\0\x02\0\0\0\0\0\0\0\x01{}");
        assert_eq!(bytes[45..49], crc32fast::hash(&bytes[27..45]).to_be_bytes());
        assert_eq!(&bytes[49..65], b"DATA\0\0\0\x04\0\0\0\0\0\0\0\x02");
        let end = bytes.len() - 60;
        assert_eq!(&bytes[end..end + 16], b"ENDS\0\0\0\x02\0\0\0\0\0\0\0\x07");
        assert_eq!(
            bytes[end + 16..end + 48],
            *blake3::hash(&bytes[..end]).as_bytes()
        );
        assert_eq!(&bytes[end + 52..], b"\nDNSDHV\x89");
    }
}
