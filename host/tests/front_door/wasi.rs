//! Tests of components built against other patch versions of WASI 0.2 than the host's.

use serde_json::json;
use wasmparser::{Parser, Payload};

use super::harness::{Settings, chat, component};
use super::server::{Server, answer};

/// The bytes of a component with the patch version of all its WASI 0.2 imports replaced.
fn at_patch_level(built: &str, level: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(component(built)).unwrap();
    let (mut depth, mut imports) = (0, Vec::new());
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            // Nested components and modules name their imports freely.
            Payload::ComponentImportSection(section) if depth == 0 => imports.push(section.range()),
            _ => {}
        }
    }
    let marker = b"@0.2.";
    let places: Vec<_> = imports
        .into_iter()
        .flatten()
        .filter(|at| bytes[*at..].starts_with(marker) && bytes[at + 5].is_ascii_digit())
        // Skips draft versions and two-digit patch versions, which would change the length.
        .filter(|at| !matches!(bytes[at + 6], b'-' | b'0'..=b'9'))
        .collect();
    assert!(places.len() >= 10, "{built} has too few imports: {}", places.len());
    for at in places {
        bytes[at + 5] = b'0' + level;
    }
    bytes
}

/// Runs guests that use clocks, random numbers and the environment, print, and send requests.
#[tokio::test]
async fn every_patch_version_links_and_runs() {
    let server = Server::always(|| answer(200, "hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new();
    let entry = format!("http = [{{ host = \"http://{}\", private = true }}]", server.address);
    for level in 0..=9 {
        for (built, lines) in [("test_guest", ""), ("http_guest", entry.as_str())] {
            let file = format!("{built}_{level}.wasm");
            std::fs::write(folder.path().join(&file), at_patch_level(built, level)).unwrap();
            settings = settings.module_file(&format!("{built}-{level}"), &file, lines);
        }
    }
    let host = settings.start_in(folder).await;
    let todo = json!([
        { "send": { "method": "POST", "url": format!("http://{}/", server.address), "body": "x" } },
        { "wait": 1 },
    ]);
    for level in 0..=9 {
        let test = format!("test_guest-{level}");
        assert!(host.module(&test).await["refused"].is_null(), "{test}: {}", host.module(&test).await);
        assert!(!chat(&host, &test, "random").await.text().is_empty());
        assert!(chat(&host, &test, "now").await.text().parse::<u128>().is_ok());
        assert_eq!(chat(&host, &test, "env").await.json(), json!({}));
        assert!(chat(&host, &test, "read-file /etc/passwd").await.text().starts_with("error: "));
        let came = chat(&host, &format!("http_guest-{level}"), &todo.to_string()).await.json();
        assert_eq!(came[0]["body"], "hello", "{came}");
    }
}
