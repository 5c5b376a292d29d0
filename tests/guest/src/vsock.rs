//! vsock: calls port 1024 of the host, and echoes on port 52 until somebody says `bye`.

use crate::hal::{Direct, transport};
use crate::say;
use virtio_drivers::device::socket::{VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEventType};
use virtio_drivers::transport::DeviceType;

/// The host.
const HOST: VsockAddr = VsockAddr { cid: 2, port: 1024 };
const OWN_PORT: u32 = 4000;

/// Runs until `bye`.
pub fn serve() {
    let Some(transport) = transport(DeviceType::Socket) else {
        say!("vsock none");
        return;
    };
    let socket = match VirtIOSocket::<Direct, _>::new(transport) {
        Ok(socket) => socket,
        Err(e) => {
            say!("vsock error {e:?}");
            return;
        }
    };
    let mut sockets = VsockConnectionManager::new(socket);
    say!("vsock cid={}", sockets.guest_cid());
    sockets.listen(52);
    if let Err(e) = sockets.connect(HOST, OWN_PORT) {
        say!("vsock connect error {e:?}");
    }
    loop {
        let event = match sockets.poll() {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(e) => {
                say!("vsock error {e:?}");
                return;
            }
        };
        let (peer, port) = (event.source, event.destination.port);
        match event.event_type {
            VsockEventType::Connected => {
                say!("vsock connected to {}", peer.port);
                let _ = sockets.send(peer, port, b"the guest calls\n");
            }
            VsockEventType::ConnectionRequest => say!("vsock call on {port}"),
            VsockEventType::Disconnected { .. } => say!("vsock end of {}", peer.port),
            VsockEventType::Received { .. } => {
                let mut bytes = [0u8; 512];
                let count = sockets.recv(peer, port, &mut bytes).unwrap_or(0);
                if bytes[..count].starts_with(b"bye") {
                    let _ = sockets.shutdown(peer, port);
                    return;
                }
                if let Err(e) = sockets.send(peer, port, &bytes[..count]) {
                    say!("vsock send error {e:?}");
                }
                let _ = sockets.update_credit(peer, port);
            }
            VsockEventType::CreditRequest | VsockEventType::CreditUpdate => {}
        }
    }
}
