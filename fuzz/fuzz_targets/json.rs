//! JSON is parsed as serde_json parses it, and as JavaScript, Python and Go send it.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;
#[path = "../../host/tests/fuzz/senders.rs"]
mod senders;

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use senders::{Sent, Writer};

fuzz_target!(|text: &[u8]| {
    properties::check_json_parser(text);
    let mut bytes = Unstructured::new(text);
    if let Ok(sent) = sent(&mut bytes, 8) {
        for writer in [Writer::JavaScript, Writer::Python, Writer::Go] {
            senders::check_sent_value(&sent, writer);
        }
    }
});

/// A value with at most this many levels.
fn sent(bytes: &mut Unstructured<'_>, levels: usize) -> Result<Sent> {
    let kinds = if levels == 0 { 5 } else { 7 };
    Ok(match bytes.int_in_range(0..=kinds - 1)? {
        0 => Sent::Null,
        1 => Sent::Bool(bytes.arbitrary()?),
        2 => Sent::Integer(bytes.arbitrary()?),
        3 => Sent::Float(bytes.arbitrary()?),
        4 => Sent::Text(Vec::arbitrary(bytes)?),
        5 => {
            let items = (0..bytes.int_in_range(0..=4)?).map(|_| sent(bytes, levels - 1));
            Sent::List(items.collect::<Result<_>>()?)
        }
        _ => {
            let entries = (0..bytes.int_in_range(0..=4)?).map(|_| Ok((Vec::arbitrary(bytes)?, sent(bytes, levels - 1)?)));
            Sent::Object(entries.collect::<Result<_>>()?)
        }
    })
}
