//! No platform: for modules that work on events and answer nobody.

use async_trait::async_trait;

use super::{ErrorKind, Platform, PlatformError};

/// The platform of a tenant that has none: every call ends in an error that says so.
pub struct Nowhere;

#[async_trait]
impl Platform for Nowhere {
    fn lacks(&self, what: &str) -> PlatformError {
        let message = format!(
            "there is no {what} here: the tenant has no platform to answer on (`kind = \"none\"` in modules.toml)"
        );
        PlatformError::new(ErrorKind::Unsupported, message)
    }
}
