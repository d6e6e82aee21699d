//! `modhost modules`, as operators use it.

use serde_json::Value;

use super::{Host, Ran, modhost};

/// Runs `modhost modules` against a running host, as a user named ann.
pub async fn modules(host: &Host, args: &[&str]) -> Ran {
    let mut all = vec!["--admin", host.admin.as_str()];
    all.extend(args);
    modhost(host.folder(), "modules", &all, &[("USER", "ann")]).await
}

/// What it tells as JSON, one object a line or one in all.
pub async fn told(host: &Host, args: &[&str]) -> Vec<Value> {
    let ran = modules(host, &[args, &["--json"]].concat()).await;
    assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    serde_json::Deserializer::from_str(&ran.stdout).into_iter().map(Result::unwrap).collect()
}

/// How a module stands.
pub async fn standing(host: &Host, module: &str) -> Value {
    told(host, &["show", module]).await.remove(0)
}
