//! Records which pages of a blob hold data, and when each was last written, as the basis of correct lists of changes.
//!
//! Every change of a blob has a number, its generation. A page remembers the generation that last wrote or cleared it; a
//! snapshot remembers the one at which it was taken. Pages with a higher number have changed since.
//!
//! The map is kept in a file of records, to which a change is added, and brought to stable storage, *before* the data is
//! written. Whatever happens in between, a page that may have changed is listed as changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use byteorder::{BigEndian, ByteOrder as _};

use crate::error::{Error, Result};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageRange};
use crate::storage::{AtomicFile, Audience, File, Overwrite, ReadAt as _, WriteAt as _};

const MAGIC: &[u8; 8] = b"VHDPAGE1";

/// Bytes of a record.
const RECORD: usize = 40;

/// A file of records is written anew when it is opened with more than this, and twice what is needed.
const FEW: u64 = 1 << 10;

/// When a run of pages was written, and whether it holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The end, exclusive.
    end: u64,
    generation: u64,
    data: bool,
}

/// The pages of a blob or of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PageMap {
    pub(super) size: u64,
    /// By their first byte, without overlap. Pages outside of them were never written.
    runs: BTreeMap<u64, Run>,
    /// The generation of the last change of any kind.
    pub(super) generation: u64,
    /// When the blob was made or replaced.
    pub(super) born: u64,
    /// When the last change was, in seconds since 1970.
    pub(super) modified: i64,
}

/// A change of a blob, as a record holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// These bytes were written.
    Update(PageRange),
    /// These pages were cleared.
    Clear(PageRange),
    /// The blob has this size.
    Resize(u64),
    /// The blob was made or replaced, with this size.
    Born(u64),
    /// Something that isn't in its pages changed.
    Touch,
}

impl PageMap {
    /// Creates the map of a blob without data.
    pub(super) fn new(size: u64, generation: u64, modified: i64) -> Self {
        Self {
            size,
            runs: BTreeMap::new(),
            generation,
            born: generation,
            modified,
        }
    }

    /// Applies a change with the number `generation`.
    pub(super) fn apply(&mut self, step: Step, generation: u64, modified: i64) {
        match step {
            Step::Update(range) => self.update(range, generation),
            Step::Clear(range) => self.clear(range, generation),
            Step::Resize(size) => self.resize(size, generation),
            Step::Born(size) => {
                self.runs.clear();
                self.size = size;
                self.born = generation;
            }
            Step::Touch => {}
        }
        self.generation = self.generation.max(generation);
        self.modified = modified;
    }

    fn update(&mut self, range: PageRange, generation: u64) {
        if range.is_empty() {
            return;
        }
        self.split(range.start());
        self.split(range.end());
        let inside: Vec<u64> = self.within(range).map(|(start, _)| *start).collect();
        for start in inside {
            self.runs.remove(&start);
        }
        let mut start = range.start();
        // A file that is written in order stays one run.
        if let Some((before, run)) = self.runs.range(..start).next_back()
            && run.end == start
            && run.data
            && run.generation == generation
        {
            start = *before;
        }
        let end = range.end();
        self.runs.insert(
            start,
            Run {
                end,
                generation,
                data: true,
            },
        );
    }

    /// Pages that were never written remain so: they read as zeros before and after.
    fn clear(&mut self, range: PageRange, generation: u64) {
        self.split(range.start());
        self.split(range.end());
        for (_, run) in self.runs.range_mut(range.start()..range.end()) {
            run.generation = generation;
            run.data = false;
        }
    }

    /// The truncated part reads as zeros if the blob grows again, and counts as changed then.
    fn resize(&mut self, size: u64, generation: u64) {
        if size < self.size {
            self.split(size);
            for (_, run) in self.runs.range_mut(size..) {
                run.generation = generation;
                run.data = false;
            }
        }
        self.size = size;
    }

    /// Cuts the run that holds `at` there.
    fn split(&mut self, at: u64) {
        let Some((_, run)) = self.runs.range_mut(..at).next_back() else {
            return;
        };
        if run.end > at {
            let rest = *run;
            run.end = at;
            self.runs.insert(at, rest);
        }
    }

    fn within(&self, range: PageRange) -> impl Iterator<Item = (&u64, &Run)> {
        self.runs.range(range.start()..range.end())
    }

    /// The pages of `within` that hold data or, with a generation, the state of those that changed since; adjacent runs with the
    /// same state are joined.
    pub(super) fn list(
        &self,
        within: PageRange,
        since: Option<u64>,
    ) -> impl Iterator<Item = Change> {
        let first = self.runs.range(..=within.start()).next_back();
        let first = first.map_or(within.start(), |(start, _)| *start);
        let mut runs = self.runs.range(first..within.end().max(first));
        let mut held: Option<Change> = None;
        std::iter::from_fn(move || {
            for (start, run) in runs.by_ref() {
                let kind = match (since, run.data) {
                    (Some(since), _) if run.generation <= since => continue,
                    (_, true) => ChangeKind::Update,
                    (Some(_), false) => ChangeKind::Clear,
                    (None, false) => continue,
                };
                let range = PageRange::new(*start, run.end);
                let Some(range) = range.and_then(|range| range.intersect(within)) else {
                    continue;
                };
                let next = Change { range, kind };
                match &mut held {
                    Some(last) if last.kind == kind && last.range.end() == range.start() => {
                        last.range = last.range.hull(range);
                    }
                    held => {
                        if let Some(done) = held.replace(next) {
                            return Some(done);
                        }
                    }
                }
            }
            held.take()
        })
    }

    /// The pages that were cleared.
    pub(super) fn cleared(&self) -> impl Iterator<Item = PageRange> {
        let all = PageRange::covering(0, self.size);
        let cleared = self.runs.iter().filter(|(_, run)| !run.data);
        cleared.filter_map(move |(start, run)| PageRange::new(*start, run.end)?.intersect(all))
    }

    /// Whether every page of `range` was written or cleared since `generation`.
    pub(super) fn is_newer(&self, range: PageRange, generation: u64) -> bool {
        let listed = self
            .list(range, Some(generation))
            .map(|change| change.range.len());
        listed.sum::<u64>() == range.len()
    }

    /// The parts of `range` that aren't known to hold data.
    pub(super) fn without_data(&self, range: PageRange) -> Vec<PageRange> {
        let mut at = range.start();
        let mut gaps = Vec::new();
        for change in self.list(range, None) {
            gaps.extend(PageRange::new(at, change.range.start()));
            at = change.range.end();
        }
        gaps.extend(PageRange::new(at, range.end()));
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// The whole map as a file.
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(record(Step::Born(self.size), self.born, self.modified));
        for (start, run) in &self.runs {
            if let Some(range) = PageRange::new(*start, run.end) {
                // Pages must be written before they can be cleared.
                out.extend(record(Step::Update(range), run.generation, self.modified));
                if !run.data {
                    out.extend(record(Step::Clear(range), run.generation, self.modified));
                }
            }
        }
        out.extend(record(Step::Touch, self.generation, self.modified));
        out
    }

    /// Writes the whole map as a file.
    pub(super) fn save(&self, path: &Path, audience: &Audience) -> Result<()> {
        let file = AtomicFile::for_audience(path, audience.clone())?;
        file.file().write_all_at(&self.encode(), 0)?;
        file.publish(Overwrite::Yes)
    }

    /// Reads a file. A torn last record is ignored.
    pub(super) fn load(path: &Path) -> Result<Self> {
        Self::read(&File::open(path)?).map(|(map, _)| map)
    }

    /// Reads a file. Also returns the length of its intact part in bytes.
    fn read(file: &File) -> Result<(Self, u64)> {
        const PIECE: usize = RECORD << 10;
        let damaged = |what: &str, at: u64| {
            Err(Error::damaged(what.to_owned())
                .with_path(file.path())
                .with_offset(at)
                .with_hint("this list of pages can't be used: copy the disk that it belongs to into a new one"))
        };
        let len = file.byte_len()?;
        let mut magic = [0; MAGIC.len()];
        if len < 8 {
            return damaged("the list of pages is cut off", len);
        }
        file.read_exact_at(&mut magic, 0)?;
        if magic != *MAGIC {
            return damaged("this is not a list of pages", 0);
        }
        let mut map = Self::default();
        let mut at = 8_u64;
        let mut buffer = vec![0; PIECE];
        loop {
            let left = usize::try_from(len - at).unwrap_or(usize::MAX).min(PIECE);
            let whole = left - left % RECORD;
            let piece = buffer.get_mut(..whole).unwrap_or_default();
            file.read_exact_at(piece, at)?;
            let mut used = 0;
            for bytes in piece.chunks_exact(RECORD) {
                let Some((step, generation, modified)) = unrecord(bytes) else {
                    break;
                };
                map.apply(step, generation, modified);
                used += RECORD;
            }
            at += used as u64;
            if used < PIECE {
                break;
            }
        }
        // The part after the first bad record was never complete, unless somebody changed the file.
        if len - at >= 2 * RECORD as u64 {
            return damaged("a record in the list of pages is damaged", at);
        }
        if at == 8 {
            return damaged("the list of pages is empty", at);
        }
        Ok((map, at))
    }
}

fn record(step: Step, generation: u64, modified: i64) -> [u8; RECORD] {
    let (kind, start, end) = match step {
        Step::Update(range) => (1, range.start(), range.end()),
        Step::Clear(range) => (2, range.start(), range.end()),
        Step::Resize(size) => (3, size, 0),
        Step::Born(size) => (4, size, 0),
        Step::Touch => (5, 0, 0),
    };
    let mut bytes = [0; RECORD];
    BigEndian::write_u32(&mut bytes[..4], kind);
    BigEndian::write_i64(&mut bytes[4..12], modified);
    BigEndian::write_u64(&mut bytes[12..20], generation);
    BigEndian::write_u64(&mut bytes[20..28], start);
    BigEndian::write_u64(&mut bytes[28..36], end);
    let crc = crc32fast::hash(&bytes[..36]);
    BigEndian::write_u32(&mut bytes[36..], crc);
    bytes
}

fn unrecord(bytes: &[u8]) -> Option<(Step, u64, i64)> {
    let bytes: &[u8; RECORD] = bytes.try_into().ok()?;
    if BigEndian::read_u32(&bytes[36..]) != crc32fast::hash(&bytes[..36]) {
        return None;
    }
    let modified = BigEndian::read_i64(&bytes[4..12]);
    let generation = BigEndian::read_u64(&bytes[12..20]);
    let start = BigEndian::read_u64(&bytes[20..28]);
    let end = BigEndian::read_u64(&bytes[28..36]);
    let step = match BigEndian::read_u32(&bytes[..4]) {
        1 => Step::Update(PageRange::new(start, end)?),
        2 => Step::Clear(PageRange::new(start, end)?),
        3 if start.is_multiple_of(PAGE_SIZE) => Step::Resize(start),
        4 if start.is_multiple_of(PAGE_SIZE) => Step::Born(start),
        5 => Step::Touch,
        _ => return None,
    };
    Some((step, generation, modified))
}

/// The map of a blob, with its file.
#[derive(Debug)]
pub(super) struct PageLog {
    pub(super) map: PageMap,
    file: File,
    len: u64,
    path: PathBuf,
    audience: Audience,
    /// The reason for which nothing more can be added.
    broken: bool,
}

impl PageLog {
    /// A new file with this map.
    pub(super) fn create(path: &Path, map: &PageMap, audience: &Audience) -> Result<Self> {
        map.save(path, audience)?;
        Self::open(path, audience)
    }

    /// Opens a file; one that has grown long is rewritten.
    pub(super) fn open(path: &Path, audience: &Audience) -> Result<Self> {
        let mut file = File::open_writable(path)?;
        let (map, mut len) = PageMap::read(&file)?;
        let needed = map.encode().len() as u64;
        if len > needed.saturating_mul(2).saturating_add(FEW) {
            map.save(path, audience)?;
            file = File::open_writable(path)?;
            len = needed;
        }
        file.set_len(len)?;
        Ok(Self {
            map,
            file,
            len,
            path: path.to_owned(),
            audience: audience.clone(),
            broken: false,
        })
    }

    /// Records a change that is about to be made; when this returns, the record is on stable storage.
    pub(super) fn note(&mut self, step: Step, modified: i64) -> Result<()> {
        if self.broken {
            return Err(Error::damaged(
                "an earlier change couldn't be noted, so nothing can be written any more",
            )
            .with_path(&self.path)
            .with_hint(
                "end the server, look at the disk that its folder is on, and start it again",
            ));
        }
        let generation = self.map.generation.saturating_add(1);
        let bytes = record(step, generation, modified);
        let written = self.file.write_all_at(&bytes, self.len);
        if let Err(error) = written.and_then(|()| self.file.sync()) {
            self.broken = true;
            return Err(error);
        }
        self.len += RECORD as u64;
        self.map.apply(step, generation, modified);
        Ok(())
    }

    /// Writes the current state of the map to a separate file.
    pub(super) fn save_as(&self, path: &Path) -> Result<()> {
        self.map.save(path, &self.audience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::to_usize;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start * 512, end * 512).unwrap()
    }

    fn listed(map: &PageMap, since: Option<u64>) -> Vec<(char, u64, u64)> {
        let all = range(0, map.size / 512);
        let listed = map.list(all, since);
        let letter = |kind| if kind == ChangeKind::Update { 'u' } else { 'c' };
        listed
            .map(|c| (letter(c.kind), c.range.start() / 512, c.range.end() / 512))
            .collect()
    }

    /// The same with a number and a bit for every page, and the number of pages.
    struct Plain(Vec<(u64, Option<bool>)>, usize);

    impl Plain {
        fn clear(&mut self, pages: std::ops::Range<usize>, generation: u64) {
            for page in &mut self.0[pages] {
                if page.1.is_some() {
                    *page = (generation, Some(false));
                }
            }
        }

        fn apply(&mut self, step: Step, generation: u64) {
            let pages = |r: PageRange| to_usize(r.start() / 512)..to_usize(r.end() / 512);
            match step {
                Step::Update(r) => self.0[pages(r)].fill((generation, Some(true))),
                Step::Clear(r) => self.clear(pages(r), generation),
                Step::Resize(size) => {
                    self.1 = to_usize(size / 512);
                    self.clear(self.1..self.0.len(), generation);
                }
                Step::Born(size) => {
                    self.0.fill((0, None));
                    self.1 = to_usize(size / 512);
                }
                Step::Touch => {}
            }
        }

        fn listed(&self, since: Option<u64>) -> Vec<(char, u64, u64)> {
            let mut out: Vec<(char, u64, u64)> = Vec::new();
            for (page, (generation, data)) in (0..).zip(&self.0[..self.1]) {
                let letter = match (since, data) {
                    (None, Some(true)) => 'u',
                    (Some(since), Some(data)) if *generation > since => {
                        if *data {
                            'u'
                        } else {
                            'c'
                        }
                    }
                    _ => continue,
                };
                match out.last_mut() {
                    Some(last) if last.0 == letter && last.2 == page => last.2 += 1,
                    _ => out.push((letter, page, page + 1)),
                }
            }
            out
        }
    }

    #[test]
    fn lists_are_those_of_single_pages_and_outlive_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut log =
            PageLog::create(&path, &PageMap::new(64 * 512, 10, 0), &Audience::default()).unwrap();
        let mut plain = Plain(vec![(0, None); 128], 64);
        for round in 0..400 {
            let pages = log.map.size / 512;
            let start = random(pages);
            let end = start + 1 + random(pages - start);
            let step = match random(40) {
                0 => Step::Born(64 * 512),
                1 => Step::Resize((16 + random(64)) * 512),
                2 => Step::Touch,
                3..20 => Step::Clear(range(start, end)),
                _ => Step::Update(range(start, end)),
            };
            log.note(step, round).unwrap();
            plain.apply(step, log.map.generation);
            let since = 10 + random(log.map.generation - 9);
            for since in [None, Some(since), Some(log.map.generation)] {
                assert_eq!(listed(&log.map, since), plain.listed(since), "{round}");
            }
            if round % 50 == 0 {
                let before = log.map.clone();
                log = PageLog::open(&path, &Audience::default()).unwrap();
                assert_eq!(log.map, before);
                // As a file of its own, too.
                let copy = folder.path().join("copy");
                log.save_as(&copy).unwrap();
                assert_eq!(PageMap::load(&copy).unwrap(), before);
            }
        }
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        let nobody = Audience::default();
        let mut log = PageLog::create(&path, &PageMap::new(8 * 512, 1, 0), &nobody).unwrap();
        log.note(Step::Update(range(0, 2)), 1).unwrap();
        let map = log.map.clone();
        log.note(Step::Update(range(4, 6)), 2).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..=RECORD {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(PageLog::open(&path, &nobody).unwrap().map, map, "{cut}");
        }
        let mut bad = whole;
        bad[12] ^= 1;
        for bytes in [
            &bad[..],
            b"",
            b"VHDPAGE1",
            b"VHDPAGE2________________________________________",
        ] {
            std::fs::write(&path, bytes).unwrap();
            PageLog::open(&path, &nobody).unwrap_err();
        }
    }

    #[test]
    fn what_is_not_known_to_hold_data() {
        let mut map = PageMap::new(8 * 512, 1, 0);
        map.apply(Step::Update(range(2, 4)), 2, 0);
        map.apply(Step::Clear(range(3, 6)), 3, 0);
        assert_eq!(map.without_data(range(0, 8)), [range(0, 2), range(3, 8)]);
        assert!(map.is_newer(range(2, 4), 1) && !map.is_newer(range(2, 5), 1));
        assert_eq!(map.cleared().collect::<Vec<_>>(), [range(3, 4)]);
    }
}
