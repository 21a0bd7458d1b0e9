//! Access to the bytes of a disk or snapshot: granted when needed, revoked when no longer needed.
//!
//! ```text
//! recorded ─► granted ─► used, granted again after it expired ─► revoked ─► record removed
//!   └────────────── after a kill, the next program revokes it ──────┘
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use serde_json::{Value, json};

use super::api::{Api, Asked, VERSION};
use super::ledger::{Entry, Ledger, Record};
use super::resource::Resource;
use crate::blob::times::now;
use crate::blob::{BlobName, Failure, Rest};
use crate::error::{Error, Result};

/// Duration of access in seconds. It is granted again after it expired; access that nobody revokes expires by itself.
const SECONDS: i64 = 3600;

/// The kind of access to the bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing, only to a disk that was created for an upload.
    Write,
}

/// All access that was granted to this program.
#[derive(Debug)]
pub(super) struct Grants {
    pub(super) api: Api,
    ledger: Option<Ledger>,
    live: Mutex<Vec<Weak<Grant>>>,
    notices: Mutex<Vec<Error>>,
    /// Whether no more access is granted; read-locked while access is being granted.
    closed: RwLock<bool>,
}

/// Access to one disk or snapshot, revoked when this is dropped.
pub(super) struct Grant {
    grants: Arc<Grants>,
    id: String,
    shown: PathBuf,
    access: Access,
    current: Mutex<Current>,
    entry: Mutex<Option<Entry>>,
    /// Whether somebody else already had access, which would be revoked along with this.
    of_others: bool,
    ended: AtomicBool,
}

/// The most recently granted address.
#[derive(Clone)]
pub(super) struct Current {
    /// The number of times that access was granted.
    pub(super) times: u64,
    pub(super) name: BlobName,
    pub(super) rest: Arc<Rest>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("id", &self.id)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Grants {
    pub(super) fn new(api: Api, folder: Option<PathBuf>) -> Self {
        Self {
            api,
            ledger: folder.map(Ledger::new),
            live: Mutex::default(),
            notices: Mutex::default(),
            closed: RwLock::default(),
        }
    }

    /// Problems to report that didn't make anything fail.
    pub(super) fn take_notices(&self) -> Vec<Error> {
        std::mem::take(&mut *locked(&self.notices))
    }

    fn notice(&self, error: Error) {
        locked(&self.notices).push(error);
    }

    /// Revokes the access that killed programs left.
    pub(super) fn clean_up(&self) {
        let Some(ledger) = &self.ledger else {
            return;
        };
        let done = ledger.clean_up(|record| {
            if record.until < now() {
                return true;
            }
            let ours = self
                .api
                .endpoint()
                .map(|endpoint| endpoint.root == record.endpoint);
            if !ours.unwrap_or(false) {
                return false;
            }
            match self.revoke(&record.id, Path::new(&record.id)) {
                Ok(()) => {
                    self.notice(
                        Error::usage(
                            "access that an interrupted command was granted has been taken back",
                        )
                        .with_path(&record.id),
                    );
                    true
                }
                Err(error) => {
                    self.notice(error);
                    false
                }
            }
        });
        if let Err(error) = done {
            self.notice(error);
        }
    }

    /// Requests access to `resource`, which is called `shown` in messages.
    pub(super) fn grant(
        self: &Arc<Self>,
        resource: &Resource,
        access: Access,
        shown: &Path,
    ) -> Result<Arc<Grant>> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(Error::interrupted().with_path(shown));
        }
        let live: Vec<Arc<Grant>> = locked(&self.live)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let known = live.into_iter().find(|grant| {
            resource.is(&grant.id) && grant.access == access && !grant.ended.load(Ordering::SeqCst)
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let used = |ledger: &Ledger| ledger.is_used(&resource.id, None);
        let of_others = resource.is_granted() && !self.ledger.as_ref().is_some_and(used);
        let entry = self.note(&resource.id)?;
        let name = match self.ask(&resource.id, access, shown) {
            Ok(name) => name,
            Err(error) => {
                // It may have been granted although the response was lost.
                let back = of_others || self.revoke(&resource.id, shown).is_ok();
                if let Some(entry) = entry.filter(|_| back) {
                    entry.forget()?;
                }
                return Err(error);
            }
        };
        let grant = Arc::new(Grant {
            current: Mutex::new(Current {
                times: 1,
                rest: self.rest(&name, shown),
                name,
            }),
            grants: Arc::clone(self),
            id: resource.id.clone(),
            shown: shown.to_path_buf(),
            access,
            entry: Mutex::new(entry),
            of_others,
            ended: AtomicBool::new(false),
        });
        let mut live = locked(&self.live);
        live.retain(|grant| grant.strong_count() > 0);
        live.push(Arc::downgrade(&grant));
        Ok(grant)
    }

    fn note(&self, id: &str) -> Result<Option<Entry>> {
        let Some(ledger) = &self.ledger else {
            return Ok(None);
        };
        let endpoint = &self.api.endpoint()?.root;
        match ledger.note(Record::new(endpoint, id, now() + SECONDS)) {
            Ok(entry) => Ok(Some(entry)),
            // Then only a kill would leave it, until it expires.
            Err(error) => {
                self.notice(error.with_hint(
                    "the access can't be noted, so that it is not taken back if this command is killed: it ends after an hour",
                ));
                Ok(None)
            }
        }
    }

    fn rest(&self, name: &BlobName, shown: &Path) -> Arc<Rest> {
        let http = Arc::clone(&self.api.http);
        Arc::new(Rest::granted(name, shown.to_path_buf(), http))
    }

    /// Requests access, and returns the address.
    fn ask(&self, id: &str, access: Access, shown: &Path) -> Result<BlobName> {
        let word = match access {
            Access::Read => "Read",
            Access::Write => "Write",
        };
        let body = json!({ "access": word, "durationInSeconds": SECONDS });
        let result = self.api.run(Asked {
            method: "POST",
            place: &format!("{id}/beginGetAccess?api-version={VERSION}"),
            body: Some(&body),
            doing: "cannot have access granted to",
            about: shown,
        });
        let result = result.map_err(Failure::into_error)?;
        let wrong = || {
            Error::unsupported("the service grants access by no address that can be used")
                .with_path(shown)
        };
        let address = [
            "/accessSAS",
            "/properties/output/accessSAS",
            "/output/accessSAS",
        ]
        .iter()
        .find_map(|pointer| result.pointer(pointer).and_then(Value::as_str))
        .ok_or_else(wrong)?;
        // Its own error could repeat the signature.
        let name = BlobName::parse(address).map_err(|_| wrong())?;
        let local = name.endpoint().is_loopback();
        if !name.has_signature()
            || !name.is_managed_disk()
            || !(name.endpoint().is_encrypted() || local)
        {
            return Err(wrong());
        }
        Ok(name)
    }

    /// Revokes all access to a resource. Succeeds if the resource doesn't exist any more.
    pub(super) fn revoke(&self, id: &str, shown: &Path) -> Result<()> {
        let asked = Asked {
            method: "POST",
            place: &format!("{id}/endGetAccess?api-version={VERSION}"),
            body: None,
            doing: "cannot take back the access to",
            about: shown,
        };
        match self.api.run_with(asked, &self.api.retry.apart()) {
            Err(failure) if failure.status() != Some(404) => Err(failure.into_error().with_hint(
                "it ends by itself after an hour; the next command of this program tries again",
            )),
            _ => Ok(()),
        }
    }

    /// Revokes all access that is still granted, and grants no more. Returns the errors.
    pub(super) fn take_back_all(&self) -> Vec<Error> {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        let live: Vec<Arc<Grant>> = locked(&self.live)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let failed = live
            .iter()
            .filter_map(|grant| grant.take_back().err())
            .collect();
        if let Some(ledger) = &self.ledger {
            ledger.end();
        }
        failed
    }

    /// Returns whether any access is still granted, or is being requested.
    pub(super) fn are_any(&self) -> bool {
        let requesting = self.closed.try_write().is_err();
        requesting
            || locked(&self.live)
                .iter()
                .filter_map(Weak::upgrade)
                .any(|grant| !grant.ended.load(Ordering::SeqCst))
    }

    /// The current address of the disk that was granted by `name`.
    pub(super) fn current(&self, name: &BlobName) -> BlobName {
        let live: Vec<Arc<Grant>> = locked(&self.live)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let found = live.iter().find_map(|grant| {
            let current = locked(&grant.current);
            (current.name.shown() == name.shown()).then(|| current.name.clone())
        });
        found.unwrap_or_else(|| name.clone())
    }
}

impl Grant {
    /// The current address.
    pub(super) fn current(&self) -> Current {
        locked(&self.current).clone()
    }

    pub(super) fn grants(&self) -> &Grants {
        &self.grants
    }

    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Requests access again after the address number `times` was refused because it expired or was revoked.
    pub(super) fn renew(&self, times: u64) -> Result<Current> {
        let closed = &self.grants.closed;
        let closed = closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(Error::interrupted().with_path(&self.shown));
        }
        let mut current = locked(&self.current);
        // Another thread may have done so already.
        if current.times == times && !self.ended.load(Ordering::SeqCst) {
            let name = self.grants.ask(&self.id, self.access, &self.shown)?;
            if let Some(entry) = &mut *locked(&self.entry) {
                entry.extend(now() + SECONDS)?;
            }
            *current = Current {
                times: times + 1,
                rest: self.grants.rest(&name, &self.shown),
                name,
            };
        }
        Ok(current.clone())
    }

    /// Revokes the access, unless it is in use elsewhere.
    pub(super) fn take_back(&self) -> Result<()> {
        if self.ended.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let entry = locked(&self.entry).take();
        if self.of_others {
            self.grants.notice(
                Error::usage("access to it had been granted to somebody else before, and still is")
                    .with_path(&self.shown)
                    .with_hint(
                        "if nobody needs that any more, take it back in the portal, or with az",
                    ),
            );
        } else {
            let used = match (entry, &self.grants.ledger) {
                (Some(mut entry), Some(ledger)) => {
                    entry.end()?;
                    let used = ledger.is_used(&self.id, Some(&entry));
                    if !used {
                        self.grants.revoke(&self.id, &self.shown)?;
                    }
                    return entry.forget();
                }
                _ => false,
            };
            if !used {
                self.grants.revoke(&self.id, &self.shown)?;
            }
            return Ok(());
        }
        entry.map_or(Ok(()), Entry::forget)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Err(error) = self.take_back() {
            self.grants.notice(error);
        }
    }
}
