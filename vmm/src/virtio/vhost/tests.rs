//! Against a backend of a few lines, which notes what it is told.

use super::message::{self, Ask, HEAD};
use super::shape::Shape;
use super::*;
use crate::memory;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread::JoinHandle;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26 | 1 << 12 | 1 << 9;
const PROTOCOL: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12 | 1 << 16;

/// What was told: request, body, number of descriptors.
type Told = Arc<Mutex<Vec<(u32, Vec<u8>, usize)>>>;

struct Fake {
    told: Told,
    /// Another end of the same socket: shut down, it is as if the backend had died.
    plug: UnixStream,
    thread: JoinHandle<Option<UnixStream>>,
}

impl Fake {
    fn start(features: u64, sectors: u64) -> (Fake, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let told = Told::default();
        let (plug, noted) = (theirs.try_clone().unwrap(), told.clone());
        let thread = std::thread::spawn(move || serve(theirs, features, sectors, &noted));
        (Fake { told, plug, thread }, ours.into())
    }

    /// The requests since the last question.
    fn heard(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.told)).into_iter().map(|told| told.0).collect()
    }

    fn body(&self, ask: Ask) -> (Vec<u8>, usize) {
        let told = lock(&self.told);
        let found = told.iter().rev().find(|told| told.0 == ask as u32);
        found.map(|told| (told.1.clone(), told.2)).unwrap()
    }

    /// Dies; the channel that it had been given.
    fn die(self) -> Option<UnixStream> {
        self.plug.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.join().unwrap()
    }
}

fn serve(mut socket: UnixStream, features: u64, sectors: u64, told: &Told) -> Option<UnixStream> {
    let mut channel = None;
    loop {
        let (mut head, mut fds) = ([0u8; HEAD], [-1; 8]);
        let mut part = [libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: HEAD }];
        // SAFETY: the vector lives on this stack; what comes is owned once.
        let files: Vec<OwnedFd> = unsafe {
            match socket.recv_with_fds(&mut part, &mut fds) {
                Ok((HEAD, count)) => fds[..count].iter().map(|fd| OwnedFd::from_raw_fd(*fd)).collect(),
                _ => return channel,
            }
        };
        let head = message::head(&head).unwrap();
        let mut body = vec![0; head.bytes];
        socket.read_exact(&mut body).unwrap();
        lock(told).push((head.request, body.clone(), files.len()));
        let value = |value: u64| Some(value.to_le_bytes().to_vec());
        let answer = match head.request {
            1 => value(features),
            15 => value(PROTOCOL),
            17 => value(4),
            24 => {
                body[12..20].copy_from_slice(&sectors.to_le_bytes());
                Some(body.clone())
            }
            // It has read five.
            11 => value(u64::from(body[0]) | 5 << 32),
            31 => Some([4096u64.to_le_bytes(), [0; 8], [1, 0, 0, 1, 0, 0, 0, 0]].concat()),
            6 => value(0),
            _ => head.need_reply.then(|| vec![0; 8]),
        };
        let Some(answer) = answer else { continue };
        let mut out: Vec<u8> =
            [head.request, 1 | 4, answer.len() as u32].iter().flat_map(|w| w.to_le_bytes()).collect();
        out.extend(answer);
        if head.request == 31 {
            let file = memory::sealed_file("notes", 4096).unwrap();
            socket.send_with_fd(&out[..], file.as_raw_fd()).unwrap();
        } else {
            socket.write_all(&out).unwrap();
        }
        if head.request == 21 {
            channel = files.into_iter().next().map(UnixStream::from);
        }
    }
}

fn disk(queues: u16) -> Shape {
    Shape { kind: Kind::Disk { read_only: false }, queues }
}

fn device(link: &Arc<Link>) -> VhostUser {
    let mut device = VhostUser::new(link.clone(), Arc::default()).unwrap();
    device.take_kicks(device.calls.events().iter().map(|_| EventFd::new(libc::EFD_NONBLOCK).unwrap()).collect());
    device
}

fn queue() -> Queue {
    let mut queue = Queue::new(256).unwrap();
    queue.try_set_desc_table_address(GuestAddress(0x1_0000)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(0x2_0000)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(0x3_0000)).unwrap();
    queue.set_ready(true);
    queue
}

#[test]
fn queues_are_handed_over_taken_back_and_handed_to_the_next() {
    let memory = memory::map_shared(1 << 20, false).unwrap();
    let (fake, socket) = Fake::start(FEATURES, 8);
    let link = Link::open("disk0", socket, disk(1)).unwrap();
    assert_eq!((link.bytes(), link.is_connected()), (Some(4096), true));
    let (mut device, mut queues) = (device(&link), [queue()]);
    fake.heard();
    device.activate(1 << 32 | 1 << 9);
    device.host_ready(&mut queues, &memory).unwrap();
    // Features, memory, notes; size, base, place, call, kick, on; status.
    let (features, _) = fake.body(Ask::SetFeatures);
    assert_eq!(message::long(&features), Some(1 << 32 | 1 << 30 | 1 << 9));
    let (table, files) = fake.body(Ask::SetMemTable);
    assert_eq!((table.len(), files, table[0]), (40, 1, 1));
    let (place, _) = fake.body(Ask::SetVringAddr);
    assert_eq!(message::long(&place[8..]), Some(0x1_0000 + (1 << 44)), "no address of ours");
    assert_eq!(fake.body(Ask::SetVringKick).1 + fake.body(Ask::SetVringCall).1, 2);
    assert_eq!(fake.heard(), [31, 2, 5, 32, 8, 10, 9, 13, 12, 18, 39]);
    // An interrupt is passed on once.
    device.calls.events()[0].write(1).unwrap();
    assert_eq!(device.host_ready(&mut queues, &memory).unwrap().used, 1);
    assert_eq!(device.host_ready(&mut queues, &memory).unwrap().used, 0);
    memory.write_obj(5u16, GuestAddress(0x3_0002)).unwrap();
    // The gate shuts: how far it was read is in the queue, and everything can be written down.
    device.rest(&mut queues);
    assert_eq!((queues[0].next_avail(), fake.heard()), (5, vec![11]));
    assert!(device.save().is_ok() && device.can_move().is_ok());
    device.host_ready(&mut queues, &memory).unwrap();
    assert_eq!(fake.heard(), [0u32; 0], "not while it rests");
    device.go_on();
    device.host_ready(&mut queues, &memory).unwrap();
    assert_eq!(fake.body(Ask::SetVringBase).0, [0, 0, 0, 0, 5, 0, 0, 0]);
    // It dies; the used ring says how far it came, and its notes go to the next.
    fake.die();
    device.host_ready(&mut queues, &memory).unwrap();
    assert!(!link.is_connected() && device.save().is_err() && device.can_move().is_err());
    memory.write_obj(9u16, GuestAddress(0x3_0002)).unwrap();
    let (less, socket) = Fake::start(FEATURES & !(1 << 9), 8);
    link.give(socket);
    device.host_ready(&mut queues, &memory).unwrap();
    assert!(!link.is_connected(), "it cannot flush");
    less.die();
    let (next, socket) = Fake::start(FEATURES, 8);
    link.give(socket);
    device.host_ready(&mut queues, &memory).unwrap();
    assert_eq!(next.body(Ask::SetVringBase).0, [0, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(next.body(Ask::SetInflightFd).1, 1);
    assert!(!next.heard().contains(&(Ask::GetInflightFd as u32)));
    memory.write_obj(5u16, GuestAddress(0x3_0002)).unwrap();
    // The driver resets: nothing is left of it.
    device.reset();
    assert_eq!(next.heard(), [11, 39]);
    drop(device);
    assert!(lock(&link.idle).is_some(), "the next machine has the connection");
    next.die();
}

#[test]
fn a_backend_tells_of_its_new_length_and_logs_what_it_writes() {
    let memory = memory::map_shared(1 << 20, false).unwrap();
    let (fake, socket) = Fake::start(FEATURES, 8);
    let link = Link::open("disk0", socket, disk(1)).unwrap();
    let (mut device, mut queues) = (device(&link), [queue()]);
    device.activate(1 << 32);
    device.host_ready(&mut queues, &memory).unwrap();
    fake.heard();
    memory.write_obj(5u16, GuestAddress(0x3_0002)).unwrap();
    let log = Arc::new(Log::new(&memory).unwrap());
    device.log_writes(&queues, Some(log)).unwrap();
    assert_eq!(fake.body(Ask::SetVringAddr).0[4], 1);
    assert_eq!(fake.heard(), [6, 2, 9]);
    device.log_writes(&queues, None).unwrap();
    assert_eq!(fake.body(Ask::SetVringAddr).0[4], 0);
    assert_eq!(fake.heard(), [2, 9]);
    device.write_config(0, &[1]);
    device.write_config(32, &[1]);
    assert_eq!(fake.heard(), [25, 24]);
    let mut channel = fake.die().unwrap();
    // What it has said before it died is still heard, and asking it then is its end.
    channel.write_all(&message::put(2, 1, &[])).unwrap();
    device.host_ready(&mut queues, &memory).unwrap();
    assert!(!link.is_connected());
    // One with a shorter disk is another disk; a longer one is told of.
    let (shorter, socket) = Fake::start(FEATURES, 7);
    link.give(socket);
    device.host_ready(&mut queues, &memory).unwrap();
    assert!(!link.is_connected());
    shorter.die();
    let (longer, socket) = Fake::start(FEATURES, 16);
    link.give(socket);
    assert!(device.host_ready(&mut queues, &memory).unwrap().changed);
    assert_eq!(link.bytes(), Some(8192));
    drop(device);
    longer.die();
}

#[test]
fn what_cannot_serve_is_refused_and_private_memory_is_not_given_away() {
    let (fake, socket) = Fake::start(1 << 30, 8);
    assert!(Link::open("disk0", socket, disk(1)).unwrap_err().to_string().contains("virtio 1.0"));
    fake.die();
    let (fake, socket) = Fake::start(FEATURES | 1 << 12, 8);
    assert!(Link::open("disk0", socket, disk(5)).unwrap_err().to_string().contains("4 queues, not 5"));
    fake.die();
    let (fake, socket) = Fake::start(FEATURES, 8);
    let link = Link::open("disk0", socket, disk(1)).unwrap();
    let (mut device, mut queues) = (device(&link), [queue()]);
    device.activate(1 << 32);
    device.host_ready(&mut queues, &memory::map(1 << 20, false).unwrap()).unwrap();
    assert!(!fake.heard().contains(&(Ask::SetMemTable as u32)) && !link.is_connected());
    fake.die();
    // A share that is used stays where it is.
    let (fake, socket) = Fake::start(FEATURES, 8);
    let link = Link::open("share0", socket, Shape { kind: Kind::Share { tag: "a".into() }, queues: 1 }).unwrap();
    let mut device = self::device(&link);
    assert!(device.save().is_ok() && device.can_move().is_ok());
    device.activate(1 << 32);
    assert!(device.save().is_err() && device.can_move().unwrap_err().contains("open files"));
    fake.die();
}

proptest! {
    /// As the fuzz target does: a device over a backend that says this, through all of its life.
    #[test]
    fn whatever_a_backend_says_is_survived(
        protocol in any::<u16>(),
        kinds in proptest::collection::vec(0u32..40, 0..20),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        framed in any::<bool>(),
    ) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let agreed = u64::from(protocol) & !(message::P_REPLY_ACK | message::P_BACKEND_REQ | message::P_MQ);
        let mut said = message::reply(Ask::GetFeatures as u32, FEATURES);
        said.extend(message::reply(Ask::GetProtocolFeatures as u32, agreed | message::P_CONFIG));
        let mut config = message::message(Ask::GetConfig, false, &[7; 72]);
        config[4] = 5;
        said.extend(config);
        if framed {
            let pieces = bytes.chunks(8).zip(kinds.iter().chain([11, 31, 6, 11].iter().cycle()));
            pieces.for_each(|(piece, kind)| said.extend(message::put(*kind, 5, piece)));
        } else {
            said.extend(&bytes);
        }
        theirs.write_all(&said).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let link = Link::open("disk0", ours.into(), disk(1)).unwrap();
        let memory = memory::map_shared(1 << 20, false).unwrap();
        let (mut device, mut queues) = (device(&link), [queue()]);
        device.patience = Duration::from_millis(20);
        device.activate(1 << 32);
        for _ in 0..2 {
            device.host_ready(&mut queues, &memory).unwrap();
            device.write_config(32, &[1]);
            device.rest(&mut queues);
            let _ = (device.save(), device.can_move());
            device.go_on();
        }
        device.reset();
        let (mut channel, mut end) = wire::Channel::new().unwrap();
        end.write_all(&bytes).unwrap();
        let _ = channel.take();
    }
}
