//! The text that WireGuard's user-space implementations speak on their socket (the cross-platform interface).
//!
//! ```text
//!   get=1\n\n                    -> private_key=..\nlisten_port=..\npublic_key=..\nendpoint=..\nallowed_ip=..\n ... errno=0\n\n
//!   set=1\n<what changes>\n\n    -> errno=0\n\n
//! ```
//! Keys are in hexadecimal. What comes before the first `public_key` is the device's, what follows one is that peer's.
use super::PrivateKey;
use super::plan::{Device, Peer, Step};
use crate::error::{Error, Result, Step as _};
use crate::wanted::PublicKey;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the program has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read at most: some 200 for each peer.
const LIMIT: u64 = 64 << 20;

pub fn read(socket: &Path) -> Result<Device> {
    parse(&ask(socket, "get=1\n\n")?)
        .ok_or_else(|| Error::Config(format!("{}: an answer that is none", socket.display())))
}

pub fn write(socket: &Path, steps: &[Step]) -> Result<()> {
    ask(socket, &render(steps)).map(drop)
}

/// The lines of an answer without its `errno`.
fn ask(socket: &Path, question: &str) -> Result<String> {
    let step = || format!("ask {}", socket.display());
    let mut stream = UnixStream::connect(socket).step(step())?;
    stream.set_read_timeout(Some(PATIENCE)).step(step())?;
    stream.set_write_timeout(Some(PATIENCE)).step(step())?;
    stream.write_all(question.as_bytes()).step(step())?;
    let mut answer = String::new();
    for line in BufReader::new(stream.take(LIMIT)).lines() {
        let line = line.step(step())?;
        match line.strip_prefix("errno=") {
            Some("0") => return Ok(answer),
            Some(number) => {
                let number = number.parse::<i32>().map_or(libc::EIO, i32::abs);
                return Err(std::io::Error::from_raw_os_error(number)).step(step());
            }
            None => {
                answer.push_str(&line);
                answer.push('\n');
            }
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).step(step())
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Text takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn key(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn allowed(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

fn parse(text: &str) -> Option<Device> {
    let mut device = Device::default();
    let mut peer: Option<&mut Peer> = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        match (line.split_once('=')?, &mut peer) {
            (("private_key", value), None) => device.key = Some(PrivateKey::new(key(value)?)),
            (("listen_port", value), None) => device.port = value.parse().ok()?,
            (("public_key", value), _) => peer = Some(device.peers.entry(PublicKey(key(value)?)).or_default()),
            (("endpoint", value), Some(peer)) => peer.endpoint = Some(value.parse::<SocketAddr>().ok()?),
            (("allowed_ip", value), Some(peer)) => {
                peer.allowed.insert(allowed(value)?);
            }
            // Counters, times and what later versions add.
            _ => {}
        }
    }
    Some(device)
}

fn render(steps: &[Step]) -> String {
    let mut lines = vec!["set=1".to_owned()];
    for step in steps {
        match step {
            Step::Key(key) => lines.push(format!("private_key={}", hex(&key.bytes()))),
            Step::Port(port) => lines.push(format!("listen_port={port}")),
            Step::Remove(key) => lines.extend([format!("public_key={}", hex(&key.0)), "remove=true".to_owned()]),
            Step::Put(key, peer) => {
                lines.push(format!("public_key={}", hex(&key.0)));
                lines.extend(peer.endpoint.map(|endpoint| format!("endpoint={endpoint}")));
                lines.push("replace_allowed_ips=true".to_owned());
                lines.extend(peer.allowed.iter().map(|(ip, prefix)| format!("allowed_ip={ip}/{prefix}")));
            }
        }
    }
    lines.join("\n") + "\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn two() -> Device {
        let peer = |n: u8| {
            let address = IpAddr::from([192, 0, 2, n]);
            Peer { endpoint: Some(SocketAddr::new(address, 51820)), allowed: BTreeSet::from([(address, 32)]) }
        };
        let peers = [2, 3].map(|n| (PrivateKey::new([n; 32]).public(), peer(n)));
        Device { key: Some(PrivateKey::new([1; 32])), port: 51820, peers: peers.into() }
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let text = render(&crate::wireguard::plan::steps(&two(), &Device::default()));
        assert!(text.starts_with("set=1\nprivate_key=0001") && text.ends_with("/32\n\n"), "{text}");
        // The answer to a question has the same lines, and more.
        let answer =
            text.trim_start_matches("set=1\n").replace("replace_allowed_ips=true", "rx_bytes=7\nprotocol_version=1");
        assert_eq!(parse(&answer), Some(two()));
    }

    #[test]
    fn a_peer_goes_by_its_key_alone() {
        let gone = PublicKey([0xab; 32]);
        assert_eq!(render(&[Step::Remove(gone)]), format!("set=1\npublic_key={}\nremove=true\n\n", "ab".repeat(32)));
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        for bad in ["x", "private_key=00", "public_key=é", "listen_port=70000", "public_key="] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let peer = format!("public_key={}\n", "00".repeat(32));
        for bad in ["endpoint=nowhere", "allowed_ip=192.0.2.1", "allowed_ip=192.0.2.1/x"] {
            assert_eq!(parse(&format!("{peer}{bad}")), None, "{bad}");
        }
        assert_eq!(parse(""), Some(Device::default()), "a device that is new");
    }
}
