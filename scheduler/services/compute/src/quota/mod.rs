//! Quotas of compute: defaults as Nova's, usage counted from the records.
pub mod api;

/// resource -> default limit
pub const DEFAULTS: &[(&str, i64)] = &[
    ("instances", 10),
    ("cores", 20),
    ("ram", 51_200),
    ("metadata_items", 128),
    ("key_pairs", 100),
    ("server_groups", 10),
    ("server_group_members", 10),
    ("injected_files", 5),
    ("injected_file_content_bytes", 10_240),
    ("injected_file_path_bytes", 255),
    ("fixed_ips", -1),
    ("floating_ips", -1),
    ("security_groups", -1),
    ("security_group_rules", -1),
];

use crate::{
    Compute,
    tables::{Server, ServerGroup},
};
use pilvi_kit::Fault;
use pilvi_store::Query;

/// What a project has now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub instances: u64,
    pub cores: u64,
    pub ram: u64,
    pub server_groups: u64,
}

impl Usage {
    pub fn of(&self, resource: &str) -> u64 {
        match resource {
            "instances" => self.instances,
            "cores" => self.cores,
            "ram" => self.ram,
            "server_groups" => self.server_groups,
            _ => 0,
        }
    }
}

impl Compute {
    pub async fn usage(&self, project_id: &str) -> Result<Usage, Fault> {
        let servers = self.store.list::<Server>(Query::all().project(project_id).eq("alive", 1)).await?;
        let mut usage = Usage {
            server_groups: self.store.count::<ServerGroup>(Query::all().project(project_id)).await?,
            ..Usage::default()
        };
        for server in servers {
            usage.instances += 1;
            usage.cores += u64::from(server.flavor.vcpus);
            usage.ram += server.flavor.memory_mib;
        }
        Ok(usage)
    }
}
