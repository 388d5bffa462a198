//! Signals that the process sends to itself. Each test has a signal of its own, since they share a process.
#![cfg(unix)]

mod bounded;
mod common;

use std::time::Duration;

use bounded::run;
use futures::StreamExt;
use signal_hook::low_level::raise;
use stipend::signal::{SignalKind, ctrl_c, signal};
use stipend::time::timeout;

#[test]
fn a_signal_wakes_all_who_listen_and_repeats_are_merged() {
    run(async {
        let kind = SignalKind::terminate();
        let mut first = signal(kind).unwrap();
        let mut second = signal(kind).unwrap();
        let waiting = stipend::spawn(async move { second.recv().await });
        for _ in 0..1000 {
            raise(kind.number()).unwrap();
        }
        assert_eq!(first.recv().await, Some(()));
        assert_eq!(waiting.await.unwrap(), Some(()));
        assert!(timeout(Duration::from_millis(10), first.recv()).await.is_err());

        raise(kind.number()).unwrap();
        assert_eq!(first.next().await, Some(()));
    });
}

#[test]
fn a_dropped_listener_disturbs_nobody() {
    run(async {
        let kind = SignalKind::hangup();
        drop(signal(kind).unwrap());
        raise(kind.number()).unwrap();
        let mut later = signal(kind).unwrap();
        assert!(timeout(Duration::from_millis(10), later.recv()).await.is_err());
    });
}

#[test]
fn ctrl_c_is_sigint() {
    run(async {
        let mut pressed = Box::pin(ctrl_c());
        assert!(timeout(Duration::from_millis(10), &mut pressed).await.is_err());
        raise(SignalKind::interrupt().number()).unwrap();
        pressed.await.unwrap();
    });
}
