//! Compute: a server, a key, a flavor, a group and an aggregate, over image, network and placement.
use super::{Facts, World, make, map, root, text};
use crate::persona;
use pilvi_compute::{Compute, Config};
use pilvi_fleet::{Authority, Fleet};
use pilvi_image::Image;
use pilvi_kit::{Caller, service::Mounting, testing::App};
use pilvi_network::Network;
use pilvi_placement::Placement;
use pilvi_store::{KindSpec, Store};
use pilvi_volume::Volumes;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

const FACTS: Facts = Facts {
    bodies: &[
        ("POST", "/v2.1/flavors/{flavor_id}/action (addTenantAccess)", r#"{"addTenantAccess": {"tenant": "p-new"}}"#),
        (
            "POST",
            "/v2.1/flavors/{flavor_id}/action (removeTenantAccess)",
            r#"{"removeTenantAccess": {"tenant": "p-own"}}"#,
        ),
        ("POST", "/v2.1/os-aggregates/{id}/action (add_host)", r#"{"add_host": {"host": "h"}}"#),
        ("POST", "/v2.1/os-aggregates/{id}/action (remove_host)", r#"{"remove_host": {"host": "h"}}"#),
        ("POST", "/v2.1/os-aggregates/{id}/action (set_metadata)", r#"{"set_metadata": {"metadata": {"a": "b"}}}"#),
        (
            "POST",
            "/v2.1/os-keypairs",
            r#"{"keypair": {"name": "x", "user_id": "u-own", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDR9wPNuv6tXFFfLnpU8v5HAPRx8P7CmbgTd2q3Z9wSt t"}}"#,
        ),
        ("PUT", "/v2.1/servers/{server_id}/metadata/{key}", r#"{"meta": {"a-key": "other"}}"#),
    ],
    versions: &[
        ("addFixedIp", "2.43"),
        ("removeFixedIp", "2.43"),
        ("addFloatingIp", "2.43"),
        ("removeFloatingIp", "2.43"),
    ],
    // The same handlers, for clients from before microversions.
    aliases: &["/v2/"],
    unseeded: 40,
    ..Facts::NONE
};
const NEW: &[(&str, &str)] = &[("openstack-api-version", "compute 2.72")];

async fn services(store: &Store, dir: &std::path::Path) -> (Arc<Compute>, Arc<Image>, Arc<Network>) {
    let image = Image::new(store.clone(), pilvi_image::Config::new(dir.join("images"))).unwrap();
    let network = Network::new(store.clone());
    let placement = Placement::new(store.clone());
    let authority = Authority::open(&dir.join("pki")).unwrap();
    let fleet = Fleet::new(store.clone(), authority, pilvi_fleet::Config::default());
    let volumes =
        Volumes::new(store.clone(), fleet.clone(), image.clone(), placement.clone(), pilvi_volume::Config::default());
    volumes.prepare().await.unwrap();
    let compute =
        Compute::new(store.clone(), fleet, network.clone(), image.clone(), placement, volumes, Config::default());
    (compute, image, network)
}

async fn create(app: &App, who: &Caller, path: &str, kind: &str, members: Value) -> Value {
    make(app, who, "POST", path, json!({ kind: members }), NEW).await[kind].clone()
}

pub async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let mut all = pilvi_fleet::kinds();
    for kinds in [
        pilvi_image::kinds(),
        pilvi_placement::kinds(),
        pilvi_network::kinds(),
        pilvi_compute::kinds(),
        pilvi_volume::kinds(),
    ] {
        all.extend(kinds);
    }
    all.push(KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open("sqlite::memory:", all).await.unwrap();
    let (compute, image, network) = services(&store, dir.path()).await;
    let images = App::new(move |authenticator| {
        pilvi_image::service().mount(image, Mounting { authenticator, policy_file: None }).unwrap()
    });
    let networks = App::new(move |authenticator| {
        pilvi_network::service().mount(network, Mounting { authenticator, policy_file: None }).unwrap()
    });
    let app = App::new(move |authenticator| {
        pilvi_compute::service().mount(compute, Mounting { authenticator, policy_file: None }).unwrap()
    });
    let names = HashMap::new();
    let owner = persona::named("owner", &names).caller;
    let members = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let image = text(&make(&images, &owner, "POST", "/v2/images", members, &[]).await["id"]);
    images
        .upload(
            "PUT",
            &format!("/v2/images/{image}/file"),
            &owner,
            vec![0; 4096],
            &[("content-type", "application/octet-stream")],
        )
        .await;
    let net = make(&networks, &owner, "POST", "/v2.0/networks", json!({"network": {"name": "n"}}), &[]).await;
    let net = text(&net["network"]["id"]);
    let subnet = json!({"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.2.0.0/24"}});
    make(&networks, &owner, "POST", "/v2.0/subnets", subnet, &[]).await;
    let members = json!({"name": "f", "ram": 64, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": false});
    let flavor = text(&create(&app, &root(), "/v2.1/flavors", "flavor", members).await["id"]);
    let access = json!({"addTenantAccess": {"tenant": "p-own"}});
    make(&app, &root(), "POST", &format!("/v2.1/flavors/{flavor}/action"), access, NEW).await;
    let specs = json!({"extra_specs": {"hw:x": "1"}});
    make(&app, &root(), "POST", &format!("/v2.1/flavors/{flavor}/os-extra_specs"), specs, NEW).await;
    let group =
        create(&app, &owner, "/v2.1/os-server-groups", "server_group", json!({"name": "sg", "policy": "affinity"}))
            .await;
    let aggregate = create(&app, &root(), "/v2.1/os-aggregates", "aggregate", json!({"name": "a"})).await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDR9wPNuv6tXFFfLnpU8v5HAPRx8P7CmbgTd2q3Z9wSt t";
    create(&app, &owner, "/v2.1/os-keypairs", "keypair", json!({"name": "k-own", "public_key": key})).await;
    let members = json!({"name": "s-own", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": net}],
        "metadata": {"a-key": "v"}, "tags": ["a-tag"]});
    let server = text(&create(&app, &owner, "/v2.1/servers", "server", members).await["id"]);
    let params = map([
        ("{server_id}", server.as_str()),
        ("{flavor_id}", &flavor),
        ("{tag}", "a-tag"),
        ("/v2.1/servers/{server_id}/metadata/{key}", "a-key"),
        ("/v2.1/flavors/{flavor_id}/os-extra_specs/{key}", "hw:x"),
        ("/v2.1/os-server-groups/{id}", &text(&group["id"])),
        ("/v2.1/os-aggregates/{id}", &text(&aggregate["id"])),
        ("/v2.1/os-keypairs/{name}", "k-own"),
        ("/v2.1/os-quota-sets/{project}", "p-own"),
        ("/v2.1/os-simple-tenant-usage/{project}", "p-own"),
        ("{image_id}", &image),
        ("/v2.1/os-networks/{id}", &net),
        ("/v2.1/os-tenant-networks/{id}", &net),
    ]);
    let fill = map([("imageRef", image.as_str()), ("flavorRef", flavor.as_str())]);
    World { app, store, names, params, fill, facts: FACTS, judged_by_original: true, _dir: Some(dir) }
}
