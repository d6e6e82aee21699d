//! `sdk`: what modules of a language are written with, for those that build without a registry.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use modhost_authoring::bindings;
use modhost_authoring::sdk::Sdk;
use modhost_core::plural::counted;

/// What `sdk` can be told.
#[derive(Debug, clap::Args)]
pub struct SdkArgs {
    /// The language; TypeScript has that of JavaScript, C++ that of C
    #[arg(value_enum, value_name = "LANGUAGE")]
    language: Sdk,

    /// The folder to write to; it is made if it isn't there
    #[arg(long, short, value_name = "DIR", default_value = "sdk")]
    out: PathBuf,
}

/// Writes the SDK, and says what there is now.
pub fn run(args: &SdkArgs) -> anyhow::Result<ExitCode> {
    let files = args.language.files();
    let written = bindings::write(&files, &args.out)
        .map_err(|(path, error)| anyhow::anyhow!("can't write {}: {error}", path.display()))?;
    let change = if written == 0 { "all as they were".to_owned() } else { format!("{written} of them new or changed") };
    output::println!("{} in {}, {change}", counted(files.len(), "file", "files"), args.out.display());
    Ok(ExitCode::SUCCESS)
}
