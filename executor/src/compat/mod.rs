//! Adapters to other crates, one small file for each, behind a feature of the same name. The traits of `futures`, which is a
//! dependency anyhow, are always implemented.

#[cfg(feature = "hyper")]
pub mod hyper;
mod spawn;
