//! Nothing that is displayed grants access.

use std::fmt::Write as _;
use std::sync::Arc;

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{BlobFile, BlobName, Http, NewBlobFile, PageStore, Rest, Route, Secret};

use crate::server::{SIGNATURE, Server, Wire};
use crate::support::{at_once, container, opened};

const KEY: &str = "dGhlLWtleS1vZi10aGUtYWNjb3VudC1pcy1oaWRkZW4=";

#[test]
fn nothing_that_is_shown_gives_access() {
    let mut said = String::new();
    for wire in [
        None,
        Some(Wire::Forbidden),
        Some(Wire::Reset),
        Some(Wire::Error),
        Some(Wire::Cut),
        Some(Wire::Busy),
    ] {
        let plan = wire.map(|wire| {
            Box::new(move |number: u64, _: &crate::server::Request| (number > 2).then_some(wire))
                as Box<crate::server::Plan>
        });
        let server = Server::start(MemoryStore::default(), plan);
        let address = server.url("x");
        let name = BlobName::parse(&address).unwrap();
        write!(said, "{name:?} {} ", name.shown().to_str().unwrap()).unwrap();
        let (store, blob) = container(&address, &[]);
        write!(
            said,
            "{store:?} {blob:?} {:?} ",
            store.credential().access()
        )
        .unwrap();
        let new = NewBlobFile {
            size: 4096,
            ..NewBlobFile::default()
        };
        match BlobFile::create(store as Arc<dyn PageStore>, blob, &new, at_once()) {
            Ok(file) => write!(said, "{file:?} ").unwrap(),
            Err(error) => write!(said, "{error} {error:?} {:?} ", error.hint()).unwrap(),
        }
        if let Err(error) = opened(&address) {
            write!(said, "{error} {error:?} {:?} ", error.hint()).unwrap();
        }
    }
    let variables = [("AZURE_STORAGE_KEY", KEY)];
    let server = Server::start(MemoryStore::default(), None);
    let (address, _) = server
        .url("x")
        .split_once('?')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (store, blob) = container(&address, &variables);
    let failure = store.properties(&blob).unwrap_err();
    write!(said, "{store:?} {failure:?} {}", failure.error()).unwrap();
    let route = Route {
        proxy: Some(Secret::new("http://me:hidden@127.0.0.1:1")),
        ..Route::default()
    };
    write!(said, "{route:?} {:?}", Http::new(&route).unwrap()).unwrap();
    let bad = Route {
        proxy: Some(Secret::new("hidden://me:hidden@")),
        ..Route::default()
    };
    write!(said, "{:?}", Http::new(&bad).map(|_| ()).unwrap_err()).unwrap();
    let public = Arc::new(Http::new(&Route::default()).unwrap());
    let name = BlobName::parse(&address).unwrap();
    write!(
        said,
        "{:?}",
        Rest::new(&name, vhdkit::blob::Credential::none(), public)
    )
    .unwrap();
    for secret in [
        SIGNATURE,
        "c2VjcmV0",
        KEY,
        "dGhlLWtleS1",
        "hidden",
        "sig=",
        "SharedKey",
    ] {
        assert!(!said.contains(secret), "{secret} in:\n{said}");
    }
    assert!(
        said.contains("AZURE_STORAGE_KEY") && said.contains("/disks/x"),
        "{said}"
    );
}
