//! Meters that end while their tick is about to sleep, which must not go on for ever.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stipend_timers::Meter;

/// Far more than all rounds take, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_meter_ends_whatever_its_tick_is_doing() {
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        for round in 0..1_000u32 {
            let meter = Meter::builder().tick_period(Duration::from_micros(200)).build().unwrap();
            let lease = meter.attach();
            lease.set_active();
            lease.set_idle();
            // The first tick finds everything idle and switches itself off, at about the time at which the meter ends.
            thread::sleep(Duration::from_micros(u64::from(round * 7 % 250)));
            drop((lease, meter));
        }
        ended.send(()).unwrap();
    });
    end.recv_timeout(PATIENCE).expect("a meter waits for its tick, which sleeps for ever");
}
