//! Timers of every kind under any sequence of operations, on the manual clock, compared after each step with a model that keeps
//! them in a list and walks every grid point by point.

mod common;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Log, Wakes, log, taken};
use futures::Stream;
use proptest::prelude::*;
use stipend_timers::test::Manual;
use stipend_timers::{Account, Action, Control, CpuLimit, CpuTimer, CpuTimerStream, Lease, Setting, TimerError};

/// Fewer than a pass runs, whose bound has tests of its own.
const MOST: usize = 12;
const LONGEST: u64 = 1 << 63;

fn ns(n: u64) -> Duration {
    Duration::from_nanos(n)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Handler,
    /// A handler that arms its timer again.
    Rearming(u64),
    Silent,
    Stream,
}

#[derive(Clone, Debug)]
enum Op {
    New(Kind),
    ArmAfter(usize, u64),
    ArmAt(usize, u64),
    ArmEvery(usize, u64, u64),
    /// Arms every timer for the same time, from this one on.
    ArmAlike(usize, u64),
    Disarm(usize),
    /// Polls a stream.
    Take(usize),
    Close(usize),
    Drop(usize),
    SetLimit(Option<u64>),
    /// A poll of the task: before, what happens in the middle, whether there is a tick, after.
    Poll(u64, Vec<Op>, bool, u64),
    /// The poll in which the task completes.
    Complete(u64),
}

/// Place in the order of arming, and the like, are numbers that only grow.
struct Modelled {
    kind: Kind,
    at: Option<u64>,
    interval: u64,
    overrun: u32,
    order: u64,
    inbox: Option<(u64, u64, u32)>,
    /// Whether the stream waits, and how often it was woken.
    waits: bool,
    woken: usize,
}

#[derive(Default)]
struct Model {
    timers: Vec<Option<Modelled>>,
    charged: u64,
    progress: u64,
    hard: Option<u64>,
    order: u64,
    ended: bool,
    /// A pass is posted already; how often the task was woken for one.
    posted: bool,
    woken: usize,
    /// Which handler ran, for what time, at what use, and the overrun.
    delivered: Vec<(usize, u64, u64, u32)>,
}

impl Model {
    fn now(&self) -> u64 {
        self.charged + self.progress
    }

    fn setting(&self, i: usize) -> Setting {
        let mut setting = Setting::default();
        let timer = self.timers[i].as_ref().unwrap();
        let (Some(at), false) = (timer.at, self.ended) else { return setting };
        let mut next = u128::from(at);
        if timer.interval > 0 {
            while next <= u128::from(self.now()) {
                next += u128::from(timer.interval);
            }
        }
        setting.interval = ns(timer.interval);
        setting.remaining = match u64::try_from(next).unwrap_or(u64::MAX).saturating_sub(self.now()) {
            0 if timer.kind != Kind::Silent => ns(1),
            left => ns(left),
        };
        setting
    }

    fn arm(&mut self, i: usize, at: Option<u64>, interval: u64) -> Setting {
        let before = self.setting(i);
        self.order += 1;
        let order = self.order;
        let timer = self.timers[i].as_mut().unwrap();
        timer.at = at.map(|at| at.min(u64::MAX - 1));
        timer.interval = if at.is_some() { interval } else { 0 };
        timer.overrun = 0;
        timer.inbox = None;
        timer.order = order;
        if at.is_some() {
            self.kick();
        }
        before
    }

    /// What is due by what has been charged wakes the task, once.
    fn kick(&mut self) {
        let due =
            self.timers.iter().flatten().any(|t| t.kind != Kind::Silent && t.at.is_some_and(|at| at <= self.charged));
        if !self.posted && (due || self.hard.is_some_and(|hard| hard <= self.charged)) {
            self.posted = true;
            self.woken += 1;
        }
    }

    /// The timer that is due first.
    fn first(&self, until: u64, which: impl Fn(Kind) -> bool) -> Option<usize> {
        let due = self.timers.iter().enumerate().filter_map(|(i, timer)| {
            let timer = timer.as_ref()?;
            (which(timer.kind) && timer.at? <= until).then_some((timer.at?, timer.order, i))
        });
        due.min().map(|(_, _, i)| i)
    }

    fn fire(&mut self, i: usize) {
        let used = self.now();
        self.order += 1;
        let order = self.order;
        let timer = self.timers[i].as_mut().unwrap();
        let at = timer.at.take().unwrap();
        let mut overrun = 0;
        if timer.interval > 0 {
            let mut next = u128::from(at) + u128::from(timer.interval);
            while next <= u128::from(used) {
                next += u128::from(timer.interval);
                overrun += 1;
            }
            timer.at = Some(u64::try_from(next).unwrap_or(u64::MAX));
            timer.order = order;
        }
        match timer.kind {
            Kind::Stream => {
                timer.inbox = Some(match timer.inbox {
                    None => (at, used, overrun),
                    Some((first, _, earlier)) => (first, used, earlier + 1 + overrun),
                });
                if std::mem::take(&mut timer.waits) {
                    timer.woken += 1;
                }
            }
            kind => {
                timer.overrun = overrun;
                self.delivered.push((i, at, used, overrun));
                if let Kind::Rearming(after) = kind {
                    timer.at = Some(used + after);
                    timer.overrun = 0;
                    timer.order = order;
                }
            }
        }
    }

    /// A boundary: whether the task goes on.
    fn boundary(&mut self, completed: bool) -> bool {
        self.posted = false;
        self.charged += std::mem::take(&mut self.progress);
        let hard = self.hard.filter(|_| !completed).unwrap_or(u64::MAX);
        while let Some(i) = self.first(self.charged.min(hard), |kind| kind != Kind::Silent) {
            self.fire(i);
        }
        self.charged < hard
    }

    fn tick(&mut self) {
        while let Some(i) = self.first(self.now(), |kind| kind == Kind::Stream) {
            self.fire(i);
        }
    }

    fn end(&mut self) {
        self.ended = true;
        for timer in self.timers.iter_mut().flatten() {
            timer.overrun = 0;
            timer.at = None;
            if std::mem::take(&mut timer.waits) {
                timer.woken += 1;
            }
        }
    }

    /// `None`: it waits. `Some(None)`: it has ended.
    fn take(&mut self, i: usize) -> Option<Option<(u64, u64, u32)>> {
        let now = self.now();
        let timer = self.timers[i].as_mut().unwrap();
        if timer.at.is_some_and(|at| at <= now) {
            // It finds out for itself, so nobody is woken.
            timer.waits = false;
            self.fire(i);
        }
        let timer = self.timers[i].as_mut().unwrap();
        let taken = timer.inbox.take();
        if self.ended {
            return Some(taken);
        }
        match taken {
            Some(taken) => {
                timer.overrun = taken.2;
                Some(Some(taken))
            }
            None => {
                timer.waits = true;
                self.kick();
                None
            }
        }
    }
}

enum Made {
    Timer(CpuTimer),
    Stream(CpuTimerStream, Arc<Wakes>),
}

impl Made {
    fn timer(&self) -> &CpuTimer {
        match self {
            Made::Timer(timer) => timer,
            Made::Stream(stream, _) => stream.timer(),
        }
    }
}

/// The real thing and the model side by side.
struct Pair {
    model: Model,
    manual: Manual,
    lease: Rc<Lease>,
    account: Rc<Account>,
    wakes: Arc<Wakes>,
    made: Vec<Option<Made>>,
    delivered: Log<(usize, u64, u64, u32)>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

impl Pair {
    fn new() -> Self {
        let manual = Manual::new();
        let lease = Rc::new(manual.meter().attach());
        let account = Rc::new(Account::new());
        let wakes: Arc<Wakes> = Arc::default();
        account.set_waker(wakes.clone().into());
        Self { model: Model::default(), manual, lease, account, wakes, made: Vec::new(), delivered: log() }
    }

    /// One of the timers that there are, by any number.
    fn pick(&self, any: usize) -> Option<usize> {
        let there: Vec<_> = (0..self.made.len()).filter(|&i| self.made[i].is_some()).collect();
        (!there.is_empty()).then(|| there[any % there.len()])
    }

    fn arm(&mut self, i: usize, at: Option<u64>, interval: u64) -> Result<Setting, TimerError> {
        if self.model.ended { Err(TimerError::Exited) } else { Ok(self.model.arm(i, at, interval)) }
    }

    fn make(&self, i: usize, kind: Kind) -> Result<Made, TimerError> {
        let builder = self.account.clock().timer();
        let sink = self.delivered.clone();
        let builder = match kind {
            Kind::Stream => return Ok(Made::Stream(builder.stream()?, Arc::default())),
            Kind::Silent => builder,
            Kind::Handler | Kind::Rearming(_) => builder.on_expiry(move |e| {
                sink.lock().unwrap().push((i, nanos(e.at), nanos(e.used), e.overrun));
                if let Kind::Rearming(after) = kind { Action::RearmAfter(ns(after)) } else { Action::Continue }
            }),
        };
        builder.build().map(Made::Timer)
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::New(kind) => {
                if self.made.iter().flatten().count() == MOST {
                    return;
                }
                let i = self.made.len();
                let made = self.make(i, kind);
                assert_eq!(made.as_ref().err(), self.model.ended.then_some(&TimerError::Exited));
                let Ok(made) = made else { return };
                let fresh =
                    Modelled { kind, at: None, interval: 0, overrun: 0, order: 0, inbox: None, waits: false, woken: 0 };
                self.made.push(Some(made));
                self.model.timers.push(Some(fresh));
            }
            Op::ArmAfter(any, after) => {
                let Some(i) = self.pick(any) else { return };
                let at = (after > 0).then(|| self.model.now().saturating_add(after));
                let expected = self.arm(i, at, 0);
                assert_eq!(self.timer(i).arm_after(ns(after)), expected);
            }
            Op::ArmAt(any, at) => {
                let Some(i) = self.pick(any) else { return };
                let expected = self.arm(i, (at > 0).then_some(at), 0);
                assert_eq!(self.timer(i).arm_at(ns(at)), expected);
            }
            Op::ArmEvery(any, after, interval) => {
                let Some(i) = self.pick(any) else { return };
                let at = (after > 0).then(|| self.model.now().saturating_add(after));
                let expected = match interval {
                    0 => Err(TimerError::ZeroInterval),
                    1..=LONGEST => self.arm(i, at, interval),
                    _ => Err(TimerError::IntervalTooLong { interval: ns(interval), max: ns(LONGEST) }),
                };
                assert_eq!(self.timer(i).arm_every(ns(after), ns(interval)), expected);
            }
            Op::ArmAlike(first, at) => {
                for i in 0..self.made.len() {
                    self.apply(&Op::ArmAt(first + i, at));
                }
            }
            Op::Disarm(any) => {
                let Some(i) = self.pick(any) else { return };
                let expected = self.arm(i, None, 0).unwrap_or_default();
                assert_eq!(self.timer(i).disarm(), expected);
            }
            Op::Take(any) => {
                let Some(i) = self.pick(any) else { return };
                let Some(Made::Stream(stream, wakes)) = &mut self.made[i] else { return };
                let waker = wakes.clone().into();
                let polled = match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
                    Poll::Ready(next) => Some(next.map(|e| (nanos(e.at), nanos(e.used), e.overrun))),
                    Poll::Pending => None,
                };
                assert_eq!(polled, self.model.take(i));
            }
            Op::Close(any) | Op::Drop(any) => {
                let Some(i) = self.pick(any) else { return };
                self.model.timers[i] = None;
                match self.made[i].take() {
                    // No handler is out, so it is ready at once.
                    Some(Made::Timer(timer)) if matches!(op, Op::Close(_)) => {
                        let mut closing = tokio_test::task::spawn(timer.close());
                        assert!(closing.poll().is_ready());
                    }
                    made => drop(made),
                }
            }
            Op::SetLimit(hard) => {
                let limit = hard.map_or(CpuLimit::unlimited(), |hard| CpuLimit::hard(ns(hard)));
                assert_eq!(self.account.set_cpu_limit(limit).is_ok(), !self.model.ended);
                if !self.model.ended {
                    self.model.hard = hard;
                    self.model.kick();
                }
            }
            Op::Poll(before, ref middle, tick, after) => self.poll(before, middle, tick, after, false),
            Op::Complete(used) => self.poll(used, &[], false, 0, true),
        }
    }

    fn poll(&mut self, before: u64, middle: &[Op], tick: bool, after: u64, completed: bool) {
        if self.model.ended {
            return;
        }
        let (lease, account) = (self.lease.clone(), self.account.clone());
        let mut run = lease.begin(&account, lease.stamp());
        let goes_on = self.model.boundary(false);
        assert_eq!(matches!(run.before_poll(), Control::Proceed), goes_on);
        if goes_on {
            self.use_cpu(before);
            for op in middle {
                self.apply(op);
                self.check();
            }
            if tick {
                self.model.tick();
                self.manual.tick();
                self.check();
            }
            self.use_cpu(after);
            let goes_on = self.model.boundary(completed);
            assert_eq!(matches!(run.after_poll(completed), Control::Proceed), goes_on);
            if goes_on && !completed {
                run.end();
                return;
            }
        }
        account.end();
        self.model.end();
        run.end_now();
    }

    fn use_cpu(&mut self, used: u64) {
        self.manual.advance(ns(used));
        self.model.progress += used;
        self.check();
    }

    fn timer(&self, i: usize) -> &CpuTimer {
        self.made[i].as_ref().unwrap().timer()
    }

    fn check(&mut self) {
        assert_eq!(self.account.clock().now(), ns(self.model.now()));
        assert_eq!(taken(&self.delivered), std::mem::take(&mut self.model.delivered), "handlers");
        assert_eq!(self.wakes.count(), self.model.woken, "wakes of the task");
        for (i, made) in self.made.iter().enumerate() {
            let Some(made) = made else { continue };
            let modelled = self.model.timers[i].as_ref().unwrap();
            let setting = self.model.setting(i);
            assert_eq!(made.timer().setting(), setting, "setting of {i}, {:?}", modelled.kind);
            assert_eq!((made.timer().remaining(), made.timer().interval()), (setting.remaining, setting.interval));
            assert_eq!(made.timer().overrun(), modelled.overrun, "overrun of {i}, {:?}", modelled.kind);
            if let Made::Stream(_, wakes) = made {
                assert_eq!(wakes.count(), modelled.woken, "wakes of stream {i}");
            }
        }
    }
}

/// Few values, so that they meet: multiples of 10 us, one nanosecond beside them, and the ends of the range.
fn times() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        12 => (1..40u64).prop_map(|n| n * 10_000),
        2 => (1..40u64).prop_map(|n| n * 10_000 + 1),
        1 => Just(u64::MAX),
    ]
}

fn intervals() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 12 => (1..20u64).prop_map(|n| n * 10_000), 2 => Just(7_001), 1 => Just(LONGEST), 1 => Just(LONGEST + 1)]
}

fn work() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 8 => (1..20u64).prop_map(|n| n * 10_000), 2 => 1..200_000u64]
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Handler),
        1 => (1..20u64).prop_map(|n| Kind::Rearming(n * 10_000)),
        1 => Just(Kind::Silent),
        3 => Just(Kind::Stream),
    ]
}

/// What can happen at any moment.
fn steps() -> impl Strategy<Value = Op> {
    let any = 0..MOST;
    prop_oneof![
        4 => kinds().prop_map(Op::New),
        3 => (any.clone(), times()).prop_map(|(i, after)| Op::ArmAfter(i, after)),
        3 => (any.clone(), times()).prop_map(|(i, at)| Op::ArmAt(i, at)),
        5 => (any.clone(), times(), intervals()).prop_map(|(i, after, interval)| Op::ArmEvery(i, after, interval)),
        2 => (any.clone(), times()).prop_map(|(first, at)| Op::ArmAlike(first, at)),
        1 => any.clone().prop_map(Op::Disarm),
        5 => any.clone().prop_map(Op::Take),
        1 => any.clone().prop_map(Op::Close),
        1 => any.prop_map(Op::Drop),
        1 => prop_oneof![Just(None), (100..300u64).prop_map(|n| Some(n * 10_000)), Just(Some(10_000))].prop_map(Op::SetLimit),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let poll = (work(), prop::collection::vec(steps(), 0..4), any::<bool>(), work());
    prop_oneof![
        60 => steps(),
        40 => poll.prop_map(|(before, middle, tick, after)| Op::Poll(before, middle, tick, after)),
        1 => work().prop_map(Op::Complete),
    ]
}

fn run(ops: &[Op]) {
    let mut pair = Pair::new();
    for op in ops {
        pair.apply(op);
        pair.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t01_t04_t05_t23_t28_to_t37_t40_t42_to_t46_t48_t57_t58_any_sequence_agrees_with_the_model(
        ops in prop::collection::vec(ops(), 1..80),
    ) {
        run(&ops);
    }
}
