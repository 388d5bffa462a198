//! Spawns that are cut short, and tasks of unusual shape.

use std::future::pending;

use stipend::task::JoinSet;
use stipend::{spawn, yield_now};

use crate::bounded;
use crate::held::{CountsOf, Output};

#[test]
fn an_iterator_that_panics_while_it_spawns_leaves_no_task_behind() {
    bounded::run(async {
        let counts = CountsOf::default();
        let shared = counts.clone();
        let spawning = spawn(async move {
            let tasks = (0..10).map(|n| {
                assert!(n < 7, "no more");
                let output = Output(shared.clone());
                spawn(async move {
                    let _output = output;
                    pending::<()>().await;
                })
            });
            tasks.collect::<JoinSet<()>>().len()
        });
        assert!(spawning.await.unwrap_err().is_panic());
        while counts.outputs_dropped() < 7 {
            yield_now().await;
        }
    });
}

#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Page(u8);

#[test]
fn tasks_of_any_size_and_alignment() {
    fn is_aligned<T>(value: &T) {
        assert_eq!(std::ptr::from_ref(value).addr() % align_of::<T>(), 0);
    }
    bounded::run(async {
        spawn(async {}).await.unwrap();
        let page = Page(7);
        let page = spawn(async move {
            let page = page;
            is_aligned(&page);
            yield_now().await;
            is_aligned(&page);
            page
        });
        assert_eq!(page.await.unwrap().0, 7);
        // The future and its output.
        let large = [3u8; 1 << 16];
        let large = spawn(async move {
            yield_now().await;
            large
        });
        assert!(large.await.unwrap().iter().all(|&byte| byte == 3));
    });
}
