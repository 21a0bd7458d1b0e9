//! Opens blobs by name.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::credential::Credential;
use super::failure::Failure;
use super::file::{BlobFile, DEPTH, NewBlobFile};
use super::http::{Http, Route};
use super::rest::Rest;
use super::retry::Retry;
use super::store::{Answer, BlobId, PageStore, Properties};
use super::{Access, BlobName};
use crate::error::{Error, Result};

type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Opens page blobs by name: finds credentials, and keeps connections.
pub struct Connector {
    http: Arc<Http>,
    environment: Environment,
    retry: Retry,
    depth: usize,
    /// Containers whose credentials come from the environment, by name.
    containers: Mutex<HashMap<PathBuf, Arc<Rest>>>,
    /// Names with signatures, by their printable form.
    signed: Mutex<HashMap<PathBuf, BlobName>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Creates a connector over `route`. `environment` returns the variables that [`Credential::resolve`] asks for.
    pub fn new(
        route: &Route,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self> {
        Ok(Self {
            http: Arc::new(Http::new(route)?),
            environment: Box::new(environment),
            retry: Retry::default(),
            depth: DEPTH,
            containers: Mutex::default(),
            signed: Mutex::default(),
        })
    }

    /// The same, which tries again as `retry` says.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The same, with so many requests to write one blob under way at most.
    #[must_use]
    pub fn with_depth(self, depth: usize) -> Self {
        Self { depth, ..self }
    }

    /// The HTTP client for requests.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The HTTP client, to be shared.
    pub(crate) fn shared_http(&self) -> Arc<Http> {
        Arc::clone(&self.http)
    }

    /// The retry policy.
    pub(crate) fn retry(&self) -> &Retry {
        &self.retry
    }

    /// The most requests to write one blob under way.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Registers `name`, with its signature, under its printable form.
    pub fn remember(&self, name: BlobName) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.insert(name.shown().to_path_buf(), name);
    }

    /// The container of `name`.
    pub fn container(&self, name: &BlobName) -> Result<Arc<Rest>> {
        let name = &self.recalled(name);
        if let Some(sas) = name.sas() {
            // A signature may be for one blob only.
            let credential = Credential::of_signature(sas.clone(), "the address");
            return Ok(Arc::new(Rest::new(
                name,
                credential,
                Arc::clone(&self.http),
            )));
        }
        let key = name.sibling("", None).shown().to_path_buf();
        let mut containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = containers.get(&key) {
            return Ok(Arc::clone(found));
        }
        let credential = Credential::resolve(name, &*self.environment, &self.http)?;
        let container = Arc::new(Rest::new(name, credential, Arc::clone(&self.http)));
        containers.insert(key, Arc::clone(&container));
        Ok(container)
    }

    /// Sends a request as long as that may help.
    pub(crate) fn ask<T>(&self, request: impl Fn() -> Answer<T>) -> Result<T> {
        self.retry.run(request).map_err(Failure::into_error)
    }

    /// Opens the blob or snapshot called `name` for reading.
    pub fn open(&self, name: &BlobName) -> Result<BlobFile> {
        let (store, id) = self.place(name)?;
        let is_disk = store.is_managed_disk();
        let blob = BlobFile::open(store as Arc<dyn PageStore>, id, self.retry.clone())?;
        Ok(if is_disk {
            blob.granted_by(self.recalled(name))
        } else {
            blob
        })
    }

    /// The name with its signature, if it came with one.
    #[must_use]
    pub fn recalled(&self, name: &BlobName) -> BlobName {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = signed.get(name.shown()).filter(|_| !name.has_signature());
        remembered.unwrap_or(name).clone()
    }

    /// What is known of the blob or snapshot called `name`; `None` if there is none.
    pub fn properties(&self, name: &BlobName) -> Result<Option<Properties>> {
        let (store, id) = self.place(name)?;
        match self.retry.run(|| store.properties(&id)) {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.status() == Some(404) => Ok(None),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Whether `name` is that of a managed disk, or a snapshot of one.
    pub fn is_managed_disk(&self, name: &BlobName) -> Result<bool> {
        Ok(self.container(name)?.is_managed_disk())
    }

    /// The kind of access that requests for `name` use.
    pub fn access(&self, name: &BlobName) -> Result<Access> {
        Ok(self.container(name)?.credential().access().clone())
    }

    /// Opens the page blob called `name` for reading and writing.
    pub fn open_writable(&self, name: &BlobName) -> Result<BlobFile> {
        let (store, id) = self.place(name)?;
        Ok(BlobFile::open_writable(store, id, self.retry.clone())?.with_depth(self.depth))
    }

    /// Creates the page blob called `name`.
    pub fn create(&self, name: &BlobName, new: &NewBlobFile) -> Result<BlobFile> {
        let (store, id) = self.place(name)?;
        Ok(BlobFile::create(store, id, new, self.retry.clone())?.with_depth(self.depth))
    }

    fn place(&self, name: &BlobName) -> Result<(Arc<Rest>, BlobId)> {
        if name.blob().is_empty() {
            return Err(Error::usage("this is a container, not a blob in it")
                .with_path(name.shown())
                .with_hint("add the name of a blob after a slash"));
        }
        let id = BlobId {
            name: name.blob().to_owned(),
            snapshot: name.snapshot().map(str::to_owned),
        };
        Ok((self.container(name)?, id))
    }
}
