//! `wasi:random`: the chance a guest draws, the same whenever its delivery starts again, and for others hard to guess.
//!
//! Hardly a delivery draws any. So what it draws from is seeded when it is first drawn from.

use std::convert::Infallible;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng, TryRng};
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::p2::bindings::random::insecure_seed::{Host as Imports, add_to_linker};

use super::{Capability, Delivery, Grants, Host};

/// What each interface draws from.
const SECURE: u8 = 0;
const INSECURE: u8 = 1;
const INSECURE_SEED: u8 = 2;

/// The source `wasi:random/random` draws from.
pub fn secure(delivery: &Arc<Delivery>) -> impl Rng + Send + 'static {
    of(delivery.clone(), SECURE)
}

/// The source `wasi:random/insecure` draws from.
pub fn insecure(delivery: &Arc<Delivery>) -> impl Rng + Send + 'static {
    of(delivery.clone(), INSECURE)
}

fn of(delivery: Arc<Delivery>, use_: u8) -> Random<impl Fn() -> [u8; 32]> {
    Random::new(move || delivery.random(use_))
}

/// A source of chance that asks for its seed when it is first drawn from.
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

/// The capability: `wasi:random/insecure-seed`, which Wasmtime's own has to be told before anybody asks.
pub(super) struct InsecureSeed {
    delivery: Arc<Delivery>,
}

impl HasData for InsecureSeed {
    type Data<'a> = &'a mut InsecureSeed;
}

impl Capability for InsecureSeed {
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        linker.allow_shadowing(true);
        add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().insecure_seed)?;
        linker.allow_shadowing(false);
        Ok(())
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone() }
    }
}

impl Imports for InsecureSeed {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let seed: u128 = of(self.delivery.clone(), INSECURE_SEED).random();
        Ok((seed as u64, (seed >> 64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SEED: [u8; 32] = [7; 32];

    #[test]
    fn a_source_draws_what_its_seed_says_in_whatever_portions() {
        let (mut random, mut eager) = (Random::new(|| SEED), StdRng::from_seed(SEED));
        let (mut some, mut others) = ([0; 37], [0; 37]);
        random.fill_bytes(&mut some);
        eager.fill_bytes(&mut others);
        assert_eq!(some, others);
        assert_eq!(random.random::<u128>(), eager.random::<u128>());
        assert_eq!((random.next_u32(), random.next_u64()), (eager.next_u32(), eager.next_u64()));
    }

    #[test]
    fn a_seed_is_asked_for_once_and_by_the_first_draw() {
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
