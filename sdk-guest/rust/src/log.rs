//! The module's log, for its author and for operators; users never see it.
//!
//! Use the macros: [`trace!`](crate::trace!), [`debug!`](crate::debug!), [`info!`](crate::info!),
//! [`warn!`](crate::warn!), [`error!`](crate::error!) and [`critical!`](crate::critical!). The host adds the
//! module and the delivery to each line.
//!
//! ```
//! use modhost_sdk::prelude::*;
//!
//! info!("answered in {} words", 3);
//! ```

use std::fmt;

/// The severity of a log line.
///
/// ```
/// use modhost_sdk::log::{Level, log};
///
/// let level = if 1 + 1 == 2 { Level::Debug } else { Level::Critical };
/// log(level, "arithmetic", format_args!("checked"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The flow of the program, in detail.
    Trace,
    /// Information for debugging.
    Debug,
    /// A normal event.
    Info,
    /// Something that may become an error.
    Warn,
    /// An error.
    Error,
    /// An error that stops the module.
    Critical,
}

/// Writes a line to the log. `context` groups related lines; the macros set it to the path of the Rust module.
///
/// ```
/// use modhost_sdk::log::{Level, log};
///
/// log(Level::Info, "billing", format_args!("{} invoices", 7));
/// ```
pub fn log(level: Level, context: &str, message: fmt::Arguments<'_>) {
    write(level, context, &message.to_string());
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, context: &str, message: &str) {
    use crate::bindings::wasi::logging::logging as wit;

    let level = match level {
        Level::Trace => wit::Level::Trace,
        Level::Debug => wit::Level::Debug,
        Level::Info => wit::Level::Info,
        Level::Warn => wit::Level::Warn,
        Level::Error => wit::Level::Error,
        Level::Critical => wit::Level::Critical,
    };
    wit::log(level, context, message);
}

/// Writes to standard error, because there is no host in an author's tests.
#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, context: &str, message: &str) {
    eprintln!("{level:?} {context}: {message}");
}

/// Logs a line with level [`Trace`](crate::log::Level::Trace).
///
/// ```
/// modhost_sdk::trace!("entering the {} loop", "inner");
/// ```
#[macro_export]
macro_rules! trace {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Trace, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs a line with level [`Debug`](crate::log::Level::Debug).
///
/// ```
/// modhost_sdk::debug!("{} tokens left", 12);
/// ```
#[macro_export]
macro_rules! debug {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Debug, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs a line with level [`Info`](crate::log::Level::Info).
///
/// ```
/// modhost_sdk::info!("{} hits", 3);
/// ```
#[macro_export]
macro_rules! info {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Info, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs a line with level [`Warn`](crate::log::Level::Warn).
///
/// ```
/// modhost_sdk::warn!("only {} seats left", 1);
/// ```
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Warn, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs a line with level [`Error`](crate::log::Level::Error).
///
/// ```
/// modhost_sdk::error!("no seat for {}", "Ada");
/// ```
#[macro_export]
macro_rules! error {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Error, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs a line with level [`Critical`](crate::log::Level::Critical).
///
/// ```
/// modhost_sdk::critical!("the {} table is missing", "seat");
/// ```
#[macro_export]
macro_rules! critical {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Critical, ::core::module_path!(), ::core::format_args!($($text)+)) };
}
