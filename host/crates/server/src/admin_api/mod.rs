//! The admin API: how operators inspect and control a running host.

mod access;
mod api;
mod hosts;
mod keyvalue;
mod module_view;
mod modules;
mod settings_status;
mod tenants;
mod unreadable;
mod view;

pub use access::{Access, AccessRules};
pub use api::{Admin, router};
pub use hosts::HostView;
pub use module_view::{CanaryView, HeldBackView, ModuleView, OperatorActionView, PinnedView, VersionView, WaitingView};
pub use modules::operator_name;
pub use settings_status::SettingsStatus;
pub use tenants::TenantView;
pub use unreadable::{UnreadableDetailsView, UnreadableView};
pub use view::{
    AttemptView, BucketView, CallView, ChangeView, DeliveryView, DetailsView, EventSocketView, EventView, GapView,
    KeyView, SandboxView, SourceView, TotalsView,
};
