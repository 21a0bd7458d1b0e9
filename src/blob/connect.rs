//! From a name to an opened blob.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::credential::Credential;
use super::file::{BlobFile, NewBlobFile};
use super::http::{Http, Route};
use super::rest::Rest;
use super::retry::Retry;
use super::store::{BlobId, PageStore};
use super::{Access, BlobName};
use crate::error::{Error, Result};

type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Reaches page blobs by name: finds what gives access, and keeps connections.
pub struct Connector {
    http: Arc<Http>,
    environment: Environment,
    retry: Retry,
    /// By the name of the container: those whose access comes from the environment.
    containers: Mutex<HashMap<PathBuf, Arc<Rest>>>,
    /// Names with signatures, by what is shown of them.
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
    /// Over `route`; `environment` gives the variables that [`Credential::resolve`] asks for.
    pub fn new(
        route: &Route,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self> {
        Ok(Self {
            http: Arc::new(Http::new(route)?),
            environment: Box::new(environment),
            retry: Retry::default(),
            containers: Mutex::default(),
            signed: Mutex::default(),
        })
    }

    /// What requests are sent over.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// From now on the name that is shown as `name` is means `name`, with its signature.
    pub fn remember(&self, name: BlobName) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.insert(name.shown().to_path_buf(), name);
    }

    /// The container that `name` is in.
    pub fn container(&self, name: &BlobName) -> Result<Arc<Rest>> {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = signed.get(name.shown()).cloned();
        drop(signed);
        let name = &remembered
            .filter(|_| !name.has_signature())
            .unwrap_or_else(|| name.clone());
        if let Some(sas) = name.sas() {
            // A signature may be for one blob alone.
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

    /// Opens the blob or snapshot called `name` to read it.
    pub fn open(&self, name: &BlobName) -> Result<BlobFile> {
        let (store, id) = self.place(name)?;
        BlobFile::open(store as Arc<dyn PageStore>, id, self.retry.clone())
    }

    /// How requests for `name` prove that they are allowed.
    pub fn access(&self, name: &BlobName) -> Result<Access> {
        Ok(self.container(name)?.credential().access().clone())
    }

    /// Opens the page blob called `name` to read and write it.
    pub fn open_writable(&self, name: &BlobName) -> Result<BlobFile> {
        let (store, id) = self.place(name)?;
        BlobFile::open_writable(store, id, self.retry.clone())
    }

    /// Makes the page blob called `name`.
    pub fn create(&self, name: &BlobName, new: &NewBlobFile) -> Result<BlobFile> {
        let (store, id) = self.place(name)?;
        BlobFile::create(store, id, new, self.retry.clone())
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
