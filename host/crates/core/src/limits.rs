//! The limits of one delivery, the settings they come from, and the error when one is exceeded.
//!
//! The same keys are used in `limits` of a `[[module]]`, in `limits` of a `[[tenant]]` and in `[server.ceilings]`. The
//! lowest of the three applies to a delivery ([`Limits`]), and the error names the setting to raise ([`LimitReached`]).

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

/// The default stack of the calls inside a component, in bytes.
pub const DEFAULT_STACK: u64 = 512 << 10;

/// The default weight of a tenant's share of the CPU time.
pub const DEFAULT_CPU_WEIGHT: u32 = 100;

/// A limited resource of a delivery. A call that exceeds the limit of the key-value store or of an HTTP request fails.
/// Exceeding any other limit ends the delivery, except for log lines, which are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Linear memory, the sum of all memories.
    Memory,
    /// Table elements, the sum of all tables.
    Tables,
    /// Core instances of the component.
    Instances,
    /// Resource handles open at once, including those of WASI.
    Handles,
    /// Running time, without waiting.
    Cpu,
    /// Time from start to end, with waiting.
    Timeout,
    /// Recorded calls: to the platform and to the host's services.
    Calls,
    /// Recorded calls in flight at once.
    ConcurrentCalls,
    /// The arguments of one call.
    Arguments,
    /// The answer to one call.
    Answers,
    /// The recorded calls and their answers, as stored in the journal.
    Journal,
    /// Log lines.
    LogLines,
    /// The total size of all log lines.
    LogBytes,
    /// The module's keys and values in the key-value store for the delivery's tenant; 0 allows none.
    KeyValue,
    /// The body of an HTTP request.
    HttpRequest,
    /// The body of an HTTP response.
    HttpAnswer,
    /// Time from an HTTP request to the end of its response.
    HttpTimeout,
}

/// The unit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Time,
    /// A number of items.
    Count,
}

impl Resource {
    /// All resources, in the order of their declaration.
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

    /// Returns the key in modules.toml. The part before a dot is the table that contains the key.
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

    /// Returns the unit of amounts.
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

    /// Returns the default limit of a module, which suits one that answers in a chat.
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

    /// Formats an amount for people: `128 MiB`, `10s`, `2000`.
    pub fn format_amount(self, amount: u64) -> String {
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

/// The limits in one table of modules.toml, each in the unit of its resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitAmounts([Option<u64>; Resource::ALL.len()]);

impl LimitAmounts {
    /// Returns the amount for a resource, if the table sets it.
    pub fn get(&self, resource: Resource) -> Option<u64> {
        self.0[resource.index()]
    }

    /// Sets the amount for a resource.
    pub fn set(&mut self, resource: Resource, amount: u64) {
        self.0[resource.index()] = Some(amount);
    }
}

/// The setting that a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// `limits` of the module, or the default.
    Module,
    /// `limits` of the delivery's tenant.
    Tenant,
    /// `[server.ceilings]`.
    Server,
}

/// The limit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The maximum, in the unit of the resource.
    pub amount: u64,
    /// The setting that it comes from.
    pub set_by: LimitSource,
}

impl Limit {
    /// Formats the setting's name in modules.toml for error messages.
    pub fn setting(&self, resource: Resource) -> String {
        let key = resource.key();
        match self.set_by {
            LimitSource::Module => format!("`limits.{key}`"),
            LimitSource::Tenant => format!("`limits.{key}` of the tenant"),
            LimitSource::Server => format!("`{key}` of [server.ceilings]"),
        }
    }
}

/// The limits of one delivery, one per resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([Limit; Resource::ALL.len()]);

/// The default limits, without ceilings.
impl Default for Limits {
    fn default() -> Self {
        Self(Resource::ALL.map(|resource| Limit { amount: resource.default_amount(), set_by: LimitSource::Module }))
    }
}

impl Limits {
    /// Returns a module's limits, capped by the ceilings of the server.
    pub fn of_module(module: &LimitAmounts, ceilings: &LimitAmounts) -> Self {
        let mut limits = Self::default();
        for (resource, limit) in Resource::ALL.into_iter().zip(&mut limits.0) {
            limit.amount = module.get(resource).unwrap_or(limit.amount);
        }
        limits.below(ceilings, LimitSource::Server)
    }

    /// Returns these limits, capped by a tenant's ceilings.
    pub fn for_tenant(self, ceilings: &LimitAmounts) -> Self {
        self.below(ceilings, LimitSource::Tenant)
    }

    /// Returns these limits, capped by the ceilings of the server as they are now.
    pub fn for_server(self, ceilings: &LimitAmounts) -> Self {
        self.below(ceilings, LimitSource::Server)
    }

    fn below(mut self, ceilings: &LimitAmounts, set_by: LimitSource) -> Self {
        for (limit, ceiling) in self.0.iter_mut().zip(ceilings.0) {
            if let Some(amount) = ceiling.filter(|ceiling| *ceiling < limit.amount) {
                *limit = Limit { amount, set_by };
            }
        }
        self
    }

    /// Returns these limits with another amount for one resource, as if the module had set it.
    pub fn with(mut self, resource: Resource, amount: u64) -> Self {
        self.0[resource.index()] = Limit { amount, set_by: LimitSource::Module };
        self
    }

    /// Returns the limit of a resource.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource.index()]
    }

    /// Returns the limit of a resource, in its unit.
    pub fn amount(&self, resource: Resource) -> u64 {
        self.get(resource).amount
    }

    /// Returns the limit of a resource as a `usize`, for sizes in memory.
    pub fn size(&self, resource: Resource) -> usize {
        usize::try_from(self.amount(resource)).unwrap_or(usize::MAX)
    }

    /// Returns the limit of a resource as a duration, for resources in [`Unit::Time`].
    pub fn time(&self, resource: Resource) -> Duration {
        Duration::from_nanos(self.amount(resource))
    }

    /// Returns the error for exceeding a limit; `wanted` is the requested amount, if known.
    pub fn reached(&self, resource: Resource, wanted: Option<u64>) -> LimitReached {
        LimitReached::Delivery { resource, limit: self.get(resource), wanted }
    }
}

/// The limit that ended a delivery, failed one of its calls, or made the host refuse a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// A limit of the delivery.
    Delivery {
        /// The resource.
        resource: Resource,
        /// The limit that was exceeded.
        limit: Limit,
        /// The requested amount, if known.
        wanted: Option<u64>,
    },
    /// The memory limit of all running deliveries of a tenant together, in bytes.
    TenantMemory(u64),
    /// The memory limit of all running deliveries of the host together, in bytes. Also reported if the tenant would
    /// exceed its share of a nearly exhausted limit.
    GuestMemory(u64),
    /// The maximum size of the unfinished deliveries of a tenant in the journal, in bytes.
    TenantJournal(u64),
    /// The maximum size of the journal, in bytes, if the unfinished deliveries of the tenant would exceed their share of
    /// it.
    HostJournal(u64),
    /// The stack of WebAssembly calls, in bytes; the same for all deliveries.
    Stack(u64),
    /// The maximum number of memories of an instance; the same for all components.
    Memories(usize),
}

impl LimitReached {
    /// Returns whether another attempt may succeed: the platform may answer sooner, or other deliveries may free
    /// memory or space in the journal.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::TenantMemory(_)
                | Self::GuestMemory(_)
                | Self::TenantJournal(_)
                | Self::HostJournal(_)
                | Self::Delivery { resource: Resource::Timeout, .. }
        )
    }
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivery { resource, limit, wanted } => fmt_delivery(f, *resource, *limit, *wanted),
            Self::TenantMemory(limit) => write!(
                f,
                "tenant memory: the running deliveries of its tenant would have more than {} together, \
                 `limits.total_memory` of the tenant",
                Resource::Memory.format_amount(*limit)
            ),
            Self::GuestMemory(limit) => write!(
                f,
                "host memory: the running deliveries of all tenants would have more than {} together, `guest_memory` of \
                 [server], or those of its tenant more than their share of it",
                Resource::Memory.format_amount(*limit)
            ),
            Self::TenantJournal(limit) => write!(
                f,
                "tenant journal: the unfinished deliveries of its tenant would have more than {} together, \
                 `limits.total_journal` of the tenant",
                Resource::Journal.format_amount(*limit)
            ),
            Self::HostJournal(limit) => write!(
                f,
                "host journal: the unfinished deliveries of its tenant would have more than their share of {}, `max_size` \
                 of [server.retention]",
                Resource::Journal.format_amount(*limit)
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

fn fmt_delivery(f: &mut fmt::Formatter<'_>, resource: Resource, limit: Limit, wanted: Option<u64>) -> fmt::Result {
    let (setting, amount) = (limit.setting(resource), resource.format_amount(limit.amount));
    let wanted = wanted.map(|wanted| resource.format_amount(wanted));
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

    fn amounts(given: &[(Resource, u64)]) -> LimitAmounts {
        let mut amounts = LimitAmounts::default();
        given.iter().for_each(|(resource, amount)| amounts.set(*resource, *amount));
        amounts
    }

    #[test]
    fn indexes_resources_in_declaration_order() {
        for (index, resource) in Resource::ALL.into_iter().enumerate() {
            assert_eq!(resource.index(), index, "{resource:?}");
        }
    }

    #[test]
    fn applies_the_lowest_limit_and_names_its_setting() {
        let module = amounts(&[(Resource::Calls, 50), (Resource::Tables, 70)]);
        let server = amounts(&[(Resource::Calls, 60), (Resource::Tables, 60), (Resource::Handles, 5)]);
        let tenant = amounts(&[(Resource::Calls, 40), (Resource::Tables, 60)]);
        let limits = Limits::of_module(&module, &server).for_tenant(&tenant);
        let message = |resource| limits.reached(resource, None).to_string();
        assert_eq!(message(Resource::Calls), "calls: it made more than 40, `limits.calls` of the tenant");
        assert_eq!(
            message(Resource::Tables),
            "tables: it asked for more than 60 elements, `tables` of [server.ceilings]"
        );
        assert_eq!(message(Resource::Handles), "handles: it holds more than 5 at once, `handles` of [server.ceilings]");
        assert_eq!(message(Resource::Cpu), "cpu: it computed for 10s, `limits.cpu`");
    }
}
