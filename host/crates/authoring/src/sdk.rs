//! The SDKs. A copy is written next to each module, so that the module builds without a network although the SDKs
//! aren't published.

use serde::Deserialize;

use super::bindings::File;
use super::embedded::{self, LICENSE};
use modhost_contract as contract;

/// The SDK of a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sdk {
    /// The crate `modhost-sdk`.
    Rust,
    /// The package `modhost`.
    Python,
    /// The package `@modhost/sdk`, also for TypeScript.
    Javascript,
    /// A Go module.
    Go,
    /// A header and a source file, also for C++.
    C,
}

impl Sdk {
    /// Returns the files of the SDK with its license, and with the contract if the SDK's tools read it.
    pub fn files(self) -> Vec<File> {
        let (own, reads_contract) = match self {
            Self::Rust => (embedded::RUST, true),
            Self::Python => (embedded::PYTHON, true),
            Self::Javascript => (embedded::JAVASCRIPT, true),
            Self::Go => (embedded::GO, false),
            Self::C => (embedded::C, false),
        };
        let mut files: Vec<File> = own.iter().map(|(path, content)| File::new(path, *content)).collect();
        if reads_contract {
            files.extend(contract::files().map(|(path, text)| File::new(format!("wit/{path}"), text)));
        }
        if !own.iter().any(|(path, _)| *path == "LICENSE") {
            files.push(File::new("LICENSE", LICENSE));
        }
        files
    }
}
