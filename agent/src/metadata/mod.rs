//! What a guest may read of itself: pages of 169.254.169.254 and of its config drive.
//!
//! ```text
//! connection from a port (netdev) -> http (limits) -> page(path) -> openstack | ec2
//! ```
//! Rendering is pure: a path and what the scheduler said of the instance in, a page out. Paths,
//! versions and keys are those that OpenStack's clients (cloud-init and others) look for.
pub mod ec2;
pub mod http;
pub mod openstack;

use pilvi_agent_api::v1;

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Page {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        Self { content_type: "text/plain; charset=utf-8", body: body.into() }
    }
    fn json(value: &serde_json::Value) -> Self {
        Self { content_type: "application/json", body: value.to_string().into_bytes() }
    }
    fn lines<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(|l| l.as_ref().to_owned()).collect();
        Self::text(lines.join("\n"))
    }
}

/// What is known of the guest that asks.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub metadata: v1::Metadata,
    /// First fixed IPv4 address, "" when it has none.
    pub local_ipv4: String,
    /// First floating address, "" when it has none.
    pub public_ipv4: String,
    /// Hardware address of the first port.
    pub mac: String,
    /// Password that the guest has posted, encrypted by itself.
    pub password: Vec<u8>,
    /// Disk names, for the EC2 block device mapping.
    pub disks: Vec<String>,
    pub image: String,
}

/// The page at `path`, which starts with a slash.
#[must_use]
pub fn page(path: &str, view: &View) -> Option<Page> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => {
            let mut lines: Vec<&str> = ec2::VERSIONS.to_vec();
            lines.push("latest");
            Some(Page::lines(lines))
        }
        ["openstack", rest @ ..] => openstack::page(rest, view),
        [version, rest @ ..] => ec2::page(version, rest, view),
    }
}

#[cfg(test)]
mod tests;
