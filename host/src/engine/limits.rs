//! What an instance may use, and what is said when it wanted more.

use std::fmt;
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

/// How long a guest runs before it lets others have the thread; the length of an epoch.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// How many elements all tables of an instance may have; a module's function table has some thousands.
const MAX_TABLE_ELEMENTS: usize = 200_000;

/// What one delivery may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory in bytes, all memories together.
    pub memory: u64,
    /// Wall time from the start of the instance to its answer.
    pub timeout: Duration,
    /// Running time of the guest itself, its waiting left out.
    pub cpu: Duration,
}

/// The limit that ended a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// It asked for this many bytes of memory.
    Memory {
        /// How many bytes there would have been.
        wanted: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Its tables grew beyond the host's ceiling.
    Table,
    /// It took longer than this.
    Timeout(Duration),
    /// It computed for longer than this.
    Cpu(Duration),
}

impl LimitReached {
    /// Whether it was waiting that took too long: another time it may not.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Timeout(_))
    }
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { wanted, limit } => write!(
                f,
                "memory: it asked for {}, `limits.memory` is {}",
                bytesize::ByteSize(*wanted).display().iec(),
                bytesize::ByteSize(*limit).display().iec(),
            ),
            Self::Table => write!(f, "tables: more than {MAX_TABLE_ELEMENTS} elements"),
            Self::Timeout(limit) => {
                write!(f, "time: no answer after {}, `limits.timeout`", humantime::format_duration(*limit))
            }
            Self::Cpu(limit) => {
                write!(f, "cpu: it computed for {}, `limits.cpu`", humantime::format_duration(*limit))
            }
        }
    }
}

impl std::error::Error for LimitReached {}

/// Counts what an instance has, and remembers what it was refused: its own abort after that looks like any trap.
pub(super) struct Limiter {
    limit: u64,
    memory: u64,
    elements: usize,
    refused: Option<LimitReached>,
}

impl Limiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limit: limits.memory, memory: 0, elements: 0, refused: None }
    }

    /// The growth that was refused, if any was.
    pub(super) fn refused(&self) -> Option<LimitReached> {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory.saturating_add(desired.saturating_sub(current) as u64);
        if wanted > self.limit {
            self.refused = Some(LimitReached::Memory { wanted, limit: self.limit });
            return Ok(false);
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.elements.saturating_add(desired.saturating_sub(current));
        if wanted > MAX_TABLE_ELEMENTS {
            self.refused = Some(LimitReached::Table);
            return Ok(false);
        }
        self.elements = wanted;
        Ok(true)
    }
}

/// Counts how long a guest has computed, and ends it when that is too long.
///
/// It is asked once for every tick in which the guest ran, and counts the time since it was asked last, a tick at
/// the most: what is longer was waiting.
pub(super) struct Clock {
    limit: Duration,
    used: Duration,
    asked: Instant,
}

impl Clock {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limit: limits.cpu, used: Duration::ZERO, asked: Instant::now() }
    }

    pub(super) fn tick(&mut self) -> Result<(), LimitReached> {
        let now = Instant::now();
        self.used += now.duration_since(self.asked).min(TICK);
        self.asked = now;
        if self.used > self.limit { Err(LimitReached::Cpu(self.limit)) } else { Ok(()) }
    }
}
