//! Identity and network on a loopback port, for clients and test suites written by others.
//!
//! `serve 127.0.0.1:5000 /var/tmp/cloud 'the admin password'` keeps its store and keys in that directory;
//! `/identity/v3` is the URL to log in at, `/network` is the network API. It makes the external network
//! `public` (172.24.4.0/24) at the first start. Plain HTTP, so never for anything else.
use anyhow::Context;
use pilvi_identity::{Bootstrap, Config, EndpointSpec, Identity, Secret};
use pilvi_kit::{
    Ctx,
    auth::Authenticator,
    dispatch::Front,
    quota::QuotaOverride,
    server::{Site, serve},
    service::Mounting,
};
use pilvi_network::{Network, attribute::Verb};
use pilvi_store::{KindSpec, Store};
use serde_json::json;
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [address, directory, password] = args.get(1..4).context("serve ADDRESS DIRECTORY PASSWORD")? else {
        anyhow::bail!("three arguments")
    };
    std::fs::create_dir_all(directory)?;
    let mut kinds = pilvi_identity::kinds();
    kinds.extend(pilvi_network::kinds());
    kinds.push(KindSpec::of::<QuotaOverride>());
    let store = Store::open(&format!("sqlite:{directory}/store.db"), kinds).await?;
    let identity = Identity::open(store.clone(), Config::cheap(directory)).await?;
    let endpoint = |kind: &str, name: &str| EndpointSpec {
        service_type: kind.into(),
        name: name.into(),
        url: format!("http://{address}/{kind}"),
    };
    let endpoints = vec![endpoint("identity", "keystone"), endpoint("network", "neutron")];
    let password = Some(Secret::new(password));
    identity.bootstrap(Bootstrap { admin_password: password, region: "RegionOne".into(), endpoints }).await?;
    let network = Network::new(store);
    external(&network).await?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(identity.clone().run(stopped.clone()));
    let authenticator = Authenticator::new(identity.clone());
    let with = || Mounting { authenticator: authenticator.clone(), policy_file: None };
    let mounted =
        vec![pilvi_identity::service().mount(identity, with())?, pilvi_network::service().mount(network, with())?];
    let site = Arc::new(Site::new(mounted, None, Front::default(), true));
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

/// The external network, unless an earlier start made it.
async fn external(network: &Network) -> anyhow::Result<()> {
    use pilvi_network::{network::api::NETWORK, network::ops, subnet::api::SUBNET, subnet::ops as subnets};
    if !ops::all(&network.store).await?.is_empty() {
        return Ok(());
    }
    let wanted = json!({"name": "public", "router:external": true, "is_default": true,
        "provider:network_type": "flat", "provider:physical_network": "external"});
    let wanted = NETWORK.parse(&wanted, Verb::Create, "operator")?;
    network
        .store
        .write(move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move {
                let made = ops::create_in(tx, &Ctx::internal(), &wanted).await?;
                let subnet = json!({"network_id": made.id, "ip_version": 4, "cidr": "172.24.4.0/24"});
                let subnet = SUBNET.parse(&subnet, Verb::Create, "operator")?;
                subnets::create_in(tx, &Ctx::internal(), &subnet).await.map(|_| ())
            })
        })
        .await?;
    Ok(())
}
