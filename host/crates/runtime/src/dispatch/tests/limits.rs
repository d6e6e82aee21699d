//! The limits of host, tenants and modules are never exceeded and are shared fairly.

use modhost_storage::journal::{Backlog, Journal};

use super::*;

/// Random events to several modules of several tenants, whose attempts end in random order.
#[tokio::test]
async fn never_exceeds_the_limits_of_host_tenant_and_module() {
    for seed in 0..40 {
        fastrand::seed(seed);
        let names = ["One", "Two", "Three"];
        let modules = names.map(|name| RouteSpec { concurrency: fastrand::usize(1..5), ..module(name) });
        let tenant = |name| TenantSetup { name, concurrency: fastrand::usize(1..6), max_deliveries: 1_000 };
        let tenants = ["acme", "other"].map(tenant);
        let concurrency = fastrand::usize(1..8);
        let setup = Setup { concurrency, tenants: tenants.to_vec(), modules: modules.to_vec(), ..Setup::default() };
        let host = TestHost::of(setup).await;
        let mut expected = 0;
        for number in 0..60 {
            let (tenant, name) = (tenants[fastrand::usize(..2)].name, names[fastrand::usize(..3)]);
            let sent = message(tenant, &format!("evt_{number}"), name, "chat");
            assert!(matches!(host.accept(&sent).await, Ok(Accepted::Deliveries(_))));
            expected += 1;
            if fastrand::bool() {
                end_one(&host).await;
            }
        }
        for _ in 0..expected {
            if host.modules.running().is_empty() {
                break;
            }
            end_one(&host).await;
        }
        assert_eq!(host.modules.history().len(), expected, "seed {seed}");
        let peak = host.modules.peak();
        assert!(peak.total <= concurrency, "seed {seed}: {peak:?}");
        for tenant in &tenants {
            let at_once = peak.tenants.get(&Name::from(tenant.name)).copied().unwrap_or_default();
            assert!(at_once <= tenant.concurrency, "seed {seed}: {peak:?}");
        }
        for module in &modules {
            let at_once = peak.modules.get(&module.module).copied().unwrap_or_default();
            assert!(at_once <= module.concurrency, "seed {seed}: {peak:?}");
        }
        host.assert_idle(&["acme", "other"]);
    }
}

/// Ends one of the running attempts, chosen at random.
async fn end_one(host: &TestHost) {
    host.settle().await;
    let running = host.modules.running();
    if let Some(delivery) = fastrand::choice(&running) {
        host.end(delivery, answered()).await;
    }
}

#[tokio::test]
async fn uses_all_run_slots() {
    let tenants = ["acme", "other"].map(|name| TenantSetup { name, concurrency: 3, max_deliveries: 1_000 });
    let modules = vec![RouteSpec { concurrency: 4, ..module("One") }, RouteSpec { concurrency: 4, ..module("Two") }];
    let host = TestHost::of(Setup { concurrency: 6, tenants: tenants.to_vec(), modules, ..Setup::default() }).await;
    for number in 0..10 {
        for tenant in ["acme", "other"] {
            for module in ["One", "Two"] {
                let sent = message(tenant, &format!("evt_{module}_{number}"), module, "chat");
                host.accept(&sent).await.unwrap();
            }
        }
    }
    host.settle().await;
    assert_eq!(host.modules.running().len(), 6);
}

/// Whatever the backlog of one tenant, the other tenant gets its share of the free slots.
#[tokio::test]
async fn shares_slots_fairly_among_tenants() {
    let tenants = ["acme", "other"].map(|name| TenantSetup { name, concurrency: 10, max_deliveries: 1_000 });
    let host = TestHost::of(Setup { concurrency: 1, tenants: tenants.to_vec(), ..Setup::default() }).await;
    for number in 0..50 {
        host.accept(&message("acme", &format!("evt_{number}"), "Echo", "chat")).await.unwrap();
    }
    let mut few = Vec::new();
    for number in 0..5 {
        let sent = message("other", &format!("evt_{number}"), "Echo", "chat");
        few.push(DeliveryId::new(&sent, &"Echo".into()));
        host.accept(&sent).await.unwrap();
    }
    for _ in 0..12 {
        end_one(&host).await;
    }
    let started = host.modules.history();
    let served = few.iter().filter(|delivery| started.iter().any(|(of, _)| of == *delivery)).count();
    assert_eq!(served, 5, "{started:?}");
    assert_eq!(host.journal.backlog(&"other".into()).tenant, Backlog::default().tenant);
}

/// A changed limit applies from the next claim.
#[tokio::test]
async fn applies_lowered_limit_to_later_claims() {
    let host =
        TestHost::of(Setup { modules: vec![RouteSpec { concurrency: 4, ..module("Echo") }], ..Setup::default() });
    let host = host.await;
    for number in 0..10 {
        host.accepted(&event(&format!("evt_{number}"), "Echo")).await;
    }
    host.settle().await;
    assert_eq!(host.modules.running().len(), 4);
    host.set_routes(&Setup::default().tenants, vec![RouteSpec { concurrency: 2, ..module("Echo") }]);
    for left in [3, 2, 2, 2] {
        end_one(&host).await;
        assert_eq!(host.modules.running().len(), left);
    }
}
