//! Scopes without an executor: accounts polled by hand, on the manual clock.

#[path = "../common/mod.rs"]
mod common;
mod fixtures;
mod limit;
mod members;
mod nesting;
mod threads;
