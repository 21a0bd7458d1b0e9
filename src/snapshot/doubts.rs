//! Differences from the previous snapshot that may indicate a mistake: the wrong image, or a truncated one.

use super::Manifest;

/// A difference of a new snapshot from the previous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The virtual disk had the first number of bytes, and now has the second.
    Size([u64; 2]),
    /// The image had the first format, and now has the second.
    Format([String; 2]),
    /// The first number of its mebibytes held data; now it is the second, which is less than half.
    Data([u64; 2]),
}

/// Finds differences between `before` and `now`. `windows` are their numbers of nonzero mebibytes, as far as known.
pub(super) fn doubts(before: &Manifest, now: &Manifest, windows: [Option<u64>; 2]) -> Vec<Doubt> {
    let sizes = [before.virtual_size, now.virtual_size];
    let formats = [&before.source.format, &now.source.format].map(Clone::clone);
    let mut doubts = Vec::new();
    if sizes[0] != sizes[1] {
        doubts.push(Doubt::Size(sizes));
    }
    if formats[0] != formats[1] {
        doubts.push(Doubt::Format(formats));
    }
    if let [Some(had), Some(has)] = windows
        && has < had.div_ceil(2)
    {
        doubts.push(Doubt::Data([had, has]));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::manifest::tests::manifest;

    #[test]
    fn another_size_another_format_and_less_than_half_of_the_data_are_told() {
        let before = manifest();
        let told = |now: &Manifest, windows| doubts(&before, now, windows);
        assert_eq!(told(&before, [Some(10), Some(5)]), []);
        assert_eq!(told(&before, [Some(10), Some(40)]), []);
        assert_eq!(told(&before, [None, Some(0)]), []);
        assert_eq!(told(&before, [Some(0), Some(0)]), []);
        assert_eq!(told(&before, [Some(10), Some(4)]), [Doubt::Data([10, 4])]);
        assert_eq!(told(&before, [Some(1), Some(0)]), [Doubt::Data([1, 0])]);
        let mut other = manifest();
        other.virtual_size = 1024;
        other.source.format = "fixed".to_owned();
        let formats = ["raw", "fixed"].map(str::to_owned);
        assert_eq!(
            told(&other, [None, None]),
            [Doubt::Size([512, 1024]), Doubt::Format(formats)]
        );
    }
}
