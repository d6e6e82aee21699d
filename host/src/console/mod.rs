//! What operators see and do while the host runs: the admin API.

mod api;
mod keyvalue;
mod view;

pub use api::{Admin, router};
pub use view::{
    AttemptView, BucketView, CallView, ChangeView, DeliveryView, DetailsView, EventSocketView, EventView, GapView,
    KeyView, SourceView, TotalsView,
};
