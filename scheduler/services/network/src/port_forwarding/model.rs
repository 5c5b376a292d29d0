//! A forwarding: external ports of a floating IP and the socket behind them. Pure.
use serde::{Deserialize, Serialize};

/// Ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub first: u16,
    pub last: u16,
}

impl Range {
    /// `80`, or `80:90`
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some(Range { first, last })
    }
    pub fn single(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }
    pub fn text(self) -> String {
        format!("{}:{}", self.first, self.last)
    }
    pub fn meets(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
    fn more(self) -> u16 {
        self.last - self.first
    }
    /// As many inside as outside, or one for all.
    pub fn fits(self, inside: Self) -> bool {
        inside.more() == 0 || inside.more() == self.more()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortForwarding {
    pub id: String,
    pub project_id: String,
    pub floatingip_id: String,
    /// The router that the floating IP is behind.
    pub router_id: String,
    pub description: Option<String>,
    /// `tcp` or `udp`
    pub protocol: String,
    pub external: Range,
    pub internal_port_id: String,
    pub internal_ip_address: String,
    pub internal: Range,
}

impl PortForwarding {
    /// The member in which both cannot be.
    pub fn collides(&self, other: &Self) -> Option<&'static str> {
        if self.id == other.id || self.protocol != other.protocol {
            return None;
        }
        if self.floatingip_id == other.floatingip_id && self.external.meets(other.external) {
            return Some("external_port_range");
        }
        let socket = |f: &Self| (f.internal_port_id.clone(), f.internal_ip_address.clone());
        (socket(self) == socket(other) && self.internal.meets(other.internal)).then_some("internal_port_range")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(Range::parse("80"), Some(Range { first: 80, last: 80 }));
        assert_eq!(Range::parse("80:90").unwrap().text(), "80:90");
        for bad in ["0", "90:80", "80:", ":80", "1:2:3", "70000", "x", ""] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
        let range = |t| Range::parse(t).unwrap();
        assert!(range("80:90").meets(range("90:99")) && !range("80:90").meets(range("91")));
        assert!(range("80:90").fits(range("8080:8090")) && range("80:90").fits(range("22")));
        assert!(!range("80:90").fits(range("8080:8081")) && !range("80").fits(range("1:2")));
    }
}
