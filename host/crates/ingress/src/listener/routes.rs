//! The current routes of a listener.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use axum::Router;
use hyper_util::service::TowerToHyperService;

/// The routes of a listener. They can be replaced while connections are open: a starting host answers probes before it
/// can accept events.
pub struct Routes(ArcSwap<TowerToHyperService<Router>>);

impl Routes {
    /// Creates the routes of a listener.
    pub fn new(routes: Router) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(TowerToHyperService::new(routes))))
    }

    /// Replaces the routes for all later requests.
    pub fn set(&self, routes: Router) {
        self.0.store(Arc::new(TowerToHyperService::new(routes)));
    }

    pub(super) fn current(&self) -> Guard<Arc<TowerToHyperService<Router>>> {
        self.0.load()
    }
}
