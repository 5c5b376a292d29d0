//! Fernet and signed tokens: any text is refused or opens; what a good key signed decodes, or is refused, without a panic.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_identity::token::{
    fernet::{self, Key},
    jws::{self, JwsKeys},
    payload,
};
use std::sync::LazyLock;

static SIGNING: LazyLock<JwsKeys> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("pilvi-fuzz-token-{}", std::process::id()));
    let keys = JwsKeys::open(&folder, 3).expect("keys");
    // The keys are in memory; nothing is left behind.
    let _ = std::fs::remove_dir_all(&folder);
    keys
});

fuzz_target!(|data: &[u8]| {
    let ring = [Key::new([7; fernet::KEY_BYTES]), Key::new([9; fernet::KEY_BYTES])];
    // As a client sends it.
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(fernet::open(&ring, text).is_none() || text.len() > 100, "nobody can sign by chance");
        assert!(jws::read(&SIGNING, text).is_none(), "nobody can sign by chance");
    }
    // As if the key were known: the content is what is read next.
    if let Some(token) = payload::decode(data, 1_795_000_000) {
        let again = payload::decode(&payload::encode(&token), 1_795_000_000).expect("what was read can be written");
        assert_eq!(token, again);
        if let Some(signed) = jws::write(&SIGNING, &token).and_then(|text| jws::read(&SIGNING, &text)) {
            assert_eq!(token, signed);
        }
    }
    let sealed = fernet::seal(&ring, data, 1_795_000_000);
    assert_eq!(fernet::open(&ring, &sealed), Some((data.to_vec(), 1_795_000_000)));
    let mut spoilt = sealed.into_bytes();
    let at = data.first().map_or(0, |b| usize::from(*b)) % spoilt.len();
    spoilt[at] = if spoilt[at] == b'A' { b'B' } else { b'A' };
    let spoilt = String::from_utf8(spoilt).expect("base64");
    // The last digit of base64 holds bits that no byte has.
    assert!(fernet::open(&ring, &spoilt).is_none() || at + 1 == spoilt.len());
});
