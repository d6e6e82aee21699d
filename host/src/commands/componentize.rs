//! `modhost componentize`: converts a core module to a component, for compilers that produce none.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytesize::ByteSize;

use super::help::examples;
use super::{check, output};
use modhost_authoring::component;
use modhost_contract::compat;

/// Arguments of `modhost componentize`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = examples!(
    "modhost componentize module.wasm"
    "modhost componentize module.wasm --out mine.component.wasm"
))]
pub struct ComponentizeArgs {
    /// Core module: a .wasm file built as a library for wasm32-wasi (wasip1)
    #[arg(value_name = "MODULE")]
    module: PathBuf,

    /// File to write [default: beside the module, with `.component.wasm` in place of `.wasm`]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Converts the module, and writes the component only if this host can run it: a host may be watching the file.
pub fn run(args: &ComponentizeArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| args.module.with_extension("component.wasm"));
    let module = check::read(&args.module)?;
    let component = component::componentize(&module).with_context(|| args.module.display().to_string())?;
    let component_info =
        compat::examine(&component, compat::MAX_SIZE).with_context(|| args.module.display().to_string())?;
    if let Err(incompatibility) = component_info.check_compatibility() {
        bail!("{}: this host cannot run the resulting component: {incompatibility}", args.module.display());
    }
    replace(&out, &component).with_context(|| format!("cannot write {}", out.display()))?;
    let size = |bytes| ByteSize::b(bytes).display().iec();
    output::println!(
        "{}: {}, {} of initial memory, valid for {}",
        out.display(),
        size(component_info.size),
        size(component_info.minimum_memory),
        compat::world()
    );
    Ok(ExitCode::SUCCESS)
}

/// Replaces a file atomically, because a host may be watching it.
fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // The dot hides the temporary file from `modhost dev`, which watches for sources.
    let mut file = tempfile::Builder::new().prefix(".componentize-").tempfile_in(folder)?;
    file.write_all(content)?;
    make_readable(file.as_file())?;
    file.persist(path)?;
    Ok(())
}

/// Sets the usual mode of a compiler's output. Temporary files are readable by their owner only.
#[cfg(unix)]
fn make_readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &fs::File) -> std::io::Result<()> {
    Ok(())
}
