//! Against a small server on loopback.
use super::*;
use axum::{Router, response::Redirect, routing::get};

async fn server() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = |headers: HeaderMap| async move {
        headers.get("x-auth-token").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let app = Router::new()
        .route("/file", get(|| async { "bytes" }))
        .route("/token", get(told))
        .route("/here", get(|| async { Redirect::temporary("/token") }))
        .route("/away", get(move || async move { Redirect::temporary(&format!("http://localhost:{port}/token")) }))
        .route("/inside", get(|| async { Redirect::temporary("http://169.254.169.254/latest") }))
        .route("/scheme", get(|| async { Redirect::temporary("ftp://example.org/") }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

fn fetcher(port: u16, networks: &[&str]) -> Fetcher {
    let networks = networks.iter().map(|n| n.parse().unwrap()).collect();
    Fetcher::new(Rules { ports: Listed::allow([80, 443, port]), networks, ..Rules::default() }, None).unwrap()
}

async fn text(got: Result<Got, Refused>) -> String {
    String::from_utf8(got.unwrap().bytes(1000).await.unwrap()).unwrap()
}

#[tokio::test]
async fn loopback_is_reached_only_when_the_operator_says_so() {
    let port = server().await;
    let closed = fetcher(port, &[]);
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"] {
        let answer = closed.get(&format!("http://{host}:{port}/file"), Named::ByUser, &[]).await;
        assert!(matches!(answer, Err(Refused::Address(_))), "{host}: {answer:?}");
    }
    let open = fetcher(port, &["127.0.0.0/8", "::1/128"]);
    assert_eq!(text(open.get(&format!("http://127.0.0.1:{port}/file"), Named::ByUser, &[]).await).await, "bytes");
    assert_eq!(text(closed.get(&format!("http://127.0.0.1:{port}/file"), Named::ByOperator, &[]).await).await, "bytes");
    let long = open.get(&format!("http://127.0.0.1:{port}/file"), Named::ByUser, &[]).await.unwrap();
    assert!(long.bytes(3).await.is_err());
    for bad in ["http://user:secret@127.0.0.1/", "http://", "nonsense", "http://127.0.0.1:22/"] {
        assert!(matches!(open.check(bad), Err(Refused::Filtered(_))), "{bad}");
    }
}

#[tokio::test]
async fn redirects_are_checked_and_secrets_stay() {
    let port = server().await;
    let open = fetcher(port, &["127.0.0.0/8", "::1/128"]);
    let base = format!("http://127.0.0.1:{port}");
    let secret = [Header { name: "x-auth-token", value: "s3cret", secret: true }];
    for named in [Named::ByUser, Named::ByOperator] {
        let ask = async |path: &str| open.get(&format!("{base}{path}"), named, &secret).await;
        assert_eq!(text(ask("/here").await).await, "s3cret");
        assert_eq!(text(ask("/away").await).await, "", "another origin");
        assert!(matches!(ask("/inside").await, Err(Refused::Address(_))));
        assert!(matches!(ask("/scheme").await, Err(Refused::Filtered(_))));
        assert!(matches!(ask("/loop").await, Err(Refused::Redirects)));
        assert!(matches!(ask("/none").await, Err(Refused::Status(StatusCode::NOT_FOUND))));
    }
    let dead = fetcher(1, &["127.0.0.0/8"]).get("http://127.0.0.1:1/", Named::ByUser, &[]).await;
    assert!(dead.unwrap_err().is_passing());
}
