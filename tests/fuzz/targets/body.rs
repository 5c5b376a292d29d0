//! Bodies: any bytes are parsed or refused, and checked against the schema of every route.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_kit::{Route, Schema, body};
use std::sync::LazyLock;

type Schemas = Vec<&'static LazyLock<Schema>>;

fn of<S>(routes: &[Route<S>]) -> Schemas {
    routes.iter().filter_map(|r| r.schema).collect()
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    [
        of(&pilvi_identity::service().routes),
        of(&pilvi_image::service().routes),
        of(&pilvi_placement::service().routes),
        of(&pilvi_network::service().routes),
    ]
    .concat()
});

fuzz_target!(|data: &[u8]| {
    let (choice, bytes) = data.split_first_chunk::<2>().unwrap_or((&[0, 0], data));
    let Ok(value) = body::parse(bytes) else { return };
    let schema = SCHEMAS[usize::from(u16::from_le_bytes(*choice)) % SCHEMAS.len()];
    if let Err(fault) = schema.check(&value) {
        assert!(fault.code() == 400 && fault.message.len() < 2048, "{fault}");
    }
});
