//! Scopes without an executor: accounts polled by hand, on the manual clock.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use stipend_timers::test::{Manual, allocated};
use stipend_timers::{
    Account, CancelReason, CheckpointError, Control, CpuLimit, CpuLimitExceeded, Group, Lease, LimitError, LimitKind,
    Meter, Metered, Offload, Scope, ScopeRun, checkpoint, cpu_timeout, has_budget,
};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A thread on the manual clock.
struct Bench {
    manual: Manual,
    lease: Lease,
}

impl Bench {
    fn new() -> Self {
        Self::on(&Manual::new())
    }

    fn on(manual: &Manual) -> Self {
        Self { manual: manual.clone(), lease: manual.meter().attach() }
    }

    /// One poll of an account, as an executor makes it.
    fn poll(&self, account: &Account, poll: impl FnOnce()) -> Control {
        let mut run = self.lease.begin(account, self.lease.stamp());
        let control = match run.before_poll() {
            Control::Proceed => {
                poll();
                run.after_poll(false)
            }
            cancel => cancel,
        };
        match control {
            Control::Proceed => {
                run.end();
                account.watch().recheck();
            }
            Control::Cancel(_) => {
                account.end();
                run.end_now();
            }
        }
        control
    }

    fn burn(&self, account: &Account, cpu: Duration) -> Control {
        self.poll(account, || self.manual.advance(cpu))
    }
}

/// What the next poll does, and whether that completes it.
type Step<'a> = Rc<RefCell<Option<Box<dyn FnOnce() -> bool + 'a>>>>;
type Script<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A scope whose run does what it is given, a poll each.
struct Request<'a> {
    run: Pin<Box<ScopeRun<Script<'a>>>>,
    todo: Step<'a>,
    wakes: Arc<Wakes>,
}

impl<'a> Request<'a> {
    fn new(limit: Duration) -> Self {
        let todo = Step::default();
        let next = todo.clone();
        let script: Script<'a> = Box::pin(poll_fn(move |_| {
            let step = next.borrow_mut().take();
            if step.is_some_and(|step| step()) { Poll::Ready(()) } else { Poll::Pending }
        }));
        Self { run: Box::pin(Scope::with_limit(limit).run(script)), todo, wakes: Arc::default() }
    }

    fn poll(&mut self, step: impl FnOnce() -> bool + 'a) -> Poll<Result<(), CpuLimitExceeded>> {
        *self.todo.borrow_mut() = Some(Box::new(step));
        self.again()
    }

    fn again(&mut self) -> Poll<Result<(), CpuLimitExceeded>> {
        let waker = Waker::from(self.wakes.clone());
        self.run.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// An account made inside, as a task spawned there.
    fn spawn(&mut self) -> (Account, Arc<Wakes>) {
        let made = Rc::new(RefCell::new(None));
        let spawned = made.clone();
        let polled = self.poll(move || {
            *spawned.borrow_mut() = Some(Account::inherit().0);
            false
        });
        assert!(polled.is_pending());
        with_waker(made.take().unwrap())
    }
}

fn with_waker(account: Account) -> (Account, Arc<Wakes>) {
    let wakes = Arc::<Wakes>::default();
    account.set_waker(Waker::from(wakes.clone()));
    (account, wakes)
}

#[track_caller]
fn over(control: Control) -> CpuLimitExceeded {
    let Control::Cancel(CancelReason::CpuLimit(exceeded)) = control else { panic!("{control:?}") };
    assert_eq!(exceeded.kind, LimitKind::Scope);
    exceeded
}

#[track_caller]
fn over_run(polled: Poll<Result<(), CpuLimitExceeded>>) -> CpuLimitExceeded {
    let Poll::Ready(Err(exceeded)) = polled else { panic!("{polled:?}") };
    assert_eq!(exceeded.kind, LimitKind::Scope);
    exceeded
}

#[track_caller]
fn goes_on(control: Control) {
    assert!(matches!(control, Control::Proceed), "{control:?}");
}

#[track_caller]
fn requested(control: Control) {
    assert!(matches!(control, Control::Cancel(CancelReason::Requested)), "{control:?}");
}

#[test]
fn s01_the_limit_binds_the_sum_of_the_run_its_children_and_theirs() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let clock = request.run.clock();
    let (child, _) = request.spawn();
    let mut made = None;
    goes_on(bench.poll(&child, || made = Some(with_waker(Account::inherit().0))));
    let (grandchild, _) = made.unwrap();
    assert!(
        request
            .poll(|| {
                bench.manual.advance(ms(20));
                false
            })
            .is_pending()
    );
    goes_on(bench.burn(&child, ms(20)));
    assert_eq!(clock.now(), ms(40));
    assert_eq!((child.usage().cpu, grandchild.usage().cpu), (ms(20), ms(0)));
    let exceeded = over(bench.burn(&grandchild, ms(15)));
    assert_eq!((exceeded.used, exceeded.limit, exceeded.polls), (ms(55), ms(50), 1));
    let exceeded = over_run(request.again());
    assert_eq!((exceeded.used, exceeded.limit), (ms(55), ms(50)));
    over(bench.poll(&child, || panic!("it is not polled again")));
    assert_eq!(clock.now(), ms(55));
}

#[test]
fn s01_c03_a_blocking_job_of_a_member_is_charged_once_to_each_around() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let clock = request.run.clock();
    let (child, wakes) = request.spawn();
    let mut captured = None;
    goes_on(bench.poll(&child, || captured = Some(Offload::capture())));
    let captured = captured.unwrap();
    let job = bench.lease.offload(&captured, bench.lease.stamp());
    bench.manual.advance(ms(30));
    assert_eq!(clock.now(), ms(30), "a job under way counts");
    drop(job);
    assert_eq!((clock.now(), child.usage().cpu), (ms(30), ms(30)));
    let job = bench.lease.offload(&captured, bench.lease.stamp());
    bench.manual.advance(ms(30));
    assert_eq!(checkpoint(), Ok(()));
    bench.manual.tick();
    assert!(matches!(checkpoint(), Err(CheckpointError::CpuLimitExceeded(e)) if e.kind == LimitKind::Scope));
    drop(job);
    assert_eq!(wakes.count(), 1, "its task is woken");
    assert_eq!(request.wakes.count(), 1, "and the run");
    over(bench.poll(&child, || panic!("it is not polled again")));
    over_run(request.again());
    assert_eq!(clock.now(), ms(60));
}

#[test]
fn s01_c04_a_job_of_the_run_is_charged_to_the_task_and_to_the_scope() {
    let bench = Bench::new();
    let task = Account::new();
    let captured = RefCell::new(None);
    let mut request = Request::new(ms(50));
    let clock = request.run.clock();
    goes_on(bench.poll(&task, || {
        let step = || {
            *captured.borrow_mut() = Some(Offload::capture());
            bench.manual.advance(ms(5));
            false
        };
        assert!(request.poll(step).is_pending());
    }));
    drop(bench.lease.offload(captured.borrow().as_ref().unwrap(), bench.lease.stamp()));
    let job = captured.borrow_mut().take().unwrap();
    let run = bench.lease.offload(&job, bench.lease.stamp());
    bench.manual.advance(ms(10));
    drop(run);
    assert_eq!((task.usage().cpu, task.usage().nested), (ms(15), ms(5)));
    assert_eq!(clock.now(), ms(15), "its own time is not counted twice");
}

#[test]
fn s02_a_member_that_waits_is_woken_and_ended() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (waits, woken) = request.spawn();
    let (works, _) = request.spawn();
    let (fresh, _) = request.spawn();
    goes_on(bench.burn(&waits, ms(1)));
    goes_on(bench.burn(&works, ms(30)));
    assert_eq!((woken.count(), request.wakes.count()), (0, 0));
    over(bench.burn(&works, ms(30)));
    assert_eq!((woken.count(), request.wakes.count()), (1, 1));
    assert_eq!(waits.cancel(), Ok(true), "an abort that comes later wakes, and changes nothing");
    let exceeded = over(bench.poll(&waits, || panic!("it is not polled again")));
    assert_eq!((exceeded.used, exceeded.limit), (ms(61), ms(50)));
    over(bench.poll(&fresh, || panic!("it is not polled at all")));
    assert!(waits.has_ended() && works.has_ended());
    over_run(request.again());
}

#[test]
fn s02_a_child_spawned_into_a_scope_that_is_over_is_not_polled() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    let made = RefCell::new(None);
    over(bench.poll(&child, || {
        bench.manual.advance(ms(60));
        bench.manual.tick();
        *made.borrow_mut() = Some(Account::inherit().0);
    }));
    over(bench.poll(made.borrow().as_ref().unwrap(), || panic!("it is not polled")));
}

#[test]
fn s02_runaway_polls_on_several_threads_are_seen_by_one_tick() {
    let manual = Manual::new();
    let _bench = Bench::on(&manual);
    let mut request = Request::new(ms(50));
    let members: Vec<_> = (0..2).map(|_| request.spawn().0).collect();
    let clock = request.run.clock();
    std::thread::scope(|threads| {
        let mut runs = Vec::new();
        for member in &members {
            let (burnt, wait_burnt) = channel();
            let (go_on, wait_go_on) = channel::<()>();
            let manual = manual.clone();
            let thread = threads.spawn(move || {
                let bench = Bench::on(&manual);
                let control = bench.poll(member, || {
                    manual.advance(ms(30));
                    assert!(has_budget() && checkpoint().is_ok());
                    burnt.send(()).unwrap();
                    wait_go_on.recv().unwrap();
                    assert!(!has_budget());
                    let Err(CheckpointError::CpuLimitExceeded(e)) = checkpoint() else { panic!("no limit") };
                    assert_eq!((e.kind, e.used, e.limit), (LimitKind::Scope, ms(60), ms(50)));
                });
                over(control);
            });
            wait_burnt.recv().unwrap();
            runs.push((thread, go_on));
        }
        assert_eq!(clock.now(), ms(60), "neither is charged yet");
        // The run is told too, in a poll that goes on.
        let polled = request.poll(|| {
            assert!(has_budget());
            manual.tick();
            assert!(!has_budget() && checkpoint().is_err());
            false
        });
        over_run(polled);
        for (thread, go_on) in runs {
            go_on.send(()).unwrap();
            thread.join().unwrap();
        }
    });
    assert_eq!(clock.now(), ms(60));
}

#[test]
fn t01_s02_wall_time_alone_ends_nobody() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    goes_on(bench.poll(&child, || {
        bench.manual.advance(ms(49));
        bench.manual.advance_wall(ms(1000));
        let report = bench.manual.tick();
        assert_eq!(report.confirmed, 0);
        assert_eq!(checkpoint(), Ok(()));
    }));
}

#[test]
fn s03_the_tightest_of_nested_scopes_binds_the_inner_one() {
    let bench = Bench::new();
    let mut outer = Request::new(ms(100));
    let (child, _) = outer.spawn();
    let clock = outer.run.clock();
    let mut inner = Request::new(ms(20));
    let inner_clock = inner.run.clock();
    let polled = RefCell::new(None);
    goes_on(bench.poll(&child, || {
        *polled.borrow_mut() = Some(inner.poll(|| {
            bench.manual.advance(ms(25));
            false
        }));
        bench.manual.advance(ms(1));
    }));
    let exceeded = over_run(polled.borrow_mut().take().unwrap());
    assert_eq!((exceeded.used, exceeded.limit), (ms(25), ms(20)));
    assert_eq!((inner_clock.now(), clock.now()), (ms(25), ms(26)), "nothing is counted twice");
    goes_on(bench.burn(&child, ms(1)));
    assert!(outer.poll(|| true).is_ready());
}

#[test]
fn s03_the_tightest_of_nested_scopes_binds_the_outer_one() {
    let bench = Bench::new();
    let mut outer = Request::new(ms(30));
    let (child, _) = outer.spawn();
    let mut inner = Request::new(ms(1000));
    let grandchild = RefCell::new(None);
    goes_on(bench.poll(&child, || {
        *grandchild.borrow_mut() = Some(inner.spawn());
    }));
    let (grandchild, woken) = grandchild.take().unwrap();
    let (sibling, _) = outer.spawn();
    over(bench.burn(&sibling, ms(40)));
    assert_eq!((woken.count(), inner.wakes.count()), (1, 1), "members of the inner one are told, and its run");
    let exceeded = over(bench.poll(&grandchild, || panic!("it is not polled again")));
    assert_eq!(exceeded.limit, ms(30));
    assert_eq!(over_run(inner.again()).limit, ms(30));
    over(bench.poll(&child, || panic!("it is not polled again")));
    over_run(outer.again());
}

#[test]
fn s03_a_grandchild_in_an_inner_scope_uses_up_the_outer_one() {
    let bench = Bench::new();
    let mut outer = Request::new(ms(30));
    let (child, woken) = outer.spawn();
    let mut inner = Request::new(ms(1000));
    let grandchild = RefCell::new(None);
    goes_on(bench.poll(&child, || *grandchild.borrow_mut() = Some(inner.spawn())));
    let (grandchild, _) = grandchild.take().unwrap();
    assert_eq!(over(bench.burn(&grandchild, ms(40))).limit, ms(30));
    assert_eq!(inner.run.clock().now(), ms(40));
    assert_eq!(outer.run.clock().now(), ms(40));
    assert_eq!(woken.count(), 1);
    over(bench.poll(&child, || ()));
    over_run(outer.again());
}

#[test]
fn s03_children_are_cancelled_when_the_run_completes_or_is_dropped() {
    for completes in [true, false] {
        let bench = Bench::new();
        let mut request = Request::new(ms(50));
        let (waits, woken) = request.spawn();
        let (ended, _) = request.spawn();
        ended.end();
        let mut inner = Request::new(ms(10));
        let grandchild = RefCell::new(None);
        goes_on(bench.poll(&waits, || *grandchild.borrow_mut() = Some(inner.spawn())));
        let (grandchild, grandchild_woken) = grandchild.take().unwrap();
        if completes {
            assert!(matches!(request.poll(|| true), Poll::Ready(Ok(()))));
        } else {
            drop(request);
        }
        assert_eq!((woken.count(), grandchild_woken.count()), (1, 1));
        requested(bench.poll(&waits, || panic!("it is not polled again")));
        requested(bench.poll(&grandchild, || panic!("it is not polled again")));
    }
}

#[test]
fn s02_after_the_end_of_the_run_nobody_is_over_its_limit() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    let (last, _) = request.spawn();
    requested(bench.poll(&child, || {
        bench.manual.advance(ms(40));
        assert!(request.poll(|| true).is_ready());
        bench.manual.advance(ms(40));
        bench.manual.tick();
        assert_eq!(checkpoint(), Err(CheckpointError::Cancelled));
    }));
    requested(bench.poll(&last, || ()));
}

#[test]
fn s01_t61_a_cpu_timeout_inside_a_scope_and_one_around_it() {
    let bench = Bench::new();
    // Inside: its own limit binds it, the scope's the rest.
    let scope = Scope::with_limit(ms(50));
    let clock = scope.clock();
    let manual = &bench.manual;
    let run = scope.run(async {
        let short = cpu_timeout(
            ms(10),
            poll_fn(|_| {
                manual.advance(ms(15));
                Poll::<()>::Pending
            }),
        )
        .await;
        assert_eq!(short.unwrap_err().kind, LimitKind::Total);
        manual.advance(ms(20));
        7
    });
    assert_eq!(futures::executor::block_on(run), Ok(7));
    assert_eq!(clock.now(), ms(35));
    // Around: the children outlive neither.
    let child = RefCell::new(None);
    let run = cpu_timeout(
        ms(10),
        Scope::with_limit(ms(50)).run(poll_fn(|_| {
            *child.borrow_mut() = Some(Account::inherit().0);
            manual.advance(ms(15));
            Poll::<()>::Pending
        })),
    );
    assert_eq!(futures::executor::block_on(run).unwrap_err().kind, LimitKind::Total);
    requested(bench.poll(child.borrow().as_ref().unwrap(), || ()));
}

#[test]
fn s01_a_scope_inside_a_group_counts_into_both() {
    let bench = Bench::new();
    let group = Group::builder("tenant").build().unwrap();
    let task = Account::new();
    task.set_group(&group);
    let child = RefCell::new(None);
    let mut request = Request::new(ms(50));
    goes_on(bench.poll(&task, || {
        let step = || {
            *child.borrow_mut() = Some(Account::inherit().0);
            bench.manual.advance(ms(10));
            false
        };
        assert!(request.poll(step).is_pending());
    }));
    let child = child.take().unwrap();
    assert_eq!(child.group().map(|group| group.id()), Some(group.id()));
    goes_on(bench.burn(&child, ms(20)));
    let other = Group::builder("other").build().unwrap();
    child.set_group(&other);
    goes_on(bench.burn(&child, ms(5)));
    assert_eq!((group.cpu_time(), other.cpu_time()), (ms(30), ms(5)));
    assert_eq!(request.run.clock().now(), ms(35));
    over(bench.burn(&child, ms(20)));
}

#[test]
fn s01_a_spawn_in_deeply_nested_runs_does_not_escape() {
    let bench = Bench::new();
    let manual = &bench.manual;
    let child = RefCell::new(None);
    let scope = Scope::with_limit(ms(20));
    let clock = scope.clock();
    let deep = scope.run(async {
        *child.borrow_mut() = Some((Account::inherit().0, Offload::capture()));
        manual.advance(ms(1));
        pending::<()>().await;
    });
    let nested = Metered::new(Metered::new(Metered::new(Metered::new(Metered::new(deep)))));
    let mut nested = pin!(nested);
    assert!(nested.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let (child, offload) = child.take().unwrap();
    let job = bench.lease.offload(&offload, bench.lease.stamp());
    manual.advance(ms(4));
    drop(job);
    goes_on(bench.burn(&child, ms(10)));
    assert_eq!(clock.now(), ms(15));
    over(bench.burn(&child, ms(10)));
}

#[test]
fn s03_a_scope_outside_of_which_it_was_made_counts_where_it_is_polled() {
    let bench = Bench::new();
    let mut a = Request::new(ms(100));
    let (child, _) = a.spawn();
    // Made in no scope, polled in one.
    let mut inner = Request::new(ms(100));
    goes_on(bench.poll(&child, || assert!(inner.poll(|| false).is_pending())));
    // And then elsewhere: it still counts into the one that it began in.
    assert!(
        inner
            .poll(|| {
                bench.manual.advance(ms(7));
                false
            })
            .is_pending()
    );
    assert_eq!((inner.run.clock().now(), a.run.clock().now(), child.usage().cpu), (ms(7), ms(7), ms(0)));
}

#[test]
fn t54_a_limit_of_zero_is_refused() {
    assert_eq!(Scope::try_with_limit(Duration::ZERO).unwrap_err(), LimitError::ZeroHard);
    let _ = std::panic::catch_unwind(|| Scope::with_limit(Duration::ZERO)).unwrap_err();
}

#[test]
fn t58_a_scope_s_limit_can_be_lowered_while_it_runs() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    goes_on(bench.burn(&child, ms(30)));
    request.run.clock().set_cpu_limit(CpuLimit::hard(ms(25))).unwrap();
    assert_eq!(request.wakes.count(), 1);
    assert_eq!(over_run(request.again()).limit, ms(25));
    over(bench.poll(&child, || ()));
}

#[test]
fn t50_s01_timers_on_a_scope_s_clock_fire_by_what_its_members_use() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    let fired = Arc::new(AtomicUsize::new(0));
    let count = fired.clone();
    let timer = request.run.clock().timer().on_expiry(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        stipend_timers::Action::Continue
    });
    let _timer = timer.arm_after(ms(20)).unwrap();
    goes_on(bench.burn(&child, ms(30)));
    assert_eq!(request.wakes.count(), 1);
    assert!(request.again().is_pending());
    assert_eq!(fired.load(Ordering::SeqCst), 1);
}

#[test]
fn s03_records_of_scopes_are_released() {
    let bench = Bench::new();
    let round = || {
        let mut request = Request::new(ms(50));
        let (child, _) = request.spawn();
        goes_on(bench.burn(&child, ms(1)));
        let clock = child.clock();
        drop(child);
        drop(clock);
    };
    (0..100).for_each(|_| round());
    let before = allocated().accounts;
    for _ in 0..100_000 {
        let scope = Scope::with_limit(ms(50));
        let child = RefCell::new(None);
        let run = scope.run(async { *child.borrow_mut() = Some(Account::inherit().0) });
        assert_eq!(futures::executor::block_on(run), Ok(()));
        requested(bench.poll(&child.take().unwrap(), || ()));
    }
    // Other tests of this process make accounts meanwhile.
    assert!(allocated().accounts <= before + 4096, "{before} before, {} after", allocated().accounts);
}

/// Members on several threads at once: what they and the run were charged is what the scope was, and all who end early end alike.
#[test]
fn s01_s02_members_on_several_threads_add_up() {
    for round in 0..200 {
        let manual = Manual::new();
        let mut request = Request::new(ms(100));
        let clock = request.run.clock();
        let _bench = Bench::on(&manual);
        let members: Vec<Vec<Account>> = (0..3).map(|_| (0..4).map(|_| request.spawn().0).collect()).collect();
        std::thread::scope(|threads| {
            for members in &members {
                let manual = manual.clone();
                threads.spawn(move || {
                    let bench = Bench::on(&manual);
                    let mut alive: Vec<&Account> = members.iter().collect();
                    while !alive.is_empty() {
                        alive.retain(|member| match bench.burn(member, ms(1 + round % 3)) {
                            Control::Proceed => true,
                            control => {
                                let exceeded = over(control);
                                assert!(exceeded.used >= exceeded.limit && exceeded.limit == ms(100));
                                false
                            }
                        });
                    }
                });
            }
            while request.again().is_pending() {
                std::thread::yield_now();
            }
        });
        let sum: Duration = members.iter().flatten().map(|member| member.usage().cpu).sum();
        assert_eq!(clock.now(), sum);
        assert!(sum >= ms(100) && sum <= ms(100) + 12 * ms(3), "{sum:?}");
    }
}

/// Scopes that end while members join, run and end on other threads.
#[test]
fn s02_s03_scopes_end_under_their_members() {
    for _ in 0..300 {
        let manual = Manual::new();
        let bench = Bench::on(&manual);
        let mut request = Request::new(ms(1000));
        let members: Vec<Account> = (0..3).map(|_| request.spawn().0).collect();
        std::thread::scope(|threads| {
            for member in &members {
                let manual = manual.clone();
                threads.spawn(move || {
                    let bench = Bench::on(&manual);
                    let mut children = Vec::new();
                    let control = loop {
                        match bench.poll(member, || children.push(Account::inherit().0)) {
                            Control::Proceed => {}
                            cancel => break cancel,
                        }
                        if children.len() > 8 {
                            children.remove(3);
                        }
                    };
                    requested(control);
                    for child in &children {
                        requested(bench.poll(child, || panic!("its scope has ended")));
                    }
                });
            }
            assert!(request.again().is_pending());
            drop(request);
        });
        drop(bench);
    }
}

/// What a scope costs beside an async block, and what a spawn into one does: run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_scope_costs() {
    const ROUNDS: u32 = 1_000_000;
    let meter = Meter::builder().build().unwrap();
    let lease = meter.attach();
    let task = Account::new();
    let each = |what: &str, step: &mut dyn FnMut()| {
        let mut run = lease.begin(&task, lease.stamp());
        goes_on(run.before_poll());
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| step());
        println!("{what}: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
        let _ = run.after_poll(false);
        run.end();
    };
    let mut cx = Context::from_waker(Waker::noop());
    each("an async block", &mut || {
        assert!(pin!(black_box(async {})).poll(&mut cx).is_ready());
    });
    each("a cpu_timeout", &mut || {
        assert!(pin!(cpu_timeout(ms(50), async {})).poll(&mut cx).is_ready());
    });
    each("a scope", &mut || {
        assert!(pin!(Scope::with_limit(ms(50)).run(async {})).poll(&mut cx).is_ready());
    });
    each("a scope inside a scope's", &mut || {
        let inner = async { Scope::with_limit(ms(50)).run(async {}).await };
        assert!(pin!(Scope::with_limit(ms(50)).run(inner)).poll(&mut cx).is_ready());
    });
    each("an account", &mut || drop(black_box(Account::inherit())));
    let member = RefCell::new(None);
    let in_scope = poll_fn(|_| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| drop(black_box(Account::inherit())));
        println!("an account in a scope: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
        *member.borrow_mut() = Some(Account::inherit().0);
        Poll::<()>::Pending
    });
    let mut run = pin!(Scope::with_limit(ms(10_000)).run(in_scope));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    for (what, account) in [("a poll", Account::new()), ("a member's poll", member.take().unwrap())] {
        let start = Instant::now();
        let mut at = lease.stamp();
        for _ in 0..ROUNDS {
            let mut run = lease.begin(&account, at);
            goes_on(run.before_poll());
            goes_on(run.after_poll(false));
            at = run.end();
        }
        println!("{what}: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    }
}
