//! The program that wraps copies, run on frames of all sorts: what comes out is the frame, or the drop has its reason.
//!
//! A failure prints the seed of its case; `WRAP_SEED` runs it again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use crate::collect::{NEAR, SIX, copy, erspan, gre, half, routes, tap};
use crate::oracle::{Dice, kernel::Kernel};
use pilvi_netdev::*;

const FRAMES: usize = 4000;
const WIRE: usize = 1514;
/// `COLLECTOR_*` of `bpf/tables.h`.
const ERSPAN: u32 = 1;
const SIX_BIT: u32 = 2;

/// A frame that a guest may make up, long enough for its family: the kernel runs no program on a shorter one.
fn some_frame(dice: &mut Dice) -> Vec<u8> {
    let length = if dice.chance(30) { 54 + dice.below(12) } else { 54 + dice.below(1500 - 54) };
    let mut frame: Vec<u8> = (0..length).map(|_| u8::try_from(dice.roll() & 0xff).unwrap()).collect();
    let protocol: u16 = dice.one(&[0x0800, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x88b5]);
    frame[12..14].copy_from_slice(&protocol.to_be_bytes());
    let next = dice.one(&[47, 47, 6, 17, 0, 44]);
    let at = match protocol {
        0x0800 => {
            frame[14] = dice.one(&[0x45, 0x46, 0x4f, 0x40]);
            frame[23] = next;
            if dice.chance(80) {
                frame[20..22].fill(0);
            }
            14 + usize::from(frame[14] & 15) * 4
        }
        0x86dd => {
            frame[14] = 0x60;
            frame[20] = next;
            54
        }
        _ => return frame,
    };
    if frame.len() >= at + 4 {
        let kind: u16 = dice.one(&[0x6558, 0x88be, 0x22eb, 0x0800, 0x880b]);
        frame[at + 2..at + 4].copy_from_slice(&kind.to_be_bytes());
    }
    frame
}

/// Whether it may be a copy, as the text in collect.h says it.
fn may_be_a_copy(frame: &[u8]) -> bool {
    let (next, at) = match half(frame, 12) {
        0x0800 if frame[23] == 47 && half(frame, 20) & 0x1fff != 0 => return true,
        0x0800 => (frame[23], 14 + usize::from(frame[14] & 15) * 4),
        0x86dd => (frame[20], 54),
        _ => return false,
    };
    next == 47 && frame.len() >= at + 4 && [0x6558, 0x88be, 0x22eb].contains(&half(frame, at + 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrapped_comes_out_as_it_was() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("wrap");
    let config = cloud.node(1);
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let mut wanted = two_guests();
    apply(&plane, &wanted).await;
    routes(&cloud, &config);
    wanted.taps = [NEAR, SIX]
        .map(|to| [tap("a", true, true, to, gre(0x0102_0304)), tap("a", true, true, to, erspan(777))])
        .concat();
    apply(&plane, &wanted).await;
    let kernel = Kernel::open(&config.state_dir.join("bpf"));
    let collectors = kernel.collectors();
    assert_eq!(collectors.len(), 4);
    let seed =
        std::env::var("WRAP_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(u64::from(std::process::id()) << 32 | 1);
    let mut dice = Dice(seed);
    let (mut whole, mut cut, mut copies, mut large) = (0, 0, 0, 0);
    for n in 0..FRAMES {
        let frame = some_frame(&mut dice);
        let (name, flags, id) = dice.one(&collectors);
        let erspan = flags & ERSPAN != 0;
        let room = WIRE - 14 - if flags & SIX_BIT == 0 { 20 } else { 40 } - if erspan { 16 } else { 8 };
        let why = || format!("seed {seed}, frame {n}, flags {flags}: {frame:02x?}");
        let Some(out) = kernel.wraps(name, &frame) else {
            assert!(may_be_a_copy(&frame) || (!erspan && frame.len() > room), "{}", why());
            (copies, large) = if may_be_a_copy(&frame) { (copies + 1, large) } else { (copies, large + 1) };
            continue;
        };
        assert!(!may_be_a_copy(&frame) && out.len() <= WIRE, "{}", why());
        let copy = copy(&out).unwrap();
        assert_eq!((copy.id, copy.erspan, copy.cut), (id, erspan, frame.len() > room), "{}", why());
        assert!(erspan || !copy.cut, "{}", why());
        assert!(copy.frame == frame[..frame.len().min(room)], "{}", why());
        (whole, cut) = if copy.cut { (whole, cut + 1) } else { (whole + 1, cut) };
    }
    assert!(whole > FRAMES / 4 && cut > 0 && copies > FRAMES / 20 && large > 0, "{whole} {cut} {copies} {large}");
    // Nobody collects under such a name.
    assert_eq!(kernel.wraps(0, &some_frame(&mut dice)), None);
}
