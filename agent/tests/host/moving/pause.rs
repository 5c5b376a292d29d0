//! How long a guest stands still that moves.
use super::pair::Pair;
use super::streams::Streams;
use crate::contract::QEMU;
use crate::guest;
use std::io;
use std::sync::Arc;

/// How long the guest stands still: from the source's STOP to the target's RESUME, by the clock that both have.
#[tokio::test(flavor = "current_thread")]
async fn qemu_stands_still_for_a_moment() {
    if !guest::qemu() {
        return;
    }
    let said = Said::default();
    let events = said.clone();
    let listener = tracing_subscriber::fmt().with_env_filter("pilvi_agent::runtime::qemu=debug").with_ansi(false);
    listener.with_thread_names(true).with_writer(move || events.clone()).init();
    let pair = Pair::new(&QEMU).await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    let at = |event: &str| {
        // Other tests' guests stop and go on as well, in other threads.
        let thread = std::thread::current().name().unwrap().to_owned();
        let mut lines = text.lines().filter(|line| line.contains(&thread));
        let line = lines.rfind(|line| line.contains(&format!("event=\"{event}\""))).expect(event);
        line.rsplit_once("at_us=").unwrap().1.parse::<u64>().unwrap()
    };
    let stopped = at("RESUME") - at("STOP");
    eprintln!("a guest of 32 MiB that moves stands still for {:.1} ms", stopped as f64 / 1000.0);
    pair.goes_on_there().await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Said(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
