//! What a file system says should be started: Boot Loader Specification entries, GRUB's configuration, or the links that
//! Debian keeps to its newest kernel.
//!
//! GRUB's language is a shell; understood is what `grub-mkconfig` writes: the first `menuentry`, in it the first `linux`
//! and `initrd`. Words with variables are left out, for nobody here would expand them; of BLS entries the one variable
//! that Fedora and its kin use (`$kernelopts`) is looked up where they keep it.

use super::Reader;
use super::partitions::Stretch;

/// Where a boot folder can be: in the root's file system, or one of its own.
const BASES: [&str; 2] = ["/boot", ""];

/// What to start. Paths are of the file system that it was found in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its file.
    pub kernel: String,
    /// One or more, one after the other.
    pub initramfs: Vec<String>,
    /// Without what follows from the configuration.
    pub cmdline: String,
}

/// The entry that the file system would start by itself.
pub fn choose(reader: &Reader, stretch: &Stretch) -> Option<Entry> {
    let all = BASES.iter().flat_map(|base| [bls(reader, base), grub(reader, base), links(reader, base, stretch)]);
    all.flatten().find(|entry| reader.has(&entry.kernel))
}

/// The newest of `loader/entries`.
fn bls(reader: &Reader, base: &str) -> Option<Entry> {
    let folder = format!("{base}/loader/entries");
    let mut names: Vec<String> = reader.names(&folder).into_iter().filter(|n| n.ends_with(".conf")).collect();
    names.sort_by_key(|name| version_key(name));
    let text = reader.text(&format!("{folder}/{}", names.pop()?))?;
    let options = ["grub2", "grub"].iter().find_map(|grub| reader.text(&format!("{base}/{grub}/grubenv")));
    let options = options.and_then(|text| text.lines().find_map(|l| l.strip_prefix("kernelopts=").map(str::to_owned)));
    parse_bls(&text, &options.unwrap_or_default(), |path| absolute(reader, base, path))
}

/// Digits count as numbers, so that 6.10 is newer than 6.9.
fn version_key(name: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(letters);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        key.push((text.to_owned(), number.parse().unwrap_or(0)));
        rest = after;
    }
    key
}

fn parse_bls(text: &str, kernelopts: &str, path: impl Fn(&str) -> String) -> Option<Entry> {
    let mut entry = Entry::default();
    let mut options = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        match key {
            "linux" => entry.kernel = path(value),
            "initrd" => entry.initramfs.extend(plain(value).map(&path)),
            "options" => options.extend(value.split_whitespace().flat_map(|word| match word {
                "$kernelopts" => kernelopts.split_whitespace().collect::<Vec<_>>(),
                word => plain(word).collect(),
            })),
            _ => {}
        }
    }
    entry.cmdline = options.join(" ");
    (!entry.kernel.is_empty()).then_some(entry)
}

/// Words without variables.
fn plain(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| !word.contains('$'))
}

/// A path of an entry is the file system's own, or begins below the boot folder.
fn absolute(reader: &Reader, base: &str, path: &str) -> String {
    let path = format!("/{}", path.trim_start_matches('/'));
    let below = format!("{base}{path}");
    if !reader.has(&path) && reader.has(&below) { below } else { path }
}

fn grub(reader: &Reader, base: &str) -> Option<Entry> {
    let text = ["grub", "grub2"].iter().find_map(|grub| reader.text(&format!("{base}/{grub}/grub.cfg")))?;
    parse_grub(&text, |path| absolute(reader, base, path))
}

fn parse_grub(text: &str, path: impl Fn(&str) -> String) -> Option<Entry> {
    let mut entry = Entry::default();
    let mut inside = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("menuentry") if entry.kernel.is_empty() => inside = true,
            // The next entry: what the first has is all.
            Some("menuentry" | "submenu") => break,
            Some("linux" | "linux16" | "linuxefi") if inside && entry.kernel.is_empty() => {
                entry.kernel = path(words.next()?);
                entry.cmdline = words.filter(|word| !word.contains('$')).collect::<Vec<_>>().join(" ");
            }
            Some("initrd" | "initrd16" | "initrdefi") if inside => {
                entry.initramfs = words.filter(|word| !word.contains('$')).map(&path).collect();
            }
            _ => {}
        }
    }
    (!entry.kernel.is_empty()).then_some(entry)
}

/// `/vmlinuz` and `/initrd.img`; the root is where they are.
fn links(reader: &Reader, base: &str, stretch: &Stretch) -> Option<Entry> {
    let kernel = format!("{base}/vmlinuz");
    let initramfs = format!("{base}/initrd.img");
    let initramfs = if reader.has(&initramfs) { vec![initramfs] } else { Vec::new() };
    let cmdline = format!("root={} ro{}", stretch.root, reader.root_flags());
    reader.has(&kernel).then_some(Entry { kernel, initramfs, cmdline })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_grub_mkconfig_writes_is_understood() {
        let text = "set default=0\nif [ x ]; then\n  linux /wrong\nfi\nmenuentry 'Debian' --class debian {\n\tinsmod ext2\n\
            \tsearch --fs-uuid --set=root abc\n\tlinux\t/boot/vmlinuz-6.1 root=UUID=abc ro $vt_handoff quiet\n\
            \tinitrd\t/boot/initrd.img-6.1\n}\nsubmenu 'Old' {\nmenuentry 'x' {\n linux /boot/old\n}\n}\n";
        let entry = parse_grub(text, str::to_owned).unwrap();
        assert_eq!((entry.kernel.as_str(), entry.cmdline.as_str()), ("/boot/vmlinuz-6.1", "root=UUID=abc ro quiet"));
        assert_eq!(entry.initramfs, ["/boot/initrd.img-6.1"]);
        assert_eq!(parse_grub("menuentry x {\n}\n", str::to_owned), None);
    }

    #[test]
    fn boot_loader_entries_are_understood_and_the_newest_is_last() {
        let text = "title Fedora\nversion 6.1\nlinux /vmlinuz-6.1\ninitrd /initramfs-6.1.img $tuned_initrd\n\
            options $kernelopts $tuned_params\noptions quiet\n";
        let entry = parse_bls(text, "root=UUID=1 ro", str::to_owned).unwrap();
        assert_eq!((entry.cmdline.as_str(), entry.initramfs.len()), ("root=UUID=1 ro quiet", 1));
        let mut names = ["a-6.10.conf", "a-6.9.conf", "a-6.2.conf"];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names[2], "a-6.10.conf");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[ a-z$/\n\t{}]{0,300}") {
            let _ = parse_grub(&format!("menuentry x {{\nlinux {text}"), str::to_owned);
            let _ = parse_bls(&text, "", str::to_owned);
            version_key(&text);
        }
    }
}
