//! A pass over images: visits their windows in order. Local images are read while a window is processed, remote ones
//! ahead of that.

use super::windows::{DataOf, Source, Windows};
use super::{Image, IoHints, WINDOW_SIZE, Window};
use crate::error::Result;
use crate::page::PageRange;
use crate::parallel::{Buffers, Work};

/// A job that visits all relevant windows of some images once.
pub(crate) struct Pass<'a, const N: usize> {
    images: [&'a dyn Image; N],
    work: Work<'a>,
    all: PageRange,
    buffers: Buffers,
    window_memory: u64,
}

impl<'a, const N: usize> Pass<'a, N> {
    /// A pass from the first byte to the end of the longest of `images`.
    pub(crate) fn over(images: [&'a dyn Image; N], work: Work<'a>) -> Self {
        let sizes = images.map(Image::virtual_size);
        let all = PageRange::covering(0, sizes.into_iter().max().unwrap_or(0));
        Self {
            images,
            work,
            all,
            buffers: Buffers::new(),
            window_memory: 0,
        }
    }

    /// Tells how many bytes of memory a window occupies at most until the sink has taken its result, if that is more
    /// than a few chunks.
    pub(crate) fn holding(self, window_memory: u64) -> Self {
        Self {
            window_memory,
            ..self
        }
    }

    /// Restricts the pass to `all`.
    pub(crate) fn within(self, all: PageRange) -> Self {
        Self { all, ..self }
    }

    /// The windows in which an image may hold data, or that are relevant to `source`. Each image is queried once for
    /// its extents.
    pub(crate) fn windows<S: Source>(&self, source: S) -> Windows<(DataOf<'a, N>, S)> {
        Windows::within(self.all, (DataOf::of(self.images, self.all), source))
    }

    /// The buffers to work in.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Calls `work` with each of the [windows](Self::windows) on the pool, and `sink` with each result on the calling
    /// thread, in order.
    ///
    /// Local images are read only when `work` asks for data. For remote ones, separate threads read everything that may
    /// hold data ahead of time, except for the parts that `spare` returns for the image with that number.
    pub(crate) fn run<'p, T: Send, R: Send>(
        &'p self,
        windows: impl IntoIterator<Item = Result<(PageRange, ([Vec<PageRange>; N], T))>>,
        spare: impl for<'t> Fn(&'t T, usize) -> &'t [PageRange] + Sync,
        work: impl Fn([Window<'p>; N], T) -> Result<R> + Sync,
        sink: impl FnMut(PageRange, R) -> Result<()>,
    ) -> Result<()> {
        let hints = self.images.map(Image::io);
        let all = hints.into_iter().fold(IoHints::LOCAL, IoHints::and);
        let far = hints.iter().filter(|hints| hints.is_far()).count() as u64;
        let each = if all.is_far() {
            far.saturating_mul(WINDOW_SIZE)
        } else {
            self.window_memory
                .saturating_add(u64::from(all.window_memory))
        };
        self.work.pass(
            self.all.end(),
            (all.ahead(self.work.workers), |_: &_| each),
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

/// All data may be needed, of every image.
pub(crate) fn all_needed<T>(_: &T, _: usize) -> &[PageRange] {
    &[]
}
