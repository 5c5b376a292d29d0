//! PostgreSQL over TCP with a password, with and without TLS.
use crate::harness::{Thing, insert};
use pilvi_store::{
    Error, KindSpec, Store,
    testing::{PostgresServer, Tcp},
};

async fn open(url: &str) -> Result<Store, Error> {
    Store::open(url, vec![KindSpec::of::<Thing>()]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_and_passwords_are_asked() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tls = Some((signed.cert.pem(), signed.signing_key.serialize_pem()));
    let tcp = Tcp { port, tls, password: "s3cret".into() };
    let Some(server) = PostgresServer::start_with(Some(&tcp)).unwrap() else {
        println!("SKIPPED: PostgreSQL's server programs are not installed in /usr/lib/postgresql");
        return;
    };
    let database = server.database_name().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("ca.pem");
    std::fs::write(&roots, signed.cert.pem()).unwrap();
    let url =
        |password: &str, host: &str, rest: &str| format!("postgres://pilvi:{password}@{host}:{port}/{database}{rest}");
    let verified = format!("?sslmode=require&sslrootcert={}", roots.display());

    let store = open(&url("s3cret", "localhost", &verified)).await.unwrap();
    insert(&store, &Thing::new("a")).await.unwrap();
    let plain = open(&url("s3cret", "127.0.0.1", "")).await.unwrap();
    assert!(plain.get::<Thing>("a").await.unwrap().is_some());

    let wrong = open(&url("wr0ng", "127.0.0.1", "")).await.unwrap_err().to_string();
    assert!(wrong.contains("password authentication failed") && !wrong.contains("wr0ng"), "{wrong}");
    // Neither an unknown authority nor another name is believed.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&roots, other.cert.pem()).unwrap();
    assert!(open(&url("s3cret", "localhost", &verified)).await.is_err());
    std::fs::write(&roots, signed.cert.pem()).unwrap();
    assert!(open(&url("s3cret", "127.0.0.1", &verified)).await.is_err());
    let missing = open(&url("s3cret", "localhost", "?sslmode=require&sslrootcert=/does/not/exist")).await;
    assert!(matches!(missing, Err(Error::Url { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_replaced() {
    let Some(server) = PostgresServer::start().unwrap() else { return };
    let store = open(&server.database().unwrap()).await.unwrap();
    insert(&store, &Thing::new("a")).await.unwrap();
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    insert(&store, &Thing::new("b")).await.unwrap();
    assert!(store.get::<Thing>("a").await.unwrap().is_some());
    assert_eq!(store.head().await.unwrap(), 2);
    // With the server gone, calls fail and nothing hangs.
    drop(server);
    assert!(insert(&store, &Thing::new("c")).await.is_err());
    assert!(store.get::<Thing>("a").await.is_err());
}
