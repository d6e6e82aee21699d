//! Debug information that is crafted to use up the memory of a program that looks up a line in it.

use serde_json::json;

use super::make::{HARMLESS, Parts};
use super::{APOLOGY, MAX_GROWTH, Memory};
use crate::harness::{Host, Settings, wait_for_answer};
use crate::http::{deliver_event, platform, variables};

/// The number of units that refer to the same line table.
const UNITS: usize = 20;

/// The number of rows of the line table. Each row takes 1 byte in the file and 24 bytes when parsed.
const ROWS: usize = 500_000;

/// DWARF 4: every unit claims the whole code, and no row of the line table is inside it.
fn debug_information() -> Vec<(&'static str, Vec<u8>)> {
    // A compile unit with low_pc, high_pc and stmt_list.
    let abbreviations = [1, 0x11, 0, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0, 0].to_vec();
    let mut unit = [4_u16.to_le_bytes().as_slice(), &[0; 4], &[4, 1]].concat();
    for word in [0, 0x7fff_ffff, 0_u32] {
        unit.extend(word.to_le_bytes());
    }
    let unit = with_length(unit);
    // Line base -5, line range 14, opcode base 13, no directories, one file.
    let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0];
    header.extend(b"a.c\0\0\0\0\0");
    let mut lines = [4_u16.to_le_bytes().as_slice(), &(header.len() as u32).to_le_bytes(), &header].concat();
    lines.extend([0, 5, 2]);
    lines.extend(0x6000_0000_u32.to_le_bytes());
    lines.extend(std::iter::repeat_n(0x20, ROWS));
    lines.extend([0, 1, 1]);
    vec![(".debug_abbrev", abbreviations), (".debug_info", unit.repeat(UNITS)), (".debug_line", with_length(lines))]
}

fn with_length(bytes: Vec<u8>) -> Vec<u8> {
    [(bytes.len() as u32).to_le_bytes().as_slice(), &bytes].concat()
}

#[tokio::test]
async fn serving_does_not_parse_debug_information() {
    let (platform, folder) = (platform().await, tempfile::tempdir().unwrap());
    let broken = Parts { handle: "unreachable", ..HARMLESS };
    std::fs::write(folder.path().join("bomb.wasm"), broken.component_with(&debug_information())).unwrap();
    let settings = Settings::new().module_file("Test", "bomb.wasm", "retry = { attempts = 1 }");
    std::fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
    let base = platform.api_base().to_string();
    let host = Host::serve(folder, &variables(&base), Some(&platform)).await;
    let before = Memory::of(&host);
    let chat_id = deliver_event(&host, &json!("go")).await;
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), APOLOGY);
    host.logged(&["delivery failed", "trap: wasm `unreachable` instruction executed"]).await;
    let grew = Memory::of(&host).peak.saturating_sub(before.now);
    assert!(grew < MAX_GROWTH, "the host grew by {} MiB", grew >> 20);
}
