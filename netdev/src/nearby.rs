//! Neighbours on tagged wires. The kernel's neighbour table knows devices and not tags, and a device for each tag is not in
//! every kernel, so the agent asks by itself, with the tag in the frame; the programs (`bpf/wire.h`) see the answers.
//!
//! ```text
//!   packet for somebody unknown -> question on agent1 -> [this thread] -> ARP or NS with the tag -> edge link
//!   edge link -> from_edge: whoever is in `nearby` says where he is -> his row
//!   every second: rows that are not confirmed for long and in use -> asked again; nobody answers, or not in use -> row goes
//! ```
//! Rows are made by the programs and deleted here; only next hops of routers get theirs from here, so that the first packet
//! need not wait. While no agent runs, what is there serves on.
use crate::ask6::icmp6;
use crate::bpf::Map;
use crate::error::{Result, Step};
use crate::loader::open_side_table;
use crate::packet::{Bindings, packet_socket, send};
use crate::stats::now;
use crate::wire::Asker;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// `ETH_ASK` of `bpf/wire.h`.
const ETH_ASK: u16 = 0x88b5;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const SECOND: u64 = 1_000_000_000;
/// Milliseconds between looks at all rows.
const TICK: u16 = 1000;
/// How long what somebody said is believed without asking again, if he is in use.
const FRESH: u64 = 30 * SECOND;
/// Who was in use so lately is asked again.
const IN_USE: u64 = 60 * SECOND;
/// Who was not in use for so long is forgotten.
const IDLE: u64 = 300 * SECOND;
/// Questions before somebody is thought to be gone.
const TRIES: u8 = 3;
/// Between two rounds of questions to a next hop that does not answer.
const HOP_AGAIN: u64 = 10 * SECOND;
/// Rows that are looked at: as many as the table has.
const ROWS_MAX: usize = 16_384;

/// `struct nearby_key`.
type Key = [u8; 20];

fn key(vni: u32, ip: IpAddr) -> Key {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&vni.to_ne_bytes());
    let ip = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    key[4..].copy_from_slice(&ip.octets());
    key
}

fn parts(key: &Key) -> (u32, IpAddr) {
    let (vni, ip) = key.split_at(4);
    let octets: [u8; 16] = ip.try_into().unwrap_or_default();
    (u32::from_ne_bytes(vni.try_into().unwrap_or_default()), Ipv6Addr::from(octets).to_canonical())
}

/// A question of the programs: destination `02:71:<network>`, then whom it is about.
fn question(frame: &[u8]) -> Option<(u32, IpAddr)> {
    let vni = frame.strip_prefix(&[0x02, 0x71])?.first_chunk::<4>()?;
    let ip = frame.get(14..)?.first_chunk::<16>()?;
    (frame.get(12..14)? == ETH_ASK.to_be_bytes())
        .then(|| (u32::from_be_bytes(*vni), Ipv6Addr::from(*ip).to_canonical()))
}

/// What a row says: `struct nearby`.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    used: u64,
    /// 0: he has not said where he is.
    seen: u64,
}

impl Row {
    fn of(value: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_ne_bytes(*value.get(at..)?.first_chunk()?));
        Some(Self { used: word(0)?, seen: word(8)? })
    }
}

/// How often somebody was asked since he last answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tried {
    times: u8,
    last: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Act {
    Keep,
    Ask,
    Forget,
}

fn decide(now: u64, row: Row, tried: Tried, hop: bool) -> Act {
    let since = |then: u64| now.saturating_sub(then);
    if row.seen != 0 && row.seen >= tried.last && tried.times > 0 {
        // He has answered: what was asked before counts no more.
        return decide(now, row, Tried::default(), hop);
    }
    if row.seen != 0 && !hop && since(row.used) > IDLE {
        return Act::Forget;
    }
    if row.seen != 0 && (since(row.seen) < FRESH || (!hop && since(row.used) > IN_USE)) {
        return Act::Keep;
    }
    // Ticks are not exact.
    if tried.times > 0 && since(tried.last) < SECOND * 9 / 10 {
        return Act::Keep;
    }
    if tried.times < TRIES { Act::Ask } else { Act::Forget }
}

/// "Who has `ip`?", from one of our addresses in the network.
fn ask(asker: &Asker, ip: IpAddr) -> Option<Vec<u8>> {
    match ip {
        IpAddr::V4(to) => asker.v4.map(|(own, mac)| arp(own, mac, to)),
        IpAddr::V6(to) => asker.v6.map(|(own, mac)| solicitation(own, mac, to)),
    }
}

fn arp(own: Ipv4Addr, mac: [u8; 6], to: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &own.octets(), &[0; 6]].concat();
    frame.extend(to.octets());
    frame.resize(60, 0);
    frame
}

fn solicitation(own: Ipv6Addr, mac: [u8; 6], to: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = to.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let body = [&[NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &to.octets(), &[1, 1], &mac].concat();
    icmp6((own, mac), (group, [0x33, 0x33, 0xff, a, b, c]), body)
}

/// The thread that asks; it ends with this value.
pub(crate) struct Nearby {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Nearby {
    /// Listens on `punt` of the calling thread's namespace, and sends from there.
    pub fn start(punt: u32, bindings: Bindings, bpffs: &Path) -> Result<Self> {
        let rows = open_side_table(bpffs, "nearby", 20, 32, false)?;
        let fd = packet_socket(punt, ETH_ASK)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).step("open eventfd")?);
        let stopped = stop.clone();
        let mut finder = Finder { fd, rows, bindings, tried: HashMap::new() };
        let thread = std::thread::Builder::new()
            .name("nearby".into())
            .spawn(move || finder.serve(&stopped))
            .step("start the thread that asks for neighbours")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Nearby {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

struct Finder {
    fd: OwnedFd,
    rows: Map,
    bindings: Bindings,
    tried: HashMap<Key, Tried>,
}

impl Finder {
    fn serve(&mut self, stop: &EventFd) {
        let mut buffer = [0u8; 64];
        let mut looked = now();
        loop {
            // Without tagged wires there is nothing to look at.
            let wait_for = if self.bindings.wires.read().is_empty() { TICK * 5 } else { TICK };
            let mut wait =
                [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, PollTimeout::from(wait_for)) {
                Err(Errno::EINTR) => continue,
                Err(e) => return tracing::error!(error = %e, "neighbours are asked for no more"),
                Ok(_) => {}
            }
            if wait[1].any() == Some(true) {
                return;
            }
            while let Ok(length) = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                if let Some((vni, ip)) = question(&buffer[..length.min(buffer.len())]) {
                    self.ask(key(vni, ip), now());
                }
            }
            let now = now();
            if now.saturating_sub(looked) >= u64::from(TICK) * 900_000 {
                looked = now;
                if let Err(e) = self.look(now) {
                    tracing::warn!(error = %e, "neighbours not looked at");
                }
            }
        }
    }

    fn ask(&mut self, key: Key, now: u64) {
        let (vni, ip) = parts(&key);
        let wires = self.bindings.wires.read();
        let Some((asker, frame)) = wires.get(&vni).and_then(|a| Some((a, ask(a, ip)?))) else { return };
        let tried = self.tried.entry(key).or_default();
        *tried = Tried { times: tried.times.saturating_add(1), last: now };
        if let Err(e) = send(&self.fd, asker.name, &frame) {
            tracing::debug!(%ip, error = %e, "neighbour not asked for");
        }
    }

    /// Asks again, forgets, and sees that next hops have rows.
    fn look(&mut self, now: u64) -> std::io::Result<()> {
        let hops: Vec<Key> = {
            let wires = self.bindings.wires.read();
            wires.iter().flat_map(|(vni, asker)| asker.hops.iter().map(|ip| key(*vni, *ip))).collect()
        };
        let mut there: HashMap<Key, Row> = HashMap::new();
        for name in self.rows.keys(ROWS_MAX)? {
            let row = self.rows.get(&name)?.and_then(|value| Row::of(&value));
            if let (Ok(name), Some(row)) = (Key::try_from(name), row) {
                there.insert(name, row);
            }
        }
        self.tried.retain(|name, tried| there.contains_key(name) || now.saturating_sub(tried.last) < HOP_AGAIN);
        for (name, row) in &there {
            let tried = self.tried.get(name).copied().unwrap_or_default();
            if row.seen != 0 && row.seen >= tried.last {
                self.tried.remove(name);
            }
            match decide(now, *row, tried, hops.contains(name)) {
                Act::Keep => {}
                Act::Ask => self.ask(*name, now),
                Act::Forget => self.rows.delete(name)?,
            }
        }
        for name in hops.into_iter().filter(|name| !there.contains_key(name)) {
            if self.tried.contains_key(&name) {
                continue;
            }
            let row = [&now.to_ne_bytes()[..], &[0; 8], &now.to_ne_bytes(), &[0; 8]].concat();
            self.rows.put_new(&name, &row)?;
            self.ask(name, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_use_is_asked_again_and_who_does_not_answer_is_forgotten() {
        let t = 1_000 * SECOND;
        let row = |used: u64, seen: u64| Row { used: t - used * SECOND, seen: t - seen * SECOND };
        let tried = |times, ago: u64| Tried { times, last: t - ago * SECOND };
        let none = Tried::default();
        assert_eq!(decide(t, row(0, 5), none, false), Act::Keep);
        assert_eq!(decide(t, row(0, 31), none, false), Act::Ask);
        assert_eq!(decide(t, row(90, 100), none, false), Act::Keep, "not in use");
        assert_eq!(decide(t, row(90, 100), none, true), Act::Ask, "but a next hop always is");
        assert_eq!(decide(t, row(301, 400), none, false), Act::Forget);
        assert_eq!(decide(t, row(0, 40), tried(1, 0), false), Act::Keep, "one a second");
        assert_eq!(decide(t, row(0, 40), tried(2, 1), false), Act::Ask);
        assert_eq!(decide(t, row(0, 40), tried(3, 1), false), Act::Forget);
        assert_eq!(decide(t, row(0, 1), tried(3, 2), false), Act::Keep, "he has answered");
        let unknown = Row { used: t, seen: 0 };
        assert_eq!(decide(t, unknown, none, false), Act::Ask);
        assert_eq!(decide(t, unknown, tried(3, 1), true), Act::Forget);
    }

    #[test]
    fn questions_and_keys_are_as_the_programs_write_them() {
        let v4: IpAddr = [192, 0, 2, 7].into();
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        for ip in [v4, v6] {
            assert_eq!(parts(&key(9, ip)), (9, ip));
            let mut frame = vec![0x02, 0x71, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0x88, 0xb5];
            frame.extend(&key(9, ip)[4..]);
            assert_eq!(question(&frame), Some((9, ip)));
            assert_eq!(question(&frame[..29]), None);
            frame[1] = 0x70;
            assert_eq!(question(&frame), None, "another one's");
        }
    }

    #[test]
    fn questions_on_the_wire() {
        let mac = [2, 0, 0, 0, 0, 1];
        let v4 = Some(([192, 0, 2, 1].into(), mac));
        let asker = Asker { v4, v6: Some(("2001:db8::1".parse().unwrap(), mac)), ..Asker::default() };
        let frame = ask(&asker, [192, 0, 2, 7].into()).unwrap();
        assert_eq!((&frame[..6], &frame[12..14], &frame[28..32]), (&[0xff; 6][..], &[8, 6][..], &[192, 0, 2, 1][..]));
        assert_eq!(&frame[38..42], &[192, 0, 2, 7]);
        let frame = ask(&asker, "2001:db8::12:3456".parse().unwrap()).unwrap();
        assert_eq!(&frame[..6], &[0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let (length, body) = (u32::try_from(frame.len() - 54).unwrap().to_be_bytes(), &frame[54..]);
        let pseudo = [&frame[22..54], &length, &[0, 0, 0, 58]].concat();
        assert_eq!(crate::dhcp::checksum(&[&pseudo, body]), 0);
        assert_eq!(ask(&Asker::default(), [192, 0, 2, 7].into()), None, "nobody of ours is there");
    }
}
