//! The image cache against a source that stutters, lies and counts.
use super::*;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Shelf {
    bytes: Mutex<Vec<u8>>,
    /// Bytes after which a transfer breaks off; 0: never.
    breaks_after: AtomicUsize,
    fetches: AtomicUsize,
    offsets: Mutex<Vec<u64>>,
}

#[async_trait]
impl Source for Shelf {
    async fn fetch(&self, _id: &str, offset: u64) -> Result<BoxStream<'static, Result<Bytes, String>>, String> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.offsets.lock().unwrap().push(offset);
        let rest = self.bytes.lock().unwrap()[offset as usize..].to_vec();
        let cut = match self.breaks_after.load(Ordering::Relaxed) {
            0 => rest.len(),
            cut => cut.min(rest.len()),
        };
        let mut pieces: Vec<Result<Bytes, String>> =
            rest[..cut].chunks(1000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        if cut < rest.len() {
            pieces.push(Err("line cut".into()));
        }
        let slow = futures::stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            piece
        });
        Ok(slow.boxed())
    }
}

fn set_up(bytes: &[u8]) -> (tempfile::TempDir, Arc<Shelf>, Arc<Cache>, ImageRef) {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::default());
    *shelf.bytes.lock().unwrap() = bytes.to_vec();
    let cache = Arc::new(Cache::new(dir.path().to_owned(), shelf.clone(), 2));
    let image = ImageRef {
        id: "i1".into(),
        sha512: hex::encode(Sha512::digest(bytes)),
        size: bytes.len() as u64,
        disk_format: "raw".into(),
    };
    (dir, shelf, cache, image)
}

fn body() -> Vec<u8> {
    (0..50_000_u32).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn many_ask_one_fetch() {
    let (_dir, shelf, cache, image) = set_up(&body());
    let asks = (0..20).map(|_| {
        let (cache, image) = (cache.clone(), image.clone());
        tokio::spawn(async move { cache.get(&image, 0).await })
    });
    for ask in futures::future::join_all(asks).await {
        assert_eq!(std::fs::read(ask.unwrap().unwrap().path).unwrap(), body());
    }
    assert_eq!(shelf.fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_broken_transfer_is_resumed() {
    let (_dir, shelf, cache, image) = set_up(&body());
    shelf.breaks_after.store(20_000, Ordering::Relaxed);
    for _ in 0..2 {
        let error = cache.get(&image, 0).await.unwrap_err().text;
        assert!(error.contains("line cut"), "{error}");
    }
    cache.get(&image, 0).await.unwrap();
    assert_eq!(*shelf.offsets.lock().unwrap(), [0, 20_000, 40_000]);
}

#[tokio::test]
async fn wrong_bytes_are_never_used() {
    let (dir, shelf, cache, image) = set_up(&body());
    shelf.bytes.lock().unwrap()[77] ^= 1;
    let error = cache.get(&image, 0).await.unwrap_err().text;
    assert!(error.contains("SHA-512"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    shelf.bytes.lock().unwrap()[77] ^= 1;
    cache.get(&image, 0).await.unwrap();
}

#[tokio::test]
async fn too_many_bytes_are_refused() {
    let (dir, _shelf, cache, image) = set_up(&body());
    let image = ImageRef { size: 10_000, ..image };
    let error = cache.get(&image, 0).await.unwrap_err().text;
    assert!(error.contains("more bytes"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn names_are_checked() {
    let (_dir, _shelf, cache, image) = set_up(&body());
    let bad = ImageRef { id: "../../etc/passwd".into(), ..image.clone() };
    assert!(cache.get(&bad, 0).await.is_err());
    let bad = ImageRef { sha512: "../x".into(), ..image };
    assert!(cache.get(&bad, 0).await.is_err());
}

#[tokio::test]
async fn unused_images_go() {
    let (dir, _shelf, cache, image) = set_up(&body());
    cache.get(&image, 0).await.unwrap();
    let count = || std::fs::read_dir(dir.path()).unwrap().count();
    cache.collect_garbage(&BTreeSet::new(), Duration::from_secs(60)).unwrap();
    assert_eq!(count(), 1);
    cache.collect_garbage(&BTreeSet::from([key(&image).unwrap()]), Duration::ZERO).unwrap();
    assert_eq!(count(), 1);
    cache.collect_garbage(&BTreeSet::new(), Duration::ZERO).unwrap();
    assert_eq!(count(), 0);
}

/// Runs qemu-img, a judge that we did not write; `None` when the machine has none.
fn qemu_img(dir: &Path, arguments: &[&str]) -> Option<()> {
    let done = Command::new("qemu-img").args(arguments).current_dir(dir).output().ok()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(())
}

#[tokio::test]
async fn what_only_says_that_it_is_raw_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("disk");
    for format in ["qcow2", "qed", "vmdk", "vhdx", "vpc", "vdi"] {
        let made = Command::new("qemu-img").args(["create", "-q", "-f", format]).arg(&file).arg("1M").status();
        let Ok(made) = made else {
            println!("skipped: qemu-img is not installed");
            return;
        };
        assert!(made.success(), "{format}");
        let (dir, _shelf, cache, image) = set_up(&std::fs::read(&file).unwrap());
        let said = cache.get(&image, 0).await.unwrap_err().text;
        let name = if format == "vpc" { "vhd" } else { format };
        let why = format!("it is said to be raw, but its content is {name}");
        assert!(said.contains(&why) || format == "qed" && said.contains("the QED format is not allowed"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing of it is kept");
    }
    let (_dir, _shelf, cache, image) = set_up(b"QFI");
    cache.get(&image, 0).await.unwrap();
}

#[tokio::test]
async fn qcow2_becomes_raw() {
    let work = tempfile::tempdir().unwrap();
    let mut disk = vec![0; 3 << 20];
    disk[700_000..700_600].copy_from_slice(&[7; 600]);
    disk[(3 << 20) - 1] = 9;
    std::fs::write(work.path().join("raw"), &disk).unwrap();
    for extra in [&["-c"][..], &[]] {
        let mut words = vec!["convert", "-f", "raw", "-O", "qcow2"];
        words.extend(extra);
        words.extend(["raw", "q"]);
        let Some(()) = qemu_img(work.path(), &words) else {
            eprintln!("skipped: qemu-img is not installed");
            return;
        };
        let (_dir, _shelf, cache, image) = set_up(&std::fs::read(work.path().join("q")).unwrap());
        let image = ImageRef { disk_format: "qcow2".into(), ..image };
        let cached = cache.get(&image, 0).await.unwrap();
        assert_eq!(std::fs::read(&cached.path).unwrap(), disk);
        let error = cache.get(&image, 1 << 20).await.unwrap_err().text;
        assert!(error.contains("needs 1 GiB"), "{error}");
    }
}

#[tokio::test]
async fn disks_of_other_hypervisors_become_raw() {
    let work = tempfile::tempdir().unwrap();
    let mut disk = vec![0; 2 << 20];
    disk[700_000..700_600].copy_from_slice(&[7; 600]);
    std::fs::write(work.path().join("raw"), &disk).unwrap();
    for (format, driver, options) in [
        ("vmdk", "vmdk", "subformat=monolithicSparse"),
        ("vmdk", "vmdk", "subformat=streamOptimized"),
        ("vdi", "vdi", "static=off"),
        ("vhd", "vpc", "force_size=on"),
        ("vhdx", "vhdx", "subformat=dynamic"),
    ] {
        let words = ["convert", "-f", "raw", "-O", driver, "-o", options, "raw", "made"];
        let Some(()) = qemu_img(work.path(), &words) else {
            eprintln!("skipped: qemu-img is not installed");
            return;
        };
        let (dir, _shelf, cache, image) = set_up(&std::fs::read(work.path().join("made")).unwrap());
        let image = ImageRef { disk_format: format.into(), ..image };
        let small = cache.get(&image, 1 << 20).await.unwrap_err().text;
        assert!(small.contains("it needs 1 GiB, the disk has 0"), "{format}: {small}");
        let cached = cache.get(&image, 0).await.unwrap();
        let mut read = std::fs::read(&cached.path).unwrap();
        read.truncate(disk.len());
        assert!(read == disk, "{format} {options}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the disk alone is kept");
        let lied = ImageRef { id: "lied".into(), disk_format: "qcow2".into(), ..image };
        let said = cache.get(&lied, 0).await.unwrap_err().text;
        assert!(said.contains(&format!("it is said to be qcow2, but its content is {format}")), "{said}");
    }
}

#[tokio::test]
async fn qcow2_that_names_other_files_is_refused() {
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("secret"), vec![5; 1 << 20]).unwrap();
    let backing = ["create", "-f", "qcow2", "-b", "secret", "-F", "raw", "backed"];
    let Some(()) = qemu_img(work.path(), &backing) else {
        eprintln!("skipped: qemu-img is not installed");
        return;
    };
    let data = ["create", "-f", "qcow2", "-o", "data_file=secret2", "external", "1M"];
    qemu_img(work.path(), &data).unwrap();
    for name in ["backed", "external"] {
        let (dir, _shelf, cache, image) = set_up(&std::fs::read(work.path().join(name)).unwrap());
        let image = ImageRef { disk_format: "qcow2".into(), ..image };
        let error = cache.get(&image, 0).await.unwrap_err().text;
        assert!(error.contains("it fails a safety check of qcow2"), "{name}: {error}");
        assert!(!dir.path().join(format!("{}.img", key(&image).unwrap())).exists());
    }
}
