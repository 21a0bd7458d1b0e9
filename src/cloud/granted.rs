//! A disk or snapshot to which access was granted, as a page blob. Expired access is requested again.

use std::path::PathBuf;
use std::sync::Arc;

use super::grant::Grant;
use crate::blob::{
    Answer, BlobId, Blobs, BlobsAsked, Changed, Conditions, Deleted, Lease, Metadata, NewBlob,
    PageStore, Pages, PagesAsked, Properties, Rest, Sequence, Since,
};
use crate::page::PageRange;

/// The bytes of a disk or snapshot, accessible until this is dropped.
#[derive(Debug)]
pub(super) struct Granted(pub(super) Arc<Grant>);

impl Granted {
    /// Sends a request, and retries it once if the access has expired or was revoked.
    fn with<T>(&self, mut send: impl FnMut(&Rest) -> Answer<T>) -> Answer<T> {
        let current = self.0.current();
        match send(&current.rest) {
            Err(failure) if failure.status() == Some(403) => {
                let renewed = self.0.renew(current.times)?;
                send(&renewed.rest)
            }
            answer => answer,
        }
    }
}

impl PageStore for Granted {
    fn shown(&self, _: &BlobId) -> PathBuf {
        self.0.shown().to_path_buf()
    }

    fn is_managed_disk(&self) -> bool {
        true
    }

    fn properties(&self, blob: &BlobId) -> Answer<Properties> {
        self.with(|rest| rest.properties(blob))
    }

    fn create(&self, blob: &BlobId, new: &NewBlob, only_if: &Conditions) -> Answer<Changed> {
        self.with(|rest| rest.create(blob, new, only_if))
    }

    fn resize(&self, blob: &BlobId, size: u64, only_if: &Conditions) -> Answer<Changed> {
        self.with(|rest| rest.resize(blob, size, only_if))
    }

    fn set_metadata(
        &self,
        blob: &BlobId,
        metadata: &Metadata,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.with(|rest| rest.set_metadata(blob, metadata, only_if))
    }

    fn set_sequence(
        &self,
        blob: &BlobId,
        sequence: Sequence,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.with(|rest| rest.set_sequence(blob, sequence, only_if))
    }

    fn put_pages(
        &self,
        blob: &BlobId,
        offset: u64,
        data: &[u8],
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.with(|rest| rest.put_pages(blob, offset, data, only_if))
    }

    fn clear_pages(
        &self,
        blob: &BlobId,
        range: PageRange,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.with(|rest| rest.clear_pages(blob, range, only_if))
    }

    fn read(&self, blob: &BlobId, offset: u64, buf: &mut [u8], only_if: &Conditions) -> Answer<()> {
        self.with(|rest| rest.read(blob, offset, buf, only_if))
    }

    fn pages(&self, blob: &BlobId, asked: &PagesAsked, only_if: &Conditions) -> Answer<Pages> {
        self.with(|rest| {
            let mut asked = asked.clone();
            if let Some(Since::Disk(name)) = &asked.since {
                // That one may have been granted again since.
                let name = self.0.grants().current(name);
                asked.since = Some(Since::Disk(Box::new(name)));
            }
            rest.pages(blob, &asked, only_if)
        })
    }

    fn snapshot(&self, blob: &BlobId, metadata: &Metadata, only_if: &Conditions) -> Answer<String> {
        self.with(|rest| rest.snapshot(blob, metadata, only_if))
    }

    fn lease(&self, blob: &BlobId, lease: &Lease) -> Answer<()> {
        self.with(|rest| rest.lease(blob, lease))
    }

    fn delete(&self, blob: &BlobId, what: Deleted, only_if: &Conditions) -> Answer<()> {
        self.with(|rest| rest.delete(blob, what, only_if))
    }

    fn blobs(&self, asked: &BlobsAsked) -> Answer<Blobs> {
        self.with(|rest| rest.blobs(asked))
    }

    fn create_container(&self) -> Answer<()> {
        self.with(PageStore::create_container)
    }
}
