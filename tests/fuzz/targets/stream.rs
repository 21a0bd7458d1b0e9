//! Bytes as a stream of snapshots: what is read is what was written there, up to the first record that isn't right.

use std::io::{self, Read};
use std::path::Path;

use vhdkit::snapshot::{Record, StreamReader, StreamWriter};
use vhdkit::{Error, ErrorKind, Result};

use super::input::Input;

const NAME: &str = "stream";

pub fn run(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    if how % 4 == 0 {
        read_in_all_ways(rest);
        return;
    }
    let mut input = Input(rest);
    let (stream, right) = forge(&mut input);
    let whole = read_in_all_ways(&stream);
    assert_eq!(whole, right, "a stream that is right is read, and no other");
    let flipped = usize::from(input.u16()) % stream.len();
    let mut bad = stream.clone();
    bad[flipped] ^= 1 << (how / 4 % 8);
    assert!(!read_in_all_ways(&bad), "a flipped bit passed");
    assert!(
        !read_in_all_ways(&stream[..flipped]),
        "half a stream passed"
    );
}

/// A stream with checksums, sequence and digest made right around what the input says, and whether all of it is right.
fn forge(input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let name = [&b"web"[..], b"a-b.c_9", b"-x", b"", b"a/b"][usize::from(input.u8() % 8).min(4)];
    let mut right = !name.is_empty() && name != b"-x" && name != b"a/b";
    let mut out = b"\x89VHDSND\n\0\0\0\x01\0\0\0\0".to_vec();
    out.extend((name.len() as u32).to_be_bytes());
    out.extend(name);
    seal(&mut out, 0);
    let mut sequence = 0_u64;
    let mut ended = false;
    while !input.is_empty() && sequence < 64 {
        sequence += 1;
        right &= !ended;
        let (start, choice) = (out.len(), input.u8());
        let bytes = match choice % 64 {
            // One of them: more would only be slow.
            0 if out.len() < 1 << 20 => vec![choice; 1 << 20],
            1 if out.len() < 1 << 20 => vec![choice; (1 << 20) + 1],
            _ => input.take(usize::from(choice / 16)).to_vec(),
        };
        let kind =
            [*b"SNAP", *b"DATA", *b"DONE", *b"ENDS", *b"MORE"][usize::from(input.u8() % 9).min(4)];
        let count = match &kind {
            b"DONE" => 0,
            b"ENDS" => input.u32(),
            _ => bytes.len() as u32,
        };
        let wrong = if input.one_in(64) { input.u8() } else { 0 };
        out.extend(kind);
        out.extend(count.wrapping_add(wrong.into()).to_be_bytes());
        out.extend(sequence.wrapping_add((wrong / 16).into()).to_be_bytes());
        match &kind {
            b"SNAP" => out.extend(&bytes),
            b"DATA" => {
                out.extend(input.u64().to_be_bytes());
                out.extend(&bytes);
            }
            b"DONE" => out.extend(input.u64().to_be_bytes()),
            _ => out.extend(blake3::hash(&out[..start]).as_bytes()),
        }
        seal(&mut out, start);
        let sized = matches!(&kind, b"SNAP" | b"DATA");
        right &= kind != *b"MORE" && (!sized || (1..=1 << 20).contains(&bytes.len()));
        // An ENDS record may have any count.
        right &= wrong == 0 || (kind == *b"ENDS" && wrong < 16);
        if kind == *b"ENDS" {
            out.extend(b"\nDNSDHV\x89");
            ended = true;
        }
    }
    (out, right && ended)
}

/// Ends what begins at `start` with its CRC.
fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc32fast::hash(&out[start..]);
    out.extend(crc.to_be_bytes());
}

/// Whether it is a stream; however it comes in, the answer is the same.
fn read_in_all_ways(bytes: &[u8]) -> bool {
    let whole = read(bytes, bytes);
    let pieces = read(Pieces(bytes), bytes);
    match (&whole, &pieces) {
        (Ok(()), Ok(())) => true,
        (Err(a), Err(b)) => {
            assert_eq!(a.to_string(), b.to_string());
            fault(a, bytes.len());
            false
        }
        _ => panic!("at once {whole:?}, in pieces {pieces:?}"),
    }
}

fn fault(error: &Error, len: usize) {
    let kinds = [ErrorKind::Damaged, ErrorKind::Unsupported];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(
        error.offset().is_some_and(|at| at <= len as u64),
        "{error:?}"
    );
    assert!(error.path() == Some(Path::new(NAME)), "{error:?}");
}

/// Reads a stream to its end. Every record, written again, is what stands in `bytes`.
fn read<R: Read>(input: R, bytes: &[u8]) -> Result<()> {
    let mut reader = StreamReader::new(input, Path::new(NAME))?;
    let mut again = Vec::new();
    let mut ended = false;
    let mut writer = StreamWriter::new(Same(&mut again, bytes), Path::new(NAME), reader.disk())?;
    while !ended {
        let record = reader.next_record()?;
        ended = matches!(record, Record::End(_));
        writer.push(&record)?;
    }
    let len = writer.finish()?;
    assert_eq!(len, bytes.len() as u64, "something was left unread");
    Ok(())
}

/// Compares what is written with what should be; keeps only where it is.
struct Same<'a>(&'a mut Vec<()>, &'a [u8]);

impl io::Write for Same<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let at = self.0.len();
        assert!(
            self.1.get(at..at + buf.len()) == Some(buf),
            "decode, encode lost something"
        );
        self.0.resize(at + buf.len(), ());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Comes in pieces of odd sizes.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(1 + self.0.len() % 7 * 1000);
        let buf = &mut buf[..len];
        self.0.read(buf)
    }
}
