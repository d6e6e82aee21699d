//! Files that are no component.

use modhost_contract::compat;

use crate::incompatibility;
use crate::make::{Contract, wat};

#[test]
fn an_empty_file() {
    assert_eq!(incompatibility(b""), "the file is empty: its build failed, or is still writing it");
}

#[test]
fn a_file_that_is_too_large() {
    let bytes = Contract::read().build();
    let incompatibility = compat::examine(&bytes, 2048).err().expect("too large").to_string();
    assert!(incompatibility.starts_with("the file has "), "{incompatibility}");
    assert!(
        incompatibility.ends_with(
            " KiB, more than the 2.0 KiB a component may have: build it optimised for size and strip it (`wasm-tools strip`)"
        ),
        "{incompatibility}"
    );
    assert!(compat::examine(&bytes, bytes.len() as u64).is_ok(), "as large as it may be");
}

#[test]
fn files_that_are_something_else() {
    let accents = "é".repeat(3000);
    let cases: [(&[u8], &str); 10] = [
        (b"(component)", "it is WebAssembly's text form (WAT), which `wasm-tools parse` turns into the binary one"),
        (
            b"\n;; a comment\n(module)",
            "it is WebAssembly's text form (WAT), which `wasm-tools parse` turns into the binary one",
        ),
        (
            b"\xef\xbb\xbf<!DOCTYPE html><title>",
            "it is a web page; a download that ended at a login or an error looks like this",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "it is a Git LFS pointer in place of the file, which `git lfs pull` fetches",
        ),
        (b"PK\x03\x04\x14\0", "it is an archive, which has to be unpacked first"),
        (b"\x1f\x8b\x08\0", "it is an archive, which has to be unpacked first"),
        (
            b"\x7fELF\x02\x01",
            "it is native code (ELF); of a component compiled ahead of time, give the .wasm it was made from",
        ),
        (
            b"import json\n\nclass Module:\n",
            "it is text that begins with `import json`; give the component built from it",
        ),
        (
            accents.as_bytes(),
            "it is text that begins with `éééééééééééééééééééééééééééééééééééééééé…`; give the component built from it",
        ),
        (b"\x89PNG\r\n", "it begins with the bytes 89 50 4e 47, not with 00 61 73 6d"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(incompatibility(bytes), format!("the file is not WebAssembly: {expected}"));
    }
}

#[test]
fn a_core_module() {
    for module in ["(module)", r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#] {
        assert_eq!(
            incompatibility(&wat(module)),
            "the file is a core module, not a component: build it for wasm32-wasip2, or, where the compiler has no such \
             target, make a component of it with `modhost componentize`"
        );
    }
}

#[test]
fn a_file_that_is_cut_short() {
    assert_eq!(
        incompatibility(b"\0asm"),
        "the file is cut short: it ends at byte 4, but its contents go on to byte 8 at least; it is still being written, \
         or a copy of it broke off"
    );
    let bytes = wat("(component (core module (memory 1)))");
    let half = &bytes[..bytes.len() - 5];
    assert_eq!(
        incompatibility(half),
        format!(
            "the file is cut short: it ends at byte {}, but its contents go on to byte {} at least; it is still being \
             written, or a copy of it broke off",
            half.len(),
            bytes.len()
        )
    );
}

#[test]
fn a_file_that_is_damaged() {
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
