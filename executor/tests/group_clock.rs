//! A group's clock on the real clock, with a runtime's tasks and blocking jobs as the members.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::StreamExt;
use stipend::runtime::Runtime;
use stipend::{Group, spawn_blocking, task, yield_now};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn burn(total: Duration) {
    let clock = stipend::current_clock().expect("inside a task");
    let until = clock.now() + total;
    while clock.now() < until {
        std::hint::spin_loop();
    }
}

fn spawn_in(
    runtime: &Runtime,
    group: &Group,
    future: impl Future<Output = ()> + Send + 'static,
) -> task::JoinHandle<()> {
    task::Builder::new().group(group).spawn_on(runtime.handle(), future).expect("the runtime is not shut down")
}

#[test]
fn t60_a_supervisor_hears_of_its_tenant_although_none_of_its_polls_ends() {
    let runtime = Runtime::builder().worker_threads(2).build().unwrap();
    let tenant = Group::new("tenant").unwrap();
    let mut expiries = tenant.cpu_clock().timer().every(ms(30)).stream_after(ms(30)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let stop = stop.clone();
            spawn_in(&runtime, &tenant, async move {
                while !stop.load(SeqCst) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let expiry = common::block_on(expiries.next()).unwrap();
    assert!(tenant.cpu_time().is_zero(), "nothing is charged: no poll has ended");
    assert!(expiry.used >= expiry.at && expiry.at == ms(30));
    common::block_on(tenant.cpu_clock().sleep(ms(20))).unwrap();
    stop.store(true, SeqCst);
    stuck.into_iter().for_each(|task| common::block_on(task).unwrap());
    assert!(tenant.cpu_time() >= ms(50));
}

#[test]
fn t26_t43_handlers_are_run_by_the_members_as_their_polls_and_jobs_come_to_the_time() {
    let runtime = Runtime::builder().worker_threads(2).build().unwrap();
    let tenant = Group::new("tenant").unwrap();
    let (count, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sum, inside) = (count.clone(), at_once.clone());
    let timer = tenant.cpu_clock().timer().every(ms(1)).on_expiry(move |expiry| {
        assert_eq!(inside.fetch_add(1, SeqCst), 0, "one thread at a time");
        assert!(stipend::current_clock().is_some(), "on a member's account");
        sum.fetch_add(1 + expiry.overrun as usize, SeqCst);
        inside.fetch_sub(1, SeqCst);
    });
    let timer = timer.arm_after(ms(1)).unwrap();
    let members: Vec<_> = (0..4)
        .map(|n| {
            spawn_in(&runtime, &tenant, async move {
                for _ in 0..50 {
                    if n == 0 {
                        spawn_blocking(|| burn(ms(1) / 5)).await.unwrap();
                    } else {
                        burn(ms(1) / 5);
                        yield_now().await;
                    }
                }
            })
        })
        .collect();
    members.into_iter().for_each(|task| common::block_on(task).unwrap());
    // What the last poll came to waits for the next member.
    common::block_on(spawn_in(&runtime, &tenant, async {})).unwrap();
    let closed = timer.setting();
    assert_eq!(closed.interval, ms(1));
    let elapsed = tenant.cpu_time().as_millis() as usize;
    let counted = count.load(SeqCst);
    assert!(elapsed >= 40 && (elapsed - 1..=elapsed).contains(&counted), "{counted} of {elapsed}");
}
