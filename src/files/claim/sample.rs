//! Whether a list of changed ranges tells the truth: a random part of what it leaves out is read and compared.

use super::changes::ChangedRanges;
use crate::diff::{CompareOptions, WindowChange, compare};
use crate::error::{Error, Result};
use crate::image::{Image, Ranges, Resized, SharedExtents};
use crate::page::PageRange;
use crate::parallel::{Work, Workers};
use crate::progress::Progress;

/// Bytes that are looked at in one place.
const PIECE: u64 = 256 << 10;

/// A list of how one image became another, and how it is checked.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The ranges that may have changed.
    pub list: ChangedRanges,
    /// Which part of the rest is compared all the same, from 0 to 1; all of it at 1.
    pub check: Option<f64>,
}

impl Claim {
    /// Where `base` and `target` are taken to be the same.
    pub fn shared(&self, base: &dyn Image, target: &dyn Image) -> Box<dyn SharedExtents + '_> {
        self.list
            .shared(base.virtual_size().min(target.virtual_size()))
    }

    /// Compares a random part of what the list leaves out, and gives how many bytes that was. Another `seed` chooses
    /// other places.
    ///
    /// # Errors
    ///
    /// [`Mismatch`](crate::ErrorKind::Mismatch) if the two images differ where the list says nothing of a change.
    pub fn check(
        &self,
        base: &dyn Image,
        target: &dyn Image,
        seed: u64,
        (workers, progress): (&Workers, &dyn Progress),
    ) -> Result<u64> {
        let Some(share) = self.check else {
            return Ok(0);
        };
        let size = base.virtual_size().min(target.virtual_size());
        let sample = Sample {
            list: &self.list,
            size,
            share,
            seed,
        };
        let bytes = sample.chosen().map(PageRange::len).sum();
        progress.begin("checking the list of changes", size);
        let options = CompareOptions {
            work: Work::new(workers, progress),
            digests: false,
            payload: false,
            equal: &sample,
        };
        let refuse = |change: WindowChange| {
            let found = change.changes.iter().map(|change| change.range);
            // What is read beside the sample may be listed.
            let lie = found.flat_map(|range| sample.chosen_in(range)).next();
            lie.map_or(Ok(()), |place| Err(lies(place)))
        };
        compare(
            &Resized::new(base, size),
            &Resized::new(target, size),
            options,
            Ok,
            refuse,
        )?;
        Ok(bytes)
    }
}

fn lies(place: PageRange) -> Error {
    Error::mismatch("the list of changes leaves out a change")
        .with_field("virtual disk")
        .with_offset(place.start())
        .with_found("other bytes in the target than in the base")
        .with_hint(
            "the list is of other images, or of another time: make it again, or have everything compared",
        )
}

/// Some of what a list leaves out.
struct Sample<'a> {
    list: &'a ChangedRanges,
    size: u64,
    share: f64,
    seed: u64,
}

impl Sample<'_> {
    fn chosen(&self) -> impl Iterator<Item = PageRange> + '_ {
        let pieces = self
            .list
            .rest(self.size)
            .flat_map(|rest| rest.windows(PIECE));
        // At least one.
        pieces
            .enumerate()
            .filter(|(n, piece)| *n == 0 || self.is_chosen(piece.start() / PIECE))
            .map(|(_, piece)| piece)
    }

    /// The parts of `range` that aren't listed: a change there proves the list wrong.
    fn chosen_in(&self, range: PageRange) -> Vec<PageRange> {
        let rest = self.list.rest(self.size);
        rest.skip_while(|rest| rest.end() <= range.start())
            .take_while(|rest| rest.start() < range.end())
            .filter_map(|rest| rest.intersect(range))
            .collect()
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a chance needs no more than the 53 bits that are left"
    )]
    fn is_chosen(&self, piece: u64) -> bool {
        // SplitMix64.
        let mut z = self
            .seed
            .wrapping_add(piece.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64) < self.share * (1_u64 << 53) as f64
    }
}

impl SharedExtents for Sample<'_> {
    /// Everything but the sample.
    fn equal_ranges(&self) -> Ranges<'_> {
        let ends = self.chosen().map(PageRange::end);
        let starts = self.chosen().map(PageRange::start);
        let gaps = std::iter::once(0)
            .chain(ends)
            .zip(starts.chain([self.size]));
        Box::new(
            gaps.filter(|(start, end)| start < end)
                .map(|(start, end)| PageRange::covering(start, end)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::image::RawImage;
    use crate::progress::Silent;
    use crate::storage::Memory;

    fn claim(list: &str, check: f64) -> Claim {
        Claim {
            list: ChangedRanges::parse(list.as_bytes()).unwrap(),
            check: Some(check),
        }
    }

    #[test]
    fn a_list_that_leaves_out_a_change_is_found_and_the_first_place_told() {
        let old = vec![1; 12 << 20];
        let mut new = old.clone();
        for at in [5000, (3 << 20) + 1024, 9 << 20] {
            new[at] = 2;
        }
        let image = |bytes: &Vec<u8>| RawImage::open(Memory::new(bytes.clone())).unwrap();
        let (base, target) = (image(&old), image(&new));
        let workers = Workers::new(None).unwrap();
        let check = |claim: &Claim| claim.check(&base, &target, 7, (&workers, &Silent));
        let honest = r#"[{"start":4608,"length":512},{"start":3146752,"length":512},{"start":9437184,"length":512}]"#;
        let all = check(&claim(honest, 1.0)).unwrap();
        assert_eq!(all, (12 << 20) - 3 * 512);
        let some = check(&claim(honest, 0.3)).unwrap();
        assert!(some > 0 && some < all, "{some}");
        let liar = r#"[{"start":4608,"length":512},{"start":9437184,"length":512}]"#;
        let error = check(&claim(liar, 1.0)).unwrap_err();
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Mismatch, Some(3_146_752))
        );
        assert!(
            check(&claim("[]", 0.0)).is_err(),
            "the first piece is always looked at"
        );
        let unchecked = Claim {
            check: None,
            ..claim(liar, 0.0)
        };
        assert_eq!(check(&unchecked).unwrap(), 0);
    }
}
