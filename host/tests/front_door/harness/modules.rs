//! `modhost modules`, as operators use it.

use serde_json::Value;

use super::{CommandOutput, Host, modhost};

/// Runs `modhost modules` against a running host, as user ann.
pub async fn modules(host: &Host, args: &[&str]) -> CommandOutput {
    let mut all = vec!["--admin", host.admin.as_str()];
    all.extend(args);
    modhost(host.folder(), "modules", &all, &[("USER", "ann")]).await
}

/// Its JSON output, one object per line or a single one.
pub async fn modules_json(host: &Host, args: &[&str]) -> Vec<Value> {
    let ran = modules(host, &[args, &["--json"]].concat()).await;
    assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    serde_json::Deserializer::from_str(&ran.stdout).into_iter().map(Result::unwrap).collect()
}

/// The state of a module.
pub async fn module_state(host: &Host, module: &str) -> Value {
    modules_json(host, &["show", module]).await.remove(0)
}
