//! Which guests of the own VMM are started by a BIOS: those whose image asks for one, and those whose disk has a boot
//! sector but no kernel that is found. The VMM looks at every start, so a guest keeps its devices whichever it is.
use super::{Kvm, transport};
use crate::runtime::Machine;
use pilvi_vmm::boot::probe::Boots;
use pilvi_vmm::config::Transport;
use std::collections::BTreeMap;
use std::path::PathBuf;

const PROPERTY: &str = "hw_firmware_type";

fn asked(properties: &BTreeMap<String, String>) -> &str {
    properties.get(PROPERTY).map_or("", String::as_str)
}

/// Whether an image is to be started by a BIOS whatever else is on its disk.
pub(super) fn is_asked_for(properties: &BTreeMap<String, String>) -> bool {
    asked(properties) == "bios"
}

impl Kvm {
    fn can(&self, properties: &BTreeMap<String, String>) -> bool {
        matches!(asked(properties), "" | "bios") && transport(properties) == Transport::Pci && self.firmware.is_file()
    }

    /// The image of the firmware that a machine may be started by.
    pub(super) fn firmware_for(&self, machine: &Machine) -> Option<PathBuf> {
        (machine.boot.is_none() && self.can(&machine.properties)).then(|| self.firmware.clone())
    }

    /// Whether a disk of which this was found starts; or why not.
    pub(super) fn judge(&self, found: &Boots, properties: &BTreeMap<String, String>) -> Result<(), String> {
        let can = self.can(properties);
        match found {
            Boots { boot_sector: true, .. } if can => Ok(()),
            Boots { boots: true, .. } if asked(properties) == "uefi" => {
                Err(format!("its image asks for {PROPERTY}=uefi, which it does not have"))
            }
            Boots { boots: true, .. } if !is_asked_for(properties) => Ok(()),
            _ if is_asked_for(properties) && !can => {
                Err(format!("its image asks for {PROPERTY}=bios, and this host has no {}", self.firmware.display()))
            }
            Boots { boots: true, .. } => Err(format!("its image asks for {PROPERTY}=bios, and it has no boot sector")),
            Boots { reason, .. } => Err(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_boot_sector_counts_where_there_is_a_bios_and_the_image_does_not_forbid_it() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let kvm = |there: bool| {
            let vmm_firmware = if there { image.path().to_owned() } else { "/nonexistent/bios".into() };
            Kvm::new(&Config { vmm_firmware, ..Config::default() }, None, &super::super::unprobed())
        };
        let found = |boots, boot_sector| Boots { boots, boot_sector, reason: "no kernel".into(), ..Boots::default() };
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (any, bios, uefi) = (of(&[]), of(&[(PROPERTY, "bios")]), of(&[(PROPERTY, "uefi")]));
        let mmio = of(&[("hw_pilvi_transport", "mmio")]);
        for (there, boots, sector, properties, starts) in [
            (true, false, true, &any, true),
            (true, true, false, &any, true),
            (true, false, false, &any, false),
            (false, false, true, &any, false),
            (false, true, true, &any, true),
            (true, true, true, &bios, true),
            (true, true, false, &bios, false),
            (false, true, true, &bios, false),
            (true, false, true, &uefi, false),
            (true, true, true, &uefi, false),
            (false, true, false, &uefi, false),
            (true, false, true, &mmio, false),
        ] {
            let judged = kvm(there).judge(&found(boots, sector), properties);
            assert_eq!(judged.is_ok(), starts, "{there} {boots} {sector} {properties:?}: {judged:?}");
        }
        let machine = |properties: &BTreeMap<String, String>, boot| {
            kvm(true).firmware_for(&Machine { properties: properties.clone(), boot, ..Machine::default() }).is_some()
        };
        let kernel = crate::runtime::DirectBoot { kernel: "k".into(), ramdisk: None, cmdline: String::new() };
        assert!(machine(&any, None) && machine(&bios, None) && !machine(&uefi, None) && !machine(&any, Some(kernel)));
    }
}
