//! `modhost sdk`: writes the SDK of a language, for modules that build without a package registry.

use std::path::PathBuf;
use std::process::ExitCode;

use super::help::examples;
use super::output;
use modhost_authoring::bindings;
use modhost_authoring::sdk::Sdk;
use modhost_core::plural::counted;

/// Arguments of `modhost sdk`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = examples!("modhost sdk python" "modhost sdk rust --out mine/sdk"))]
pub struct SdkArgs {
    /// Language; TypeScript uses the SDK of JavaScript, C++ that of C
    #[arg(value_enum, value_name = "LANGUAGE")]
    language: Sdk,

    /// Folder to write to; it is created if necessary
    #[arg(long, short, value_name = "DIR", default_value = "sdk")]
    out: PathBuf,
}

/// Writes the SDK and prints the number of files.
pub fn run(args: &SdkArgs) -> anyhow::Result<ExitCode> {
    let files = args.language.files();
    let written = bindings::write(&files, &args.out)
        .map_err(|(path, error)| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    let changes = if written == 0 { "unchanged".to_owned() } else { format!("{written} new or changed") };
    output::println!("{}: {}, {changes}", args.out.display(), counted(files.len(), "file", "files"));
    Ok(ExitCode::SUCCESS)
}
