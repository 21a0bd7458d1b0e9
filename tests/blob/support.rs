//! Helpers shared by the tests of page blobs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhdkit::blob::{
    BlobFile, BlobId, BlobName, Clock, Connector, Credential, Http, PATIENCE, PageStore, Rest,
    Retry, Route,
};

/// A clock that advances only by waiting, so that tests don't really wait.
#[derive(Debug, Default)]
pub(crate) struct Still(Mutex<Duration>);

impl Clock for Still {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, wait: Duration) {
        *self.0.lock().unwrap() += wait;
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

pub(crate) fn at_once() -> Retry {
    Retry::new(Arc::new(Still::default()), PATIENCE)
}

/// Opens the container of an address, with access granted by the address or by `variables`.
pub(crate) fn container(address: &str, variables: &[(&str, &str)]) -> (Arc<Rest>, BlobId) {
    let name = BlobName::parse(address).unwrap();
    let http = Arc::new(Http::new(&Route::default()).unwrap());
    let lookup = |name: &str| {
        // Managed identities are never asked for.
        let machine =
            (name == "AZURE_POD_IDENTITY_AUTHORITY_HOST").then(|| "http://127.0.0.1:1".to_owned());
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned()).or(machine)
    };
    let credential = Credential::resolve(&name, &lookup, &http).unwrap();
    let id = BlobId {
        name: name.blob().to_owned(),
        snapshot: name.snapshot().map(str::to_owned),
    };
    (Arc::new(Rest::new(&name, credential, http)), id)
}

pub(crate) fn opened(address: &str) -> vhdkit::Result<BlobFile> {
    let (store, id) = container(address, &[]);
    BlobFile::open(store as Arc<dyn PageStore>, id, at_once())
}

/// What reaches blobs whose addresses carry their access, without waiting.
pub(crate) fn connector() -> Connector {
    let connector = Connector::new(&Route::default(), |_| None).unwrap();
    connector.with_retry(at_once())
}
