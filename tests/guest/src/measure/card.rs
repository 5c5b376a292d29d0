//! Frames to and from a card: UDP between two fixed addresses, built once. Everything else that comes is passed over.

use super::ring::{self, Piece, Ring};
use super::{DATA, Task, Until};
use virtio_drivers::transport::{SomeTransport, Transport};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// The virtio header before every frame.
const HEADER: usize = 12;
/// Ethernet, IPv4 and UDP.
const HEADS: usize = 14 + 20 + 8;
const ROOM: usize = 1 << 17;
const DEPTH_MAX: u16 = 128;
const SENT: usize = DATA + ROOM * DEPTH_MAX as usize;
const HOST: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [192, 0, 2, 1]);
const GUEST: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 2], [192, 0, 2, 2]);
const PORT: u16 = 7;

/// A card.
pub struct Card {
    transport: SomeTransport<'static>,
    receive: Ring,
    transmit: Ring,
}

fn bytes_at(address: usize, length: usize) -> &'static mut [u8] {
    // SAFETY: memory that nothing else of this guest lies in, mapped one to one; the device is done with it, or has not begun.
    unsafe { core::slice::from_raw_parts_mut(address as *mut u8, length) }
}

/// A frame of so many bytes to the host, after an empty virtio header.
fn build(address: usize, length: usize) {
    let all = bytes_at(address, HEADER + length);
    all.fill(0);
    let frame = &mut all[HEADER..];
    frame[..6].copy_from_slice(&HOST.0);
    frame[6..12].copy_from_slice(&GUEST.0);
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&GUEST.1);
    frame[30..34].copy_from_slice(&HOST.1);
    let words = frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&PORT.to_be_bytes());
    frame[36..38].copy_from_slice(&PORT.to_be_bytes());
    frame[38..40].copy_from_slice(&((length - 34) as u16).to_be_bytes());
}

impl Card {
    /// Takes it into use.
    pub fn new(mut transport: SomeTransport<'static>) -> Card {
        let features = ring::begin(&mut transport, 0);
        let receive = Ring::new(&mut transport, RECEIVE, features);
        let transmit = Ring::new(&mut transport, TRANSMIT, features);
        transport.finish_init();
        Card { transport, receive, transmit }
    }

    /// Does a task; how many frames went through.
    pub fn run(&mut self, task: &Task<'_>) -> u64 {
        let (length, depth) = ((task.bytes as usize).clamp(60, ROOM - HEADER), task.depth.clamp(1, DEPTH_MAX));
        match task.what {
            "send" => self.send(length, depth, &Until::after(task.ms)),
            echo => self.take(length, depth, &Until::after(task.ms), echo == "echo"),
        }
    }

    fn send(&mut self, length: usize, depth: u16, until: &Until) -> u64 {
        for n in 0..depth {
            let address = SENT + usize::from(n) * ROOM;
            build(address, length);
            self.transmit.lay(n, &[Piece { address, length: (HEADER + length) as u32, writable: false }]);
            self.transmit.add(n);
        }
        let (mut done, mut under_way, mut over) = (0, depth, false);
        while under_way > 0 {
            self.transmit.notify(&mut self.transport);
            over = over || until.is_over();
            while let Some((n, _)) = self.transmit.next() {
                done += 1;
                if over {
                    under_way -= 1;
                } else {
                    self.transmit.add(n);
                }
            }
            core::hint::spin_loop();
        }
        done
    }

    /// The buffers stay with the device when the time is over, so a card takes but once.
    fn take(&mut self, length: usize, depth: u16, until: &Until, echo: bool) -> u64 {
        for n in 0..depth {
            let address = DATA + usize::from(n) * ROOM;
            self.receive.lay(n, &[Piece { address, length: (HEADER + length) as u32, writable: true }]);
            self.receive.add(n);
        }
        self.receive.notify(&mut self.transport);
        build(SENT, length);
        let mut done = 0;
        while !until.is_over() {
            while let Some((n, written)) = self.receive.next() {
                let frame = bytes_at(DATA + usize::from(n) * ROOM + HEADER, HEADS);
                if written as usize >= HEADER + HEADS && frame[12..14] == [8, 0] && frame[23] == 17 {
                    done += 1;
                    if echo {
                        self.answer(frame, written as usize - HEADER);
                    }
                }
                self.receive.add(n);
            }
            self.receive.notify(&mut self.transport);
            core::hint::spin_loop();
        }
        done
    }

    /// Sends as many bytes back to the port that asked, and waits until the frame is gone.
    fn answer(&mut self, asked: &[u8], length: usize) {
        build(SENT, length);
        bytes_at(SENT + HEADER + 36, 2).copy_from_slice(&asked[34..36]);
        self.transmit.lay(0, &[Piece { address: SENT, length: (HEADER + length) as u32, writable: false }]);
        self.transmit.add(0);
        self.transmit.notify(&mut self.transport);
        while self.transmit.next().is_none() {
            core::hint::spin_loop();
        }
    }
}
