//! The program `modhost`. Its commands are in `modhost::commands`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    modhost::commands::main()
}
