//! A lease on a blob, held while it is written: no other program can write meanwhile.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::retry::Retry;
use super::store::{Answer, BlobId, Lease, PageStore};
use crate::error::{Error, Result};

/// How long the lease lasts without renewal: that of a killed program ends by itself.
const LASTS: Duration = Duration::from_secs(60);

/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(20);

/// How long its release is tried.
const RELEASED: Duration = Duration::from_secs(5);

/// The leases of this program, for a signal that ends it.
static ALL: Mutex<Vec<Weak<Leased>>> = Mutex::new(Vec::new());

/// Releases all leases that this program holds, before a signal ends it: the blobs are as they are, and the next command
/// needn't wait. A lease whose release fails ends by itself.
pub fn release_leases() {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    for leased in all.drain(..).filter_map(|leased| leased.upgrade()) {
        leased.release();
    }
}

/// A blob, and the id of the lease on it.
#[derive(Debug)]
struct Leased {
    id: String,
    store: Arc<dyn PageStore>,
    blob: BlobId,
    retry: Retry,
}

impl Leased {
    fn release(&self) {
        // If this fails, the lease ends by itself; but until then, the next program finds the blob in use.
        let release = Lease::Release(self.id.clone());
        let _ = self.retry.run(|| self.store.lease(&self.blob, &release));
    }
}

/// A lease that is renewed until it is dropped, and then released.
#[derive(Debug)]
pub(super) struct Held {
    leased: Arc<Leased>,
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Acquires the lease.
    pub(super) fn take(store: &Arc<dyn PageStore>, blob: &BlobId, retry: &Retry) -> Answer<Self> {
        let id = uuid::Uuid::new_v4().to_string();
        // With an id of its own, so that acquiring it twice does no harm.
        let acquire = Lease::Acquire(id.clone(), Some(LASTS));
        retry.run(|| store.lease(blob, &acquire))?;
        let leased = Arc::new(Leased {
            id,
            store: Arc::clone(store),
            blob: blob.clone(),
            retry: retry.for_at_most(RELEASED),
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|leased| leased.strong_count() > 0);
        all.push(Arc::downgrade(&leased));
        drop(all);
        let mut held = Self {
            leased,
            ended: Arc::default(),
            thread: None,
        };
        held.thread = Some(held.renewing()?);
        Ok(held)
    }

    /// The id that writes must contain.
    pub(super) fn id(&self) -> &str {
        &self.leased.id
    }

    fn renewing(&self) -> Result<JoinHandle<()>> {
        let leased = Arc::clone(&self.leased);
        let (ended, renew) = (Arc::clone(&self.ended), Lease::Renew(leased.id.clone()));
        let work = move || {
            let (ended, changed) = &*ended;
            let mut over = ended.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                let waited = changed.wait_timeout(over, RENEWED);
                over = waited.unwrap_or_else(PoisonError::into_inner).0;
                if *over {
                    break;
                }
                drop(over);
                // If this fails, the next renewal may succeed; if the lease is lost, the next write reports it.
                let _ = leased.store.lease(&leased.blob, &renew);
                over = ended.lock().unwrap_or_else(PoisonError::into_inner);
            }
        };
        let spawned = thread::Builder::new().name("lease".into()).spawn(work);
        spawned.map_err(|e| Error::io("cannot start a thread", e))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.ended.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.leased.release();
    }
}
