//! The settings of a host, checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::document::Document;
use super::environment::{not_regular, unread};
use super::http::HttpEntry;
use super::listener::{ListenerLimits, Proxies, Tls};
use super::platform::{CompletionSettings, PlatformSettings};
use super::source::{Source, SourceKind};
use super::{ConfigError, ConfigErrors, Reference, SourceLocation, Written, check, file, suggest};
use modhost_core::backoff::RetryPolicy;
use modhost_core::browser_guard::HostName;
use modhost_core::event::Name;
use modhost_core::event::interest::Interest;
use modhost_core::files::{self, NotRegular, ReadError, Unanswered};
use modhost_core::limits::{Amounts, DEFAULT_STACK, Limits, Resource};

/// The largest settings file, in bytes: some ten thousand modules.
const MAX_SIZE: u64 = 4 << 20;

/// Everything modules.toml says, checked, with the defaults filled in.
///
/// Two settings are equal if they mean the same, whatever line they stand on: a reload compares them to tell what
/// changed. The values behind references are no part of that.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file they were read from.
    pub file: PathBuf,
    /// `[server]`: the host itself.
    pub server: Server,
    /// `[[source]]`: the ways events come in.
    pub sources: Vec<Source>,
    /// `[[tenant]]`: whom the host works for.
    pub tenants: Vec<Tenant>,
    /// `[[module]]`: what answers events.
    pub modules: Vec<Module>,
    /// The text they were read from.
    pub text: Text,
}

/// The text of a settings file. Any two are equal, so that settings compare equal that are only written differently.
#[derive(Clone)]
pub struct Text(Arc<str>);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Text {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The host itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where events come in. Default `127.0.0.1:8080`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where operators look in. Default `127.0.0.1:8081`; port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// What operators have to know to look in; needed if others than this machine can reach `admin_listen`.
    pub admin_token: Option<Reference>,
    /// Under which names they may ask, besides those of this machine.
    pub admin_hosts: Vec<HostName>,
    /// What the host keeps on disk. Default `.modhost` beside the file.
    pub data_dir: PathBuf,
    /// The largest body of an event, in bytes. Default 1 MiB.
    pub max_body: u64,
    /// How many deliveries may be accepted and not finished; beyond it an event is refused for now (503). Default
    /// 1 000 000.
    pub max_deliveries: u64,
    /// How many deliveries run at once on the whole host. Default 256.
    pub concurrency: usize,
    /// How much stack the calls inside a component have, in bytes. Default 512 KiB.
    pub stack: u64,
    /// What the user reads when a module couldn't answer and says nothing itself.
    pub apology: String,
    /// What the user reads while a delivery that failed waits for its next attempt.
    pub retry_notice: String,
    /// How long what has ended is kept in the journal.
    pub retention: Retention,
    /// What compiling a component may use.
    pub compiler: CompilerSettings,
    /// `[server.ceilings]`: what nobody may have more of, whatever modules and tenants say.
    pub ceilings: Ceilings,
    /// What one who sends requests may use of the host.
    pub limits: ListenerLimits,
    /// The proxies in front of it.
    pub proxies: Proxies,
    /// The certificate events are taken with; none: they come over plain HTTP.
    pub tls: Option<Tls>,
    /// How long what disappears from the settings has to stay away until it is dropped, and how long a secret that was
    /// replaced is still taken. Default 30 s.
    pub removal_grace: Duration,
    /// Which of its keys are written down.
    pub written: Written,
}

/// What no module and no tenant may have more of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// What no delivery may use more of.
    pub delivery: Amounts,
    /// How many deliveries of a module, and of a tenant, run at once at the most; none: as many as they say.
    pub concurrency: Option<usize>,
}

/// Whom the host works for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub name: Name,
    /// Its companies, in the platform's ids; empty: any company of its source.
    pub companies: Vec<String>,
    /// The platform its modules answer on.
    pub platform: PlatformSettings,
    /// What makes their completions in place of the platform's own model; none: the platform does.
    pub completion: Option<CompletionSettings>,
    /// What it may use of the host.
    pub limits: TenantLimits,
    /// Where it stands in the file.
    pub place: SourceLocation,
    /// Which of its keys are written down.
    pub written: Written,
}

/// What a tenant may use of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLimits {
    /// How many of its deliveries may be accepted and not finished. Default 100 000.
    pub max_deliveries: u64,
    /// How many of its events are taken a second; none: as many as come.
    pub events_per_second: Option<u32>,
    /// How many of its deliveries run at once. Default 32.
    pub concurrency: usize,
    /// How much memory its running deliveries may have together, in bytes; none: what each may have.
    pub total_memory: Option<u64>,
    /// What none of its deliveries may use more of, whatever the module says.
    pub delivery: Amounts,
}

/// What answers events.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Its name on the platform: what events are routed by.
    pub name: Name,
    /// The component, resolved against the folder of the file. It need not exist yet.
    pub component: PathBuf,
    /// Where in the file it is named.
    pub component_place: SourceLocation,
    /// Where its sources lie, resolved against the folder of the file. Default: that folder itself.
    pub folder: Option<PathBuf>,
    /// The command that makes the component, run in its folder.
    pub build: Option<String>,
    /// The files and folders it is made from, resolved against the folder of the file: `dev` builds it again when one
    /// of them changes. Default: its folder, if it has one of its own.
    pub watch: Vec<PathBuf>,
    /// The events it wants. Default: `unique.chat.external-module.chosen`, of any source and tenant.
    pub wants: Interest,
    /// What it reads as its configuration: texts as they are, all other values as JSON.
    pub config: BTreeMap<String, String>,
    /// Where it may send HTTP requests; empty: nowhere.
    pub http: Vec<HttpEntry>,
    /// What one of its deliveries may use.
    pub limits: ModuleLimits,
    /// How its deliveries are tried again.
    pub retry: RetryPolicy,
    /// What a new version has to show before it serves. Default: nothing but that it can.
    pub swap: Swap,
    /// Whether the deliveries of one chat go one at a time, in the order their events came.
    pub ordered_by_chat: bool,
    /// Whether a delivery that starts again gets the answers it got before. Default yes.
    pub resume: bool,
    /// What the user reads when it couldn't answer; none: [`Server::apology`].
    pub apology: Option<String>,
    /// Where it stands in the file.
    pub place: SourceLocation,
    /// Which of its keys are written down.
    pub written: Written,
}

/// What the deliveries of a module may use.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleLimits {
    /// What a delivery may use; the ceilings of its tenant come to that.
    pub delivery: Limits,
    /// How many deliveries of the module run at once. Default 16.
    pub concurrency: usize,
}

/// What compiling a component may use.
#[derive(Clone, Debug, PartialEq)]
pub struct CompilerSettings {
    /// How long it may take. Default 5 min.
    pub timeout: Duration,
    /// How much memory it may take, in bytes. Default 2 GiB.
    pub memory: u64,
    /// How many components are compiled at once. Default 2.
    pub processes: usize,
}

/// How long what has ended is kept in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// Deliveries that completed or were dropped. Default 7 days.
    pub completed: Duration,
    /// Deliveries that were given up. Default 30 days.
    pub dead: Duration,
    /// The ids of events, by which a redelivery is known. Default 30 days.
    pub ids: Duration,
    /// How large the journal may be, in bytes. Default 10 GiB.
    pub max_size: u64,
    /// How many versions of a module's component are kept, the one that serves included. Default 10.
    pub versions: usize,
    /// How large all kept components may be together, in bytes. Default 2 GiB.
    pub versions_size: u64,
}

/// What a new version of a module has to show before it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// How many of the last completed deliveries it is dry-run on; 0: none.
    pub replay: u32,
    /// Whether it is tried on a share of the deliveries first.
    pub canary: Option<Canary>,
}

/// How a new version is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// How many of a hundred deliveries it gets.
    pub percent: u8,
    /// How long. Default 5 min.
    pub period: Duration,
    /// How many deliveries have to have ended on it before it can take over. Default 5.
    pub min_deliveries: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            admin_token: None,
            admin_hosts: Vec::new(),
            data_dir: ".modhost".into(),
            max_body: 1 << 20,
            max_deliveries: 1_000_000,
            concurrency: 256,
            stack: DEFAULT_STACK,
            apology: "Sorry, something went wrong and this can't be answered right now. Please try again later.".into(),
            retry_notice: "This takes longer than usual. Another try follows on its own.".into(),
            retention: Retention::default(),
            compiler: CompilerSettings::default(),
            ceilings: Ceilings::default(),
            limits: ListenerLimits::default(),
            proxies: Proxies::default(),
            tls: None,
            removal_grace: Duration::from_secs(30),
            written: Written::default(),
        }
    }
}

impl Ceilings {
    /// So many deliveries at once, or as many as there may be.
    pub fn concurrency_below(&self, wanted: usize) -> usize {
        self.concurrency.map_or(wanted, |ceiling| ceiling.min(wanted))
    }

    /// Which defaults are above a ceiling, so that modules and tenants that say nothing have less: each with what they
    /// have, for people.
    pub fn below_defaults(&self) -> Vec<String> {
        let of_delivery = Resource::ALL.into_iter().filter_map(|resource| {
            let (ceiling, default) = (self.delivery.get(resource)?, resource.default_amount());
            let (told, instead) = (resource.told(ceiling), resource.told(default));
            (ceiling < default).then(|| format!("`{}` is {told} instead of {instead}", resource.key()))
        });
        let (module, tenant) = (ModuleLimits::default().concurrency, TenantLimits::default().concurrency);
        let at_once = [("module", module), ("tenant", tenant)].into_iter().filter_map(|(of, default)| {
            let ceiling = self.concurrency.filter(|ceiling| *ceiling < default)?;
            Some(format!("`concurrency` of a {of} is {ceiling} instead of {default}"))
        });
        of_delivery.chain(at_once).collect()
    }
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            concurrency: 32,
            max_deliveries: 100_000,
            events_per_second: None,
            total_memory: None,
            delivery: Amounts::default(),
        }
    }
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self { delivery: Limits::default(), concurrency: 16 }
    }
}

impl Default for CompilerSettings {
    /// The largest interpreters take five seconds on two idle cores, and a fifth of the memory; a busy machine takes a
    /// minute.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), memory: 2 << 30, processes: 2 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            completed: Duration::from_secs(7 * DAY),
            dead: Duration::from_secs(30 * DAY),
            ids: Duration::from_secs(30 * DAY),
            max_size: 10 << 30,
            versions: 10,
            versions_size: 2 << 30,
        }
    }
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// If it can't be read, isn't TOML, or doesn't make sense: then with everything that is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let bytes = files::read(path, MAX_SIZE).map_err(|error| unreadable(path, &error))?;
        Self::parse(decode(path, &bytes)?, path)
    }

    /// The same with a time limit, for who has no runtime: a file system may not answer.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`], and when it takes too long.
    pub fn load_in_time(path: &Path) -> Result<Self, ConfigErrors> {
        let owned = path.to_owned();
        files::within(files::READ_TIMEOUT, move || Self::load(owned)).unwrap_or_else(|why| Err(unanswered(&why).into()))
    }

    /// The text of a settings file; none if there is no such file.
    ///
    /// # Errors
    ///
    /// If it can't be read, or isn't written in UTF-8.
    pub fn text(path: &Path) -> Result<Option<String>, ConfigError> {
        match files::read(path, MAX_SIZE) {
            Ok(bytes) => Ok(Some(decode(path, &bytes)?.to_owned())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// Checks the text of a file; `path` is what it is called in errors, and what its paths are relative to.
    ///
    /// # Errors
    ///
    /// If it isn't TOML or doesn't make sense: then with everything that is wrong with it.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        // Editors on Windows put it there.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            let error = ConfigError::new(format!("{} is empty", path.display()));
            return Err(error.advice("it needs at least a [[source]], a [[tenant]] and a [[module]]").into());
        }
        let document = Document::new(path, text);
        let root = DeTable::parse(text).map_err(|error| {
            let end = text.len();
            document.error(error.span().unwrap_or(end..end), format!("this is not TOML: {}", error.message()))
        })?;
        let parts = file::read(&document, &root);
        check::check(&document, &parts);
        ConfigErrors::none_of(document.into_problems())?;
        Ok(Self {
            file: path.to_owned(),
            server: parts.server,
            sources: parts.sources.into_iter().map(|source| source.part).collect(),
            tenants: parts.tenants.into_iter().map(|tenant| tenant.part).collect(),
            modules: parts.modules.into_iter().map(|module| module.part).collect(),
            text: Text(text.into()),
        })
    }

    /// Every reference to a value that stands elsewhere, but for the key of the certificate, which is renewed with it.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        let of_sources = self.sources.iter().flat_map(|source| match &source.kind {
            SourceKind::Webhook(webhook) => webhook.secrets.iter().collect(),
            SourceKind::EventSocket(socket) => socket.url.iter().chain(&socket.company).collect::<Vec<_>>(),
        });
        let of_tenants = self.tenants.iter().flat_map(|tenant| {
            let of_completion = tenant.completion.iter().flat_map(|completion| completion.references());
            tenant.platform.references().into_iter().chain(of_completion)
        });
        let headers = self.modules.iter().flat_map(|module| &module.http).flat_map(|entry| &entry.headers);
        let of_modules = headers.map(|header| &header.secret);
        of_sources.chain(of_tenants).chain(of_modules).chain(&self.server.admin_token)
    }

    /// The same, with the key of the certificate.
    pub(crate) fn all_references(&self) -> impl Iterator<Item = &Reference> {
        self.references().chain(self.server.tls.iter().map(|tls| &tls.key))
    }

    /// That there is no source of this name, and which one was probably meant.
    pub fn no_source(&self, name: &str) -> String {
        let names: Vec<_> = self.sources.iter().map(|source| source.name.as_str()).collect();
        let advice = if names.is_empty() { "nor any other".to_owned() } else { suggest::advice(name, &names) };
        format!("there is no [[source]] named \"{name}\" in {}; {advice}", self.file.display())
    }

    /// That what stands in the place of a module's component can never be one.
    pub fn no_component(module: &Module, kind: NotRegular) -> ConfigError {
        check::no_component(module, kind)
    }

    /// What is worth telling the operator, though the host can work with it.
    pub fn warnings(&self) -> Vec<ConfigError> {
        check::warnings(self)
    }
}

/// Why a file can't be read, and what to do.
fn unreadable(path: &Path, error: &ReadError) -> ConfigError {
    use std::io::ErrorKind;

    let shown = path.display();
    match error {
        error if error.is_not_found() => ConfigError::new(format!("there is no file {shown}")).advice(match above(path) {
            Some(found) => format!("there is one above: run this there, or name it: --config {}", found.display()),
            None => "run this in the folder of your modules.toml, or name the file: --config path/to/modules.toml; `modhost \
                     new NAME` makes a module and the file, where there is none yet"
                .to_owned(),
        }),
        ReadError::NotRegular(kind @ NotRegular::Folder) => {
            ConfigError::new(format!("{shown} {}", kind.described()))
                .advice(format!("name the file in it: {shown}/modules.toml"))
        }
        ReadError::NotRegular(kind) => not_regular(path, *kind),
        ReadError::Io(io) if io.kind() == ErrorKind::PermissionDenied => {
            ConfigError::new(format!("{shown} {}", unread(error)))
                .advice("change the owner or the mode of the file, or run as a user who may read it")
        }
        _ => ConfigError::new(format!("{shown} {}", unread(error))),
    }
}

/// That the settings, or a file they refer to, could not be read in time.
pub fn unanswered(why: &Unanswered) -> ConfigError {
    const ADVICE: &str = "is it on a network file system that doesn't answer?";
    match why {
        Unanswered::TimedOut(pending) => {
            let file = pending.file.as_ref().map_or("a file of the settings".into(), |file| file.display().to_string());
            ConfigError::new(format!("{file} could not be read within {:?}", files::READ_TIMEOUT)).advice(ADVICE)
        }
        Unanswered::TooMany => {
            ConfigError::new("the settings are not read: earlier reads still wait for a file system")
                .advice("see to the file system that doesn't answer")
        }
        Unanswered::Broken => ConfigError::new("reading the settings failed: please report this"),
    }
}

/// The file of this name in a folder above, as it is named from here: whoever has just installed a module's tools stands in
/// its folder. One that is named with a folder is meant to be there.
fn above(path: &Path) -> Option<PathBuf> {
    path.parent().filter(|folder| folder.as_os_str().is_empty())?;
    let here = std::env::current_dir().ok()?;
    let between = here.ancestors().skip(1).position(|folder| folder.join(path).is_file())?;
    Some(std::iter::repeat_n("..", between + 1).collect::<PathBuf>().join(path))
}

pub fn decode<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b str, ConfigError> {
    let refuse = |message: String| Err(ConfigError::new(message).advice("save the file as UTF-8"));
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refuse(format!("{} is written in UTF-16", path.display()));
    }
    str::from_utf8(bytes).or_else(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        refuse(format!("{}:{line}: this line is not written in UTF-8", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(name: &str, bytes: &[u8]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        Settings::load(&path).map_err(|errors| errors.to_string().replace(folder.path().to_str().unwrap(), "…"))
    }

    #[test]
    fn says_why_a_file_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Settings::load(folder.path().join("modules.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("there is no file ") && missing.contains("--config"), "{missing}");
        let directory = Settings::load(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("is a folder, not a file"), "{directory}");
        fs::File::create(folder.path().join("large.toml")).unwrap().set_len(1 << 40).unwrap();
        let large = Settings::load(folder.path().join("large.toml")).unwrap_err().to_string();
        assert!(large.contains("is larger than 4.0 MiB"), "{large}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = Settings::load_in_time(path).unwrap_err().to_string();
            assert!(error.contains("is not a regular file"), "{error}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_text() {
        let empty = load("m.toml", b" \n").unwrap_err();
        assert_eq!(empty, "…/m.toml is empty\n  = help: it needs at least a [[source]], a [[tenant]] and a [[module]]");
        let latin = load("m.toml", b"a = 1\nb = \"\xfc\"\n").unwrap_err();
        assert_eq!(latin, "…/m.toml:2: this line is not written in UTF-8\n  = help: save the file as UTF-8");
        let wide = load("m.toml", b"\xff\xfea\0").unwrap_err();
        assert_eq!(wide, "…/m.toml is written in UTF-16\n  = help: save the file as UTF-8");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let error = load("m.toml", b"\xef\xbb\xbfnonsense = 1\n").unwrap_err();
        assert!(error.contains("m.toml:1:1: the file has no setting `nonsense`"), "{error}");
    }
}
