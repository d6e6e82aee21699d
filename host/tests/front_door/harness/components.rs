//! Unusual components, made from the test guest by appending sections.

use wasmparser::{Parser, Payload};

use super::component;

/// The number of core instances of a component that doesn't fit the pool.
const TOO_MANY_INSTANCES: u32 = 61;

/// The test guest with unused code that takes the compiler minutes: its time and memory grow superlinearly with long
/// functions that have many variables.
pub fn compiles_for_long() -> Vec<u8> {
    const FUNCTIONS: u32 = 40;
    const LOCALS: u32 = 200;
    const BLOCKS: u32 = 60_000;

    let mut body = vec![1]; // one group of locals
    body.extend(leb(LOCALS));
    body.push(0x7f); // i32
    for block in 0..BLOCKS {
        let local = |step: u32| leb(block * step % LOCALS);
        // (block (br_if 0 (local.get a)) (local.set b (i32.add (local.get c) (local.get d))))
        body.extend([0x02, 0x40, 0x20]);
        body.extend(local(1));
        body.extend([0x0d, 0x00, 0x20]);
        body.extend(local(7));
        body.push(0x20);
        body.extend(local(13));
        body.extend([0x6a, 0x21]);
        body.extend(local(29));
        body.push(0x0b);
    }
    body.push(0x0b);
    // A tail call, which Winch doesn't support; otherwise the quick compile would succeed in seconds.
    let tail_call = vec![0, 0x12, 0x00, 0x0b];

    let mut bodies = vec![sized(body); FUNCTIONS as usize];
    bodies.push(sized(tail_call));
    let types = list(&[vec![0x60, 0, 0]]);
    let functions = list(&vec![vec![0]; bodies.len()]);
    let module = [b"\0asm\x01\0\0\0".to_vec(), section(1, types), section(3, functions), section(10, list(&bodies))];
    let mut component = test_guest();
    component.extend(section(1, module.concat()));
    component
}

/// The test guest with more core instances than a pool slot supports.
pub fn outsized() -> Vec<u8> {
    let mut component = test_guest();
    let mut depth = 0;
    let mut modules = 0u32;
    for payload in Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                modules += u32::from(depth == 0);
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    component.extend(section(1, b"\0asm\x01\0\0\0".to_vec()));
    // Each is an instance of that module without arguments.
    let instance = [vec![0x00], leb(modules), vec![0]].concat();
    component.extend(section(2, list(&vec![instance; TOO_MANY_INSTANCES as usize])));
    component
}

/// The test guest, padded to the size of a component with an interpreter.
pub fn large(number: u8) -> Vec<u8> {
    let mut component = test_guest();
    let content = [vec![7], b"variant".to_vec(), vec![number; 2 << 20]].concat();
    component.extend(section(0, content));
    component
}

fn test_guest() -> Vec<u8> {
    std::fs::read(component("test_guest")).unwrap()
}

/// A section of a module or component.
fn section(number: u8, content: Vec<u8>) -> Vec<u8> {
    [vec![number], sized(content)].concat()
}

fn sized(content: Vec<u8>) -> Vec<u8> {
    [leb(u32::try_from(content.len()).unwrap()), content].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(u32::try_from(items.len()).unwrap()), items.concat()].concat()
}

/// A number in unsigned LEB128.
fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
