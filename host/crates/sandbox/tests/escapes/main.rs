//! Acts as a process that was taken over: restricts itself with the functions that the host uses, then tries to reach
//! what it must not. Each attack runs in a process of its own, once without restrictions, to see that it would work,
//! and once with them. As root, everything runs once more as another user.

#[cfg(target_os = "linux")]
mod attacks;
#[cfg(target_os = "linux")]
mod runner;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return runner::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("SKIPPED: the sandbox needs Linux");
        std::process::ExitCode::SUCCESS
    }
}
