//! What operators see and do while the host runs: the admin API.

mod api;
mod view;

pub use api::{Admin, router};
pub use view::{AttemptView, CallView, ChangeView, DeliveryView, DetailsView, EventView, TotalsView};
