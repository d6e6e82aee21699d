//! Debug information made to take all the memory there is by whoever looks a line up in it.

use serde_json::json;

use super::make::{Parts, TAME};
use super::{APOLOGY, GROWTH, Memory};
use crate::harness::{Host, Settings, wait_for_answer};
use crate::http::{bring, platform, variables};

/// How many units refer to the one table of lines.
const UNITS: usize = 20;

/// How many rows the table has, of a byte each; whoever reads it makes 24 of each.
const ROWS: usize = 500_000;

/// DWARF 4: units that each claim all of the code, and a table of lines that are all elsewhere.
fn debug_information() -> Vec<(&'static str, Vec<u8>)> {
    // A compile unit with low_pc, high_pc and stmt_list.
    let abbreviations = [1, 0x11, 0, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0, 0].to_vec();
    let mut unit = [4_u16.to_le_bytes().as_slice(), &[0; 4], &[4, 1]].concat();
    for word in [0, 0x7fff_ffff, 0_u32] {
        unit.extend(word.to_le_bytes());
    }
    let unit = with_length(unit);
    // Line base -5, line range 14, opcodes from 13 on, no folders, one file.
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
async fn who_serves_looks_up_no_lines() {
    let (platform, folder) = (platform().await, tempfile::tempdir().unwrap());
    let broken = Parts { handle: "unreachable", ..TAME };
    std::fs::write(folder.path().join("bomb.wasm"), broken.component_with(&debug_information())).unwrap();
    let settings = Settings::new().module_file("Test", "bomb.wasm", "retry = { attempts = 1 }");
    std::fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
    let base = platform.api_base().to_string();
    let host = Host::serve(folder, &variables(&base), Some(&platform)).await;
    let before = Memory::of(&host);
    let chat_id = bring(&host, &json!("go")).await;
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), APOLOGY);
    host.logged(&["delivery failed", "trap: wasm `unreachable` instruction executed"]).await;
    let grew = Memory::of(&host).peak.saturating_sub(before.now);
    assert!(grew < GROWTH, "the host grew by {} MiB", grew >> 20);
}
