//! The metadata service against whatever a guest writes to it: it ends, and what it says begins as HTTP does.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_agent::metadata::{
    View,
    http::{Directory, Server},
    page,
};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

struct One;

fn view() -> View {
    let mut view = View { local_ipv4: "10.0.0.5".into(), disks: vec!["vda".into()], ..View::default() };
    view.metadata.name = "web".into();
    view.metadata.user_data = b"#!/bin/sh\n\xff".to_vec();
    view.metadata.network_data = "{\"links\": [1]}".into();
    view
}

impl Directory for One {
    fn view(&self, _port: &str) -> Option<View> {
        Some(view())
    }
    fn keep_password(&self, _port: &str, password: &[u8]) -> std::io::Result<bool> {
        assert!(password.len() <= 1020, "a longer one is refused");
        Ok(true)
    }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|data: &[u8]| {
    if let Ok(path) = std::str::from_utf8(data) {
        let _ = page(path, &view());
    }
    RUNTIME.block_on(async {
        let (mut mine, theirs) = tokio::io::duplex(1 << 20);
        let server = Server::new(Arc::new(One));
        let serving = tokio::spawn(server.serve(theirs, "p".into()));
        let _ = mine.write_all(data).await;
        let _ = mine.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), mine.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "it ends when the guest has no more to say");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        serving.await.expect("no panic");
    });
});
