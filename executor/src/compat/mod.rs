//! Adapters to other crates, one small file for each, behind a feature of the same name.

#[cfg(feature = "hyper")]
pub mod hyper;
