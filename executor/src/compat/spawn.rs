//! Spawning through the traits of `futures`, for libraries that take any executor.
//!
//! ```
//! use futures::task::SpawnExt;
//!
//! let runtime = stipend::Runtime::new()?;
//! let (sender, receiver) = std::sync::mpsc::channel();
//! // By its full name: `Handle::spawn` comes first.
//! SpawnExt::spawn(runtime.handle(), async move { sender.send(7).unwrap() }).unwrap();
//! assert_eq!(receiver.recv().unwrap(), 7);
//! # Ok::<(), std::io::Error>(())
//! ```

use futures::future::FutureExt;
use futures::task::{FutureObj, LocalFutureObj, LocalSpawn, Spawn, SpawnError};

use crate::runtime::{Handle, LocalRuntime};
use crate::task::JoinHandle;

/// `&Handle` has it from `futures`, which gives it to every reference.
impl Spawn for Handle {
    /// Spawns a detached task.
    ///
    /// # Errors
    ///
    /// If the runtime is shut down.
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        was_accepted(self.spawn(future))
    }
}

impl Spawn for LocalRuntime {
    /// As that of [`Handle`].
    ///
    /// # Errors
    ///
    /// None: while there is the runtime, it is not shut down.
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        was_accepted(self.spawn(future))
    }
}

impl LocalSpawn for LocalRuntime {
    /// Spawns a detached task that stays on this thread.
    ///
    /// # Errors
    ///
    /// None: while there is the runtime, it is not shut down.
    fn spawn_local_obj(&self, future: LocalFutureObj<'static, ()>) -> Result<(), SpawnError> {
        was_accepted(self.spawn_local(future))
    }
}

fn was_accepted(task: JoinHandle<()>) -> Result<(), SpawnError> {
    // A task that was refused has ended by now. One that was not may have ended as well, but nobody but the
    // runtime's end could have cancelled it.
    if task.is_finished() && task.now_or_never().is_some_and(|ended| ended.is_err_and(|error| error.is_cancelled())) {
        return Err(SpawnError::shutdown());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::task::SpawnExt;

    use crate::Runtime;

    fn spawns(spawner: impl SpawnExt) -> bool {
        let (sender, receiver) = mpsc::channel();
        let spawned = spawner.spawn(async move { sender.send(()).unwrap() });
        // Without a task the sender is gone.
        assert_eq!(receiver.recv().is_ok(), spawned.is_ok());
        spawned.is_ok()
    }

    #[test]
    fn handles_spawn_until_the_runtime_is_shut_down() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        assert!(spawns(&handle));
        assert!(spawns(handle.clone()));
        drop(runtime);
        assert!(!spawns(handle));
    }

    #[test]
    fn a_local_runtime_spawns_what_is_not_send() {
        use std::rc::Rc;

        use futures::task::LocalSpawnExt;

        let runtime = crate::runtime::LocalRuntime::new().unwrap();
        let not_send = Rc::new(6);
        let answer = LocalSpawnExt::spawn_local_with_handle(&runtime, async move { *not_send * 7 }).unwrap();
        assert_eq!(runtime.block_on(answer), 42);
    }

    #[test]
    fn a_result_comes_back() {
        let runtime = Runtime::new().unwrap();
        let answer = SpawnExt::spawn_with_handle(runtime.handle(), async { 42 }).unwrap();
        assert_eq!(runtime.block_on(answer), 42);
    }
}
