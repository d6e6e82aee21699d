//! The templates and the SDKs, embedded by `build.rs`: lists of paths and contents.

include!(concat!(env!("OUT_DIR"), "/authoring.rs"));

/// The license of this repository, for the SDKs that don't contain it.
pub(super) const LICENSE: &[u8] = include_bytes!("../../../../LICENSE");
