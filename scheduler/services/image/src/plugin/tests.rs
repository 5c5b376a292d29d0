//! Plug-ins on files that other programs made: gzip, xz, Python's zipfile, qemu-img.
use super::*;
use pilvi_disk::format::Source;
use std::{io::Write, process::Command};

const SIZE: u64 = 1 << 20;

fn limits() -> Limits {
    Limits {
        size_max: 8 * SIZE,
        rules: Rules {
            virtual_max: 64 * SIZE,
            match_format: true,
            gpt_nonfatal: vec![],
            vmdk_types: vec!["monolithicSparse".into(), "streamOptimized".into()],
            raw_discs: true,
        },
    }
}

/// A disk with something in it, which compresses well.
fn disk() -> Vec<u8> {
    (0..SIZE).map(|i| if i % 4096 == 7 { (i / 4096) as u8 } else { 0 }).collect()
}

/// False where the program is not installed.
fn program(directory: &Path, name: &str, words: &[&str]) -> bool {
    match Command::new(name).args(words).current_dir(directory).output() {
        Ok(done) => {
            assert!(done.status.success(), "{name} {words:?}: {}", String::from_utf8_lossy(&done.stderr));
            true
        }
        Err(_) => {
            println!("skipped: no {name} here");
            false
        }
    }
}

fn image(disk_format: &str) -> Image {
    let mut image = Image::new("i".into(), None);
    (image.disk_format, image.container_format) = (Some(disk_format.into()), Some("bare".into()));
    image
}

fn ran(plugins: &[Plugin], output: Output, format: &str, file: &Path) -> Result<Work, Fault> {
    let settings =
        Settings { plugins: plugins.to_vec(), output_format: output, convert_seconds: 100, ..Settings::default() };
    let mut work = Work::new(&image(format), file, "t");
    run(&settings, &limits(), &[], file, &mut work).map(|()| work)
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("work"))
        .count()
}

#[test]
fn packed_disks_are_unpacked() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    std::fs::write(at.join("disk"), disk()).unwrap();
    let zip = "import zipfile,sys; z=zipfile.ZipFile(sys.argv[1],'w',zipfile.ZIP_DEFLATED); z.write('disk')";
    let piped = "import zipfile,sys; z=zipfile.ZipFile(open(sys.argv[1],'wb'),'w',zipfile.ZIP_DEFLATED); f=z.open('disk','w',force_zip64=True); f.write(open('disk','rb').read()); f.close(); z.close()";
    let made = [
        ("a.gz", program(at, "sh", &["-c", "gzip -c disk > a.gz"])),
        (
            "b.gz",
            program(at, "sh", &["-c", "head -c 500000 disk | gzip -c > b.gz; tail -c +500001 disk | gzip -c >> b.gz"]),
        ),
        ("a.xz", program(at, "sh", &["-c", "command -v xz >/dev/null && xz -k -c disk > a.xz || true"])),
        (
            "a.lzma",
            program(at, "sh", &["-c", "command -v xz >/dev/null && xz --format=lzma -k -c disk > a.lzma || true"]),
        ),
        ("a.zip", program(at, "python3", &["-c", zip, "a.zip"])),
        ("b.zip", program(at, "python3", &["-c", piped, "b.zip"])),
        ("disk", true),
    ];
    for (name, there) in made {
        let file = at.join(name);
        if !there || std::fs::metadata(&file).map_or(0, |m| m.len()) == 0 {
            continue;
        }
        let work = ran(&[Plugin::Decompression], Output::Raw, "raw", &file).unwrap();
        assert!(std::fs::read(&work.path).unwrap() == disk(), "{name}");
        assert_eq!(work.path != file, name != "disk", "{name}");
        if name == "disk" {
            continue;
        }
        let tight = Limits { size_max: SIZE - 1, ..limits() };
        let settings = Settings { plugins: vec![Plugin::Decompression], ..Settings::default() };
        let mut work = Work::new(&image("raw"), &file, "t");
        assert_eq!(run(&settings, &tight, &[], &file, &mut work).unwrap_err().code(), 415, "{name} is too large");
        let mut broken = std::fs::read(&file).unwrap();
        let middle = broken.len() / 2;
        broken.truncate(middle);
        std::fs::write(at.join("broken"), broken).unwrap();
        assert!(ran(&[Plugin::Decompression], Output::Raw, "raw", &at.join("broken")).is_err(), "{name} broken off");
    }
    assert_eq!(files(at), 0);
}

#[test]
fn archives_of_several_files_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let script = "import zipfile; z=zipfile.ZipFile('a.zip','w'); z.writestr('a','1'); z.writestr('b','2')";
    if program(home.path(), "python3", &["-c", script]) {
        let refused = ran(&[Plugin::Decompression], Output::Raw, "raw", &home.path().join("a.zip")).unwrap_err();
        assert!(refused.message.contains("one file"), "{}", refused.message);
    }
    std::fs::File::create(home.path().join("b.zip")).unwrap().write_all(b"PK\x03\x04nothing").unwrap();
    assert!(ran(&[Plugin::Decompression], Output::Raw, "raw", &home.path().join("b.zip")).is_err());
}

#[test]
fn disks_are_converted() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    std::fs::write(at.join("disk"), disk()).unwrap();
    let made = |driver: &str, options: &str, name: &str| {
        let mut words = vec!["convert", "-f", "raw", "-O", driver];
        if !options.is_empty() {
            words.extend(["-o", options]);
        }
        words.extend(["disk", name]);
        program(at, "qemu-img", &words)
    };
    for (format, driver, options) in [
        ("raw", "raw", ""),
        ("qcow2", "qcow2", ""),
        ("vmdk", "vmdk", "subformat=monolithicSparse"),
        ("vmdk", "vmdk", "subformat=streamOptimized"),
        ("vdi", "vdi", ""),
        ("vhdx", "vhdx", ""),
        ("vhd", "vpc", "force_size=on"),
    ] {
        let name = format!("{driver}.image");
        if !made(driver, options, &name) {
            return;
        }
        for output in [Output::Raw, Output::Qcow2] {
            let work = ran(&[Plugin::Conversion], output, format, &at.join(&name)).unwrap();
            assert_eq!(work.disk_format, output.format().name(), "{format} {options}");
            let mut raw = work.path.clone();
            if output == Output::Qcow2 {
                raw = at.join("back");
                program(at, "qemu-img", &["convert", "-f", "qcow2", "-O", "raw", work.path.to_str().unwrap(), "back"]);
            }
            let mut read = std::fs::read(raw).unwrap();
            read.truncate(SIZE as usize);
            assert!(read == disk(), "{format} {options} to {output:?}");
        }
        let lied = if format == "raw" { "qcow2" } else { "raw" };
        assert_eq!(ran(&[Plugin::Conversion], Output::Raw, lied, &at.join(&name)).unwrap_err().code(), 415);
    }
    assert_eq!(files(at), 0);
}

#[test]
fn a_disk_that_hides_another_format_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    std::fs::write(at.join("inner"), pilvi_disk::samples::qcow2(1 << 20)).unwrap();
    if program(at, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "inner", "outer"]) {
        assert_eq!(ran(&[Plugin::Conversion], Output::Raw, "qcow2", &at.join("outer")).unwrap_err().code(), 415);
        assert_eq!(files(at), 0);
    }
}

#[test]
fn properties_are_injected_but_for_ignored_roles() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("disk");
    std::fs::write(&file, disk()).unwrap();
    let inject = [("hw_disk_bus", "virtio"), ("os_glance_secret", "x"), ("status", "active"), ("visibility", "public")];
    let settings = Settings {
        plugins: vec![Plugin::NoOp, Plugin::Inject],
        inject: inject.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Settings::default()
    };
    let asked = |roles: &[&str]| {
        let mut work = Work::new(&image("raw"), &file, "t");
        let roles: Vec<String> = roles.iter().map(|r| (*r).to_owned()).collect();
        run(&settings, &limits(), &roles, &file, &mut work).unwrap();
        std::mem::take(&mut work.properties)
    };
    assert_eq!(asked(&["member"]), BTreeMap::from([("hw_disk_bus".to_owned(), "virtio".to_owned())]));
    assert!(asked(&["member", "Admin"]).is_empty());
    assert_eq!(Source::size(&File::open(&file).unwrap()).unwrap(), SIZE);
}
