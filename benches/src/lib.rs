//! Shared harness of the benchmarks: arguments, interleaved pairs, statistics, table, JSON and plots.
//!
//! Every bench is a `main` that first calls [`child::serve`] (it may be a child of itself), then reads [`args::Args`], takes
//! its samples in rounds ([`rounds`]) and hands [`row::Row`]s to a [`report::Report`].
//!
//! What all of them keep to: whatever is compared is measured in the same process run, one after the other in every round,
//! so that a change of the machine's mood meets all alike; a ratio is formed within a round, never between rounds.

pub mod args;
pub mod busy;
pub mod child;
pub mod os;
pub mod plot;
pub mod posix;
pub mod random;
pub mod report;
pub mod rounds;
pub mod row;
pub mod stats;
pub mod table;
pub mod threads;
pub mod work;
