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

use futures::task::{FutureObj, LocalFutureObj, LocalSpawn, Spawn, SpawnError};

use crate::runtime::{Handle, LocalRuntime};
use crate::task;

/// `&Handle` has it from `futures`, which gives it to every reference.
impl Spawn for Handle {
    /// Spawns a detached task.
    ///
    /// # Errors
    ///
    /// If the runtime is shut down.
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        // Without limits there is no other error.
        task::Builder::new().spawn_on(self, future).map(drop).map_err(|_| SpawnError::shutdown())
    }
}

impl Spawn for LocalRuntime {
    /// As that of [`Handle`].
    ///
    /// # Errors
    ///
    /// None: while there is the runtime, it is not shut down.
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        drop(self.spawn(future));
        Ok(())
    }
}

impl LocalSpawn for LocalRuntime {
    /// Spawns a detached task that stays on this thread.
    ///
    /// # Errors
    ///
    /// None: while there is the runtime, it is not shut down.
    fn spawn_local_obj(&self, future: LocalFutureObj<'static, ()>) -> Result<(), SpawnError> {
        drop(self.spawn_local(future));
        Ok(())
    }
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
