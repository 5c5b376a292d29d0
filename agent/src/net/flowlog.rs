//! The log of what security groups decided on this host: a file of its own, a line for each note.
//!
//! ```text
//!  packet path --Flow--> which logs mean the port and the decision? --none--> nothing
//!                                |
//!                                v
//!                 line in <state_dir>/flow.log --larger than max_mib--> flow.log.1 (the one before goes)
//! ```
//! Lines are words of the form `name=value`, so that what reads Neutron's own finds the same names. How many notes a port
//! may cause is the packet path's business; here the file's size is bounded. A line that cannot be written is lost and said.
use super::{Flow, Plane};
use pilvi_agent_api::v1;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How long after a failure flows are asked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// The file, and how large it may become.
#[derive(Debug)]
pub struct FlowLog {
    path: PathBuf,
    most: u64,
    /// Opened when the first line comes, with its size.
    open: Option<(File, u64)>,
}

impl FlowLog {
    #[must_use]
    pub fn new(path: PathBuf, max_mib: u32) -> Self {
        Self { path, most: u64::from(max_mib) << 20, open: None }
    }

    /// Writes down what the wanted logs ask for. Never returns.
    pub async fn keep(mut self, plane: &Plane) {
        loop {
            let flows = match plane.network.flows().await {
                Ok(flows) => flows,
                Err(error) => {
                    tracing::warn!(error, "flow log");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let lines = lines(&plane.latest_logs(), &flows, SystemTime::now());
            if lines.is_empty() {
                continue;
            }
            if let Err(error) = tokio::task::block_in_place(|| self.append(&lines)) {
                tracing::warn!(%error, path = %self.path.display(), "flow log not written");
                self.open = None;
            }
        }
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= self.most) {
            self.open = None;
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            none => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
                let size = file.metadata()?.len();
                none.insert((file, size))
            }
        };
        file.write_all(lines.as_bytes())?;
        *size += lines.len() as u64;
        Ok(())
    }
}

/// A line for each flow that a log asks for.
fn lines(wanted: &[v1::FlowLog], flows: &[Flow], now: SystemTime) -> String {
    let mut out = String::new();
    for flow in flows {
        let asks = |l: &&v1::FlowLog| if flow.accepted { l.accepted } else { l.dropped };
        let logs: Vec<&v1::FlowLog> = wanted.iter().filter(asks).filter(|l| l.ports.contains(&flow.port)).collect();
        let Some(first) = logs.first() else { continue };
        let ids: Vec<&str> = logs.iter().map(|l| l.id.as_str()).collect();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let action = if flow.accepted { "ACCEPT" } else { "DROP" };
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "time={}.{:03} action={action} project_id={} log_resource_ids={} vm_port={} {}",
            since.as_secs(),
            since.subsec_millis(),
            first.project_id,
            ids.join(","),
            flow.port,
            flow.packet
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: &str, accepted: bool) -> Flow {
        Flow { port: port.into(), accepted, packet: "protocol=6".into() }
    }

    fn log(id: &str, ports: &[&str], accepted: bool, dropped: bool) -> v1::FlowLog {
        let ports = ports.iter().map(|p| (*p).to_owned()).collect();
        v1::FlowLog { id: id.into(), project_id: "p".into(), ports, accepted, dropped }
    }

    #[test]
    fn a_line_names_the_logs_that_ask_for_it() {
        let wanted = [log("all", &["a", "b"], true, true), log("drops", &["a"], false, true)];
        let flows = [flow("a", false), flow("a", true), flow("b", false), flow("c", true)];
        let said = lines(&wanted, &flows, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        let words: Vec<&str> = said.lines().map(|l| l.split(' ').nth(3).unwrap()).collect();
        assert_eq!(words, ["log_resource_ids=all,drops", "log_resource_ids=all", "log_resource_ids=all"]);
        assert!(
            said.starts_with("time=1.500 action=DROP project_id=p log_resource_ids=all,drops vm_port=a protocol=6\n")
        );
    }

    #[test]
    fn the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flow.log");
        let mut log = FlowLog::new(path.clone(), 1);
        let block = format!("{}\n", "x".repeat(400 * 1024));
        for _ in 0..7 {
            log.append(&block).unwrap();
        }
        let size = |path: PathBuf| std::fs::metadata(path).unwrap().len();
        assert_eq!(size(path.clone()), block.len() as u64);
        assert_eq!(size(path.with_extension("log.1")), 3 * block.len() as u64);
        // A file of an earlier life is gone on with.
        FlowLog::new(path.clone(), 1).append("y\n").unwrap();
        assert_eq!(size(path), block.len() as u64 + 2);
    }
}
