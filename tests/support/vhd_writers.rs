//! Genuine files of the programs that write VHDs, rebuilt byte by byte in the shapes that they give them, and small
//! helpers to damage such files.
//!
//! As in `vhd_builder`, nothing here uses the library.
#![allow(dead_code)]

pub(crate) const SECTOR: usize = 512;
const MIB: usize = 1 << 20;

/// The footer fields in which programs differ.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    pub(crate) creator: &'static [u8; 4],
    pub(crate) version: u32,
    pub(crate) host_os: [u8; 4],
    pub(crate) features: u32,
    pub(crate) geometry: [u8; 4],
    pub(crate) size: usize,
    pub(crate) id: [u8; 16],
    pub(crate) disk_type: u32,
    pub(crate) block_size: usize,
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Sets the checksum of `bytes`, a footer (at 64) or a header (at 36).
pub(crate) fn seal(bytes: &mut [u8]) {
    let field = if bytes.len() == 1024 { 36 } else { 64 };
    bytes[field..field + 4].fill(0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    put32(bytes, field, !sum);
}

impl Writer {
    pub(crate) const WINDOWS: Self = Self {
        creator: b"win ",
        version: 0x000A_0000,
        host_os: *b"Wi2k",
        features: 2,
        // The geometry of 4 MiB is 120/4/17.
        geometry: [0, 120, 4, 17],
        size: 4 * MIB,
        id: *b"\x11\x22\x33\x44\x55\x66\x47\x88\x99\xAA\xBB\xCC\xDD\xEE\xFF\x01",
        disk_type: 3,
        block_size: 2 * MIB,
    };

    pub(crate) fn footer(&self) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        bytes[0..8].copy_from_slice(b"conectix");
        put32(&mut bytes, 8, self.features);
        put32(&mut bytes, 12, 0x0001_0000);
        put64(
            &mut bytes,
            16,
            if self.disk_type == 2 { u64::MAX } else { 512 },
        );
        put32(&mut bytes, 24, 0x1800_0000);
        bytes[28..32].copy_from_slice(self.creator);
        put32(&mut bytes, 32, self.version);
        bytes[36..40].copy_from_slice(&self.host_os);
        put64(&mut bytes, 40, self.size as u64);
        put64(&mut bytes, 48, self.size as u64);
        bytes[56..60].copy_from_slice(&self.geometry);
        put32(&mut bytes, 60, self.disk_type);
        bytes[68..84].copy_from_slice(&self.id);
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn header(&self, table_at: usize, entries: usize) -> [u8; 1024] {
        let mut bytes = [0; 1024];
        bytes[0..8].copy_from_slice(b"cxsparse");
        put64(&mut bytes, 8, u64::MAX);
        put64(&mut bytes, 16, table_at as u64);
        put32(&mut bytes, 24, 0x0001_0000);
        put32(&mut bytes, 28, u32::try_from(entries).unwrap());
        put32(&mut bytes, 32, u32::try_from(self.block_size).unwrap());
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn blocks(&self) -> usize {
        self.size.div_ceil(self.block_size)
    }

    pub(crate) fn bitmap_len(&self) -> usize {
        (self.block_size / SECTOR)
            .div_ceil(8)
            .next_multiple_of(SECTOR)
    }

    pub(crate) fn stride(&self) -> usize {
        self.bitmap_len() + self.block_size
    }

    /// Builds a fixed disk with some data.
    pub(crate) fn fixed(&self) -> Vec<u8> {
        let writer = Self {
            disk_type: 2,
            ..*self
        };
        let mut file = data(self.size, 1);
        file.extend(writer.footer());
        file
    }

    /// Builds the footer copy, the header, and a BAT at 1536 padded with `padding`, but no blocks or trailing footer.
    pub(crate) fn head(&self, entries: usize, padding: u8) -> Vec<u8> {
        let table_len = (entries * 4).next_multiple_of(SECTOR);
        let mut file = vec![0xFF; 1536 + table_len];
        file[..512].copy_from_slice(&self.footer());
        file[512..1536].copy_from_slice(&self.header(1536, entries));
        file[1536 + entries * 4..].fill(padding);
        file
    }

    /// Appends block `n`, whose first and last sectors hold data, and whose other bits are set if `full`.
    pub(crate) fn add_block(&self, file: &mut Vec<u8>, n: usize, full: bool) {
        let sectors = self.block_size / SECTOR;
        let sector = u32::try_from(file.len() / SECTOR).unwrap();
        put32(file, 1536 + n * 4, sector);
        let mut bitmap = vec![0; self.bitmap_len()];
        for sector in 0..sectors {
            if full || sector == 0 || sector + 1 == sectors {
                bitmap[sector / 8] |= 0x80 >> (sector % 8);
            }
        }
        file.extend(bitmap);
        let start = file.len();
        file.resize(start + self.block_size, 0);
        for at in [start, start + self.block_size - SECTOR] {
            let page = data(SECTOR, n + 1);
            file[at..at + SECTOR].copy_from_slice(&page);
        }
    }

    /// Builds a dynamic disk with all of its blocks in the layout of Windows and qemu.
    pub(crate) fn dynamic(&self, padding: u8, full: bool) -> Vec<u8> {
        let mut file = self.head(self.blocks(), padding);
        for n in 0..self.blocks() {
            self.add_block(&mut file, n, full);
        }
        file.extend(self.footer());
        file
    }

    /// Builds a differencing disk in the layout of Windows: the absolute locator at 4096, the BAT at 8192, the relative
    /// locator at 12288, the first block at sector 159; a full path in the header's name, and no time stamp of the
    /// parent.
    pub(crate) fn windows_child(&self) -> Vec<u8> {
        let writer = Self {
            disk_type: 4,
            ..*self
        };
        let entries = writer.blocks();
        let mut header = writer.header(8192, entries);
        header[40..56].copy_from_slice(b"parent-unique-id");
        for (n, unit) in "C:\\disks\\base.vhd".encode_utf16().enumerate() {
            header[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
        }
        let mut file = vec![0; 159 * SECTOR];
        for (n, (code, path, at)) in [
            (b"W2ku", "C:\\disks\\base.vhd", 4096_usize),
            (b"W2ru", ".\\base.vhd", 12_288),
        ]
        .into_iter()
        .enumerate()
        {
            let path = utf16_le(path);
            let entry = &mut header[576 + n * 24..][..24];
            entry[0..4].copy_from_slice(code);
            put32(entry, 4, 512);
            put32(entry, 8, u32::try_from(path.len()).unwrap());
            put64(entry, 16, at as u64);
            file[at..at + path.len()].copy_from_slice(&path);
        }
        seal(&mut header);
        file[..512].copy_from_slice(&writer.footer());
        file[512..1536].copy_from_slice(&header);
        file[8192..8192 + SECTOR].fill(0xFF);
        put32(&mut file, 8192, 159);
        let mut bitmap = vec![0; writer.bitmap_len()];
        // Runs that start and end within a byte.
        bitmap[0] = 0b0011_1010;
        bitmap[15] = 0b0000_0001;
        file.extend(bitmap);
        let start = file.len();
        // Data under clear bits of a child is undefined.
        file.extend(data(writer.block_size, 9));
        assert_eq!(start, 160 * SECTOR);
        file.extend(writer.footer());
        file
    }

    /// Builds a dynamic disk in the layout of tapdisk: room for growth in the BAT, a batmap, block data at multiples of
    /// 4096.
    pub(crate) fn tapdisk(&self, hidden: bool, sealed: bool) -> Vec<u8> {
        let mut footer = self.footer();
        footer[85] = u8::from(hidden);
        if sealed {
            seal(&mut footer);
        }
        let entries = self.blocks() + 700;
        let mut file = self.head(entries, 0);
        file[..512].copy_from_slice(&footer);
        let batmap_at = file.len();
        file.resize(batmap_at + 1024, 0);
        for n in 0..self.blocks() {
            let data_at = (file.len() + self.bitmap_len()).next_multiple_of(4096);
            file.resize(data_at - self.bitmap_len(), 0);
            self.add_block(&mut file, n, n == 1);
        }
        // The second block is full.
        file[batmap_at + 512] = 0b0100_0000;
        set_batmap(&mut file, batmap_at);
        file.extend(footer);
        file
    }
}

/// Writes the header of a batmap of one sector, which follows it.
pub(crate) fn set_batmap(file: &mut [u8], at: usize) {
    file[at..at + 8].copy_from_slice(b"tdbatmap");
    put64(file, at + 8, at as u64 + 512);
    put32(file, at + 16, 1);
    put32(file, at + 20, 0x0001_0002);
    let sum: u32 = file[at + 512..at + 1024]
        .iter()
        .map(|b| u32::from(*b))
        .sum();
    put32(file, at + 24, !sum);
}

pub(crate) fn utf16_le(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .flat_map(|unit| unit.to_be_bytes().into_iter().rev())
        .collect()
}

/// Returns bytes without zeros.
pub(crate) fn data(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n * 7 + seed * 31) % 255).unwrap() + 1)
        .collect()
}

/// Changes both footers of a sparse file, or the one of a fixed file, and seals them.
pub(crate) fn edit_footers(file: &mut [u8], change: impl Fn(&mut [u8])) {
    let trailing = file.len() - SECTOR;
    if file.get(512..520) == Some(b"cxsparse") {
        change(&mut file[..SECTOR]);
        seal(&mut file[..SECTOR]);
    }
    change(&mut file[trailing..]);
    seal(&mut file[trailing..]);
}

/// Changes the dynamic disk header at 512 and seals it.
pub(crate) fn edit_header(file: &mut [u8], change: impl Fn(&mut [u8])) {
    change(&mut file[512..1536]);
    seal(&mut file[512..1536]);
}
