//! What a server's volumes are to its host, and what the host's word makes of them. Pure.
use crate::tables::{Server, VolumeOf, VolumeStage};
use pilvi_agent_api::v1;

/// Volumes that one server may have, as Nova's hosts allow them.
pub const VOLUMES_MAX: usize = 26;

/// Its root disk is a volume, made or still to be made.
pub fn backed(server: &Server) -> bool {
    server.volumes.iter().any(|volume| volume.root) || server.volume_wishes.iter().any(|wish| wish.root)
}

/// A volume as a disk of the guest's.
pub fn disk(volume: &VolumeOf) -> v1::Disk {
    v1::Disk {
        id: volume.volume_id.clone(),
        volume: Some(v1::VolumeRef { id: volume.volume_id.clone(), ..v1::VolumeRef::default() }),
        ..v1::Disk::default()
    }
}

/// The root volume, if it is one.
pub fn root(server: &Server) -> Option<&VolumeOf> {
    server.volumes.iter().find(|volume| volume.root)
}

/// Volumes beside the root, as far as the guest shall have them.
pub fn others(server: &Server) -> impl Iterator<Item = &VolumeOf> {
    server.volumes.iter().filter(|volume| !volume.root && volume.stage != VolumeStage::Detaching)
}

/// The first name that no disk has; `asked` if that is free.
pub fn device_name(server: &Server, asked: Option<&str>) -> String {
    let own = 1
        + usize::from(server.flavor.ephemeral_gib > 0)
        + usize::from(server.flavor.swap_mib > 0)
        + usize::from(server.config_drive);
    let taken = |name: &str| server.volumes.iter().any(|volume| volume.device == name);
    if let Some(asked) = asked.filter(|asked| asked.starts_with("/dev/") && !taken(asked)) {
        return asked.to_owned();
    }
    let letters = (b'a'..=b'z').skip(own).map(|letter| format!("/dev/vd{}", char::from(letter)));
    letters.into_iter().find(|name| !taken(name)).unwrap_or_else(|| "/dev/vdzz".to_owned())
}

/// What became of a volume of a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// The guest has it, or will when it starts.
    Attached(VolumeOf),
    /// The guest has it no more.
    Detached(VolumeOf),
}

/// Takes what the host said last; gives what has changed with it.
pub fn settle(server: &mut Server) -> Vec<Became> {
    let Some(seen) = &server.seen else { return Vec::new() };
    if !seen.settled || seen.generation < server.wanted.generation || server.wanted.delete {
        return Vec::new();
    }
    let machine = !seen.devices.is_empty();
    let has = |volume: &VolumeOf| seen.devices.contains(&volume.volume_id);
    let mut news = Vec::new();
    for volume in &mut server.volumes {
        match volume.stage {
            VolumeStage::Attaching if (has(volume) || !machine) && seen.error.is_empty() => {
                volume.stage = VolumeStage::Attached;
                news.push(Became::Attached(volume.clone()));
            }
            VolumeStage::Detaching if !has(volume) => news.push(Became::Detached(volume.clone())),
            _ => {}
        }
    }
    server.volumes.retain(|volume| volume.stage != VolumeStage::Detaching || has(volume));
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{server::model::tests::server, tables::Seen};

    fn volume(id: &str, stage: VolumeStage) -> VolumeOf {
        VolumeOf { volume_id: id.into(), device: format!("/dev/{id}"), stage, ..VolumeOf::default() }
    }

    fn says(server: &mut Server, devices: &[&str]) -> Vec<Became> {
        server.seen = Some(Seen {
            generation: server.wanted.generation,
            settled: true,
            devices: devices.iter().map(|d| (*d).to_owned()).collect(),
            ..Seen::default()
        });
        settle(server)
    }

    #[test]
    fn the_host_says_when_a_guest_has_a_volume() {
        let mut s = server();
        s.volumes = vec![volume("vdb", VolumeStage::Attaching)];
        assert_eq!(says(&mut s, &["root"]), []);
        assert_eq!(says(&mut s, &["root", "vdb"]).len(), 1);
        assert_eq!(s.volumes[0].stage, VolumeStage::Attached);
        // A guest that does not run has it when it starts.
        s.volumes.push(volume("vdc", VolumeStage::Attaching));
        assert_eq!(says(&mut s, &[]).len(), 1);
    }

    #[test]
    fn the_host_says_when_a_guest_has_let_go_of_it() {
        let mut s = server();
        s.volumes = vec![volume("vdb", VolumeStage::Detaching), volume("vdc", VolumeStage::Attached)];
        assert_eq!(says(&mut s, &["root", "vdb", "vdc"]), []);
        assert_eq!(others(&s).count(), 1, "it is wanted no more");
        assert_eq!(says(&mut s, &["root", "vdc"]), [Became::Detached(volume("vdb", VolumeStage::Detaching))]);
        assert_eq!(s.volumes.len(), 1);
        // What was said before the wish says nothing about it.
        s.volumes[0].stage = VolumeStage::Detaching;
        s.wanted.generation += 1;
        assert_eq!(settle(&mut s), []);
    }

    #[test]
    fn names_follow_the_disks() {
        let mut s = server();
        (s.flavor.ephemeral_gib, s.flavor.swap_mib, s.config_drive) = (0, 0, false);
        assert_eq!(device_name(&s, None), "/dev/vdb");
        s.config_drive = true;
        assert_eq!(device_name(&s, None), "/dev/vdc");
        s.volumes = vec![volume("vdc", VolumeStage::Attached)];
        assert_eq!(device_name(&s, None), "/dev/vdd");
        assert_eq!(device_name(&s, Some("/dev/vdx")), "/dev/vdx");
        assert_eq!(device_name(&s, Some("/dev/vdc")), "/dev/vdd");
    }
}
