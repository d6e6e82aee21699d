//! Memory that the host holds for somebody, counted against a budget for as long as it is held.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::LimitReached;

/// Counts memory against a limit.
pub trait MemoryCounter: Send + Sync {
    /// Takes this many bytes.
    ///
    /// # Errors
    ///
    /// When a limit would be exceeded. Then nothing is taken.
    fn take(&self, bytes: u64) -> Result<(), LimitReached>;

    /// Releases this many bytes that were taken.
    fn release(&self, bytes: u64);
}

/// A budget, or none: without one, memory isn't counted. Cheap to clone.
///
/// All budgets are equal, so that types that carry one compare by their other fields.
#[derive(Clone, Default)]
pub struct MemoryBudget(Option<Arc<dyn MemoryCounter>>);

impl MemoryBudget {
    /// Creates a budget that is counted here.
    pub fn new(counter: Arc<dyn MemoryCounter>) -> Self {
        Self(Some(counter))
    }

    /// Returns a holder of no bytes yet.
    pub fn hold(&self) -> HeldMemory {
        HeldMemory { budget: self.clone(), bytes: 0 }
    }

    /// Takes this many bytes; [`MemoryBudget::release`] must follow.
    ///
    /// # Errors
    ///
    /// When a limit would be exceeded.
    pub fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        self.0.as_ref().filter(|_| bytes > 0).map_or(Ok(()), |counter| counter.take(bytes))
    }

    /// Releases this many bytes that were taken.
    pub fn release(&self, bytes: u64) {
        if let Some(counter) = self.0.as_ref().filter(|_| bytes > 0) {
            counter.release(bytes);
        }
    }
}

impl PartialEq for MemoryBudget {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for MemoryBudget {}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a budget" } else { "no budget" })
    }
}

/// Bytes that count against a budget until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it releases the bytes"]
pub struct HeldMemory {
    budget: MemoryBudget,
    bytes: u64,
}

impl HeldMemory {
    /// Returns the number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds this many bytes more.
    ///
    /// # Errors
    ///
    /// When a limit would be exceeded. Then it holds as many as before.
    pub fn grow(&mut self, bytes: usize) -> Result<(), LimitReached> {
        self.budget.take(bytes as u64)?;
        self.bytes += bytes as u64;
        Ok(())
    }

    /// Holds this many bytes less, at least none.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = self.bytes.min(bytes as u64);
        self.bytes -= bytes;
        self.budget.release(bytes);
    }

    /// Holds exactly this many bytes.
    ///
    /// # Errors
    ///
    /// When a limit would be exceeded. Then it holds as many as before.
    pub fn set(&mut self, bytes: usize) -> Result<(), LimitReached> {
        match (bytes as u64).checked_sub(self.bytes) {
            Some(more) => self.grow(usize::try_from(more).unwrap_or(usize::MAX)),
            None => {
                self.shrink(usize::try_from(self.bytes).unwrap_or(usize::MAX).saturating_sub(bytes));
                Ok(())
            }
        }
    }

    /// Returns the bytes, with which this is dropped: when the last clone and the last part of them is dropped.
    pub fn attach(self, bytes: impl Into<Bytes>) -> Bytes {
        struct Attached {
            bytes: Bytes,
            _held: HeldMemory,
        }

        impl AsRef<[u8]> for Attached {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }

        Bytes::from_owner(Attached { bytes: bytes.into(), _held: self })
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sync::lock;

    /// A budget of 1000 bytes.
    #[derive(Default)]
    struct Counter(Mutex<u64>);

    impl MemoryCounter for Counter {
        fn take(&self, bytes: u64) -> Result<(), LimitReached> {
            let mut used = lock(&self.0);
            let after = *used + bytes;
            if after > 1000 {
                return Err(LimitReached::TenantMemory(1000));
            }
            *used = after;
            Ok(())
        }

        fn release(&self, bytes: u64) {
            let mut used = lock(&self.0);
            *used = used.checked_sub(bytes).expect("no more is released than was taken");
        }
    }

    proptest::proptest! {
        /// Whatever is held, grown, shrunk and dropped in whichever order, the counter has the sum of what is held.
        #[test]
        fn counts_what_is_held(steps in proptest::collection::vec((0_usize..4, 0_usize..5, 0_usize..600), 0..60)) {
            let counter = Arc::new(Counter::default());
            let budget = MemoryBudget::new(counter.clone());
            let mut held: Vec<_> = (0..4).map(|_| budget.hold()).collect();
            let mut attached = Vec::new();
            for (which, step, bytes) in steps {
                let before = held[which].bytes();
                let result = match step {
                    0 => held[which].grow(bytes),
                    1 => held[which].set(bytes),
                    2 => { held[which].shrink(bytes); Ok(()) }
                    3 => { held[which] = budget.hold(); Ok(()) }
                    _ => {
                        let bytes = std::mem::replace(&mut held[which], budget.hold());
                        attached.push((bytes.bytes(), bytes.attach(vec![0; 3])));
                        Ok(())
                    }
                };
                if result.is_err() {
                    proptest::prop_assert_eq!(held[which].bytes(), before);
                }
                let whole = held.iter().map(HeldMemory::bytes).sum::<u64>()
                    + attached.iter().map(|(bytes, _)| bytes).sum::<u64>();
                proptest::prop_assert_eq!(*lock(&counter.0), whole);
            }
            let part = attached.first().map(|(_, bytes)| bytes.slice(1..2));
            let kept = attached.first().map_or(0, |(bytes, _)| *bytes);
            drop((held, attached));
            proptest::prop_assert_eq!(*lock(&counter.0), kept, "a part keeps the whole");
            drop(part);
            proptest::prop_assert_eq!(*lock(&counter.0), 0);
        }
    }

    #[test]
    fn without_a_budget_everything_fits() {
        let mut held = MemoryBudget::default().hold();
        held.grow(usize::MAX / 2).unwrap();
        held.set(7).unwrap();
        assert_eq!(held.bytes(), 7);
    }
}
