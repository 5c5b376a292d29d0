//! The log of slow statements: counted from the threshold on, told with its text, never with its values.
use crate::harness::{Place, Thing, insert};
use pilvi_store::Query;
use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

/// What this program has logged under the target `slow`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Statements run on threads of the store, so the log is the whole program's.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let filter = tracing_subscriber::EnvFilter::new("slow=warn");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone()).init();
        log
    })
}

pub async fn slow_statements_are_told_without_values(place: Place) {
    let log = log();
    let store = place.open().await;
    store.log_slow_statements(Duration::from_secs(3600));
    let before = store.stats().slow_statements;
    insert(&store, &Thing::new("quick")).await.unwrap();
    assert_eq!(store.stats().slow_statements, before, "nothing here takes an hour");

    store.log_slow_statements(Duration::ZERO);
    let secret = "what-only-the-row-says";
    insert(&store, &Thing::new(secret)).await.unwrap();
    let found = store.list::<Thing>(Query::all().eq("name", secret)).await.unwrap();
    assert!(found.iter().all(|thing| thing.id == secret));
    assert!(store.stats().slow_statements > before + 1, "a write and a read at least");
    let told = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(told.contains("slow statement") && told.to_ascii_lowercase().contains("insert into"), "{told}");
    assert!(!told.contains(secret), "{told}");
}
