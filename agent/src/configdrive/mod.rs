//! The config drive: what the metadata service says, on a small disk labelled `config-2`.
pub mod iso9660;

use crate::metadata::{View, ec2, openstack};
use pilvi_agent_api::v1::Metadata;

/// Largest content of a config drive, in bytes.
const LIMIT: usize = 64 << 20;

/// The drive's bytes: an ISO 9660 file system.
///
/// # Errors
/// When the content is too large.
pub fn image(metadata: &Metadata) -> Result<Vec<u8>, String> {
    let view = View { metadata: metadata.clone(), ..View::default() };
    let mut files = Vec::new();
    for version in openstack::VERSIONS.into_iter().chain(["latest"]) {
        let own = openstack::VERSIONS.into_iter().rfind(|v| *v <= version).unwrap_or(version);
        for name in openstack::files(own, &view) {
            // The service alone can take a password.
            let page = openstack::file(own, name, &view).filter(|_| name != "password");
            if let Some(page) = page {
                files.push((format!("openstack/{version}/{name}"), page.body));
            }
        }
    }
    for version in ["2009-04-04", "latest"] {
        let document = ec2::document(&view).to_string().into_bytes();
        files.push((format!("ec2/{version}/meta-data.json"), document));
        if !metadata.user_data.is_empty() {
            files.push((format!("ec2/{version}/user-data"), metadata.user_data.clone()));
        }
    }
    let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    if size > LIMIT {
        return Err(format!("config drive: {size} bytes are more than {LIMIT}"));
    }
    iso9660::write("config-2", &files)
}
