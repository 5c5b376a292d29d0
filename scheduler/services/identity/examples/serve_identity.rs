//! Identity alone on a loopback port, for clients and test suites written by others.
//!
//! `serve 127.0.0.1:5000 /var/tmp/identity 'the admin password' [attempts lockout-seconds]` keeps its store and
//! keys in that directory; `/identity/v3` is the URL to log in at. Plain HTTP, so never for anything else.
use anyhow::Context;
use pilvi_identity::{Bootstrap, Config, EndpointSpec, Identity, Secret, kinds, service};
use pilvi_kit::{
    auth::Authenticator,
    dispatch::Front,
    server::{Site, serve},
    service::Mounting,
};
use pilvi_store::Store;
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [address, directory, password] = args.get(1..4).context("serve ADDRESS DIRECTORY PASSWORD")? else {
        anyhow::bail!("three arguments")
    };
    std::fs::create_dir_all(directory)?;
    let store = Store::open(&format!("sqlite:{directory}/store.db"), kinds()).await?;
    let mut config = Config::cheap(directory);
    config.unique_last_passwords = 2;
    if let (Some(attempts), Some(seconds)) = (args.get(4), args.get(5)) {
        config.lockout_attempts = Some(attempts.parse()?);
        config.lockout_seconds = seconds.parse()?;
    }
    let identity = Identity::open(store, config).await?;
    let endpoints = vec![EndpointSpec {
        service_type: "identity".into(),
        name: "keystone".into(),
        url: format!("http://{address}/identity"),
    }];
    identity
        .bootstrap(Bootstrap { admin_password: Some(Secret::new(password)), region: "RegionOne".into(), endpoints })
        .await?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(identity.clone().run(stopped.clone()));
    let mounted = service()
        .mount(identity.clone(), Mounting { authenticator: Authenticator::new(identity), policy_file: None })?;
    let site = Arc::new(Site::new(vec![mounted], None, Front::default(), true));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        let _ = stop.send(true);
    });
    serve(listener, Arc::new(tls), site, stopped).await;
    Ok(())
}
