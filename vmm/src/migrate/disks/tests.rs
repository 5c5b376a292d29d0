//! A disk through the stream, and what is no disk.
use super::*;
use crate::memory::Memory;

const BYTES: u64 = 5 * PART + 512;

fn memory() -> Memory {
    crate::memory::map(1 << 20, false).unwrap()
}

fn file(contents: &[(u64, u8)]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(BYTES).unwrap();
    for (offset, byte) in contents {
        file.write_all_at(&[*byte; 512], *offset).unwrap();
    }
    file
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; BYTES as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Takes in what `stream` says of disk 1; it never comes to a state, so there is always an error.
fn take(stream: &[u8], to: &File) -> MigrateError {
    let other = tempfile::tempfile().unwrap();
    // Not in the order of their numbers there.
    let mut disks = vec![Landing::new("data", to, BYTES).unwrap(), Landing::new("root", &other, 0).unwrap()];
    let mut whole = Vec::new();
    wire::greet(&mut whole, &memory(), false).unwrap();
    wire::send_disk(&mut whole, 0, 0, "root").unwrap();
    wire::send_disk(&mut whole, 1, BYTES, "data").unwrap();
    whole.extend(stream);
    let mut whole = &whole[..];
    wire::welcome(&mut whole, &memory()).unwrap();
    wire::receive(&mut whole, &memory(), &mut disks).err().unwrap()
}

#[test]
fn a_disk_goes_over_and_then_what_was_written_meanwhile() {
    let from = file(&[(0, 1), (2 * PART, 2), (5 * PART, 3)]);
    // What was there before does not shine through.
    let to = file(&[(PART, 9), (3 * PART + 512, 9)]);
    let changes = Changes::new(BYTES);
    let leaving =
        Leaving { name: "data".into(), file: from.try_clone().unwrap(), bytes: BYTES, changes: changes.clone() };
    let leavings = Leavings::watch(vec![(1, leaving)]);
    let go = AtomicBool::new(false);
    let (mut stream, mut parts) = (Vec::new(), 0);
    leavings.send(&mut stream, &leavings.all(), &go, |_, carried| parts += usize::from(carried)).unwrap();
    assert_eq!(parts, 3);
    assert!((2 * PART..3 * PART).contains(&(stream.len() as u64)), "zeroes are not sent: {}", stream.len());
    assert!(matches!(take(&stream, &to), MigrateError::Stream(_)));
    assert!(contents(&to) == contents(&from));
    assert_eq!(count(&leavings.changed()), 0);
    go.store(true, Ordering::Release);
    assert!(matches!(leavings.send(&mut stream, &leavings.all(), &go, |_, _| ()), Err(MigrateError::Cancelled)));
}

#[test]
fn lies_about_disks_are_refused() {
    let to = file(&[]);
    let part = |disk, offset, bytes: &[u8]| {
        let mut stream = Vec::new();
        wire::send_part(&mut stream, disk, offset, bytes).unwrap();
        stream
    };
    let empty = |disk, offset, bytes| {
        let mut stream = Vec::new();
        wire::send_empty(&mut stream, disk, offset, bytes).unwrap();
        stream
    };
    let mut altered = part(1, 0, &[1; 512]);
    *altered.last_mut().unwrap() ^= 1;
    let named = |disk, bytes, name: &str| {
        let mut stream = Vec::new();
        wire::send_disk(&mut stream, disk, bytes, name).unwrap();
        stream
    };
    for stream in [
        named(2, BYTES, "data"),
        named(1, 0, "root"),
        named(2, 1, "root"),
        named(2, 0, "other"),
        part(2, 0, &[1; 512]),
        part(1, BYTES - 511, &[1; 512]),
        part(1, u64::MAX, &[1; 512]),
        part(0, 0, &[1]),
        part(1, 0, &[]),
        empty(1, 512, BYTES),
        empty(1, 0, 0),
        empty(7, 0, 512),
        altered,
    ] {
        assert!(matches!(take(&stream, &to), MigrateError::Nonsense(_)), "{:?}", &stream[..11]);
    }
    assert!(contents(&to).iter().all(|byte| *byte == 0));
}
