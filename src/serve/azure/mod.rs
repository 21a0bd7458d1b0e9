//! The cloud's interface on one machine: page blobs with correct lists of changes, managed disks and their snapshots, tokens
//! and deployments, backed by a folder in which a disk is a fixed VHD and its snapshots are a store.
//!
//! ```text
//! server       listens, with or without TLS, one thread for each connection
//! http, text   protocol parsing and formatting, and limits
//! service      dispatches requests
//! login        tokens: service principal, managed identity
//! access       keys and signatures of the storage account
//! blobs        the storage service: containers, blobs, snapshots
//! arm          the resource manager: disks, snapshots, groups, deployments
//! volume       a blob or a disk: content, pages, snapshots
//! pages        which pages hold data, and when each was written
//! points       the store with the snapshots
//! ```
//!
//! `docs/azure.md` describes the supported features.

mod access;
mod accounts;
mod arm;
mod blobs;
mod conditions;
mod http;
mod identity;
mod lease;
mod lists;
mod login;
mod pages;
mod points;
mod refusal;
mod server;
mod service;
mod text;
mod tls;
mod volume;

pub use identity::Identity;
pub use server::{Options, Server};
