//! The routes that a listener's requests take now.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use axum::Router;
use hyper_util::service::TowerToHyperService;

/// The routes of a listener. They can be replaced while connections are open: a host that starts answers probes before
/// it can take events.
pub struct Routes(ArcSwap<TowerToHyperService<Router>>);

impl Routes {
    /// These, until others are set.
    pub fn new(routes: Router) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(TowerToHyperService::new(routes))))
    }

    /// Sends the requests that come from now on along these.
    pub fn set(&self, routes: Router) {
        self.0.store(Arc::new(TowerToHyperService::new(routes)));
    }

    pub(super) fn current(&self) -> Guard<Arc<TowerToHyperService<Router>>> {
        self.0.load()
    }
}
