//! A platform without operations, for modules that process events and answer nobody.

use async_trait::async_trait;

use super::{CallError, ErrorKind, Platform};

/// The platform of a tenant with `kind = "none"`. Every call returns an error.
pub struct NullPlatform;

#[async_trait]
impl Platform for NullPlatform {
    fn unsupported(&self, what: &str) -> CallError {
        let message = format!(
            "there is no {what} here: the tenant has no platform to answer on (`kind = \"none\"` in modules.toml)"
        );
        CallError::new(ErrorKind::Unsupported, message)
    }
}
