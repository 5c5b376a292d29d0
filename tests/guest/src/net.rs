//! The network test: `smoltcp` on `virtio-drivers`' network card.

use crate::hal::{Direct, transport};
use crate::{clock, idle, say};
use alloc::rc::Rc;
use alloc::vec;
use core::cell::RefCell;
use core::str::FromStr;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, IpEndpoint, Ipv4Address, Ipv4Cidr};
use virtio_drivers::device::net::{RxBuffer, VirtIONet};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::SomeTransport;

const QUEUE: usize = 16;
const BUFFER_BYTES: usize = 2048;
const ECHO_PORT: u16 = 7;
const CONTROL_PORT: u16 = 4242;
/// Whoever cannot reach a guest asks this one to: the guest's address, then what it shall echo.
const RELAY_PORT: u16 = 4243;

type Card = VirtIONet<Direct, SomeTransport<'static>, QUEUE>;

struct Nic(Rc<RefCell<Card>>);

struct Incoming(RxBuffer, Rc<RefCell<Card>>);

struct Outgoing(Rc<RefCell<Card>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(self.0.packet());
        if self.1.borrow_mut().recycle_rx_buffer(self.0).is_err() {
            say!("net lost a buffer");
        }
        result
    }
}

impl TxToken for Outgoing {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut card = self.0.borrow_mut();
        let mut buffer = card.new_tx_buffer(len);
        let result = f(buffer.packet_mut());
        if card.send(buffer).is_err() {
            say!("net cannot send");
        }
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing)> {
        let buffer = self.0.borrow_mut().receive().ok()?;
        Some((Incoming(buffer, self.0.clone()), Outgoing(self.0.clone())))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing> {
        self.0.borrow().can_send().then(|| Outgoing(self.0.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

fn now() -> Instant {
    Instant::from_millis(clock::now_ms())
}

fn udp_socket(port: u16) -> Option<udp::Socket<'static>> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).ok()?;
    Some(socket)
}

/// Serves until asked to end. `address` replaces DHCP.
pub fn serve(address: Option<&str>) {
    let Some(card) = transport(DeviceType::Network).and_then(|t| Card::new(t, BUFFER_BYTES).ok()) else {
        say!("net none");
        return;
    };
    idle::init();
    let card = Rc::new(RefCell::new(card));
    card.borrow_mut().enable_interrupts();
    let mac = EthernetAddress(card.borrow().mac_address());
    say!("net mac {mac}");
    let mut nic = Nic(card.clone());
    let mut config = Config::new(mac.into());
    // SAFETY: every x86-64 processor has the instruction.
    config.random_seed = unsafe { core::arch::x86_64::_rdtsc() };
    let mut interface = Interface::new(config, &mut nic, now());
    let mut sockets = SocketSet::new(vec![]);
    let all = (udp_socket(ECHO_PORT), udp_socket(CONTROL_PORT), udp_socket(RELAY_PORT));
    let (Some(echo), Some(control), Some(relay)) = all else { return };
    let (echo, control, relay) = (sockets.add(echo), sockets.add(control), sockets.add(relay));
    let mut asker = None;
    let mut dhcp = None;
    match address.map(Ipv4Cidr::from_str) {
        Some(Ok(cidr)) => set_address(&mut interface, cidr),
        Some(Err(())) => say!("net bad address"),
        None => dhcp = Some(sockets.add(dhcpv4::Socket::new())),
    }
    loop {
        interface.poll(now(), &mut nic, &mut sockets);
        if let Some(handle) = dhcp {
            follow_dhcp(&mut interface, &mut sockets, handle);
        }
        answer_echo(sockets.get_mut::<udp::Socket>(echo));
        pass_on(sockets.get_mut::<udp::Socket>(relay), &mut asker);
        let asked = poweroff_asked(sockets.get_mut::<udp::Socket>(control));
        if asked || idle::asked_to_end() {
            return;
        }
        card.borrow_mut().ack_interrupt();
        if !card.borrow().can_recv() {
            idle::wait();
        }
    }
}

fn set_address(interface: &mut Interface, cidr: Ipv4Cidr) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        let _ = addresses.push(IpCidr::Ipv4(cidr));
    });
    say!("net address {cidr}");
}

fn follow_dhcp(interface: &mut Interface, sockets: &mut SocketSet<'_>, handle: SocketHandle) {
    match sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
        Some(dhcpv4::Event::Configured(lease)) => {
            set_address(interface, lease.address);
            if let Some(router) = lease.router {
                let _ = interface.routes_mut().add_default_ipv4_route(router);
                say!("net router {router}");
            }
            for server in lease.dns_servers.iter() {
                say!("net dns {server}");
            }
            say!("net lease from {}", lease.server.identifier);
        }
        Some(dhcpv4::Event::Deconfigured) => say!("net no lease"),
        None => {}
    }
}

fn answer_echo(socket: &mut udp::Socket<'_>) {
    while let Ok((data, from)) = socket.recv() {
        let data = data.to_vec();
        if socket.send_slice(&data, from.endpoint).is_err() {
            return;
        }
    }
}

/// Questions go to the guest that they name, its answers to whoever asked last.
fn pass_on(socket: &mut udp::Socket<'_>, asker: &mut Option<IpEndpoint>) {
    while let Ok((data, from)) = socket.recv() {
        let (to, data) = if from.endpoint.port == ECHO_PORT {
            (*asker, data.to_vec())
        } else if let Some((address, rest)) = data.split_first_chunk::<4>() {
            *asker = Some(from.endpoint);
            (Some((Ipv4Address::from(*address), ECHO_PORT).into()), rest.to_vec())
        } else {
            (None, vec![])
        };
        if to.is_some_and(|to| socket.send_slice(&data, to).is_err()) {
            return;
        }
    }
}

fn poweroff_asked(socket: &mut udp::Socket<'_>) -> bool {
    let mut asked = false;
    while let Ok((data, _)) = socket.recv() {
        asked |= data.trim_ascii() == b"poweroff";
    }
    asked
}
