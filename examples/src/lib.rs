//! Nothing: the examples are in the folders beside this one, each started with `cargo run --release --example <name>`.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
