//! Looks whether a disk starts, by its kernel or its boot sector: a process of pilvi-vmm reads it in its jail, before anything is started.
use super::{Kvm, failed, io};
use crate::runtime::RuntimeError;
use pilvi_vmm::boot::probe::Boots;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long a look at a disk may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

impl Kvm {
    pub(super) async fn look_at(&self, disk: &Path, properties: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        let mut argv: Vec<OsString> = self.command.iter().map(OsString::from).collect();
        argv.extend(["boots".into(), disk.as_os_str().to_owned()]);
        argv.extend(self.user.iter().flat_map(|user| [user.uid, user.gid]).map(|id| id.to_string().into()));
        let (program, arguments) = argv.split_first().ok_or_else(|| failed("pilvi-vmm is not configured"))?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(LOOK_LIMIT, command.output()).await;
        let output = output.map_err(|_| failed("looking at the disk took too long"))?.map_err(io("pilvi-vmm"))?;
        match serde_json::from_slice::<Boots>(&output.stdout) {
            Ok(boots) => self.judge(&boots, properties).map_err(failed),
            Err(_) => {
                let said: String = String::from_utf8_lossy(&output.stderr).chars().take(600).collect();
                Err(failed(format!("looking at the disk failed ({}): {}", output.status, said.trim())))
            }
        }
    }
}
