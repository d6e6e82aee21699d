//! The templates and the SDKs, as `build.rs` put them into the program: lists of paths, and what is in the files.

include!(concat!(env!("OUT_DIR"), "/authoring.rs"));

/// The licence of this repository, for the SDKs that don't carry it themselves.
pub(super) const LICENSE: &[u8] = include_bytes!("../../../../LICENSE");
