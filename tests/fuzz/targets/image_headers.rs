//! Headers of images of every kind that is known by its first bytes: inspected whole and as a stream, with the same answer.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_disk::format::{Sketch, inspect};

const MARKS: [&[u8]; 8] =
    [b"", b"QFI\xfb\0\0\0\x02", b"QFI\xfb\0\0\0\x03", b"KDMV", b"conectix", b"LUKS\xba\xbe\0\x01", b"QED\0", b"COWD"];

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    let mut file = MARKS[usize::from(*which) % MARKS.len()].to_vec();
    file.extend_from_slice(rest);
    let whole = inspect(&file.as_slice()).expect("memory can be read");
    assert!(!whole.is_empty());
    let mut sketch = Sketch::new();
    file.chunks(1 + usize::from(*which) * 7).for_each(|chunk| sketch.update(chunk));
    assert_eq!(inspect(&sketch).expect("memory can be read"), whole);
});
