//! What a module logs, for its author and the operators; the user never sees it.
//!
//! Use the macros: [`trace!`](crate::trace!), [`debug!`](crate::debug!), [`info!`](crate::info!),
//! [`warn!`](crate::warn!), [`error!`](crate::error!) and [`critical!`](crate::critical!). The host adds which module
//! and which delivery it was.
//!
//! ```
//! use modhost_sdk::prelude::*;
//!
//! info!("answered in {} words", 3);
//! ```

use std::fmt;

/// How much a line matters.
///
/// ```
/// use modhost_sdk::log::{Level, log};
///
/// let level = if 1 + 1 == 2 { Level::Debug } else { Level::Critical };
/// log(level, "arithmetic", format_args!("checked"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The flow of the program, line by line.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// What happened.
    Info,
    /// Something that may go wrong.
    Warn,
    /// Something that went wrong.
    Error,
    /// Something that stops the module's work.
    Critical,
}

/// Writes a line to the log. `context` groups lines that belong together; the macros give the path of the Rust
/// module.
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

/// In an author's tests there is no host: the line goes where a test's output goes.
#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, context: &str, message: &str) {
    eprintln!("{level:?} {context}: {message}");
}

/// Logs the flow of the program.
///
/// ```
/// modhost_sdk::trace!("entering the {} loop", "inner");
/// ```
#[macro_export]
macro_rules! trace {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Trace, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs what helps to find a mistake.
///
/// ```
/// modhost_sdk::debug!("{} tokens left", 12);
/// ```
#[macro_export]
macro_rules! debug {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Debug, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs what happened.
///
/// ```
/// modhost_sdk::info!("{} hits", 3);
/// ```
#[macro_export]
macro_rules! info {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Info, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs what may go wrong.
///
/// ```
/// modhost_sdk::warn!("only {} seats left", 1);
/// ```
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Warn, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs what went wrong.
///
/// ```
/// modhost_sdk::error!("no seat for {}", "Ada");
/// ```
#[macro_export]
macro_rules! error {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Error, ::core::module_path!(), ::core::format_args!($($text)+)) };
}

/// Logs what stops the module's work.
///
/// ```
/// modhost_sdk::critical!("the {} table is missing", "seat");
/// ```
#[macro_export]
macro_rules! critical {
    ($($text:tt)+) => { $crate::log::log($crate::log::Level::Critical, ::core::module_path!(), ::core::format_args!($($text)+)) };
}
