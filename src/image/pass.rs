//! A pass over images: their windows in order, read where they are worked on, or ahead of that if they are far away.

use super::windows::{DataOf, Source, Windows};
use super::{Image, IoHints, WINDOW_SIZE, Window};
use crate::error::Result;
use crate::page::PageRange;
use crate::parallel::{Buffers, Work};

/// Something that is done once with all windows of some images that matter.
pub(crate) struct Pass<'a, const N: usize> {
    images: [&'a dyn Image; N],
    work: Work<'a>,
    all: PageRange,
    buffers: Buffers,
}

impl<'a, const N: usize> Pass<'a, N> {
    /// From the first byte to the end of the longest of `images`.
    pub(crate) fn over(images: [&'a dyn Image; N], work: Work<'a>) -> Self {
        let sizes = images.map(Image::virtual_size);
        let all = PageRange::covering(0, sizes.into_iter().max().unwrap_or(0));
        Self {
            images,
            work,
            all,
            buffers: Buffers::new(),
        }
    }

    /// The pass as one over `all`.
    pub(crate) fn within(self, all: PageRange) -> Self {
        Self { all, ..self }
    }

    /// The windows in which an image may hold data, or that matter to `source`. Every image is asked once for its
    /// extents.
    pub(crate) fn windows<S: Source>(&self, source: S) -> Windows<(DataOf<'a, N>, S)> {
        Windows::within(self.all, (DataOf::of(self.images, self.all), source))
    }

    /// Buffers to work in.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Calls `work` with each of the [windows](Self::windows) on the pool, and `sink` with each result on the calling
    /// thread, in order.
    ///
    /// Nothing is read before `work` asks for it, but from images that are far away: of those, all that may hold data is
    /// read ahead by threads of its own, without the parts that `spare` names for the image of that number.
    pub(crate) fn run<'p, T: Send, R: Send>(
        &'p self,
        windows: impl IntoIterator<Item = Result<(PageRange, ([Vec<PageRange>; N], T))>>,
        spare: impl for<'t> Fn(&'t T, usize) -> &'t [PageRange] + Sync,
        work: impl Fn([Window<'p>; N], T) -> Result<R> + Sync,
        sink: impl FnMut(PageRange, R) -> Result<()>,
    ) -> Result<()> {
        let hints = self.images.map(Image::io);
        let ahead = hints.into_iter().fold(IoHints::LOCAL, IoHints::and).ahead();
        let far = hints.iter().filter(|hints| hints.is_far()).count() as u64;
        self.work.pass(
            self.all.end(),
            (ahead, far.saturating_mul(WINDOW_SIZE)),
            windows,
            |range, (mut data, item)| {
                let mut windows = std::array::from_fn(|n| {
                    let data = std::mem::take(&mut data[n]);
                    Window::new(self.images[n], range, data, &self.buffers)
                });
                for (n, (window, hints)) in windows.iter_mut().zip(hints).enumerate() {
                    if hints.is_far() {
                        window.fetch(u64::from(hints.request), spare(&item, n))?;
                    }
                }
                Ok((windows, item))
            },
            |_, (windows, item)| work(windows, item),
            sink,
        )
    }
}

/// All may be needed, of every image.
pub(crate) fn all_needed<T>(_: &T, _: usize) -> &[PageRange] {
    &[]
}
