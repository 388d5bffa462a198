//! A task that never ends by itself, and the CPU limit that ends it.

use std::hint::black_box;
use std::time::Duration;

use stipend::task::{self, JoinError};
use stipend::{CpuLimit, Runtime, yield_now};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Runtime::new()?.block_on(async {
        let greedy =
            task::Builder::new().name("greedy").cpu_limit(CpuLimit::hard(Duration::from_millis(50))).spawn(async {
                loop {
                    black_box((0..10_000_u64).sum::<u64>());
                    yield_now().await;
                }
            })?;
        let modest = stipend::spawn(async { (1..=10).product::<u64>() });

        println!("modest returned {}", modest.await?);
        match greedy.await {
            Err(JoinError::CpuLimitExceeded(exceeded)) => println!("greedy was ended: {exceeded}"),
            Err(error) => return Err(error.into()),
            Ok(()) => println!("greedy ended by itself"),
        }
        Ok(())
    })
}
