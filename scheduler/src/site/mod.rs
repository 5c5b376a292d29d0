//! The whole scheduler, put together: store, fleet, services, one port.
//!
//! This is the one list of mounted services; nothing else knows them all.
mod hosts;
mod part;
mod turn;
mod vault;

use crate::{config::Config, events, preflight::Refusal, state::State};
use anyhow::{Context, Result};
use hosts::Hosts;
use part::{ImageBytes, ImageCloud, NetworkPart, Snapshots, Uploads, VolumeCloud};
use pilvi_compute::{Compute, ComputePart, Segments};
use pilvi_fleet::{Authority, Fleet};
use pilvi_identity::{Bootstrap, EndpointSpec, HashCost, Identity};
use pilvi_image::Image;
use pilvi_kit::{
    auth::Authenticator,
    dispatch::Front,
    metric::Metrics,
    navigator,
    server::{self, Site},
    service::{Mounted, Mounting},
    throttle::Throttle,
};
use pilvi_network::{Network, bgp::Announcer, dns::Publisher, spare::Keeper};
use pilvi_placement::{Breadth, Placement};
use pilvi_reconcile::Member;
use pilvi_store::{Sole, Store};
use pilvi_volume::{VolumePart, Volumes};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use turn::Turn;
use vault::Vault;

/// A scheduler that is ready to answer.
pub struct Scheduler {
    pub fleet: Arc<Fleet>,
    pub site: Arc<Site>,
    pub tls: Arc<rustls::ServerConfig>,
    /// The administrator's password, when this start made it.
    pub store: Store,
    compute: Arc<Compute>,
    volumes: Arc<Volumes>,
    identity: Arc<Identity>,
    image: Arc<Image>,
    network: Arc<Network>,
    out: Outwards,
    member: Arc<Member>,
    vault: Option<Arc<Vault>>,
    hosts: Hosts,
    _sole: Sole,
}

/// What the world outside is told of the network: routes, and names where somebody takes them.
struct Outwards {
    bgp: pilvi_network::bgp::Settings,
    dns: Option<pilvi_network::dns::Settings>,
}

impl Outwards {
    fn of(config: &Config) -> Result<Self> {
        Ok(Outwards { bgp: config.network.bgp.settings(), dns: config.network.dns.settings()? })
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scheduler")
    }
}

/// (type, name, path) of each service, as the catalogue has them.
const CATALOGUE: &[(&str, &str, &str)] = &[
    ("identity", "keystone", "/identity/v3"),
    ("image", "glance", "/image"),
    ("placement", "placement", "/placement"),
    ("network", "neutron", "/network"),
    ("compute", "nova", "/compute/v2.1"),
    ("block-storage", "cinder", "/volume/v3/%(project_id)s"),
    ("volumev3", "cinderv3", "/volume/v3/%(project_id)s"),
];

/// Opens the store with every kind of record there is.
pub async fn open_store(state: &State, config: &Config) -> Result<Store> {
    let url = config.store.clone().unwrap_or_else(|| format!("sqlite:{}", state.store().display()));
    let mut kinds = pilvi_fleet::kinds();
    kinds.extend(pilvi_identity::kinds());
    kinds.extend(pilvi_image::kinds());
    kinds.extend(pilvi_placement::kinds());
    kinds.extend(pilvi_network::kinds());
    kinds.extend(pilvi_compute::kinds());
    kinds.extend(pilvi_volume::kinds());
    kinds.extend(pilvi_reconcile::kinds());
    kinds.push(pilvi_store::KindSpec::of::<vault::SealedKeys>());
    kinds.push(pilvi_store::KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open(&url, kinds).await.context("the store could not be opened")?;
    store.log_slow_statements(Duration::from_millis(config.slow_statement_ms));
    Ok(store)
}

/// The cloud's authority, from the store where schedulers share one.
pub async fn shared_authority(store: &Store, state: &State, config: &Config) -> Result<Authority> {
    if let Some(vault) = Vault::open(store, state, config).await? {
        vault.pull().await?;
    }
    authority(state)
}

fn authority(state: &State) -> Result<Authority> {
    Authority::open(&state.pki()).context("the certificate authority could not be opened")
}

/// How much of their documented APIs the services have.
pub fn coverage() -> Vec<navigator::Coverage> {
    vec![
        navigator::of_service(&pilvi_identity::service()),
        navigator::of_service(&pilvi_image::service()),
        navigator::of_service(&pilvi_placement::service()),
        navigator::of_service(&pilvi_network::service()),
        navigator::of_service(&pilvi_compute::service()),
        navigator::of_service(&pilvi_volume::service()),
    ]
}

fn images(state: &State, config: &Config) -> pilvi_image::Config {
    pilvi_image::Config {
        region: config.region.clone(),
        stores: config.image.stores.clone(),
        default_store: config.image.default_store.clone(),
        show_locations: config.image.show_locations,
        show_direct_url: config.image.show_direct_url,
        cache_directory: state.image_cache(),
        cache_size_max: config.image.cache_mib << 20,
        metadef_catalogue: config.image.metadata_catalogue,
        match_format: config.image.require_image_format_match,
        hash_locations: config.image.do_secure_hash,
        gpt_nonfatal: config.image.gpt_safety_checks_nonfatal.clone(),
        vmdk_types: config.image.vmdk_allowed_types.clone(),
        certificates: config.image.certificates.clone(),
        import: config.image.import.clone(),
        ..pilvi_image::Config::new(config.images(state))
    }
}

fn search_limits(config: &Config) -> pilvi_placement::Limits {
    let candidates = &config.placement;
    pilvi_placement::Limits {
        ways_max: candidates.max_candidates,
        breadth: if candidates.breadth_first { Breadth::First } else { Breadth::Last },
        randomize: candidates.randomize_candidates,
        ..pilvi_placement::Limits::default()
    }
}

/// Every service that is on the port.
fn mount(
    state: &State,
    identity: &Arc<Identity>,
    image: &Arc<Image>,
    placement: Arc<Placement>,
    network: &Arc<Network>,
    compute: &Arc<Compute>,
    volumes: &Arc<Volumes>,
) -> Result<Vec<Mounted>> {
    let authenticator = Authenticator::new(identity.clone());
    let with = |name: &str| Mounting { authenticator: authenticator.clone(), policy_file: policy_file(state, name) };
    Ok(vec![
        pilvi_identity::service().mount(identity.clone(), with("identity"))?.also_at(pilvi_identity::ROOTS),
        pilvi_image::service().mount(image.clone(), with("image"))?,
        pilvi_placement::service().mount(placement, with("placement"))?,
        pilvi_network::service().mount(network.clone(), with("network"))?,
        pilvi_compute::service().mount(compute.clone(), with("compute"))?,
        pilvi_volume::service().mount(volumes.clone(), with("volume"))?.literally(),
    ])
}

impl Scheduler {
    /// Puts everything together and makes the first administrator at the first start.
    pub async fn start(state: &State, config: &Config) -> Result<Self> {
        let store = open_store(state, config).await?;
        let sole = store.sole().map_err(|error| Refusal(format!("{error}; several need PostgreSQL.")))?;
        let turn = Turn::take(&store).await?;
        let vault = Vault::open(&store, state, config).await?;
        if let Some(vault) = &vault {
            vault.pull().await?;
        }
        let silence = Duration::from_secs(config.host_silence_s);
        let fleet = Fleet::new(store.clone(), authority(state)?, pilvi_fleet::Config { silence });
        let identity = open_identity(state, config, &store).await?;
        let image = Image::new(store.clone(), images(state, config)).context("the image store")?;
        image.set_cloud(Arc::new(ImageCloud::new(identity.clone(), &config.region)));
        if let Some(vault) = &vault {
            vault.push().await?;
        }
        let member = turn::enter(&store, state, config, Arc::new(Uploads(image.clone()))).await?;
        image.recover(&member.others().await?).await.context("images of an earlier run")?;
        if let Some(turn) = turn {
            turn.give_back().await?;
        }
        fleet.set_member(member.clone());
        let placement = Placement::with(store.clone(), search_limits(config));
        let network = open_network(config, &store)?;
        let volumes =
            Volumes::new(store.clone(), fleet.clone(), image.clone(), placement.clone(), volume_settings(config));
        let compute = Compute::new(
            store.clone(),
            fleet.clone(),
            network.clone(),
            image.clone(),
            placement.clone(),
            volumes.clone(),
            compute_settings(config),
        );
        compute.driver().set_job(member.job("compute.server"));
        volumes.set_cloud(Arc::new(VolumeCloud(compute.clone())));
        volumes.prepare().await.context("the volume service")?;
        volumes.driver().set_job(member.job("volume.volume"));
        let front = front(config)?;
        let network_part = NetworkPart::new(network.clone(), fleet.clone(), front.outlet.clone());
        network_part.refresh(None).await.context("the hosts")?;
        store.listen(network_part.clone());
        connect(&fleet, network_part, &compute, &volumes, &image);
        let services = mount(state, &identity, &image, placement, &network, &compute, &volumes)?;
        let tls = fleet.authority().server_config(&config.certificate_names())?;
        let grpc = fleet.routes().into_axum_router();
        let hosts = Hosts::start(crate::workers()).context("the threads for hosts")?;
        let mut site = Site::new(services, Some(grpc), front, config.plain_http);
        site.hosts = Some(hosts.handle());
        let site = Arc::new(site);
        let (out, _sole) = (Outwards::of(config)?, sole);
        Ok(Scheduler {
            fleet,
            site,
            tls,
            store,
            compute,
            volumes,
            identity,
            image,
            network,
            out,
            member,
            vault,
            hosts,
            _sole,
        })
    }

    /// Answers on `listeners` and keeps the cloud as it is wanted, until `stop` turns true.
    pub async fn run(self, listeners: Vec<TcpListener>, stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        // The member leaves last: what still runs when requests are drained is this scheduler's.
        let (end_member, member_stop) = watch::channel(false);
        let member = tokio::spawn(self.member.clone().run(member_stop));
        if let Some(vault) = self.vault.clone() {
            tasks.spawn(vault.run(self.identity.clone(), stop.clone()));
        }
        for listener in listeners {
            tasks.spawn(server::serve(listener, self.tls.clone(), self.site.clone(), stop.clone()));
        }
        tasks.spawn_on(self.fleet.clone().run(stop.clone()), &self.hosts.handle());
        tasks.spawn(self.compute.driver().run(self.store.clone(), stop.clone()));
        tasks.spawn(self.volumes.driver().run(self.store.clone(), stop.clone()));
        tasks.spawn(Segments::run(self.compute, self.member.job("compute.segment"), stop.clone()));
        if let Some(dns) = self.out.dns {
            let publishes = self.member.job("network.dns");
            tasks.spawn(Publisher::run(self.network.clone(), dns, publishes, stop.clone()));
        }
        let spares = self.member.job("network.spare");
        tasks.spawn(Keeper::run(self.network.clone(), spares, stop.clone()));
        let speaks = self.member.job("network.bgp");
        tasks.spawn(Announcer::run(self.network, self.out.bgp, Some(pilvi_netdev::sign_tcp), speaks, stop.clone()));
        tasks.spawn(self.identity.clone().run(stop.clone()));
        tasks.spawn(self.image.clone().run(stop.clone()));
        tasks.spawn(compact(self.store.clone(), stop));
        while tasks.join_next().await.is_some() {}
        end_member.send_replace(true);
        let _ = member.await;
    }
}

fn open_network(config: &Config, store: &Store) -> Result<Arc<Network>> {
    let quotas = pilvi_network::quota::choose(config.network.quotas.clone());
    quotas.map_err(|why| anyhow::anyhow!("[network] quotas: {why}"))?;
    pilvi_network::network::model::choose_encrypted(config.network.overlay_encryption.is_some());
    pilvi_network::delegation::ops::choose_by_default(config.network.prefix_delegation);
    pilvi_network::router::ops::watch_by_default(config.network.enable_default_route_bfd);
    let vlans = pilvi_network::network::vlan::choose(&config.network.vlan_ranges, &config.network.tenant_network_types);
    vlans.map_err(|why| anyhow::anyhow!("[network] {why}"))?;
    let numbers = pilvi_network::segment_range::usual::choose(&config.network.vni_ranges);
    numbers.map_err(|why| anyhow::anyhow!("[network] vni_ranges: {why}"))?;
    Ok(Network::new(store.clone()))
}

/// What hosts are told and asked by the services.
fn connect(
    fleet: &Fleet,
    network: Arc<NetworkPart>,
    compute: &Arc<Compute>,
    volumes: &Arc<Volumes>,
    image: &Arc<Image>,
) {
    fleet.add_part(network);
    fleet.add_part(Arc::new(ComputePart::new(compute.clone())));
    fleet.add_part(Arc::new(VolumePart::new(volumes.clone())));
    fleet.set_images(Arc::new(ImageBytes::new(image.clone())));
    fleet.set_snapshots(Arc::new(Snapshots::new(image.clone(), compute.clone(), volumes.clone())));
}

fn compute_settings(config: &Config) -> pilvi_compute::Config {
    let sizes = &config.compute;
    pilvi_compute::Config {
        cpu_ratio: sizes.cpu_ratio,
        memory_ratio: sizes.memory_ratio,
        disk_ratio: sizes.disk_ratio,
        default_zone: sizes.default_zone.clone(),
        ..pilvi_compute::Config::default()
    }
}

fn volume_settings(config: &Config) -> pilvi_volume::Config {
    pilvi_volume::Config { default_zone: config.compute.default_zone.clone(), ..pilvi_volume::Config::default() }
}

/// What all requests share: metrics, the operator's sinks of events, and limits.
fn front(config: &Config) -> Result<Front> {
    Ok(Front {
        metrics: Arc::new(Metrics::default()),
        outlet: events::outlet(&config.events)?,
        throttle: Throttle::new(config.rate_limits.limits()),
    })
}

/// Identity with its keys, before anybody is made in it.
pub async fn identity(state: &State, config: &Config, store: &Store) -> Result<Arc<Identity>> {
    let mut settings = config.identity.settings(state.identity())?;
    settings.federation = config.identity.federation.settings()?;
    settings.federation.saml.url = config.public_url();
    if config.cheap_passwords {
        settings.hash_cost = HashCost::CHEAP;
    }
    Identity::open(store.clone(), settings).await.context("identity could not start")
}

async fn open_identity(state: &State, config: &Config, store: &Store) -> Result<Arc<Identity>> {
    let identity = identity(state, config, store).await?;
    let base = config.public_url();
    let endpoints = CATALOGUE
        .iter()
        .map(|(kind, name, path)| EndpointSpec {
            service_type: (*kind).into(),
            name: (*name).into(),
            url: format!("{base}{path}"),
        })
        .collect();
    let password_file = state.admin_password();
    // The file comes first: a crash between both leaves a password that the next start sets.
    let password = match crate::state::read_secret(&password_file) {
        Ok(known) => known,
        Err(_) => {
            let fresh = pilvi_identity::generate_password();
            crate::state::write_secret(&password_file, &format!("{fresh}\n"))?;
            fresh
        }
    };
    let first = Bootstrap {
        admin_password: Some(pilvi_identity::Secret::new(password)),
        region: config.region.clone(),
        endpoints,
    };
    identity.bootstrap(first).await.map_err(anyhow::Error::new).context("the first administrator")?;
    Ok(identity)
}

/// The operator's changes to a service's rules.
fn policy_file(state: &State, service: &str) -> Option<String> {
    std::fs::read_to_string(state.policy().join(format!("{service}.yaml"))).ok()
}

/// Changes that readers can still resume from.
const FEED_KEPT: i64 = 100_000;
const COMPACT_EVERY: Duration = Duration::from_secs(60);

async fn compact(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = server::stopped(&mut stop) => return,
            () = tokio::time::sleep(COMPACT_EVERY) => {}
        }
        if let Err(error) = store.compact_changes(FEED_KEPT).await {
            tracing::warn!(%error, "the change feed could not be compacted");
        }
    }
}
