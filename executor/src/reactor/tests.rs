//! The reactor as a whole, with a driver turned by hand.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Wake};
use std::thread;

use futures::task::noop_waker;
use mio::net::TcpStream;

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn now_and(duration: Duration) -> Instant {
    Instant::now() + duration
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct PanicOnWake;

impl Wake for PanicOnWake {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

fn connection(reactor: &Arc<Reactor>) -> (Io<TcpStream>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let interest = Interest::READABLE | Interest::WRITABLE;
    let stream = TcpStream::from_std(stream);
    (Io::new(reactor, stream, interest, Initially::Unknown).unwrap(), peer)
}

fn poll_read(io: &Io<TcpStream>, waker: &Waker) -> std::task::Poll<Result<usize>> {
    let mut cx = Context::from_waker(waker);
    io.poll_transfer(&mut cx, Direction::Read, 64, |mut stream| stream.read(&mut [0; 64]))
}

#[test]
fn a_wake_before_the_turn_ends_it() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    for _ in 0..100 {
        reactor.wake();
    }
    driver.turn(None).unwrap();
}

#[test]
fn a_wake_during_the_turn_ends_it() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    for _ in 0..1000 {
        thread::scope(|scope| {
            scope.spawn(|| reactor.wake());
            driver.turn(None).unwrap();
        });
    }
}

/// With the system's alarm, if it has one, and with the wait's own timeout.
fn with_and_without_an_alarm(test: impl Fn(Arc<Reactor>, Driver)) {
    let (reactor, driver) = Reactor::new().unwrap();
    test(reactor, driver);
    let (reactor, mut driver) = Reactor::new().unwrap();
    driver.alarm = Alarm::none();
    test(reactor, driver);
}

#[test]
fn an_earlier_timer_ends_the_sleep_for_a_later_one() {
    with_and_without_an_alarm(an_earlier_timer_ends_the_sleep);
}

fn an_earlier_timer_ends_the_sleep(reactor: Arc<Reactor>, mut driver: Driver) {
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let _late = reactor.insert_timer(now_and(LONG), &noop_waker()).unwrap();
    let start = Instant::now();
    let deadline = start + Duration::from_millis(20);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(5));
            reactor.insert_timer(deadline, &waker).unwrap();
        });
        while count.get() == 0 {
            driver.turn(None).unwrap();
        }
    });
    assert!(Instant::now() >= deadline);
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn a_timer_never_fires_early() {
    with_and_without_an_alarm(never_early);
}

fn never_early(reactor: Arc<Reactor>, mut driver: Driver) {
    for micros in [1, 10, 400, 999, 1000, 1001, 1500, 2700] {
        let count = Arc::new(Count::default());
        let deadline = now_and(Duration::from_micros(micros));
        reactor.insert_timer(deadline, &Waker::from(count.clone())).unwrap();
        while count.get() == 0 {
            driver.turn(None).unwrap();
        }
        assert!(Instant::now() >= deadline, "{micros} us");
    }
}

#[test]
fn a_turn_with_zero_timeout_does_not_wait() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let _key = reactor.insert_timer(now_and(LONG), &noop_waker()).unwrap();
    let start = Instant::now();
    driver.turn(Some(Duration::ZERO)).unwrap();
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn a_timer_that_falls_due_at_once_or_never_does_not_stop_the_others() {
    with_and_without_an_alarm(|reactor, mut driver| {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        // Further away than the kernel's timers and `Instant` count.
        let mut never = Instant::now();
        while let Some(later) = never.checked_add(Duration::from_secs(1 << 56)) {
            never = later;
        }
        for deadline in [never, Instant::now(), now_and(Duration::from_millis(1)), now_and(200 * 365 * 24 * 60 * LONG)]
        {
            reactor.insert_timer(deadline, &waker).unwrap();
        }
        while count.get() < 2 {
            driver.turn(None).unwrap();
        }
        reactor.wake();
        driver.turn(None).unwrap();
        assert_eq!(count.get(), 2);
    });
}

#[cfg(all(target_os = "linux", not(stipend_portable)))]
#[test]
fn the_alarm_is_set_for_an_earlier_deadline_only_and_a_cancelled_one_costs_a_sleep() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let sleep = |driver: &mut Driver| {
        reactor.wake();
        driver.turn(None).unwrap();
        driver.alarm.rings_at()
    };
    let never = sleep(&mut driver);
    let [soon, later, earliest] = [now_and(LONG / 100), now_and(LONG), now_and(LONG / 200)];
    let _later = reactor.insert_timer(later, &noop_waker()).unwrap();
    let for_later = sleep(&mut driver);
    let soon = reactor.insert_timer(soon, &noop_waker()).unwrap();
    let for_soon = sleep(&mut driver);
    assert!(for_soon < for_later && for_later < never);
    reactor.remove_timer(soon);
    assert_eq!(sleep(&mut driver), for_soon, "it is left as it was");
    let earliest = reactor.insert_timer(earliest, &noop_waker()).unwrap();
    let for_earliest = sleep(&mut driver);
    assert!(for_earliest < for_soon);
    reactor.remove_timer(earliest);
    // For nothing: nothing is due.
    driver.turn(None).unwrap();
    assert_eq!(driver.alarm.rings_at(), never, "it has rung");
    assert_eq!(sleep(&mut driver), for_later);
}

#[test]
fn a_removed_timer_wakes_nobody() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let count = Arc::new(Count::default());
    let key = reactor.insert_timer(Instant::now(), &Waker::from(count.clone())).unwrap();
    reactor.remove_timer(key);
    driver.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(count.get(), 0);
    assert_eq!(reactor.timers.len(), 0);
}

#[test]
fn a_waker_that_panics_keeps_no_other_from_waking() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let count = Arc::new(Count::default());
    for _ in 0..3 {
        reactor.insert_timer(Instant::now(), &Waker::from(Arc::new(PanicOnWake))).unwrap();
        reactor.insert_timer(Instant::now(), &Waker::from(count.clone())).unwrap();
    }
    driver.turn(None).unwrap();
    assert_eq!(count.get(), 3);
}

#[test]
fn a_waker_may_use_the_reactor() {
    struct Rearm(Arc<Reactor>);
    impl Wake for Rearm {
        fn wake(self: Arc<Self>) {
            let key = self.0.insert_timer(now_and(LONG), &noop_waker()).unwrap();
            self.0.remove_timer(key);
            self.0.wake();
        }
    }
    let (reactor, mut driver) = Reactor::new().unwrap();
    let waker = Waker::from(Arc::new(Rearm(reactor.clone())));
    let _key = reactor.insert_timer(Instant::now(), &waker).unwrap();
    driver.turn(None).unwrap();
    driver.turn(None).unwrap();
}

#[test]
fn bytes_wake_the_reader() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let (io, mut peer) = connection(&reactor);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    assert!(poll_read(&io, &waker).is_pending());
    peer.write_all(b"12345").unwrap();
    while count.get() == 0 {
        driver.turn(None).unwrap();
    }
    assert!(matches!(poll_read(&io, &waker), std::task::Poll::Ready(Ok(5))));
    assert!(poll_read(&io, &waker).is_pending());
}

#[test]
fn an_event_in_flight_does_not_reach_the_next_owner_of_the_place() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let (former, mut peer) = connection(&reactor);
    peer.write_all(b"x").unwrap();
    // Fetch the event by hand, and handle it after the place has changed hands.
    let reports: Vec<_> = loop {
        driver.poll.poll(&mut driver.events, Some(LONG)).unwrap();
        let reports: Vec<_> = driver.events.iter().map(|event| (event.token(), Report::from(event))).collect();
        if reports.iter().any(|(_, report)| report.readable) {
            break reports;
        }
    };
    drop(former);
    let (owner, _peer) = connection(&reactor);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    assert!(poll_read(&owner, &waker).is_pending());
    let mut wakers = Wakers::default();
    reactor.sources.report(reports.into_iter(), &mut wakers);
    assert_eq!(wakers.len(), 0);
    assert_eq!(count.get(), 0);
}

#[test]
fn dropping_a_source_unregisters_it() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    for _ in 0..100 {
        let (io, mut peer) = connection(&reactor);
        peer.write_all(b"x").unwrap();
        drop(io);
        driver.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(reactor.sources.len(), 0);
}

#[test]
fn shutdown_fails_operations_fires_timers_and_ends_the_turn() {
    let (reactor, mut driver) = Reactor::new().unwrap();
    let (io, _peer) = connection(&reactor);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    assert!(poll_read(&io, &waker).is_pending());
    let key = reactor.insert_timer(now_and(LONG), &waker).unwrap();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        driver.turn(None).unwrap();
        sender.send(driver).unwrap();
    });
    reactor.shutdown();
    let driver = ended.recv_timeout(LONG).unwrap();
    assert_eq!(count.get(), 2);
    assert!(matches!(poll_read(&io, &waker), std::task::Poll::Ready(Err(_))));
    assert!(reactor.poll_timer(&key, &waker));
    assert!(reactor.insert_timer(now_and(LONG), &waker).is_none());
    drop(driver);
    drop(reactor);
    drop(io);
}

#[test]
fn dropping_the_driver_leaves_nobody_waiting() {
    let (reactor, driver) = Reactor::new().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let key = reactor.insert_timer(now_and(LONG), &waker).unwrap();
    drop(driver);
    assert_eq!(count.get(), 1);
    assert!(reactor.poll_timer(&key, &waker));
}
