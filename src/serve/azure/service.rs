//! The parts of a server (storage account, resources, tokens), and the dispatch of requests to them.

use std::path::Path;

use super::accounts::Accounts;
use super::arm::Manager;
use super::blobs::Storage;
use super::http::{Request, Response};
use super::identity::Identity;
use super::login;
use super::text::{http_time, now, uuid};
use crate::error::{Error, ErrorKind, Result};
use crate::serve::Told;
use crate::storage::Audience;

/// The version reported to clients that don't send one.
const VERSION: &str = "2021-12-02";

pub(super) struct Service {
    identity: Identity,
    root: String,
    open_identity: bool,
    accounts: Accounts,
    manager: Manager,
}

impl Service {
    pub(super) fn open(
        folder: &Path,
        identity: Identity,
        root: String,
        (open_identity, copy_rate): (bool, Option<u64>),
        audience: &Audience,
    ) -> Result<Self> {
        let accounts = folder.join("accounts").join(&identity.account);
        Ok(Self {
            accounts: Accounts::open(accounts, audience)?,
            manager: Manager::open(folder, &identity, copy_rate, audience)?,
            identity,
            root,
            open_identity,
        })
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Answers a request; errors of the server are reported.
    pub(super) fn answer(&self, request: &Request, tell: &Told) -> Response {
        let root = request.root(&self.root);
        if let Some(answered) = login::answer(request, &self.identity, &root, self.open_identity) {
            return answered.unwrap_or_else(|refusal| refusal.as_json());
        }
        let id = uuid();
        let of_manager = Manager::is_for(&request.path);
        let answered = if of_manager {
            self.manager.answer(request, &self.identity, &root)
        } else {
            let storage = Storage {
                accounts: &self.accounts,
                identity: &self.identity,
                grants: &self.manager,
                root: root.clone(),
            };
            storage.answer(request)
        };
        let response = answered.unwrap_or_else(|refusal| {
            if refusal.status == 500 {
                tell(&Error::new(ErrorKind::Io, refusal.message.clone()));
            }
            if of_manager {
                refusal.as_json()
            } else {
                refusal.as_xml(request)
            }
        });
        let mut response = response
            .with("x-ms-request-id", id)
            .with("date", http_time(now()));
        if !of_manager {
            response = response.with(
                "x-ms-version",
                request.said("x-ms-version").unwrap_or(VERSION),
            );
        }
        if let Some(client) = request.said("x-ms-client-request-id") {
            response = response.with("x-ms-client-request-id", client);
        }
        response
    }

    /// Ends copies in the background.
    pub(super) fn interrupt(&self) {
        self.manager.interrupt();
    }

    /// Records the state of everything.
    pub(super) fn close(&self) -> Result<()> {
        self.accounts.close()?;
        self.manager.close()
    }
}
