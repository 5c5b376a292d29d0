//! Labels, their rules, and what hosts have counted for them. Pure.
use crate::security_group::model::Direction;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeteringLabel {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    /// Counts for the routers of all projects and not of its own alone.
    pub shared: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeteringRule {
    pub id: String,
    pub project_id: String,
    pub metering_label_id: String,
    pub direction: Direction,
    pub excluded: bool,
    /// The older way to write one of the two below: whichever end is inside.
    pub remote_ip_prefix: Option<String>,
    pub source_ip_prefix: Option<String>,
    pub destination_ip_prefix: Option<String>,
}

impl MeteringRule {
    /// Source and destination, as they are matched. Neutron's `remote_ip_prefix` names the inside's end, which is
    /// what its drivers have always matched.
    pub fn ends(&self) -> (Option<&str>, Option<&str>) {
        let remote = self.remote_ip_prefix.as_deref();
        match (remote, self.direction) {
            (Some(remote), Direction::Ingress) => (None, Some(remote)),
            (Some(remote), Direction::Egress) => (Some(remote), None),
            (None, _) => (self.source_ip_prefix.as_deref(), self.destination_ip_prefix.as_deref()),
        }
    }

    /// Do both say something about the same packets, by `remote_ip_prefix`?
    pub fn overlaps(&self, other: &Self) -> bool {
        let net = |r: &Self| r.remote_ip_prefix.as_deref().and_then(|p| p.parse::<IpNet>().ok());
        let (Some(a), Some(b)) = (net(self), net(other)) else { return false };
        self.metering_label_id == other.metering_label_id
            && self.direction == other.direction
            && self.excluded == other.excluded
            && (a.contains(&b) || b.contains(&a))
    }
}

/// What one host has counted for one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterReading {
    pub id: String,
    pub metering_label_id: String,
    pub host: String,
    pub packets: u64,
    pub bytes: u64,
    /// What the host said last: it begins again at nothing when its tables are made anew.
    pub last_packets: u64,
    pub last_bytes: u64,
}

impl MeterReading {
    pub fn new(host: &str, label: &str) -> Self {
        MeterReading {
            id: format!("{label}/{host}"),
            metering_label_id: label.to_owned(),
            host: host.to_owned(),
            packets: 0,
            bytes: 0,
            last_packets: 0,
            last_bytes: 0,
        }
    }

    /// Takes up what the host says now; gives what is new since the last time.
    pub fn read(&mut self, packets: u64, bytes: u64) -> (u64, u64) {
        let restarted = packets < self.last_packets || bytes < self.last_bytes;
        let (from_packets, from_bytes) = if restarted { (0, 0) } else { (self.last_packets, self.last_bytes) };
        let new = (packets - from_packets, bytes - from_bytes);
        self.packets = self.packets.saturating_add(new.0);
        self.bytes = self.bytes.saturating_add(new.1);
        (self.last_packets, self.last_bytes) = (packets, bytes);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_survive_a_host_that_begins_again() {
        let mut reading = MeterReading::new("h", "l");
        assert_eq!(reading.read(10, 1000), (10, 1000));
        assert_eq!(reading.read(15, 1500), (5, 500));
        assert_eq!(reading.read(15, 1500), (0, 0));
        assert_eq!(reading.read(3, 300), (3, 300), "counted from nothing again");
        assert_eq!((reading.packets, reading.bytes), (18, 1800));
    }

    #[test]
    fn the_older_prefix_is_the_inside() {
        let rule = |direction, remote: Option<&str>| MeteringRule {
            id: "r".into(),
            project_id: "p".into(),
            metering_label_id: "l".into(),
            direction,
            excluded: false,
            remote_ip_prefix: remote.map(str::to_owned),
            source_ip_prefix: Some("192.0.2.0/24".into()),
            destination_ip_prefix: None,
        };
        assert_eq!(rule(Direction::Ingress, Some("10.0.0.0/24")).ends(), (None, Some("10.0.0.0/24")));
        assert_eq!(rule(Direction::Egress, Some("10.0.0.0/24")).ends(), (Some("10.0.0.0/24"), None));
        assert_eq!(rule(Direction::Egress, None).ends(), (Some("192.0.2.0/24"), None));
        let wide = rule(Direction::Egress, Some("10.0.0.0/8"));
        assert!(wide.overlaps(&rule(Direction::Egress, Some("10.1.0.0/16"))));
        assert!(!wide.overlaps(&rule(Direction::Ingress, Some("10.1.0.0/16"))));
    }
}
