//! A truncated completion stream never succeeds with a part of the text.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    texts: Vec<String>,
    noise: Vec<u8>,
    index: u8,
    style: u8,
    no_reason: u8,
    end: u8,
    size: u8,
}

fuzz_target!(|input: Input| {
    let Input { mut texts, mut noise, index, style, no_reason, end, size } = input;
    // Every prefix of the stream is read, so it is kept short.
    texts.truncate(4);
    noise.truncate(2);
    if texts.iter().map(String::len).sum::<usize>() > 60 {
        return;
    }
    let stream = properties::Stream { texts, noise, index, style, no_reason, end };
    properties::check_truncated_stream(&stream, usize::from(size) + 1);
});
