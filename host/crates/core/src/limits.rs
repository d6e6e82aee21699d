//! What one delivery may use, whose setting says so, and what is said when it wanted more.
//!
//! The same keys stand in `limits` of a `[[module]]`, in `limits` of a `[[tenant]]` and in `[server.ceilings]`. For a
//! delivery the least of the three counts ([`Limits`]), and what it is told names the setting to raise
//! ([`LimitReached`]).

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

/// How much stack the calls inside a component have where nobody says, in bytes.
pub const DEFAULT_STACK: u64 = 512 << 10;

/// Something a delivery uses, and may use only so much of. Who wants more of the key-value store or of an HTTP request
/// is refused the call; all else ends the delivery, or is left out of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Linear memory, all memories together.
    Memory,
    /// Elements of tables, all tables together.
    Tables,
    /// Core instances its component is made of.
    Instances,
    /// Handles of resources it holds at once, those of WASI among them.
    Handles,
    /// Running time, waiting not included.
    Cpu,
    /// Time from start to end, waiting included.
    Timeout,
    /// Calls to the platform and to the host's services: those that are recorded.
    Calls,
    /// Such calls in flight at once.
    ConcurrentCalls,
    /// What one call of the host is given.
    Arguments,
    /// What one call of the host is answered with.
    Answers,
    /// The recorded calls and their answers, as they are kept.
    Journal,
    /// Lines of log.
    LogLines,
    /// All lines of log together.
    LogBytes,
    /// What the module keeps in the key-value store for the delivery's tenant, keys and values; 0: nothing.
    KeyValue,
    /// The body of an HTTP request.
    HttpRequest,
    /// The body of the answer to one.
    HttpAnswer,
    /// Time from an HTTP request to the end of its answer.
    HttpTimeout,
}

/// What an amount of a resource is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Time,
    /// Pieces.
    Count,
}

impl Resource {
    /// All there are, in the order they are declared in.
    pub const ALL: [Self; 17] = [
        Self::Memory,
        Self::Tables,
        Self::Instances,
        Self::Handles,
        Self::Cpu,
        Self::Timeout,
        Self::Calls,
        Self::ConcurrentCalls,
        Self::Arguments,
        Self::Answers,
        Self::Journal,
        Self::LogLines,
        Self::LogBytes,
        Self::KeyValue,
        Self::HttpRequest,
        Self::HttpAnswer,
        Self::HttpTimeout,
    ];

    /// Its key in modules.toml; what stands before a dot is the table it is in.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tables => "tables",
            Self::Instances => "instances",
            Self::Handles => "handles",
            Self::Cpu => "cpu",
            Self::Timeout => "timeout",
            Self::Calls => "calls",
            Self::ConcurrentCalls => "concurrent_calls",
            Self::Arguments => "arguments",
            Self::Answers => "answers",
            Self::Journal => "journal",
            Self::LogLines => "log_lines",
            Self::LogBytes => "log_bytes",
            Self::KeyValue => "keyvalue",
            Self::HttpRequest => "http.request",
            Self::HttpAnswer => "http.answer",
            Self::HttpTimeout => "http.timeout",
        }
    }

    /// What its amounts are counted in.
    pub fn unit(self) -> Unit {
        match self {
            Self::Memory
            | Self::Arguments
            | Self::Answers
            | Self::Journal
            | Self::LogBytes
            | Self::KeyValue
            | Self::HttpRequest
            | Self::HttpAnswer => Unit::Bytes,
            Self::Cpu | Self::Timeout | Self::HttpTimeout => Unit::Time,
            Self::Tables | Self::Instances | Self::Handles | Self::Calls | Self::ConcurrentCalls | Self::LogLines => {
                Unit::Count
            }
        }
    }

    /// How much a module may use of it that says nothing itself: what suits one that answers in a chat.
    pub fn default_amount(self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        match self {
            Self::Memory => 128 << 20,
            Self::Tables => 200_000,
            Self::Instances => 100,
            Self::Handles => 10_000,
            Self::Cpu => 10 * SECOND,
            Self::Timeout => 60 * SECOND,
            Self::Calls => 2000,
            Self::ConcurrentCalls => 16,
            Self::Arguments => 4 << 20,
            Self::Answers | Self::Journal => 16 << 20,
            Self::LogLines => 1000,
            Self::LogBytes | Self::HttpRequest => 1 << 20,
            Self::KeyValue => 10 << 20,
            Self::HttpAnswer => 4 << 20,
            Self::HttpTimeout => 30 * SECOND,
        }
    }

    /// An amount of it, for people.
    pub fn told(self, amount: u64) -> String {
        match self.unit() {
            Unit::Bytes => ByteSize(amount).display().iec().to_string(),
            Unit::Time => humantime::format_duration(Duration::from_nanos(amount)).to_string(),
            Unit::Count => amount.to_string(),
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The amounts one table of modules.toml gives, each in the unit of its resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts([Option<u64>; Resource::ALL.len()]);

impl Amounts {
    /// What it says of a resource, if it says anything.
    pub fn get(&self, resource: Resource) -> Option<u64> {
        self.0[resource.index()]
    }

    /// Says it.
    pub fn set(&mut self, resource: Resource, amount: u64) {
        self.0[resource.index()] = Some(amount);
    }
}

/// Whose setting a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// `limits` of the module, or their default.
    Module,
    /// `limits` of the tenant the delivery is for.
    Tenant,
    /// `[server.ceilings]`.
    Server,
}

/// How much of a resource may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So much at the most, in the unit of the resource.
    pub amount: u64,
    /// Whose setting that is.
    pub set_by: SetBy,
}

impl Limit {
    /// Where it stands in modules.toml as the limit of a resource, for people.
    pub fn setting(&self, resource: Resource) -> String {
        let key = resource.key();
        match self.set_by {
            SetBy::Module => format!("`limits.{key}`"),
            SetBy::Tenant => format!("`limits.{key}` of the tenant"),
            SetBy::Server => format!("`{key}` of [server.ceilings]"),
        }
    }
}

/// What one delivery may use of each resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([Limit; Resource::ALL.len()]);

/// Those of a module that says nothing, with nobody's ceilings above it.
impl Default for Limits {
    fn default() -> Self {
        Self(Resource::ALL.map(|resource| Limit { amount: resource.default_amount(), set_by: SetBy::Module }))
    }
}

impl Limits {
    /// A module's own limits, below the ceilings of the server.
    pub fn of_module(module: &Amounts, ceilings: &Amounts) -> Self {
        let mut limits = Self::default();
        for (resource, limit) in Resource::ALL.into_iter().zip(&mut limits.0) {
            limit.amount = module.get(resource).unwrap_or(limit.amount);
        }
        limits.below(ceilings, SetBy::Server)
    }

    /// The same where a tenant's ceilings are no lower.
    pub fn for_tenant(self, ceilings: &Amounts) -> Self {
        self.below(ceilings, SetBy::Tenant)
    }

    fn below(mut self, ceilings: &Amounts, set_by: SetBy) -> Self {
        for (limit, ceiling) in self.0.iter_mut().zip(ceilings.0) {
            if let Some(amount) = ceiling.filter(|ceiling| *ceiling < limit.amount) {
                *limit = Limit { amount, set_by };
            }
        }
        self
    }

    /// The same with another amount of one resource, as a module's own setting.
    pub fn with(mut self, resource: Resource, amount: u64) -> Self {
        self.0[resource.index()] = Limit { amount, set_by: SetBy::Module };
        self
    }

    /// The limit of a resource.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource.index()]
    }

    /// How much of a resource may be used, in its unit.
    pub fn amount(&self, resource: Resource) -> u64 {
        self.get(resource).amount
    }

    /// The same as a `usize`, for what is held in memory.
    pub fn size(&self, resource: Resource) -> usize {
        usize::try_from(self.amount(resource)).unwrap_or(usize::MAX)
    }

    /// The same as a length of time, for a resource that is one.
    pub fn time(&self, resource: Resource) -> Duration {
        Duration::from_nanos(self.amount(resource))
    }

    /// What is said when more of a resource was wanted than there may be; `wanted` is how much, where that is known.
    pub fn reached(&self, resource: Resource, wanted: Option<u64>) -> LimitReached {
        LimitReached::Delivery { resource, limit: self.get(resource), wanted }
    }
}

/// The limit that ended a delivery, refuses a call of it, or refuses a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// One of its own.
    Delivery {
        /// What it used up.
        resource: Resource,
        /// How much of it there may be.
        limit: Limit,
        /// How much there would have been, where that is known.
        wanted: Option<u64>,
    },
    /// The memory that all running deliveries of its tenant may have together, in bytes.
    TenantMemory(u64),
    /// The stack of WebAssembly calls, of so many bytes, which is the same for all.
    Stack(u64),
    /// How many memories an instance may have, which is the same for all.
    Memories(usize),
}

impl LimitReached {
    /// Whether another attempt may come further: a platform may answer sooner, and others may have left memory free.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::TenantMemory(_) | Self::Delivery { resource: Resource::Timeout, .. })
    }
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivery { resource, limit, wanted } => delivery(f, *resource, *limit, *wanted),
            Self::TenantMemory(limit) => write!(
                f,
                "tenant memory: the running deliveries of its tenant would have more than {} together, \
                 `limits.total_memory` of the tenant",
                Resource::Memory.told(*limit)
            ),
            Self::Stack(limit) => write!(
                f,
                "stack: its calls are nested too deep for {}, `stack` of [server]: a recursion without end?",
                ByteSize(*limit).display().iec()
            ),
            Self::Memories(limit) => write!(
                f,
                "memories: its core instances have more than {limit}, as many as any component may have: each takes \
                 gigabytes of the host's addresses, however small it is"
            ),
        }
    }
}

fn delivery(f: &mut fmt::Formatter<'_>, resource: Resource, limit: Limit, wanted: Option<u64>) -> fmt::Result {
    let (setting, amount) = (limit.setting(resource), resource.told(limit.amount));
    let wanted = wanted.map(|wanted| resource.told(wanted));
    match (resource, wanted) {
        (Resource::Memory, Some(wanted)) => write!(f, "memory: it asked for {wanted}, {setting} is {amount}"),
        (Resource::Memory, None) => write!(f, "memory: it asked for more than {amount}, {setting}"),
        (Resource::Tables, Some(wanted)) => {
            write!(f, "tables: it asked for {wanted} elements, {setting} is {amount}")
        }
        (Resource::Tables, None) => write!(f, "tables: it asked for more than {amount} elements, {setting}"),
        (Resource::Instances, Some(wanted)) => {
            write!(f, "instances: it has {wanted} core instances, {setting} is {amount}")
        }
        (Resource::Instances, None) => write!(f, "instances: it has more than {amount} core instances, {setting}"),
        (Resource::Handles, _) => write!(f, "handles: it holds more than {amount} at once, {setting}"),
        (Resource::Cpu, _) => write!(f, "cpu: it computed for {amount}, {setting}"),
        (Resource::Timeout, _) => write!(f, "time: no answer after {amount}, {setting}"),
        (Resource::Calls, _) => write!(f, "calls: it made more than {amount}, {setting}"),
        (Resource::ConcurrentCalls, _) => {
            write!(f, "concurrent calls: it had more than {amount} in flight at once, {setting}")
        }
        (Resource::Arguments, _) => write!(f, "arguments: it gave the host more than {amount} at once, {setting}"),
        (Resource::Answers, Some(wanted)) => {
            write!(f, "answers: one call's answer comes to {wanted}, {setting} is {amount}")
        }
        (Resource::Answers, None) => write!(f, "answers: it asked the host for more than {amount} at once, {setting}"),
        (Resource::Journal, _) => {
            write!(f, "journal: its calls and their answers come to more than {amount}, {setting}")
        }
        (Resource::LogLines, _) => write!(f, "log lines: more than {amount}, {setting}"),
        (Resource::LogBytes, _) => write!(f, "log bytes: more than {amount}, {setting}"),
        (Resource::KeyValue, _) => write!(f, "the module keeps more than {amount} for this tenant, {setting}"),
        (Resource::HttpRequest, _) => write!(f, "its body is larger than {amount}, {setting}"),
        (Resource::HttpAnswer, _) => write!(f, "the answer is larger than {amount}, {setting}"),
        (Resource::HttpTimeout, _) => write!(f, "no whole answer after {amount}, {setting}"),
    }
}

impl std::error::Error for LimitReached {}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(given: &[(Resource, u64)]) -> Amounts {
        let mut amounts = Amounts::default();
        given.iter().for_each(|(resource, amount)| amounts.set(*resource, *amount));
        amounts
    }

    #[test]
    fn every_resource_has_its_own_place() {
        for (index, resource) in Resource::ALL.into_iter().enumerate() {
            assert_eq!(resource.index(), index, "{resource:?}");
        }
    }

    #[test]
    fn the_least_counts_and_is_named() {
        let module = amounts(&[(Resource::Calls, 50), (Resource::Tables, 70)]);
        let server = amounts(&[(Resource::Calls, 60), (Resource::Tables, 60), (Resource::Handles, 5)]);
        let tenant = amounts(&[(Resource::Calls, 40), (Resource::Tables, 60)]);
        let limits = Limits::of_module(&module, &server).for_tenant(&tenant);
        let told = |resource| limits.reached(resource, None).to_string();
        assert_eq!(told(Resource::Calls), "calls: it made more than 40, `limits.calls` of the tenant");
        assert_eq!(told(Resource::Tables), "tables: it asked for more than 60 elements, `tables` of [server.ceilings]");
        assert_eq!(told(Resource::Handles), "handles: it holds more than 5 at once, `handles` of [server.ceilings]");
        assert_eq!(told(Resource::Cpu), "cpu: it computed for 10s, `limits.cpu`");
    }
}
