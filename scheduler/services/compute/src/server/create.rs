//! Creating servers: everything that can be refused is refused here, before a record exists.
//!
//! What is checked against what other services hold (image, networks, ports, groups) is read first; the
//! quota is checked and the records are written in one transaction.
use crate::{
    Compute, fault,
    server::model::{PowerState, TaskState, VmState},
    tables::{
        Action, Event, Flavor, FlavorCopy, ImageCopy, KeyCopy, Keypair, NetworkWish, Server, ServerGroup, VolumeFrom,
        VolumeWish, Wanted,
    },
    volume::{self, mapping::Mappings},
};
use pilvi_fleet::ImageFile;
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_store::{Query, Tx};
use std::collections::{BTreeMap, BTreeSet};

/// What networks a client asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Networks {
    /// The project's only network, or none where it has none.
    Auto,
    None,
    These(Vec<NetworkWish>),
}

/// A request to create, parsed and well formed.
#[derive(Debug, Clone)]
pub struct NewServer {
    pub name: String,
    pub hostname: Option<String>,
    pub description: Option<String>,
    pub flavor: String,
    pub image: Option<String>,
    pub mappings: Mappings,
    pub networks: Networks,
    /// Names or ids; empty: the project's default group.
    pub security_groups: Vec<String>,
    pub key_name: Option<String>,
    pub user_data: Option<String>,
    pub config_drive: bool,
    pub metadata: BTreeMap<String, String>,
    pub tags: BTreeSet<String>,
    pub zone: Option<String>,
    pub host: Option<String>,
    pub admin_password: String,
    pub access_ip_v4: String,
    pub access_ip_v6: String,
    pub disk_config: String,
    pub trusted_certificates: Option<Vec<String>>,
    pub hints: serde_json::Value,
    pub min_count: u32,
    pub max_count: u32,
}

/// What the other services said.
#[derive(Debug, Clone)]
struct Found {
    flavor: FlavorCopy,
    image: Option<ImageCopy>,
    volumes: Vec<VolumeWish>,
    key: Option<KeyCopy>,
    networks: Vec<NetworkWish>,
    group: Option<String>,
}

impl Compute {
    /// Makes `min_count` to `max_count` servers (fewer than asked for when the quota ends it).
    pub async fn create_servers(&self, ctx: &Ctx, new: NewServer) -> Result<Vec<Server>, Fault> {
        let found = self.look_up(ctx, &new).await?;
        let (ctx, quotas) = (ctx.clone(), self.quotas.clone());
        let servers = self
            .store
            .write(move |tx| {
                let (ctx, new, found, quotas) = (ctx.clone(), new.clone(), found.clone(), quotas.clone());
                Box::pin(async move {
                    let limits = quotas.limits_in(tx, ctx.project_id()).await?;
                    let count = allowed_count(tx, &ctx, &new, &found.flavor, &limits).await?;
                    let groups = if new.security_groups.is_empty() {
                        vec!["default".to_owned()]
                    } else {
                        new.security_groups.clone()
                    };
                    let groups = pilvi_network::security_group::ops::resolve_in(tx, &ctx, &groups)
                        .await
                        .map_err(|f| if f.code() == 404 { Fault::bad_request(f.message) } else { f })?;
                    let reservation = format!("r-{}", &id::hex()[..8]);
                    let mut servers = Vec::new();
                    for index in 0..count {
                        let mut server = record(&ctx, &new, &found, &groups, &reservation, index, count);
                        volume::ops::reserve_in(tx, &ctx, &mut server).await?;
                        tx.insert(&server).await?;
                        tx.insert(&created_action(&ctx, &server)).await?;
                        servers.push(server);
                    }
                    Ok::<_, Fault>(servers)
                })
            })
            .await?;
        servers.iter().for_each(|s| self.poke(&s.id));
        Ok(servers)
    }

    async fn look_up(&self, ctx: &Ctx, new: &NewServer) -> Result<Found, Fault> {
        let flavor = self.store.get::<Flavor>(&new.flavor).await?;
        let flavor = flavor.ok_or_else(|| Fault::bad_request(format!("Flavor {} could not be found.", new.flavor)))?;
        if !flavor.public && !flavor.access.contains(ctx.project_id()) && !ctx.caller.has_role("admin") {
            return Err(Fault::bad_request(format!("Flavor {} could not be found.", new.flavor)));
        }
        let flavor = copy_flavor(&flavor);
        let (image, volumes) = self.boots_from(ctx, new, &flavor).await?;
        let key = match &new.key_name {
            None => None,
            Some(name) => Some(self.key_copy(ctx, name).await?),
        };
        let networks = self.networks_for(ctx, &new.networks).await?;
        let group = self.hinted_group(ctx, &new.hints).await?;
        if let Some(zone) = &new.zone
            && !self.zone_exists(zone).await?
        {
            return Err(Fault::bad_request("The requested availability zone is not available"));
        }
        if let Some(host) = &new.host
            && self.fleet.node_by_name(host).await?.is_none()
        {
            return Err(Fault::bad_request(format!("Compute host {host} could not be found.")));
        }
        Ok(Found { flavor, image, volumes, key, networks, group })
    }

    /// What the server boots, and the volumes that it shall have.
    async fn boots_from(
        &self,
        ctx: &Ctx,
        new: &NewServer,
        flavor: &FlavorCopy,
    ) -> Result<(Option<ImageCopy>, Vec<VolumeWish>), Fault> {
        let asked = &new.mappings;
        if asked.ephemeral_gib > flavor.ephemeral_gib || asked.swap_mib > flavor.swap_mib {
            return Err(Fault::bad_request(
                "Block Device Mapping is Invalid: the flavor has less ephemeral disk or swap.",
            ));
        }
        let mut volumes = asked.volumes.clone();
        if let (Some(id), false) = (&new.image, volumes.iter().any(|wish| wish.root)) {
            let missing = |_| Fault::bad_request(format!("Can not find requested image {id}"));
            let image = pilvi_image::image::ops::visible(&self.store, ctx, id).await.map_err(missing)?;
            let of_image = volume::image::wishes(&image)?;
            if of_image.is_empty() {
                let image = self.image_copy(ctx, id).await?;
                fits(flavor, &image)?;
                self.look_at_volumes(ctx, &volumes).await?;
                self.refuse_many(&volumes, new)?;
                return Ok((Some(image), volumes));
            }
            volumes.splice(0..0, of_image);
        }
        if volumes.iter().filter(|wish| wish.root).count() != 1 {
            return Err(volume::mapping::no_boot_order());
        }
        self.refuse_many(&volumes, new)?;
        Ok((self.look_at_volumes(ctx, &volumes).await?, volumes))
    }

    /// A volume is one server's.
    fn refuse_many(&self, volumes: &[VolumeWish], new: &NewServer) -> Result<(), Fault> {
        if volumes.len() > volume::model::VOLUMES_MAX {
            return Err(Fault::bad_request("Block Device Mapping is Invalid: too many volumes."));
        }
        if new.max_count > 1 && volumes.iter().any(|wish| matches!(wish.from, VolumeFrom::Volume(_))) {
            return Err(Fault::bad_request("Cannot attach one or more volumes to multiple instances"));
        }
        Ok(())
    }

    /// What a server needs of an image that the caller may see and that is ready.
    pub async fn image_copy(&self, ctx: &Ctx, image_id: &str) -> Result<ImageCopy, Fault> {
        let bad = |_| Fault::bad_request(format!("Can not find requested image {image_id}"));
        let image = pilvi_image::image::ops::visible(&self.store, ctx, image_id).await.map_err(bad)?;
        if image.status.as_str() != "active" {
            return Err(Fault::bad_request(format!("Image {image_id} is not active.")));
        }
        runnable(&image)?;
        let kernel = self.boot_file(ctx, property(&image, "kernel_id")).await?;
        let ramdisk = self.boot_file(ctx, property(&image, "ramdisk_id")).await?;
        Ok(ImageCopy {
            id: image.id.clone(),
            name: image.name.clone().unwrap_or_default(),
            file: file_copy(&image),
            kernel,
            ramdisk,
            min_disk_gib: u64::try_from(image.min_disk).unwrap_or(0),
            properties: image.properties.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect(),
        })
    }

    pub(crate) async fn boot_file(&self, ctx: &Ctx, image_id: Option<&str>) -> Result<Option<ImageFile>, Fault> {
        let Some(id) = image_id.filter(|i| !i.is_empty()) else { return Ok(None) };
        let missing = |_| Fault::bad_request(format!("Kernel or ramdisk image {id} could not be found."));
        let image = pilvi_image::image::ops::visible(&self.store, ctx, id).await.map_err(missing)?;
        Ok(Some(file_copy(&image)))
    }

    pub async fn key_copy(&self, ctx: &Ctx, name: &str) -> Result<KeyCopy, Fault> {
        let found = self.store.get::<Keypair>(&format!("{}/{name}", ctx.user_id())).await?;
        let key = found.ok_or_else(|| Fault::bad_request("Invalid key_name provided."))?;
        Ok(KeyCopy {
            name: key.name.clone(),
            public_key: key.public_key.clone(),
            kind: key.kind.clone(),
            fingerprint: key.fingerprint.clone(),
        })
    }

    pub(crate) async fn networks_for(&self, ctx: &Ctx, wish: &Networks) -> Result<Vec<NetworkWish>, Fault> {
        let wishes = match wish {
            Networks::None => Vec::new(),
            Networks::Auto => pilvi_network::network::ops::choose_for_server(&self.store, ctx)
                .await?
                .into_iter()
                .map(|id| NetworkWish { network_id: Some(id), port_id: None, fixed_ip: None, tag: None })
                .collect(),
            Networks::These(wishes) => wishes.clone(),
        };
        for wish in &wishes {
            if let Some(id) = &wish.network_id {
                let missing = |_| Fault::bad_request(format!("Network {id} could not be found."));
                pilvi_network::network::ops::visible(&self.store, ctx, id).await.map_err(missing)?;
            }
            if let Some(id) = &wish.port_id {
                let port = pilvi_network::port::ops::visible(&self.store, ctx, id)
                    .await
                    .map_err(|_| Fault::bad_request(format!("Port {id} could not be found.")))?;
                if !port.device_id.is_empty() {
                    return Err(Fault::conflict(format!("Port {id} is still in use.")));
                }
                // No accelerator service could make anything ready behind it.
                if let Some(profile) = &port.device_profile {
                    let why = format!(
                        "Device profile name {profile}: port {id} asks for an accelerator, and there is no accelerator service."
                    );
                    return Err(Fault::bad_request(why));
                }
                // Told now, where a host would refuse to bind it.
                if let Some(offload) = &port.hardware_offload_type {
                    let why =
                        format!("Binding failed for port {id}: no host has devices for hardware offload ({offload}).");
                    return Err(Fault::bad_request(why));
                }
            }
        }
        Ok(wishes)
    }

    async fn hinted_group(&self, ctx: &Ctx, hints: &serde_json::Value) -> Result<Option<String>, Fault> {
        let Some(id) = hints.get("group").and_then(serde_json::Value::as_str) else { return Ok(None) };
        match self.store.get::<ServerGroup>(id).await? {
            Some(group) if group.project_id == ctx.project_id() => Ok(Some(id.to_owned())),
            _ => Err(Fault::bad_request(format!("Instance group {id} could not be found."))),
        }
    }
}

pub fn copy_flavor(flavor: &Flavor) -> FlavorCopy {
    FlavorCopy {
        id: flavor.id.clone(),
        name: flavor.name.clone(),
        vcpus: flavor.vcpus,
        memory_mib: flavor.memory_mib,
        disk_gib: flavor.disk_gib,
        ephemeral_gib: flavor.ephemeral_gib,
        swap_mib: flavor.swap_mib,
        extra_specs: flavor.extra_specs.clone(),
    }
}

/// Formats of disks, discs and kernels that hosts start.
const RUNNABLE: [&str; 11] = ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "gpt", "ami", "aki", "ari"];

/// 400 for what is kept but cannot be run: hosts make raw disks of these formats, and open no archives.
fn runnable(image: &pilvi_image::image::model::Image) -> Result<(), Fault> {
    let (disk, container) = (image.disk_format.as_deref(), image.container_format.as_deref());
    let disk_runs = disk.is_none_or(|f| RUNNABLE.contains(&f));
    if disk_runs && container.is_none_or(|f| matches!(f, "bare" | "ovf" | "ami" | "aki" | "ari")) {
        return Ok(());
    }
    let (disk, container) = (disk.unwrap_or("none"), container.unwrap_or("none"));
    Err(Fault::bad_request(format!(
        "Image {} is {disk} in a container of format {container}, which hosts here do not run: convert it to qcow2 or raw.",
        image.id
    )))
}

fn property<'i>(image: &'i pilvi_image::image::model::Image, name: &str) -> Option<&'i str> {
    image.properties.get(name).and_then(Option::as_deref)
}

fn file_copy(image: &pilvi_image::image::model::Image) -> ImageFile {
    ImageFile {
        id: image.id.clone(),
        sha512: image.content_hash().unwrap_or_default().to_owned(),
        size: image.size.unwrap_or(0),
        disk_format: image.disk_format.clone().unwrap_or_default(),
    }
}

/// 400 when the image asks for more than the flavor has.
pub fn fits(flavor: &FlavorCopy, image: &ImageCopy) -> Result<(), Fault> {
    if flavor.disk_gib > 0 && image.min_disk_gib > flavor.disk_gib {
        return Err(Fault::bad_request(
            "The created instance's disk would be too small: the flavor's disk is too small for the requested image.",
        ));
    }
    Ok(())
}

async fn allowed_count(
    tx: &mut Tx,
    ctx: &Ctx,
    new: &NewServer,
    flavor: &FlavorCopy,
    limits: &BTreeMap<String, i64>,
) -> Result<u32, Fault> {
    let mine = tx.list::<Server>(Query::all().project(ctx.project_id()).eq("alive", 1)).await?;
    let used: [u64; 3] =
        mine.iter().fold([0; 3], |[n, c, m], s| [n + 1, c + u64::from(s.flavor.vcpus), m + s.flavor.memory_mib]);
    let each = [1, u64::from(flavor.vcpus), flavor.memory_mib];
    let mut count = new.max_count;
    for (i, resource) in ["instances", "cores", "ram"].into_iter().enumerate() {
        let Ok(limit) = u64::try_from(limits.get(resource).copied().unwrap_or(-1)) else { continue };
        let fit = limit.saturating_sub(used[i]).checked_div(each[i]).unwrap_or(u64::MAX);
        if fit < u64::from(new.min_count) {
            let asked = each[i] * u64::from(new.min_count);
            return Err(fault::over_quota(resource, asked, used[i], i64::try_from(limit).unwrap_or(-1)));
        }
        count = count.min(u32::try_from(fit).unwrap_or(u32::MAX));
    }
    let items = limits.get("metadata_items").copied().unwrap_or(-1);
    if items >= 0 && i64::try_from(new.metadata.len()).unwrap_or(i64::MAX) > items {
        return Err(Fault::forbidden(format!("Maximum number of metadata items exceeds {items}")));
    }
    Ok(count)
}

/// Nova's way from a name to a host name.
pub fn hostname_of(name: &str, server_id: &str) -> String {
    let cleaned: String = name
        .chars()
        .map(|c| if matches!(c, ' ' | '_' | '.') { '-' } else { c })
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect::<String>()
        .to_ascii_lowercase();
    let cut: String = cleaned.trim_matches('-').chars().take(63).collect();
    let cut = cut.trim_matches('-');
    if cut.is_empty() { format!("server-{server_id}") } else { cut.to_owned() }
}

/// One of several that are made at once has its number behind its name.
fn numbered(name: &str, index: u32, count: u32) -> String {
    if count > 1 { format!("{name}-{}", index + 1) } else { name.to_owned() }
}

fn record(
    ctx: &Ctx,
    new: &NewServer,
    found: &Found,
    groups: &[String],
    reservation: &str,
    index: u32,
    count: u32,
) -> Server {
    let server_id = id::new();
    let name = numbered(&new.name, index, count);
    let given = new.hostname.as_ref().map(|given| numbered(given, index, count));
    let hostname = given.unwrap_or_else(|| hostname_of(&name, &server_id));
    Server {
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        project_name: ctx.project_name().to_owned(),
        user_name: ctx.caller.user_name.clone(),
        name,
        hostname,
        description: new.description.clone(),
        vm_state: VmState::Building,
        task_state: Some(TaskState::Scheduling),
        power_state: PowerState::NoState,
        wanted: Wanted::first(),
        seen: None,
        host: None,
        moving: None,
        resized: None,
        left: None,
        launched_us: None,
        terminated_us: None,
        flavor: found.flavor.clone(),
        old_flavor: None,
        image: found.image.clone(),
        networks: found.networks.clone(),
        ports: Vec::new(),
        volume_wishes: found.volumes.clone(),
        volumes: Vec::new(),
        security_groups: groups.to_vec(),
        key: found.key.clone(),
        user_data: new.user_data.clone(),
        config_drive: new.config_drive,
        metadata: new.metadata.clone(),
        tags: new.tags.clone(),
        zone: new.zone.clone(),
        target_host: new.host.clone(),
        hints: new.hints.clone(),
        group: found.group.clone(),
        fault: None,
        locked: None,
        reservation_id: reservation.to_owned(),
        launch_index: index,
        disk_config: new.disk_config.clone(),
        access_ip_v4: new.access_ip_v4.clone(),
        access_ip_v6: new.access_ip_v6.clone(),
        admin_password: Some(new.admin_password.clone()),
        trusted_certificates: new.trusted_certificates.clone(),
        tried_hosts: Vec::new(),
        changed_us: clock::now_us(),
        id: server_id,
    }
}

fn created_action(ctx: &Ctx, server: &Server) -> Action {
    crate::action::started(
        ctx,
        &server.id,
        &server.project_id,
        "create",
        vec![Event::began("compute__do_build_and_run_instance")],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_host_names() {
        assert_eq!(hostname_of("My Server_1.example", "x"), "my-server-1-example");
        assert_eq!(hostname_of("-日本-", "x"), "server-x");
        assert_eq!(hostname_of(&"a".repeat(80), "x").len(), 63);
    }
}
