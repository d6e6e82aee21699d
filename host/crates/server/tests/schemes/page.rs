//! Tests that the examples in docs/sources.md work.

use std::path::Path;

use super::{TENANT, resolve};

/// The secrets that the page names, in the format of their scheme.
const SECRETS: [(&str, &str); 13] = [
    ("UNIQUE_ENDPOINT_SECRET", "usig_1"),
    ("NEXUS_SECRET", "open sesame"),
    ("ARCHIVUS_SECRET", "whk_1"),
    ("WEBHOOK_SECRET", "whsec_c2VzYW1l"),
    ("GITHUB_SECRET", "hush"),
    ("STRIPE_SECRET", "whsec_1"),
    ("SLACK_SIGNING_SECRET", "hush"),
    ("SHOPIFY_SECRET", "hush"),
    ("LINEAR_SECRET", "lin_wh_1"),
    ("DISCORD_PUBLIC_KEY", "d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737"),
    ("EXAMPLE_SECRET", "hush"),
    ("NEW_SECRET", "hush"),
    ("OLD_SECRET", "hush"),
];

#[test]
fn resolves_every_example() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/sources.md")).unwrap();
    let blocks: Vec<_> = page.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(blocks.len() > 12, "the page lacks examples");
    for block in blocks {
        let text = if block.contains("[[tenant]]") { block.to_owned() } else { format!("{block}\n{TENANT}") };
        let config = resolve(&text, &SECRETS).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert!(!config.webhooks.is_empty(), "{text}");
    }
}
