//! Volumes of servers, with this test in place of the host.
use super::Rig;
use crate::{
    Servers,
    server::model::VmState,
    tables::{Seen, Server, VolumeFrom, VolumeStage, VolumeWish, WantedPower},
};
use pilvi_agent_api::v1;
use pilvi_fleet::HostPart;
use pilvi_kit::Fault;
use pilvi_network::port::model::Port;
use pilvi_reconcile::Reconcile;
use pilvi_volume::{VolumePart, VolumePlaces, tables::Volume};
use serde_json::{Value, json};

const HOST: &str = "h1";

impl Rig {
    /// What the host says: each wanted volume is there.
    async fn host_makes_volumes(&self) {
        let part = VolumePart::new(self.svc.volumes.clone());
        let wanted = part.wanted(HOST).await.unwrap().volumes;
        let volumes = wanted.iter().map(|v| v1::ObservedVolume {
            id: v.id.clone(),
            generation: v.generation,
            settled: true,
            bytes: v.size_gib << 30,
            snapshots: v
                .snapshots
                .iter()
                .map(|id| v1::ObservedVolumeSnapshot { id: id.clone(), bytes: 1 << 30, ..Default::default() })
                .collect(),
            ..Default::default()
        });
        let observed = v1::Observed { volumes: volumes.collect(), ..Default::default() };
        part.observed(HOST, &observed).await.unwrap();
    }

    /// The host says that the server's machine has these devices.
    async fn machine_has(&self, server: &str, devices: &[&str]) {
        let wanted = self.record(server).await.wanted;
        let seen = Seen {
            generation: wanted.generation,
            power: Some(WantedPower::Running),
            settled: true,
            devices: devices.iter().map(|d| (*d).to_owned()).collect(),
            ..Seen::default()
        };
        self.svc.observe(HOST, server, seen).await.unwrap();
    }

    async fn volume(&self, size: u64) -> String {
        let body = json!({"volume": {"size": size, "display_name": "data"}});
        let made = self.want(200, &self.alice, "POST /v2.1/os-volumes", body).await;
        let id = made["volume"]["id"].as_str().unwrap().to_owned();
        VolumePlaces::new(self.svc.volumes.clone()).reconcile(&id).await.unwrap();
        self.host_makes_volumes().await;
        id
    }

    async fn status(&self, volume: &str) -> String {
        let shown = self.want(200, &self.alice, &format!("GET /v2.1/os-volumes/{volume}"), Value::Null).await;
        shown["volume"]["status"].as_str().unwrap().to_owned()
    }

    /// The disks that the host shall give the server.
    async fn disks(&self, server: &str) -> Vec<String> {
        let part = crate::ComputePart::new(self.svc.clone());
        let told = part.wanted(HOST).await.unwrap().instances;
        let told = told.into_iter().find(|instance| instance.id == server).unwrap();
        told.disks.iter().map(|disk| disk.id.clone()).collect()
    }

    /// A running server of Alice's on the host, with these wishes.
    async fn runs(&self, wishes: Vec<VolumeWish>) -> Server {
        let network = self.network(&self.alice, "10.1.0.0/24", json!({})).await;
        let port: Port = self.api(json!({"network_id": network, "project_id": "alice"})).await;
        let mut new = crate::server::model::tests::server();
        new.id = pilvi_kit::id::new();
        new.project_id = "alice".into();
        (new.host, new.task_state, new.volume_wishes) = (None, None, wishes);
        new.networks =
            vec![crate::tables::NetworkWish { network_id: None, port_id: Some(port.id), fixed_ip: None, tag: None }];
        let id = new.id.clone();
        let ctx = super::ctx(&self.alice);
        let stored = self.svc.store.write(move |tx| {
            let (mut new, ctx) = (new.clone(), ctx.clone());
            Box::pin(async move {
                crate::volume::ops::reserve_in(tx, &ctx, &mut new).await?;
                tx.insert(&new).await?;
                Ok::<_, Fault>(())
            })
        });
        stored.await.unwrap();
        Servers::new(self.svc.clone()).reconcile(&id).await.unwrap();
        self.host_makes_volumes().await;
        self.machine_has(&id, &[]).await;
        self.record(&id).await
    }
}

#[tokio::test]
async fn a_volume_comes_and_goes_while_the_server_runs() {
    let rig = Rig::new().await;
    rig.host(HOST, 0).await;
    let server = rig.runs(vec![]).await;
    assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    let id = &server.id;
    let volume = rig.volume(1).await;
    assert_eq!(rig.status(&volume).await, "available");
    let all = format!("/v2.1/servers/{id}/os-volume_attachments");
    let body = json!({"volumeAttachment": {"volumeId": volume}});
    let made = rig.want(200, &rig.alice, &format!("POST {all}"), body.clone()).await;
    assert_eq!(made["volumeAttachment"]["device"], "/dev/vdb");
    assert_eq!(
        (rig.status(&volume).await.as_str(), rig.disks(id).await),
        ("reserved", vec!["root".to_owned(), volume.clone()])
    );
    // The machine does not have it yet; then it has.
    rig.machine_has(id, &["root"]).await;
    assert_eq!(rig.status(&volume).await, "reserved");
    rig.machine_has(id, &["root", &volume]).await;
    assert_eq!(rig.status(&volume).await, "in-use");
    rig.want(400, &rig.alice, &format!("POST {all}"), body.clone()).await;
    let shown = rig.at("2.89", 200, &rig.alice, &format!("GET {all}"), Value::Null).await;
    let shown = &shown["volumeAttachments"][0];
    assert!(shown.get("id").is_none() && shown["delete_on_termination"] == false && shown["attachment_id"].is_string());
    let server_shown = rig.want(200, &rig.alice, &format!("GET /v2.1/servers/{id}"), Value::Null).await;
    assert_eq!(server_shown["server"]["os-extended-volumes:volumes_attached"], json!([{"id": volume}]));
    // Nobody deletes it meanwhile, and the server cannot leave it behind.
    rig.want(400, &rig.alice, &format!("DELETE /v2.1/os-volumes/{volume}"), Value::Null).await;

    let one = format!("{all}/{volume}");
    rig.want(202, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    assert_eq!((rig.status(&volume).await.as_str(), rig.disks(id).await), ("detaching", vec!["root".to_owned()]));
    rig.machine_has(id, &["root", &volume]).await;
    assert_eq!(rig.status(&volume).await, "detaching", "the guest has not let go of it");
    rig.machine_has(id, &["root"]).await;
    assert_eq!(rig.status(&volume).await, "available");
    rig.want(404, &rig.alice, &format!("DELETE {one}"), Value::Null).await;
    rig.want(202, &rig.alice, &format!("DELETE /v2.1/os-volumes/{volume}"), Value::Null).await;
}

#[tokio::test]
async fn a_server_runs_from_a_volume_and_leaves_it() {
    let rig = Rig::new().await;
    rig.host(HOST, 0).await;
    let kept = rig.volume(2).await;
    let root = VolumeWish { from: VolumeFrom::Volume(kept.clone()), root: true, ..VolumeWish::default() };
    let made = VolumeWish { size_gib: 1, delete_on_termination: true, ..VolumeWish::default() };
    let server = rig.runs(vec![made, root]).await;
    assert_eq!(server.host.as_deref(), Some(HOST), "{:?}", server.fault);
    let disks = rig.disks(&server.id).await;
    assert_eq!((disks.len(), &disks[0]), (2, &kept), "the root comes first");
    assert!(server.volumes.iter().all(|volume| volume.stage == VolumeStage::Attached));
    assert_eq!(rig.status(&kept).await, "in-use");
    let held = rig.held(&server.id).await;
    let of_host = held.as_object().unwrap().values().next().unwrap();
    assert!(of_host.get("DISK_GB").is_none(), "its volumes have taken their own room: {held}");
    let shown = rig.want(200, &rig.alice, &format!("GET /v2.1/servers/{}", server.id), Value::Null).await;
    assert_eq!(shown["server"]["image"], "");
    let root = format!("DELETE /v2.1/servers/{}/os-volume_attachments/{kept}", server.id);
    rig.want(400, &rig.alice, &root, Value::Null).await;

    let gone = disks[1].clone();
    rig.svc.delete_server(&super::ctx(&rig.alice), &server.id).await.unwrap();
    rig.svc.release_server(&server.id).await.unwrap();
    assert_eq!(rig.status(&kept).await, "available");
    let deleted = rig.svc.store.get::<Volume>(&gone).await.unwrap().unwrap();
    assert_eq!(deleted.status.as_str(), "deleting");
}

#[tokio::test]
async fn what_cannot_be_attached_is_refused() {
    let rig = Rig::new().await;
    rig.host(HOST, 0).await;
    let server = rig.runs(vec![]).await;
    let all = format!("POST /v2.1/servers/{}/os-volume_attachments", server.id);
    let body = |id: &str| json!({"volumeAttachment": {"volumeId": id}});
    rig.want(404, &rig.alice, &all, body(&pilvi_kit::id::new())).await;
    rig.want(404, &rig.alice, &all, body("x")).await;
    let volume = rig.volume(1).await;
    rig.want(404, &rig.bob, &all, body(&volume)).await;
    rig.want(403, &rig.reader, &all, body(&volume)).await;
    let mut tagged = body(&volume);
    tagged["volumeAttachment"]["tag"] = json!("t");
    rig.want(400, &rig.alice, &all, tagged.clone()).await;
    rig.at("2.70", 200, &rig.alice, &all, tagged).await;
    let other = rig.server(&rig.alice).await;
    let other = format!("POST /v2.1/servers/{other}/os-volume_attachments");
    rig.want(400, &rig.alice, &other, body(&volume)).await;
}
