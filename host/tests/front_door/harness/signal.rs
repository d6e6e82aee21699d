//! Sends signals to processes, as a service manager or a shell does.

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Sends a signal to a process. The program `kill` isn't available on every machine.
pub fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("the id of a process");
    kill_process(process, signal).unwrap();
}
