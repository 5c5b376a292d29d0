//! The virtio terminal: says a line, then echoes what is typed until `q`.

use crate::hal::{Direct, transport};
use crate::say;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::DeviceType;

/// Runs until `q` is typed.
pub fn serve() {
    let Some(transport) = transport(DeviceType::Console) else {
        say!("terminal none");
        return;
    };
    let mut console = match VirtIOConsole::<Direct, _>::new(transport) {
        Ok(console) => console,
        Err(e) => {
            say!("terminal error {e:?}");
            return;
        }
    };
    let _ = console.send_bytes(b"terminal here\n");
    loop {
        match console.recv(true) {
            Ok(Some(b'q')) => return,
            Ok(Some(byte)) => drop(console.send_bytes(&[b'<', byte, b'>', b'\n'])),
            Ok(None) => {}
            Err(e) => {
                say!("terminal error {e:?}");
                return;
            }
        }
    }
}
