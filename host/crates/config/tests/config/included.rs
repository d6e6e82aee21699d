//! Tests of included files: their error texts, their names, and which of several files has what only one can have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use modhost_config::{
    ActiveHost, ActiveSettings, Changes, ConfigErrors, Environment, FileContent, LoadIncluded, LoadedSettings,
    Settings, included_files,
};
use modhost_core::limits::Resource;
use proptest::prelude::*;

fn top() -> Settings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/included/top.toml");
    Settings::parse(&fs::read_to_string(path).unwrap(), "modules.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn reports_expected_error_texts_of_included_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/included");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") || path.ends_with("top.toml") {
            continue;
        }
        count += 1;
        let name = Path::new("tenants").join(path.file_name().unwrap());
        let Err(errors) = Settings::parse_included(&fs::read_to_string(&path).unwrap(), &name, &top()) else {
            panic!("{} has no errors", path.display());
        };
        let actual = format!("{errors}\n");
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &actual).unwrap();
        }
        let expected_text = fs::read_to_string(&expected).unwrap_or_default();
        assert!(actual == expected_text, "{}:\n{actual}\nexpected:\n{expected_text}", path.display());
    }
    assert!(count > 0);
}

#[test]
fn parts_have_the_name_of_their_tenant() {
    let text = r#"
        [tenant]
        name = "acme"
        platform = { kind = "none" }
        [[source]]
        name = "chat"
        path = "/acme"
        scheme = "unique"
        secrets = ["file:secret"]
        [[module]]
        name = "Assistant"
        component = "assistant.wasm"
        sources = ["chat", "unique"]
        tenants = ["acme"]
    "#;
    let settings = Settings::parse_included(text, Path::new("etc/tenants/acme.toml"), &top()).unwrap();
    let (source, module) = (&settings.sources[0], &settings.modules[0]);
    assert_eq!((source.name.as_str(), module.name.as_str()), ("acme/chat", "acme/Assistant"));
    assert_eq!(source.tenant.as_ref().unwrap().as_str(), "acme");
    assert_eq!((module.platform_name(), module.owner.as_ref().unwrap().as_str()), ("Assistant", "acme"));
    // Local names come first.
    assert_eq!(module.wants.sources, ["acme/chat".into(), "unique".into()]);
    assert_eq!(module.wants.tenants, ["acme".into()]);
    assert_eq!(module.component, Path::new("etc/tenants/assistant.wasm"));
    let secret = settings.references().next().unwrap();
    assert_eq!(secret.file(), Some(Path::new("etc/tenants/secret")));
    // The ceilings of the host apply.
    assert_eq!(module.limits.delivery.amount(Resource::Memory), 64 << 20);
}

#[test]
fn lists_files_of_patterns_and_paths() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("modules.toml");
    let text = "include = [\"*.toml\", \"tenants/?.toml\", \"gone.conf\", \"empty/*.toml\"]\n";
    fs::create_dir(folder.path().join("tenants")).unwrap();
    for name in ["b.toml", "a.toml", ".hidden.toml", "tenants/x.toml", "tenants/xx.toml", "tenants/y.conf"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::write(&file, text).unwrap();
    let settings = Settings::load_file(&file).unwrap();
    let listed = included_files(&settings.include, &file);
    assert!(listed.errors.is_empty());
    let names: Vec<_> = listed.files.iter().map(|it| it.strip_prefix(folder.path()).unwrap().to_owned()).collect();
    assert_eq!(names, ["a.toml", "b.toml", "gone.conf", "tenants/x.toml"].map(PathBuf::from));

    let settings = Settings::load(&file).unwrap();
    let refused: BTreeMap<_, _> = settings.included.iter().map(|it| (it.path.clone(), it.refused.clone())).collect();
    let error = refused[&folder.path().join("gone.conf")].as_ref().unwrap().to_string();
    assert!(error.contains("gone.conf, which `include` names"), "{error}");
}

/// Accepts everything.
struct Load;

impl LoadIncluded for Load {
    fn environment(&self, _: &Settings) -> Arc<Environment> {
        Arc::default()
    }

    fn check(&self, _: &ActiveSettings) -> Result<(), ConfigErrors> {
        Ok(())
    }
}

/// What a file says. Numbers are small, so that files claim the same.
#[derive(Clone, Debug, PartialEq)]
struct Says {
    tenant: u8,
    path: u8,
    companies: BTreeSet<u8>,
    is_valid: bool,
}

fn text(says: &Says) -> String {
    let companies: Vec<_> = says.companies.iter().map(|company| format!("\"c{company}\"")).collect();
    let broken = if says.is_valid { "" } else { "broken = 1\n" };
    format!(
        "[tenant]\nname = \"t{}\"\ncompanies = [{}]\nplatform = {{ kind = \"none\" }}\n{broken}\
         [[source]]\nname = \"in\"\npath = \"/{}\"\nscheme = \"unique\"\nsecrets = [\"env:S\"]\n\
         [[module]]\nname = \"M\"\ncomponent = \"m.wasm\"\n",
        says.tenant,
        companies.join(", "),
        says.path
    )
}

fn content(says: Option<&Says>) -> FileContent {
    says.map_or(FileContent::Missing, |says| FileContent::Text { text: text(says).into(), is_complete: true })
}

type Step = Vec<(u8, Option<Says>)>;

fn path(file: u8) -> PathBuf {
    format!("tenants/{file}.toml").into()
}

fn update(host: &ActiveHost, step: &Step, now: Instant) -> ActiveHost {
    let files = step.iter().map(|(file, says)| (path(*file), content(says.as_ref()))).collect();
    host.update(Changes { files, ..Changes::default() }, &Load, now).unwrap_or_else(|(_, errors)| panic!("{errors}"))
}

fn host() -> ActiveHost {
    let settings = top();
    ActiveHost::new(ActiveSettings::new(LoadedSettings { settings, environment: Arc::default(), is_complete: true }))
}

/// What the settings in effect of a file claim, without what they only keep for a grace period.
fn claims(active: &ActiveSettings) -> BTreeSet<String> {
    let written = active.as_written();
    let tenants = written.tenants.iter().flat_map(|tenant| {
        let companies = tenant.companies.iter().map(|company| format!("company {company}"));
        companies.chain([format!("tenant {}", tenant.name)])
    });
    let paths = written.sources.iter().filter_map(|it| Some(format!("path {}", it.webhook()?.path)));
    tenants.chain(paths).collect()
}

/// What more than one part of the settings in effect has, parts in their grace period included.
fn used_twice(settings: &Settings) -> Vec<String> {
    let paths = settings.sources.iter().filter_map(|source| Some(source.webhook()?.path.clone()));
    let companies = settings.tenants.iter().flat_map(|tenant| tenant.companies.clone());
    let tenants = settings.tenants.iter().map(|tenant| tenant.name.to_string());
    let names = settings.modules.iter().map(|module| module.name.to_string());
    let mut seen = BTreeSet::new();
    paths.chain(companies).chain(tenants).chain(names).filter(|it| !seen.insert(it.clone())).collect()
}

fn claims_of(says: &Says) -> BTreeSet<String> {
    let companies = says.companies.iter().map(|company| format!("company c{company}"));
    companies.chain([format!("tenant t{}", says.tenant), format!("path /{}", says.path)]).collect()
}

fn says() -> impl Strategy<Value = Says> {
    let companies = prop::collection::btree_set(0..6u8, 0..3);
    (0..4u8, 0..5u8, companies, prop::bool::weighted(0.85)).prop_map(|(tenant, path, companies, is_valid)| Says {
        tenant,
        path,
        companies,
        is_valid,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..5u8, prop::option::weighted(0.8, says()));
    prop::collection::vec(change, 1..4)
}

proptest! {
    /// However files change: no two files claim the same, a holder keeps what its file still claims, and a file is
    /// refused only if it is invalid or claims what another file has.
    #[test]
    fn claims_stay_with_their_holders(steps in prop::collection::vec(step(), 1..8)) {
        let now = Instant::now();
        let (mut active, mut files) = (host(), BTreeMap::<u8, Option<Says>>::new());
        for step in &steps {
            let before: BTreeMap<PathBuf, BTreeSet<String>> = active
                .files()
                .iter()
                .filter_map(|(path, file)| Some((path.clone(), claims(file.active()?))))
                .collect();
            files.extend(step.iter().cloned());
            active = update(&active, step, now);
            let mut holders: BTreeMap<String, PathBuf> = BTreeMap::new();
            for (path, file) in active.files() {
                for claim in file.active().map(|active| claims(active)).unwrap_or_default() {
                    let other = holders.insert(claim.clone(), path.clone());
                    prop_assert!(other.is_none(), "{claim} of {} and {}", path.display(), other.unwrap().display());
                }
            }
            prop_assert_eq!(used_twice(&active.settings()), [""; 0]);
            for (file, says) in &files {
                let Some(says) = says.as_ref().filter(|says| says.is_valid) else { continue };
                let wanted = claims_of(says);
                let is_taken = wanted.iter().any(|claim| holders.get(claim).is_some_and(|it| *it != path(*file)));
                let state = &active.files()[&path(*file)];
                prop_assert_eq!(state.refused().is_some(), is_taken, "{:?}: {:?}", says, state.refused());
                // What the file had and still names stays with it.
                let had = before.get(&path(*file)).cloned().unwrap_or_default();
                for kept in had.intersection(&wanted) {
                    prop_assert_eq!(holders.get(kept), Some(&path(*file)), "{}", kept);
                }
            }
            // Looking again changes nothing.
            let again = update(&active, &Vec::new(), now);
            for (path, file) in active.files() {
                prop_assert_eq!(again.files()[path].refused(), file.refused());
            }
        }
    }

    /// Files that don't conflict are all accepted, in whatever order they change.
    #[test]
    fn order_of_changes_does_not_matter(order in Just((0..6u8).collect::<Vec<_>>()).prop_shuffle(), at_once in 1..4usize) {
        let now = Instant::now();
        let says = |file: u8| Says { tenant: file, path: file, companies: [file].into(), is_valid: file != 3 };
        let mut active = host();
        for files in order.chunks(at_once) {
            active = update(&active, &files.iter().map(|file| (*file, Some(says(*file)))).collect(), now);
        }
        let all = active.settings();
        let names: Vec<_> = all.modules.iter().map(|module| module.name.to_string()).collect();
        prop_assert_eq!(names, ["t0/M", "t1/M", "t2/M", "t4/M", "t5/M"]);
    }
}

/// A tenant that moves to another file at once is never refused, whichever file comes first.
#[test]
fn tenant_moves_to_another_file() {
    let says = |path| Some(Says { tenant: 1, path, companies: [1].into(), is_valid: true });
    for (from, to) in [(1, 2), (2, 1)] {
        let now = Instant::now();
        let active = update(&host(), &vec![(from, says(1))], now);
        let moved = update(&active, &vec![(from, None), (to, says(1))], now);
        assert_eq!(moved.files()[&path(to)].refused(), None);
        assert_eq!(used_twice(&moved.settings()), [""; 0]);
        let later = now + Duration::from_secs(3600);
        let moved = update(&moved, &Vec::new(), later);
        assert_eq!(moved.files().keys().collect::<Vec<_>>(), [&path(to)]);
        assert_eq!(moved.settings().modules.len(), 1);
        // A copy is refused until the original is gone.
        let copied = update(&active, &vec![(to, says(1))], now);
        assert!(copied.files()[&path(to)].refused().is_some());
        let moved = update(&copied, &vec![(from, None)], now);
        assert_eq!(moved.files()[&path(to)].refused(), None);
    }
}

/// Two files that exchange their paths in one change are both accepted.
#[test]
fn files_exchange_paths() {
    let says = |tenant, path| Some(Says { tenant, path, companies: BTreeSet::new(), is_valid: true });
    let now = Instant::now();
    let active = update(&host(), &vec![(1, says(1, 1)), (2, says(2, 2))], now);
    let exchanged = update(&active, &vec![(1, says(1, 2)), (2, says(2, 1))], now);
    assert!(exchanged.files().values().all(|file| file.refused().is_none()));
}

/// What was removed from a file is dropped after the grace period, even if the file is broken by then.
#[test]
fn grace_period_of_a_refused_file_ends() {
    let says = Says { tenant: 1, path: 1, companies: [1, 2].into(), is_valid: true };
    let now = Instant::now();
    let companies = |host: &ActiveHost| host.settings().tenants.last().unwrap().companies.join(" ");
    let active = update(&host(), &vec![(1, Some(says.clone()))], now);
    let removed = update(&active, &vec![(1, Some(Says { companies: [1].into(), ..says.clone() }))], now);
    let broken = update(&removed, &vec![(1, Some(Says { is_valid: false, ..says }))], now);
    assert_eq!(companies(&broken), "c1 c2");
    let later = update(&broken, &Vec::new(), now + Duration::from_secs(31));
    assert_eq!(companies(&later), "c1");
    assert!(later.files()[&path(1)].refused().unwrap().to_string().contains("unknown setting `broken`"));
    assert_eq!(later.deadline(), None);
}
