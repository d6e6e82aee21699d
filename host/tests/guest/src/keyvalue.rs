//! What is kept from one event to the next.

use modhost_sdk::prelude::*;

use crate::{Command, Given, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("kv-set KEY VALUE", "sets it, then replies", set),
    Command::new("kv-get KEY", "replies with the value, or that there is none", get),
    Command::new("kv-delete KEY", "deletes it, then replies", delete),
    Command::new("kv-exists KEY", "replies whether it is there", exists),
    Command::new("kv-keys", "replies with all keys, as JSON", keys),
    Command::new("kv-count KEY BY", "counts it up and replies with the number", count),
    Command::new("kv-swap KEY EXPECTED VALUE", "swaps if EXPECTED (- for nothing) stands there; replies whether", swap),
    Command::new("kv-append KEY TEXT", "appends to what stands there and replies with all of it", append),
    Command::new("kv-many JSON", "sets the object's members, and replies with them in reverse, as JSON", many),
    Command::new("kv-delete-many KEYS", "deletes the keys, divided by spaces, then replies", delete_many),
    Command::new("kv-fill BYTES KEY", "sets so many bytes, which are no text, then replies", fill),
    Command::new("kv-fill-keys N", "sets so many keys, a thousand a call, then replies", fill_keys),
    Command::new("kv-buckets N", "sets a key in each of so many buckets, then replies", buckets),
    Command::new("kv-long-key N", "sets a key of so many bytes, then replies", long_key),
    Command::new("kv-in BUCKET KEY VALUE", "sets it in a bucket of that name, then replies", set_in),
    Command::new("kv-from BUCKET KEY", "replies with the value in a bucket of that name", get_from),
    Command::new("kv-count-and KEY|COMMAND", "counts the key up by one and goes on", count_and),
    Command::new("kv-handles N", "opens so many buckets and keeps them, then replies", handles),
];

fn or_nothing(value: Option<String>) -> Result<()> {
    reply(value.unwrap_or_else(|| "nothing".into()))
}

fn set(given: &Given) -> Result<()> {
    let (key, value) = given.pair(' ')?;
    Store::open()?.set(key, value)?;
    reply("set")
}

fn get(given: &Given) -> Result<()> {
    or_nothing(Store::open()?.get_text(given.argument)?)
}

fn delete(given: &Given) -> Result<()> {
    Store::open()?.delete(given.argument)?;
    reply("deleted")
}

fn exists(given: &Given) -> Result<()> {
    reply(Store::open()?.exists(given.argument)?.to_string())
}

fn keys(_: &Given) -> Result<()> {
    let keys = Store::open()?.keys().collect::<Result<Vec<_>, _>>()?;
    reply(serde_json::to_string(&keys)?)
}

fn count(given: &Given) -> Result<()> {
    let (key, by) = given.pair(' ')?;
    reply(Store::open()?.increment(key, by.parse()?)?.to_string())
}

fn swap(given: &Given) -> Result<()> {
    let (key, rest) = given.pair(' ')?;
    let (expected, value) = rest.split_once(' ').ok_or_else(|| Failure::new("no value"))?;
    let expected = (expected != "-").then_some(expected.as_bytes());
    reply(Store::open()?.compare_and_swap(key, expected, value)?.to_string())
}

fn append(given: &Given) -> Result<()> {
    let (key, text) = given.pair(' ')?;
    let all = Store::open()?.update(key, |bytes| [bytes.unwrap_or_default(), text.into()].concat())?;
    reply(String::from_utf8(all)?)
}

fn many(given: &Given) -> Result<()> {
    let entries: std::collections::BTreeMap<String, String> = serde_json::from_str(given.argument)?;
    let store = Store::open()?;
    store.set_many(entries.clone())?;
    let keys: Vec<_> = entries.keys().rev().chain([&"not there".to_owned()]).cloned().collect();
    let values = store.get_many(keys)?.into_iter().map(|value| value.map(String::from_utf8).transpose());
    reply(serde_json::to_string(&values.collect::<Result<Vec<_>, _>>()?)?)
}

fn delete_many(given: &Given) -> Result<()> {
    Store::open()?.delete_many(given.argument.split(' '))?;
    reply("deleted")
}

fn fill(given: &Given) -> Result<()> {
    let (bytes, key) = given.pair(' ')?;
    Store::open()?.set(key, vec![0xff; bytes.parse()?])?;
    reply("set")
}

fn fill_keys(given: &Given) -> Result<()> {
    let (keys, store) = (given.number::<usize>()?, Store::open()?);
    let keys: Vec<_> = (0..keys).map(|n| (format!("key-{n:06}"), "")).collect();
    for page in keys.chunks(1000) {
        store.set_many(page.iter().cloned())?;
    }
    reply("set")
}

fn buckets(given: &Given) -> Result<()> {
    for n in 0..given.number()? {
        Store::named(&format!("bucket-{n}"))?.set("key", "value")?;
    }
    reply("set")
}

fn long_key(given: &Given) -> Result<()> {
    Store::open()?.set(&"k".repeat(given.number()?), "value")?;
    reply("set")
}

fn set_in(given: &Given) -> Result<()> {
    let (bucket, rest) = given.pair(' ')?;
    let (key, value) = rest.split_once(' ').ok_or_else(|| Failure::new("no value"))?;
    Store::named(bucket)?.set(key, value)?;
    reply("set")
}

fn get_from(given: &Given) -> Result<()> {
    let (bucket, key) = given.pair(' ')?;
    or_nothing(Store::named(bucket)?.get_text(key)?)
}

fn count_and(given: &Given) -> Result<()> {
    let (key, command) = given.pair('|')?;
    let count = Store::open()?.increment(key, 1)?;
    info!("{key} is {count}");
    run(command, given.event)
}

fn handles(given: &Given) -> Result<()> {
    let open = (0..given.number()?).map(|_| Store::open()).collect::<Result<Vec<_>, _>>()?;
    reply(format!("{} open", open.len()))
}
