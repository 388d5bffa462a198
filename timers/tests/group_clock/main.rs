//! Timers, sleeps and streams on a group's clock, on the manual clock.

#[path = "../common/mod.rs"]
mod common;
mod fixtures;
mod handlers;
mod members;
mod model;
mod supervisors;
mod threads;
