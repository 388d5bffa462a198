//! Shared harness of the benchmarks.
