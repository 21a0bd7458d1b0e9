//! What is so unlike the snapshot before that it may be a mistake: the wrong image, or one that lost its end.

use super::Manifest;

/// How a new snapshot is unlike the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The virtual disk had so many bytes, and has so many now.
    Size([u64; 2]),
    /// The image had this format, and has another one now.
    Format([String; 2]),
    /// So many of its mebibytes held something, and less than half as many do now.
    Data([u64; 2]),
}

/// How `now` is unlike `before`. `windows` are the mebibytes of each that aren't zero, as far as known.
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
