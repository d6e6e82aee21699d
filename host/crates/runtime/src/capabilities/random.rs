//! `wasi:random`: the guest's random numbers. They are the same in every attempt at a delivery, and hard for others to
//! guess.
//!
//! Few deliveries draw random numbers, so each source is seeded on its first draw.

use std::convert::Infallible;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng, TryRng};
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::{Capability, Delivery, Grants, Host};
use modhost_core::limits::Resource;

/// The uses of [`Delivery::random`] here.
const SECURE: u8 = 0;
const INSECURE: u8 = 1;
const INSECURE_SEED: u8 = 2;

/// The capability. It replaces Wasmtime's own, whose limit has no error type and whose seed is drawn in advance.
pub(super) struct RandomCapability {
    delivery: Arc<Delivery>,
    secure: Source,
    insecure: Source,
}

impl HasData for RandomCapability {
    type Data<'a> = &'a mut RandomCapability;
}

impl Capability for RandomCapability {
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        linker.allow_shadowing(true);
        random::add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().random)?;
        insecure::add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().random)?;
        insecure_seed::add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().random)?;
        linker.allow_shadowing(false);
        Ok(())
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone(), secure: source(delivery, SECURE), insecure: source(delivery, INSECURE) }
    }
}

impl RandomCapability {
    /// Checks the number of bytes of one draw against the size limit of answers.
    fn check(&self, len: u64) -> wasmtime::Result<usize> {
        let limits = self.delivery.limits();
        if len > limits.amount(Resource::Answers) {
            return Err(limits.reached(Resource::Answers, None).into());
        }
        Ok(usize::try_from(len)?)
    }
}

impl random::Host for RandomCapability {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let len = self.check(len)?;
        Ok((&mut self.secure).random_iter().take(len).collect())
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.secure.random())
    }
}

impl insecure::Host for RandomCapability {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let len = self.check(len)?;
        Ok((&mut self.insecure).random_iter().take(len).collect())
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.insecure.random())
    }
}

impl insecure_seed::Host for RandomCapability {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let seed: u128 = source(&self.delivery, INSECURE_SEED).random();
        Ok((seed as u64, (seed >> 64) as u64))
    }
}

type Source = Random<Box<dyn Fn() -> [u8; 32] + Send>>;

fn source(delivery: &Arc<Delivery>, use_: u8) -> Source {
    let delivery = delivery.clone();
    Random::new(Box::new(move || delivery.random(use_)))
}

/// A source of random numbers that is seeded on the first draw.
struct Random<S> {
    seed: S,
    seeded: Option<Box<StdRng>>,
}

impl<S: Fn() -> [u8; 32]> Random<S> {
    fn new(seed: S) -> Self {
        Self { seed, seeded: None }
    }

    fn seeded(&mut self) -> &mut StdRng {
        self.seeded.get_or_insert_with(|| Box::new(StdRng::from_seed((self.seed)())))
    }
}

impl<S: Fn() -> [u8; 32]> TryRng for Random<S> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.seeded().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.seeded().try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.seeded().try_fill_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rand::Rng;

    use super::*;

    const SEED: [u8; 32] = [7; 32];

    #[test]
    fn draws_the_same_numbers_in_any_portions() {
        let (mut random, mut eager) = (Random::new(|| SEED), StdRng::from_seed(SEED));
        let (mut some, mut others) = ([0; 37], [0; 37]);
        random.fill_bytes(&mut some);
        eager.fill_bytes(&mut others);
        assert_eq!(some, others);
        assert_eq!(random.random::<u128>(), eager.random::<u128>());
        assert_eq!((random.next_u32(), random.next_u64()), (eager.next_u32(), eager.next_u64()));
    }

    #[test]
    fn computes_seed_once_on_first_draw() {
        let asked = Cell::new(0);
        let mut random = Random::new(|| {
            asked.set(asked.get() + 1);
            SEED
        });
        assert_eq!(asked.get(), 0);
        let _drawn: [u64; 2] = [random.random(), random.random()];
        assert_eq!(asked.get(), 1);
    }
}
