//! The records of the compute service: the only file that names a column.
//!
//! What a server is made of is copied into its record when it is created (flavor, image, key), so that
//! later changes of those do not change a running server.
use pilvi_fleet::{ImageFile, SeenImage};
use pilvi_store::{Claim, Column, KindSpec, Record, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::server::model::{PowerState, TaskState, VmState};

pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<Server>(),
        KindSpec::of::<Action>(),
        KindSpec::of::<Flavor>(),
        KindSpec::of::<Keypair>(),
        KindSpec::of::<ServerGroup>(),
        KindSpec::of::<Aggregate>(),
        KindSpec::of::<Migration>(),
    ]
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    /// As both were called when it was made: domains of networks may ask for it.
    #[serde(default)]
    pub project_name: String,
    #[serde(default)]
    pub user_name: String,
    pub name: String,
    pub hostname: String,
    pub description: Option<String>,
    pub vm_state: VmState,
    pub task_state: Option<TaskState>,
    pub power_state: PowerState,
    /// What the host shall make true.
    pub wanted: Wanted,
    /// What the host said last.
    pub seen: Option<Seen>,
    pub host: Option<String>,
    /// While it moves to another host.
    #[serde(default)]
    pub moving: Option<Moving>,
    /// It was resized, or moved while it was off, and may go back.
    #[serde(default)]
    pub resized: Option<Resized>,
    /// The host that had something of it last, and shall hear that it has not any more.
    #[serde(default)]
    pub left: Option<String>,
    /// Set when the server was first active.
    pub launched_us: Option<i64>,
    pub terminated_us: Option<i64>,
    pub flavor: FlavorCopy,
    /// During a resize: what to go back to.
    pub old_flavor: Option<FlavorCopy>,
    pub image: Option<ImageCopy>,
    /// What networks were asked for; ports exist once `ports` names them.
    pub networks: Vec<NetworkWish>,
    /// In guest order.
    pub ports: Vec<PortOf>,
    /// Volumes that were asked for; each is one of `volumes` once the server has a host.
    #[serde(default)]
    pub volume_wishes: Vec<VolumeWish>,
    #[serde(default)]
    pub volumes: Vec<VolumeOf>,
    pub security_groups: Vec<String>,
    pub key: Option<KeyCopy>,
    /// Base64, as it came.
    pub user_data: Option<String>,
    pub config_drive: bool,
    pub metadata: BTreeMap<String, String>,
    pub tags: BTreeSet<String>,
    pub zone: Option<String>,
    /// The host an administrator named, and whether the scheduler shall be passed by.
    pub target_host: Option<String>,
    pub hints: serde_json::Value,
    pub group: Option<String>,
    pub fault: Option<FaultOf>,
    pub locked: Option<LockedBy>,
    pub reservation_id: String,
    pub launch_index: u32,
    pub disk_config: String,
    pub access_ip_v4: String,
    pub access_ip_v6: String,
    /// Told to the guest through its metadata; `None` once the client has read it.
    pub admin_password: Option<String>,
    pub trusted_certificates: Option<Vec<String>>,
    /// Hosts that were tried and failed.
    pub tried_hosts: Vec<String>,
    /// Microseconds since 1970 of the last change that a user would call one.
    pub changed_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Grows with each change that concerns the host.
    pub generation: u64,
    pub power: WantedPower,
    pub hard_reboots: u64,
    pub soft_reboots: u64,
    pub rebuilds: u64,
    /// Its guest moves into the program that a start would take now.
    #[serde(default)]
    pub upgrades: u64,
    /// The server shall cease to be.
    pub delete: bool,
    /// Id of the image that its disk shall become; until that has ended, one way or the other.
    #[serde(default)]
    pub snapshot: Option<String>,
}

impl Wanted {
    /// Of a server that was just made: that it runs, and no more.
    pub fn first() -> Self {
        Wanted {
            generation: 1,
            power: WantedPower::Running,
            hard_reboots: 0,
            soft_reboots: 0,
            rebuilds: 0,
            upgrades: 0,
            delete: false,
            snapshot: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WantedPower {
    Running,
    Stopped,
    Paused,
    Suspended,
}

/// The last observation of the host, as far as decisions need it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub generation: u64,
    pub power: Option<WantedPower>,
    pub settled: bool,
    pub error: String,
    pub hard_reboots: u64,
    pub soft_reboots: u64,
    pub rebuilds: u64,
    pub crashed: bool,
    pub runtime: String,
    pub step: String,
    #[serde(default)]
    pub snapshot: Option<SeenImage>,
    /// Of its disks, in their order.
    #[serde(default)]
    pub disk_bytes: Vec<u64>,
    /// Ids of the disks and ports that its machine has now; none when there is no machine.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Where its machine's devices are, by their ids.
    #[serde(default)]
    pub places: BTreeMap<String, u32>,
    /// What keeps the machine's devices from being as wanted, by their ids.
    #[serde(default)]
    pub device_troubles: BTreeMap<String, String>,
    #[serde(default, rename = "move")]
    pub moved: Option<SeenMove>,
    /// What the guest runs in, and what it would run in after a start, if that is another program.
    #[serde(default)]
    pub program: String,
    #[serde(default)]
    pub newer_program: String,
    #[serde(default)]
    pub upgrade_error: String,
    #[serde(default)]
    pub upgrades: u64,
}

/// A server on its way to another host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Moving {
    /// Of the [`Migration`].
    pub id: String,
    /// The host's name.
    pub to: String,
    /// Ids of the two nodes.
    pub from_node: String,
    pub to_node: String,
    /// Where it may come in over there, once a process waits for it.
    pub address: Option<String>,
    /// It shall stay after all.
    pub cancelled: bool,
    /// It shall switch over as soon as it can.
    #[serde(default)]
    pub hurry: bool,
    /// It is off, and its disks alone go.
    #[serde(default)]
    pub cold: bool,
    /// What it becomes there; none: what it is.
    #[serde(default)]
    pub flavor: Option<FlavorCopy>,
}

/// What a server was before a resize or a cold migration, until that is confirmed or taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resized {
    /// Of the [`Migration`]; that is also who holds the claim on the former host.
    pub migration: String,
    /// Where its former disks are kept; none: it was resized where it is.
    pub from: Option<Kept>,
    /// It is on its way back: once the host there has nothing of it, it is here again.
    #[serde(default)]
    pub returning: bool,
    /// It goes back because it could not be there.
    #[serde(default)]
    pub failed: bool,
}

/// The host that keeps a server's former disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The host's name.
    pub host: String,
    /// Id of the node.
    pub node: String,
}

/// How far a move has come, as the host says that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMove {
    pub id: String,
    pub stage: MoveStage,
    pub error: String,
    pub address: String,
    /// While it goes: how much has.
    #[serde(default)]
    pub memory: Option<Gone>,
    #[serde(default)]
    pub disks: Option<Gone>,
}

/// Bytes. What changes meanwhile goes again, so more may have gone than there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub total: u64,
    pub processed: u64,
    pub remaining: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveStage {
    Waiting,
    Sending,
    Done,
    Failed,
    /// It stands still here, and only the other host knows whether it runs.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlavorCopy {
    pub id: String,
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub ephemeral_gib: u64,
    pub swap_mib: u64,
    pub extra_specs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageCopy {
    pub id: String,
    pub name: String,
    pub file: ImageFile,
    pub kernel: Option<ImageFile>,
    pub ramdisk: Option<ImageFile>,
    pub min_disk_gib: u64,
    pub properties: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkWish {
    pub network_id: Option<String>,
    pub port_id: Option<String>,
    pub fixed_ip: Option<String>,
    pub tag: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortOf {
    pub id: String,
    pub mac: String,
    pub mtu: u32,
    /// We made it, so we delete it; otherwise it is the user's and is only set free.
    pub ours: bool,
    pub tag: Option<String>,
}

/// A volume that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeWish {
    pub from: VolumeFrom,
    /// 0: that of the source.
    pub size_gib: u64,
    /// The server boots from it.
    pub root: bool,
    pub volume_type: Option<String>,
    pub delete_on_termination: bool,
    pub tag: Option<String>,
    pub device: Option<String>,
    /// Of a volume that is there already and kept for the server.
    pub attachment_id: Option<String>,
}

/// Where a wished volume comes from; ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFrom {
    #[default]
    Blank,
    Image(String),
    Snapshot(String),
    Volume(String),
}

/// A volume of the server's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOf {
    pub volume_id: String,
    pub attachment_id: String,
    pub device: String,
    /// The server boots from it.
    pub root: bool,
    pub delete_on_termination: bool,
    pub tag: Option<String>,
    pub stage: VolumeStage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeStage {
    /// The host shall give it to the guest.
    #[default]
    Attaching,
    Attached,
    /// The guest shall let go of it.
    Detaching,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyCopy {
    pub name: String,
    pub public_key: String,
    pub kind: String,
    pub fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultOf {
    pub code: u16,
    pub message: String,
    pub details: String,
    pub created_us: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LockedBy {
    pub admin: bool,
    pub reason: Option<String>,
}

impl Record for Server {
    const KIND: &'static str = "compute_server";
    const COLUMNS: &'static [Column] = &[
        Column::text("user_id"),
        Column::text("host"),
        Column::text("image_id"),
        Column::text("flavor_id"),
        Column::text("reservation_id"),
        Column::text("task_state"),
        Column::int("alive"),
        Column::int("changed"),
        Column::text("moving_to"),
        Column::text("kept_on"),
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn state(&self) -> Option<&str> {
        Some(self.vm_state.as_str())
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.user_id.clone().into(),
            self.host.clone().into(),
            self.image.as_ref().map(|i| i.id.clone()).into(),
            self.flavor.id.clone().into(),
            self.reservation_id.clone().into(),
            self.task_state.map(|t| t.as_str().to_owned()).into(),
            i64::from(self.vm_state != VmState::Deleted).into(),
            self.changed_us.into(),
            self.moving.as_ref().map(|m| m.to.clone()).into(),
            self.resized.as_ref().and_then(|r| r.from.as_ref()).map(|kept| kept.host.clone()).into(),
        ]
    }
}

/// A move of a server from host to host, also when it is long over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Migration {
    /// UUID
    pub id: String,
    /// Small number that the API shows as `id`.
    pub number: i64,
    pub server_id: String,
    /// Of the server.
    pub project_id: String,
    /// Who asked for it.
    pub user_id: String,
    /// Names of hosts.
    pub from: String,
    pub to: String,
    /// `host:port` over there; "" before it was known.
    pub to_address: String,
    /// As `os-migrations` spells it.
    pub status: String,
    pub flavor_id: String,
    /// That it becomes by a resize.
    #[serde(default)]
    pub new_flavor_id: Option<String>,
    #[serde(default)]
    pub kind: MigrationKind,
    pub created_us: i64,
    pub updated_us: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationKind {
    #[default]
    Live,
    Cold,
    Resize,
}

impl MigrationKind {
    /// As `os-migrations` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live-migration",
            Self::Cold => "migration",
            Self::Resize => "resize",
        }
    }
}

impl Record for Migration {
    const KIND: &'static str = "compute_migration";
    const COLUMNS: &'static [Column] = &[Column::int("number"), Column::text("server_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.number.into(), self.server_id.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: "compute_migration_number".into(), value: self.number.to_string() }]
    }
}

/// One thing that was done to a server, for `instance-actions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Action {
    pub id: String,
    pub server_id: String,
    pub project_id: String,
    pub user_id: String,
    pub request_id: String,
    pub action: String,
    pub message: Option<String>,
    pub start_us: i64,
    pub updated_us: i64,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub event: String,
    pub start_us: i64,
    pub finish_us: Option<i64>,
    /// `Success` or `Error`
    pub result: Option<String>,
    pub traceback: Option<String>,
    pub host: Option<String>,
}

impl Record for Action {
    const KIND: &'static str = "compute_action";
    const COLUMNS: &'static [Column] = &[Column::text("server_id"), Column::text("request_id"), Column::int("start")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.server_id.clone().into(), self.request_id.clone().into(), self.start_us.into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: format!("action:{}", self.server_id), value: self.request_id.clone() }]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flavor {
    /// Chosen by the client or a UUID.
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub ephemeral_gib: u64,
    pub swap_mib: u64,
    pub rxtx_factor: f64,
    pub public: bool,
    pub disabled: bool,
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use it when it is not public.
    pub access: BTreeSet<String>,
}

impl Record for Flavor {
    const KIND: &'static str = "compute_flavor";
    const COLUMNS: &'static [Column] =
        &[Column::int("public"), Column::int("memory"), Column::int("disk"), Column::int("vcpus")];
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        let int = |n: u64| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
        vec![i64::from(self.public).into(), int(self.memory_mib), int(self.disk_gib), int(self.vcpus.into())]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: "compute_flavor".into(), value: self.name.clone() }]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keypair {
    /// `user id/name`
    pub id: String,
    pub user_id: String,
    pub name: String,
    pub fingerprint: String,
    pub public_key: String,
    /// `ssh` or `x509`
    pub kind: String,
}

impl Record for Keypair {
    const KIND: &'static str = "compute_keypair";
    const COLUMNS: &'static [Column] = &[Column::text("user_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.user_id.clone().into()]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerGroup {
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub name: String,
    /// `affinity`, `anti-affinity`, `soft-affinity`, `soft-anti-affinity`
    pub policy: String,
    pub max_server_per_host: Option<u32>,
}

impl Record for ServerGroup {
    const KIND: &'static str = "compute_server_group";
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Aggregate {
    pub id: String,
    /// Small number that the API shows as `id`.
    pub number: i64,
    pub name: String,
    pub zone: Option<String>,
    pub hosts: Vec<String>,
    pub metadata: BTreeMap<String, String>,
}

impl Record for Aggregate {
    const KIND: &'static str = "compute_aggregate";
    const COLUMNS: &'static [Column] = &[Column::int("number")];
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.number.into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![
            Claim { scope: "compute_aggregate".into(), value: self.name.clone() },
            Claim { scope: "compute_aggregate_number".into(), value: self.number.to_string() },
        ]
    }
}
