//! The table from mio's tokens to registered sources.
//!
//! Events are fetched in batches. Between the fetching and the handling of an event its source may have been
//! dropped and its place given to another one, so a token carries, beside the place in the slab, the **generation**
//! of its owner. Invariant: an event reaches the source it was reported for, or nobody.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use mio::Token;
use slab::Slab;

use super::readiness::{Readiness, Report, shut_down_error};
use super::wakers::Wakers;
use crate::sync::lock;

/// Low bits of a token: the place. The other bits: the generation.
const PLACE_BITS: u32 = if usize::BITS == 64 { 32 } else { 20 };
const PLACE_MASK: usize = (1 << PLACE_BITS) - 1;

/// The token of the reactor's own waker. Its place is never given to a source.
pub(super) const WAKE: Token = Token(PLACE_MASK);
/// The token of its alarm: the same place, another generation.
pub(super) const ALARM: Token = Token(1 << PLACE_BITS | PLACE_MASK);

#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: Slab<Entry>,
    registrations: usize,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    token: Token,
    readiness: Arc<Readiness>,
}

impl Sources {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }

    pub(super) fn len(&self) -> usize {
        self.table().entries.len()
    }

    pub(super) fn insert(&self, readiness: Arc<Readiness>) -> io::Result<Token> {
        let mut table = self.table();
        if table.closed {
            return Err(shut_down_error());
        }
        let place = table.entries.vacant_key();
        if place >= PLACE_MASK {
            return Err(io::Error::other("too many sources are registered with one reactor"));
        }
        table.registrations = table.registrations.wrapping_add(1);
        let token = Token(table.registrations << PLACE_BITS | place);
        table.entries.insert(Entry { token, readiness });
        Ok(token)
    }

    pub(super) fn remove(&self, token: Token) {
        let mut table = self.table();
        let place = token.0 & PLACE_MASK;
        let entry = match table.entries.get(place) {
            Some(entry) if entry.token == token => Some(table.entries.remove(place)),
            _ => None,
        };
        drop(table);
        drop(entry);
    }

    /// Applies a batch of reports, under one lock.
    pub(super) fn report(&self, reports: impl Iterator<Item = (Token, Report)>, wakers: &mut Wakers) {
        let table = self.table();
        for (token, report) in reports {
            if let Some(entry) = table.entries.get(token.0 & PLACE_MASK)
                && entry.token == token
            {
                entry.readiness.report(report, wakers);
            }
        }
    }

    /// Fails every operation in progress, and refuses registrations from now on.
    pub(super) fn close(&self, wakers: &mut Wakers) {
        let mut table = self.table();
        table.closed = true;
        for (_, entry) in &table.entries {
            entry.readiness.shut_down(wakers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures::task::noop_waker;

    use super::super::readiness::Direction;
    use super::*;

    #[test]
    fn an_event_for_a_former_owner_of_the_place_is_dropped() {
        let sources = Sources::default();
        let mut wakers = Wakers::default();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let readable = Report { readable: true, ..Report::default() };

        let former = sources.insert(Arc::new(Readiness::new(false))).unwrap();
        sources.remove(former);
        let readiness = Arc::new(Readiness::new(false));
        let owner = sources.insert(readiness.clone()).unwrap();
        assert_eq!(former.0 & PLACE_MASK, owner.0 & PLACE_MASK, "the place is used again");

        sources.report([(former, readable)].into_iter(), &mut wakers);
        assert!(readiness.poll(&mut cx, Direction::Read).is_pending());
        sources.remove(former);
        sources.report([(owner, readable)].into_iter(), &mut wakers);
        assert!(readiness.poll(&mut cx, Direction::Read).is_ready());
    }

    #[test]
    fn no_source_gets_the_token_of_the_waker_or_the_alarm() {
        let sources = Sources::default();
        for _ in 0..100 {
            let token = sources.insert(Arc::new(Readiness::new(false))).unwrap();
            assert!(token != WAKE && token != ALARM);
        }
        assert_eq!(sources.len(), 100);
    }

    #[test]
    fn a_closed_table_refuses_and_fails() {
        let sources = Sources::default();
        let mut wakers = Wakers::default();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let readiness = Arc::new(Readiness::new(false));
        sources.insert(readiness.clone()).unwrap();
        assert!(readiness.poll(&mut cx, Direction::Write).is_pending());
        sources.close(&mut wakers);
        assert_eq!(wakers.len(), 1);
        assert!(matches!(readiness.poll(&mut cx, Direction::Write), std::task::Poll::Ready(Err(_))));
        assert!(sources.insert(Arc::new(Readiness::new(false))).is_err());
    }
}
