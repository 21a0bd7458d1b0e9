//! Stores of points in time, as the commands make them, leave them, and find them again.

mod busy;
mod copies;
mod crash;
mod damage;
mod encrypted;
mod family;
mod forged;
mod habits;
pub(crate) mod lab;
mod like;
mod packed;
mod points;
mod prune;
mod readers;
mod refusals;
mod repair;
mod restore;
mod room;
mod scale;
mod streams;
mod words;
