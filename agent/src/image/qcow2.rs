//! qcow2 images become raw files here, and only here.
//!
//! The file comes from a user, so nothing that it names is opened: an image with a backing file or
//! an external data file is refused by the library's gate, and its size is checked before a byte
//! is converted. The result is sparse: what reads as zeroes takes no room.
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes converted at a time.
const PIECE: u64 = 1 << 20;
/// Largest guest-visible size of an image, in bytes: 16 TiB.
const LARGEST: u64 = 16 << 40;

/// Writes the guest-visible content of the qcow2 file `from` to a new raw file `to`. `limit` is
/// the largest size that is wanted, in bytes; 0 for none. Blocks; call it where that is fine.
///
/// # Errors
/// When the image is malformed, names another file, is too large, or a file cannot be used.
pub fn to_raw(from: &Path, to: &Path, limit: u64) -> io::Result<()> {
    let file = File::open(from)?;
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let run = tokio::runtime::Builder::new_current_thread().build()?;
    run.block_on(convert(file, &target, limit))?;
    target.sync_all()
}

async fn convert(file: File, target: &File, limit: u64) -> io::Result<()> {
    let image = Qcow2::<Storage>::builder(Storage::try_from(file)?)
        .open(DenyImplicitOpenGate::default())
        .await
        .map_err(|e| io::Error::other(format!("not a qcow2 image that can be used: {e}")))?;
    let image = FormatAccess::new(image);
    let size = image.size();
    let largest = if limit > 0 { limit.min(LARGEST) } else { LARGEST };
    if size > largest {
        let (need, have) = (size.div_ceil(1 << 30), largest >> 30);
        return Err(io::Error::other(format!("it needs {need} GiB, the disk has {have}")));
    }
    target.set_len(size)?;
    let mut piece = vec![0; PIECE as usize];
    let mut offset = 0;
    while offset < size {
        let (mapping, length) = image.get_mapping(offset, size - offset).await?;
        if length == 0 {
            return Err(io::Error::other("the image ends too early"));
        }
        if matches!(mapping, Mapping::Zero { .. }) {
            offset += length;
            continue;
        }
        let length = length.min(PIECE);
        let buffer = &mut piece[..length as usize];
        image.read(&mut *buffer, offset).await?;
        if buffer.iter().any(|byte| *byte != 0) {
            target.write_all_at(buffer, offset)?;
        }
        offset += length;
    }
    Ok(())
}
