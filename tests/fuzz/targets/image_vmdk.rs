//! VMDK: a good header with any descriptor, and any header. No path and no parent gets through.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_disk::format::vmdk;

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    let mut file = vec![0; 16 * 1024];
    file[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    file[12..20].copy_from_slice(&1000u64.to_le_bytes());
    file[28..36].copy_from_slice(&1u64.to_le_bytes());
    file[36..44].copy_from_slice(&8u64.to_le_bytes());
    let at = if which % 2 == 0 { 512 } else { 4 };
    let length = rest.len().min(file.len() - at);
    file[at..at + length].copy_from_slice(&rest[..length]);
    let found = vmdk::inspect(&file.as_slice(), &file, file.len() as u64).expect("memory can be read");
    let good = found.is_some_and(|found| found.violations.is_empty());
    if good && which % 2 == 0 {
        let text = String::from_utf8_lossy(&file[512..512 + 8 * 512]).to_lowercase();
        let text = text.split('\0').next().unwrap_or_default();
        assert!(text.contains("createtype=\""));
        let extents = text.lines().map(str::trim).filter(|line| line.starts_with("rw ") || line.starts_with("rdonly "));
        assert!(extents.clone().count() <= 1 && extents.into_iter().all(|line| !line.contains('/')));
        assert!(!text.lines().any(|line| line.trim().starts_with("parentfilenamehint")));
    }
});
