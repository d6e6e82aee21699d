//! Commands for the key-value store.

use modhost_sdk::prelude::*;

use crate::{Command, Input, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("kv-set KEY VALUE", "sets the key, then replies", set),
    Command::new("kv-get KEY", "replies with the value, or `nothing`", get),
    Command::new("kv-delete KEY", "deletes the key, then replies", delete),
    Command::new("kv-exists KEY", "replies whether the key exists", exists),
    Command::new("kv-keys", "replies with all keys, as JSON", keys),
    Command::new("kv-count KEY BY", "increments the key and replies with the number", count),
    Command::new(
        "kv-swap KEY EXPECTED VALUE",
        "swaps if the value is EXPECTED (- for a missing key); replies whether it did",
        swap,
    ),
    Command::new("kv-append KEY TEXT", "appends to the value and replies with the result", append),
    Command::new("kv-many JSON", "sets the object's members, then replies with them in reverse, as JSON", many),
    Command::new("kv-delete-many KEYS", "deletes the keys, separated by spaces, then replies", delete_many),
    Command::new("kv-fill BYTES KEY", "sets a value of N bytes that aren't UTF-8, then replies", fill),
    Command::new("kv-fill-keys N", "sets N keys, a thousand per call, then replies", fill_keys),
    Command::new("kv-buckets N", "sets a key in each of N buckets, then replies", buckets),
    Command::new("kv-long-key N", "sets a key of N bytes, then replies", long_key),
    Command::new("kv-in BUCKET KEY VALUE", "sets the key in a bucket, then replies", set_in),
    Command::new("kv-from BUCKET KEY", "replies with the value of a key in a bucket", get_from),
    Command::new("kv-count-and KEY|COMMAND", "increments the key by one and executes the command", count_and),
    Command::new("kv-handles N", "opens N buckets and keeps them open, then replies", handles),
];

fn reply_or_nothing(value: Option<String>) -> Result<()> {
    reply(value.unwrap_or_else(|| "nothing".into()))
}

fn set(input: &Input) -> Result<()> {
    let (key, value) = input.pair(' ')?;
    Store::open()?.set(key, value)?;
    reply("set")
}

fn get(input: &Input) -> Result<()> {
    reply_or_nothing(Store::open()?.get_text(input.argument)?)
}

fn delete(input: &Input) -> Result<()> {
    Store::open()?.delete(input.argument)?;
    reply("deleted")
}

fn exists(input: &Input) -> Result<()> {
    reply(Store::open()?.exists(input.argument)?.to_string())
}

fn keys(_: &Input) -> Result<()> {
    let keys = Store::open()?.keys().collect::<Result<Vec<_>, _>>()?;
    reply(serde_json::to_string(&keys)?)
}

fn count(input: &Input) -> Result<()> {
    let (key, by) = input.pair(' ')?;
    reply(Store::open()?.increment(key, by.parse()?)?.to_string())
}

fn swap(input: &Input) -> Result<()> {
    let (key, rest) = input.pair(' ')?;
    let (expected, value) = rest.split_once(' ').ok_or_else(|| Failure::new("no value"))?;
    let expected = (expected != "-").then_some(expected.as_bytes());
    reply(Store::open()?.compare_and_swap(key, expected, value)?.to_string())
}

fn append(input: &Input) -> Result<()> {
    let (key, text) = input.pair(' ')?;
    let all = Store::open()?.update(key, |bytes| [bytes.unwrap_or_default(), text.into()].concat())?;
    reply(String::from_utf8(all)?)
}

fn many(input: &Input) -> Result<()> {
    let entries: std::collections::BTreeMap<String, String> = serde_json::from_str(input.argument)?;
    let store = Store::open()?;
    store.set_many(entries.clone())?;
    let keys: Vec<_> = entries.keys().rev().chain([&"not there".to_owned()]).cloned().collect();
    let values = store.get_many(keys)?.into_iter().map(|value| value.map(String::from_utf8).transpose());
    reply(serde_json::to_string(&values.collect::<Result<Vec<_>, _>>()?)?)
}

fn delete_many(input: &Input) -> Result<()> {
    Store::open()?.delete_many(input.argument.split(' '))?;
    reply("deleted")
}

fn fill(input: &Input) -> Result<()> {
    let (bytes, key) = input.pair(' ')?;
    Store::open()?.set(key, vec![0xff; bytes.parse()?])?;
    reply("set")
}

fn fill_keys(input: &Input) -> Result<()> {
    let (keys, store) = (input.number::<usize>()?, Store::open()?);
    let keys: Vec<_> = (0..keys).map(|n| (format!("key-{n:06}"), "")).collect();
    for page in keys.chunks(1000) {
        store.set_many(page.iter().cloned())?;
    }
    reply("set")
}

fn buckets(input: &Input) -> Result<()> {
    for n in 0..input.number()? {
        Store::named(&format!("bucket-{n}"))?.set("key", "value")?;
    }
    reply("set")
}

fn long_key(input: &Input) -> Result<()> {
    Store::open()?.set(&"k".repeat(input.number()?), "value")?;
    reply("set")
}

fn set_in(input: &Input) -> Result<()> {
    let (bucket, rest) = input.pair(' ')?;
    let (key, value) = rest.split_once(' ').ok_or_else(|| Failure::new("no value"))?;
    Store::named(bucket)?.set(key, value)?;
    reply("set")
}

fn get_from(input: &Input) -> Result<()> {
    let (bucket, key) = input.pair(' ')?;
    reply_or_nothing(Store::named(bucket)?.get_text(key)?)
}

fn count_and(input: &Input) -> Result<()> {
    let (key, command) = input.pair('|')?;
    let count = Store::open()?.increment(key, 1)?;
    info!("{key} is {count}");
    run(command, input.event)
}

fn handles(input: &Input) -> Result<()> {
    let open = (0..input.number()?).map(|_| Store::open()).collect::<Result<Vec<_>, _>>()?;
    reply(format!("{} open", open.len()))
}
