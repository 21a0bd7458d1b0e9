//! Writes diffs section by section, as docs/diff-format.md has them: what it is told, and right around it.

/// Head, frames, index and trailer of a diff.
pub struct Forge {
    pub out: Vec<u8>,
    /// Whether what is added next belongs to the way back.
    pub back: bool,
    sequence: u64,
    ways: [Direction; 2],
}

/// What is counted of the way forward, or of the way back.
#[derive(Default)]
struct Direction {
    segment: Vec<[u64; 3]>,
    root: Vec<[u64; 3]>,
    totals: [u64; 5],
}

/// A PAGE section but for what follows from the rest.
pub struct PageSection<'a> {
    pub window: u64,
    /// First page and number of pages, encoded.
    pub ranges: &'a [[u8; 4]],
    pub payload_len: u32,
    /// The codec, and three reserved bytes.
    pub codec: [u8; 4],
    pub stored: &'a [u8],
    pub base_hash: [u8; 32],
}

impl Forge {
    /// Begins with a header of two sizes.
    pub fn new(base_size: u64, target_size: u64) -> Self {
        let mut head = b"\x89VHDDIF\n".to_vec();
        for number in [1_u32, 0, 52, 512, 4 << 20, 0] {
            head.extend(number.to_be_bytes());
        }
        head.extend(base_size.to_be_bytes());
        head.extend(target_size.to_be_bytes());
        Self::with_head(head)
    }

    /// Begins with a header that lacks its checksum.
    pub fn with_head(head: Vec<u8>) -> Self {
        let mut forge = Self {
            out: head,
            back: false,
            sequence: 1,
            ways: <[Direction; 2]>::default(),
        };
        forge.crc(0);
        forge
    }

    pub fn page(&mut self, section: &PageSection<'_>) {
        let at = self.lead(*b"PAGE", section.ranges.len());
        self.out.extend(section.window.to_be_bytes());
        self.out.extend(section.payload_len.to_be_bytes());
        self.out.extend((section.stored.len() as u32).to_be_bytes());
        self.out.extend(section.codec);
        self.out
            .extend(crc32fast::hash(section.stored).to_be_bytes());
        self.out.extend(section.base_hash);
        self.out.extend(section.ranges.iter().flatten());
        self.crc(at);
        self.out.extend(section.stored);
        let mut span: Option<[u64; 2]> = None;
        for [a, b, c, d] in section.ranges {
            let first = u64::from(u16::from_be_bytes([*a, *b]));
            let count = u64::from(u16::from_be_bytes([*c & 0x7F, *d])) + 1;
            let start = section.window.wrapping_add(first * 512);
            let end = start.wrapping_add(count * 512);
            span = Some([span.map_or(start, |span| span[0]), end]);
            // Wrapping: a clear of any length may have come before.
            let total = &mut self.way().totals[if *c & 0x80 == 0 { 2 } else { 3 }];
            *total = total.wrapping_add(count * 512);
        }
        self.way().totals[1] += section.ranges.len() as u64;
        self.way().totals[4] += section.stored.len() as u64;
        let [start, end] = span.unwrap_or_default();
        self.indexed(start, end, at);
    }

    pub fn clear(&mut self, start: u64, length: u64, base_hash: [u8; 32]) {
        let at = self.lead(*b"CLER", 0);
        self.out.extend(start.to_be_bytes());
        self.out.extend(length.to_be_bytes());
        self.out.extend(base_hash);
        self.crc(at);
        self.way().totals[1] += 1;
        let totals = &mut self.way().totals;
        totals[3] = totals[3].wrapping_add(length);
        self.indexed(start, start.wrapping_add(length), at);
    }

    /// A section of any kind and content, right in nothing but its place.
    pub fn other(&mut self, kind: [u8; 4], count: u32, content: &[u8]) {
        let at = self.lead(kind, count as usize);
        self.out.extend(content);
        self.crc(at);
    }

    pub fn finish(mut self, digests: [Option<[u8; 32]>; 2]) -> Vec<u8> {
        for back in [false, true] {
            self.back = back;
            self.index();
        }
        self.back = false;
        let [forward, back] = std::mem::take(&mut self.ways);
        let numbers =
            |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_be_bytes()).collect() };
        let at = self.lead(*b"TAIL", forward.root.len());
        let flags = u32::from(digests[0].is_some()) + 2 * u32::from(digests[1].is_some());
        self.out.extend(numbers(&forward.totals));
        self.out.extend(flags.to_be_bytes());
        self.out.extend([0; 4]);
        for digest in digests {
            self.out.extend(digest.unwrap_or_default());
        }
        self.out.extend(numbers(forward.root.as_flattened()));
        if self.out[15] & 1 == 1 {
            self.out.extend((back.root.len() as u32).to_be_bytes());
            self.out.extend([0; 4]);
            self.out.extend(numbers(&back.totals));
            self.out.extend(numbers(back.root.as_flattened()));
        }
        self.out.extend((at as u64).to_be_bytes());
        let digest = *blake3::hash(&self.out).as_bytes();
        self.out.extend(digest);
        self.out.extend(b"\nFIDDHV\x89");
        self.out
    }

    fn way(&mut self) -> &mut Direction {
        &mut self.ways[usize::from(self.back)]
    }

    fn lead(&mut self, kind: [u8; 4], count: usize) -> usize {
        let at = self.out.len();
        self.out.extend(if self.back {
            kind.map(|letter| letter.to_ascii_lowercase())
        } else {
            kind
        });
        self.out.extend((count as u32).to_be_bytes());
        self.out.extend(self.sequence.to_be_bytes());
        self.sequence += 1;
        at
    }

    fn crc(&mut self, from: usize) {
        let crc = crc32fast::hash(&self.out[from..]);
        self.out.extend(crc.to_be_bytes());
    }

    fn indexed(&mut self, start: u64, end: u64, at: usize) {
        let way = self.way();
        way.totals[0] += 1;
        way.segment.push([start, end, at as u64]);
        if way.segment.len() == 4096 {
            self.index();
        }
    }

    fn index(&mut self) {
        let segment = std::mem::take(&mut self.way().segment);
        let (Some(first), Some(last)) = (segment.first(), segment.last()) else {
            return;
        };
        let at = self.lead(*b"INDX", segment.len());
        self.way().root.push([first[0], last[1], at as u64]);
        self.out
            .extend(segment.iter().flatten().flat_map(|n| n.to_be_bytes()));
        self.crc(at);
    }
}
