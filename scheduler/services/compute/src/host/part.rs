//! The servers of one host, as the agent shall run them; and what it says of them.
use crate::{
    Compute,
    server::{model::VmState, snapshot},
    tables::{Action, Gone, MoveStage, Moving, Seen, SeenMove, Server, WantedPower},
    volume::model,
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use pilvi_agent_api::v1;
use pilvi_fleet::{Affected, HostPart, ImageFile, Node, Part, SeenImage, short};
use pilvi_kit::Fault;
use pilvi_store::{Change, Dir, Query, Stored};
use std::sync::Arc;

/// Compute's share of every host's wanted state.
#[derive(Debug)]
pub struct ComputePart {
    compute: Arc<Compute>,
}

impl ComputePart {
    pub fn new(compute: Arc<Compute>) -> Self {
        ComputePart { compute }
    }
}

#[async_trait]
impl HostPart for ComputePart {
    async fn wanted(&self, host: &str) -> Result<Part, Fault> {
        let of_host = |column: &'static str| Query::all().eq(column, host).eq("alive", 1);
        let mut instances = Vec::new();
        for server in self.compute.store.list::<Server>(of_host("host")).await?.iter().filter(|s| is_there(s)) {
            let mut instance = self.compute.instance(server).await?;
            if server.moving.as_ref().is_some_and(|moving| moving.cold) {
                instance.power = v1::Power::Stopped.into();
            }
            instance.departure = server.moving.as_ref().and_then(departure);
            instances.push(instance);
        }
        for server in self.compute.store.list::<Server>(of_host("moving_to")).await?.iter().filter(|s| !s.wanted.delete)
        {
            let mut instance = self.compute.instance(server).await?;
            let seen = server.seen.clone().unwrap_or_default();
            instance.runtime = seen.runtime;
            if server.moving.as_ref().is_some_and(|moving| moving.cold) {
                // Its disks come. What it shall be there is wanted once it is there.
                instance.power = v1::Power::Stopped.into();
            }
            instance.arrival = server.moving.as_ref().map(|moving| v1::Arrival {
                move_id: moving.id.clone(),
                node_id: moving.from_node.clone(),
                cold: moving.cold,
                disk_bytes: seen.disk_bytes,
                places: seen.places.into_iter().map(|(id, place)| v1::DevicePlace { id, place }).collect(),
            });
            instances.push(instance);
        }
        for server in self.compute.store.list::<Server>(of_host("kept_on")).await?.iter().filter(|s| !s.wanted.delete) {
            let mut instance = self.compute.instance(server).await?;
            (instance.power, instance.kept) = (v1::Power::Stopped.into(), true);
            instances.push(instance);
        }
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Part { instances, ..Part::default() })
    }

    async fn affected(&self, changes: &[Change]) -> Affected {
        let of = |server: &Server| {
            let there = server.moving.as_ref().map(|moving| &moving.to);
            let kept = server.resized.as_ref().and_then(|resized| resized.from.as_ref()).map(|kept| &kept.host);
            server.host.iter().chain(there).chain(kept).chain(&server.left).cloned().collect()
        };
        pilvi_fleet::affected_by::<Server>(&self.compute.store, changes, of).await
    }

    async fn observed(&self, host: &str, observed: &v1::Observed) -> Result<(), Fault> {
        for instance in &observed.instances {
            self.compute.observe(host, &instance.id, seen(instance)).await?;
        }
        Ok(())
    }

    /// Only whoever has the host's session knows what it has confirmed, so the last step is taken here.
    async fn settled(&self, host: &str) -> Result<(), Fault> {
        let leaving =
            self.compute.store.list::<Server>(Query::all().eq("host", host).eq("task_state", "deleting")).await?;
        for server in leaving.iter().filter(|s| s.wanted.delete) {
            if self.compute.fleet.confirmed_gone(host, &server.id) {
                self.compute.release_server(&server.record.id).await?;
            }
        }
        let reverting = Query::all().eq("host", host).eq("task_state", "resize_reverting");
        for server in self.compute.store.list::<Server>(reverting).await?.iter().filter(|s| !is_there(s)) {
            if self.compute.fleet.confirmed_gone(host, &server.id) {
                self.compute.come_back(&server.record.id).await?;
            }
        }
        Ok(())
    }

    async fn host_changed(&self, node: &Stored<Node>) -> Result<(), Fault> {
        self.compute.offer_host(node).await?;
        let waiting =
            self.compute.store.list::<Server>(Query::all().eq("alive", 1).eq("host", node.name.as_str())).await?;
        waiting.iter().filter(|s| s.wanted.delete).for_each(|s| self.compute.poke(&s.id));
        if !node.is_up() {
            let coming = Query::all().eq("alive", 1).eq("moving_to", node.name.as_str());
            // One whose host here knows the way may run there: that host's streams break, and it says what it knows.
            // Disks alone are here as well.
            let waits =
                |s: &&Stored<Server>| s.moving.as_ref().is_some_and(|moving| moving.cold || moving.address.is_none());
            for server in self.compute.store.list::<Server>(coming).await?.iter().filter(waits) {
                self.compute.give_up_move(server).await?;
            }
        }
        Ok(())
    }
}

/// It shall be on the host that it is on: not to be gone, nor about to go back to another.
fn is_there(server: &Server) -> bool {
    !server.wanted.delete && !server.resized.as_ref().is_some_and(|resized| resized.returning)
}

fn seen(i: &v1::ObservedInstance) -> Seen {
    let power = match i.power() {
        v1::Power::Unspecified => None,
        v1::Power::Running => Some(WantedPower::Running),
        v1::Power::Stopped => Some(WantedPower::Stopped),
        v1::Power::Paused => Some(WantedPower::Paused),
        v1::Power::Suspended => Some(WantedPower::Suspended),
    };
    Seen {
        generation: i.generation,
        power,
        settled: i.settled,
        error: short(&i.error),
        hard_reboots: i.hard_reboots,
        soft_reboots: i.soft_reboots,
        rebuilds: i.rebuilds,
        crashed: i.crashed,
        runtime: i.runtime.clone(),
        step: i.step.clone(),
        snapshot: i.snapshot.as_ref().and_then(SeenImage::of),
        disk_bytes: i.disk_bytes.clone(),
        places: i.places.iter().map(|at| (at.id.clone(), at.place)).collect(),
        device_troubles: i.device_troubles.iter().map(|trouble| (trouble.id.clone(), short(&trouble.error))).collect(),
        moved: i.r#move.as_ref().and_then(seen_move),
        devices: i.devices.clone(),
        program: short(&i.program),
        newer_program: short(&i.newer_program),
        upgrade_error: short(&i.upgrade_error),
        upgrades: i.upgrades,
    }
}

/// Where to, once that is known, and while it shall go.
fn departure(moving: &Moving) -> Option<v1::Departure> {
    let address = moving.address.clone().filter(|_| !moving.cancelled)?;
    let (move_id, node_id) = (moving.id.clone(), moving.to_node.clone());
    Some(v1::Departure { move_id, node_id, address, hurry: moving.hurry, cold: moving.cold })
}

fn seen_move(said: &v1::ObservedMove) -> Option<SeenMove> {
    use v1::MoveStage as S;
    let stage = match said.stage() {
        S::MoveUnspecified => return None,
        S::MoveWaiting => MoveStage::Waiting,
        S::MoveSending => MoveStage::Sending,
        S::MoveDone => MoveStage::Done,
        S::MoveFailed => MoveStage::Failed,
        S::MoveLost => MoveStage::Lost,
    };
    let gone = |gone: v1::Gone| Gone { total: gone.total, processed: gone.processed, remaining: gone.remaining };
    Some(SeenMove {
        id: said.move_id.clone(),
        stage,
        error: short(&said.error),
        address: short(&said.address),
        memory: said.memory.map(gone),
        disks: said.disks.map(gone),
    })
}

/// Where a property of the image or the flavor chooses the runtime.
const RUNTIME_PROPERTY: &str = "hw_pilvi_runtime";
const RUNTIME_SPEC: &str = "pilvi:runtime";
const CMDLINE_PROPERTY: &str = "os_command_line";

/// The runtime that image or flavor ask for.
pub(crate) fn runtime_of(server: &Server) -> Option<&String> {
    let property = server.image.as_ref().and_then(|i| i.properties.get(RUNTIME_PROPERTY));
    property.or_else(|| server.flavor.extra_specs.get(RUNTIME_SPEC))
}

impl Compute {
    async fn instance(&self, server: &Server) -> Result<v1::Instance, Fault> {
        let image = server.image.as_ref();
        let properties = image.map(|i| i.properties.clone()).unwrap_or_default();
        let power = match server.wanted.power {
            WantedPower::Running => v1::Power::Running,
            WantedPower::Stopped => v1::Power::Stopped,
            WantedPower::Paused => v1::Power::Paused,
            WantedPower::Suspended => v1::Power::Suspended,
        };
        let nics =
            server.ports.iter().map(|p| v1::Nic { port_id: p.id.clone(), mac: p.mac.clone(), mtu: p.mtu }).collect();
        let mut acted_on = properties.clone();
        acted_on.retain(|k, _| k.starts_with("hw_") || k.starts_with("os_") || k.starts_with("fake"));
        acted_on.extend(server.flavor.extra_specs.iter().map(|(k, v)| (k.clone(), v.clone())));
        Ok(v1::Instance {
            id: server.id.clone(),
            name: server.name.clone(),
            generation: server.wanted.generation,
            power: power.into(),
            vcpus: server.flavor.vcpus,
            memory_mib: server.flavor.memory_mib,
            disks: disks(server),
            nics,
            runtime: runtime_of(server).cloned().unwrap_or_default(),
            kernel: image.and_then(|i| i.kernel.as_ref()).map(ImageFile::wire),
            ramdisk: image.and_then(|i| i.ramdisk.as_ref()).map(ImageFile::wire),
            cmdline: properties.get(CMDLINE_PROPERTY).cloned().unwrap_or_default(),
            hard_reboots: server.wanted.hard_reboots,
            soft_reboots: server.wanted.soft_reboots,
            rebuilds: server.wanted.rebuilds,
            upgrades: server.wanted.upgrades,
            config_drive: server.config_drive,
            metadata: Some(self.guest_metadata(server).await?),
            properties: acted_on,
            snapshot: snapshot::wish(server).map(|image_id| v1::Snapshot { image_id }),
            request_id: self.newest_request(&server.id).await?,
            arrival: None,
            departure: None,
            kept: false,
        })
    }

    /// Which call was the last about this server; "" when its log is empty.
    async fn newest_request(&self, server_id: &str) -> Result<String, Fault> {
        let newest = Query::all().eq("server_id", server_id).sort("start", Dir::Desc).limit(1);
        let found = self.store.list::<Action>(newest).await?.pop();
        Ok(found.map(|a| a.record.request_id).unwrap_or_default())
    }

    async fn guest_metadata(&self, server: &Server) -> Result<v1::Metadata, Fault> {
        let ports: Vec<String> = server.ports.iter().map(|p| p.id.clone()).collect();
        let network_data = pilvi_network::host::network_data(&self.store, &ports).await?;
        let key = |k: &crate::tables::KeyCopy| v1::Key {
            name: k.name.clone(),
            public_key: k.public_key.clone(),
            r#type: k.kind.clone(),
        };
        Ok(v1::Metadata {
            uuid: server.id.clone(),
            name: server.name.clone(),
            hostname: server.hostname.clone(),
            project_id: server.project_id.clone(),
            user_id: server.user_id.clone(),
            availability_zone: server.zone.clone().unwrap_or_else(|| self.config.default_zone.clone()),
            launch_index: server.launch_index,
            keys: server.key.iter().map(key).collect(),
            meta: server.metadata.clone(),
            user_data: server.user_data.as_ref().and_then(|d| STANDARD.decode(d).ok()).unwrap_or_default(),
            reservation_id: server.reservation_id.clone(),
            instance_type: server.flavor.name.clone(),
            admin_password: server.admin_password.clone().unwrap_or_default(),
            network_data: network_data.to_string(),
        })
    }
}

fn disks(server: &Server) -> Vec<v1::Disk> {
    let disk = |id: &str, size_gib: u64, image: Option<v1::ImageRef>| v1::Disk {
        id: id.to_owned(),
        size_gib,
        image,
        read_only: false,
        volume: None,
    };
    let root = match model::root(server) {
        Some(volume) => model::disk(volume),
        None => disk("root", server.flavor.disk_gib, server.image.as_ref().map(|i| i.file.wire())),
    };
    let mut disks = vec![root];
    if server.flavor.ephemeral_gib > 0 {
        disks.push(disk("ephemeral0", server.flavor.ephemeral_gib, None));
    }
    if server.flavor.swap_mib > 0 {
        disks.push(disk("swap", server.flavor.swap_mib.div_ceil(1024), None));
    }
    disks.extend(model::others(server).map(model::disk));
    disks
}

/// Living servers of a host that is not `Deleted`: for the views of hosts.
pub async fn servers_on(compute: &Compute, host: &str) -> Result<Vec<Stored<Server>>, Fault> {
    let servers = compute.store.list::<Server>(Query::all().eq("host", host).eq("alive", 1)).await?;
    Ok(servers.into_iter().filter(|s| s.vm_state != VmState::Deleted).collect())
}
