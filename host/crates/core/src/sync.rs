//! Mutexes that stay usable after a panic.
//!
//! A mutex is poisoned when a thread panics while it holds the lock. The host uses the data anyway, because the panic
//! ended only one delivery or request. So code that holds a lock must not leave the data in an inconsistent state when
//! it panics.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex, poisoned or not.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    ignore_poison(mutex.lock())
}

/// Returns the data of an exclusively borrowed mutex, poisoned or not.
pub fn get_mut<T: ?Sized>(mutex: &mut Mutex<T>) -> &mut T {
    ignore_poison(mutex.get_mut())
}

/// Returns the guard of a lock, poisoned or not; for condition variables.
pub fn ignore_poison<G>(guard: LockResult<G>) -> G {
    guard.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn locks_a_poisoned_mutex() {
        let mut mutex = Mutex::new(1);
        let panicked = thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _guard = lock(&mutex);
                panic!("poisons the mutex");
            });
            panicking.join()
        });
        assert!(panicked.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 1);
        assert_eq!(*get_mut(&mut mutex), 1);
    }
}
