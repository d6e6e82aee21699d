//! Files that are not components.

use modhost_contract::compat;

use crate::incompatibility;
use crate::make::{Contract, wat};

#[test]
fn rejects_an_empty_file() {
    assert_eq!(incompatibility(b""), "the file is empty: its build failed, or is still writing it");
}

#[test]
fn rejects_a_file_above_the_maximum_size() {
    let bytes = Contract::read().build();
    let incompatibility = compat::examine(&bytes, 2048).err().expect("too large").to_string();
    assert!(incompatibility.starts_with("the file has "), "{incompatibility}");
    assert!(
        incompatibility.ends_with(
            " KiB, more than the maximum of 2.0 KiB for a component: optimize it for size and strip it (`wasm-tools strip`)"
        ),
        "{incompatibility}"
    );
    assert!(compat::examine(&bytes, bytes.len() as u64).is_ok(), "exactly the maximum size");
}

#[test]
fn names_the_format_of_other_files() {
    let accents = "é".repeat(3000);
    let cases: [(&[u8], &str); 10] = [
        (b"(component)", "it is WebAssembly text (WAT); convert it to a binary with `wasm-tools parse`"),
        (b"\n;; a comment\n(module)", "it is WebAssembly text (WAT); convert it to a binary with `wasm-tools parse`"),
        (
            b"\xef\xbb\xbf<!DOCTYPE html><title>",
            "it is a web page, probably the login or error page of a failed download",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "it is a Git LFS pointer; fetch the file with `git lfs pull`",
        ),
        (b"PK\x03\x04\x14\0", "it is an archive; unpack it first"),
        (b"\x1f\x8b\x08\0", "it is an archive; unpack it first"),
        (
            b"\x7fELF\x02\x01",
            "it is native code (ELF); for a component compiled ahead of time, use the .wasm file it was compiled from",
        ),
        (
            b"import json\n\nclass Module:\n",
            "it is text that begins with `import json`; use the component built from it",
        ),
        (
            accents.as_bytes(),
            "it is text that begins with `éééééééééééééééééééééééééééééééééééééééé…`; use the component built from it",
        ),
        (b"\x89PNG\r\n", "it begins with the bytes 89 50 4e 47, not with 00 61 73 6d"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(incompatibility(bytes), format!("the file is not WebAssembly: {expected}"));
    }
}

#[test]
fn rejects_a_core_module() {
    for module in ["(module)", r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#] {
        assert_eq!(
            incompatibility(&wat(module)),
            "the file is a core module, not a component: build it for wasm32-wasip2, or, where the compiler has no such \
             target, convert it to a component with `modhost componentize`"
        );
    }
}

#[test]
fn rejects_a_truncated_file() {
    assert_eq!(
        incompatibility(b"\0asm"),
        "the file is truncated: it ends at byte 4, but its contents extend to byte 8 or beyond; it is still being written, \
         or a copy was interrupted"
    );
    let bytes = wat("(component (core module (memory 1)))");
    let half = &bytes[..bytes.len() - 5];
    assert_eq!(
        incompatibility(half),
        format!(
            "the file is truncated: it ends at byte {}, but its contents extend to byte {} or beyond; it is still being \
             written, or a copy was interrupted",
            half.len(),
            bytes.len()
        )
    );
}

#[test]
fn rejects_a_damaged_file() {
    assert_eq!(
        incompatibility(b"\0asm\x0d\0\x01\0\xff\x01\0"),
        "the file is not a valid component: malformed section id (at byte 0x8); it is damaged, or the tools that made it \
         are older or newer than this host"
    );
    assert_eq!(
        incompatibility(b"\0asm\x0c\0\x01\0"),
        "the file is not a valid component: unknown binary version: 0x1000c (at byte 0x4); it is damaged, or the tools \
         that made it are older or newer than this host"
    );
}
