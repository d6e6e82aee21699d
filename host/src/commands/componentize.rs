//! `componentize`: a component out of what a compiler made that knows nothing of components.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytesize::ByteSize;

use super::{check, output};
use modhost_authoring::component;
use modhost_contract::compat;

/// What `componentize` can be told.
#[derive(Debug, clap::Args)]
pub struct ComponentizeArgs {
    /// The core module: a .wasm file built as a library for wasm32-wasi (wasip1)
    #[arg(value_name = "MODULE")]
    module: PathBuf,

    /// The file to write [default: beside the module, with `.component.wasm` in place of `.wasm`]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Makes the component, and writes it if it fits: what a host takes up is never one that doesn't.
pub fn run(args: &ComponentizeArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| args.module.with_extension("component.wasm"));
    let module = check::read(&args.module)?;
    let component = component::componentize(&module).with_context(|| args.module.display().to_string())?;
    let component_info =
        compat::examine(&component, compat::MAX_SIZE).with_context(|| args.module.display().to_string())?;
    if let Err(incompatibility) = component_info.check_compatibility() {
        bail!("{}: the component that comes of it doesn't fit: {incompatibility}", args.module.display());
    }
    replace(&out, &component).with_context(|| format!("can't write {}", out.display()))?;
    let size = |bytes| ByteSize::b(bytes).display().iec();
    output::println!(
        "{}: {}, {} of memory before it runs; it fits ({})",
        out.display(),
        size(component_info.size),
        size(component_info.minimum_memory),
        compat::world()
    );
    Ok(ExitCode::SUCCESS)
}

/// Puts a file in its place in one go: a host that watches never sees half of it.
fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // A name without a dot in front would be one more file to build again for.
    let mut file = tempfile::Builder::new().prefix(".componentize-").tempfile_in(folder)?;
    file.write_all(content)?;
    readable(file.as_file())?;
    file.persist(path)?;
    Ok(())
}

/// Lets everyone read it, as they may what compilers write; a temporary file is its owner's alone.
#[cfg(unix)]
fn readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &fs::File) -> std::io::Result<()> {
    Ok(())
}
